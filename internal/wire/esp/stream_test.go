package esp

import (
	"math/rand/v2"
	"sort"
)

// stream is what a network made of packets that were sent with consecutive
// numbers, and what it did to them.
type stream struct {
	numbers []uint32 // as they arrive
	want    Counts   // without Packets' companions bytes and times
	lost    uint64
}

// mishap is what a network does to packets, as probabilities of each.
type mishap struct {
	loss, burst, dup, reorder float64
	depth                     int // by how many packets a delayed one is late at most
}

// makeStream sends count packets from number start on. The first and the last
// two arrive, in order: the ends of a stream are not to be known from it.
func makeStream(r *rand.Rand, start uint32, count int, m mishap) stream {
	type arrival struct {
		at     float64
		number uint32
	}
	var s stream
	var list []arrival
	run := uint64(0)
	for i := range count {
		n := start + uint32(i)
		inner := i > 0 && i < count-2
		if inner && (r.Float64() < m.loss || run > 0 && run < 1000 && r.Float64() < m.burst) {
			run++
			continue
		}
		if run > 0 {
			s.lost += run
			s.want.Bursts[burst(run)]++
			run = 0
		}
		late := func() float64 {
			if !inner || i >= count-2-m.depth || r.Float64() >= m.reorder {
				return 0
			}
			return float64(r.IntN(m.depth)) + 0.5
		}
		list = append(list, arrival{float64(i) + late(), n})
		for inner && i < count-2-m.depth && r.Float64() < m.dup {
			list = append(list, arrival{float64(i) + late() + 0.25, n})
		}
	}
	sort.SliceStable(list, func(i, j int) bool { return list[i].at < list[j].at })
	seen := make(map[uint32]bool)
	highest := start
	for _, a := range list {
		s.numbers = append(s.numbers, a.number)
		s.want.Packets++
		switch {
		case seen[a.number]:
			s.want.Duplicates++
		case a.number-highest < 1<<31: // above it
			highest = a.number
		default:
			s.want.Reordered++
			s.want.Depth = max(s.want.Depth, highest-a.number)
		}
		seen[a.number] = true
	}
	s.want.Expected = uint64(count)
	return s
}

// randomMishap draws what a network does.
func randomMishap(r *rand.Rand, depth int) mishap {
	m := mishap{depth: 1 + r.IntN(depth)}
	if r.IntN(4) > 0 {
		m.loss = r.Float64() * 0.3
	}
	if r.IntN(2) > 0 {
		m.burst = r.Float64() * 0.99
	}
	if r.IntN(3) > 0 {
		m.dup = r.Float64() * 0.5
	}
	if r.IntN(3) > 0 {
		m.reorder = r.Float64()
	}
	return m
}

// start draws a first number, often one that is soon to wrap.
func start(r *rand.Rand) uint32 {
	if r.IntN(2) == 0 {
		return -uint32(r.IntN(3000))
	}
	return r.Uint32()
}
