package ikeconv

import (
	"vpnprobe/evidence"
	"vpnprobe/internal/wire/ike"
)

// stateV1 is what an IKE SA of IKEv1 has beyond one of IKEv2.
type stateV1 struct {
	natt bool // messages in clear came by UDP 4500
	// moved is set when the first encrypted message took another port.
	moved bool
	up    bool // main mode: message 6 passed
	quick bool // a quick mode message passed
	// dropped is set when the initiator sent an informational message behind
	// message 6 where a quick mode was due: it does not take message 6.
	dropped bool
	ping    int // size of R-U-THERE, learned from one that was acknowledged; 0 is not known
	pings   [2]ping
}

// addV1 takes in a message of IKEv1.
func (c *Conversation) addV1(h ike.Header, m Message) {
	from := sideOf(m)
	if h.SPIi.IsZero() {
		return
	}
	encrypted := h.Flags&ike.FlagEncryptedV1 != 0
	if h.NextPayload == ike.PayloadFragmentV1 {
		if !firstFragmentV1(m.Data) {
			return
		}
		encrypted = true // as a message that needs it always is
	}
	switch h.Exchange {
	case ike.IdentityProtectionV1, ike.AggressiveV1:
		c.phaseOne(h, from, encrypted, m)
	case ike.InformationalV1:
		if !encrypted {
			c.clearV1(h, from, m)
			return
		}
		if s := c.protectedV1(h, from); s != nil {
			c.informationalV1(s, from, m)
		}
	case ike.QuickModeV1, ike.TransactionV1:
		if s := c.protectedV1(h, from); s != nil && encrypted {
			c.phaseTwo(s, h, from, m)
		}
	}
}

// firstFragmentV1 reports whether a message of fragments is the first: of a
// Fragment payload that is an identifier of two bytes and a number.
func firstFragmentV1(data []byte) bool {
	const number = ike.HeaderLen + genericHeader + 2
	return len(data) > number && data[number] == 1
}

// protectedV1 returns the SA of an encrypted message behind phase 1.
func (c *Conversation) protectedV1(h ike.Header, from side) *sa {
	if h.SPIr.IsZero() || h.MessageID == 0 {
		return nil
	}
	s := c.table.find(ike.V1.Major(), h.SPIi, h.SPIr)
	if s == nil {
		s = &sa{major: ike.V1.Major(), spii: h.SPIi, spir: h.SPIr, bound: true, used: c.serial}
		c.table.insert(s, from)
	} else if c.table.hear(s, from, c.serial) {
		c.adopt(s)
	}
	s.protected[from] = true
	return s
}

// phaseOne takes in a message of main mode, whose messages 1 to 6 alternate,
// or aggressive mode, which has 3 (RFC 2409 section 5). An SA payload tells the
// first two, encryption the last of main mode.
func (c *Conversation) phaseOne(h ike.Header, from side, encrypted bool, m Message) {
	var list []ike.Payload
	if !encrypted {
		list = c.heardNotifies(h, from, m)
	}
	proposals, opening := first(list, ike.PayloadSAV1)
	if h.SPIr.IsZero() {
		if opening {
			c.openV1(h, from, list, m)
		}
		return
	}
	s := c.table.find(ike.V1.Major(), h.SPIi, h.SPIr)
	if s == nil && opening { // message 2 names the responder's SPI first
		if s = c.table.findInitiated(ike.V1.Major(), h.SPIi, from.other()); s != nil && !s.bound {
			s.spir = h.SPIr
		}
	}
	if s == nil || s.spir != h.SPIr || s.began == nil {
		return
	}
	c.table.hear(s, from, c.serial)
	s.bound = s.bound || from == s.initiator
	n := s.began
	c.move(n, m)
	if encrypted {
		s.protected[from] = true
	} else {
		s.v1.natt = m.NATT
	}
	if from == s.initiator {
		c.initiatorV1(s, h.Exchange, encrypted, m)
		return
	}
	step := uint8(1)
	switch {
	case encrypted:
		step = 5
	case !opening:
		step = 3
	}
	r := s.find(from.other(), key{exchange: h.Exchange, step: step})
	if r == nil || !c.respond(r, m.Time) {
		return
	}
	switch step {
	case 1:
		c.chosenV1(s, proposals)
	case 5:
		s.v1.up, s.authenticated = true, m.Time
		n.Encrypted, n.AnswerBytes = true, m.Size
		c.reach(n, evidence.ReachedIKE)
		if n.inherits = c.replaces(s); n.inherits {
			c.reach(n, evidence.ReachedChild)
		}
	}
}

// replaces reports whether an IKE SA renews another one whose children stay:
// IKEv1 renews the two apart from each other, and no quick mode follows.
func (c *Conversation) replaces(s *sa) bool {
	for o := range c.table.all() {
		if o != s && o.major == s.major && o.rank() == bothWays && (o.began == nil || o.began.Reached == evidence.ReachedChild) {
			return true
		}
	}
	return false
}

// openV1 takes in message 1.
func (c *Conversation) openV1(h ike.Header, from side, list []ike.Payload, m Message) {
	s := c.table.findInitiated(ike.V1.Major(), h.SPIi, from)
	if s == nil {
		s = &sa{major: ike.V1.Major(), spii: h.SPIi, initiator: from, used: c.serial}
		c.table.insert(s, from)
		s.began = c.begin(ike.V1.Major(), from, m.Time)
	} else if c.table.hear(s, from, c.serial); s.bound || s.began == nil {
		return
	}
	c.ended(s, m.Time)
	r := c.transmit(s, from, key{exchange: h.Exchange, step: 1}, fragment{}, m)
	s.v1.natt = m.NATT
	if c.move(s.began, m); r != nil {
		c.offer(s.began, list)
	}
}

// chosenV1 notes the transform that a responder chose.
func (c *Conversation) chosenV1(s *sa, p ike.Payload) {
	n := s.began
	c.reach(n, evidence.ReachedInit)
	c.answerOffer(n, evidence.Yes)
	n.Notify = ""
	if v, err := ike.ParseSAV1(p.Body); err == nil && len(v.Proposals) == 1 && len(v.Proposals[0].Transforms) == 1 {
		t := v.Proposals[0].Transforms[0]
		s.suite, n.Suite = suiteOfV1(t.Attributes), joined([]string{textV1(t)})
		if a, ok := authOfV1(t.Attributes); ok && a != ike.AuthV1SharedKey && a != ike.AuthV1XAuthInitShared {
			n.Certificates = evidence.Yes
		}
	}
}

// authOfV1 returns the authentication method of a transform.
func authOfV1(list []ike.Attribute) (uint16, bool) {
	for _, a := range list {
		if a.Type == ike.AttrV1Auth && a.Data == nil {
			return a.Value, true
		}
	}
	return 0, false
}

// initiatorV1 takes in message 3 or 5 of main mode, or 3 of aggressive mode,
// which nothing answers.
func (c *Conversation) initiatorV1(s *sa, exchange ike.ExchangeType, encrypted bool, m Message) {
	n := s.began
	if exchange == ike.AggressiveV1 {
		if n.Reached == evidence.ReachedInit {
			c.reach(n, evidence.ReachedAuthSent)
		}
		return
	}
	step := uint8(3)
	if encrypted {
		step = 5
	}
	isNew := c.transmit(s, s.initiator, key{exchange: exchange, step: step}, fragment{}, m) != nil
	switch {
	case !encrypted:
	case isNew:
		s.v1.moved = m.NATT != s.v1.natt
		c.reach(n, evidence.ReachedAuthSent)
	case s.v1.up && s.v1.dropped && !s.v1.quick: // repeated in spite of message 6
		c.reach(n, evidence.ReachedRejected)
	}
}

// unheard judges a message 5 of main mode that was repeated and not answered.
// The responder was there for messages 1 to 4: it cannot read message 5, or
// does not want the identity in it, and says nothing. Nothing is concluded if
// message 5 was the first by another port, which a filter may block.
func (c *Conversation) unheard(s *sa, r *request) {
	// A long message may have been lost in fragments.
	if n := s.began; n != nil && r.step == 5 && r.size < leastCertified && !s.v1.moved && n.Reached == evidence.ReachedAuthSent {
		n.Encrypted = true
		c.reach(n, evidence.ReachedRejected)
	}
}

// clearV1 takes in an informational message in clear. It refuses a negotiation
// that its receiver began, or in aggressive mode the responder's proof of the
// key.
func (c *Conversation) clearV1(h ike.Header, from side, m Message) {
	list := c.heardNotifies(h, from, m)
	p, ok := first(list, ike.PayloadNotifyV1)
	if !ok {
		return
	}
	v, err := ike.ParseNotifyV1(p.Body)
	if err != nil || !(notify{v1: true, number: uint16(v.Type)}).refuses() {
		return
	}
	s := c.table.findInitiated(ike.V1.Major(), h.SPIi, from.other())
	if s == nil {
		if s = c.table.findInitiated(ike.V1.Major(), h.SPIi, from); s == nil || !h.SPIr.IsZero() && s.spir != h.SPIr {
			return
		}
	}
	n := s.began
	if n == nil {
		return
	}
	aggressive := s.find(s.initiator, key{exchange: ike.AggressiveV1, step: 1}) != nil
	switch {
	case from == s.initiator && (!aggressive || n.Reached != evidence.ReachedInit):
		return
	case n.Reached == evidence.ReachedAsked:
		c.reach(n, evidence.ReachedRefused)
		if v.Type == ike.NotifyTypeV1(ike.NoProposalChosen) {
			c.answerOffer(n, evidence.No)
		}
	case n.Reached == evidence.ReachedAuthSent, from == s.initiator:
		c.reach(n, evidence.ReachedRejected)
	default:
		return
	}
	c.table.hear(s, from, c.serial)
	c.move(n, m)
	n.Notify = v.Type.String()
	for _, k := range []key{{ike.IdentityProtectionV1, 1, 0}, {ike.IdentityProtectionV1, 5, 0}, {ike.AggressiveV1, 1, 0}} {
		if r := s.find(from.other(), k); r != nil {
			c.respond(r, m.Time)
		}
	}
}

// phaseTwo takes in a message of quick mode, which has three with the same
// message ID, or of the transaction exchange, which has two.
func (c *Conversation) phaseTwo(s *sa, h ike.Header, from side, m Message) {
	k := key{exchange: h.Exchange, id: h.MessageID}
	n := s.began
	if s.v1.quick = true; s.v1.dropped {
		s.v1.dropped = false
		if n != nil && n.Reached == evidence.ReachedRejected {
			c.reach(n, evidence.ReachedIKE)
		}
	}
	if r := s.find(from.other(), k); r != nil { // the second message
		if c.respond(r, m.Time); n != nil && n.stage() < stageIKE {
			c.move(n, m)
			c.reach(n, evidence.ReachedIKE)
		}
		return
	}
	r := s.find(from, k)
	isNew := c.transmit(s, from, k, fragment{}, m) != nil
	if n != nil && n.inherits && isNew {
		n.inherits = false
		c.reach(n, evidence.ReachedIKE) // until this one is through
	}
	if n != nil && n.stage() < stageChild {
		c.move(n, m)
		if n.stage() < stageIKE && from != s.initiator { // nobody begins this before phase 1 is over
			c.reach(n, evidence.ReachedIKE)
		}
	}
	if r == nil || isNew || h.Exchange != ike.QuickModeV1 || r.done || r.state != answered && r.state != void || c.same(r, m) {
		return
	}
	r.done = true // by the third message
	if r.counted {
		c.totals.rekeys++
	}
	if n != nil {
		n.Encrypted = true
		c.reach(n, evidence.ReachedChild)
	}
}
