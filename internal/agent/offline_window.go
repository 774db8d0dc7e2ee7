package agent

import (
	"fmt"
	"time"

	"vpnprobe/capture"
	"vpnprobe/diagnosis"
	"vpnprobe/evidence"
)

// mark is a reading of the peer, and of its siblings after it.
type mark struct {
	at     time.Time // of the capture
	counts []capture.Counts
}

// markParts is into how many parts Last is divided by readings.
const markParts = 8

// mark takes a reading now and then, for a window to begin with.
func (a *analysis) mark(now time.Time) {
	if n := len(a.marks); n > 0 && now.Sub(a.marks[n-1].at).Abs() < a.span/markParts {
		return
	}
	a.marks = append(a.marks, a.read())
	for len(a.marks) > 1 && !a.marks[1].at.After(now.Add(-a.span)) {
		a.marks = a.marks[1:]
	}
	if len(a.marks) > 4*markParts {
		a.marks = a.marks[len(a.marks)-markParts:] // the clock went backwards
	}
}

func (a *analysis) read() mark {
	m := mark{counts: []capture.Counts{a.counts(a.target.Name)}}
	m.at = m.counts[0].Time
	for _, t := range a.target.siblings {
		m.counts = append(m.counts, a.counts(t.Name))
	}
	return m
}

func (a *analysis) counts(name string) capture.Counts {
	c := a.obs.Counts(name)
	c.Dropped += a.dropped
	if a.drops != nil {
		c.Dropped += a.drops()
	}
	return c
}

// before returns the last reading that is at least so old at the time of now,
// and false when there is none: then one of zeros stands for the beginning of
// the capture.
func (a *analysis) before(now time.Time, age time.Duration) (mark, bool) {
	found, ok := mark{counts: make([]capture.Counts, 1+len(a.target.siblings))}, false
	for _, m := range a.marks {
		if age <= 0 || m.at.After(now.Add(-age)) {
			break
		}
		found, ok = m, true
	}
	return found, ok
}

// patience is how much of a capture may pass until it is said that nothing can
// be said yet.
const patience = 10 * time.Second

// look reports the diagnosis if it is another one than before. Early on, one
// that decides nothing can wait.
func (a *analysis) look(early bool) error {
	if !a.fresh && a.said != "" {
		return nil
	}
	a.fresh = false
	now := a.read()
	since, _ := a.before(now.at, a.Last)
	r := diagnosis.Evaluate(a.snapshot(now, since))
	if early && a.said == "" && r.Diagnosis() == diagnosis.Undecided {
		return nil
	}
	said := gist(r)
	if said == a.said {
		return nil
	}
	a.said = said
	return a.Report(r)
}

// gist is what makes two diagnoses the same: the labels of what is true, but
// not the figures.
func gist(r *diagnosis.Report) string {
	s := ""
	for _, f := range r.Findings {
		if f.Role != diagnosis.Suppressed {
			s += fmt.Sprintf("%s %s %s\n", f.Role, f.Severity, f.Label)
		}
	}
	return s
}

// finish reports on the whole.
func (a *analysis) finish() error {
	c := a.counts(a.target.Name)
	if n := encrypted(c.In).Packets + encrypted(c.Out).Packets; n == 0 && len(c.In.IKE)+len(c.Out.IKE) == 0 {
		others := "nor of any other two hosts"
		if pairs := a.survey.Pairs(); len(pairs) > 0 {
			others = "but of " + list(pairs, a.survey.Left())
		}
		a.Note(fmt.Sprintf("%s: no IPsec with peer %s (%s) in it, %s", a.name(), a.target.Name, join(a.target.addrs), others))
	}
	if a.Follow {
		return a.look(false)
	}
	return a.Report(a.conclude())
}

// endSpan is how much of a capture's end is looked at apart from the whole, if
// that is twice as long: about as much as the daemon looks back for traffic.
const endSpan = 15 * time.Second

// conclude diagnoses from the window that was asked for, or from the whole.
// What works most of the time hides that it does not at the end.
func (a *analysis) conclude() *diagnosis.Report {
	now := a.read()
	since, _ := a.before(now.at, a.Last)
	whole := diagnosis.Evaluate(a.snapshot(now, since))
	since, ok := a.before(now.at, endSpan)
	if a.Last > 0 || !ok || whole.Duration < 2*endSpan {
		return whole
	}
	end := diagnosis.Evaluate(a.snapshot(now, since))
	switch {
	case end.Diagnosis() == whole.Diagnosis() || end.Diagnosis() == diagnosis.Undecided:
		return whole
	case whole.Severity() == diagnosis.Info && end.Severity() != diagnosis.Info:
		a.Note(fmt.Sprintf("%s: the report is on its last %.0f s; all its %.0f s together would read %s", a.name(), end.Duration.Seconds(), whole.Duration.Seconds(), whole.Diagnosis()))
		return end
	}
	a.Note(fmt.Sprintf("%s: its last %.0f s alone would read %s: see --last", a.name(), end.Duration.Seconds(), end.Diagnosis()))
	return whole
}

func encrypted(t evidence.WireTraffic) evidence.Traffic { return t.ESP.Add(t.ESPInUDP).Add(t.AH) }

// snapshot is what the capture tells of a window; all else is not known.
func (a *analysis) snapshot(to, from mark) *evidence.Snapshot {
	now, was := to.counts, from.counts
	// That ESP came in shows that nothing hid it from the capture; that none
	// did may have that very reason, if the capture is from the tunnel's end.
	blind := evidence.Unknown
	if encrypted(now[0].In).Packets > 0 {
		blind = evidence.No
	}
	c := now[0].Since(was[0], blind)
	s := &evidence.Snapshot{
		Peer: a.target.Name, Time: to.at, Window: c.Over, Declared: declared(a.target.Peer, a.cfg.References),
		Addresses: a.target.addrs, Capture: c,
	}
	if s.Time.IsZero() {
		s.Time = time.Now() // there was no frame
	}
	for i, t := range a.target.siblings {
		c := now[1+i].Since(was[1+i], blind)
		s.Siblings = append(s.Siblings, evidence.Sibling{Peer: t.Name, In: encrypted(c.In), Out: encrypted(c.Out)})
	}
	return s
}
