package ladder

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/ikecrypto"
	"vpnprobe/internal/wire/ike"
)

var (
	simHere  = netip.MustParseAddrPort("192.0.2.1:40000")
	simPeer  = netip.MustParseAddr("198.51.100.2")
	loopback = netip.MustParseAddr("127.0.0.1")
	simOther = netip.MustParseAddrPort("203.0.113.9:1024")
)

// peer is a model of a responder: what it has configured for us, and how it
// treats what it does not take. It is made apart from the ladder, by the RFCs
// and by what strongSwan 5.9.8 and libreswan 4.10 were seen to do.
type peer struct {
	v2, main, aggressive []string // the proposals of its connection, "" for none

	deafOn500     bool               // port 500 is filtered
	noVersion     bool               // it ignores other versions
	silentRefusal bool               // it ignores a proposal that it does not take
	silentModes   bool               // it ignores IKEv1 modes of which it has no connection
	noV1          bool               // it ignores IKEv1
	noV2          bool               // it answers IKEv2 as an unknown version, by IKEv1
	authFails     bool               // it refuses an aggressive mode which it has not, once its proposal is right
	blocks        bool               // it drops what may set up an SA
	cookieAfter   int                // it asks for a cookie from this IKE_SA_INIT on; 0 never
	learns        int                // from this IKE_SA_INIT on it takes the dated proposal
	eager         bool               // it looks at the KE payload first, if at all
	syntax        bool               // it finds a KE payload of a group that is not offered malformed
	redirects     bool               // it redirects who can be
	natHere       bool               // it sees us under another address
	natThere      bool               // it has another address than the one we reach
	strictKE      bool               // it ignores a proposal without the group of the KE payload
	keFirst       bool               // it looks at the KE payload before the proposals, if they have its group
	demands       bool               // the same, also if they have not
	alternates    bool               // it refuses every second IKE_SA_INIT
	fickle        bool               // it refuses complete ones
	every         time.Duration      // it answers once in this time
	loss          float64            // of what is sent to it
	seed          uint64             // of the losses
	maxBytes      int                // larger messages do not arrive; 0 for any
	twist         func(reply []byte) // changes its answers
	outcome       map[uint16]evidence.IKEOutcome
}

// sim is the network with the peer behind it, in virtual time.
type sim struct {
	t    *testing.T
	peer peer
	rtt  time.Duration

	here     netip.AddrPort // what the peer sees us under; simHere if invalid
	ports    map[uint16]uint16
	sent     []ike.Message // each request once
	halfOpen int
	inits    int
	last     time.Time  // when it answered
	dice     *rand.Rand // of the losses
}

func (s *sim) Local() netip.AddrPort { return simHere }

func (s *sim) Remote(port uint16) netip.AddrPort {
	if other := s.ports[port]; other != 0 {
		return netip.AddrPortFrom(loopback, other)
	}
	return netip.AddrPortFrom(simPeer, port)
}

func (s *sim) Ask(ctx context.Context, port uint16, b []byte, waits ...time.Duration) (evidence.IKEExchange, []byte, error) {
	ex := evidence.IKEExchange{Port: port, Bytes: len(b), Sent: time.Now()}
	if ctx.Err() != nil {
		return ex, nil, ctx.Err()
	}
	m, err := ike.Parse(b)
	if h, herr := ike.ParseHeader(b); herr == nil && h.Version.Major() == 3 {
		m, err = ike.Message{Header: h}, nil // its padding is no payload
	}
	if err != nil {
		s.t.Errorf("sent what does not parse: %v", err)
	}
	s.sent = append(s.sent, m)
	if len(b) > 1232 && len(b) < 1500 {
		s.t.Errorf("sent a message of %d bytes, which fits no packet of 1280", len(b))
	}
	if o := s.peer.outcome[port]; o != "" {
		ex.Outcome, ex.Requests = o, 1
		if o == evidence.IKESendError {
			ex.Send, ex.Requests = evidence.NoRoute, 0
		}
		return ex, nil, s.sleep(ctx, s.rtt)
	}
	var reply []byte
	for _, w := range waits {
		ex.Requests++
		if reply = s.receive(m, len(b), port); reply != nil {
			break
		}
		if err := s.sleep(ctx, w); err != nil {
			return ex, nil, err
		}
	}
	if reply == nil {
		ex.Outcome = evidence.IKESilent
		return ex, nil, nil
	}
	if err := s.sleep(ctx, s.rtt); err != nil {
		return ex, nil, err
	}
	ex.Outcome = evidence.IKEAnswered
	if ex.Requests == 1 {
		ex.RTT = evidence.Some(evidence.Seconds(s.rtt))
	}
	if m, err := ike.Parse(reply); err == nil {
		ex.Version, ex.Notify = m.Version.String(), m.FirstNotify()
	}
	return ex, reply, nil
}

// receive returns what comes back for a datagram with a message of n bytes, nil
// if nothing does.
func (s *sim) receive(m ike.Message, n int, port uint16) []byte {
	p := s.peer
	switch {
	case p.deafOn500 && port == portIKE, p.maxBytes > 0 && n > p.maxBytes:
		return nil
	case p.every > 0 && time.Since(s.last) < p.every:
		return nil
	case p.loss > 0 && (s.dice.Float64() < p.loss || n > 1500 && s.dice.Float64() < p.loss): // of a fragment
		return nil
	}
	r, ok := s.respond(m, port)
	if !ok {
		return nil
	}
	s.last = time.Now()
	reply := r.Append(nil)
	if p.twist != nil {
		p.twist(reply)
	}
	return reply
}

func (s *sim) sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func notifyV2(req ike.Message, t ike.NotifyType, data []byte) ike.Message {
	return ike.Message{
		Header:   ike.Header{SPIi: req.SPIi, Version: ike.V2, Exchange: ike.SAInit, Flags: ike.FlagResponse},
		Payloads: []ike.Payload{ike.Notify{Type: t, Data: data}.Payload()},
	}
}

func notifyOfV1(req ike.Message, t ike.NotifyTypeV1) ike.Message {
	return ike.Message{
		Header:   ike.Header{SPIi: req.SPIi, SPIr: ike.SPI{7}, Version: ike.V1, Exchange: ike.InformationalV1, MessageID: 0x1234},
		Payloads: []ike.Payload{ike.NotifyV1{DOI: ike.DOIIPsec, Protocol: ike.ProtocolIKE, Type: t}.Payload()},
	}
}

// respond returns false for no answer.
func (s *sim) respond(req ike.Message, port uint16) (ike.Message, bool) {
	p := s.peer
	switch req.Version.Major() {
	case 3:
		if p.noV2 {
			return notifyOfV1(req, 5), !p.noVersion
		}
		return notifyV2(req, ike.InvalidMajorVersion, nil), !p.noVersion
	case 2:
		s.inits++
		switch {
		case p.blocks:
			return ike.Message{}, false
		case p.noV2:
			return notifyOfV1(req, 5), !p.noVersion
		case p.cookieAfter > 0 && s.inits >= p.cookieAfter:
			return notifyV2(req, ike.Cookie, []byte("a cookie")), true
		}
		return s.respondV2(req, port)
	}
	if p.noV1 || p.blocks {
		return ike.Message{}, false
	}
	return s.respondV1(req)
}

func (s *sim) respondV2(req ike.Message, port uint16) (ike.Message, bool) {
	p := s.peer
	ke, _ := req.First(ike.PayloadKE)
	offered, err := ike.ParseKE(ke.Body)
	chosen, ok := s.choose(req, offered.Group)
	if err != nil {
		s.t.Errorf("KE payload: %v", err)
	}
	if n, ok := ikecrypto.PublicLen(offered.Group); !ok || n != len(offered.Public) {
		s.t.Errorf("public value of %d bytes in group %d", len(offered.Public), offered.Group)
	}
	if group, differs := s.guards(req, offered.Group); differs {
		return notifyV2(req, ike.InvalidKEPayload, binary.BigEndian.AppendUint16(nil, group)), true
	}
	if !ok || p.alternates && s.inits%2 == 0 || p.fickle && !leavesNothing(s.t, req) {
		return notifyV2(req, ike.NoProposalChosen, nil), !p.silentRefusal
	}
	group := transformOf(chosen, ike.TransformKeyExchange)
	if group != offered.Group && !p.eager {
		sa, _ := req.First(ike.PayloadSA)
		list, _ := ike.ParseSA(sa.Body)
		if p.syntax && !slices.ContainsFunc(list, func(p ike.Proposal) bool {
			return contains(p, ike.Transform{Type: ike.TransformKeyExchange, ID: offered.Group})
		}) {
			return notifyV2(req, ike.InvalidSyntax, nil), true
		}
		return notifyV2(req, ike.InvalidKEPayload, binary.BigEndian.AppendUint16(nil, group)), true
	}
	if p.redirects {
		return notifyV2(req, ike.Redirect, append([]byte{1, 4}, 203, 0, 113, 7)), true
	}
	s.halfOpen++
	here, there := s.here, s.Remote(port)
	if !here.IsValid() {
		here = simHere
	}
	if p.natHere {
		here = simOther
	}
	if p.natThere {
		there = simOther
	}
	m := ike.Message{Header: ike.Header{SPIi: req.SPIi, SPIr: ike.SPI{9}, Version: ike.V2, Exchange: ike.SAInit, Flags: ike.FlagResponse}}
	src, dst := ikecrypto.NATDetection(m.SPIi, m.SPIr, there), ikecrypto.NATDetection(m.SPIi, m.SPIr, here)
	m.Payloads = []ike.Payload{
		ike.SA(chosen), ike.KE(group, make([]byte, 32)), ike.Nonce(make([]byte, 32)),
		ike.Notify{Type: ike.NATDetectionSourceIP, Data: src[:]}.Payload(),
		ike.Notify{Type: ike.NATDetectionDestinationIP, Data: dst[:]}.Payload(),
		ike.Notify{Type: ike.FragmentationSupported}.Payload(),
		ike.VendorID([]byte("OpenIKED-7.2")),
		ike.VendorID([]byte{1, 2, 3}),
	}
	return m, true
}

// choose picks the first configured proposal of which the request has
// everything, as strongSwan does. Configured proposals have one transform of
// each type.
func (s *sim) choose(req ike.Message, ke uint16) (ike.Proposal, bool) {
	list := s.offered(req)
	for _, text := range s.configured() {
		want := s.proposal(text)
		for _, p := range list {
			if s.peer.strictKE && !contains(p, ike.Transform{Type: ike.TransformKeyExchange, ID: ke}) {
				continue
			}
			if !slices.ContainsFunc(want.Transforms, func(w ike.Transform) bool { return !contains(p, w) }) && len(types(p)) == len(types(want)) {
				want.Number = p.Number
				return want, true
			}
		}
	}
	return ike.Proposal{}, false
}

// guards returns the group that the peer wants before it looks at anything else
// of the proposals, and whether it does.
func (s *sim) guards(req ike.Message, ke uint16) (uint16, bool) {
	list := s.offered(req)
	if !s.peer.keFirst && !s.peer.demands || contains(list[0], ike.Transform{Type: ike.TransformEncryption, ID: 0xff00}) {
		return 0, false
	}
	group := transformOf(s.proposal(s.peer.v2[0]), ike.TransformKeyExchange)
	offered := slices.ContainsFunc(list, func(p ike.Proposal) bool {
		return contains(p, ike.Transform{Type: ike.TransformKeyExchange, ID: group})
	})
	return group, ke != group && (s.peer.keFirst && offered || s.peer.demands && !offered)
}

func (s *sim) offered(req ike.Message) []ike.Proposal {
	sa, _ := req.First(ike.PayloadSA)
	list, err := ike.ParseSA(sa.Body)
	if err != nil {
		s.t.Errorf("SA payload: %v", err)
	}
	return list
}

// configured returns the peer's proposals.
func (s *sim) configured() []string {
	if p := s.peer; p.learns > 0 && s.inits >= p.learns {
		return append([]string{dated}, p.v2...)
	}
	return s.peer.v2
}

func (s *sim) proposal(text string) ike.Proposal {
	o, ok := parseOffer(text)
	if !ok {
		s.t.Fatalf("peer has %q", text)
	}
	return o.proposals()[0]
}

func contains(p ike.Proposal, w ike.Transform) bool {
	return slices.ContainsFunc(p.Transforms, func(t ike.Transform) bool {
		return t.Type == w.Type && t.ID == w.ID && t.KeyLength == w.KeyLength
	})
}

func types(p ike.Proposal) map[ike.TransformType]bool {
	m := make(map[ike.TransformType]bool)
	for _, t := range p.Transforms {
		m[t.Type] = true
	}
	return m
}

func transformOf(p ike.Proposal, typ ike.TransformType) uint16 {
	for _, t := range p.Transforms {
		if t.Type == typ {
			return t.ID
		}
	}
	return 0
}

func (s *sim) respondV1(req ike.Message) (ike.Message, bool) {
	p, configured := s.peer, s.peer.main
	if req.Exchange == ike.AggressiveV1 {
		configured = p.aggressive
	}
	if len(configured) == 0 && p.silentModes {
		return ike.Message{}, false
	}
	sa, _ := req.First(ike.PayloadSAV1)
	list, err := ike.ParseSAV1(sa.Body)
	if err != nil || len(list.Proposals) != 1 {
		s.t.Fatalf("SA payload: %v", err)
	}
	if req.Exchange == ike.AggressiveV1 {
		s.checkAggressive(req, list)
		if p.authFails && len(configured) == 0 {
			if _, ok := chooseV1(list, p.main); ok {
				return notifyOfV1(req, 24), true
			}
		}
	}
	chosen, ok := chooseV1(list, configured)
	if !ok {
		return notifyOfV1(req, 14), !p.silentRefusal
	}
	s.halfOpen++
	return ike.Message{
		Header: ike.Header{SPIi: req.SPIi, SPIr: ike.SPI{9}, Version: ike.V1, Exchange: req.Exchange},
		Payloads: []ike.Payload{
			ike.SAV1{DOI: ike.DOIIPsec, Situation: ike.SituationIdentity, Proposals: []ike.ProposalV1{{
				Number: 1, Protocol: ike.ProtocolIKE, Transforms: []ike.TransformV1{chosen},
			}}}.Payload(),
			ike.VendorIDV1([]byte{0xaf, 0xca, 0xd7, 0x13, 0x68, 0xa1, 0xf1, 0xc9, 0x6b, 0x86, 0x96, 0xfc, 0x77, 0x57, 0x01, 0x00}),
		},
	}, true
}

func chooseV1(sa ike.SAV1, configured []string) (ike.TransformV1, bool) {
	for _, text := range configured {
		for _, t := range sa.Proposals[0].Transforms {
			encr, hash, group, auth := ike.PhaseOneKeywords(t.Attributes)
			if suite(encr, hash, group).String() == text && auth == "psk" {
				return t, true
			}
		}
	}
	return ike.TransformV1{}, false
}

// checkAggressive holds a first message of aggressive mode to RFC 2409 section
// 5.4: there is one group, and its public value.
func (s *sim) checkAggressive(req ike.Message, sa ike.SAV1) {
	ke, ok := req.First(ike.PayloadKEV1)
	if _, id := req.First(ike.PayloadIDV1); !ok || !id {
		s.t.Error("aggressive mode without KE or ID payload")
	}
	for _, tr := range sa.Proposals[0].Transforms {
		_, _, group, _ := ike.PhaseOneKeywords(tr.Attributes)
		g, _ := ike.TransformOf(group)
		if n, _ := ikecrypto.PublicLen(g.ID); n != len(ke.Body) {
			s.t.Errorf("aggressive mode: group %s with a public value of %d bytes", group, len(ke.Body))
		}
	}
}

// simGate is a budget of one that is never refilled.
type simGate struct {
	t       *testing.T
	reason  evidence.SkipReason // why it is closed, if it is
	out     int                 // permits that were not released
	ungated int                 // admissions for what needs none
}

func (g *simGate) Admit(_ context.Context, step evidence.LadderStep) (Permit, *evidence.SkippedStep) {
	if !step.LeavesState() {
		g.ungated++
	}
	if g.reason != "" {
		return nil, &evidence.SkippedStep{Step: step, Reason: g.reason}
	}
	if g.out > 0 {
		return nil, &evidence.SkippedStep{Step: step, Reason: evidence.SkipBudget}
	}
	g.out++
	return &simPermit{gate: g}, nil
}

type simPermit struct {
	gate     *simGate
	released bool
}

func (p *simPermit) Release() {
	if p.released {
		p.gate.t.Error("permit released twice")
	}
	p.released = true
	p.gate.out--
}
