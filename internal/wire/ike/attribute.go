package ike

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Attribute is a data attribute of a transform (RFC 7296 section 3.3.5, RFC
// 2408 section 3.3), or one of a Configuration payload (RFC 7296 section
// 3.15.1).
type Attribute struct {
	// Type has 15 bits.
	Type uint16
	// Value is the whole value of an attribute of the short form.
	Value uint16
	// Data is the value of an attribute of the long form, and nil of one of
	// the short form. Those of a Configuration payload are all long.
	Data []byte
}

const (
	attributeHeaderLen = 4
	attributeShort     = 0x8000 // the bit that marks the short form
)

var (
	errAttribute       = errors.New("attribute shorter than 4 bytes")
	errAttributeLength = errors.New("attribute longer than what holds it")
)

// cutAttribute returns the attribute at the start of b and what follows it.
// Where long is set there is no short form: the highest bit means nothing.
func cutAttribute(b []byte, long bool) (Attribute, []byte, error) {
	if len(b) < attributeHeaderLen {
		return Attribute{}, nil, errAttribute
	}
	t, v := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	b = b[attributeHeaderLen:]
	a := Attribute{Type: t &^ attributeShort}
	if !long && t&attributeShort != 0 {
		a.Value = v
		return a, b, nil
	}
	if int(v) > len(b) {
		return Attribute{}, nil, errAttributeLength
	}
	a.Data = b[:v:v]
	return a, b[v:], nil
}

// parseAttributes reads a list of attributes.
func parseAttributes(b []byte, long bool) ([]Attribute, error) {
	n := 0
	for rest := b; len(rest) > 0; n++ {
		var err error
		if _, rest, err = cutAttribute(rest, long); err != nil {
			return nil, err
		}
	}
	if n == 0 {
		return nil, nil
	}
	list := make([]Attribute, n)
	for i := range list {
		list[i], b, _ = cutAttribute(b, long) // cannot fail: it did not above
	}
	return list, nil
}

func (a Attribute) append(b []byte, long bool) []byte {
	if !long && a.Data == nil {
		b = binary.BigEndian.AppendUint16(b, a.Type|attributeShort)
		return binary.BigEndian.AppendUint16(b, a.Value)
	}
	b = binary.BigEndian.AppendUint16(b, a.Type&^attributeShort)
	b = binary.BigEndian.AppendUint16(b, length16("attribute", len(a.Data)))
	return append(b, a.Data...)
}

func appendAttributes(b []byte, list []Attribute, long bool) []byte {
	for _, a := range list {
		b = a.append(b, long)
	}
	return b
}

// length8 returns n for a length or count field of one byte. What is longer
// only its author can prevent.
func length8(what string, n int) byte {
	if n > 0xff {
		panic(fmt.Sprintf("ike: %s of %d, where 255 is the most", what, n))
	}
	return byte(n)
}

// length16 is length8 for a field of two bytes.
func length16(what string, n int) uint16 {
	if n > 0xffff {
		panic(fmt.Sprintf("ike: %s of %d, where 65535 is the most", what, n))
	}
	return uint16(n)
}
