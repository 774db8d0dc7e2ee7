package esp

import "time"

// near is how far a number may be from the highest one seen, either way, to be
// believed at once.
const near = 1024

// farStep is the longest forward step that is taken for loss.
const farStep = 1 << 16

// Fragment is what part of an IP packet was seen.
type Fragment uint8

// The parts. A middle or last fragment has no ESP or AH header.
const (
	Whole Fragment = iota
	FirstFragment
	MiddleFragment
	LastFragment
)

// later reports whether the part comes without the header.
func (f Fragment) later() bool { return f > FirstFragment }

// Cell is the value of one flow on one CPU as a kernel program keeps it: the
// rule that such a program follows, in Go. All arithmetic on sequence numbers
// is that of unsigned 32-bit integers, so that a wrap is nothing special
// (RFC 1982; of an extended number, RFC 4303 section 2.2.1, the low half).
// [Sampled] turns its samples into [Counts].
//
// Of a packet with number n, in this order:
//
//   - Bytes += length; Longest = max(Longest, length); Last = now; if it is a
//     fragment, Fragments[its part] += 1. For a middle or last fragment that is
//     all: it belongs to the key with SPI 0, and is no packet of its own.
//   - Packets += 1.
//   - The first packet: First = Max = n, the bitmap is 1. Done.
//   - 1 <= n-Max <= 1024: the bitmap moves left by n-Max (by 64 or more: it
//     becomes 0) and bit 0 is set; Max = n; nothing is pending. Done.
//   - b = Max-n, 0 <= b <= 1024: if b < 64 and bit b is set, Duplicates += 1.
//     Otherwise Reordered += 1, Depth = max(Depth, b), and bit b is set if
//     b < 64. Nothing is pending. Done.
//   - A number P is pending and 1 <= n-P <= 1024: Strays -= 1; if P-Max > 2^16
//     (which any step back is as well), Jumps += 1; Max = n; the bitmap is 1,
//     with bit n-P set too if n-P < 64; nothing is pending. Done.
//   - Strays += 1, and n is pending.
type Cell struct {
	Sample
	window  uint64 // bit b: number Max-b was seen
	pending uint32 // the number of the packet before, if it was a stray
	stray   bool   // there is one pending
}

// Add counts a packet, or a part of one, of length bytes.
func (c *Cell) Add(n uint32, length int, part Fragment, at time.Time) {
	c.Bytes += uint64(length)
	c.Longest = max(c.Longest, uint32(length))
	c.Last = at
	if part != Whole {
		c.Fragments[part-FirstFragment]++
	}
	if part.later() {
		return
	}
	c.Packets++
	switch forward, back := n-c.Max, c.Max-n; {
	case c.Packets == 1:
		c.First, c.Max, c.window = n, n, 1
	case forward-1 < near:
		c.window = c.window<<forward | 1 // Go shifts by 64 and more to 0
		c.Max, c.stray = n, false
	case back <= near:
		bit := uint64(1) << back
		if c.window&bit != 0 {
			c.Duplicates++
		} else {
			c.Reordered++
			c.Depth = max(c.Depth, back)
		}
		c.window |= bit
		c.stray = false
	case c.stray && n-c.pending-1 < near:
		c.Strays--
		if c.pending-c.Max > farStep {
			c.Jumps++
		}
		c.window = uint64(1)<<(n-c.pending) | 1
		c.Max, c.stray = n, false
	default:
		c.Strays++
		c.pending, c.stray = n, true
	}
}
