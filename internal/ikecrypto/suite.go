package ikecrypto

import (
	"fmt"

	"vpnprobe/internal/wire/ike"
)

// Suite is the algorithms of an IKEv2 SA.
type Suite struct {
	prf   prf
	encr  encryption
	integ integrity
}

// Supports reports whether a transform of an IKEv2 SA's proposal is one that
// [NewSuite] or, as a key exchange, [NewKeyExchange] knows.
func Supports(t ike.Transform) bool {
	var ok bool
	switch t.Type {
	case ike.TransformEncryption:
		_, ok = encryptionOf(t)
	case ike.TransformPRF:
		_, ok = prfOf(t.ID)
	case ike.TransformIntegrity:
		_, ok = integrityOf(t.ID)
		ok = ok || t.ID == ike.AuthNone
	case ike.TransformKeyExchange:
		_, ok = PublicLen(t.ID)
	}
	return ok
}

// NewSuite returns the suite of a responder's choice, which is a proposal
// with one transform of each type: encryption, PRF, key exchange and, unless
// the encryption authenticates by itself, integrity.
func NewSuite(p ike.Proposal) (*Suite, error) {
	var s Suite
	seen := map[ike.TransformType]bool{}
	for _, t := range p.Transforms {
		if seen[t.Type] {
			return nil, fmt.Errorf("suite: more than one %v transform", t.Type)
		}
		if !Supports(t) {
			return nil, fmt.Errorf("suite: %s is not supported", t.Keyword())
		}
		seen[t.Type] = true
		switch t.Type {
		case ike.TransformEncryption:
			s.encr, _ = encryptionOf(t)
		case ike.TransformPRF:
			s.prf, _ = prfOf(t.ID)
		case ike.TransformIntegrity:
			s.integ, _ = integrityOf(t.ID)
		}
	}
	for _, t := range []ike.TransformType{ike.TransformEncryption, ike.TransformPRF, ike.TransformKeyExchange} {
		if !seen[t] {
			return nil, fmt.Errorf("suite: no %v transform", t)
		}
	}
	// RFC 5282 section 8: an AEAD comes without integrity, or with none.
	if aead, integ := s.encr.aead != nil, s.integ.hash != nil; aead && integ {
		return nil, fmt.Errorf("suite: %v transform besides an encryption that authenticates", ike.TransformIntegrity)
	} else if !aead && !integ {
		return nil, fmt.Errorf("suite: no %v transform", ike.TransformIntegrity)
	}
	return &s, nil
}

// protection returns what one end protects its messages with.
func (s *Suite) protection(encrKey, integKey []byte) protection {
	if s.encr.aead != nil {
		n := s.encr.keyLen
		return newAEADProtection(must(s.encr.aead(encrKey[:n])), encrKey[n:])
	}
	return &cbcProtection{must(s.encr.block(encrKey)), s.integ, integKey}
}

// must unwraps the ciphers' constructors, which fail only on keys of a wrong
// length.
func must[T any](c T, err error) T {
	if err != nil {
		panic("ikecrypto: key length of a suite")
	}
	return c
}
