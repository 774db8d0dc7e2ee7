package exporter

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"vpnprobe/diagnosis"
	"vpnprobe/evidence"
)

// peer holds the series and the latest report of one peer. The owner's lock
// guards it.
type peer struct {
	metrics *metrics
	label   string

	echo map[evidence.Role]*echoSeries
	ike  map[uint16]*ikeSeries
	tcp  *tcpSeries
	mtu  map[evidence.Role]*mtuSeries

	ladder              ladderSeries
	capture             captureSeries
	tunnelIn, tunnelOut trafficSeries
	transitions         prometheus.Counter

	report  *diagnosis.Report // nil until the first one
	changed time.Time         // when the diagnosis became what it is
	mtus    map[evidence.Role]provenMTU
}

// provenMTU is the last path MTU that a reply has proven.
type provenMTU struct {
	bytes int
	at    time.Time
}

// newPeer creates every series that any peer has. Those of references, inner
// hosts and TCP ports follow when the peer is known to have them.
func newPeer(m *metrics, name string, now time.Time) *peer {
	p := &peer{
		metrics: m,
		label:   clean(name),
		echo:    map[evidence.Role]*echoSeries{},
		ike:     map[uint16]*ikeSeries{},
		mtu:     map[evidence.Role]*mtuSeries{},
		changed: now,
		mtus:    map[evidence.Role]provenMTU{},
	}
	p.transitions = m.transitions.WithLabelValues(p.label)
	p.ladder = newLadderSeries(m, p.label)
	p.capture = newCaptureSeries(m, p.label)
	p.tunnelIn = m.tunnelIn.of(p.label)
	p.tunnelOut = m.tunnelOut.of(p.label)
	p.echoOf(evidence.Gateway)
	p.mtuOf(evidence.Gateway)
	p.ikeOn(500)
	p.ikeOn(4500)
	return p
}

// echoOf returns the series of a role, nil when there is no such role.
func (p *peer) echoOf(role evidence.Role) *echoSeries {
	if s := p.echo[role]; s != nil {
		return s
	}
	path := pathOf(role)
	if path == "" {
		return nil
	}
	s := newEchoSeries(p.metrics, p.label, path, string(role))
	p.echo[role] = s
	return s
}

// mtuOf returns the series of a role's path MTU searches, nil when there is no
// such role.
func (p *peer) mtuOf(role evidence.Role) *mtuSeries {
	if s := p.mtu[role]; s != nil {
		return s
	}
	path := pathOf(role)
	if path == "" {
		return nil
	}
	s := newMTUSeries(p.metrics.mtu, p.label, path, string(role))
	p.mtu[role] = s
	return s
}

// pathOf tells whether a role's probes go through the tunnel.
func pathOf(role evidence.Role) string {
	switch role {
	case evidence.Gateway, evidence.Reference:
		return "underlay"
	case evidence.Inner:
		return "inner"
	}
	return ""
}

// maxPorts bounds the values of the label port. A peer has two; only a test
// or a demonstration probes others.
const maxPorts = 8

// ikeOn returns the series of a port, nil when there are too many.
func (p *peer) ikeOn(port uint16) *ikeSeries {
	if s := p.ike[port]; s != nil {
		return s
	}
	if len(p.ike) >= maxPorts {
		return nil
	}
	s := newIKESeries(p.metrics, p.label, port)
	p.ike[port] = s
	return s
}

func (p *peer) tcpSeries() *tcpSeries {
	if p.tcp == nil {
		p.tcp = newTCPSeries(p.metrics, p.label)
	}
	return p.tcp
}

// publish takes over a report. A report without a finding says nothing, so it
// counts as undecided.
func (p *peer) publish(r *diagnosis.Report) {
	if len(r.Findings) == 0 {
		undecided := *r
		undecided.Findings = []diagnosis.Finding{undecidedFinding()}
		r = &undecided
	}
	switch {
	case p.report == nil:
		p.changed = r.Time
	case p.report.Diagnosis() != r.Diagnosis():
		p.changed = r.Time
		p.transitions.Inc()
	}
	p.report = r
	s := r.Snapshot
	if s == nil {
		return
	}
	if len(s.Declared.References) > 0 {
		p.echoOf(evidence.Reference)
	}
	if len(s.Declared.Inner) > 0 {
		p.echoOf(evidence.Inner)
		p.mtuOf(evidence.Inner)
	}
	for role, m := range p.echo {
		m.forgetAllBut(s.Echo(role))
	}
	for role, mtu := range provenMTUs(s) {
		p.mtus[role] = mtu
	}
}

// provenMTUs returns, per role, the smallest of the path MTUs that replies
// have proven: what is safe to send to each of the role's targets.
func provenMTUs(s *evidence.Snapshot) map[evidence.Role]provenMTU {
	out := map[evidence.Role]provenMTU{}
	for _, m := range telling(s.MTUs) {
		bytes, ok := m.MTU.Get()
		if !ok || pathOf(m.Role) == "" {
			continue
		}
		at := m.Time.Or(s.Time)
		old, seen := out[m.Role]
		if !seen || bytes < old.bytes {
			out[m.Role] = provenMTU{bytes, at}
		}
	}
	return out
}

// undecidedFinding is what is known of a peer before its first report.
func undecidedFinding() diagnosis.Finding {
	return diagnosis.Finding{
		Label:    diagnosis.Undecided,
		Severity: diagnosis.Info,
		Role:     diagnosis.Cause,
	}
}

// findings returns the findings of the latest report, the cause first.
func (p *peer) findings() []diagnosis.Finding {
	if p.report == nil {
		return []diagnosis.Finding{undecidedFinding()}
	}
	return p.report.Findings
}
