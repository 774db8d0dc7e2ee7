package ikecrypto

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"

	"vpnprobe/internal/wire/ike"
)

// PhaseOne is what both ends of an IKEv1 phase 1 with a pre-shared key say in
// clear, and sign (RFC 2409 section 5). All of it is known after the first
// two messages of an aggressive mode, so that a responder's signature can be
// checked against a key without answering, and without the secret of the key
// exchange.
type PhaseOne struct {
	Hash             uint16 // the chosen hash algorithm, as in ike.HashV1SHA256
	CookieI, CookieR ike.SPI
	NonceI, NonceR   []byte
	PublicI, PublicR []byte // the bodies of the KE payloads
	SAi              []byte // the body of the initiator's SA payload
}

// HashI returns the content of the HASH payload with which the initiator
// shows that it knows the pre-shared key, given the body of its ID payload,
// and whether the hash algorithm is known.
func (p PhaseOne) HashI(psk, id []byte) ([]byte, bool) {
	return p.sign(psk, p.PublicI, p.PublicR, p.CookieI, p.CookieR, id)
}

// HashR returns the same of the responder.
func (p PhaseOne) HashR(psk, id []byte) ([]byte, bool) {
	return p.sign(psk, p.PublicR, p.PublicI, p.CookieR, p.CookieI, id)
}

func (p PhaseOne) sign(psk, public, other []byte, cookie, otherCookie ike.SPI, id []byte) ([]byte, bool) {
	prf, ok := prfOfV1(p.Hash)
	if !ok {
		return nil, false
	}
	skeyid := prf.sum(psk, p.NonceI, p.NonceR)
	return prf.sum(skeyid, public, other, cookie[:], otherCookie[:], p.SAi, id), true
}

// prfOfV1 returns the PRF of a phase 1, which is the HMAC of its hash as long
// as none is negotiated (RFC 2409 section 4), and none ever is.
func prfOfV1(hash uint16) (prf, bool) {
	switch hash {
	case ike.HashV1MD5:
		return md5.New, true
	case ike.HashV1SHA1:
		return sha1.New, true
	case ike.HashV1SHA256:
		return sha256.New, true
	case ike.HashV1SHA384:
		return sha512.New384, true
	case ike.HashV1SHA512:
		return sha512.New, true
	}
	return nil, false
}
