package pmtu

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"vpnprobe/evidence"
)

func TestFragments(t *testing.T) {
	for _, tt := range []struct {
		name              string
		path              simPath
		forward, backward bool // some pass
	}{
		{"all pass", simPath{link: 1500, mtu: 1500}, true, true},
		{"all lost", simPath{link: 1500, mtu: 1500, noFrag: true}, false, false},
		{"reversed lost", simPath{link: 1500, mtu: 1500, noRevers: true}, true, false},
		{"all pass a black hole", simPath{link: 1500, mtu: 1437}, true, true},
		{"lost in a black hole", simPath{link: 1500, mtu: 1437, noFrag: true}, false, false},
	} {
		tt.path.rtt = 20 * ms
		got := tt.path.with(1).search(t, Config{}).Fragmented
		if got.Answered > 0 != tt.forward || got.Reversed.Answered > 0 != tt.backward {
			t.Errorf("%s: got %+v", tt.name, got)
		}
		if !tt.forward && got.Sent < minTries || !tt.backward && got.Reversed.Sent < minTries {
			t.Errorf("%s: too few to be sure: %+v", tt.name, got)
		}
	}
}

func TestLocate(t *testing.T) {
	hop := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, n}) }
	got := simPath{link: 1500, mtu: 1437, rtt: 20 * ms, hops: 3}.with(1).search(t, Config{})
	want := evidence.LostBetween{Size: 1438, After: hop(2), Before: hop(3), Hops: 2}
	if got.Lost != evidence.Some(want) || got.Cleared != evidence.No {
		t.Errorf("want %+v, nothing cleared: got %v, %s", want, got.Cleared, describe(got))
	}
	got = simPath{link: 1500, mtu: 1400, claim: 1400, rtt: 20 * ms, hops: 3}.with(1).search(t, Config{})
	if got.Lost.Known() {
		t.Errorf("a hop said it, and yet: %s", describe(got))
	}
}

func TestSweep(t *testing.T) {
	for _, tt := range []struct {
		name  string
		path  simPath
		state evidence.MTUState
		swept bool
		hole  evidence.SizeRange // tried sizes; zero for none
	}{
		{"no hole", simPath{link: 1500, mtu: 1500}, evidence.MTUFull, true, evidence.SizeRange{}},
		{"hole", simPath{link: 1500, mtu: 1500, hole: evidence.SizeRange{From: 1373, To: 1472}}, evidence.MTUFull, true, evidence.SizeRange{From: 1376, To: 1472}},
		{"narrowest hole", simPath{link: 1500, mtu: 1500, hole: evidence.SizeRange{From: 801, To: 808}}, evidence.MTUFull, true, evidence.SizeRange{From: 808, To: 808}},
		{"black hole", simPath{link: 1500, mtu: 1437}, evidence.MTUBlackHole, true, evidence.SizeRange{}},
		{"jumbo", simPath{link: 9000, mtu: 9000}, evidence.MTUFull, false, evidence.SizeRange{}},
	} {
		p := tt.path.with(4)
		p.rtt = 20 * ms
		var got evidence.PathMTU
		p.in(t, func(t *testing.T) {
			var err error
			if got, err = p.engine().sweep(t.Context(), Config{Target: simTarget}); err != nil {
				t.Error(err)
			}
		})
		if got.Packets > maxSweepPackets || time.Duration(got.Took) > maxSweepTime {
			t.Errorf("%s: %d packets in %v", tt.name, got.Packets, time.Duration(got.Took))
		}
		var want []evidence.SizeRange
		if tt.hole.From > 0 {
			want = append(want, tt.hole)
		}
		if got.State != tt.state || got.Swept != tt.swept || !slices.Equal(got.Holes, want) {
			t.Errorf("%s: want %q, swept %v, holes %v: got swept %v, %s", tt.name, tt.state, tt.swept, want, got.Swept, describe(got))
		}
	}
	if _, err := Sweep(t.Context(), Config{Target: simTarget, Probe: evidence.MTUByIKE}); err == nil {
		t.Error("an IKE port was swept")
	}
}

func TestConfirm(t *testing.T) {
	for _, tt := range []struct {
		name  string
		path  simPath
		state evidence.MTUState // before
		mtu   int
		holds evidence.Fact
		now   int // 0 when it is not known
		most  int // packets
	}{
		{"full", simPath{link: 1500, mtu: 1500}, evidence.MTUFull, 1500, evidence.Yes, 1500, 5},
		{"reduced", simPath{link: 1500, mtu: 1400, claim: 1400}, evidence.MTUReduced, 1400, evidence.Yes, 1400, 7},
		{"black hole", simPath{link: 1500, mtu: 1437}, evidence.MTUBlackHole, 1437, evidence.Yes, 1437, 7},
		{"raised", simPath{link: 1500, mtu: 1500}, evidence.MTUReduced, 1400, evidence.No, 1401, 7},
		{"fell silently", simPath{link: 1500, mtu: 1437}, evidence.MTUFull, 1500, evidence.No, 0, 20},
		{"fell, and said so", simPath{link: 1500, mtu: 1400, claim: 1400}, evidence.MTUFull, 1500, evidence.No, 0, 20},
		{"refused here", simPath{link: 1400, mtu: 1400}, evidence.MTUFull, 1500, evidence.No, 0, 20},
		{"dead", simPath{link: 1500, mtu: 1500, loss: 1}, evidence.MTUFull, 1500, evidence.Unknown, 0, 7},
		{"never known", simPath{link: 1500, mtu: 1500}, evidence.MTUUnknown, 0, evidence.Unknown, 0, 0},
	} {
		p := tt.path.with(2)
		p.rtt = 20 * ms
		prev := evidence.PathMTU{State: tt.state}
		if tt.mtu > 0 {
			prev.MTU = evidence.Some(tt.mtu)
		}
		p.in(t, func(t *testing.T) {
			now, holds, err := p.engine().confirm(t.Context(), Config{Target: simTarget}, prev)
			if err != nil || holds != tt.holds || now.MTU.Or(0) != tt.now || now.Packets > tt.most {
				t.Errorf("%s: holds %v, %v: want %v, %d: got %s", tt.name, holds, err, tt.holds, tt.now, describe(now))
			}
		})
	}
}

// A few hundred confirmations on a lossy path must not fail.
func TestConfirmLossy(t *testing.T) {
	for seed := range uint64(300) {
		p := simPath{link: 1500, mtu: 1500, loss: 0.2, rtt: 20 * ms}.with(seed)
		p.in(t, func(t *testing.T) {
			prev := evidence.PathMTU{State: evidence.MTUFull, MTU: evidence.Some(1500)}
			if now, holds, err := p.engine().confirm(t.Context(), Config{Target: simTarget}, prev); err != nil || holds == evidence.No {
				t.Errorf("seed %d: %v: %s", seed, err, describe(now))
			}
		})
	}
}
