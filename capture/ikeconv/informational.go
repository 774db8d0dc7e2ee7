package ikeconv

import (
	"time"

	"vpnprobe/evidence"
)

// informational tells what a new INFORMATIONAL request is for. An empty one is
// dead peer detection. Where the cipher's blocks make a delete as long, it is a
// delete if it follows at once on what set up an SA: then the SA that was
// replaced goes, or the new one that the initiator does not want. Any other one
// counts as dead peer detection, and as a delete too when it was the last word
// on its SA before a new negotiation.
func (c *Conversation) informational(s *sa, r *request, f fragment, m Message) {
	kind := large
	if f.total == 0 {
		if s.smallest == 0 || m.Size < s.smallest {
			s.smallest = m.Size
		}
		kind = s.suite.classify(m.Size, s.smallest)
	}
	if kind == either {
		if kind = empty; !s.settled.IsZero() && m.Time.Sub(s.settled) <= replaced {
			kind = deletes
		}
	}
	n := s.began
	refusing := kind == deletes && r.from == s.initiator && !s.authenticated.IsZero() &&
		s.settled.Equal(s.authenticated) && m.Time.Sub(s.authenticated) <= atOnce
	if n != nil && n.presumed {
		n.presumed = false
		c.reach(n, evidence.ReachedChild)
	} else if n != nil && refusing && n.Reached == evidence.ReachedChild {
		// The initiator does not take what should have been a success.
		n.presumed = true
		c.reach(n, evidence.ReachedRejected)
		n.InitiatorRefused = evidence.Yes
	}
	d := &c.totals.sides[r.from]
	switch kind {
	case empty:
		if r.dpd = true; r.counted {
			d.dpd++
		}
	case deletes:
		if r.counted {
			d.deletes++
		}
	}
}

// ambiguous reports whether a delete of the SA is as long as nothing at all.
func (s *sa) ambiguous() bool { return !s.suite.known || s.suite.block > notifyLen }

// ended takes the beginning of a negotiation for the proof that the last word
// on other SAs was a delete.
func (c *Conversation) ended(begun *sa, at time.Time) {
	const soon = 10 * time.Second
	for s := range c.table.all() {
		if q := s.quiet; s != begun && !q.at.IsZero() {
			if s.heard[ours] && at.Sub(q.at) <= soon {
				c.totals.sides[q.from].deletes++
			}
			s.quiet = quiet{}
		}
	}
}
