package pmtu

import (
	"context"
	"slices"

	"vpnprobe/evidence"
)

// Confirm asks whether the result of an earlier search still holds, as RFC 8899
// section 5.2 does in the state "search complete": it sends the path MTU twice
// and a byte more once, between small packets, and the former again when it is
// lost. That is 7 packets while it holds, and seldom more than 20.
//
// holds is No when the path carries a byte more, and when it no longer carries
// the path MTU: that is, when packets of the size are lost time and again
// while small ones are answered. It is Unknown when small ones are lost too, as
// a lost connection says nothing about sizes, and when prev has no path MTU. A
// "too big" message alone changes nothing.
//
// now has what was sent and said; its state and path MTU are those of prev
// when they hold, and the larger size when that passed.
//
// The error is not nil when it was not possible to look.
func Confirm(ctx context.Context, cfg Config, prev evidence.PathMTU) (now evidence.PathMTU, holds evidence.Fact, err error) {
	return system.confirm(ctx, cfg, prev)
}

func (e engine) confirm(ctx context.Context, cfg Config, prev evidence.PathMTU) (now evidence.PathMTU, holds evidence.Fact, err error) {
	mtu, ok := prev.MTU.Get()
	if !ok || prev.State == evidence.MTUUnknown {
		now = prev
		return now, evidence.Unknown, nil
	}
	c := confirmation{mtu: mtu, quiet: len(prev.Bogus) > 0}
	now, err = e.run(ctx, cfg, "confirm path MTU to", func(ctx context.Context, r *run, s *search) error {
		c.search = s
		return r.sizes(ctx, c.next)
	}, nil)
	if c.search == nil {
		return now, evidence.Unknown, err
	}
	holds = c.holds()
	switch {
	case holds == evidence.Yes:
		now.State, now.MTU = prev.State, prev.MTU
		now.Holes, now.Swept, now.Lost = prev.Holes, prev.Swept, prev.Lost
	case !c.passed(mtu + 1):
		now.State, now.MTU = evidence.MTUUnknown, evidence.Opt[int]{}
	}
	return now, holds, err
}

// confirmation is the plan of a [Confirm].
type confirmation struct {
	*search
	mtu   int
	quiet bool // a larger one would draw a lie again, which the kernel believes
	begun bool
}

func (c *confirmation) next() []int {
	switch {
	case !c.begun:
		c.begun = true
		small := c.small
		sizes := []int{small, c.mtu, small, c.mtu + 1, small, c.mtu, small}
		if c.mtu+1 > c.top || c.quiet {
			sizes = slices.Delete(sizes, 2, 4)
		}
		return sizes
	case c.holds() != evidence.Unknown, c.sent(c.mtu) == 0, c.sent(c.mtu) >= 3*minTries, !c.passed(c.small):
		return nil
	}
	return c.again(c.mtu)
}

func (c *confirmation) holds() evidence.Fact {
	switch {
	case c.passed(c.mtu + 1):
		return evidence.No
	case c.passed(c.mtu):
		return evidence.Yes
	case c.local[c.mtu], c.losses()[c.mtu] >= c.tries():
		return evidence.No
	}
	return evidence.Unknown
}
