package ikeconv

import (
	"cmp"
	"slices"
	"time"

	"vpnprobe/evidence"
)

// Reading is what was known of a conversation at a time, since its beginning.
// It does not change any more.
type Reading struct {
	serial   uint64
	totals   totals
	begun    [2]struct{ newest, once view }
	notifies []notify
}

// view is a negotiation as it was when it was read.
type view struct {
	evidence.IKENegotiation
	moved        uint64
	offer        evidence.WireOffer
	offered      bool
	offerChanged uint64
}

func (n *negotiation) view() view {
	if n == nil {
		return view{}
	}
	v := view{IKENegotiation: n.IKENegotiation, moved: n.moved, offer: n.offer, offered: n.offered, offerChanged: n.offerChanged}
	v.Repeated = n.repeated()
	return v
}

// Snapshot returns what is known at a time, which must not be before that of
// the last message: the answers that are not there by then are late.
func (c *Conversation) Snapshot(now time.Time) Reading {
	c.advance(now)
	r := Reading{serial: c.serial, totals: c.totals, notifies: slices.Clone(c.notifies)}
	for side, b := range c.begun {
		r.begun[side].newest, r.begun[side].once = b.newest.view(), b.once.view()
	}
	return r
}

// maxNotifies is the number of notifies in the evidence: refusals go first,
// then the newest.
const maxNotifies = 32

// Since returns what happened after an earlier reading of the same
// conversation. The zero Reading is that of the beginning.
func (r Reading) Since(earlier Reading) evidence.IKETalk {
	t := evidence.IKETalk{
		Out:          r.totals.sides[ours].since(earlier.totals.sides[ours]),
		In:           r.totals.sides[theirs].since(earlier.totals.sides[theirs]),
		Ignored:      min(r.totals.ignoredInARow, r.totals.ignored-earlier.totals.ignored),
		Rekeys:       r.totals.rekeys - earlier.totals.rekeys,
		RekeysFailed: r.totals.rekeysFailed - earlier.totals.rekeysFailed,
		Attempts:     r.totals.attempts - earlier.totals.attempts,
	}
	t.Newest = r.newest(earlier.serial)
	for _, b := range r.begun {
		v := b.newest
		if !v.offered || v.offerChanged <= earlier.serial {
			v = b.once
		}
		if v.offered && v.offerChanged > earlier.serial {
			t.Offers = append(t.Offers, v.offer)
		}
	}
	t.Notifies = r.notifiesSince(earlier)
	return t
}

// newest returns the negotiation that moved last, after the event with a
// number. One that may be forged is returned only if there is no other.
func (r Reading) newest(serial uint64) evidence.Opt[evidence.IKENegotiation] {
	var best view
	for _, b := range r.begun {
		if b.newest.moved > max(serial, best.moved) {
			best = b.newest
		}
	}
	// What this side refused of the peer's says less than what this side itself
	// began.
	if mine := r.begun[ours].newest; mine.moved > serial && !best.Ours && (best.Reached == evidence.ReachedAsked || best.Reached == evidence.ReachedRefused) {
		best = mine
	}
	if best.moved == 0 {
		for _, b := range r.begun {
			if b.once.moved > max(serial, best.moved) {
				best = b.once
			}
		}
	}
	if best.moved == 0 {
		return evidence.Opt[evidence.IKENegotiation]{}
	}
	return evidence.Some(best.IKENegotiation)
}

func (r Reading) notifiesSince(earlier Reading) []evidence.WireNotify {
	var changed []notify
	for i, n := range r.notifies {
		if i < len(earlier.notifies) { // they keep their places
			n.count -= earlier.notifies[i].count
		}
		if n.count > 0 {
			changed = append(changed, n)
		}
	}
	slices.SortFunc(changed, newestFirst)
	var list []evidence.WireNotify
	for _, n := range changed[:min(len(changed), maxNotifies)] {
		list = append(list, evidence.WireNotify{Name: n.name, Inbound: n.from == theirs, Count: n.count, Last: n.last})
	}
	return list
}

// since returns the requests of one side after an earlier reading.
func (d direction) since(e direction) evidence.IKEDirection {
	missed := d.dpdMissed - e.dpdMissed
	i := evidence.IKEDirection{
		Requests:        d.requests - e.requests,
		Retransmissions: d.retransmissions - e.retransmissions,
		Answered:        d.answered - e.answered,
		Unanswered:      d.unanswered - e.unanswered,
		Deletes:         d.deletes - e.deletes,
		DPD: evidence.IKEDPD{
			Requests: d.dpd - e.dpd,
			Answered: d.dpdAnswered - e.dpdAnswered,
			Missed:   missed,
			Trailing: min(d.trailing, missed), // earlier ones are of another window
		},
	}
	for n := d.measured - min(d.measured-e.measured, keptRTTs); n < d.measured; n++ {
		i.DPD.RTTs = append(i.DPD.RTTs, d.rtts[n%keptRTTs])
	}
	return i
}

// newestFirst orders notifies: refusals, then the newest.
func newestFirst(a, b notify) int {
	switch {
	case a.refuses() != b.refuses() && a.refuses():
		return -1
	case a.refuses() != b.refuses():
		return 1
	}
	return cmp.Or(b.last.Compare(a.last), cmp.Compare(a.name, b.name))
}
