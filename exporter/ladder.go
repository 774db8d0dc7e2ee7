package exporter

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"vpnprobe/evidence"
)

// Values of the labels of the probe ladder, see [sendReasons].
var (
	ladderSteps = []string{
		"version", "proposal", "proposal_v1", "proposal_aggressive", "declared", "wide", "bisect",
		"init", "main", "main_wide", "aggressive", "aggressive_wide",
	}
	ladderAnswers = []string{
		"accepted", "wrong_group", "no_proposal", "cookie", "bad_version", "redirect",
		"silent", "refused", "prohibited", "unreachable", "send_error", "other",
	}
	skipReasons = []string{
		"budget", "daemon_negotiating", "cookie", "time", "no_state_directory", "on_demand_only", "unsupported", "other",
	}
	authStages = []string{"init", "auth", "child", "complete", "other"}
	attributes = []evidence.Attribute{evidence.Encryption, evidence.Integrity, evidence.PRF, evidence.Group}
)

// ladderVecs count what the probe ladder and authenticated negotiations did.
type ladderVecs struct {
	runs, requests            *prometheus.CounterVec // by peer
	exchanges                 *prometheus.CounterVec // by peer, step
	answers                   *prometheus.CounterVec // by peer, answer
	skipped                   *prometheus.CounterVec // by peer, reason
	authentications           *prometheus.CounterVec // by peer, stage
	sizeRequests, sizeReplies *prometheus.CounterVec // by peer, port, size
}

func (m *metrics) addLadder() {
	m.ladder = ladderVecs{
		runs:            m.counter("ike_ladder_runs_total", "Runs of the probe ladder.", "peer"),
		requests:        m.counter("ike_ladder_requests_total", "IKE messages that the probe ladder sent over UDP, retransmissions and the comparison of sizes included.", "peer"),
		exchanges:       m.counter("ike_ladder_exchanges_total", "Requests of the probe ladder, retransmissions not counted, by step.", "peer", "step"),
		answers:         m.counter("ike_ladder_answers_total", "Requests of the probe ladder, retransmissions not counted, by what became of them.", "peer", "answer"),
		skipped:         m.counter("ike_ladder_skipped_total", "Steps of the probe ladder that were left out, by reason.", "peer", "reason"),
		authentications: m.counter("ike_authentications_total", "Authenticated negotiations made to test the peer, by the stage at which they ended.", "peer", "stage"),
		sizeRequests:    m.counter("ike_size_requests_total", "IKE requests sent to compare sizes: small, or larger than the path MTU.", "peer", "port", "size"),
		sizeReplies:     m.counter("ike_size_responses_total", "IKE requests of that size that were answered.", "peer", "port", "size"),
	}
}

// ladderSeries counts what the probe ladder did with one peer.
type ladderSeries struct {
	runs, requests                              prometheus.Counter
	exchanges, answers, skipped, authentication reasons
}

func newLadderSeries(m *metrics, peer string) ladderSeries {
	v := m.ladder
	return ladderSeries{
		runs:           v.runs.WithLabelValues(peer),
		requests:       v.requests.WithLabelValues(peer),
		exchanges:      newReasons(v.exchanges, ladderSteps, peer),
		answers:        newReasons(v.answers, ladderAnswers, peer),
		skipped:        newReasons(v.skipped, skipReasons, peer),
		authentication: newReasons(v.authentications, authStages, peer),
	}
}

// observe counts one run. A run that never began only tells what was skipped,
// and an answer to an earlier run was counted then.
func (s ladderSeries) observe(l evidence.Ladder) {
	if l.Time.Known() {
		s.runs.Inc()
	}
	for _, x := range l.Exchanges {
		if x.Reused {
			continue
		}
		s.requests.Add(float64(max(x.Requests, 0)))
		s.exchanges.of(string(x.Step)).Inc()
		s.answers.of(ladderAnswer(x)).Inc()
	}
	for _, x := range l.Large {
		s.requests.Add(float64(max(x.SmallSent, 0) + max(x.LargeSent, 0)))
	}
	for _, x := range l.Skipped {
		s.skipped.of(string(x.Reason)).Inc()
	}
}

// ladderAnswer returns what became of a request, as the value of a label.
func ladderAnswer(x evidence.IKEExchange) string {
	if x.Outcome == evidence.IKEAnswered {
		return string(x.Answer)
	}
	return string(x.Outcome)
}

func (s ladderSeries) observeAuth(a evidence.IKEAuth) {
	if a.Stage != "" {
		s.authentication.of(string(a.Stage)).Inc()
	}
}

// sizeSeries compares small requests with large ones on one port.
type sizeSeries struct{ requests, responses prometheus.Counter }

func newSizeSeries(m *metrics, labels []string, size string) sizeSeries {
	labels = append(slices.Clone(labels), size)
	return sizeSeries{m.ladder.sizeRequests.WithLabelValues(labels...), m.ladder.sizeReplies.WithLabelValues(labels...)}
}

func (s sizeSeries) add(sent, answered int) {
	s.requests.Add(float64(max(sent, 0)))
	s.responses.Add(float64(max(answered, 0)))
}

// ObserveLadder counts one run of the probe ladder.
func (e *Exporter) ObserveLadder(name string, l evidence.Ladder) {
	e.with(name, func(p *peer) {
		p.ladder.observe(l)
		for _, x := range l.Large {
			if s := p.ikeOn(x.Port); s != nil {
				s.small.add(x.SmallSent, x.SmallAnswered)
				s.large.add(x.LargeSent, x.LargeAnswered)
			}
		}
	})
}

// ObserveAuth counts one authenticated negotiation.
func (e *Exporter) ObserveAuth(name string, a evidence.IKEAuth) {
	e.with(name, func(p *peer) { p.ladder.observeAuth(a) })
}

var (
	descLadderTime = desc("ike_ladder_timestamp_seconds", "When the latest run of the probe ladder began, in Unix time. No series before the first one.", "peer")
	descAccepts    = desc("ike_accepts", "Whether the peer accepts any proposal from this host's address, by the way to begin a negotiation. No series while that is not known.",
		"peer", "version")
	descDeclared = desc("ike_accepts_declared", "Whether the peer accepts a declared proposal, by the way to begin a negotiation. No series while that is not known.",
		"peer", "version")
	descMismatch = desc("ike_mismatch", "Whether the peer refuses every declared value of that attribute of an IKE proposal. No series while that is not known.",
		"peer", "attribute")
	descNAT = desc("ike_nat", "Whether the peer's answer shows a translated address on that side, or that the peer forces UDP encapsulation. No series while that is not known.",
		"peer", "side")
	descTCP = desc("ike_tcp_up", "Whether the peer answers IKE over TCP port 4500 (RFC 9329). No series while that is not known.", "peer")
)

var ladderDescs = []*prometheus.Desc{descLadderTime, descAccepts, descDeclared, descMismatch, descNAT, descTCP}

// collectLadder reads the verdicts of the latest run.
func collectLadder(l *evidence.Ladder, gauge func(d *prometheus.Desc, value float64, labels ...string)) {
	fact := func(d *prometheus.Desc, f evidence.Fact, labels ...string) {
		if f.Known() {
			gauge(d, boolValue(f == evidence.Yes), labels...)
		}
	}
	if at, ok := l.Time.Get(); ok {
		gauge(descLadderTime, unixSeconds(at))
	}
	for _, x := range []struct {
		version string
		offers  evidence.IKEOffers
	}{{"ikev2", l.V2}, {"ikev1_main", l.Main}, {"ikev1_aggressive", l.Aggressive}} {
		fact(descAccepts, x.offers.Accepts, x.version)
		fact(descDeclared, x.offers.Declared, x.version)
	}
	for _, a := range attributes {
		fact(descMismatch, mismatched(l, a), string(a))
	}
	fact(descNAT, l.Features.NATHere, "local")
	fact(descNAT, l.Features.NATThere, "remote")
	fact(descTCP, tcpUp(l.TCP))
}

// mismatched reports whether an attribute of the declared proposals is
// refused: not known unless a declared proposal was accepted, or the ladder
// found which attributes are wrong.
func mismatched(l *evidence.Ladder, a evidence.Attribute) evidence.Fact {
	if len(l.Mismatches) > 0 {
		return evidence.FactOf(slices.ContainsFunc(l.Mismatches, func(m evidence.Mismatch) bool { return m.Attribute == a }))
	}
	for _, o := range []evidence.IKEOffers{l.V2, l.Main, l.Aggressive} {
		if o.Declared == evidence.Yes {
			return evidence.No
		}
	}
	return evidence.Unknown
}

func tcpUp(c evidence.IKEOverTCP) evidence.Fact {
	if c.Connected == evidence.No {
		return evidence.No
	}
	return c.Answered
}
