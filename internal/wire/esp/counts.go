package esp

import (
	"math/bits"
	"time"
)

// Counts is what was counted of one flow since it was first seen. All of it
// only grows, but for Strays, which falls by one when the packets after a stray
// confirm it, and for what [Counts.Lost] makes of it: a packet that comes late
// was lost until then. Two readings of a flow make a window: [Counts.Sub].
type Counts struct {
	Packets uint64 // a fragmented one counts once, with its first fragment
	Bytes   uint64 // of IP packets, headers included

	// Expected counts the packets that were sent according to their numbers.
	Expected   uint64
	Duplicates uint64
	Reordered  uint64 // seen after one with a higher number
	// Strays counts packets with a number far from all others, which are no
	// part of the stream: forged or corrupt ones.
	Strays uint64
	// Discontinuities counts jumps of the numbers that are not loss: forward
	// by more than 2^16, or back.
	Discontinuities uint64

	Depth   uint32 // greatest distance of a reordered packet from the highest number before it
	Longest uint32 // IP packet or fragment, in bytes

	// Bursts counts the runs of consecutive lost numbers by length: 1, 2 to 3,
	// 4 to 7 and so on, the last entry has all from 128 on. A run is counted
	// when it is settled, see [Sequence]; until then, and if a packet comes
	// later still, the runs and Lost differ.
	Bursts        [8]uint64
	BurstsUnknown bool // kernel samples do not tell them

	Fragments   [3]uint64 // first, middle, last
	First, Last time.Time // when the first and the last packet was seen
}

// unique returns the number of packets that belong to the stream, each counted
// once.
func (c *Counts) unique() uint64 { return less(less(c.Packets, c.Duplicates), c.Strays) }

// Lost returns how many of the expected packets were not seen.
func (c Counts) Lost() uint64 { return less(c.Expected, c.unique()) }

// Sub returns what was counted after an earlier reading of the same flow. Of
// Depth and Longest, which are extremes since the beginning, it keeps the value
// if the window has a packet they may be of, else it is 0; First and Last stay
// as they are.
func (c Counts) Sub(earlier Counts) Counts {
	w := c
	w.Packets = less(c.Packets, earlier.Packets)
	w.Bytes = less(c.Bytes, earlier.Bytes)
	w.Duplicates = less(c.Duplicates, earlier.Duplicates)
	w.Reordered = less(c.Reordered, earlier.Reordered)
	w.Strays = less(c.Strays, earlier.Strays)
	w.Discontinuities = less(c.Discontinuities, earlier.Discontinuities)
	// A stray that was confirmed in the window was seen before it, so it is
	// not expected within.
	w.Expected = less(c.Expected, earlier.Expected+less(earlier.Strays, c.Strays))
	for i := range w.Bursts {
		w.Bursts[i] = less(c.Bursts[i], earlier.Bursts[i])
	}
	for i := range w.Fragments {
		w.Fragments[i] = less(c.Fragments[i], earlier.Fragments[i])
	}
	if w.Reordered == 0 {
		w.Depth = 0
	}
	if w.Bytes == 0 {
		w.Longest = 0
	}
	return w
}

// Plus returns the sum of the counts of two flows. Surplus packets of one flow
// would hide losses of the other in Lost of the sum, so where both matter add
// up what Lost returns.
func (c Counts) Plus(o Counts) Counts {
	c.Packets += o.Packets
	c.Bytes += o.Bytes
	c.Expected += o.Expected
	c.Duplicates += o.Duplicates
	c.Reordered += o.Reordered
	c.Strays += o.Strays
	c.Discontinuities += o.Discontinuities
	c.Depth = max(c.Depth, o.Depth)
	c.Longest = max(c.Longest, o.Longest)
	for i := range c.Bursts {
		c.Bursts[i] += o.Bursts[i]
	}
	c.BurstsUnknown = c.BurstsUnknown || o.BurstsUnknown
	for i := range c.Fragments {
		c.Fragments[i] += o.Fragments[i]
	}
	if c.First.IsZero() || !o.First.IsZero() && o.First.Before(c.First) {
		c.First = o.First
	}
	if o.Last.After(c.Last) {
		c.Last = o.Last
	}
	return c
}

// less returns a - b, at least 0.
func less(a, b uint64) uint64 { return a - min(a, b) }

// burst returns the entry of Bursts for a run of n > 0.
func burst(n uint64) int { return min(bits.Len64(n)-1, len(Counts{}.Bursts)-1) }
