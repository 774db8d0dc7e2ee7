package pmtu

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"vpnprobe/evidence"
)

// watching runs a watch over a path for a while, in the midst of which the path
// changes, and returns what it reported.
func (p *simPath) watching(t *testing.T, long time.Duration, pace Pace, change func()) (got []evidence.PathMTU) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p.events = make(chan event, 1024)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		p.changeAt, p.change = time.Now().Add(long/2), change
		go func() {
			defer close(done)
			p.engine().watch(ctx, Config{Target: simTarget}, pace.complete(), func(m evidence.PathMTU) { got = append(got, m) })
		}()
		time.Sleep(long)
		cancel()
		<-done
		time.Sleep(time.Minute)
	})
	return got
}

func states(list []evidence.PathMTU) (out []evidence.MTUState) {
	for _, m := range list {
		out = append(out, m.State)
	}
	return out
}

func TestWatch(t *testing.T) {
	healthy := simPath{link: 1500, mtu: 1500, rtt: 20 * ms}
	t.Run("raise timer alone", func(t *testing.T) {
		p := healthy.with(1)
		got := p.watching(t, time.Hour-time.Second, Pace{}, func() {})
		if len(got) != 6 || p.searches > 60 {
			t.Errorf("%d searches in an hour, %d sockets: %v", len(got), p.searches, states(got))
		}
	})
	t.Run("fell", func(t *testing.T) {
		p := healthy.with(1)
		got := p.watching(t, 5*time.Minute, Pace{}, func() { p.mtu = 1437 })
		if len(got) != 2 || got[1].State != evidence.MTUBlackHole || got[1].MTU.Or(0) != 1437 {
			t.Errorf("got %v", states(got))
		}
	})
	t.Run("rose", func(t *testing.T) {
		path := healthy
		path.mtu = 1400
		p := path.with(1)
		got := p.watching(t, 5*time.Minute, Pace{}, func() { p.mtu = 1500 })
		if len(got) != 2 || got[0].State != evidence.MTUBlackHole || got[1].State != evidence.MTUFull {
			t.Errorf("got %v", states(got))
		}
	})
	t.Run("lost connection is no news", func(t *testing.T) {
		p := healthy.with(1)
		got := p.watching(t, 15*time.Minute, Pace{Raise: time.Hour}, func() { p.loss = 1 })
		if len(got) != 1 {
			t.Errorf("got %v", states(got))
		}
	})
	t.Run("sweeps", func(t *testing.T) {
		p := healthy.with(1)
		got := p.watching(t, 3*time.Hour, Pace{Raise: 10 * time.Hour, Sweep: time.Hour}, func() {})
		swept := 0
		for _, m := range got {
			if m.Swept {
				swept++
			}
		}
		if swept != 2 || len(got) != 3 {
			t.Errorf("%d swept of %v", swept, states(got))
		}
	})
	t.Run("fragments lost are reported twice", func(t *testing.T) {
		path := healthy
		path.noFrag = true
		got := path.with(1).watching(t, 4*time.Minute, Pace{}, func() {})
		if len(got) != 2 {
			t.Errorf("got %v", states(got))
		}
	})
}
