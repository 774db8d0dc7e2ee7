// Package ikeconv follows the IKE conversation of two gateways from outside:
// which requests were answered, how far a negotiation came, and, from the sizes
// of encrypted messages, how it ended. It is pure: it is shown messages with
// their times and reads no clock.
//
// What is read in clear is certain as far as an unauthenticated message can be:
// exchange types, message IDs, proposals and the notifies of the first
// messages. What is encrypted is estimated from its length (see suite and
// oracle) and from what the gateways do next:
//
//   - Dead peer detection and deletes look alike where the cipher works on
//     blocks; the moment tells them apart (see informational).
//   - A refused rekey looks like one that collided with the peer's own and is
//     repeated a little later (RFC 7296 section 2.25): both count as failed.
//   - An answer with certificates is too large to tell whether the child SA was
//     refused: such a negotiation stays at the IKE SA until a rekey shows that
//     there is a child.
//   - The suite of an IKE SA whose beginning was not seen is unknown, as it is
//     of one that replaced another. What can be told without it is.
//
// Anyone can send messages from the peer's address. A message counts for an
// IKE SA only if it names both its SPIs, and the requests of an IKE SA count
// only once this side has said something on it; only a first message, which
// has no SA yet, counts at once.
package ikeconv

import (
	"hash/maphash"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/wire/ike"
)

// Message is an IKE message as it passed.
type Message struct {
	Time       time.Time
	Ours       bool   // sent by this side
	LocalPort  uint16 // UDP, of this side
	RemotePort uint16 // UDP, of the peer
	NATT       bool   // it came with a non-ESP marker
	Data       []byte // UDP payload, without the marker; the capture may have cut it
	Size       int    // length of the whole UDP payload, without the marker, in bytes
	Fragment   bool   // only its first IP fragment is here
}

// side is whose message it is.
type side uint8

const (
	ours side = iota
	theirs
)

func sideOf(m Message) side {
	if m.Ours {
		return ours
	}
	return theirs
}

func (s side) other() side { return 1 - s }

// Conversation is what two gateways say to each other. It holds a bounded
// amount of memory whatever it is shown. It is not safe for concurrent use.
type Conversation struct {
	standard bool // the peer was heard from the ports of IKE
	seed     maphash.Seed
	serial   uint64    // of the newest event: what changes takes its number
	now      time.Time // of the newest message or reading
	due      time.Time // when time alone may decide something; zero is never

	totals   totals
	table    table
	begun    [2]begun // negotiations, by who began them
	notifies []notify
}

// totals are the counters, which only grow, except for trailing and
// ignoredInARow.
type totals struct {
	ignored              uint64
	ignoredInARow        uint64 // since this side was heard last
	sides                [2]direction
	rekeys, rekeysFailed uint64
	attempts             uint64
}

// direction counts the requests of one side.
type direction struct {
	requests, retransmissions, answered, unanswered, deletes uint64
	dpd, dpdAnswered, dpdMissed                              uint64
	trailing                                                 uint64 // missed since the last answer to this side
	rtts                                                     [keptRTTs]evidence.Seconds
	measured                                                 uint64 // RTTs so far; the newest is at (measured-1) % keptRTTs
}

// keptRTTs is the number of round-trip times that a reading holds.
const keptRTTs = 64

// New returns a conversation of which nothing was heard yet.
func New() *Conversation { return &Conversation{seed: maphash.MakeSeed()} }

// The ports of IKE (RFC 7296 section 2). The peer's may be any, behind NAT.
const (
	port     = 500
	portNATT = 4500
)

// Add takes in a message. What is no IKE message of the daemons is ignored:
// another version, another length than its header says, or another local port
// than the daemons', as this agent's own probes have.
func (c *Conversation) Add(m Message) {
	if m.LocalPort != port && m.LocalPort != portNATT {
		return
	}
	h, err := ike.ParseHeader(m.Data)
	if err != nil || !m.Fragment && int64(h.Length) != int64(m.Size) || int64(h.Length) < int64(len(m.Data)) {
		return
	}
	// A peer behind NAT comes from any port. Once it was heard from the ports of
	// IKE, what begins from another is not its daemon's but an agent's, or another
	// host's.
	standard := m.RemotePort == port || m.RemotePort == portNATT
	if !standard && c.standard && c.table.find(int(h.Version.Major()), h.SPIi, h.SPIr) == nil {
		return
	}
	m.Size = int(min(h.Length, maxSize))
	c.advance(m.Time)
	c.serial++
	c.standard = c.standard || standard && !m.Ours
	if m.Ours {
		c.totals.ignoredInARow = 0
	}
	switch h.Version.Major() {
	case ike.V1.Major():
		c.addV1(h, m)
	case ike.V2.Major():
		c.addV2(h, m)
	}
}

// maxSize is more than a UDP payload can have, in bytes.
const maxSize = 1 << 16

// Gap says that messages may have passed unseen since the last one: requests
// whose answer is still due are forgotten.
func (c *Conversation) Gap() {
	for s := range c.table.all() {
		for i := range s.requests {
			if r := &s.requests[i]; r.state == pending {
				r.state = void
			}
		}
		s.refused = [2]time.Time{}
		for from, p := range s.v1.pings {
			if !p.acked.IsZero() {
				c.answerPing(s, side(from), p, p.acked)
			}
		}
		s.v1.pings = [2]ping{}
		s.quiet = quiet{}
		if s.began != nil {
			s.began.demand = time.Time{}
		}
	}
	c.due = time.Time{}
}

// advance decides what time alone decides, up to now.
func (c *Conversation) advance(now time.Time) {
	c.now = now
	if c.due.IsZero() || now.Before(c.due) {
		return
	}
	c.serial++
	c.due = time.Time{}
	for s := range c.table.all() {
		for i := range s.requests {
			c.expire(s, &s.requests[i])
		}
		c.settleRefused(s)
		c.settlePings(s)
		c.settleDemand(s)
	}
}

// later has advance look again at a time.
func (c *Conversation) later(at time.Time) {
	if c.due.IsZero() || at.Before(c.due) {
		c.due = at
	}
}

// passed reports whether a time has come. If it has not, advance looks again
// then.
func (c *Conversation) passed(at time.Time) bool {
	if !c.now.Before(at) {
		return true
	}
	c.later(at)
	return false
}
