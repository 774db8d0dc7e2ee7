package ike

import "encoding/binary"

// Proposal is one proposal of an SA payload (RFC 7296 section 3.3.1): the
// initiator offers each transform type's transforms as alternatives.
type Proposal struct {
	Protocol   ProtocolID
	SPI        []byte // empty in an IKE_SA_INIT
	Transforms []Transform
}

// Transform is one transform of a proposal (RFC 7296 section 3.3.2).
type Transform struct {
	Type TransformType
	ID   uint16
	// KeyLength is the value of the Key Length attribute in bits; 0 leaves
	// the attribute out.
	KeyLength uint16
}

// attrKeyLength is the Key Length attribute in its short form (RFC 7296
// section 3.3.5).
const attrKeyLength = 0x8000 | 14

const (
	proposalHeaderLen  = 8
	transformHeaderLen = 8
	attributeLen       = 4

	// In the place of a next payload stands whether another follows.
	moreProposals  = 2
	moreTransforms = 3
)

// SA returns the proposals, in order of preference, as an IKEv2 SA payload.
func SA(proposals ...Proposal) Payload {
	var b []byte
	for i, p := range proposals {
		start := len(b)
		b = append(b, more(i, len(proposals), moreProposals), 0, 0, 0,
			byte(i+1), byte(p.Protocol), byte(len(p.SPI)), byte(len(p.Transforms)))
		b = append(b, p.SPI...)
		for j, t := range p.Transforms {
			b = t.append(b, more(j, len(p.Transforms), moreTransforms))
		}
		binary.BigEndian.PutUint16(b[start+2:], uint16(len(b)-start))
	}
	return Payload{Type: PayloadSA, Body: b}
}

func more(i, n int, follows byte) byte {
	if i+1 < n {
		return follows
	}
	return 0
}

func (t Transform) append(b []byte, more byte) []byte {
	n := transformHeaderLen
	if t.KeyLength != 0 {
		n += attributeLen
	}
	b = append(b, more, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(n))
	b = append(b, byte(t.Type), 0)
	b = binary.BigEndian.AppendUint16(b, t.ID)
	if t.KeyLength != 0 {
		b = binary.BigEndian.AppendUint16(b, attrKeyLength)
		b = binary.BigEndian.AppendUint16(b, t.KeyLength)
	}
	return b
}

// KE returns a Key Exchange payload (RFC 7296 section 3.4): a public value in
// the given group.
func KE(group uint16, public []byte) Payload {
	b := binary.BigEndian.AppendUint16(nil, group)
	b = append(b, 0, 0)
	return Payload{Type: PayloadKE, Body: append(b, public...)}
}

// Nonce returns a Nonce payload (RFC 7296 section 3.9); a nonce has 16 to 256
// bytes.
func Nonce(nonce []byte) Payload {
	return Payload{Type: PayloadNonce, Body: nonce}
}
