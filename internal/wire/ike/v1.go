package ike

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// DOIIPsec is the domain of interpretation of IPsec, and SituationIdentity the
// only situation in use in it (RFC 2407 sections 4.2 and 4.6.1).
const (
	DOIIPsec          uint32 = 1
	SituationIdentity uint32 = 1
)

// TransformKeyIKE is the only transform of an IKEv1 proposal for the IKE SA
// (RFC 2407 section 4.4.2); its attributes hold the algorithms.
const TransformKeyIKE uint8 = 1

// SAV1 is the body of an IKEv1 SA payload (RFC 2408 section 3.4).
type SAV1 struct {
	DOI       uint32
	Situation uint32
	Proposals []ProposalV1
}

// ProposalV1 is one proposal of an IKEv1 SA payload (RFC 2408 section 3.5). Its
// transforms are alternatives, in order of preference; proposals of the same
// number belong together.
type ProposalV1 struct {
	Number     uint8 // 0 when building means the position, counted from 1
	Protocol   ProtocolID
	SPI        []byte
	Transforms []TransformV1
}

// TransformV1 is one transform of an IKEv1 proposal (RFC 2408 section 3.6): a
// whole set of algorithms.
type TransformV1 struct {
	Number     uint8 // 0 when building means the position, counted from 1
	ID         uint8
	Attributes []Attribute
}

// The situations that are followed by labels, which nobody uses.
const situationLabelled = 0x02 | 0x04

// ParseSAV1 reads the body of an IKEv1 SA payload.
func ParseSAV1(body []byte) (SAV1, error) {
	const fixed = 8
	if len(body) < fixed {
		return SAV1{}, errors.New("SA shorter than 8 bytes")
	}
	s := SAV1{DOI: binary.BigEndian.Uint32(body), Situation: binary.BigEndian.Uint32(body[4:])}
	if s.Situation&situationLabelled != 0 {
		return SAV1{}, fmt.Errorf("SA with labels: situation %#x", s.Situation)
	}
	body = body[fixed:]
	proposals, transforms, err := countProposals(body)
	if err != nil {
		return SAV1{}, err
	}
	s.Proposals = make([]ProposalV1, proposals)
	all := make([]TransformV1, transforms)
	for i := range s.Proposals {
		var sub substructure
		sub, body, _ = cutSubstructure(body, moreProposals) // cannot fail: countProposals did it
		b, n := sub.transforms()
		p := &s.Proposals[i]
		p.Number, p.Protocol, p.SPI = sub[0], ProtocolID(sub[1]), sub.spi()
		p.Transforms, all = all[:n:n], all[n:]
		for j := range p.Transforms {
			sub, b, _ = cutSubstructure(b, moreTransforms)
			t := &p.Transforms[j]
			t.Number, t.ID = sub[0], sub[1]
			if t.Attributes, err = parseAttributes(sub.attributes(), false); err != nil {
				return SAV1{}, fmt.Errorf("proposal %d, transform %d: %w", i+1, j+1, err)
			}
		}
	}
	return s, nil
}

// Payload returns s as a payload. It panics when a proposal has more than 255
// transforms, or an SPI of more than 255 bytes.
func (s SAV1) Payload() Payload {
	b := binary.BigEndian.AppendUint32(nil, s.DOI)
	b = binary.BigEndian.AppendUint32(b, s.Situation)
	for i, p := range s.Proposals {
		start := len(b)
		b = append(b, more(i, len(s.Proposals), moreProposals), 0, 0, 0,
			numbered(p.Number, i), byte(p.Protocol), length8("SPI", len(p.SPI)), length8("transforms", len(p.Transforms)))
		b = append(b, p.SPI...)
		for j, t := range p.Transforms {
			start := len(b)
			b = append(b, more(j, len(p.Transforms), moreTransforms), 0, 0, 0, numbered(t.Number, j), t.ID, 0, 0)
			b = appendAttributes(b, t.Attributes, false)
			binary.BigEndian.PutUint16(b[start+2:], length16("transform", len(b)-start))
		}
		binary.BigEndian.PutUint16(b[start+2:], length16("proposal", len(b)-start))
	}
	return Payload{Type: PayloadSAV1, Body: b}
}

// IdentityV1 is the body of an IKEv1 Identification payload (RFC 2407 section
// 4.6.2). In quick mode it is a traffic selector.
type IdentityV1 struct {
	Type     IDType
	Protocol uint8 // 0 is any; of phase 1 also 17, with port 500
	Port     uint16
	Data     []byte
}

// ParseIdentityV1 reads the body of an IKEv1 Identification payload.
func ParseIdentityV1(body []byte) (IdentityV1, error) {
	if len(body) < 4 {
		return IdentityV1{}, errors.New("identification shorter than 4 bytes")
	}
	return IdentityV1{
		Type: IDType(body[0]), Protocol: body[1], Port: binary.BigEndian.Uint16(body[2:]), Data: body[4:],
	}, nil
}

// Payload returns i as a payload.
func (i IdentityV1) Payload() Payload {
	b := binary.BigEndian.AppendUint16([]byte{byte(i.Type), i.Protocol}, i.Port)
	return Payload{Type: PayloadIDV1, Body: append(b, i.Data...)}
}

// DeleteV1 is the body of an IKEv1 Delete payload (RFC 2408 section 3.15).
type DeleteV1 struct {
	DOI      uint32
	Protocol ProtocolID
	SPISize  uint8    // in bytes; 16, both cookies, of an IKE SA
	SPIs     [][]byte // of SPISize bytes each
}

// ParseDeleteV1 reads the body of an IKEv1 Delete payload, which is IKEv2's
// behind a domain of interpretation.
func ParseDeleteV1(body []byte) (DeleteV1, error) {
	if len(body) < 4 {
		return DeleteV1{}, errors.New("delete shorter than 4 bytes")
	}
	d, err := ParseDelete(body[4:])
	if err != nil {
		return DeleteV1{}, err
	}
	return DeleteV1{DOI: binary.BigEndian.Uint32(body), Protocol: d.Protocol, SPISize: d.SPISize, SPIs: d.SPIs}, nil
}

// Payload returns d as a payload. It panics when an SPI has another length
// than it says.
func (d DeleteV1) Payload() Payload {
	rest := Delete{Protocol: d.Protocol, SPISize: d.SPISize, SPIs: d.SPIs}.Payload()
	return Payload{Type: PayloadDeleteV1, Body: append(binary.BigEndian.AppendUint32(nil, d.DOI), rest.Body...)}
}

// KEV1 returns an IKEv1 Key Exchange payload: a public value in the group that
// the SA payload has (RFC 2408 section 3.7).
func KEV1(public []byte) Payload { return Payload{Type: PayloadKEV1, Body: public} }

// NonceV1 returns an IKEv1 Nonce payload (RFC 2408 section 3.13); a nonce has
// 8 to 256 bytes.
func NonceV1(nonce []byte) Payload { return Payload{Type: PayloadNonceV1, Body: nonce} }

// HashV1 returns an IKEv1 Hash payload (RFC 2408 section 3.11).
func HashV1(hash []byte) Payload { return Payload{Type: PayloadHashV1, Body: hash} }

// NATDV1 returns an IKEv1 NAT Discovery payload (RFC 3947 section 3.2).
func NATDV1(hash []byte) Payload { return Payload{Type: PayloadNATDV1, Body: hash} }

// VendorIDV1 returns an IKEv1 Vendor ID payload (RFC 2408 section 3.16).
func VendorIDV1(id []byte) Payload { return Payload{Type: PayloadVendorIDV1, Body: id} }
