package pmtu

import (
	"context"
	"time"

	"vpnprobe/evidence"
)

const (
	// maxSweepPackets is how many packets a sweep may send, and maxSweepTime
	// how long it may take.
	maxSweepPackets = 220
	maxSweepTime    = 20 * time.Second
	// sweepRound is how many sizes one round of a sweep tries.
	sweepRound = 16
	// sweepPacing is the time between two of its packets.
	sweepPacing = 5 * time.Millisecond
	// sweepSizes is how many sizes the budget has room for, besides a search
	// and repetitions.
	sweepSizes = 120
)

// Sweep searches as [Search] does and then tries sizes [evidence.SweepStep]
// bytes apart, from the least MTU that IP permits up to the largest, so that
// holes are seen; where the link's MTU is so large that the budget has no room
// for that, as with jumbo frames, the sizes are farther apart, and the result
// does not say that it swept. It sends up to 220 packets, 5 ms apart, within
// 20 s. It also sends packets of the full size whose time ends on the way, as
// hops that quote them show whether they are still whole. An IKE port is never
// swept: that is an error.
func Sweep(ctx context.Context, cfg Config) (evidence.PathMTU, error) {
	return system.sweep(ctx, cfg)
}

func (e engine) sweep(ctx context.Context, cfg Config) (evidence.PathMTU, error) {
	if cfg.ike() {
		return evidence.PathMTU{Role: cfg.Role, Target: cfg.Target, Probe: cfg.Probe}, errSweepIKE
	}
	return e.runFor(ctx, cfg, maxSweepTime, "sweep path MTU to", func(ctx context.Context, r *run, s *search) error {
		if err := r.sizes(ctx, s.next); err != nil {
			return err
		}
		if s.largest() < s.minMTU {
			return r.details(ctx, s)
		}
		// The details come first, as they are worth more than the last holes;
		// where sizes are lost is looked for once the holes are known.
		if err := r.fragments(ctx, s); err != nil {
			return err
		}
		r.budget, s.budget, r.pacing = maxSweepPackets, maxSweepPackets-2*maxHops, sweepPacing
		sizes := s.steps()
		for len(sizes) > 0 {
			n := min(len(sizes), sweepRound)
			part := withSmall(interleave(sizes[:n]), s.small)
			sizes = sizes[n:]
			if err := r.sizes(ctx, once(part)); err != nil {
				return err
			}
		}
		if err := r.sizes(ctx, s.next); err != nil { // repeats what is open
			return err
		}
		r.res.Swept = s.swept()
		r.look = true
		return r.locate(ctx, s)
	}, nil)
}

// once returns a plan of one round.
func once(sizes []int) func() []int {
	return func() []int {
		out := sizes
		sizes = nil
		return out
	}
}

// step is the distance of the sizes of a sweep.
func (s *search) step() int {
	step := evidence.SweepStep
	for (s.top-s.minMTU)/step > sweepSizes {
		step += evidence.SweepStep
	}
	return step
}

// steps returns the sizes of a sweep that were not tried yet, ascending.
func (s *search) steps() []int {
	var sizes []int
	step := s.step()
	for n := (s.minMTU + step - 1) / step * step; n <= s.top; n += step {
		if s.sent(n) == 0 && !s.local[n] {
			sizes = append(sizes, n)
		}
	}
	return sizes
}

// swept reports whether the sweep left no size open that is below the largest.
func (s *search) swept() bool {
	return s.step() == evidence.SweepStep && len(s.steps()) == 0 && len(s.gaps()) == len(s.holes())
}
