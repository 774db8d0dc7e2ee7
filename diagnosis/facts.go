package diagnosis

import (
	"math"
	"net/netip"
	"slices"
	"time"

	"vpnprobe/evidence"
)

// The number of consecutive observations that make a finding when no single
// one is decisive.
const (
	silentBeats   = 2 // IKE heartbeats; each is several datagrams
	silentEchoes  = evidence.SilentRun
	minOutPackets = 3 // encrypted packets sent before "none came back" means anything
)

// facts are the statements that the rules are written in, each derived from
// the snapshot alone.
type facts struct {
	*evidence.Snapshot
	gateway    evidence.EchoSeries // of the gateway address that is probed
	references []evidence.EchoSeries
	inner      []evidence.EchoSeries
	ike500     evidence.IKEPort
	ike4500    evidence.IKEPort
}

func derive(s *evidence.Snapshot) *facts {
	fresh := *s
	if t, ok := s.Ladder.Time.Get(); !ok || s.Time.Sub(t) > maxLadderAge {
		fresh.Ladder = evidence.Ladder{}
	}
	if t, ok := s.Auth.Time.Get(); ok && s.Time.Sub(t) > maxAuthAge {
		fresh.Auth = evidence.IKEAuth{}
	}
	f := &facts{Snapshot: &fresh, references: s.Echo(evidence.Reference), inner: s.Echo(evidence.Inner)}
	if g := s.Echo(evidence.Gateway); len(g) > 0 {
		f.gateway = g[0]
	}
	f.ike500, _ = s.IKEOn(500)
	f.ike4500, _ = s.IKEOn(4500)
	f.ike500, f.ike4500 = during(f.ike500, f.gateway), during(f.ike4500, f.gateway)
	return f
}

// answers says whether an address answers echo requests now.
func answers(e evidence.EchoSeries) evidence.Fact {
	switch {
	case e.Replies+e.Late > 0 && e.Trailing < silentEchoes:
		return evidence.Yes
	case e.Trailing-e.TrailingUnsent >= silentEchoes:
		return evidence.No
	}
	return evidence.Unknown
}

// gatewayAnswersPing says whether the gateway answers ICMP echo now.
func (f *facts) gatewayAnswersPing() evidence.Fact { return answers(f.gateway) }

// referencesAnswer is Yes when any reference answers, No when none does.
func (f *facts) referencesAnswer() evidence.Fact { return anyAnswers(f.references) }

func anyAnswers(list []evidence.EchoSeries) evidence.Fact {
	all := evidence.Unknown
	for _, e := range list {
		switch answers(e) {
		case evidence.Yes:
			return evidence.Yes
		case evidence.No:
			all = evidence.No
		}
	}
	return all
}

// port sums up the present state of one IKE port by its newest results, back
// to the last answer: "" when nothing is decided yet. One answer or one ICMP
// error is decisive, also when later heartbeats stay silent, because hosts and
// routers limit the errors that they send (RFC 1812 section 4.3.2.8); silence
// alone takes several heartbeats in a row.
func port(p evidence.IKEPort) (evidence.IKEOutcome, evidence.IKEResult) {
	last, ok := p.Last()
	if !ok || last.Outcome == evidence.IKEAnswered || last.Outcome == evidence.IKESendError {
		return last.Outcome, last
	}
	silent := 0
	for i := len(p.Results) - 1; i >= 0 && unanswered(p.Results[i].Outcome); i-- {
		if r := p.Results[i]; r.Outcome != evidence.IKESilent {
			return r.Outcome, r
		}
		silent++
	}
	if silent < silentBeats {
		return "", last
	}
	return evidence.IKESilent, last
}

// during returns what a port showed in the gateway's present state, answering
// pings or not: silence from before it came back says nothing about now, nor
// does an answer from before it fell silent.
func during(p evidence.IKEPort, gateway evidence.EchoSeries) evidence.IKEPort {
	since, answering := gateway.AnsweringSince.Get()
	if !answering {
		var ever bool
		if since, ever = gateway.LastReply.Get(); !ever {
			return p
		}
	}
	p.Results = slices.DeleteFunc(slices.Clone(p.Results), func(r evidence.IKEResult) bool {
		return r.Sent.Before(since) && (r.Outcome == evidence.IKEAnswered) != answering
	})
	return p
}

// ikeAnswers says whether the peer answers IKE on any port now.
func (f *facts) ikeAnswers() evidence.Fact {
	a, _ := port(f.ike500)
	b, _ := port(f.ike4500)
	switch {
	case a == evidence.IKEAnswered || b == evidence.IKEAnswered || f.ladderAnswered():
		return evidence.Yes
	case unanswered(a) && (unanswered(b) || b == evidence.IKESendError || len(f.ike4500.Results) == 0):
		return evidence.No
	}
	return evidence.Unknown
}

// ladderAnswered reports whether the peer answered the probe ladder during the
// present silence of the heartbeats: it asks in more ways than they do.
func (f *facts) ladderAnswered() bool {
	since := silentSince(f.ike500)
	return slices.ContainsFunc(f.Ladder.Exchanges, func(x evidence.IKEExchange) bool {
		return x.Outcome == evidence.IKEAnswered && !x.Reused && x.Sent.After(since)
	})
}

// silentSince is when the first heartbeat was sent after the last answered
// one.
func silentSince(p evidence.IKEPort) (first time.Time) {
	for _, r := range slices.Backward(p.Results) {
		if r.Outcome == evidence.IKEAnswered {
			break
		}
		first = r.Sent
	}
	return first
}

// unanswered reports whether a heartbeat left this host and got no answer.
func unanswered(o evidence.IKEOutcome) bool {
	switch o {
	case evidence.IKESilent, evidence.IKERefused, evidence.IKEProhibited, evidence.IKEUnreachable:
		return true
	}
	return false
}

// saUp says whether the kernel holds SAs with the peer in both directions.
func (f *facts) saUp() evidence.Fact {
	if f.Host.Tunnel.Readable != evidence.Yes {
		return evidence.Unknown
	}
	var in, out bool
	for _, sa := range f.Host.Tunnel.SAs {
		in = in || sa.Inbound
		out = out || !sa.Inbound
	}
	return evidence.FactOf(in && out)
}

// encapsulated says whether the tunnel's ESP travels in UDP 4500.
func (f *facts) encapsulated() bool {
	for _, sa := range f.Host.Tunnel.SAs {
		if sa.Encap {
			return true
		}
	}
	return false
}

// offloaded says whether the network card encrypts for the tunnel, behind the
// back of any capture.
func (f *facts) offloaded() bool {
	return slices.ContainsFunc(f.Host.Tunnel.SAs, func(sa evidence.SA) bool { return sa.Offloaded })
}

// tunnelReceives says whether encrypted traffic comes in from the peer while
// we send some. The SA's own counters decide; the capture, only where it could
// not have missed a packet.
func (f *facts) tunnelReceives() evidence.Fact {
	t, c := f.Host.Tunnel, f.Capture
	switch f.saUp() {
	case evidence.Yes:
		last, ever := t.LastIn.Get()
		silence, known := f.innerSilentSince()
		switch {
		case t.In.Packets > 0 && (!known || ever && last.After(silence.Add(lag))):
			return evidence.Yes
		case t.Out.Packets >= minOutPackets:
			return evidence.No
		}
	case evidence.Unknown:
		if espPackets(c.In) > 0 {
			return evidence.Yes
		}
		if c.Conclusive() && espPackets(c.Out) >= minOutPackets {
			return evidence.No
		}
	}
	return evidence.Unknown
}

// lag is how late a packet may show in the counters that are read once a
// second.
const lag = 1500 * time.Millisecond

// innerSilentSince is when the last inner host fell silent, so that what the
// tunnel carried before says nothing about now. It is not known while one
// answers, and when none ever answered within the window.
func (f *facts) innerSilentSince() (since time.Time, known bool) {
	if f.innerAnswers() != evidence.No {
		return since, false
	}
	for _, e := range f.inner {
		if last, ok := e.LastReply.Get(); ok && last.After(since) {
			since, known = last, true
		}
	}
	return since, known
}

// ikeAnsweredSince reports whether the peer answered a heartbeat that was sent
// after the inner hosts fell silent: until then the path itself may be what
// broke.
func (f *facts) ikeAnsweredSince() bool {
	since, known := f.innerSilentSince()
	for _, p := range []evidence.IKEPort{f.ike500, f.ike4500} {
		if last, ok := p.Last(); ok && last.Outcome == evidence.IKEAnswered && (!known || last.Sent.After(since)) {
			return true
		}
	}
	return false
}

// espPackets counts the packets of ESP and AH whose numbers fit into a stream:
// anybody can send a packet with an SPI that nobody uses.
func espPackets(w evidence.WireTraffic) uint64 {
	return w.Sequence.Expected - min(w.Sequence.Lost, w.Sequence.Expected)
}

// anyESP counts all that looks like ESP and AH.
func anyESP(w evidence.WireTraffic) uint64 {
	return w.ESP.Packets + w.ESPInUDP.Packets + w.AH.Packets
}

// innerAnswers is Yes when any declared inner address is reached, by echo or
// by TCP, No when all that were tried are silent.
func (f *facts) innerAnswers() evidence.Fact {
	all := anyAnswers(f.inner)
	for _, t := range f.TCP {
		if tcpReached(t) {
			return evidence.Yes
		}
	}
	return all
}

// tcpReached reports whether the host was reached: a reset is an answer too.
func tcpReached(t evidence.TCPResult) bool { return t.Connected == evidence.Yes || t.Refused }

// works says whether the tunnel carries traffic from the peer now. An inner
// host that answers shows it, unless nothing of a tunnel is here and the peer
// is silent: then the answer came another way.
func (f *facts) works() bool {
	return f.tunnelReceives() == evidence.Yes || f.innerAnswers() == evidence.Yes && !f.elsewhere()
}

// elsewhere reports whether an inner host's answer cannot be credited to this
// peer.
func (f *facts) elsewhere() bool {
	return f.saUp() == evidence.No && f.Host.Tunnel.Policy != evidence.Yes &&
		f.gatewayAnswersPing() != evidence.Yes && f.ikeAnswers() != evidence.Yes
}

// unrefuted reports whether the SAs are up and nothing shows that they carry
// nothing: an idle tunnel. Silence towards our foreign port is no fault of it.
func (f *facts) unrefuted() bool {
	return f.works() || f.saUp() == evidence.Yes && f.innerAnswers() != evidence.No
}

// used reports whether the peer answered our heartbeats before, so that
// anything else now is a change.
func (f *facts) used() bool {
	return f.ike500.Ever == evidence.Yes || f.ike4500.Ever == evidence.Yes
}

// lostInner lists the inner addresses that neither echo nor TCP reaches.
func (f *facts) lostInner() (silent, pingOnly []evidence.EchoSeries) {
	for _, e := range f.inner {
		if answers(e) != evidence.No {
			continue
		}
		byTCP := false
		for _, t := range f.TCP {
			byTCP = byTCP || t.Target.Addr() == e.Target && tcpReached(t)
		}
		if byTCP {
			pingOnly = append(pingOnly, e)
		} else {
			silent = append(silent, e)
		}
	}
	return silent, pingOnly
}

// behindNAT says whether a NAT stands between this host and the peer. A
// private source towards a public gateway proves one, and so does an SA that
// the daemon encapsulates.
func (f *facts) behindNAT() evidence.Fact {
	if n := f.Ladder.Features; f.encapsulated() || n.NATHere == evidence.Yes || n.NATThere == evidence.Yes {
		return evidence.Yes
	}
	src, ok := f.source().Get()
	if !ok || len(f.Addresses) == 0 || !public(f.Addresses[0]) {
		return evidence.Unknown
	}
	return evidence.FactOf(!public(src))
}

// source is the address that our packets to the gateway carry.
func (f *facts) source() evidence.Opt[netip.Addr] {
	if f.Host.Route.Source.Known() {
		return f.Host.Route.Source
	}
	last, _ := f.ike500.Last()
	return last.Local
}

// sharedSpace is the carriers' NAT space of RFC 6598.
var sharedSpace = netip.MustParsePrefix("100.64.0.0/10")

func public(a netip.Addr) bool {
	a = a.Unmap()
	return a.IsGlobalUnicast() && !a.IsPrivate() && !sharedSpace.Contains(a)
}

// randomLoss returns how many echo requests count for the loss rate, and how
// many of them were lost: outages and requests that we could not send are
// other faults than a lossy path.
func randomLoss(e evidence.EchoSeries) (sent, lost int) {
	open := e.Trailing - e.TrailingUnsent // may be the beginning of an outage
	if open < 2 || open >= evidence.OutageRun {
		open = 0
	}
	return e.Replies + e.Lost - e.InOutages - open, e.Lost - e.InOutages - open
}

// lossy says whether the loss rate is above limit with 97.5 % confidence
// (Yes), or not shown to be (No); Unknown without enough requests.
func lossy(e evidence.EchoSeries, limit float64) evidence.Fact {
	n, lost := randomLoss(e)
	if n < 20 || e.Replies == 0 {
		return evidence.Unknown
	}
	return evidence.FactOf(wilsonLow(lost, n) > limit)
}

// wilsonLow is the lower bound of the 95 % Wilson score interval of a ratio
// of k in n.
func wilsonLow(k, n int) float64 {
	const z = 1.96
	if n == 0 {
		return 0
	}
	p, m := float64(k)/float64(n), float64(n)
	return (p + z*z/(2*m) - z*math.Sqrt(p*(1-p)/m+z*z/(4*m*m))) / (1 + z*z/m)
}

// contradicted reports whether other traffic to the gateway shows that a loss
// rate seen with ping is not the path's: heartbeats that all passed at the
// first try though the path should have dropped some (with 95 % confidence).
// That is what a gateway looks like that limits the pings it answers.
func (f *facts) contradicted(low float64) bool {
	clean := 0
	for _, p := range []evidence.IKEPort{f.ike500, f.ike4500} {
		if !slices.ContainsFunc(p.Results, func(r evidence.IKEResult) bool { return r.Outcome == evidence.IKEAnswered }) {
			continue // a port that never answers says nothing about loss
		}
		for i, r := range p.Results {
			switch {
			case r.Outcome == evidence.IKEAnswered && r.Requests == 1:
				clean++
			case i == 0 && r.Outcome == evidence.IKEAnswered && r.Requests == 3 && r.Request == evidence.ProposalProbe:
				// the peer ignores the first kind of request; not loss
			case r.Outcome == evidence.IKEAnswered || r.Outcome == evidence.IKESilent:
				return false
			}
		}
	}
	for _, e := range f.inner { // inside the tunnel at least as much is lost
		if e.Lost == 0 {
			clean += e.Replies
		}
	}
	return math.Pow(1-low, float64(clean)) < 0.05
}
