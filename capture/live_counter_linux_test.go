package capture

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/netnstest"
	"vpnprobe/internal/rawconn"
)

// A reading of the kernel's counts that fails must not look like a time without
// packets.
func TestLiveReadingFails(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	netnstest.Veth(t)
	l := start(t, evidence.CaptureBPF, "wan", testPeers)
	netnstest.Eventually(t, "Run", func() bool { return !l.Counts("p").Watching.IsZero() })
	before := l.Counts("p")
	l.mu.Lock()
	kernel := l.kernel
	l.mu.Unlock()
	kernel.Close()
	l.mu.Lock()
	closing := l.pollOrLose()
	s, watching := l.state(l.peers["p"])
	l.mu.Unlock()
	closing()
	if s.Mode != evidence.CaptureOff || !watching.IsZero() || !strings.Contains(s.Reason, "read the kernel's flows") ||
		!strings.Contains(s.Reason, "did not end in good order") {
		t.Errorf("after it failed: %+v, watching since %v", s, watching)
	}
	// It is opened again, and the window with the failure in it concludes nothing.
	netnstest.Eventually(t, "a new counter", func() bool { return l.State("p").Mode == evidence.CaptureBPF })
	if w := l.Counts("p").Since(before, evidence.No); w.Conclusive() || w.Whole() {
		t.Errorf("a window in which a reading failed: %+v", w)
	}
	send := netnstest.Sender(t, "isp")
	send(eth(ip4(peer4, host4, 50, espPacket(1, 1, 72))))
	netnstest.Eventually(t, "a packet", func() bool { return l.look().In.ESP.Packets == 1 })
}

// A counter without a hook is closed.
func TestLiveIdleCounter(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	netnstest.Veth(t)
	l := start(t, evidence.CaptureBPF, "wan", testPeers)
	counter := func() (open bool, room, capacity int) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.kernel != nil {
			capacity = l.kernel.Capacity()
		}
		return l.kernel != nil, l.obs.room, capacity
	}
	if open, room, capacity := counter(); !open || room != capacity {
		t.Errorf("open %v, room for %d of %d", open, room, capacity)
	}
	send := netnstest.Sender(t, "isp")
	for number := range uint32(3) {
		send(eth(ip4(peer4, host4, 50, espPacket(1, number+1, 72))))
	}
	netnstest.Eventually(t, "packets", func() bool { return l.look().In.ESP.Packets == 3 })
	l.SetPeers(on("nosuch", testPeers))
	if open, _, _ := counter(); open {
		t.Error("still open without an interface")
	}
	l.mu.Lock()
	err := l.attach(&tap{iface: "nosuch"}, rawconn.Device{Index: 1 << 20, Ethernet: true, Up: true})
	l.mu.Unlock()
	if open, _, _ := counter(); open || err == nil {
		t.Errorf("open after attaching failed: %v, %v", open, err)
	}
	// A new counter begins at 0, and what was counted stays.
	l.SetPeers(on("wan", testPeers))
	for number := range uint32(5) {
		send(eth(ip4(peer4, host4, 50, espPacket(1, number+4, 72))))
	}
	netnstest.Eventually(t, "more packets", func() bool { return l.look().In.ESP.Packets >= 8 })
	if c := l.Counts("p"); c.In.ESP.Packets != 8 || c.In.Sequence.Lost != 0 {
		t.Errorf("%d packets, %d lost", c.In.ESP.Packets, c.In.Sequence.Lost)
	}
}

// A leak counts though the kernel's counts do not tell yet that the peer is sent
// something by this interface.
func TestLiveLeakAtOnce(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	netnstest.Veth(t)
	peers := []Peer{{Name: "p", Addrs: []netip.Addr{peer4}, Remote: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/24")}}}
	for _, mode := range modes {
		l := start(t, mode, "wan", peers)
		netnstest.Eventually(t, "Run", func() bool { return !l.Counts("p").Watching.IsZero() })
		send := netnstest.Sender(t, "wan")
		l.Counts("p")
		send(eth(ip4(host4, peer4, 50, espPacket(1, 1, 72))), eth(ip4(host4, netip.MustParseAddr("10.2.0.10"), 17, udp(53, 53, make([]byte, 20)))))
		netnstest.Eventually(t, string(mode)+": a leak", func() bool { return len(l.Counts("p").Leaks) == 1 })
		c := l.Counts("p")
		if c.LeaksWatched != evidence.Yes || c.Leaks[0].Packets != 1 {
			t.Errorf("%s: %+v", mode, c.Leaks)
		}
	}
}

func TestLiveRunTwice(t *testing.T) {
	l, err := Open(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- l.Run(ctx) }()
	netnstest.Eventually(t, "Run", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.ran
	})
	if err := l.Run(ctx); err != errRun {
		t.Errorf("while it runs: %v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	again, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := l.Run(again); err != errRun {
		t.Errorf("after it ran: %v", err)
	}
}
