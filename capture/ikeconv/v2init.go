package ikeconv

import (
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/wire/ike"
)

// initRequest takes in the request of an IKE_SA_INIT, or of the exchange that
// resumes a session in its place.
func (c *Conversation) initRequest(h ike.Header, from side, m Message) {
	s := c.table.findInitiated(h.Version.Major(), h.SPIi, from)
	if s == nil {
		s = &sa{major: ike.V2.Major(), spii: h.SPIi, initiator: from, used: c.serial}
		c.table.insert(s, from)
		s.began = c.begin(h.Version.Major(), from, m.Time)
	} else {
		c.table.hear(s, from, c.serial)
		if s.bound || s.began == nil {
			return
		}
	}
	c.ended(s, m.Time)
	r := c.transmit(s, from, key{exchange: h.Exchange}, fragment{}, m)
	c.move(s.began, m)
	list := c.heardNotifies(h, from, m)
	if r == nil {
		return
	}
	s.began.demand = time.Time{}
	if s.began.Reached != evidence.ReachedInit {
		c.offer(s.began, list)
	}
}

// initAnswer takes in an answer to an IKE_SA_INIT. Anyone who saw the request
// may have sent it, so the last one counts until the initiator goes on.
func (c *Conversation) initAnswer(h ike.Header, from side, m Message) {
	list := c.heardNotifies(h, from, m)
	s := c.table.findInitiated(h.Version.Major(), h.SPIi, from.other())
	if s == nil || s.began == nil {
		return
	}
	r := s.find(from.other(), key{exchange: h.Exchange})
	if r == nil {
		return
	}
	c.table.hear(s, from, c.serial)
	c.respond(r, m.Time)
	if s.bound {
		return
	}
	n := s.began
	c.move(n, m)
	if p, ok := first(list, ike.PayloadSA); ok && !h.SPIr.IsZero() {
		s.spir = h.SPIr
		c.chosen(s, p)
		return
	}
	refusal, ok := refusalOf(list)
	switch {
	case !ok || n.Reached == evidence.ReachedInit: // a cookie, say
	case refusal == ike.InvalidKEPayload:
		n.demand = m.Time
		c.later(m.Time.Add(unansweredAfter))
	default:
		c.reach(n, evidence.ReachedRefused)
		n.Notify = refusal.String()
		if refusal == ike.NoProposalChosen {
			c.answerOffer(n, evidence.No)
		}
	}
}

// chosen notes the proposal that a responder chose.
func (c *Conversation) chosen(s *sa, p ike.Payload) {
	n := s.began
	n.Notify, n.demand = "", time.Time{}
	c.reach(n, evidence.ReachedInit)
	c.answerOffer(n, evidence.Yes)
	s.suite, n.Suite = suite{}, ""
	if list, err := ike.ParseSA(p.Body); err == nil && len(list) == 1 {
		s.suite, n.Suite = suiteOf(list[0]), joined([]string{text(list[0])})
	}
}
