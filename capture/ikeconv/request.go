package ikeconv

import (
	"hash/maphash"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/wire/ike"
)

// window is how many requests of an IKE SA are remembered, to know their
// answers and retransmissions by.
const window = 16

// state is what became of a request.
type state uint8

const (
	unused  state = iota // no request
	pending              // its answer is due
	answered
	givenUp // sent again, and not answered in time
	void    // not known: nobody may have watched, or its sender went on without the answer being seen
)

// request is a request of an IKE SA. IKEv1 has none by name; its messages that
// call for an answer are requests here, told apart by their step.
type request struct {
	state    state
	counted  bool // in the totals
	dpd      bool
	done     bool // quick mode: its third message passed
	from     side
	exchange ike.ExchangeType
	step     uint8 // of IKEv1's phase 1: 1, 3 or 5
	id       uint32

	size        int // of the message, or its first fragment, in bytes
	hash        uint64
	first, last time.Time
	sent        int
	parts       parts // of the request, since it was sent last
	answer      parts
}

// parts are the fragments of a message that passed (RFC 7383).
type parts struct {
	total uint16
	seen  uint64 // bit n-1 is of fragment n; all from 64 on share a bit
	bytes int
}

// add notes a fragment and reports whether it is new. Another division of the
// same message begins anew (RFC 7383 section 2.5.2).
func (p *parts) add(f fragment, size int) bool {
	bit := uint64(1) << (min(f.number, 64) - 1)
	if p.total == f.total && p.seen&bit != 0 {
		return false
	}
	if p.total != f.total {
		*p = parts{total: f.total}
	}
	p.seen |= bit
	p.bytes += size
	return true
}

// fragment is a place in a fragmented message; total is 0 of a whole one.
type fragment struct{ number, total uint16 }

// key is what a retransmission has in common with the request.
type key struct {
	exchange ike.ExchangeType
	step     uint8
	id       uint32
}

// opens reports whether the request is the first message of a negotiation.
func (k key) opens() bool {
	return k.exchange == ike.SAInit || k.exchange == ike.SessionResume || k.step == 1
}

// find returns the newest request of a side, or nil.
func (s *sa) find(from side, k key) *request {
	for i := range s.requests {
		r := &s.requests[(s.next+window-1-i)%window]
		if r.state != unused && r.from == from && r.exchange == k.exchange && r.step == k.step && r.id == k.id {
			return r
		}
	}
	return nil
}

// transmit takes in a request, and returns it if it is new. A copy of an
// earlier one, or another fragment of it, is not; neither is one that differs
// where retransmissions must be the same (RFC 7296 section 2.1), except in
// IKE_SA_INIT, which is repeated with a cookie or for another group.
func (c *Conversation) transmit(s *sa, from side, k key, f fragment, m Message) *request {
	hash := maphash.Bytes(c.seed, m.Data)
	r := s.find(from, k)
	switch {
	case r == nil:
	case f.total > 0:
		if r.parts.total != f.total || !r.parts.add(f, m.Size) { // divided otherwise, or the same fragment again
			r.parts = parts{}
			r.parts.add(f, m.Size)
			c.again(s, r, m.Time)
		}
		return nil
	case r.hash == hash:
		c.again(s, r, m.Time)
		return nil
	case k.exchange != ike.SAInit:
		return nil
	}
	r = &s.requests[s.next]
	s.next = (s.next + 1) % window
	*r = request{
		state: pending, from: from, exchange: k.exchange, step: k.step, id: k.id,
		size: m.Size, hash: hash, first: m.Time, last: m.Time, sent: 1,
	}
	if f.total > 0 {
		r.parts.add(f, m.Size)
	}
	s.supersede(r)
	if s.heard[ours] || k.opens() {
		c.count(r)
	}
	return r
}

// same reports whether a message is a copy of a request.
func (c *Conversation) same(r *request, m Message) bool {
	return r.hash == maphash.Bytes(c.seed, m.Data)
}

// supersede gives up on the earlier requests of a side: by default it may send
// the next one only after the answer to the last (RFC 7296 section 2.3), so
// there was one.
func (s *sa) supersede(r *request) {
	if s.major != ike.V2.Major() {
		return
	}
	for i := range s.requests {
		if o := &s.requests[i]; o.state == pending && o.from == r.from && o != r && o.id <= r.id {
			o.state = void
		}
	}
}

// count takes a request into the totals.
func (c *Conversation) count(r *request) {
	r.counted = true
	c.totals.sides[r.from].requests++
	c.totals.sides[r.from].retransmissions += uint64(r.sent - 1)
}

// adopt counts the requests of the peer's on an SA that this side has now
// spoken on for the first time, if they still matter.
func (c *Conversation) adopt(s *sa) {
	for i := range s.requests {
		r := &s.requests[i]
		if r.state != pending || r.counted {
			continue
		}
		if c.now.Sub(r.first) > unansweredAfter {
			r.state = void
			continue
		}
		c.count(r)
		if r.dpd {
			c.totals.sides[r.from].dpd++
		}
		c.expire(s, r)
	}
}

// ignoredFrom is the number of times that a request is sent before it is taken
// to be ignored.
const ignoredFrom = 3

// again takes in a retransmission.
func (c *Conversation) again(s *sa, r *request, at time.Time) {
	r.sent++
	r.last = at
	switch {
	case r.counted:
		c.totals.sides[r.from].retransmissions++
	case r.from == theirs && r.sent == ignoredFrom:
		c.totals.ignored++
		c.totals.ignoredInARow++
	}
	c.expire(s, r)
}

const unansweredAfter = time.Duration(evidence.UnansweredAfter)

// expire gives a request up whose time is over.
func (c *Conversation) expire(s *sa, r *request) {
	if r.state != pending || !r.counted || r.sent < 2 || !c.passed(r.first.Add(unansweredAfter)) {
		return
	}
	r.state = givenUp
	d := &c.totals.sides[r.from]
	d.unanswered++
	if r.dpd {
		d.dpdMissed++
		d.trailing++
	}
	switch r.exchange {
	case ike.CreateChildSA, ike.QuickModeV1:
		c.totals.rekeysFailed++
	case ike.IdentityProtectionV1:
		c.unheard(s, r)
	}
}

// respond takes in the answer to a request. It reports whether it is the
// first. A late one no longer counts as an answer, but shows that the other
// side is there.
func (c *Conversation) respond(r *request, at time.Time) bool {
	if r.state == answered {
		return false
	}
	d := &c.totals.sides[r.from]
	was := r.state
	r.state = answered
	if !r.counted {
		return true
	}
	d.trailing = 0
	if was == givenUp {
		return true
	}
	d.answered++
	if r.dpd {
		d.dpdAnswered++
		if r.sent == 1 && was == pending {
			d.measure(at.Sub(r.first))
		}
	}
	return true
}

// measure keeps a round-trip time. That of a request that was sent again is
// not known, for its answer may be to either copy (Karn's algorithm).
func (d *direction) measure(rtt time.Duration) {
	if rtt < 0 {
		return // the clock was set
	}
	d.rtts[d.measured%keptRTTs] = evidence.Seconds(rtt)
	d.measured++
}
