package pmtu

import (
	"context"
	"slices"
	"syscall"
	"testing"
	"time"

	"vpnprobe/evidence"
)

// spent counts the packets that a search sent before anything in fragments.
func (p *simPath) spent() int {
	for i, k := range p.kinds {
		if k != whole {
			return i
		}
	}
	return len(p.kinds)
}

func TestSearch(t *testing.T) {
	tests := []struct {
		name    string
		path    simPath
		max     int
		state   evidence.MTUState
		mtu     int
		packets int // for the size; 0 for any
		tooBig  bool
		bogus   bool
	}{
		{name: "full", path: simPath{link: 1500, mtu: 1500, rtt: 20 * ms}, state: evidence.MTUFull, mtu: 1500, packets: 3},
		{name: "full of an odd link", path: simPath{link: 1492, mtu: 1492, rtt: 20 * ms}, state: evidence.MTUFull, mtu: 1492, packets: 3},
		{name: "full of a narrow link", path: simPath{link: 1280, mtu: 1280, rtt: 20 * ms}, state: evidence.MTUFull, mtu: 1280, packets: 1},
		{name: "full of a jumbo link", path: simPath{link: 9000, mtu: 9000, rtt: 20 * ms}, state: evidence.MTUFull, mtu: 9000, packets: 3},
		{name: "full up to the limit", path: simPath{link: 9000, mtu: 1500, rtt: 20 * ms}, max: 1500, state: evidence.MTUFull, mtu: 1500, packets: 3},
		{name: "reduced", path: simPath{link: 1500, mtu: 1400, claim: 1400, rtt: 20 * ms}, state: evidence.MTUReduced, mtu: 1400, tooBig: true, packets: 3},
		{name: "reduced to no rung", path: simPath{link: 1500, mtu: 1391, claim: 1391, rtt: 20 * ms}, state: evidence.MTUReduced, mtu: 1391, tooBig: true, packets: 3},
		{name: "reduced by much", path: simPath{link: 9000, mtu: 2222, claim: 2222, rtt: 20 * ms}, state: evidence.MTUReduced, mtu: 2222, tooBig: true, packets: 3},
		{name: "reduced by a byte", path: simPath{link: 1500, mtu: 1499, claim: 1499, rtt: 20 * ms}, state: evidence.MTUReduced, mtu: 1499, tooBig: true, packets: 2},
		{name: "reduced, said once", path: simPath{link: 1500, mtu: 1400, claim: 1400, claims: 1, rtt: 20 * ms}, state: evidence.MTUReduced, mtu: 1400, tooBig: true},
		{name: "reduced by this host", path: simPath{link: 1500, mtu: 1500, limit: 1438, rtt: 20 * ms}, state: evidence.MTUReduced, mtu: 1438, packets: 1},
		{name: "black hole", path: simPath{link: 1500, mtu: 1437, rtt: 20 * ms}, state: evidence.MTUBlackHole, mtu: 1437},
		{name: "black hole at a rung", path: simPath{link: 1500, mtu: 1400, rtt: 20 * ms}, state: evidence.MTUBlackHole, mtu: 1400},
		{name: "black hole at the top", path: simPath{link: 1500, mtu: 1499, rtt: 20 * ms}, state: evidence.MTUBlackHole, mtu: 1499},
		{name: "black hole below the ladder", path: simPath{link: 1500, mtu: 500, rtt: 20 * ms}, state: evidence.MTUBlackHole, mtu: 500},
		{name: "black hole of a jumbo link", path: simPath{link: 9000, mtu: 1437, rtt: 20 * ms}, state: evidence.MTUBlackHole, mtu: 1437},
		{name: "black hole far away", path: simPath{link: 1500, mtu: 1437, rtt: 280 * ms}, state: evidence.MTUBlackHole, mtu: 1437},
		{name: "full, farther than a round", path: simPath{link: 1500, mtu: 1500, rtt: 700 * ms}, state: evidence.MTUFull, mtu: 1500},
		{name: "lie: fits what did not", path: simPath{link: 1500, mtu: 1437, claim: 1600, rtt: 20 * ms}, state: evidence.MTUBlackHole, mtu: 1437, bogus: true},
		{name: "lie: below any MTU", path: simPath{link: 1500, mtu: 1437, claim: 68, rtt: 20 * ms}, state: evidence.MTUBlackHole, mtu: 1437, bogus: true},
		{name: "lie: no number", path: simPath{link: 1500, mtu: 1437, claim: -1, rtt: 20 * ms}, state: evidence.MTUBlackHole, mtu: 1437, bogus: true},
		{name: "claim that a second hop breaks", path: simPath{link: 1500, mtu: 1390, claim: 1450, rtt: 20 * ms}, state: evidence.MTUBlackHole, mtu: 1390, tooBig: true, bogus: true},
		{name: "claim that is too modest", path: simPath{link: 1500, mtu: 1437, claim: 1300, rtt: 20 * ms}, state: evidence.MTUReduced, mtu: 1437, bogus: true},
		{name: "dies during the search", path: simPath{link: 1500, mtu: 1437, rtt: 20 * ms, dead: func(n int) bool { return n > 8 }}, state: evidence.MTUUnknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := tt.path.with(1)
			got := p.search(t, Config{Max: tt.max})
			t.Logf("%d packets for the size, %d in all, in %v", p.spent(), got.Packets, time.Duration(got.Took))
			if got.State != tt.state || tt.mtu > 0 && got.MTU.Or(0) != tt.mtu {
				t.Errorf("want %q with %d: got %s", tt.state, tt.mtu, describe(got))
			}
			if tt.packets > 0 && p.spent() != tt.packets {
				t.Errorf("%d packets for the size: want %d", p.spent(), tt.packets)
			}
			if got.LinkMTU.Or(0) != tt.path.link {
				t.Errorf("link MTU %d, want %d", got.LinkMTU.Or(0), tt.path.link)
			}
			if (len(got.TooBig) > 0) != tt.tooBig || (len(got.Bogus) > 0) != tt.bogus {
				t.Errorf("too big: %+v, bogus: %+v", got.TooBig, got.Bogus)
			}
			if len(got.Holes) > 0 {
				t.Errorf("holes: %v", got.Holes)
			}
			if !slices.IsSortedFunc(got.Sizes, func(a, b evidence.SizeResult) int { return a.Size - b.Size }) {
				t.Errorf("sizes not ascending: %+v", got.Sizes)
			}
		})
	}
}

// Loss must never be taken for a size that does not pass, nor for a hole; a
// search may give up, but rarely.
func TestSearchLossy(t *testing.T) {
	for _, tt := range []struct {
		name  string
		path  simPath
		state evidence.MTUState
		right int // per cent, at least
		runs  uint64
		slack int // bytes by which a budget that runs out may miss the MTU
	}{
		{"full, 20 %", simPath{link: 1500, mtu: 1500, loss: 0.2}, evidence.MTUFull, 95, 500, 0},
		{"full, 10 %", simPath{link: 1500, mtu: 1500, loss: 0.1}, evidence.MTUFull, 98, 150, 0},
		{"full, 20 % in bursts", simPath{link: 1500, mtu: 1500, loss: 0.2, burst: 100 * ms}, evidence.MTUFull, 85, 500, 0},
		{"full, 20 % in short bursts", simPath{link: 1500, mtu: 1500, loss: 0.2, burst: 10 * ms}, evidence.MTUFull, 95, 150, 0},
		{"full, 10 % in long bursts", simPath{link: 1500, mtu: 1500, loss: 0.1, burst: time.Second}, evidence.MTUFull, 75, 150, 0},
		{"reduced, 20 %", simPath{link: 1500, mtu: 1400, claim: 1400, loss: 0.2}, evidence.MTUReduced, 90, 150, 0},
		{"black hole, 10 %", simPath{link: 1500, mtu: 1437, loss: 0.1}, evidence.MTUBlackHole, 90, 150, 24},
		{"black hole, 20 %", simPath{link: 1500, mtu: 1437, loss: 0.2}, evidence.MTUBlackHole, 50, 150, 24},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			right, wrong, falseHoles := 0, 0, 0
			runs := int(tt.runs)
			for seed := range tt.runs {
				p := tt.path
				p.rtt = 20 * ms
				got := p.with(seed).search(t, Config{})
				switch {
				case got.State == tt.state && got.MTU.Or(0) <= p.mtu && got.MTU.Or(0) >= p.mtu-tt.slack:
					right++
				case got.State != evidence.MTUUnknown:
					wrong++
					if got.State == evidence.MTUBlackHole && tt.state != evidence.MTUBlackHole {
						t.Errorf("seed %d: a false black hole: %s", seed, describe(got))
					}
				}
				if len(got.Holes) > 0 {
					falseHoles++
					t.Logf("seed %d: false holes: %s", seed, describe(got))
				}
			}
			t.Logf("%d right, %d wrong, %d undecided, %d with holes", right, wrong, runs-right-wrong, falseHoles)
			if wrong > runs/100 || right < runs*tt.right/100 || falseHoles > 0 {
				t.Errorf("%d right, %d wrong and %d with holes, of %d", right, wrong, falseHoles, runs)
			}
		})
	}
}

func TestSearchSilent(t *testing.T) {
	p := simPath{link: 1500, mtu: 1500, loss: 1}.with(1)
	got := p.search(t, Config{})
	if got.State != evidence.MTUUnknown || got.MTU.Known() || got.Packets != 4 {
		t.Errorf("want nothing known after 4 packets: got %s", describe(got))
	}
}

func TestSearchRefused(t *testing.T) {
	p := simPath{refused: syscall.EPERM}.with(1)
	got := p.search(t, Config{})
	if want := "local_firewall: operation not permitted"; got.CannotLook != want || got.State != evidence.MTUUnknown {
		t.Errorf("got %+v, want %q", got, want)
	}
}

func TestSearchCanceled(t *testing.T) {
	p := simPath{link: 1500, mtu: 1500, loss: 1}.with(1)
	p.in(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*ms)
		defer cancel()
		if _, err := p.engine().search(ctx, Config{Target: simTarget}, nil); err == nil {
			t.Error("no error")
		}
	})
}

func TestConfig(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no target":   {},
		"negative":    {Target: simTarget, Max: -1},
		"too small":   {Target: simTarget, Max: 575},
		"too large":   {Target: simTarget, Max: 65536},
		"no probe":    {Target: simTarget, Probe: "smoke"},
		"losing all":  {Target: simTarget, Loss: 1},
		"IPv6's 1279": {Target: simTarget.Next(), Max: 1279, Role: evidence.Inner, Source: simTarget, Loss: -1},
	} {
		if _, err := Search(t.Context(), cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
