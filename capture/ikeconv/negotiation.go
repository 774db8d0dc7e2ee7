package ikeconv

import (
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/wire/ike"
)

// negotiation is one attempt to set up an IKE SA.
type negotiation struct {
	evidence.IKENegotiation
	by       side
	messages int
	moved    uint64 // serial of the last event

	offer        evidence.WireOffer
	offered      bool
	offerChanged uint64 // serial

	// demand is when the responder asked for another group, which ended the
	// negotiation unless the initiator comes back with it.
	demand time.Time
	// presumed is set while the child SA is believed to be up by the size of
	// an answer that the initiator seems to have refused at once.
	presumed bool

	// inherits is set while the child SA is that of an IKE SA of IKEv1 that this
	// one renews.
	inherits bool

	// before is the one before it, as long as it may still change; after that
	// only its end matters.
	before *negotiation
	ended  evidence.IKEReached
	inARow int // that ended so, up to and including the one before
}

// begun are the newest negotiations that one side began. One that the other
// side did not answer and that was not repeated is heard once: it may be
// forged, and takes the place of nothing else.
type begun struct{ newest, once *negotiation }

// begin adds a negotiation.
func (c *Conversation) begin(major int, by side, at time.Time) *negotiation {
	c.totals.attempts++
	n := &negotiation{by: by, IKENegotiation: evidence.IKENegotiation{
		Version: major, Ours: by == ours, Began: at, Last: at, Reached: evidence.ReachedAsked,
	}}
	return n
}

// move notes a message of a negotiation.
func (c *Conversation) move(n *negotiation, m Message) {
	n.messages++
	n.Last = m.Time
	n.NATT = n.NATT || m.NATT
	n.moved = c.serial
	b := &c.begun[n.by]
	if n.by == theirs && n.messages == 1 {
		b.once = n
		return
	}
	if b.once == n {
		b.once = nil
	}
	if b.newest == n || b.newest != nil && b.newest.Began.After(n.Began) {
		return
	}
	if old := b.newest; old != nil {
		old.inARow, old.ended = old.repeated()-1, old.Reached
		old.before = nil
	}
	n.before, b.newest = b.newest, n
}

// reach notes a stage of a negotiation.
func (c *Conversation) reach(n *negotiation, r evidence.IKEReached) {
	if n.Reached != r {
		n.Reached, n.moved = r, c.serial
		n.ChildRefused, n.InitiatorRefused = evidence.Unknown, evidence.Unknown
	}
	switch r {
	case evidence.ReachedChild:
		n.ChildRefused = evidence.No
		fallthrough
	case evidence.ReachedIKE:
		// What was missed before was of another IKE SA.
		c.totals.sides[ours].trailing, c.totals.sides[theirs].trailing = 0, 0
	}
}

// repeated counts the negotiations in a row that ended at the same stage.
func (n *negotiation) repeated() int {
	ended, inARow := n.ended, n.inARow
	if n.before != nil {
		ended, inARow = n.before.Reached, n.before.repeated()
	}
	if ended != n.Reached {
		return 1
	}
	return 1 + inARow
}

// settleDemand ends a negotiation whose initiator did not come back with the
// group that the responder asked for.
func (c *Conversation) settleDemand(s *sa) {
	n := s.began
	if n == nil || n.demand.IsZero() || !c.passed(n.demand.Add(unansweredAfter)) {
		return
	}
	n.demand = time.Time{}
	if n.Reached == evidence.ReachedAsked {
		c.reach(n, evidence.ReachedRefused)
		n.Notify = ike.InvalidKEPayload.String()
	}
}

// The order of the stages that matter to it.
const (
	stageIKE   = 1
	stageChild = 2
)

// stage orders the stages: stageIKE and stageChild, and less of all before.
func (n *negotiation) stage() int {
	switch n.Reached {
	case evidence.ReachedIKE:
		return stageIKE
	case evidence.ReachedChild:
		return stageChild
	}
	return 0
}
