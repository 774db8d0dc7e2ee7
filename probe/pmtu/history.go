package pmtu

import (
	"math"
	"slices"
	"time"

	"vpnprobe/evidence"
)

// attempt is one probe that was sent.
type attempt struct {
	packet
	at       time.Time
	round    int
	answered bool
	// settled is set when the probe's round is over.
	settled bool
	said    []evidence.ICMPError // different ones, at most maxSaid
}

// maxSaid bounds what is kept of the ICMP errors about one probe.
const maxSaid = 4

// decided reports whether a round need not wait for the attempt any longer.
func (a *attempt) decided() bool { return a.answered || len(a.said) > 0 }

// counts reports whether the attempt tells of its size.
func (a *attempt) counts() bool { return a.form == whole && a.ttl == 0 }

// history is all that was sent and what became of it, in the order of sending;
// an attempt's sequence number is its index.
type history struct {
	small   int // the size of a small probe
	minMTU  int // of a believable "too big" message
	list    []*attempt
	local   map[int]bool // sizes that this host refused
	limits  []int        // what this host says that it would send
	assumed float64      // loss
	singly  bool         // rounds are of single probes, or nearly
	packets int          // IP packets, fragments counted singly
}

func newHistory(small, minMTU int, loss float64) *history {
	return &history{small: small, minMTU: minMTU, local: map[int]bool{}, assumed: loss}
}

// A size fails when it was lost so often, and at least minTries times, that
// chance explains it with less than maxChance at the present loss; a black hole
// is one only when chance explains all losses above the largest size that
// passed with less than maxHoleChance.
const (
	maxChance     = 0.001
	maxHoleChance = 1e-5
	minTries      = 3
)

// largest returns the largest size that was answered, 0 for none.
func (h *history) largest() int {
	best := 0
	for _, a := range h.list {
		if a.counts() && a.answered {
			best = max(best, a.size)
		}
	}
	return best
}

// passed reports whether a probe of the size was answered.
func (h *history) passed(size int) bool {
	return slices.ContainsFunc(h.list, func(a *attempt) bool { return a.counts() && a.answered && a.size == size })
}

func (h *history) sent(size int) (n int) {
	for _, a := range h.list {
		if a.counts() && a.size == size {
			n++
		}
	}
	return n
}

// loss estimates the share of packets that are lost whatever their size, from
// those that are known to fit, as Laplace's rule does: to have seen none lost
// of a few is no proof that none are.
func (h *history) loss() float64 {
	largest := h.largest()
	dead := map[int]bool{} // holes, or nearly so
	for _, a := range h.list {
		if a.counts() && !h.passed(a.size) && h.sent(a.size) >= minTries {
			dead[a.size] = true
		}
	}
	sent, lost := 0, 0
	for _, a := range h.list {
		if a.counts() && a.settled && a.size <= largest && !dead[a.size] {
			sent++
			if !a.answered {
				lost++
			}
		}
	}
	return max(h.assumed, float64(lost+1)/float64(sent+2))
}

// lossy reports whether a size that passes was lost.
func (h *history) lossy() bool {
	return slices.ContainsFunc(h.list, func(a *attempt) bool { return a.counts() && a.settled && !a.answered && h.passed(a.size) })
}

// tries returns how often a size must be lost in order to have failed.
func (h *history) tries() int { return triesFor(h.loss()) }

func triesFor(loss float64) int {
	if loss >= 1 {
		return math.MaxInt32
	}
	return max(minTries, int(math.Ceil(math.Log(maxChance)/math.Log(loss))))
}

// losses counts the losses of each size that nothing but the size explains:
// those whose neighbours in the same round, before and after, were of sizes
// that pass and were answered. So a moment without any connection is no loss
// of a size.
func (h *history) losses() map[int]int {
	good := map[int]bool{}
	for _, a := range h.list {
		if a.counts() && a.answered {
			good[a.size] = true
		}
	}
	lost := map[int]int{}
	for i, a := range h.list {
		if !a.counts() || !a.settled || a.answered || good[a.size] {
			continue
		}
		before, after := h.neighbour(good, i, -1), h.neighbour(good, i, 1)
		if (before == nil || before.answered) && (after == nil || after.answered) && (before != nil || after != nil) {
			lost[a.size]++
		}
	}
	return lost
}

// silent counts the losses of which no hop gave a credible reason.
func (h *history) silent() map[int]int {
	largest := h.largest()
	lost := h.losses()
	for _, a := range h.list {
		if a.counts() && slices.ContainsFunc(a.said, func(e evidence.ICMPError) bool {
			return e.Reason == evidence.FragNeeded && !h.bogus(a.size, e.MTU.Or(0), largest)
		}) {
			delete(lost, a.size)
		}
	}
	return lost
}

// neighbour returns the nearest attempt of a size that passes, of the same round
// unless rounds are of single probes; nil if there is none.
func (h *history) neighbour(good map[int]bool, i, step int) *attempt {
	for j := i + step; j >= 0 && j < len(h.list) && (h.singly || h.list[j].round == h.list[i].round); j += step {
		if a := h.list[j]; a.counts() && good[a.size] {
			return a
		}
	}
	return nil
}

// failed returns the sizes that do not pass, ascending: this host or a credible
// hop says so, or they were lost often enough.
func (h *history) failed() []int {
	seen := map[int]bool{}
	for size := range h.local {
		seen[size] = true
	}
	tries := h.tries()
	for size, n := range h.losses() {
		if n >= tries {
			seen[size] = true
		}
	}
	largest := h.largest()
	for _, a := range h.list {
		for _, e := range a.said {
			if a.counts() && e.Reason == evidence.FragNeeded && !h.bogus(a.size, e.MTU.Or(0), largest) {
				seen[a.size] = true
			}
		}
	}
	var list []int
	for size := range seen {
		if !h.passed(size) {
			list = append(list, size)
		}
	}
	slices.Sort(list)
	return list
}

// bogus reports whether a "too big" about a probe cannot be true (RFC 8899
// section 4.6.2): it asks for no less than was sent, for less than every path
// carries, or for less than what was seen to pass. An MTU of 0 is that of an
// IPv4 router that knows of none (RFC 1191 section 5).
func (h *history) bogus(size, mtu, largest int) bool {
	if mtu == 0 && h.minMTU == minMTU4 {
		return size <= largest
	}
	return mtu >= size || mtu < h.minMTU || mtu < largest
}

// claims returns what "too big" messages, and this host, say that fits, as far
// as it can be true, ascending.
func (h *history) claims() []int {
	list := slices.Clone(h.limits)
	largest := h.largest()
	for _, a := range h.list {
		for _, e := range a.said {
			if mtu := e.MTU.Or(0); a.counts() && e.Reason == evidence.FragNeeded && mtu > 0 && !h.bogus(a.size, mtu, largest) {
				list = append(list, mtu)
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// told reports whether a hop, or this host, said of a size above the largest
// that it is too big, and nothing that is above that fits.
func (h *history) told() bool {
	largest := h.largest()
	for _, n := range h.limits {
		if n <= largest {
			return true
		}
	}
	for _, a := range h.list {
		for _, e := range a.said {
			if !a.counts() || a.size <= largest || e.Reason != evidence.FragNeeded {
				continue
			}
			mtu := e.MTU.Or(0)
			if mtu >= h.minMTU && mtu <= largest || mtu == 0 && h.minMTU == minMTU4 {
				return true
			}
		}
	}
	return false
}

// above counts the silent losses of sizes that are larger than any that passed.
func (h *history) above() (n int) {
	largest := h.largest()
	for size, lost := range h.silent() {
		if size > largest {
			n += lost
		}
	}
	return n
}

// certain reports whether the losses above the largest size are no chance.
func (h *history) certain() bool {
	return math.Pow(h.loss(), float64(h.above())) < maxHoleChance
}
