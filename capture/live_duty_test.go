package capture

import (
	"testing"
	"testing/synctest"
	"time"
)

// world is a host in virtual time: how much passes the interface, and what each
// packet and each drop costs a ring that is open.
type world struct {
	rate  func(at time.Duration) float64 // packets per second
	share float64                        // of them that the filter lets through
	cost  time.Duration                  // of the reader per packet
	room  float64                        // packets per second above which frames are dropped; 0: none are
}

// run lets a ring live under the decision for a time and returns when it was
// open: one entry per turn.
func (w world) run(t *testing.T, d time.Duration) (open []bool) {
	synctest.Test(t, func(t *testing.T) {
		duty := duty{budget: affordable}
		start := time.Now()
		for listen := true; time.Since(start) < d; {
			at := time.Now()
			time.Sleep(affordable.turn)
			rate := w.rate(at.Sub(start))
			l := load{over: time.Since(at), packets: uint64(rate * affordable.turn.Seconds())}
			if listen {
				l.cpu = time.Duration(rate * w.share * float64(w.cost))
				if w.room > 0 && rate*w.share > w.room {
					l.drops = uint64(rate*w.share - w.room)
				}
			}
			open = append(open, listen)
			listen = duty.next(l)
		}
	})
	return open
}

func steady(rate float64) func(time.Duration) float64 {
	return func(time.Duration) float64 { return rate }
}

func opens(open []bool) (n int) {
	for _, o := range open {
		if o {
			n++
		}
	}
	return n
}

func TestDuty(t *testing.T) {
	const s = time.Second
	during := func(from, to time.Duration, rate float64) func(time.Duration) float64 {
		return func(at time.Duration) float64 {
			if at >= from && at < to {
				return rate
			}
			return 1000
		}
	}
	for name, tc := range map[string]struct {
		world world
		over  time.Duration
		want  int // turns that the ring is open
	}{
		"idle":                 {world{rate: steady(0)}, 100 * s, 100},
		"affordable":           {world{rate: steady(200_000), share: 0.5, cost: 150}, 100 * s, 100},
		"too many packets":     {world{rate: steady(200_001)}, 103 * s, 3 + 10},
		"too much CPU":         {world{rate: steady(100_000), share: 1, cost: 1100}, 103 * s, 3 + 10},
		"drops":                {world{rate: steady(50_000), share: 1, room: 40_000}, 103 * s, 3 + 10},
		"a burst of two turns": {world{rate: during(10*s, 12*s, 1e6)}, 100 * s, 100},
		// Three turns of the flood are heard, then one in ten, and after the
		// flood three more of those before all are.
		"a flood that ends": {world{rate: during(10*s, 60*s, 1e6)}, 103 * s, 10 + 3 + 4 + 3 + 20},
		// Within the budget, but not within half of it: it would only be over
		// the budget again soon.
		"a flood that ebbs": {world{rate: func(at time.Duration) float64 {
			if at < 20*s {
				return 300_000
			}
			return 150_000
		}}, 203 * s, 3 + 20},
	} {
		t.Run(name, func(t *testing.T) {
			open := tc.world.run(t, tc.over)
			if got := opens(open); got != tc.want {
				t.Errorf("open in %d of %d turns, want %d: %v", got, len(open), tc.want, open)
			}
		})
	}
}

// A rate that goes up and down never keeps the ring open for long while it is
// over the budget, nor closed for long when it is far below.
func TestDutyBounds(t *testing.T) {
	for _, period := range []time.Duration{2, 3, 5, 8, 13, 21, 34, 55, 89} {
		period *= time.Second
		rate := func(at time.Duration) float64 {
			if at/period%2 == 0 {
				return 1e6
			}
			return 1000
		}
		above, below := 0, 0
		for i, open := range (world{rate: rate}).run(t, 1000*time.Second) {
			if rate(time.Duration(i)*time.Second) > affordable.packets {
				below = 0
				if above++; !open {
					above = 0
				}
			} else {
				above = 0
				if below++; open {
					below = 0
				}
			}
			if above > dutyPatience {
				t.Fatalf("period %v: open for %d turns of a flood", period, above)
			}
			if below > dutyPatience*cycleTurns {
				t.Fatalf("period %v: closed for %d turns of calm", period, below)
			}
		}
	}
}

func TestLoadShare(t *testing.T) {
	for name, tc := range map[string]struct {
		load load
		want float64
	}{
		"none":      {load{}, 0},
		"no time":   {load{packets: 1e9}, 0},
		"packets":   {load{over: 2 * time.Second, packets: 200_000}, 0.5},
		"cpu":       {load{over: 2 * time.Second, packets: 1, cpu: 200 * time.Millisecond}, 1},
		"drops":     {load{over: time.Second, drops: 1}, 2},
		"the worst": {load{over: time.Second, packets: 400_000, cpu: 300 * time.Millisecond, drops: 1}, 3},
	} {
		if got := tc.load.share(affordable); got < tc.want-1e-9 || got > tc.want+1e-9 {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}
