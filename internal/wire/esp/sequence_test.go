package esp

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestSequenceRandom shows that exactly what happened to a stream is told.
func TestSequenceRandom(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		m := randomMishap(r, 1000)
		if m.depth > 20 && m.burst > 0.9 {
			m.depth = 20 // late by more packets than 1024 numbers are told apart
		}
		in := makeStream(r, start(r), 10+r.IntN(5000), m)
		var s Sequence
		lost := uint64(0)
		for _, n := range in.numbers {
			s.Add(n)
			lost = max(lost, s.c.Lost())
		}
		s.Settle()
		s.Settle()
		got := s.Counts()
		if diff := cmp.Diff(in.want, got); diff != "" {
			t.Fatalf("seed %d, %+v (-want +got):\n%s", seed, m, diff)
		}
		if got.Lost() != in.lost {
			t.Fatalf("seed %d, %+v: %d lost, want %d", seed, m, got.Lost(), in.lost)
		}
	}
}

// numbers returns n consecutive numbers from first on.
func numbers(first uint32, n int) []uint32 {
	out := make([]uint32, n)
	for i := range out {
		out[i] = first + uint32(i)
	}
	return out
}

func join(lists ...[]uint32) (out []uint32) {
	for _, l := range lists {
		out = append(out, l...)
	}
	return out
}

// cases are streams whose counts are the same in user space and in the kernel.
var cases = map[string]struct {
	numbers []uint32
	lost    uint64
	want    Counts
}{
	"nothing": {},
	"one":     {numbers(7, 1), 0, Counts{Packets: 1, Expected: 1}},
	"wrap":    {numbers(1<<32-10, 20), 0, Counts{Packets: 20, Expected: 20}},
	"zero after the highest of all": {
		[]uint32{1<<32 - 2, 1<<32 - 1, 0, 1}, 0, Counts{Packets: 4, Expected: 4}},
	"old SPI of a rekey stops": { // nothing says that more was sent
		join(numbers(100, 50), []uint32{152}), 2, Counts{Packets: 51, Expected: 53}},
	"longest step believed": {
		[]uint32{10, 10 + 1024}, 1023, Counts{Packets: 2, Expected: 1025}},
	"step to be confirmed": {
		[]uint32{10, 10 + 1025}, 0, Counts{Packets: 2, Expected: 1, Strays: 1}},
	"step confirmed": {
		[]uint32{10, 10 + 1025, 10 + 1026}, 1024, Counts{Packets: 3, Expected: 1027}},
	"step confirmed with losses": {
		[]uint32{10, 10 + 1025, 10 + 1025 + 1024}, 1024 + 1023, Counts{Packets: 3, Expected: 1 + 1025 + 1024}},
	"step not confirmed": {
		[]uint32{10, 10 + 1025, 10 + 1025 + 1025}, 0, Counts{Packets: 3, Expected: 1, Strays: 2}},
	"step not confirmed by itself": {
		[]uint32{10, 5000, 5000, 11}, 0, Counts{Packets: 4, Expected: 2, Strays: 2}},
	"step not confirmed later": {
		[]uint32{10, 5000, 11, 5001, 12}, 0, Counts{Packets: 5, Expected: 3, Strays: 2}},
	"longest loss": {
		join(numbers(0, 5), numbers(4+1<<16, 3)), 1<<16 - 1, Counts{Packets: 8, Expected: 7 + 1<<16}},
	"forged number far ahead": {
		join(numbers(0, 50), []uint32{1 << 30}, numbers(50, 50)), 0, Counts{Packets: 101, Expected: 100, Strays: 1}},
	"forged number far behind": {
		join(numbers(1<<20, 50), []uint32{5}, numbers(1<<20+50, 50)), 0, Counts{Packets: 101, Expected: 100, Strays: 1}},
	"forged number ahead": { // the true packet seems a duplicate, all before it late
		join(numbers(0, 5), []uint32{24}, numbers(5, 30)), 0,
		Counts{Packets: 36, Expected: 35, Duplicates: 1, Reordered: 19, Depth: 19}},
	"deepest": {
		join(numbers(0, 5), []uint32{4 + 1024, 4 + 2}), 1022,
		Counts{Packets: 7, Expected: 5 + 1024, Reordered: 1, Depth: 1022}},
	"late by more than the kernel's bitmap": {
		join(numbers(0, 30), numbers(31, 69), []uint32{30}), 0, Counts{Packets: 100, Expected: 100, Reordered: 1, Depth: 69}},
	"last two of a window that is half lost": {
		[]uint32{1, 3, 2, 2, 6, 5}, 1, Counts{Packets: 6, Expected: 6, Duplicates: 1, Reordered: 2, Depth: 1}},
}

func TestSequence(t *testing.T) {
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var s Sequence
			for _, n := range tc.numbers {
				s.Add(n)
			}
			got := s.Counts()
			got.Bursts = [8]uint64{}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got.Lost() != tc.lost {
				t.Errorf("%d lost, want %d", got.Lost(), tc.lost)
			}
		})
	}
}

// TestSequenceOnly has what a sample cannot tell.
func TestSequenceOnly(t *testing.T) {
	for name, tc := range map[string]struct {
		numbers []uint32
		lost    uint64
		want    Counts
	}{
		"before the anchor": {
			[]uint32{10, 8, 8, 11, 13}, 1,
			Counts{Packets: 5, Expected: 5, Duplicates: 1, Reordered: 1, Depth: 2}},
		"jump ahead": {
			join(numbers(0, 5), []uint32{5 + 1<<16, 7 + 1<<16, 9 + 1<<16}), 1,
			Counts{Packets: 8, Expected: 5 + 2 + 2, Discontinuities: 1}},
		"jump ahead, a late packet": {
			join(numbers(0, 5), []uint32{1 << 20, 1<<20 + 2, 1<<20 + 1, 1 << 20}), 0,
			Counts{Packets: 9, Expected: 8, Discontinuities: 1, Duplicates: 1, Reordered: 1, Depth: 1}},
		"jump back": {
			join(numbers(5000, 100), numbers(1, 100)), 0,
			Counts{Packets: 200, Expected: 200, Discontinuities: 1}},
		"two senders": {
			[]uint32{1, 2, 1 << 20, 3, 1<<20 + 1, 4, 1<<20 + 2}, 0,
			Counts{Packets: 7, Expected: 4, Strays: 3}},
		"duplicate, deep": {
			join(numbers(0, 1025), []uint32{0}), 0,
			Counts{Packets: 1026, Expected: 1025, Duplicates: 1}},
		"too deep to be known": {
			join(numbers(0, 1026), []uint32{0}), 0,
			Counts{Packets: 1027, Expected: 1026, Strays: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			var s Sequence
			for _, n := range tc.numbers {
				s.Add(n)
			}
			got := s.Counts()
			got.Bursts = [8]uint64{}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got.Lost() != tc.lost {
				t.Errorf("%d lost, want %d", got.Lost(), tc.lost)
			}
		})
	}
}

func TestSequenceGap(t *testing.T) {
	var s Sequence
	for _, n := range []uint32{1, 2, 4, 5} { // 3 is lost
		s.Add(n)
	}
	s.Gap()
	for _, n := range []uint32{900, 901, 903} { // 902 is lost
		s.Add(n)
	}
	s.Gap()
	s.Add(9) // further than that from the numbers before
	s.Settle()
	s.Settle()
	want := Counts{Packets: 8, Expected: 5 + 4 + 1, Bursts: [8]uint64{2}}
	if diff := cmp.Diff(want, s.Counts()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if s.Counts().Lost() != 2 {
		t.Errorf("%d lost, want 2", s.Counts().Lost())
	}
}

// TestBursts shows when a run of lost numbers is counted.
func TestBursts(t *testing.T) {
	var s Sequence
	want := func(step string, bursts ...uint64) {
		t.Helper()
		var w [8]uint64
		copy(w[:], bursts)
		if s.c.Bursts != w {
			t.Fatalf("%s: %v, want %v", step, s.c.Bursts, w)
		}
	}
	for _, n := range []uint32{1, 3, 7} { // 2; 4 to 6
		s.Add(n)
	}
	want("at once")
	s.Settle()
	want("noted, not settled")
	s.Add(9) // 8
	s.Add(2) // was late
	s.Settle()
	want("those noted", 0, 1)
	s.Settle()
	want("all", 1, 1)
	s.Settle()
	want("none twice", 1, 1)
	s.Add(12) // 10 and 11
	for n := uint32(13); n <= 12+1022; n++ {
		s.Add(n)
	}
	want("in the window", 1, 1)
	for n := uint32(12 + 1023); n <= 12+1025; n++ {
		s.Add(n)
	}
	want("out of the window", 1, 2)
	high := s.highest
	s.Add(high + 1025)
	s.Add(high + 1026)
	s.Settle()
	s.Settle()
	want("a long one", 1, 2, 0, 0, 0, 0, 0, 1)
}

// TestBurstsSplit: a number that comes late ends a run that began out of the
// window.
func TestBurstsSplit(t *testing.T) {
	var s Sequence
	for _, n := range []uint32{0, 2000, 2001, 2001 - 1024} {
		s.Add(n)
	}
	s.Settle()
	s.Settle()
	if want := [8]uint64{7: 2}; s.c.Bursts != want {
		t.Errorf("%v, want %v", s.c.Bursts, want)
	}
}

// TestBurstsFresh: what came after the call before is not settled, in a stream
// that has filled the window.
func TestBurstsFresh(t *testing.T) {
	var s Sequence
	for _, n := range numbers(1, 1100) {
		s.Add(n)
	}
	s.Settle()
	for _, n := range []uint32{1101, 1103, 1104, 1105} {
		s.Add(n)
	}
	for i, want := range []uint64{0, 1} {
		if s.Settle(); s.c.Bursts[0] != want {
			t.Errorf("after %d more: %v", i+1, s.c.Bursts)
		}
	}
}

// FuzzSequence takes numbers as steps from the one before.
func FuzzSequence(f *testing.F) {
	f.Add(uint32(1), []byte{1, 1, 2, 255, 1, 0})
	f.Add(uint32(1<<32-2), []byte{1, 1, 250, 1, 1, 251, 1, 1, 252, 1, 1, 253, 254, 1, 1})
	f.Fuzz(func(t *testing.T, n uint32, steps []byte) {
		var s Sequence
		var c Cell
		was := s.Counts()
		for _, b := range steps {
			switch {
			case b == 255:
				s.Settle()
			case b == 254:
				s.Gap()
			case b >= 244:
				n += 1 << (3 * (b - 244))
			case b >= 200:
				n += uint32(b-199) * 40
			case b >= 100:
				n -= uint32(b-100) * uint32(b-100)
			default:
				n += uint32(b)
			}
			s.Add(n)
			c.Add(n, 1, Whole, was.Last)
			now := s.Counts()
			check(t, now, was)
			was = now
			if c.Duplicates+c.Strays > c.Packets {
				t.Fatalf("cell: %+v", c.Sample)
			}
		}
		s.Settle()
		s.Settle()
		if s.open != 0 || s.run != 0 {
			t.Fatalf("%d numbers and a run of %d are open", s.open, s.run)
		}
	})
}

// check tells whether a reading may follow an earlier one.
func check(t *testing.T, now, was Counts) {
	t.Helper()
	grown := now.Packets >= was.Packets && now.Bytes >= was.Bytes && now.Expected >= was.Expected &&
		now.Duplicates >= was.Duplicates && now.Reordered >= was.Reordered && now.Depth >= was.Depth &&
		now.Strays+1 >= was.Strays && now.Discontinuities >= was.Discontinuities
	for i := range now.Bursts {
		grown = grown && now.Bursts[i] >= was.Bursts[i]
	}
	w := now.Sub(was)
	if !grown || now.Lost() > now.Expected || w.Lost() > w.Expected ||
		now.Duplicates+now.Strays > now.Packets {
		t.Fatalf("%+v\nafter %+v\nwindow %+v", now, was, w)
	}
}

func BenchmarkSequence(b *testing.B) {
	var s Sequence
	n := uint32(0)
	for b.Loop() {
		n++
		if n%1000 != 0 {
			s.Add(n)
		}
	}
}
