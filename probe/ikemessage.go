package probe

import (
	"crypto/rand"
	"net/netip"
	"slices"

	"vpnprobe/evidence"
	"vpnprobe/internal/rawconn"
	"vpnprobe/internal/wire/ike"
)

// unsupportedVersion is a major version that no responder speaks; RFC 7296
// section 2.5 lets it answer with INVALID_MAJOR_VERSION, or not at all.
const unsupportedVersion ike.Version = 0x30

// unacceptable is the ID of the encryption, PRF and integrity transforms of
// the proposal that nobody accepts: of the range for private use, and not
// among the few that implementations use of it, which are at its start.
const unacceptable = 0xff00

// The group is one that every responder knows. libreswan answers a public
// value for an unknown group with INVALID_SYNTAX before it looks at the
// proposal; the value itself is not looked at while no proposal is chosen.
const (
	groupMODP2048 = 14 // RFC 3526 section 3
	publicLen     = 256
	nonceLen      = 32 // bytes; RFC 7296 section 2.10 wants 16 to 256
)

// appendRequest appends one of the requests that leave no state at the peer.
func appendRequest(b []byte, kind evidence.IKERequest, spi ike.SPI) []byte {
	h := ike.Header{SPIi: spi, Version: ike.V2, Exchange: ike.SAInit, Flags: ike.FlagInitiator}
	if kind == evidence.VersionProbe {
		h.Version = unsupportedVersion
		return ike.Message{Header: h}.Append(b)
	}
	random := make([]byte, publicLen+nonceLen)
	rand.Read(random) // never fails
	return ike.Message{Header: h, Payloads: []ike.Payload{
		ike.SA(ike.Proposal{Protocol: ike.ProtocolIKE, Transforms: []ike.Transform{
			{Type: ike.TransformEncryption, ID: unacceptable},
			{Type: ike.TransformPRF, ID: unacceptable},
			{Type: ike.TransformIntegrity, ID: unacceptable},
			{Type: ike.TransformKeyExchange, ID: groupMODP2048},
		}}),
		ike.KE(groupMODP2048, random[:publicLen]),
		ike.Nonce(random[publicLen:]),
	}}.Append(b)
}

// newSPI returns a random SPI. It cannot be zero, which IKE has another use
// for.
func newSPI() ike.SPI {
	var spi ike.SPI
	rand.Read(spi[:]) // never fails
	spi[0] |= 1
	return spi
}

// parseReply reads a datagram as an IKE message from the peer that answers a
// request of message ID 0. It does not look at the SPI.
func (k *IKE) parseReply(ev rawconn.Event) (ike.Message, bool) {
	if !samePort(ev.From, k.cfg.Target) {
		return ike.Message{}, false
	}
	b := ev.Data
	if k.cfg.Port == portNATT {
		var ok bool
		if b, ok = ike.CutNonESPMarker(b); !ok {
			return ike.Message{}, false
		}
	}
	m, err := ike.Parse(b)
	if err != nil {
		return ike.Message{}, false
	}
	switch m.Version.Major() {
	case ike.V1.Major():
		// IKEv1 has no response flag, and a responder that speaks nothing
		// else says what it does not like in an exchange with an ID of its
		// own (RFC 2408 section 4.8).
		return m, m.Exchange == ike.InformationalV1
	case ike.V2.Major():
		return m, m.Flags&ike.FlagResponse != 0 && m.Flags&ike.FlagInitiator == 0 && m.MessageID == 0
	}
	return ike.Message{}, false
}

// samePort compares two addresses with their ports. The kernel names the zone
// of a link-local address by number and a user by name, so zones do not count.
func samePort(a, b netip.AddrPort) bool {
	return a.Port() == b.Port() && a.Addr().WithZone("") == b.Addr().WithZone("")
}

// quotedSPI returns the initiator's SPI of a request of ours that an ICMP
// error quotes, and whether it quotes that much.
func (k *IKE) quotedSPI(b []byte) (ike.SPI, bool) {
	if k.cfg.Port == portNATT {
		b, _ = ike.CutNonESPMarker(b)
	}
	var spi ike.SPI
	return spi, copy(spi[:], b) == len(spi)
}

// recentSPIs remembers the last few SPIs that were used, so that an answer
// that comes late is not taken for somebody else's.
type recentSPIs struct {
	ring [24]ike.SPI // eight heartbeats of three requests
	next int
}

func (r *recentSPIs) add(spi ike.SPI) {
	r.ring[r.next] = spi
	r.next = (r.next + 1) % len(r.ring)
}

func (r *recentSPIs) has(spi ike.SPI) bool {
	return !spi.IsZero() && slices.Contains(r.ring[:], spi)
}
