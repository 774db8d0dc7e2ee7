// Package ikeauth negotiates with an IKEv2 peer under the declared pre-shared
// key, as far as it takes to tell what is wrong behind the encryption: the
// key, an identity, the algorithms of ESP, perfect forward secrecy, the mode,
// or the traffic selectors.
//
// Such a negotiation leaves a real IKE SA at the peer for a moment. So it is
// opt-in, and for a caller who knows that no SA with the peer exists on this
// host and that its IKE daemon is not setting one up. The package itself never
// sends INITIAL_CONTACT, which would make the peer drop other SAs of the same
// identity, sets up one IKE SA at most, installs nothing in this host's
// kernel, and ends what it set up by a DELETE (RFC 7296 section 1.4.1), even
// when it is interrupted.
package ikeauth
