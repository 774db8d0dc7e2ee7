package ikeauth

import (
	"bytes"
	"context"
	"crypto/hmac"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/ikecrypto"
	"vpnprobe/internal/rawconn"
	"vpnprobe/internal/wire/ike"
)

const testPSK = "a pre-shared key for tests only"

var (
	simPeer  = netip.MustParseAddr("198.51.100.2")
	simLocal = netip.MustParseAddrPort("203.0.113.2:40000")
)

func testConfig() Config {
	return Config{
		Target:        simPeer,
		Proposals:     []string{"aes128-sha256-curve25519"},
		ESPProposals:  []string{"aes128-sha256"},
		ESPMode:       "tunnel",
		LocalSubnets:  []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")},
		RemoteSubnets: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/24")},
		LocalID:       "a.lab.example",
		RemoteID:      "b.lab.example",
		PSK:           Key(testPSK),
	}
}

// responder is a peer, made of the same codec and cryptography, on an
// in-memory socket in virtual time. Its methods run one at a time, because
// Send calls it.
type responder struct {
	t   *testing.T
	rtt time.Duration

	// Where the peer is, and where it sees the initiator.
	here, there netip.AddrPort

	psk       string
	id        string
	remoteID  string // the initiator's; "" takes any
	proposals []string
	nat       bool
	childless bool
	esp       []string // with groups
	transport bool     // refuses the other mode
	tsi, tsr  string   // prefixes, as the initiator sees them
	open4500  bool     // answers on port 4500 only
	syntax    bool     // answers INVALID_SYNTAX for INVALID_KE_PAYLOAD

	// tamper replaces an answer by what is delivered instead.
	tamper func(r *responder, request ike.Message, answer []byte) [][]byte

	mu       sync.Mutex // of serve
	sas      map[ike.SPI]*simSA
	requests []ike.Message // opened
	raw      [][]byte
	ports    []uint16
	events   chan rawconn.Event
	closed   bool
}

type simSA struct {
	spir     ike.SPI
	init     []byte // the request
	response []byte
	ni, nr   []byte
	keys     *ikecrypto.Keys
	next     uint32
	last     []byte // the answer to the request before
	up       bool
	created  bool
	deleted  bool
	answers  []ike.Message // to our requests
}

func newResponder(t *testing.T) *responder {
	return &responder{
		t: t, rtt: 20 * time.Millisecond, there: simLocal,
		psk: testPSK, id: "b.lab.example", proposals: []string{"aes128-sha256-curve25519"}, childless: true,
		esp: []string{"aes128-sha256"}, tsi: "10.1.0.0/24", tsr: "10.2.0.0/24",
		sas: map[ike.SPI]*simSA{}, events: make(chan rawconn.Event, 4096),
	}
}

func (r *responder) run(ctx context.Context, cfg Config) evidence.IKEAuth {
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	return negotiate(ctx, &cfg, newLink(r, simLocal, &cfg), evidence.IKEAuth{By: evidence.ByAgent})
}

func (r *responder) Close() error { r.closed = true; return nil }

func (r *responder) Receive(ctx context.Context) (rawconn.Event, error) {
	if err := ctx.Err(); err != nil {
		return rawconn.Event{}, err
	}
	select {
	case ev := <-r.events:
		return ev, nil
	case <-ctx.Done():
		return rawconn.Event{}, ctx.Err()
	}
}

func (r *responder) Send(b []byte, to netip.AddrPort) error {
	r.ports, r.here = append(r.ports, to.Port()), to
	b = bytes.Clone(b)
	if to.Port() == portNATT {
		var ok bool
		if b, ok = ike.CutNonESPMarker(b); !ok {
			r.t.Error("no marker before a message to port 4500")
		}
	} else if r.open4500 {
		return nil
	}
	r.raw = append(r.raw, b)
	m, err := ike.Parse(b)
	if err != nil {
		r.t.Errorf("sent what does not parse: %v", err)
		return nil
	}
	answer, opened := r.handle(b, m)
	out := [][]byte{answer}
	if r.tamper != nil {
		out = r.tamper(r, opened, answer)
	}
	for i, a := range out {
		if a != nil {
			r.deliver(a, to, r.rtt+time.Duration(i)*time.Microsecond) // in order
		}
	}
	return nil
}

// serve answers on a real socket that stands for one of the ports.
func (r *responder) serve(c *net.UDPConn, here netip.AddrPort, port uint16) {
	b := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			return // closed
		}
		var marker []byte
		in := bytes.Clone(b[:n])
		if port == portNATT {
			marker = ike.AppendNonESPMarker(nil)
			in, _ = ike.CutNonESPMarker(in)
		}
		r.mu.Lock()
		r.ports, r.here, r.there = append(r.ports, port), here, from
		m, err := ike.Parse(in)
		if err != nil {
			r.t.Errorf("sent what does not parse: %v", err)
		}
		answer, _ := r.handle(in, m)
		r.mu.Unlock()
		if answer != nil {
			c.WriteToUDPAddrPort(append(marker, answer...), from)
		}
	}
}

func (r *responder) deliver(m []byte, from netip.AddrPort, after time.Duration) {
	var b []byte
	if from.Port() == portNATT {
		b = ike.AppendNonESPMarker(nil)
	}
	b = append(b, m...)
	time.AfterFunc(after, func() { r.events <- rawconn.Event{Time: time.Now(), Data: b, From: from} })
}

// handle returns the answer to a message, if any, and the message opened.
func (r *responder) handle(b []byte, m ike.Message) ([]byte, ike.Message) {
	if m.Exchange == ike.SAInit {
		r.requests = append(r.requests, m)
		return r.init(b, m), m
	}
	sa := r.sas[m.SPIi]
	if sa == nil || m.SPIr != sa.spir {
		r.t.Errorf("message of an unknown SA: %v", m.Header)
		return nil, m
	}
	opened, err := sa.keys.Open(b)
	if err != nil {
		r.t.Errorf("%v %d: %v", m.Exchange, m.MessageID, err)
		return nil, m
	}
	if opened.Flags&ike.FlagResponse != 0 {
		sa.answers = append(sa.answers, opened)
		return nil, opened
	}
	switch {
	case opened.MessageID+1 == sa.next && sa.last != nil:
		return sa.last, opened // a retransmission
	case opened.MessageID != sa.next || sa.deleted:
		return nil, opened
	}
	r.requests = append(r.requests, opened)
	payloads := r.protected(sa, opened)
	if payloads == nil {
		return nil, opened
	}
	h := ike.Header{Exchange: opened.Exchange, Flags: ike.FlagResponse, MessageID: opened.MessageID}
	answer, err := sa.keys.Seal(false, h, payloads)
	if err != nil {
		r.t.Error(err)
	}
	sa.next, sa.last = sa.next+1, answer
	return answer, opened
}

// request sends a request of the peer's own.
func (r *responder) request(sa *simSA, exchange ike.ExchangeType, id uint32, payloads ...ike.Payload) []byte {
	b, err := sa.keys.Seal(false, ike.Header{Exchange: exchange, MessageID: id}, payloads)
	if err != nil {
		r.t.Error(err)
	}
	return b
}

func (r *responder) init(b []byte, m ike.Message) []byte {
	if sa := r.sas[m.SPIi]; sa != nil {
		return sa.response
	}
	answer := ike.Message{Header: ike.Header{SPIi: m.SPIi, Version: ike.V2, Exchange: ike.SAInit, Flags: ike.FlagResponse}}
	p, _ := m.First(ike.PayloadSA)
	chosen, ok := r.choose(ike.ProtocolIKE, r.proposals, p.Body, false)
	if !ok {
		answer.Payloads = []ike.Payload{ike.Notify{Type: ike.NoProposalChosen}.Payload()}
		return answer.Append(nil)
	}
	p, _ = m.First(ike.PayloadKE)
	ke, _ := ike.ParseKE(p.Body)
	if g := groupsOf([]ike.Proposal{chosen})[0]; g != ke.Group {
		answer.Payloads = []ike.Payload{ike.Notify{Type: ike.InvalidKEPayload, Data: []byte{byte(g >> 8), byte(g)}}.Payload()}
		return answer.Append(nil)
	}
	nonce, _ := m.First(ike.PayloadNonce)
	kx, err := ikecrypto.NewKeyExchange(ke.Group)
	if err != nil {
		r.t.Fatal(err)
	}
	shared, err := kx.Shared(ke.Public)
	if err != nil {
		r.t.Fatal(err)
	}
	suite, err := ikecrypto.NewSuite(chosen)
	if err != nil {
		r.t.Fatal(err)
	}
	sa := &simSA{spir: newSPI(), init: b, ni: nonce.Body, nr: bytes.Repeat([]byte{7}, 32), next: 1}
	sa.keys = suite.Keys(shared, sa.ni, sa.nr, m.SPIi, sa.spir)
	answer.SPIr = sa.spir
	here := ikecrypto.NATDetection(m.SPIi, sa.spir, r.here)
	there := ikecrypto.NATDetection(m.SPIi, sa.spir, r.there)
	if r.nat {
		there[0]++
	}
	answer.Payloads = []ike.Payload{
		ike.SA(chosen), ike.KE(kx.Group(), kx.Public()), ike.Nonce(sa.nr),
		ike.Notify{Type: ike.NATDetectionSourceIP, Data: here[:]}.Payload(),
		ike.Notify{Type: ike.NATDetectionDestinationIP, Data: there[:]}.Payload(),
	}
	if r.childless {
		answer.Payloads = append(answer.Payloads, ike.Notify{Type: ike.ChildlessSupported}.Payload())
	}
	sa.response = answer.Append(nil)
	r.sas[m.SPIi] = sa
	return sa.response
}

// choose picks the first of the own proposals that an offer has. Without
// groups it compares as in IKE_AUTH.
func (r *responder) choose(protocol ike.ProtocolID, own []string, body []byte, inAuth bool) (ike.Proposal, bool) {
	offer, err := ike.ParseSA(body)
	if err != nil {
		r.t.Errorf("SA payload: %v", err)
		return ike.Proposal{}, false
	}
	mine, err := offerOf(protocol, own)
	if err != nil {
		r.t.Fatal(err)
	}
	if inAuth {
		mine = withGroups(mine)
	}
	for _, o := range mine {
		for _, theirs := range offer {
			if isChoice(o, theirs) {
				o.SPI, o.Number = theirs.SPI, theirs.Number
				return o, true
			}
		}
	}
	return ike.Proposal{}, false
}

// protected returns the payloads of the answer; nil is silence.
func (r *responder) protected(sa *simSA, m ike.Message) []ike.Payload {
	switch m.Exchange {
	case ike.Auth:
		return r.auth(sa, m)
	case ike.CreateChildSA:
		if !sa.up {
			return nil
		}
		return r.child(sa, m, false)
	case ike.Informational:
		p, ok := m.First(ike.PayloadDelete)
		d, err := ike.ParseDelete(p.Body)
		if ok && (err != nil || d.Protocol != ike.ProtocolIKE || !sa.up) {
			r.t.Errorf("DELETE of %v, %v", d, err)
		}
		sa.deleted, sa.up = sa.deleted || ok, sa.up && !ok
		return []ike.Payload{}
	}
	r.t.Errorf("exchange %v", m.Exchange)
	return nil
}

func (r *responder) auth(sa *simSA, m ike.Message) []ike.Payload {
	idi, _ := m.First(ike.PayloadIDi)
	id, _ := ike.ParseIdentity(idi.Body)
	p, _ := m.First(ike.PayloadAuth)
	auth, err := ike.ParseAuth(p.Body)
	if err != nil {
		r.t.Errorf("AUTH: %v", err)
	}
	right := sa.keys.AuthPSK(true, []byte(r.psk), sa.init, sa.nr, idi.Body)
	if !hmac.Equal(right, auth.Data) || r.remoteID != "" && r.remoteID != id.String() {
		return []ike.Payload{ike.Notify{Type: ike.AuthenticationFailed}.Payload()}
	}
	sa.up, sa.created = true, true
	idr := ike.IdentityOf(r.id).Payload(ike.PayloadIDr)
	list := []ike.Payload{idr, ike.Authentication{
		Method: ike.AuthSharedKey,
		Data:   sa.keys.AuthPSK(false, []byte(r.psk), sa.response, sa.ni, idr.Body),
	}.Payload()}
	if r.childless {
		if len(m.Payloads) != 2 {
			r.t.Errorf("a child in IKE_AUTH, with a peer that does without")
		}
		return list
	}
	return append(list, r.child(sa, m, true)...)
}

// child answers a request for a child SA.
func (r *responder) child(sa *simSA, m ike.Message, inAuth bool) []ike.Payload {
	refuse := func(t ike.NotifyType, data ...byte) []ike.Payload {
		return []ike.Payload{ike.Notify{Type: t, Data: data}.Payload()}
	}
	pi, _ := m.First(ike.PayloadTSi)
	pr, _ := m.First(ike.PayloadTSr)
	tsi, iOK := narrow(pi.Body, r.tsi)
	tsr, rOK := narrow(pr.Body, r.tsr)
	if !iOK || !rOK {
		return refuse(ike.TSUnacceptable)
	}
	p, _ := m.First(ike.PayloadSA)
	chosen, ok := r.choose(ike.ProtocolESP, r.esp, p.Body, inAuth)
	_, transport := notify(m, ike.UseTransportMode)
	if !ok || transport != r.transport {
		return refuse(ike.NoProposalChosen)
	}
	p, has := m.First(ike.PayloadKE)
	ke, _ := ike.ParseKE(p.Body)
	if g := firstGroup([]ike.Proposal{chosen}); g != 0 && (!has || ke.Group != g) {
		if r.syntax {
			return refuse(ike.InvalidSyntax)
		}
		return refuse(ike.InvalidKEPayload, byte(g>>8), byte(g))
	}
	chosen.SPI = []byte{1, 2, 3, 4}
	list := []ike.Payload{ike.SA(chosen), ike.TS(ike.PayloadTSi, tsi), ike.TS(ike.PayloadTSr, tsr)}
	if !inAuth {
		list = append(list, ike.Nonce(bytes.Repeat([]byte{8}, 32)))
	}
	if transport {
		list = append(list, ike.Notify{Type: ike.UseTransportMode}.Payload())
	}
	return list
}

// narrow returns what offered selectors and a configured prefix share.
func narrow(offered []byte, configured string) ([]ike.TrafficSelector, bool) {
	list, err := ike.ParseTS(offered)
	if err != nil {
		return nil, false
	}
	c := netip.MustParsePrefix(configured)
	for _, ts := range list {
		if p, ok := ts.Prefix(); ok && p.Overlaps(c) {
			if p.Bits() < c.Bits() {
				p = c
			}
			return []ike.TrafficSelector{ike.SelectorOf(p)}, true
		}
	}
	return nil, false
}

// sa returns the one SA that was begun.
func (r *responder) sa() *simSA {
	for _, sa := range r.sas {
		return sa
	}
	return &simSA{}
}

// check verifies what must hold of every negotiation.
func (r *responder) check() {
	r.t.Helper()
	created := 0
	for _, sa := range r.sas {
		if sa.created {
			created++
		}
		if sa.up {
			r.t.Error("an IKE SA stays at the peer")
		}
	}
	if created > 1 {
		r.t.Errorf("%d IKE SAs", created)
	}
	for _, m := range r.requests {
		if _, ok := notify(m, ike.InitialContact); ok {
			r.t.Error("INITIAL_CONTACT")
		}
	}
	if n := len(r.requests); n > 12 {
		r.t.Errorf("%d requests", n)
	}
	if len(r.raw) > 0 && bytes.Contains(slices.Concat(r.raw...), []byte(testPSK)) {
		r.t.Error("the key is on the wire")
	}
}

// shows fails the test when a value, however printed, shows the key.
func shows(t *testing.T, values ...any) {
	t.Helper()
	showsBy(t, []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"}, values...)
}

func showsBy(t *testing.T, formats []string, values ...any) {
	t.Helper()
	for _, v := range values {
		for _, format := range formats {
			text := fmt.Sprintf(format, v)
			for _, secret := range []string{testPSK, fmt.Sprintf("%x", testPSK), strings.Trim(fmt.Sprint([]byte(testPSK)), "[]")} {
				if strings.Contains(text, secret) {
					t.Errorf("%T printed with %s shows the key", v, format)
				}
			}
		}
	}
}
