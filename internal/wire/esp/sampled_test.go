package esp

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// kernel is a program that counts one flow on several CPUs.
type kernel []Cell

// read returns a reading. It takes a while: between the CPUs, between is called.
func (k kernel) read(between func()) Sample {
	list := make([]Sample, len(k))
	for i := range k {
		list[i] = k[i].Sample
		between()
	}
	return Merge(list)
}

var flowKey = Key{Src: addr("192.0.2.1"), Dst: addr("198.51.100.1"), SPI: 0xc0ffee, Protocol: ESP}

// only returns what is known of the only flow.
func only(t *testing.T, s *Sampled) Counts {
	t.Helper()
	if n := len(s.flows.nodes); n != 1 {
		t.Fatalf("%d flows", n)
	}
	for _, c := range s.Flows() {
		return c
	}
	panic("unreachable")
}

// numbersOf returns what the numbers told.
func numbersOf(c Counts) Counts {
	c.Bytes, c.Longest, c.BurstsUnknown, c.First, c.Last, c.Bursts = 0, 0, false, time.Time{}, time.Time{}, [8]uint64{}
	return c
}

func TestCell(t *testing.T) {
	for name, tc := range cases {
		if len(tc.numbers) == 0 {
			continue
		}
		t.Run(name, func(t *testing.T) {
			k := make(kernel, 1)
			s := NewSampled(1)
			for i, n := range tc.numbers {
				k[0].Add(n, 100, Whole, epoch)
				if i%3 == 2 { // a reading now and then makes no difference
					s.Add(flowKey, k[0].Sample, epoch.Add(time.Second))
				}
			}
			s.Add(flowKey, k[0].Sample, epoch.Add(time.Second))
			got := only(t, s)
			if !got.BurstsUnknown {
				t.Error("the bursts are known")
			}
			if diff := cmp.Diff(tc.want, numbersOf(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got.Lost() != tc.lost {
				t.Errorf("%d lost, want %d", got.Lost(), tc.lost)
			}
		})
	}
}

// TestSampledRandom shows that exactly what happened to a stream is told by
// samples, whenever they are taken and whichever CPU counted.
func TestSampledRandom(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 2))
		m := randomMishap(r, 30)
		m.burst = min(m.burst, 0.5) // else a duplicate may be 64 numbers late
		cpus := []int{1, 1, 2, 4, 8}[r.IntN(5)]
		in := makeStream(r, start(r), 10+r.IntN(8000), m)
		k, s := make(kernel, cpus), NewSampled(1)
		now := epoch
		next := 0
		salt := r.Uint32()
		step := func() {
			if next < len(in.numbers) {
				n := in.numbers[next]
				// Duplicates are on one CPU; else any may have any packet.
				k[(n^salt)*2654435761>>16%uint32(cpus)].Add(n, 1400, Whole, now)
				next++
				now = now.Add(time.Microsecond)
			}
		}
		var was Counts
		for reading := 0; next < len(in.numbers); reading++ {
			for range 1 + r.IntN(700) {
				step()
			}
			s.Add(flowKey, k.read(func() {
				// Overtaken, but not twice in a row.
				for range r.IntN(5) * (reading % 2) {
					step()
				}
			}), now)
			c := only(t, s)
			check(t, c, was)
			if in.lost == 0 && in.want.Reordered == 0 && c.Sub(was).Lost() != 0 {
				t.Fatalf("seed %d: a loss in %+v", seed, c)
			}
			was = c
		}
		s.Add(flowKey, k.read(func() {}), now.Add(time.Second))
		got := only(t, s)
		check(t, got, was)
		if got.Lost() != in.lost || got.Expected != in.want.Expected || got.Packets != in.want.Packets ||
			got.Duplicates != in.want.Duplicates {
			t.Fatalf("seed %d, %d CPUs, %+v: %d lost, want %d\n got %+v\nwant %+v", seed, cpus, m, got.Lost(), in.lost, got, in.want)
		}
		if cpus == 1 && (got.Reordered != in.want.Reordered || got.Depth != in.want.Depth) {
			t.Fatalf("seed %d, %+v\n got %+v\nwant %+v", seed, m, got, in.want)
		}
	}
}

// TestSampledMigration moves a flow from CPU to CPU for long times.
func TestSampledMigration(t *testing.T) {
	for seed := range uint64(4) {
		r := rand.New(rand.NewPCG(seed, 3))
		k, s := make(kernel, 4), NewSampled(1)
		n, lost, now := start(r), uint64(0), epoch
		for range 40 {
			cpu := &k[r.IntN(4)]
			for i := range 2 + r.IntN(200_000)>>r.IntN(17) {
				if i > 1 && r.IntN(50) == 0 {
					n++
					lost++
				}
				cpu.Add(n, 100, Whole, now)
				n++
				now = now.Add(50 * time.Microsecond)
			}
			s.Add(flowKey, k.read(func() {}), now.Add(time.Second))
		}
		if c := only(t, s); c.Lost() != lost || c.Discontinuities != 0 {
			t.Fatalf("seed %d: %d lost, want %d: %+v", seed, c.Lost(), lost, c)
		}
	}
}

// TestSampledCases are what can happen between two samples.
func TestSampledCases(t *testing.T) {
	sample := func(packets uint64, first, highest uint32) Sample {
		return Sample{Packets: packets, Bytes: 100 * packets, First: first, Max: highest, Last: epoch}
	}
	jumped := func(s Sample) Sample { s.Jumps++; return s }
	recent := func(s Sample) Sample { s.Last = epoch.Add(time.Minute); return s }
	for name, tc := range map[string]struct {
		list []Sample
		want Counts
		lost uint64
	}{
		"first one": {[]Sample{sample(10, 5, 16)}, Counts{Packets: 10, Expected: 12}, 2},
		"quiet":     {[]Sample{sample(10, 5, 14), sample(10, 5, 14)}, Counts{Packets: 10, Expected: 10}, 0},
		"forgotten by the kernel": {[]Sample{sample(10, 5, 14), sample(4, 90, 94)},
			Counts{Packets: 14, Expected: 15}, 1},
		"forgotten by the kernel, and more since": {[]Sample{sample(10, 5, 14), sample(40, 90, 130)},
			Counts{Packets: 50, Expected: 51}, 1},
		"another CPU saw the beginning": {[]Sample{sample(1, 5, 5), sample(6, 3, 8)},
			Counts{Packets: 6, Expected: 6}, 0},
		"jump ahead": {[]Sample{sample(10, 5, 14), jumped(sample(30, 5, 100_000))},
			Counts{Packets: 30, Expected: 30, Discontinuities: 1}, 0},
		"jump back": {[]Sample{sample(10, 500_005, 500_014), jumped(sample(30, 500_005, 20)), jumped(sample(40, 500_005, 32))},
			Counts{Packets: 40, Expected: 42, Discontinuities: 1}, 2},
		"jump back, and another CPU began after it": {
			[]Sample{sample(10, 500_005, 500_014), jumped(sample(30, 500_005, 20)), jumped(sample(40, 25, 32))},
			Counts{Packets: 40, Expected: 42, Discontinuities: 1}, 2},
		"CPU that paused for long": {[]Sample{sample(10, 5, 14), jumped(sample(100_000, 5, 100_006))},
			Counts{Packets: 100_000, Expected: 100_002}, 2},
		"jump in the first one": {[]Sample{jumped(sample(30, 5, 1<<30))},
			Counts{Packets: 30, Expected: 30, Discontinuities: 1}, 0},
		"forged number first": {[]Sample{sample(1, 1<<20, 1<<20), sample(30, 5, 33)},
			Counts{Packets: 30, Expected: 30}, 0},
		"great loss": {[]Sample{sample(10, 5, 14), sample(20, 5, 60_000)},
			Counts{Packets: 20, Expected: 59_996}, 59_976},
		"overtaken": {[]Sample{sample(10, 5, 14), recent(sample(20, 5, 30))},
			Counts{Packets: 20, Expected: 20}, 0},
		"overtaken, and then not": {[]Sample{sample(10, 5, 14), recent(sample(20, 5, 30)), recent(sample(36, 5, 40))},
			Counts{Packets: 36, Expected: 36}, 0},
		"missing for two readings": {[]Sample{sample(10, 5, 14), recent(sample(20, 5, 30)), recent(sample(30, 5, 44))},
			Counts{Packets: 30, Expected: 36}, 6},
		"highest CPU gone": {[]Sample{sample(10, 5, 14), sample(12, 5, 10), sample(14, 5, 18)},
			Counts{Packets: 14, Expected: 14}, 0},
		"goes on far below the highest": { // which is that of a CPU without packets
			[]Sample{sample(10, 5000, 5009), sample(2000, 5000, 5009), sample(3100, 5000, 4000), sample(3110, 5000, 4012)},
			Counts{Packets: 3110, Expected: 3112}, 2},
		"fragments only": {[]Sample{{Bytes: 100, Fragments: [3]uint64{0, 0, 1}, Last: epoch}},
			Counts{Fragments: [3]uint64{0, 0, 1}}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := NewSampled(1)
			for _, v := range tc.list {
				s.Add(flowKey, v, epoch.Add(time.Minute))
			}
			got := only(t, s)
			if diff := cmp.Diff(tc.want, numbersOf(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got.Lost() != tc.lost {
				t.Errorf("%d lost, want %d", got.Lost(), tc.lost)
			}
		})
	}
}

func TestSampledFragments(t *testing.T) {
	var c Cell
	key := flowKey
	key.SPI = 0
	s := NewSampled(1)
	for i, part := range []Fragment{MiddleFragment, LastFragment, LastFragment} {
		c.Add(uint32(i)<<20, 100+i, part, epoch)
	}
	s.Add(key, c.Sample, epoch)
	want := Counts{Bytes: 303, Longest: 102, Fragments: [3]uint64{0, 1, 2}, BurstsUnknown: true, First: epoch, Last: epoch}
	if diff := cmp.Diff(want, only(t, s)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	c.Add(77, 100, Whole, epoch) // with an SPI of 0, which is nobody's
	c.Add(99, 100, FirstFragment, epoch)
	s.Add(key, c.Sample, epoch)
	if got := only(t, s); got.Packets != 2 || got.Strays != 2 || got.Lost() != 0 || got.Fragments != [3]uint64{1, 1, 2} {
		t.Errorf("%+v", got)
	}
}

func TestMerge(t *testing.T) {
	ago := epoch.Add(-2 * time.Minute)
	v := func(packets uint64, first, highest uint32, last time.Time) Sample {
		return Sample{Packets: packets, Bytes: packets, First: first, Max: highest, Last: last}
	}
	for name, tc := range map[string]struct {
		list []Sample
		want Sample
	}{
		"nothing":     {nil, Sample{}},
		"empty ones":  {make([]Sample, 3), Sample{}},
		"one":         {[]Sample{{}, v(3, 4, 6, epoch), {}}, v(3, 4, 6, epoch)},
		"wrap":        {[]Sample{v(3, 4, 6, epoch), v(9, 1<<32-9, 5, epoch)}, v(12, 1<<32-9, 6, epoch)},
		"one packet":  {[]Sample{v(3, 4, 6, epoch), v(1, 1<<30, 1<<30, epoch)}, v(4, 4, 6, epoch)},
		"a move":      {[]Sample{v(3, 4, 6, epoch), v(1, 8, 8, epoch), v(1, 7, 7, epoch)}, v(5, 4, 8, epoch)},
		"one each":    {[]Sample{v(1, 4, 4, epoch), v(1, 5, 5, epoch)}, v(2, 4, 5, epoch)},
		"long ago":    {[]Sample{v(3, 4, 6, ago), v(9, 7, 6+1<<31, epoch)}, v(12, 4, 6+1<<31, epoch)},
		"not so long": {[]Sample{v(3, 4, 6, epoch.Add(-time.Minute)), v(9, 2, 5, epoch)}, v(12, 2, 6, epoch)},
		"sums": {
			[]Sample{
				{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, [3]uint64{11, 12, 13}, epoch},
				{10, 20, 30, 40, 50, 60, 70, 80, 90, 100, [3]uint64{110, 120, 130}, ago}},
			Sample{11, 22, 3, 4, 55, 66, 77, 88, 90, 100, [3]uint64{121, 132, 143}, epoch}},
	} {
		if diff := cmp.Diff(tc.want, Merge(tc.list)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestSampledLeave shows which flow leaves a full table: the kernel's are kept.
func TestSampledLeave(t *testing.T) {
	s := NewSampled(4)
	var left []uint32
	s.Leave = func(k Key, c Counts) {
		if c.Packets != uint64(k.SPI) {
			t.Errorf("SPI %d left with %d packets", k.SPI, c.Packets)
		}
		left = append(left, k.SPI)
	}
	for reading := range 5 { // the kernel knows four at a time
		for i := range 4 {
			key := flowKey
			key.SPI = uint32(4*reading + i + 1)
			n := uint64(key.SPI)
			s.Add(key, Sample{Packets: n, Bytes: n, First: 1, Max: uint32(n), Last: epoch},
				epoch.Add(time.Duration(reading)*time.Second))
		}
	}
	// The older half left, except for those that were established when they had to.
	want := []uint32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
	if diff := cmp.Diff(want, left); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := len(s.flows.nodes); n != 8 {
		t.Errorf("%d are still there", n)
	}
}
