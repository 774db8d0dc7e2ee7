package agent

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"vpnprobe/config"
	"vpnprobe/diagnosis"
	"vpnprobe/evidence"
	"vpnprobe/hoststate"
)

// recorder counts what it is told.
type recorder struct {
	Nobody
	mu      sync.Mutex
	echoes  map[string][]evidence.EchoResult
	reports map[string]*diagnosis.Report
}

func newRecorder() *recorder {
	return &recorder{echoes: map[string][]evidence.EchoResult{}, reports: map[string]*diagnosis.Report{}}
}

func (r *recorder) Observe(peer string, e evidence.EchoResult) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.Role == evidence.Gateway {
		r.echoes[peer] = append(r.echoes[peer], e)
	}
}

func (r *recorder) Publish(rep *diagnosis.Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reports[rep.Peer] = rep
}

// await waits until the condition holds, for 20 s at most.
func (r *recorder) await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		r.mu.Lock()
		ok := holds()
		r.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited 20 s for: %s", what)
		}
	}
}

func loopback(peers ...string) *config.Config {
	cfg := config.Default()
	cfg.Interval = time.Second
	cfg.ICMP.Interval = 200 * time.Millisecond
	for i, name := range peers {
		p := cfg.NewPeer(name, netip.AddrFrom4([4]byte{127, 0, 60, byte(i + 1)}).String())
		p.ICMP = cfg.ICMP
		cfg.Peers = append(cfg.Peers, p)
	}
	return cfg
}

func env() Env {
	return Env{Host: hoststate.New(), Log: slog.New(slog.DiscardHandler), IKEPorts: map[uint16]uint16{500: 10999, 4500: 14999}}
}

// TestReload changes one of two peers while both are probed on loopback,
// where nothing is ever lost: the other one must not miss a beat, and neither
// may lose a request of our own making.
func TestReload(t *testing.T) {
	rec := newRecorder()
	a := New(loopback("stays", "goes"), env(), rec)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- a.Run(ctx) }()
	rec.await(t, "both peers pinged and reported", func() bool {
		return len(rec.echoes["stays"]) >= 5 && len(rec.echoes["goes"]) >= 5 && rec.reports["stays"] != nil
	})
	a.Reload(loopback("stays", "comes"))
	rec.await(t, "the new peer pinged", func() bool { return len(rec.echoes["comes"]) >= 5 })
	rec.mu.Lock()
	gone := len(rec.echoes["goes"])
	rec.mu.Unlock()
	rec.await(t, "more of the peer that stays", func() bool { return len(rec.echoes["stays"]) >= 20 })
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if n := len(rec.echoes["goes"]); n > gone+1 {
		t.Errorf("%d pings of a removed peer after the reload", n-gone)
	}
	for name, list := range rec.echoes {
		for _, e := range list {
			if e.Outcome != evidence.EchoReply {
				t.Errorf("%s: %s at %v on loopback", name, e.Outcome, e.Sent)
			}
		}
	}
	// The phase survives: no gap, and no doubled cadence.
	list := rec.echoes["stays"]
	over := list[len(list)-1].Sent.Sub(list[0].Sent)
	if most := int(over/(200*time.Millisecond)) + 3; len(list) > most {
		t.Errorf("%d pings in %v, want at most %d: the peer was started twice", len(list), over, most)
	}
	if got := rec.reports["stays"].Diagnosis(); got != "peer_ike_not_listening" {
		t.Errorf("a closed port on loopback is diagnosed %s", got)
	}
}

// TestSupervise lets a task fail and panic: it is tried again, and ends with
// its context.
func TestSupervise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 55*time.Second)
		defer cancel()
		runs := 0
		supervise(ctx, slog.New(slog.DiscardHandler), 10*time.Second, func(context.Context) error {
			runs++
			if runs == 2 {
				panic("second")
			}
			return errors.New("no permission")
		})
		if runs != 6 {
			t.Errorf("ran %d times in 55 s with 10 s between, want 6", runs)
		}
	})
}

// TestPhase wants the spread even, within the interval, and the same at
// every start.
func TestPhase(t *testing.T) {
	var first, second int
	for i := range 1000 {
		name := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}).String()
		p := phase(10*time.Second, name)
		if p < 0 || p >= 10*time.Second || p != phase(10*time.Second, name) {
			t.Fatalf("phase of %s is %v", name, p)
		}
		if p < 5*time.Second {
			first++
		} else {
			second++
		}
	}
	if first < 400 || second < 400 {
		t.Errorf("%d in the first half, %d in the second", first, second)
	}
}

// TestTunnelWindow sums SA counters over the window only, across a rekey.
func TestTunnelWindow(t *testing.T) {
	s := newState("cloud", evidence.Declared{}, pace{tunnelWin: 10 * time.Second, window: time.Minute})
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	read := func(sec int, sas ...evidence.SA) {
		s.setHost(evidence.Host{Tunnel: evidence.Tunnel{Readable: evidence.Yes, SAs: sas}}, at.Add(time.Duration(sec)*time.Second))
	}
	read(0, evidence.SA{SPI: 1, Inbound: true, Packets: 1000})
	read(5, evidence.SA{SPI: 1, Inbound: true, Packets: 1010})
	read(9, evidence.SA{SPI: 1, Inbound: true, Packets: 1012}, evidence.SA{SPI: 2, Inbound: true, Packets: 3})
	if in := s.snapshot(at).Host.Tunnel.In.Packets; in != 15 {
		t.Errorf("%d packets in the window, want 12 of the old SA and 3 of the new", in)
	}
	for sec := 20; sec < 60; sec += 5 {
		read(sec, evidence.SA{SPI: 2, Inbound: true, Packets: 3})
	}
	if in := s.snapshot(at).Host.Tunnel.In.Packets; in != 0 {
		t.Errorf("%d packets in a window in which none came", in)
	}
}

// TestEchoWindowBounded keeps memory flat whatever is lost for however long.
func TestEchoWindowBounded(t *testing.T) {
	s := newState("cloud", evidence.Declared{}, pace{window: time.Minute})
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 100_000 {
		s.addEcho(evidence.EchoResult{Role: evidence.Gateway, Sent: at.Add(time.Duration(i) * time.Second), Outcome: evidence.EchoLost})
	}
	for _, w := range s.echoes {
		if len(w.results) > 300 {
			t.Errorf("%d results kept for a window of 60", len(w.results))
		}
	}
	snap := s.snapshot(at.Add(100_000 * time.Second))
	if got := snap.Echoes[0].Sent; got != 60 {
		t.Errorf("%d pings in a window of a minute at one per second", got)
	}
}
