package pmtu

import (
	"math"
	"slices"

	"vpnprobe/evidence"
)

// smallSize passes on any path: where it is lost, size is not why.
const smallSize = 100

// ladder holds the sizes that the first round tries: the MTUs that links and
// tunnels commonly leave.
var ladder = []int{
	576, 1200, 1280, 1320, 1358, 1380, 1400, 1420, 1438, 1454,
	1472, 1480, 1492, 1500, 1600, 4000, 9000,
}

const (
	// maxSizePackets is how many packets a search spends on sizes; the rest of
	// its budget is for fragments and for where a size is lost.
	maxSizePackets = 50
	// bracketSizes is how many sizes one round tries between a size that
	// passed and one that did not.
	bracketSizes = 5
	// maxRepeats is how often one round repeats one size.
	maxRepeats = 4
	// maxTries is how often a size below one that passed is sent at most.
	maxTries = 12
	// maxClaims is how many different claims of what fits are tried: a path
	// of more links that are each narrower than the one before is no path.
	maxClaims = 5
)

// search is the search for a path MTU without its packets: it is told what
// became of them and says which sizes to send next.
type search struct {
	*history
	top      int // largest size to try
	budget   int // of packets
	laddered bool
	spots    bool
	claimed  []int // that were tried
}

func newSearch(h *history, top int) *search {
	return &search{history: h, top: top, budget: maxSizePackets}
}

// next returns the sizes to send in the next round, in the order of sending,
// or nil when the search is over.
func (s *search) next() []int {
	sizes := s.plan()
	if room := s.budget - s.packets; len(sizes) > room {
		sizes = sizes[:max(room, 0)]
	}
	return sizes
}

func (s *search) plan() []int {
	largest := s.largest()
	if len(s.list) == 0 && !s.local[s.top] {
		return []int{s.top}
	}
	if sizes := s.claim(); len(sizes) > 0 {
		return sizes
	}
	switch {
	case largest == 0:
		// A target that answers nothing costs as many packets as it takes to
		// be sure, and no more.
		if s.sent(s.small) >= minTries {
			return nil
		}
		return []int{s.small}
	case largest >= s.top:
		if sizes := s.spot(); len(sizes) > 0 {
			return sizes
		}
		return s.mend()
	case largest == s.small && !s.laddered:
		s.laddered = true
		return s.firstRound()
	}
	high, known := s.ceiling(largest)
	switch {
	case high-largest > 1 && s.lossy() && s.sent(high) == 1:
		// The bracket would be of the wrong sizes if this was chance.
		return []int{s.small, high, s.small}
	case high-largest > 1:
		return withSmall(between(largest, high, bracketSizes), s.small)
	case !known:
		return s.again(high)
	case s.told():
		return s.mend()
	case !s.certain() && s.sent(high) < 3*s.tries():
		return s.again(high)
	}
	return s.mend()
}

// ceiling returns the smallest size above the largest that passed which was
// tried and not answered, or the next after the top; and whether it is known
// to fail.
func (s *search) ceiling(largest int) (high int, known bool) {
	high = s.top + 1
	for _, a := range s.list {
		if a.counts() && a.size > largest && a.size < high {
			high = a.size
		}
	}
	for size := range s.local {
		if size > largest {
			high = min(high, size)
		}
	}
	return high, high > s.top || slices.Contains(s.failed(), high)
}

// claim returns what the "too big" messages say is the largest size that
// passes, behind the smallest that does not: so when the former is answered,
// the latter would have been.
func (s *search) claim() []int {
	largest := s.largest()
	for _, mtu := range s.claims() {
		if mtu <= largest || mtu >= s.top || slices.Contains(s.claimed, mtu) || len(s.claimed) >= maxClaims {
			continue
		}
		s.claimed = append(s.claimed, mtu)
		if s.sent(mtu+1) > 0 || s.local[mtu+1] {
			return []int{mtu}
		}
		return []int{mtu + 1, mtu}
	}
	return nil
}

// spot returns two common sizes below a top that passed, as a path may lose
// some in between.
func (s *search) spot() []int {
	if s.spots || s.laddered {
		return nil
	}
	s.spots = true
	var sizes []int
	for _, n := range []int{1500, 1400, 1280} {
		if n < s.top && n >= s.minMTU && len(sizes) < 2 {
			sizes = append(sizes, n)
		}
	}
	return sizes
}

// firstRound is the ladder, from both ends in turn, so that sizes that pass are
// among those that do not, with small packets before, within and after it.
func (s *search) firstRound() []int {
	var rungs []int
	for _, n := range ladder {
		if n < s.top && n >= s.minMTU && n > s.small {
			rungs = append(rungs, n)
		}
	}
	return withSmall(interleave(append(rungs, s.top)), s.small)
}

// again returns a size as often as it takes for it to have failed, between
// small ones.
func (s *search) again(size int) []int {
	n := min(max(s.tries()-s.losses()[size], 1), maxRepeats)
	sizes := []int{s.small}
	for range n {
		sizes = append(sizes, size, s.small)
	}
	return sizes
}

// mend repeats the sizes at the edges of what may be a hole, until each was
// answered or has failed.
func (s *search) mend() []int {
	var sizes []int
	for _, g := range s.gaps() {
		if s.isHole(g) {
			continue
		}
		for _, size := range slices.Compact([]int{g.From, g.To}) {
			if s.sent(size) < maxTries {
				sizes = append(sizes, size, s.small)
			}
		}
		if len(sizes) >= 2*bracketSizes {
			break
		}
	}
	if len(sizes) == 0 {
		return nil
	}
	return slices.Insert(sizes, 0, s.small)
}

// gaps returns the ranges of sizes that were tried and never answered, between
// sizes that were, ascending.
func (s *search) gaps() []evidence.SizeRange {
	largest := s.largest()
	var sizes []int
	for _, a := range s.list {
		if a.counts() && a.size < largest {
			sizes = append(sizes, a.size)
		}
	}
	slices.Sort(sizes)
	var list []evidence.SizeRange
	open := false
	for _, size := range slices.Compact(sizes) {
		switch {
		case s.passed(size):
			open = false
		case open:
			list[len(list)-1].To = size
		default:
			list, open = append(list, evidence.SizeRange{From: size, To: size}), true
		}
	}
	return list
}

// holes returns the gaps that are no chance.
func (s *search) holes() []evidence.SizeRange {
	return slices.DeleteFunc(s.gaps(), func(g evidence.SizeRange) bool { return !s.isHole(g) })
}

// isHole reports whether a gap is no chance: its edges failed, and there are as
// many losses in it as a black hole takes, since it is the unluckiest of many
// sizes.
func (s *search) isHole(g evidence.SizeRange) bool {
	if failed := s.failed(); !slices.Contains(failed, g.From) || !slices.Contains(failed, g.To) {
		return false
	}
	sum := 0
	for size, lost := range s.losses() {
		if size >= g.From && size <= g.To {
			sum += lost
		}
	}
	return math.Pow(s.loss(), float64(sum)) < maxHoleChance
}

// state says how the search ended.
func (s *search) state() evidence.MTUState {
	largest := s.largest()
	_, known := s.ceiling(largest)
	switch {
	case largest == 0:
		return evidence.MTUUnknown
	case largest >= s.top:
		return evidence.MTUFull
	case known && s.told():
		return evidence.MTUReduced
	case !s.told() && s.certain():
		// Which size is the smallest to fail may be open.
		return evidence.MTUBlackHole
	}
	return evidence.MTUUnknown // no size is sure to fail
}

// between returns up to n sizes spread over the open interval from low to high.
func between(low, high, n int) []int {
	gaps := min(n+1, high-low)
	var sizes []int
	for i := 1; i < gaps; i++ {
		sizes = append(sizes, low+(high-low)*i/gaps)
	}
	return interleave(sizes)
}

// interleave orders ascending sizes from both ends in turn.
func interleave(sizes []int) []int {
	out := make([]int, 0, len(sizes))
	for low, high := 0, len(sizes)-1; low <= high; low, high = low+1, high-1 {
		out = append(out, sizes[low])
		if low < high {
			out = append(out, sizes[high])
		}
	}
	return out
}

// withSmall adds small packets to a round, before, within and after it.
func withSmall(sizes []int, small int) []int {
	if len(sizes) > 2 {
		sizes = slices.Insert(sizes, len(sizes)/2, small)
	}
	return append(slices.Insert(sizes, 0, small), small)
}
