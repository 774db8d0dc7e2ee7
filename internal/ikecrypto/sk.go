package ikecrypto

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"vpnprobe/internal/wire/ike"
)

var (
	errNotEncrypted = errors.New("message without an encrypted payload")
	errOtherSA      = errors.New("message of another IKE SA")
)

const (
	genericHeaderLen  = 4
	fragmentHeaderLen = 4 // number and total (RFC 7383 section 2.5)

	// maxPayload is the most that a payload's length field can say.
	maxPayload = 0xffff
)

// Seal returns a whole message with the inner payloads encrypted (RFC 7296
// section 3.14), as the SA's original initiator or its responder sends it. Of
// the header it takes the exchange, the response flag and the message ID; the
// rest follows from the SA. To send a message again is to send the same bytes
// again, not to seal it again.
func (k *Keys) Seal(initiator bool, h ike.Header, inner []ike.Payload) ([]byte, error) {
	n := 0
	for _, p := range inner {
		n += genericHeaderLen + len(p.Body)
	}
	first := ike.NoNextPayload
	if len(inner) > 0 {
		first = inner[0].Type
	}
	if n > maxPayload { // before a length field overflows
		return nil, errTooLong(n)
	}
	h.NextPayload = ike.PayloadEncrypted
	return k.seal(initiator, h, first, nil, ike.AppendPayloads(nil, inner))
}

// seal returns a message with one payload of the header's type, which is
// Encrypted or, with the fragment's header, Fragment.
func (k *Keys) seal(initiator bool, h ike.Header, inner ike.PayloadType, fragment, content []byte) ([]byte, error) {
	side := k.side(initiator)
	n := genericHeaderLen + len(fragment) + side.bodyLen(len(content))
	if n > maxPayload {
		return nil, errTooLong(n)
	}
	h.SPIi, h.SPIr, h.Version = k.spii, k.spir, ike.V2
	h.Flags &^= ike.FlagInitiator
	if initiator {
		h.Flags |= ike.FlagInitiator
	}
	h.Length = uint32(ike.HeaderLen + n)
	head := h.Append(make([]byte, 0, h.Length))
	head = append(head, byte(inner), 0)
	head = binary.BigEndian.AppendUint16(head, uint16(n))
	return side.seal(append(head, fragment...), content), nil
}

func errTooLong(n int) error {
	return fmt.Errorf("seal: payloads of %d bytes do not fit into one", n)
}

// Open verifies and decrypts a message of the SA, from the end that its
// header's flags name, and returns it with the inner payloads in place of the
// Encrypted one. It does not change m. The error is [ErrIntegrity] when the
// message was not protected with these keys.
func (k *Keys) Open(m []byte) (ike.Message, error) {
	msg, content, err := k.open(m, ike.PayloadEncrypted, 0)
	if err != nil {
		return ike.Message{}, fmt.Errorf("open: %w", err)
	}
	return replaceLast(msg, content)
}

// open returns the message m, whose last payload must be of the encrypted
// type t, and that payload's content. The payload has a header of n bytes.
func (k *Keys) open(m []byte, t ike.PayloadType, n int) (ike.Message, []byte, error) {
	msg, err := ike.Parse(m)
	if err != nil {
		return ike.Message{}, nil, err
	}
	if msg.SPIi != k.spii || msg.SPIr != k.spir || msg.Version.Major() != ike.V2.Major() {
		return ike.Message{}, nil, errOtherSA
	}
	// An encrypted payload is the last one always.
	if len(msg.Payloads) == 0 || msg.Payloads[len(msg.Payloads)-1].Type != t {
		return ike.Message{}, nil, errNotEncrypted
	}
	body := msg.Payloads[len(msg.Payloads)-1].Body
	if len(body) < n {
		return ike.Message{}, nil, errBody
	}
	side := k.side(msg.Flags&ike.FlagInitiator != 0)
	content, err := side.open(m, len(m)-len(body)+n)
	return msg, content, err
}

// replaceLast returns the message with the content in place of its last
// payload. Those before it, of which there are none mostly, are authentic
// just as well.
func replaceLast(msg ike.Message, content []byte) (ike.Message, error) {
	last := len(msg.Payloads) - 1
	inner, err := ike.ParsePayloads(msg.Payloads[last].Inner, content)
	if err != nil {
		return ike.Message{}, fmt.Errorf("open: inside the encrypted payload: %w", err)
	}
	msg.Payloads = slices.Concat(msg.Payloads[:last], inner)
	return msg, nil
}
