package probe

import (
	"crypto/rand"
	"encoding/binary"
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

	lifetimeV1 = 28800 // seconds: what most gateways have
)

// NewIKERequest returns one of the requests that leave no state at the peer, as
// an IKE message under an SPI of its own. It is padded to size bytes if it is
// smaller: the version probe by zeros, the others by an unknown vendor ID,
// which takes [vendorHeaderLen] bytes at least.
func NewIKERequest(kind evidence.IKERequest, size int) []byte {
	b := appendRequest(nil, kind, newSPI(), nil)
	switch pad := size - len(b); {
	case pad <= 0:
	case kind == evidence.VersionProbe:
		b = append(b, make([]byte, pad)...)
		binary.BigEndian.PutUint32(b[ike.HeaderLen-4:], uint32(len(b)))
	default:
		id := make([]byte, max(pad-vendorHeaderLen, vendorLen))
		rand.Read(id) // never fails
		b = appendRequest(nil, kind, newSPI(), id)
	}
	return b
}

// A vendor ID of fewer bytes than an MD5 has may mean something to someone.
const (
	vendorHeaderLen = 4
	vendorLen       = 16
)

// appendRequest appends one of the requests that leave no state at the peer,
// with a vendor ID unless vendor is nil.
func appendRequest(b []byte, kind evidence.IKERequest, spi ike.SPI, vendor []byte) []byte {
	h := ike.Header{SPIi: spi, Version: ike.V2, Exchange: ike.SAInit, Flags: ike.FlagInitiator}
	switch kind {
	case evidence.VersionProbe:
		h.Version = unsupportedVersion
		return ike.Message{Header: h}.Append(b)
	case evidence.ProposalProbeV1:
		h.Version, h.Exchange, h.Flags = ike.V1, ike.IdentityProtectionV1, 0
		list := []ike.Payload{unacceptableV1()}
		if vendor != nil {
			list = append(list, ike.VendorIDV1(vendor))
		}
		return ike.Message{Header: h, Payloads: list}.Append(b)
	}
	random := make([]byte, publicLen+nonceLen)
	rand.Read(random) // never fails
	list := []ike.Payload{
		ike.SA(ike.Proposal{Protocol: ike.ProtocolIKE, Transforms: []ike.Transform{
			{Type: ike.TransformEncryption, ID: unacceptable},
			{Type: ike.TransformPRF, ID: unacceptable},
			{Type: ike.TransformIntegrity, ID: unacceptable},
			{Type: ike.TransformKeyExchange, ID: groupMODP2048},
		}}),
		ike.KE(groupMODP2048, random[:publicLen]),
		ike.Nonce(random[publicLen:]),
	}
	if vendor != nil {
		list = append(list, ike.VendorID(vendor))
	}
	return ike.Message{Header: h, Payloads: list}.Append(b)
}

// unacceptableV1 is an IKEv1 SA payload whose only transform nobody accepts.
// It asks for a pre-shared key, because libreswan looks for a connection with
// the method of authentication first, and stays silent when it has none.
func unacceptableV1() ike.Payload {
	return ike.SAV1{DOI: ike.DOIIPsec, Situation: ike.SituationIdentity, Proposals: []ike.ProposalV1{{
		Protocol: ike.ProtocolIKE,
		Transforms: []ike.TransformV1{{ID: ike.TransformKeyIKE, Attributes: []ike.Attribute{
			{Type: ike.AttrV1Encryption, Value: unacceptable},
			{Type: ike.AttrV1Hash, Value: unacceptable},
			{Type: ike.AttrV1Auth, Value: ike.AuthV1SharedKey},
			{Type: ike.AttrV1Group, Value: groupMODP2048},
			{Type: ike.AttrV1LifeType, Value: ike.LifeV1Seconds},
			{Type: ike.AttrV1LifeDuration, Value: lifetimeV1},
		}}},
	}}}.Payload()
}

// newSPI returns a random SPI. It cannot be zero, which IKE has another use
// for.
func newSPI() ike.SPI {
	var spi ike.SPI
	rand.Read(spi[:]) // never fails
	spi[0] |= 1
	return spi
}

// ikePort is a port of a peer to which IKE messages go.
type ikePort struct {
	addr netip.AddrPort
	// number is the port that addr stands for, 500 or 4500.
	number uint16
}

// appendMarker appends what precedes a message to the port.
func (p ikePort) appendMarker(b []byte) []byte {
	if p.number == portNATT {
		b = ike.AppendNonESPMarker(b)
	}
	return b
}

// parseReply reads a datagram as an IKE message from the peer that answers a
// first request, and returns its bytes too. It does not look at the SPI of the
// initiator.
func (p ikePort) parseReply(ev rawconn.Event) (ike.Message, []byte, bool) {
	if !samePort(ev.From, p.addr) {
		return ike.Message{}, nil, false
	}
	b := ev.Data
	if p.number == portNATT {
		var ok bool
		if b, ok = ike.CutNonESPMarker(b); !ok {
			return ike.Message{}, nil, false
		}
	}
	m, err := ike.Parse(b)
	if err != nil {
		return ike.Message{}, nil, false
	}
	return m, b, isReply(m.Header)
}

// isReply reports whether a header can be that of an answer to a first
// request.
func isReply(h ike.Header) bool {
	switch h.Version.Major() {
	case ike.V1.Major():
		// IKEv1 has no response flag. A responder says what it does not like
		// in an exchange with an ID of its own (RFC 2408 section 4.8); an
		// acceptance has the request's type, but a responder's SPI, which
		// tells it from our own request sent back.
		sa := h.Exchange == ike.IdentityProtectionV1 || h.Exchange == ike.AggressiveV1
		return h.Exchange == ike.InformationalV1 || sa && h.MessageID == 0 && !h.SPIr.IsZero()
	case ike.V2.Major():
		return h.Flags&ike.FlagResponse != 0 && h.Flags&ike.FlagInitiator == 0 && h.MessageID == 0
	}
	return false
}

// parseError reads an ICMP error about a request to the port, and returns the
// SPI of the request if the error quotes it. It returns false when the error
// is about something else.
func (p ikePort) parseError(ev rawconn.Event) (e evidence.ICMPError, spi ike.SPI, quoted, ok bool) {
	if ev.Err.Local || (ev.From.IsValid() && !samePort(ev.From, p.addr)) {
		return evidence.ICMPError{}, ike.SPI{}, false, false
	}
	b := ev.Data
	if p.number == portNATT {
		b, _ = ike.CutNonESPMarker(b)
	}
	quoted = copy(spi[:], b) == len(spi)
	return icmpError(p.addr.Addr().Is6(), ev.Err), spi, quoted, true
}

// samePort compares two addresses with their ports. The kernel names the zone
// of a link-local address by number and a user by name, so zones do not count.
func samePort(a, b netip.AddrPort) bool {
	return a.Port() == b.Port() && a.Addr().WithZone("") == b.Addr().WithZone("")
}

// recentSPIs remembers the last few SPIs that were used, so that an answer
// that comes late is not taken for somebody else's.
type recentSPIs struct {
	ring [32]ike.SPI // eight heartbeats of four requests
	next int
}

func (r *recentSPIs) add(spi ike.SPI) {
	r.ring[r.next] = spi
	r.next = (r.next + 1) % len(r.ring)
}

func (r *recentSPIs) has(spi ike.SPI) bool {
	return !spi.IsZero() && slices.Contains(r.ring[:], spi)
}

// ikeOutcome says what an ICMP error about a heartbeat to peer means; "" means
// nothing.
func ikeOutcome(e evidence.ICMPError, peer netip.Addr) evidence.IKEOutcome {
	switch e.Reason {
	case evidence.PortUnreachable:
		if e.Offender.Or(peer).WithZone("") == peer.WithZone("") {
			return evidence.IKERefused
		}
		// A hop that is not the addressee knows nothing of its ports: this is
		// how filters reject unless told otherwise.
		return evidence.IKEProhibited
	case evidence.AdminProhibited:
		return evidence.IKEProhibited
	case evidence.NetUnreachable, evidence.HostUnreachable, evidence.ProtUnreachable, evidence.TTLExceeded:
		return evidence.IKEUnreachable
	}
	return ""
}

// icmpError turns an entry of the error queue into evidence.
func icmpError(v6 bool, e *rawconn.Error) evidence.ICMPError {
	out := evidence.ICMPError{Reason: icmpReason(v6, e.Type, e.Code), Type: e.Type, Code: e.Code}
	if out.Reason == evidence.FragNeeded {
		out.MTU = evidence.Some(e.MTU)
	}
	if e.Offender.IsValid() {
		out.Offender = evidence.Some(e.Offender)
	}
	return out
}
