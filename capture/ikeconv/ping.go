package ikeconv

import (
	"slices"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/wire/ike"
)

// ping is an R-U-THERE of IKEv1 whose acknowledgement is due (RFC 3706). Both
// are informational messages with message IDs of their own and the same
// length; nothing else pairs them. Two deletes of that length, one each way,
// count as well.
//
// The acknowledgement may as well be a ping of the other side's own, for both
// send them in the same interval. It is if the first side answers it at once:
// so a pair counts only after that time.
type ping struct {
	at    time.Time // of the first one; zero is none
	last  time.Time // of the last one
	acked time.Time // zero is not yet
	size  int
	sent  int
}

// acknowledgedAfter is how long after a ping an equal message of the other side
// is taken for the answer, which is sent at once.
const acknowledgedAfter = time.Second

// Lengths of IKEv1 payloads, behind a Hash payload (RFC 2408 section 3.14 and
// 3.15, RFC 3706 section 5.3): R-U-THERE with both SPIs and a number, Delete of
// the IKE SA and of one IPsec SA.
const (
	pingLen      = 12 + 16 + 4
	deleteIKELen = 12 + 16
	deleteSALen  = 12 + 4
)

// pingSize returns the length of an R-U-THERE on an SA, or 0.
func (s *sa) pingSize() int {
	if s.suite.known {
		return s.suite.size(genericHeader + s.suite.prf + pingLen)
	}
	return s.v1.ping
}

// informationalV1 takes in an encrypted informational message, which may
// acknowledge a ping, refuse what the other side sent last, be a ping, or
// delete something.
func (c *Conversation) informationalV1(s *sa, from side, m Message) {
	if c.dropsV1(s, from, m) || c.acknowledges(s, from, m) || c.refuses(s, from, m) {
		return
	}
	if size := s.pingSize(); size == 0 || size == m.Size {
		c.pinged(s, from, m)
		return
	}
	if !s.suite.known || !s.heard[ours] {
		return
	}
	for _, n := range []int{deleteIKELen, deleteSALen} {
		if m.Size == s.suite.size(genericHeader+s.suite.prf+n) {
			c.totals.sides[from].deletes++
			return
		}
	}
}

// acknowledges reports whether a message answers the other side's ping, or
// what was taken for the acknowledgement of its own side's.
func (c *Conversation) acknowledges(s *sa, from side, m Message) bool {
	if p := &s.v1.pings[from]; !p.acked.IsZero() && p.size == m.Size {
		c.answerPing(s, from.other(), ping{at: p.acked, sent: 1}, m.Time)
		p.acked = time.Time{}
		return true
	}
	p := &s.v1.pings[from.other()]
	if p.at.IsZero() || !p.acked.IsZero() || p.size != m.Size || m.Time.Sub(p.last) > acknowledgedAfter {
		return false
	}
	if s.pingSize() == 0 {
		// Without the suite, the first such pair only shows the length: it may
		// be two deletes.
		s.v1.ping = m.Size
		*p = ping{}
		return true
	}
	p.acked = m.Time
	c.later(m.Time.Add(acknowledgedAfter))
	return true
}

// answerPing counts a ping of a side that was acknowledged at a time.
func (c *Conversation) answerPing(s *sa, from side, p ping, at time.Time) {
	if !s.heard[ours] {
		return
	}
	d := &c.totals.sides[from]
	d.countPing(p)
	d.answered++
	d.dpdAnswered++
	d.trailing = 0
	if p.sent == 1 {
		d.measure(at.Sub(p.at))
	}
}

// pinged takes in what may be a ping. Another one within the time for the
// answer repeats it, though it has a message ID of its own.
func (c *Conversation) pinged(s *sa, from side, m Message) {
	p := &s.v1.pings[from]
	if !p.at.IsZero() && p.size == m.Size {
		if m.Time.Sub(p.at) < unansweredAfter {
			p.sent++
			p.last = m.Time
			c.later(p.at.Add(unansweredAfter))
			return
		}
		c.missPing(s, from)
	}
	*p = ping{at: m.Time, last: m.Time, size: m.Size, sent: 1}
}

// settlePings counts the pings that were acknowledged, and gives up on those
// that were repeated and not acknowledged. One that is alone may have been a
// delete, which nothing answers, until the next.
func (c *Conversation) settlePings(s *sa) {
	for _, from := range [2]side{ours, theirs} {
		switch p := s.v1.pings[from]; {
		case !p.acked.IsZero():
			if c.passed(p.acked.Add(acknowledgedAfter)) {
				c.answerPing(s, from, p, p.acked)
				s.v1.pings[from] = ping{}
			}
		case p.sent > 1 && c.passed(p.at.Add(unansweredAfter)):
			c.missPing(s, from)
		}
	}
}

// missPing counts a ping as missed, if it is known to be one by its size.
func (c *Conversation) missPing(s *sa, from side) {
	p := &s.v1.pings[from]
	if s.heard[ours] && p.size == s.pingSize() {
		d := &c.totals.sides[from]
		d.countPing(*p)
		d.unanswered++
		d.dpdMissed++
		d.trailing++
	}
	*p = ping{}
}

func (d *direction) countPing(p ping) {
	d.requests++
	d.dpd++
	d.retransmissions += uint64(p.sent - 1)
}

// refuses reports whether a message refuses the encrypted message of phase 1,
// or the quick mode, that the other side sent last.
func (c *Conversation) refuses(s *sa, from side, m Message) bool {
	return c.refusesPhaseOne(s, from, m) || m.Size != s.pingSize() && c.refusesQuickMode(s, from, m)
}

func (c *Conversation) refusesPhaseOne(s *sa, from side, m Message) bool {
	n := s.began
	if n == nil || n.stage() >= stageIKE {
		return false
	}
	r := s.find(from.other(), key{exchange: ike.IdentityProtectionV1, step: 5})
	switch {
	case r != nil && r.state != answered:
		c.respond(r, m.Time)
	case n.Reached == evidence.ReachedInit && from == s.initiator: // aggressive mode, instead of its message 3
	case n.Reached == evidence.ReachedAuthSent && from != s.initiator && !s.v1.quick:
	default:
		return false
	}
	c.move(n, m)
	n.Encrypted, n.AnswerBytes = true, m.Size
	c.reach(n, evidence.ReachedRejected)
	return true
}

// refusesQuickMode takes the message for the refusal of a quick mode. The
// initiator of aggressive mode began it after it had verified the responder's
// proof of the key, so that their IKE SA is up.
func (c *Conversation) refusesQuickMode(s *sa, from side, m Message) bool {
	i := slices.IndexFunc(s.requests[:], func(r request) bool {
		return r.state == pending && r.exchange == ike.QuickModeV1 && r.from != from
	})
	if i < 0 {
		return false
	}
	r := &s.requests[i]
	r.done = true
	if c.respond(r, m.Time); r.counted {
		c.totals.rekeysFailed++
	}
	if n := s.began; n != nil && n.stage() < stageChild {
		c.move(n, m)
		n.Encrypted, n.AnswerBytes = true, m.Size
		c.reach(n, evidence.ReachedIKE)
		n.ChildRefused = evidence.Yes
	}
	return true
}

// dropsV1 takes an informational message of the initiator's at once behind
// message 6 of main mode for its refusal, unless a quick mode follows after all,
// or the IKE SA only renews another.
func (c *Conversation) dropsV1(s *sa, from side, m Message) bool {
	n := s.began
	if n == nil || n.inherits || !s.v1.up || s.v1.quick || from != s.initiator || m.Time.Sub(s.authenticated) > atOnce {
		return false
	}
	s.v1.dropped = true
	c.reach(n, evidence.ReachedRejected)
	n.InitiatorRefused = evidence.Yes
	return true
}
