package esp

import "math/bits"

const (
	span     = near + 1 // numbers from the highest down that are told apart
	ringBits = 2048     // the power of two that holds them
)

// Sequence keeps account of the sequence numbers of one flow, packet by packet,
// in about 500 bytes. The zero value is ready.
//
// A number up to 1024 above the highest one so far is believed at once, and the
// numbers it skips are lost until they come. One that is at most 1024 below is
// a duplicate if it was seen, else reordered. Any other is a stray until the
// very next packet has one of the 1024 numbers after it: then the stream went
// there, and a step forward of up to 2^16 is loss, any other a discontinuity
// that starts anew. So a single forged number, whatever it is, makes no loss
// that lasts.
//
// A run of lost numbers is counted in [Counts.Bursts] when it is settled: when
// its numbers are 1024 below the highest, when the stream starts anew, or by
// [Sequence.Settle].
type Sequence struct {
	c       Counts
	seen    [ringBits / 64]uint64 // by number modulo ringBits; those in the window are valid
	run     uint64                // lost numbers right below the unsettled ones
	highest uint32
	pending uint32 // the number of the packet before, if it was a stray
	since   uint32 // numbers from the anchor to the highest, without the anchor; at most span
	open    uint32 // numbers up to the highest that are not settled; at most span
	fresh   uint32 // those of them that came after the last Settle
	stray   bool   // there is one pending
	anchor  bool   // there was a first packet
}

// Counts returns what the numbers told so far. It has no bytes, fragments and
// times.
func (s *Sequence) Counts() Counts { return s.c }

// Add takes a packet with number n.
func (s *Sequence) Add(n uint32) {
	s.c.Packets++
	forward, back := n-s.highest, s.highest-n
	switch {
	case !s.anchor:
		s.c.Expected++
		s.restart(n)
	case forward-1 < near:
		s.stray = false
		s.c.Expected += uint64(forward)
		s.advance(forward)
	case back <= near:
		s.stray = false
		s.late(n, back)
	case s.stray && n-s.pending-1 < near:
		s.confirm(n)
	default:
		s.c.Strays++
		s.pending, s.stray = n, true
	}
}

// Gap says that packets passed unseen. The next one is a new beginning, and
// nothing in between is lost.
func (s *Sequence) Gap() {
	s.settle(s.open)
	s.anchor, s.stray = false, false
}

// Settle counts the runs of lost numbers below what was the highest number at
// the call before. Calls that are farther apart than packets can be delayed
// make the runs of a slow flow known long before 1024 more packets have come.
func (s *Sequence) Settle() {
	s.settle(s.open - s.fresh)
	s.fresh = 0
}

// late takes a number that lies back below the highest.
func (s *Sequence) late(n, back uint32) {
	if s.has(n) {
		s.c.Duplicates++
		return
	}
	s.set(n)
	s.c.Reordered++
	s.c.Depth = max(s.c.Depth, back)
	if back > s.since {
		s.c.Expected++ // from before the beginning: not missed so far
	}
}

// confirm takes n, which shows that the stream went on from the pending stray.
func (s *Sequence) confirm(n uint32) {
	s.c.Strays--
	p := s.pending
	step := p - s.highest
	if step <= farStep {
		s.stray = false
		s.c.Expected += uint64(n - s.highest)
		s.advance(step)
		s.advance(n - p)
		return
	}
	s.c.Discontinuities++
	s.c.Expected += 2
	s.settle(s.open)
	s.restart(n)
	s.set(p)
}

// restart makes n the first number of what follows.
func (s *Sequence) restart(n uint32) {
	clear(s.seen[:])
	s.highest, s.since, s.open, s.fresh, s.run = n, 0, 0, 0, 0
	s.anchor, s.stray = true, false
	s.set(n)
}

// advance moves the highest number up by d, 1 to farStep, all of which but the
// last were skipped.
func (s *Sequence) advance(d uint32) {
	if d == 1 && s.open == span && s.run == 0 && s.has(s.highest-near) {
		// By far the most frequent: the number that leaves the window was seen.
		s.highest++
		s.set(s.highest)
		s.fresh = min(s.fresh+1, span)
		return
	}
	if left := s.open + d; left > span {
		left -= span
		known := min(left, s.open)
		s.settle(known)
		s.run += uint64(left - known) // skipped, and out of the window at once
	}
	if d > 1 {
		s.wipe(s.highest+1, min(d, ringBits))
	}
	s.highest += d
	s.set(s.highest)
	s.since = min(s.since+d, span)
	s.open = min(s.open+d, span)
	s.fresh = min(s.fresh+d, s.open)
}

// settle counts the runs that end within the lowest k of the open numbers.
func (s *Sequence) settle(k uint32) {
	n := s.highest - s.open + 1
	s.open -= k
	s.fresh = min(s.fresh, s.open)
	for k > 0 {
		pos := n % ringBits
		word := s.seen[pos/64] >> (pos % 64)
		here := min(64-pos%64, k) // bits of word that count
		n += here
		k -= here
		for here > 0 {
			lost := min(uint32(bits.TrailingZeros64(word)), here)
			s.run += uint64(lost)
			if here -= lost; here == 0 {
				break
			}
			s.close()
			word >>= lost
			got := min(uint32(bits.TrailingZeros64(^word)), here)
			word >>= got
			here -= got
		}
	}
}

// close ends a run of lost numbers, if there is one.
func (s *Sequence) close() {
	if s.run > 0 {
		s.c.Bursts[burst(s.run)]++
		s.run = 0
	}
}

func (s *Sequence) has(n uint32) bool { return s.seen[n%ringBits/64]&(1<<(n%64)) != 0 }
func (s *Sequence) set(n uint32)      { s.seen[n%ringBits/64] |= 1 << (n % 64) }

// wipe forgets the k numbers from n on.
func (s *Sequence) wipe(n, k uint32) {
	for k > 0 {
		pos := n % ringBits
		here := min(64-pos%64, k)
		s.seen[pos/64] &^= (^uint64(0) >> (64 - here)) << (pos % 64)
		n += here
		k -= here
	}
}
