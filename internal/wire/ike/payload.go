package ike

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Message is one IKE message.
type Message struct {
	// Header's NextPayload and Length are computed by [Message.Append].
	Header
	// Payloads are in the order of the message. They are absent of an
	// encrypted IKEv1 message; the last one of an encrypted IKEv2 message is
	// the Encrypted payload, unopened.
	Payloads []Payload
}

// Payload is one payload without its generic header.
type Payload struct {
	Type     PayloadType
	Critical bool // a recipient that does not know the type must refuse the message
	Body     []byte
	// Inner is the type of the first payload inside an encrypted one, and 0
	// of all others (RFC 7296 section 3.14).
	Inner PayloadType
}

const (
	genericHeaderLen = 4
	criticalBit      = 0x80

	// maxPayloads bounds the work on a hostile message. A large real one, an
	// IKE_SA_INIT with every vendor ID there is, has about 30.
	maxPayloads = 128
)

// The ways in which a chain of payloads is malformed.
var (
	errTooMany  = fmt.Errorf("more than %d payloads", maxPayloads)
	errTrailing = errors.New("bytes behind the last payload")
)

// Parse reads one whole message. Its length must be what the header says;
// payloads may be of unknown types.
func Parse(b []byte) (Message, error) {
	h, err := ParseHeader(b)
	if err != nil {
		return Message{}, err
	}
	if int64(h.Length) != int64(len(b)) {
		return Message{}, fmt.Errorf("%d bytes where the IKE header says %d", len(b), h.Length)
	}
	m := Message{Header: h}
	if h.Version.Major() == V1.Major() && h.Flags&FlagEncryptedV1 != 0 {
		return m, nil
	}
	m.Payloads, err = ParsePayloads(h.NextPayload, b[HeaderLen:])
	return m, err
}

// ParsePayloads reads a chain of payloads, the first of which is of the given
// type. An Encrypted payload ends the chain, as it does in a message.
func ParsePayloads(first PayloadType, b []byte) ([]Payload, error) {
	var list []Payload
	for next := first; next != NoNextPayload; {
		if len(list) == maxPayloads {
			return nil, errTooMany
		}
		if len(b) < genericHeaderLen {
			return nil, fmt.Errorf("%v payload: %d bytes left for its header", next, len(b))
		}
		n := int(binary.BigEndian.Uint16(b[2:]))
		if n < genericHeaderLen || n > len(b) {
			return nil, fmt.Errorf("%v payload: length %d with %d bytes left", next, n, len(b))
		}
		p := Payload{Type: next, Critical: b[1]&criticalBit != 0, Body: b[genericHeaderLen:n]}
		next = PayloadType(b[0])
		b = b[n:]
		if p.Type.encrypted() {
			p.Inner, next = next, NoNextPayload
		}
		list = append(list, p)
	}
	if len(b) != 0 {
		return nil, errTrailing
	}
	return list, nil
}

// Append appends the message to b. It computes NextPayload and Length, except
// that NextPayload is kept when there are no payloads and the message is an
// encrypted one of IKEv1. It panics when a payload is longer than its length
// field can say, which only its author can prevent.
func (m Message) Append(b []byte) []byte {
	start := len(b)
	h := m.Header
	if len(m.Payloads) > 0 {
		h.NextPayload = m.Payloads[0].Type
	} else if h.Flags&FlagEncryptedV1 == 0 {
		h.NextPayload = NoNextPayload
	}
	b = h.Append(b)
	b = AppendPayloads(b, m.Payloads)
	binary.BigEndian.PutUint32(b[start+HeaderLen-4:], uint32(len(b)-start))
	return b
}

// AppendPayloads appends a chain of payloads to b.
func AppendPayloads(b []byte, list []Payload) []byte {
	for i, p := range list {
		next := p.Inner
		if !p.Type.encrypted() {
			next = NoNextPayload
			if i+1 < len(list) {
				next = list[i+1].Type
			}
		}
		n := genericHeaderLen + len(p.Body)
		if n > 0xffff {
			panic(fmt.Sprintf("ike: %v payload of %d bytes", p.Type, n))
		}
		var critical byte
		if p.Critical {
			critical = criticalBit
		}
		b = append(b, byte(next), critical)
		b = binary.BigEndian.AppendUint16(b, uint16(n))
		b = append(b, p.Body...)
	}
	return b
}

// First returns the message's first payload of a type.
func (m Message) First(t PayloadType) (Payload, bool) {
	for _, p := range m.Payloads {
		if p.Type == t {
			return p, true
		}
	}
	return Payload{}, false
}
