package pmtu

import (
	"context"
	"net/netip"
	"time"

	"vpnprobe/evidence"
)

// details asks what else there is to know of a path whose size is known: what
// it does to fragments, and where it loses what is too large.
func (r *run) details(ctx context.Context, s *search) error {
	if s.largest() < r.cfg.minMTU() && s.state() != evidence.MTUBlackHole {
		return nil
	}
	if err := r.fragments(ctx, s); err != nil {
		return err
	}
	return r.locate(ctx, s)
}

// maxFragment is the size of fragments, in bytes of IP, where the path carries
// larger ones.
const maxFragment = 1500

// fragments sends packets in fragments of which each fits the path, in order
// and with the last one first, and small ones between where any is lost.
//
// The packets are larger than the path MTU, so that the replies come in
// fragments too. But where too large packets vanish, and the target knows no
// better than to send fragments of its own link's size, replies of its would
// vanish for their size: there, the packets as a whole are no larger than what
// passes, and only the way to the target is tested.
//
// Through a tunnel none are sent: they would tell of the networks at both ends,
// and have the remote gateway send ESP in fragments.
func (r *run) fragments(ctx context.Context, s *search) error {
	if r.cfg.Role == evidence.Inner || !r.conn.Fragments() {
		return nil
	}
	largest := s.largest()
	fragment := min(largest, maxFragment)
	size := fragment + fragment/2
	if s.state() == evidence.MTUBlackHole || s.state() == evidence.MTUUnknown {
		size, fragment = largest, largest*2/3
	}
	probe := packet{size: size, fragment: fragment, form: fragmented}
	back := probe
	back.form = reversed
	if err := r.send(ctx, []packet{probe, back}); err != nil {
		return err
	}
	// A packet of so many fragments, there and back, is lost the likelier.
	kept := (1 - r.h.loss()) * (1 - r.h.loss())
	small := packet{size: r.h.small}
	for range triesFor(1-kept) - 1 {
		forward := r.h.tried(func(a *attempt) bool { return a.form == fragmented })
		backward := r.h.tried(func(a *attempt) bool { return a.form == reversed })
		var list []packet
		if forward.Answered == 0 {
			list = append(list, small, probe)
		}
		if backward.Answered == 0 && (forward.Answered > 0 || backward.Sent < minTries) {
			list = append(list, small, back)
		}
		if len(list) == 0 || r.h.packets+8 > r.budget {
			return nil
		}
		if err := r.send(ctx, append(list, small)); err != nil {
			return err
		}
	}
	return nil
}

// fragmentsLost reports whether probes in fragments were sent, and none of one
// kind was answered.
func (h *history) fragmentsLost() bool {
	for _, f := range []form{fragmented, reversed} {
		if t := h.tried(func(a *attempt) bool { return a.form == f }); t.Sent > 0 && t.Answered == 0 {
			return true
		}
	}
	return false
}

// await listens for complaints.
func (r *run) await(ctx context.Context, long time.Duration) {
	_ = r.collect(ctx, time.Now().Add(long), nil) // an end of ctx only ends the wait
}

// maxHops is how many hops are asked where a size is lost.
const maxHops = 8

// locate finds between which hops a size is lost that no hop said is too big.
// Hops need not say that a packet's time was exceeded, and Linux does only once
// a second to each host (icmp_ratelimit), after a burst of six: a silent hop
// tells nothing.
func (r *run) locate(ctx context.Context, s *search) error {
	size := 0
	switch holes := s.holes(); {
	case len(holes) > 0:
		size = holes[0].From + (holes[0].To-holes[0].From)/2
	case s.state() == evidence.MTUBlackHole:
		size, _ = s.ceiling(s.largest())
	case s.state() == evidence.MTUFull && (r.look || r.res.ReplyFragment.Known()):
		// Large packets pass, but their replies are cut: maybe the hops quote
		// one that lost its DF bit.
		size = s.top
	default:
		return nil
	}
	limit := (r.budget - r.h.packets) / 2
	if limit <= 0 {
		return nil
	}
	limit = min(limit, maxHops)
	small, err := r.hops(ctx, r.h.small, 1, limit)
	if err != nil {
		return err
	}
	last := 0 // of the hops that answer a small one
	for ttl := range small {
		last = max(last, ttl)
	}
	if last == 0 {
		return nil
	}
	large, err := r.hops(ctx, size, 1, last)
	if err != nil || s.state() == evidence.MTUFull && len(s.holes()) == 0 {
		return err
	}
	between := evidence.LostBetween{Size: size}
	for ttl := last; ttl > 0; ttl-- {
		if addr, ok := large[ttl]; ok {
			between.After, between.Hops = addr, ttl
			break
		}
	}
	for ttl := between.Hops + 1; ttl <= last; ttl++ {
		if addr, ok := small[ttl]; ok {
			between.Before = addr
			break
		}
	}
	if !between.After.IsValid() && !between.Before.IsValid() {
		return nil
	}
	r.res.Lost = evidence.Some(between)
	return nil
}

// hops sends packets whose time ends at the hops from first to last, each
// again if it was not answered, and returns who answered: the target once only,
// as the nearest of the hops that it answers for.
func (r *run) hops(ctx context.Context, size, first, last int) (map[int]netip.Addr, error) {
	from := len(r.h.list)
	answered := map[int]netip.Addr{}
	for range 2 {
		var list []packet
		for ttl := first; ttl <= last; ttl++ {
			if _, ok := answered[ttl]; !ok {
				list = append(list, packet{size: size, ttl: ttl})
			}
		}
		// The second try is worth half of what is left: the rest is for
		// packets of the other size.
		if len(list) > (r.budget-r.h.packets)/2 && len(answered) > 0 {
			break
		}
		if err := r.send(ctx, list); err != nil {
			return answered, err
		}
		for _, a := range r.h.list[from:] {
			if a.ttl == 0 {
				continue
			}
			if a.answered {
				answered[a.ttl] = r.cfg.Target
				last = min(last, a.ttl)
			}
			for _, e := range a.said {
				if addr, ok := e.Offender.Get(); ok && e.Reason == evidence.TTLExceeded {
					answered[a.ttl] = addr
				}
			}
		}
		for ttl := range answered {
			if ttl > last {
				delete(answered, ttl)
			}
		}
	}
	return answered, nil
}
