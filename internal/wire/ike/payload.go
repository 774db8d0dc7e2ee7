package ike

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Message is one IKE message.
type Message struct {
	// Header's NextPayload and Length are computed by [Message.Append].
	Header
	// Payloads are in the order of the message. There are none of an encrypted
	// IKEv1 message; the last one of an encrypted IKEv2 message is the
	// Encrypted payload, unopened.
	Payloads []Payload
	// Ciphertext is what follows the header of an encrypted IKEv1 message.
	Ciphertext []byte
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
	b = b[HeaderLen:]
	v1 := h.Version.Major() == V1.Major()
	if v1 && h.Flags&FlagEncryptedV1 != 0 {
		m.Ciphertext = b
		return m, nil
	}
	list, rest, err := CutPayloads(h.NextPayload, b)
	if err != nil {
		return m, err
	}
	if len(rest) > 0 && !(v1 && isPadding(rest)) {
		return m, errTrailing
	}
	m.Payloads = list
	return m, nil
}

// isPadding reports whether b is what the FreeS/WAN family fills IKEv1 messages
// with, to a multiple of 4 bytes.
func isPadding(b []byte) bool {
	return len(b) < 4 && bytes.Count(b, []byte{0}) == len(b)
}

// ParsePayloads reads a chain of payloads, the first of which is of the given
// type. An Encrypted payload ends the chain, as it does in a message.
func ParsePayloads(first PayloadType, b []byte) ([]Payload, error) {
	list, rest, err := CutPayloads(first, b)
	if err == nil && len(rest) > 0 {
		return nil, errTrailing
	}
	return list, err
}

// CutPayloads is [ParsePayloads] for a chain that may be followed by other
// bytes, which it returns: a decrypted IKEv1 message ends in padding.
func CutPayloads(first PayloadType, b []byte) (list []Payload, rest []byte, err error) {
	n := 0
	rest = b
	for next := first; next != NoNextPayload; n++ {
		if n == maxPayloads {
			return nil, nil, errTooMany
		}
		if _, next, rest, err = cutPayload(next, rest); err != nil {
			return nil, nil, err
		}
	}
	if n == 0 {
		return nil, rest, nil
	}
	list = make([]Payload, n)
	for i, next := 0, first; i < n; i++ {
		list[i], next, b, _ = cutPayload(next, b) // cannot fail: it did not above
	}
	return list, rest, nil
}

// cutPayload returns the payload of type t at the start of b, the type of the
// next one and what follows.
func cutPayload(t PayloadType, b []byte) (p Payload, next PayloadType, rest []byte, err error) {
	if len(b) < genericHeaderLen {
		return Payload{}, 0, nil, fmt.Errorf("%v payload: %d bytes left for its header", t, len(b))
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if n < genericHeaderLen || n > len(b) {
		return Payload{}, 0, nil, fmt.Errorf("%v payload: length %d with %d bytes left", t, n, len(b))
	}
	p = Payload{Type: t, Critical: b[1]&criticalBit != 0, Body: b[genericHeaderLen:n:n]}
	next = PayloadType(b[0])
	if t.encrypted() {
		p.Inner, next = next, NoNextPayload
	}
	return p, next, b[n:], nil
}

// Append appends the message to b. It computes NextPayload and Length, except
// that NextPayload is kept of an encrypted message of IKEv1, whose Ciphertext
// it appends. It panics when a payload is longer than its length
// field can say, which only its author can prevent.
func (m Message) Append(b []byte) []byte {
	size := HeaderLen + len(m.Ciphertext)
	for _, p := range m.Payloads {
		size += genericHeaderLen + len(p.Body)
	}
	b = slices.Grow(b, size)
	start := len(b)
	h := m.Header
	if len(m.Payloads) > 0 {
		h.NextPayload = m.Payloads[0].Type
	} else if h.Flags&FlagEncryptedV1 == 0 {
		h.NextPayload = NoNextPayload
	}
	b = h.Append(b)
	b = AppendPayloads(b, m.Payloads)
	if len(m.Payloads) == 0 {
		b = append(b, m.Ciphertext...)
	}
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
		n := length16("payload", genericHeaderLen+len(p.Body))
		var critical byte
		if p.Critical {
			critical = criticalBit
		}
		b = append(b, byte(next), critical)
		b = binary.BigEndian.AppendUint16(b, n)
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
