package ikeconv

import (
	"vpnprobe/evidence"
	"vpnprobe/internal/wire/ike"
)

// An answer to IKE_AUTH says how it ended by its length (RFC 7296 section 1.2):
//
//	refused          N                              n = 8
//	child refused    IDr AUTH N                     n >= 12 + (8 + prf) + 8
//	success          IDr AUTH SA TSi TSr            n >= 12 + (8 + prf) + 32 + 48
//
// where n is the length of the payloads in bytes, prf that of a shared key's
// AUTH data, and the least of each is with an IPv4 address as identity, one
// traffic selector of IPv4 each way, and ChaCha20 as the cipher of ESP.
// Daemons add up to about 32 bytes of notifies to either. So a longer answer
// is a success unless the identity is long; a refusal that is longer than
// slack is taken to be one, which needs an identity of more than about 40
// characters. A signature, and a certificate all the more, make both longer by
// an amount that is not known.
const (
	leastID       = 8 + 4
	authHeader    = 8
	leastChildSA  = 32 // proposal of ESP with one cipher without key length
	leastSelector = 24 // TSi or TSr of one IPv4 range
	slack         = 68 // identity and notifies of a refused child beyond its header
	// leastSigned is the least n of an answer that is signed with RSA.
	leastSigned = leastID + authHeader + 256 + notifyLen
	leastNonce  = 4 + 16
)

// judge returns the stage that an answer to IKE_AUTH of a length proves. ok is
// false when it proves none: the negotiation goes on, or its end is not seen.
func (s suite) judge(size int) (r evidence.IKEReached, ok bool) {
	lo, hi, ok := s.inner(size)
	least, most := s.prfs()
	refused := leastID + authHeader + notifyLen // and the AUTH data
	success := leastID + authHeader + leastChildSA + 2*leastSelector
	switch {
	case !ok:
		return "", false
	case lo <= notifyLen && hi >= notifyLen && hi < refused+least:
		return evidence.ReachedRejected, true
	case hi < refused+least:
		return "", false
	case lo >= authHeader+genericHeader+genericHeader+notifyLen+most+slack && hi >= success+least && hi < leastSigned:
		return evidence.ReachedChild, true
	}
	return evidence.ReachedIKE, true
}

// maySign reports whether an answer to IKE_AUTH is long enough for a signature,
// beside which the child SA cannot be told.
func (s suite) maySign(size int) bool {
	_, hi, ok := s.inner(size)
	return ok && hi >= leastSigned
}

// asksForChild reports whether a request of IKE_AUTH is long enough to ask for a
// child SA: RFC 6023 has IKE SAs without.
func (s suite) asksForChild(size int) bool {
	_, hi, ok := s.inner(size)
	return ok && s.known && hi >= leastID+authHeader+s.prf+leastChildSA+2*leastSelector
}

// leastCertified is the length from which on a request of IKE_AUTH is taken to
// hold a certificate, in bytes: with a pre-shared key it takes identities and
// proposals of several hundred bytes to make one that long.
const leastCertified = 700

// setsUp reports whether an answer to CREATE_CHILD_SA is long enough for
// proposal, nonce and selectors, or proposal, nonce and key of an IKE SA (RFC
// 7296 section 1.3). All else are notifies.
func (s suite) setsUp(size int) bool {
	lo, hi, ok := s.inner(size)
	least := leastChildSA + leastNonce + 2*leastSelector
	if !s.known {
		return ok && hi >= least && size >= leastUnknownSetup
	}
	return ok && hi >= least && lo >= least-mostBlock
}

// leastUnknownSetup is the length from which on an answer to CREATE_CHILD_SA is
// taken for a success if the suite is not known: the longest lone notify has 96
// bytes, with two blocks 112, and the shortest success 141.
const leastUnknownSetup = 128

// small is what the length of an INFORMATIONAL request says.
type small uint8

const (
	large   small = iota // neither
	empty                // dead peer detection
	deletes              // one Delete payload
	either
)

// classify tells what an INFORMATIONAL request of a length can hold: nothing,
// or one Delete payload of the IKE SA, or of one to four child SAs. Notifies of
// the same length are taken for a delete. Where blocks are so long that they
// hold most things, only what fits into the first is told apart.
func (s suite) classify(size, smallest int) small {
	if !s.known {
		// The smallest of them is empty, up to the longest that there is: a
		// block behind an IV, and a check value of 32 bytes. What exceeds it by
		// just a Delete payload is one, and the cipher one without long blocks.
		switch {
		case size <= smallest && size <= ike.HeaderLen+genericHeader+mostIV+mostBlock+mostICV:
			return either
		case size == smallest+notifyLen || size == smallest+notifyLen+4:
			return deletes
		}
		return large
	}
	lo, hi, ok := s.inner(size)
	if !ok {
		return large
	}
	deleting := false
	for n := notifyLen; n <= notifyLen+4*4; n += 4 {
		deleting = deleting || lo <= n && n <= hi
	}
	switch {
	case lo > 0 && deleting && hi-lo < 8:
		return deletes
	case lo > 0:
		return large
	case deleting:
		return either
	}
	return empty
}
