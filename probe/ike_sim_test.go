package probe

import (
	"bytes"
	"context"
	"net/netip"
	"testing"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/rawconn"
	"vpnprobe/internal/wire/ike"
)

// ikeReply is a datagram that a responder answers with.
type ikeReply struct {
	message   []byte
	noMarker  bool          // leave the non-ESP marker out on port 4500
	otherPort bool          // send it from another port
	after     time.Duration // in virtual time only
}

// ikeResponder answers one request.
type ikeResponder func(req ike.Message) []ikeReply

func notifyReply(req ike.Message, exchange ike.ExchangeType, typ ike.NotifyType) ike.Message {
	return ike.Message{
		Header:   ike.Header{SPIi: req.SPIi, Version: ike.V2, Exchange: exchange, Flags: ike.FlagResponse},
		Payloads: []ike.Payload{ike.Notify{Type: typ}.Payload()},
	}
}

func versionReply(req ike.Message) ike.Message {
	return notifyReply(req, ike.Informational, ike.InvalidMajorVersion)
}

// refusalV1 is what an IKEv1 responder answers what it does not like with.
func refusalV1(req ike.Message, typ ike.NotifyTypeV1) ike.Message {
	return ike.Message{
		Header: ike.Header{
			SPIi: req.SPIi, SPIr: ike.SPI{1}, Version: ike.V1, Exchange: ike.InformationalV1, MessageID: 0x12345678,
		},
		Payloads: []ike.Payload{ike.NotifyV1{DOI: ike.DOIIPsec, Protocol: ike.ProtocolIKE, Type: typ}.Payload()},
	}
}

func replies(list ...ike.Message) []ikeReply {
	var out []ikeReply
	for _, m := range list {
		out = append(out, ikeReply{message: m.Append(nil)})
	}
	return out
}

func isVersionProbe(req ike.Message) bool { return req.Version == unsupportedVersion }

// The responders that are met, or are to be expected of hostile peers.
var (
	answersAll ikeResponder = func(req ike.Message) []ikeReply {
		if isVersionProbe(req) {
			return replies(versionReply(req))
		}
		return replies(notifyReply(req, ike.SAInit, ike.NoProposalChosen))
	}
	answersProposal ikeResponder = func(req ike.Message) []ikeReply {
		if req.Version != ike.V2 {
			return nil
		}
		return replies(notifyReply(req, ike.SAInit, ike.NoProposalChosen))
	}
	answersProposalV1 ikeResponder = func(req ike.Message) []ikeReply {
		if req.Version != ike.V1 {
			return nil
		}
		return replies(refusalV1(req, 14))
	}
	answersNothing ikeResponder = func(ike.Message) []ikeReply { return nil }
)

// answersWith makes a responder that answers with the good reply, changed.
func answersWith(change func(*ike.Message)) ikeResponder {
	return func(req ike.Message) []ikeReply {
		m := versionReply(req)
		change(&m)
		return replies(m)
	}
}

// ikeCases hold for a peer in virtual time and for a real one alike. Each is
// of the first heartbeat to the peer.
var ikeCases = []struct {
	name    string
	respond ikeResponder
	want    evidence.IKEResult
}{
	{"answers", answersAll, evidence.IKEResult{
		Request: evidence.VersionProbe, Requests: 1, Outcome: evidence.IKEAnswered, Notify: "INVALID_MAJOR_VERSION", Version: "2.0",
	}},
	{"answers proposals only", answersProposal, evidence.IKEResult{
		Request: evidence.ProposalProbe, Requests: 3, Outcome: evidence.IKEAnswered, Notify: "NO_PROPOSAL_CHOSEN", Version: "2.0",
	}},
	{
		"answers cookie",
		func(req ike.Message) []ikeReply {
			if isVersionProbe(req) {
				return nil
			}
			return replies(notifyReply(req, ike.SAInit, ike.Cookie))
		},
		evidence.IKEResult{Request: evidence.ProposalProbe, Requests: 3, Outcome: evidence.IKEAnswered, Notify: "COOKIE", Version: "2.0"},
	},
	{
		"speaks IKEv1 only",
		func(req ike.Message) []ikeReply {
			return replies(refusalV1(req, 5))
		},
		evidence.IKEResult{
			Request: evidence.VersionProbe, Requests: 1, Outcome: evidence.IKEAnswered, Notify: "INVALID-MAJOR-VERSION", Version: "1.0",
		},
	},
	{"answers IKEv1 proposals only", answersProposalV1, evidence.IKEResult{
		Request: evidence.ProposalProbeV1, Requests: 4, Outcome: evidence.IKEAnswered, Notify: "NO-PROPOSAL-CHOSEN", Version: "1.0",
	}},
	{
		"accepts any IKEv1 proposal", // which no responder does, but it is an answer
		func(req ike.Message) []ikeReply {
			if req.Version != ike.V1 {
				return nil
			}
			req.SPIr = ike.SPI{1}
			return replies(req)
		},
		evidence.IKEResult{Request: evidence.ProposalProbeV1, Requests: 4, Outcome: evidence.IKEAnswered, Version: "1.0"},
	},
	{"silent", answersNothing, silentAfter(0)},
	{"another SPI", answersWith(func(m *ike.Message) { m.SPIi[3]++ }), silentAfter(4)},
	{"not a response", answersWith(func(m *ike.Message) { m.Flags = 0 }), silentAfter(4)},
	{"an initiator's", answersWith(func(m *ike.Message) { m.Flags |= ike.FlagInitiator }), silentAfter(4)},
	{"another message ID", answersWith(func(m *ike.Message) { m.MessageID = 1 }), silentAfter(4)},
	{"another version", answersWith(func(m *ike.Message) { m.Version = 0x40 }), silentAfter(4)},
	{"reflects", func(req ike.Message) []ikeReply { return replies(req) }, silentAfter(4)},
	{
		"garbage",
		func(req ike.Message) []ikeReply {
			m := versionReply(req).Append(nil)
			return []ikeReply{
				{message: nil}, {message: []byte{0xff}}, {message: bytes.Repeat([]byte{0xff}, 1400)},
				{message: m[:len(m)-1]}, {message: append(bytes.Clone(m), 0)},
			}
		},
		silentAfter(20),
	},
	{
		"another port",
		func(req ike.Message) []ikeReply {
			return []ikeReply{{message: versionReply(req).Append(nil), otherPort: true}}
		},
		silentAfter(4),
	},
	{
		"garbage, then the answer",
		func(req ike.Message) []ikeReply {
			m := versionReply(req).Append(nil)
			return []ikeReply{{message: []byte("hello")}, {message: m, otherPort: true}, {message: m}}
		},
		evidence.IKEResult{
			Request: evidence.VersionProbe, Requests: 1, Outcome: evidence.IKEAnswered, Notify: "INVALID_MAJOR_VERSION",
			Version: "2.0", Unsolicited: 2,
		},
	},
}

func silentAfter(unsolicited int) evidence.IKEResult {
	return evidence.IKEResult{Request: evidence.ProposalProbeV1, Requests: 4, Outcome: evidence.IKESilent, Unsolicited: unsolicited}
}

var (
	simPeer   = netip.MustParseAddr("198.51.100.2")
	otherHost = netip.MustParseAddr("203.0.113.9")
)

// simIKE is a socket with a peer behind it, in virtual time.
type simIKE struct {
	t       *testing.T
	port    uint16
	version int // declared
	rtt     time.Duration
	respond ikeResponder
	// icmp is an ICMP error that each request meets instead of the peer; quote
	// is how much of the request it quotes.
	icmp    *rawconn.Error
	quote   int
	refused error // what each send is refused for

	requests []ike.Message
	events   chan rawconn.Event
	closed   int
}

// newSimIKE must be called within a bubble.
func newSimIKE(t *testing.T, port uint16) *simIKE {
	return &simIKE{t: t, port: port, rtt: 30 * time.Millisecond, respond: answersAll, quote: 100, events: make(chan rawconn.Event, 64)}
}

func (s *simIKE) open() *IKE {
	cfg := IKEConfig{Target: netip.AddrPortFrom(simPeer, s.port), Port: s.port, Version: s.version, Timeout: time.Second}
	k := newIKE(cfg, func() (ikeConn, error) { return s, nil })
	if err := k.open(); err != nil {
		s.t.Fatal(err)
	}
	return k
}

func (s *simIKE) Send(b []byte, to netip.AddrPort) error {
	if s.refused != nil {
		return s.refused
	}
	b = bytes.Clone(b)
	inner := b
	if s.port == portNATT {
		var ok bool
		if inner, ok = ike.CutNonESPMarker(b); !ok {
			s.t.Error("no marker before a message on port 4500")
		}
	}
	m, err := ike.Parse(inner)
	if err != nil {
		s.t.Errorf("sent what does not parse: %v", err)
	}
	s.requests = append(s.requests, m)
	if s.icmp != nil {
		s.deliver(s.rtt, rawconn.Event{Data: b[:min(len(b), s.quote)], From: to, Err: s.icmp})
		return nil
	}
	answers := s.respond(m)
	for i, r := range answers {
		from := to
		if r.otherPort {
			from = netip.AddrPortFrom(to.Addr(), to.Port()+1)
		}
		// In order, and the last after the round-trip time.
		earlier := time.Duration(len(answers)-1-i) * time.Microsecond
		s.deliver(s.rtt+r.after-earlier, rawconn.Event{Data: r.datagram(s.port), From: from})
	}
	return nil
}

func (r ikeReply) datagram(port uint16) []byte {
	if port != portNATT || r.noMarker {
		return r.message
	}
	return append(ike.AppendNonESPMarker(nil), r.message...)
}

func (s *simIKE) deliver(after time.Duration, ev rawconn.Event) {
	time.AfterFunc(after, func() {
		ev.Time = time.Now()
		s.events <- ev
	})
}

func (s *simIKE) Receive(ctx context.Context) (rawconn.Event, error) {
	select {
	case ev := <-s.events:
		return ev, nil
	case <-ctx.Done():
		return rawconn.Event{}, ctx.Err()
	}
}

func (s *simIKE) BypassesIPsec() bool { return true }
func (s *simIKE) Close() error        { s.closed++; return nil }
