package ikecrypto

import (
	"fmt"
	"slices"

	"vpnprobe/internal/wire/ike"
)

// Keys are the keys of an IKEv2 SA. They are safe for concurrent use.
type Keys struct {
	prf        prf
	spii, spir ike.SPI
	// Pointers, because fmt does not look for a Format method in an
	// unexported field of who holds the keys, and follows one pointer only.
	initiator, responder *side
}

// side is what one end protects its messages and signs with.
type side struct {
	protection
	p []byte // SK_pi or SK_pr
}

// Keys derives an SA's keys from the secret of the key exchange, both nonces
// and both SPIs (RFC 7296 section 2.14).
func (s *Suite) Keys(shared, ni, nr []byte, spii, spir ike.SPI) *Keys {
	nonces := slices.Concat(ni, nr)
	seed := s.prf.sum(nonces, shared) // SKEYSEED
	size, a, e := s.prf.size(), s.integ.keyLen(), s.encr.materialLen()
	material := s.prf.expand(seed, slices.Concat(nonces, spii[:], spir[:]), 3*size+2*a+2*e)
	next := func(n int) []byte {
		k := material[:n:n]
		material = material[n:]
		return k
	}
	next(size) // SK_d, from which only Child SAs get their keys
	ai, ar, ei, er, pi, pr := next(a), next(a), next(e), next(e), next(size), next(size)
	return &Keys{
		prf: s.prf, spii: spii, spir: spir,
		initiator: &side{s.protection(ei, ai), pi},
		responder: &side{s.protection(er, ar), pr},
	}
}

// side returns that of the original initiator or of the responder.
func (k *Keys) side(initiator bool) *side {
	if initiator {
		return k.initiator
	}
	return k.responder
}

// Format hides the keys, whatever the verb.
func (Keys) Format(f fmt.State, _ rune) { redact(f, "Keys") }

// String returns "ikecrypto.Keys".
func (Keys) String() string { return "ikecrypto.Keys" }

// GoString returns "ikecrypto.Keys".
func (Keys) GoString() string { return "ikecrypto.Keys" }
