package esp

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSub(t *testing.T) {
	for name, tc := range map[string]struct {
		before, within []uint32
		want           Counts
		lost           uint64
	}{
		"nothing": {[]uint32{1, 3}, nil, Counts{}, 0},
		"loss":    {[]uint32{1, 3}, []uint32{4, 6}, Counts{Packets: 2, Expected: 3}, 1},
		"late, lost in the window before": {[]uint32{1, 3}, []uint32{2, 4},
			Counts{Packets: 2, Expected: 1, Reordered: 1, Depth: 1}, 0},
		"reordered only before": {[]uint32{1, 3, 2}, []uint32{4}, Counts{Packets: 1, Expected: 1}, 0},
		"stray":                 {[]uint32{1}, []uint32{1 << 20}, Counts{Packets: 1, Strays: 1}, 0},
		"stray confirmed in the window, jump": {[]uint32{1, 1 << 20}, []uint32{1<<20 + 1},
			Counts{Packets: 1, Expected: 1, Discontinuities: 1}, 0},
		"stray confirmed in the window, loss": {[]uint32{1, 5001}, []uint32{5002},
			Counts{Packets: 1, Expected: 5000}, 4999},
	} {
		t.Run(name, func(t *testing.T) {
			var s Sequence
			for _, n := range tc.before {
				s.Add(n)
			}
			was := s.Counts()
			for _, n := range tc.within {
				s.Add(n)
			}
			got := s.Counts().Sub(was)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got.Lost() != tc.lost {
				t.Errorf("%d lost, want %d", got.Lost(), tc.lost)
			}
		})
	}
}

func TestPlus(t *testing.T) {
	a := Counts{1, 2, 3, 4, 5, 6, 7, 8, 9, [8]uint64{10}, false, [3]uint64{11}, epoch, epoch.Add(time.Second)}
	b := Counts{10, 20, 30, 40, 50, 60, 70, 80, 90, [8]uint64{0, 1}, true, [3]uint64{1, 2, 3}, epoch.Add(-time.Second), epoch}
	want := Counts{11, 22, 33, 44, 55, 66, 77, 80, 90, [8]uint64{10, 1}, true, [3]uint64{12, 2, 3}, epoch.Add(-time.Second), epoch.Add(time.Second)}
	for _, got := range []Counts{a.Plus(b), b.Plus(a)} {
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	if diff := cmp.Diff(a, Counts{}.Plus(a)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
