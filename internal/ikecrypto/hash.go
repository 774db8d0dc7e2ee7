package ikecrypto

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"hash"

	"vpnprobe/internal/wire/ike"
)

// prf is a pseudorandom function: HMAC with a hash (RFC 2104, RFC 4868).
type prf func() hash.Hash

func prfOf(id uint16) (prf, bool) {
	switch id {
	case ike.PRFHMACMD5:
		return md5.New, true
	case ike.PRFHMACSHA1:
		return sha1.New, true
	case ike.PRFHMACSHA256:
		return sha256.New, true
	case ike.PRFHMACSHA384:
		return sha512.New384, true
	case ike.PRFHMACSHA512:
		return sha512.New, true
	}
	return nil, false
}

// size returns the length in bytes of an output, and of a preferred key (RFC
// 7296 section 2.13).
func (p prf) size() int { return p().Size() }

// sum returns prf(key, parts[0] | parts[1] | ...).
func (p prf) sum(key []byte, parts ...[]byte) []byte {
	h := hmac.New(p, key)
	for _, b := range parts {
		h.Write(b)
	}
	return h.Sum(nil)
}

// expand returns the first n bytes of prf+(key, seed) (RFC 7296 section
// 2.13). There are 255 outputs at most, several times what any suite takes.
func (p prf) expand(key, seed []byte, n int) []byte {
	var out, last []byte
	for i := byte(1); len(out) < n; i++ {
		last = p.sum(key, last, seed, []byte{i})
		out = append(out, last...)
	}
	return out[:n]
}

// integrity is an integrity algorithm: HMAC with a key as long as the hash,
// cut to icv bytes (RFC 2403, RFC 2404, RFC 4868). The zero value is none.
type integrity struct {
	hash prf
	icv  int
}

func integrityOf(id uint16) (integrity, bool) {
	switch id {
	case ike.AuthHMACMD596:
		return integrity{md5.New, 96 / 8}, true
	case ike.AuthHMACSHA196:
		return integrity{sha1.New, 96 / 8}, true
	case ike.AuthHMACSHA256128:
		return integrity{sha256.New, 128 / 8}, true
	case ike.AuthHMACSHA384192:
		return integrity{sha512.New384, 192 / 8}, true
	case ike.AuthHMACSHA512256:
		return integrity{sha512.New, 256 / 8}, true
	}
	return integrity{}, false
}

func (i integrity) keyLen() int {
	if i.hash == nil {
		return 0
	}
	return i.hash.size()
}
