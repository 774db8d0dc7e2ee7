package ikecrypto

import (
	"crypto/sha1"
	"encoding/binary"
	"net/netip"
	"slices"

	"vpnprobe/internal/wire/ike"
)

// AuthPSK returns the content of the AUTH payload with which the initiator or
// the responder shows that it knows the pre-shared key (RFC 7296 section
// 2.15). It signs the end's own IKE_SA_INIT message, as sent and without a
// non-ESP marker, the other end's nonce, and the body of its own ID payload.
func (k *Keys) AuthPSK(initiator bool, psk, firstMessage, peerNonce, idBody []byte) []byte {
	id := k.prf.sum(k.side(initiator).p, idBody)
	return k.prf.sum(k.prf.sum(psk, []byte("Key Pad for IKEv2")), firstMessage, peerNonce, id)
}

// NATDetection returns the hash by which both ends find out whether a NAT has
// changed the address or port a of the sender or of the destination (RFC 7296
// section 2.23). The responder's SPI is zero in a first request.
func NATDetection(spii, spir ike.SPI, a netip.AddrPort) [20]byte {
	b := slices.Concat(spii[:], spir[:], a.Addr().Unmap().AsSlice())
	return sha1.Sum(binary.BigEndian.AppendUint16(b, a.Port()))
}
