package probe

import (
	"math"
	"slices"

	"vpnprobe/evidence"
)

// Sizes of IP packets in bytes, headers included.
const (
	// smallSize passes on any path: where it is lost, size is not why.
	smallSize = 100

	// A "next-hop MTU" below what IP requires of every link is not to be
	// believed: 576 is what every IPv4 host must accept (RFC 1122 section
	// 3.3.3, RFC 8899 section 5.1.2), 1280 what every IPv6 link must carry
	// (RFC 8200 section 5).
	minMTU4 = 576
	minMTU6 = 1280
)

// ladder holds the sizes that the first round tries: the MTUs that links and
// tunnels commonly leave.
var ladder = []int{
	576, 1200, 1280, 1320, 1358, 1380, 1400, 1420, 1438, 1454,
	1472, 1480, 1492, 1500, 1600, 4000, 9000,
}

const (
	// maxMTUPackets is how many packets one search may send.
	maxMTUPackets = 60
	// bracketSizes is how many sizes one round tries between a size that
	// passed and one that did not.
	bracketSizes = 16
	// resendSizes is how many unanswered sizes one round tries again, the
	// smallest first: if that one fails, the larger ones need not be known.
	resendSizes = 3

	// A size fails when it was lost so often, and at least minTries times,
	// that chance explains it with less than maxChance at the loss seen so
	// far. When maxTries do not suffice for that, the loss hides the size.
	maxChance = 0.001
	minTries  = 3
	maxTries  = 8
)

// mtuSearch is the search for a path MTU without its packets: it is told what
// became of them and says which sizes to send next. It assumes that a path
// that passes a size passes all smaller ones.
type mtuSearch struct {
	minMTU  int // of a believable "too big" message
	top     int // largest size to try
	sizes   map[int]*evidence.SizeResult
	claims  []int // MTUs that "too big" messages named and that may be true
	packets int
}

func newMTUSearch(v6 bool, top int) *mtuSearch {
	s := &mtuSearch{minMTU: minMTU4, top: top, sizes: map[int]*evidence.SizeResult{}}
	if v6 {
		s.minMTU = minMTU6
	}
	return s
}

func (s *mtuSearch) size(n int) *evidence.SizeResult {
	r, ok := s.sizes[n]
	if !ok {
		r = &evidence.SizeResult{Size: n}
		s.sizes[n] = r
	}
	return r
}

// sent records that a packet was sent.
func (s *mtuSearch) sent(n int) {
	s.size(n).Sent++
	s.packets++
}

// answered records that a packet was answered.
func (s *mtuSearch) answered(n int) { s.size(n).Answered++ }

// tooBig records that a hop said that a packet of n bytes does not fit, and
// what would. Only a claim that can be true is used (RFC 8899 section 4.6.2).
func (s *mtuSearch) tooBig(n, mtu int) {
	if mtu < s.minMTU || mtu >= n {
		return
	}
	s.size(n).TooBig = true
	s.claims = append(s.claims, mtu)
}

// refused records that this host would not send a packet of n bytes.
func (s *mtuSearch) refused(n int) { s.size(n).Local = true }

// refusedAbove records that this host says what it would send.
func (s *mtuSearch) refusedAbove(mtu int) {
	if mtu < s.top {
		s.claims = append(s.claims, mtu)
	}
}

// largest returns the largest size that was answered, 0 for none.
func (s *mtuSearch) largest() int {
	best := 0
	for n, r := range s.sizes {
		if r.Answered > 0 {
			best = max(best, n)
		}
	}
	return best
}

// tries returns how often a size must be lost to have failed, by the loss
// among the packets that are not too large. It may be more than maxTries.
func (s *mtuSearch) tries() int {
	largest, sent, lost := s.largest(), 0, 0
	for n, r := range s.sizes {
		if n <= largest {
			sent += r.Sent
			lost += max(r.Sent-r.Answered, 0)
		}
	}
	switch {
	case lost == 0:
		return minTries
	case lost == sent:
		return math.MaxInt
	}
	p := float64(lost) / float64(sent)
	return max(minTries, int(math.Ceil(math.Log(maxChance)/math.Log(p))))
}

// smallestFailed returns the smallest size above all answered ones that
// failed, and false when none did.
func (s *mtuSearch) smallestFailed() (int, bool) {
	largest, tries := s.largest(), s.tries()
	best, ok := 0, false
	for n, r := range s.sizes {
		failed := r.Local || r.TooBig || r.Sent >= tries
		if n > largest && r.Answered == 0 && failed && (!ok || n < best) {
			best, ok = n, true
		}
	}
	return best, ok
}

// next returns the sizes to send in the next round, in the order of sending,
// or nil when the search is over.
func (s *mtuSearch) next() []int {
	sizes := s.plan()
	if room := maxMTUPackets - s.packets; len(sizes) > room {
		sizes = sizes[:max(room, 0)]
	}
	return sizes
}

func (s *mtuSearch) plan() []int {
	largest := s.largest()
	switch {
	case largest == 0:
		// A target that answers nothing costs as many packets as it takes to
		// be sure, and no more.
		if s.size(smallSize).Sent >= minTries {
			return nil
		}
		return []int{smallSize}
	case largest >= s.top:
		return nil
	case largest == smallSize && len(s.sizes) == 1:
		return s.firstRound()
	}

	failed, ok := s.smallestFailed()
	if !ok {
		failed = s.top + 1
	}
	if resend := s.unanswered(largest, failed); len(resend) > 0 {
		return withSmall(resend)
	}
	if !ok || failed-largest <= 1 {
		return nil
	}
	if claimed := s.claimed(largest, failed); len(claimed) > 0 {
		return claimed
	}
	return withSmall(between(largest, failed))
}

// firstRound is the ladder with small packets before, within and after it.
func (s *mtuSearch) firstRound() []int {
	var sizes []int
	for _, n := range ladder {
		if n < s.top && n >= s.minMTU {
			sizes = append(sizes, n)
		}
	}
	sizes = append(sizes, s.top)
	sizes = slices.Insert(sizes, len(sizes)/2, smallSize)
	return append(sizes, smallSize)
}

// unanswered returns the sizes of which it is open whether they pass, as many
// as one round tries again.
func (s *mtuSearch) unanswered(largest, failed int) []int {
	var sizes []int
	for n, r := range s.sizes {
		if n > largest && n < failed && r.Sent > 0 && r.Sent < maxTries {
			sizes = append(sizes, n)
		}
	}
	slices.Sort(sizes)
	return sizes[:min(len(sizes), resendSizes)]
}

// claimed returns what the "too big" messages say is the largest size that
// passes, and the smallest that does not, unless these are known.
func (s *mtuSearch) claimed(largest, failed int) []int {
	var sizes []int
	for _, mtu := range s.claims {
		for _, n := range []int{mtu, mtu + 1} {
			if n > largest && n < failed && !slices.Contains(sizes, n) {
				sizes = append(sizes, n)
			}
		}
	}
	slices.Sort(sizes)
	return sizes[:min(len(sizes), bracketSizes)]
}

// between returns sizes spread over the open interval from low to high.
func between(low, high int) []int {
	gaps := min(bracketSizes+1, high-low)
	sizes := make([]int, 0, gaps)
	for i := 1; i < gaps; i++ {
		sizes = append(sizes, low+(high-low)*i/gaps)
	}
	return sizes
}

// withSmall adds a small packet to a round, so that a moment without any
// connection is seen as loss of small packets too.
func withSmall(sizes []int) []int {
	return slices.Insert(sizes, len(sizes)/2, smallSize)
}

// state says how the search ended.
func (s *mtuSearch) state() evidence.MTUState {
	largest := s.largest()
	switch failed, ok := s.smallestFailed(); {
	case largest == 0:
		return evidence.MTUUnknown
	case largest >= s.top:
		return evidence.MTUFull
	case !ok || failed <= smallSize:
		return evidence.MTUUnknown // no size is sure to fail
	}
	for _, mtu := range s.claims {
		if mtu <= largest {
			return evidence.MTUReduced
		}
	}
	return evidence.MTUBlackHole
}

// results returns what became of each size, ascending.
func (s *mtuSearch) results() []evidence.SizeResult {
	out := make([]evidence.SizeResult, 0, len(s.sizes))
	for _, r := range s.sizes {
		if r.Sent > 0 || r.Local {
			out = append(out, *r)
		}
	}
	slices.SortFunc(out, func(a, b evidence.SizeResult) int { return a.Size - b.Size })
	return out
}
