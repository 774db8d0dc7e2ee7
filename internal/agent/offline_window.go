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

// marks are readings for windows to begin with, the oldest first.
type marks struct {
	span time.Duration // how old they get
	list []mark
	next interval // reading
}

// markParts is into how many parts a span is divided by readings.
const markParts = 8

func newMarks(span time.Duration) marks {
	return marks{span: span, next: interval{every: span / markParts}}
}

// interval tells when to do something again, by the times of frames.
type interval struct {
	every time.Duration
	done  time.Time // of the frame at which it was done last
	since int       // frames since then
}

// setBack is how many frames must have passed to look again when time went
// backwards: a look costs as much as many frames.
const setBack = 1000

// due reports whether it is time at a frame, and notes that it is done.
func (v *interval) due(now time.Time) bool {
	v.since++
	apart := now.Sub(v.done)
	if !v.done.IsZero() && apart < v.every && (apart > -v.every || v.since < setBack) {
		return false
	}
	v.done, v.since = now, 0
	return true
}

func (m *marks) add(r mark) {
	m.list = append(m.list, r)
	for len(m.list) > 1 && !m.list[1].at.After(r.at.Add(-m.span)) {
		m.list = m.list[1:]
	}
	if len(m.list) > 4*markParts {
		m.list = m.list[len(m.list)-markParts:] // the clock went backwards
	}
}

// before returns the last reading that is at least so old at the time of now,
// and false when there is none.
func (m *marks) before(now time.Time, age time.Duration) (found mark, ok bool) {
	for _, r := range m.list {
		if r.at.After(now.Add(-age)) {
			break
		}
		found, ok = r, true
	}
	return found, ok
}

// mark takes a reading now and then.
func (a *analysis) mark(now time.Time) {
	long, short := a.Last > 0 && a.window.next.due(now), a.end.next.due(now)
	if !long && !short {
		return
	}
	r := a.read()
	if long {
		a.window.add(r)
	}
	if short {
		a.end.add(r)
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

// asked returns the reading that the window which was asked for begins with: one
// of zeros stands for the beginning of the capture.
func (a *analysis) asked(now time.Time) mark {
	if a.Last > 0 {
		if m, ok := a.window.before(now, a.Last); ok {
			return m
		}
	}
	return mark{counts: make([]capture.Counts, 1+len(a.target.siblings))}
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
	r, note := a.conclude()
	if early && a.said == "" && r.Diagnosis() == diagnosis.Undecided || gist(r) == a.said {
		return nil
	}
	return a.report(r, note)
}

func (a *analysis) report(r *diagnosis.Report, note string) error {
	if note != "" {
		a.Note(note)
	}
	a.said, a.label, a.reported = gist(r), r.Diagnosis(), a.shown
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

// finish reports on the whole, unless the last report already did.
func (a *analysis) finish() error {
	c := a.counts(a.target.Name)
	if n := encrypted(c.In).Packets + encrypted(c.Out).Packets; n == 0 && len(c.In.IKE)+len(c.Out.IKE) == 0 {
		others := "nor of any other two hosts"
		if pairs := a.survey.Pairs(); len(pairs) > 0 {
			others = "but of " + list(pairs, a.survey.Left())
		}
		a.Note(fmt.Sprintf("%s: no IPsec with peer %s (%s) in it, %s", a.name(), a.target.Name, join(a.target.addrs), others))
	}
	if n := torn(c); n > 0 {
		a.Note(fmt.Sprintf("%s: %d packets of UDP 500 and 4500 are in fragments, and only the first fragment of each is there, so they are left out of the report: a capture filter by port drops the others, and `or ip[6:2] & 0x1fff != 0 or ip6 proto 44` keeps them; a network that drops fragments looks the same", a.name(), n))
	}
	if a.said != "" && a.reported == a.shown {
		return nil
	}
	return a.report(a.conclude())
}

// endSpan is how much of a capture's end is looked at apart from the whole:
// about as much as the daemon looks back for traffic. Of a short capture it is
// half, and leastEnd at least.
const (
	endSpan  = 15 * time.Second
	leastEnd = 10 * time.Second
)

// conclude diagnoses from the window that was asked for, or from the whole, and
// says what is to be noted of that. What works most of the time hides that it
// does not at the end: the report is on that then. But who asks for a window
// of a file gets it, and a note.
func (a *analysis) conclude() (r *diagnosis.Report, note string) {
	now := a.read()
	whole := diagnosis.Evaluate(a.snapshot(now, a.asked(now.at)))
	age := min(endSpan, whole.Duration/2)
	since, ok := a.end.before(now.at, age)
	if !ok || age < leastEnd {
		return whole, ""
	}
	end := diagnosis.Evaluate(a.snapshot(now, since))
	switch {
	case end.Diagnosis() == whole.Diagnosis() || end.Diagnosis() == diagnosis.Undecided:
		return whole, ""
	case whole.Severity() == diagnosis.Info && end.Severity() != diagnosis.Info && (a.Follow || a.Last == 0):
		return end, fmt.Sprintf("%s: the report is on its last %.0f s; %.0f s together would read %s", a.name(), end.Duration.Seconds(), whole.Duration.Seconds(), whole.Diagnosis())
	}
	if a.Follow {
		return whole, "" // it soon has only its end to look at
	}
	return whole, fmt.Sprintf("%s: its last %.0f s alone would read %s: --last %.0fs shows it", a.name(), end.Duration.Seconds(), end.Diagnosis(), age.Seconds())
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
	if torn(now[0]) > 0 {
		leaveOut(&c.In.Fragments)
		leaveOut(&c.Out.Fragments)
	}
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
