package ikeconv

import (
	"encoding/binary"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/wire/ike"
)

// addV2 takes in a message of IKEv2.
func (c *Conversation) addV2(h ike.Header, m Message) {
	from := sideOf(m)
	response := h.Flags&ike.FlagResponse != 0
	if h.Exchange == ike.SAInit || h.Exchange == ike.SessionResume {
		if response {
			c.initAnswer(h, from, m)
		} else if h.SPIr.IsZero() && h.MessageID == 0 && h.Flags&ike.FlagInitiator != 0 {
			c.initRequest(h, from, m)
		}
		return
	}
	f, ok := protection(h, m.Data)
	if !ok {
		c.heardNotifies(h, from, m) // such as INVALID_IKE_SPI, which no request waits for
		return
	}
	if h.SPIi.IsZero() || h.SPIr.IsZero() {
		return
	}
	initiator := from
	if h.Flags&ike.FlagInitiator == 0 {
		initiator = from.other()
	}
	s := c.established(h, initiator, from)
	switch {
	case s != nil && s.initiator != initiator:
		return // not of this SA: the flag tells who began it
	case s != nil:
		if c.table.hear(s, from, c.serial) {
			c.adopt(s)
		}
	case response && from == theirs:
		return // to what was not seen, or forged
	default:
		s = &sa{major: ike.V2.Major(), spii: h.SPIi, spir: h.SPIr, initiator: initiator, bound: true, used: c.serial}
		c.table.insert(s, from)
	}
	s.protected[from] = true
	k := key{exchange: h.Exchange, id: h.MessageID}
	if !response {
		c.request(s, from, k, f, m)
	} else if r := s.find(from.other(), k); r != nil {
		c.response(s, r, f, m)
	}
}

// established returns the SA of a protected message, or nil.
func (c *Conversation) established(h ike.Header, initiator, from side) *sa {
	if s := c.table.find(h.Version.Major(), h.SPIi, h.SPIr); s != nil {
		s.bound = s.bound || from == s.initiator
		return s
	}
	s := c.table.findInitiated(h.Version.Major(), h.SPIi, initiator)
	if s == nil || s.bound || from != ours || initiator != ours {
		return nil
	}
	// This side took another answer than the last that was seen, or that
	// answer was not seen at all.
	s.spir, s.suite, s.bound = h.SPIr, suite{}, true
	return s
}

// protection reports whether the payloads of a message are encrypted, and
// which fragment of a message it is.
func protection(h ike.Header, data []byte) (f fragment, ok bool) {
	switch h.NextPayload {
	case ike.PayloadEncrypted:
		return fragment{}, true
	case ike.PayloadFragment:
		const numbers = ike.HeaderLen + genericHeader
		if len(data) < numbers+4 {
			return fragment{}, false
		}
		f = fragment{binary.BigEndian.Uint16(data[numbers:]), binary.BigEndian.Uint16(data[numbers+2:])}
		return f, f.number > 0 && f.number <= f.total
	}
	return fragment{}, false
}

const (
	// atOnce is how long after an answer the next request of the side that got
	// it still belongs to it.
	atOnce = time.Second
	// replaced is how long after a rekey the delete of what it replaced may
	// come. libreswan waits one second.
	replaced = 1500 * time.Millisecond
)

// request takes in a protected request.
func (c *Conversation) request(s *sa, from side, k key, f fragment, m Message) {
	r := c.transmit(s, from, k, f, m)
	n := s.began
	switch k.exchange {
	case ike.Auth, ike.Intermediate:
		if n == nil {
			break
		}
		// Beyond a first answer, it took more rounds: EAP, or several proofs.
		if c.move(n, m); r != nil && n.Reached != evidence.ReachedChild {
			c.reach(n, evidence.ReachedAuthSent)
			n.Encrypted, n.AnswerBytes = false, 0
		}
		if k.exchange == ike.Auth && from == s.initiator && m.Size*max(int(f.total), 1) >= leastCertified {
			n.Certificates = evidence.Yes
		}
	case ike.CreateChildSA:
		if r != nil && m.Time.Sub(s.refused[from]) <= atOnce {
			s.refused[from] = time.Time{}
		}
	}
	if r == nil {
		return
	}
	s.quiet = quiet{}
	if k.exchange == ike.Informational {
		c.informational(s, r, f, m)
		return
	}
	if n != nil && n.presumed {
		n.presumed = false
		c.reach(n, evidence.ReachedChild)
	}
}

// response takes in the protected answer to a request.
func (c *Conversation) response(s *sa, r *request, f fragment, m Message) {
	firstAnswer := c.respond(r, m.Time)
	if f.total == 0 {
		r.answer.bytes = m.Size
	} else if !r.answer.add(f, m.Size) {
		return
	}
	n := s.began
	switch r.exchange {
	case ike.Auth, ike.Intermediate:
		s.settled = m.Time
		if n == nil || !firstAnswer && f.total == 0 {
			break
		}
		c.move(n, m)
		c.authAnswer(s, n, r, f)
		s.authenticated = m.Time
	case ike.CreateChildSA:
		s.settled = m.Time
		if firstAnswer {
			c.childAnswer(s, r, f, m)
		}
	case ike.Informational:
		if f.total == 0 && (s.smallest == 0 || m.Size < s.smallest) {
			s.smallest = m.Size
		}
		if r.dpd && firstAnswer && s.ambiguous() {
			s.quiet = quiet{at: m.Time, from: r.from}
		}
	}
}

// authAnswer derives how far a negotiation came from an answer to IKE_AUTH, or
// to IKE_INTERMEDIATE, which is only told apart from a refusal.
func (c *Conversation) authAnswer(s *sa, n *negotiation, r *request, f fragment) {
	n.AnswerBytes = r.answer.bytes
	stage, ok := s.suite.judge(r.answer.bytes)
	switch {
	case f.total > 0:
		// Too long for a refusal, and for more than that: certificates.
		stage, ok = evidence.ReachedIKE, r.exchange == ike.Auth
	case r.exchange == ike.Intermediate:
		ok = ok && stage == evidence.ReachedRejected
	}
	if ok {
		n.Encrypted = true
		c.reach(n, stage)
		if stage == evidence.ReachedIKE && f.total == 0 && !s.suite.maySign(r.answer.bytes) && s.suite.asksForChild(r.size) {
			n.ChildRefused = evidence.Yes
		}
	}
}

// childAnswer takes in the answer to CREATE_CHILD_SA.
func (c *Conversation) childAnswer(s *sa, r *request, f fragment, m Message) {
	if f.total == 0 && !s.suite.setsUp(m.Size) {
		if r.counted {
			s.refused[r.from] = m.Time
			c.later(m.Time.Add(atOnce))
		}
		return
	}
	if r.counted {
		c.totals.rekeys++
	}
	if n := s.began; n != nil && n.Reached == evidence.ReachedIKE {
		c.reach(n, evidence.ReachedChild) // there is something to replace
	}
}

// settleRefused counts refused rekeys that were not repeated at once, as they
// are when the responder asked for another group (RFC 7296 section 1.3).
func (c *Conversation) settleRefused(s *sa) {
	for from, at := range s.refused {
		if !at.IsZero() && c.passed(at.Add(atOnce)) {
			s.refused[from] = time.Time{}
			c.totals.rekeysFailed++
		}
	}
}
