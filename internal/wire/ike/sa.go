package ike

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Proposal is one proposal of an SA payload (RFC 7296 section 3.3.1): the
// initiator offers each transform type's transforms as alternatives, the
// responder chooses one of each.
type Proposal struct {
	// Number is what a responder names the proposal by that it chooses; 0
	// when building means the position, counted from 1.
	Number     uint8
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
	// Attributes are all but the Key Length at their start. No other is
	// defined of the algorithms here, and a transform with one that is not
	// known must be refused.
	Attributes []Attribute
}

// AttrKeyLength is the Key Length attribute, the only one of an IKEv2
// transform (RFC 7296 section 3.3.5).
const AttrKeyLength uint16 = 14

const (
	proposalHeaderLen  = 8
	transformHeaderLen = 8

	// In the place of a next payload stands whether another follows.
	moreProposals  = 2
	moreTransforms = 3

	// maxProposals bounds the work on a hostile SA payload; it is as many as
	// can be told apart by their number.
	maxProposals = 255
)

// SA returns the proposals, in order of preference, as an IKEv2 SA payload. It
// panics when a proposal has more than 255 transforms, or an SPI of more than
// 255 bytes.
func SA(proposals ...Proposal) Payload {
	size := 0 // without attributes but key lengths
	for _, p := range proposals {
		size += proposalHeaderLen + len(p.SPI) + len(p.Transforms)*(transformHeaderLen+attributeHeaderLen)
	}
	b := make([]byte, 0, size)
	for i, p := range proposals {
		start := len(b)
		b = append(b, more(i, len(proposals), moreProposals), 0, 0, 0,
			numbered(p.Number, i), byte(p.Protocol), length8("SPI", len(p.SPI)), length8("transforms", len(p.Transforms)))
		b = append(b, p.SPI...)
		for j, t := range p.Transforms {
			b = t.append(b, more(j, len(p.Transforms), moreTransforms))
		}
		binary.BigEndian.PutUint16(b[start+2:], length16("proposal", len(b)-start))
	}
	return Payload{Type: PayloadSA, Body: b}
}

func more(i, n int, follows byte) byte {
	if i+1 < n {
		return follows
	}
	return 0
}

// numbered returns the number of a proposal or transform at a position.
func numbered(number uint8, i int) byte {
	if number == 0 {
		return byte(i + 1)
	}
	return number
}

func (t Transform) append(b []byte, follows byte) []byte {
	start := len(b)
	b = append(b, follows, 0, 0, 0, byte(t.Type), 0)
	b = binary.BigEndian.AppendUint16(b, t.ID)
	if t.KeyLength != 0 {
		b = Attribute{Type: AttrKeyLength, Value: t.KeyLength}.append(b, false)
	}
	b = appendAttributes(b, t.Attributes, false)
	binary.BigEndian.PutUint16(b[start+2:], length16("transform", len(b)-start))
	return b
}

// ParseSA reads the body of an IKEv2 SA payload. It has at least one proposal.
func ParseSA(body []byte) ([]Proposal, error) {
	proposals, transforms, err := countProposals(body)
	if err != nil {
		return nil, err
	}
	list := make([]Proposal, proposals)
	all := make([]Transform, transforms)
	for i := range list {
		var s substructure
		s, body, _ = cutSubstructure(body, moreProposals) // cannot fail: countProposals did it
		b, n := s.transforms()
		p := &list[i]
		p.Number, p.Protocol, p.SPI = s[0], ProtocolID(s[1]), s.spi()
		p.Transforms, all = all[:n:n], all[n:]
		for j := range p.Transforms {
			s, b, _ = cutSubstructure(b, moreTransforms)
			if p.Transforms[j], err = parseTransform(s); err != nil {
				return nil, fmt.Errorf("proposal %d, transform %d: %w", i+1, j+1, err)
			}
		}
	}
	return list, nil
}

func parseTransform(s substructure) (Transform, error) {
	t := Transform{Type: TransformType(s[0]), ID: binary.BigEndian.Uint16(s[2:])}
	b := s.attributes()
	if a, rest, err := cutAttribute(b, false); err == nil && a.isKeyLength() {
		t.KeyLength, b = a.Value, rest
	}
	var err error
	t.Attributes, err = parseAttributes(b, false)
	return t, err
}

// isKeyLength reports whether a is a Key Length that Transform.KeyLength can
// say.
func (a Attribute) isKeyLength() bool {
	return a.Type == AttrKeyLength && a.Data == nil && a.Value != 0
}

// substructure is a proposal or a transform of an SA payload without its
// generic header. IKEv1 and IKEv2 agree on the form: of a proposal a number,
// the protocol, the length of the SPI, the number of transforms, the SPI and
// the transforms; of a transform four bytes and the attributes.
type substructure []byte

const substructureLen = proposalHeaderLen - genericHeaderLen

// spi returns the SPI of a proposal.
func (s substructure) spi() []byte { return s[substructureLen : substructureLen+int(s[2])] }

// transforms returns the transforms of a proposal, as they are and counted.
func (s substructure) transforms() ([]byte, int) { return s[substructureLen+int(s[2]):], int(s[3]) }

// attributes returns the attributes of a transform.
func (s substructure) attributes() []byte { return s[substructureLen:] }

var (
	errNoProposals   = errors.New("SA without a proposal")
	errManyProposals = fmt.Errorf("more than %d proposals", maxProposals)
)

// cutSubstructure returns the substructure at the start of b and what follows
// it. That is another if, and only if, it says so.
func cutSubstructure(b []byte, follows byte) (s substructure, rest []byte, err error) {
	what := "proposal"
	if follows == moreTransforms {
		what = "transform"
	}
	if len(b) < genericHeaderLen {
		return nil, nil, fmt.Errorf("%d bytes left for the header of a %s", len(b), what)
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	switch {
	case n < genericHeaderLen+substructureLen || n > len(b):
		return nil, nil, fmt.Errorf("%s of length %d with %d bytes left", what, n, len(b))
	case b[0] != 0 && b[0] != follows:
		return nil, nil, fmt.Errorf("%s followed by a substructure of type %d", what, b[0])
	case b[0] == 0 && n < len(b):
		return nil, nil, fmt.Errorf("bytes behind the last %s", what)
	case b[0] != 0 && n == len(b):
		return nil, nil, fmt.Errorf("no %s where one is said to follow", what)
	}
	return b[genericHeaderLen:n:n], b[n:], nil
}

// countProposals counts the proposals of an SA payload and all their
// transforms, and so checks that they can be cut.
func countProposals(b []byte) (proposals, transforms int, err error) {
	if len(b) == 0 {
		return 0, 0, errNoProposals
	}
	for len(b) > 0 {
		var s substructure
		if s, b, err = cutSubstructure(b, moreProposals); err != nil {
			return 0, 0, err
		}
		if proposals++; proposals > maxProposals {
			return 0, 0, errManyProposals
		}
		n, err := countTransforms(s)
		if err != nil {
			return 0, 0, fmt.Errorf("proposal %d: %w", proposals, err)
		}
		transforms += n
	}
	return proposals, transforms, nil
}

func countTransforms(s substructure) (int, error) {
	if spi := int(s[2]); substructureLen+spi > len(s) {
		return 0, fmt.Errorf("SPI of %d bytes with %d left", spi, len(s)-substructureLen)
	}
	b, says := s.transforms()
	n := 0
	for ; len(b) > 0; n++ {
		var err error
		if _, b, err = cutSubstructure(b, moreTransforms); err != nil {
			return 0, err
		}
	}
	if n != says {
		return 0, fmt.Errorf("%d transforms where it says %d", n, says)
	}
	return n, nil
}
