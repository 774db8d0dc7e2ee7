package capture

import (
	"context"
	"os"
	"strings"
	"testing"

	"vpnprobe/evidence"
	"vpnprobe/internal/netnstest"
)

// Where ESP offload hides what comes in, the capture turns to XDP, and counts
// no packet twice, nor any as lost that passed meanwhile.
func TestLiveUncover(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	netnstest.Veth(t)
	oneCPU(t)
	l := start(t, evidence.CaptureBPF, "wan", testPeers)
	send := netnstest.Sender(t, "isp")
	number := uint32(0)
	receive := func(what string, n uint32) {
		t.Helper()
		for range n {
			number++
			send(eth(ip4(peer4, host4, 50, espPacket(1, number, 72))))
		}
		netnstest.Eventually(t, what, func() bool { return l.look().In.ESP.Packets == uint64(number) })
	}
	netnstest.Eventually(t, "Run", func() bool { return !l.Counts("p").Watching.IsZero() })
	begin := l.Counts("p")
	if sees, why := l.Uncover("wan", evidence.No); sees || why != "" {
		t.Errorf("nothing is hidden: %v, %q", sees, why)
	}
	receive("packets at tc", 10)
	if got := attachments(t, "wan"); strings.Contains(got, "xdp") {
		t.Errorf("XDP is not needed yet: %s", got)
	}
	if sees, why := l.Uncover("wan", evidence.Yes); !sees {
		t.Errorf("XDP does not see: %s", why)
	}
	if got := attachments(t, "wan"); !strings.Contains(got, "xdp") {
		t.Errorf("not at XDP: %s", got)
	}
	number += 100 // passed while neither was attached
	send(eth(ip4(peer4, host4, 50, espPacket(1, number, 72))))
	netnstest.Eventually(t, "a packet at XDP", func() bool { return l.look().In.ESP.Packets == 11 })
	number = 11
	middle := l.Counts("p")
	if w := middle.Since(begin, evidence.No); w.Conclusive() {
		t.Errorf("a window with the turn in it: %+v", w)
	}
	if sees, _ := l.Uncover("wan", evidence.Yes); !sees {
		t.Error("XDP does not see any more")
	}
	receive("more packets at XDP", 10)
	w := l.Counts("p").Since(middle, evidence.No)
	if !w.Conclusive() || w.In.ESP.Packets != 10 {
		t.Errorf("a window after the turn: %+v", w)
	}
	if lost := l.Counts("p").Since(begin, evidence.No).In.Sequence.Lost; lost > 89 {
		t.Errorf("%d lost, though it is not known what passed during the turn", lost)
	}
}

func TestLiveUncoverNot(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	netnstest.Veth(t)
	netnstest.IP(t, "tuntap add dev other mode tap")
	netnstest.IP(t, "link set other up")
	for name, tc := range map[string]struct {
		cfg   Config
		iface string
		why   string
	}{
		"a ring":         {Config{Mode: evidence.CaptureRing}, "wan", "counting in the kernel has to be possible"},
		"forbidden":      {Config{Mode: evidence.CaptureBPF, XDP: XDPNever}, "wan", "capture.xdp forbids"},
		"another driver": {Config{Mode: evidence.CaptureBPF}, "other", "capture.xdp: always"},
	} {
		t.Run(name, func(t *testing.T) {
			l := open(t, tc.cfg, tc.iface, testPeers)
			before := l.Counts("p")
			if sees, why := l.Uncover(tc.iface, evidence.Yes); sees || !strings.Contains(why, tc.why) {
				t.Errorf("%v, %q", sees, why)
			}
			if sees, why := l.Uncover("nosuch", evidence.Yes); sees || why != "" {
				t.Errorf("an interface that is not captured on: %v, %q", sees, why)
			}
			netnstest.Eventually(t, "a window without a break", func() bool {
				return l.Counts("p").Since(before, evidence.No).Conclusive()
			})
		})
	}
}

// Without the capabilities for counting in the kernel there is the ring, and
// the state says what is missing.
func TestLiveFallsBack(t *testing.T) {
	withoutCapabilities(t, keepNetRaw)
	l, err := Open(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.SetPeers(on("lo", testPeers))
	s := l.State("p")
	if os.Geteuid() != 0 {
		t.Skip("not root: there is no ring either")
	}
	if s.Mode != evidence.CaptureRing || s.Why != evidence.CaptureNoPermission || !strings.Contains(s.Reason, "CAP_BPF") {
		t.Errorf("%+v", s)
	}
	only, err := Open(Config{Mode: evidence.CaptureBPF})
	if err != nil {
		t.Fatal(err)
	}
	defer only.Close()
	only.SetPeers(on("lo", testPeers))
	if s := only.State("p"); s.Mode != evidence.CaptureOff || s.Why != evidence.CaptureNoPermission {
		t.Errorf("asked for nothing else: %+v", s)
	}
}

// With everything allowed, the best is chosen by itself.
func TestLiveBest(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	netnstest.Veth(t)
	l := start(t, "", "wan", testPeers)
	if s := l.State("p"); s != (State{Mode: evidence.CaptureBPF}) {
		t.Errorf("%+v", s)
	}
	// A capture that never ran leaves nothing behind either.
	other, err := Open(Config{})
	if err != nil {
		t.Fatal(err)
	}
	other.SetPeers(on("isp", testPeers))
	if c := other.Counts("p"); !c.Watching.IsZero() || c.Reason != "capture on isp: not reading yet" {
		t.Errorf("not running: %+v", c)
	}
	other.Close()
	if got := attachments(t, "isp"); got != "" {
		t.Errorf("left on the interface: %s", got)
	}
	// The reading of the time when Run ended stands still, and is as good as any.
	for _, mode := range modes {
		brief, err := Open(Config{Mode: mode})
		if err != nil {
			t.Fatal(err)
		}
		defer brief.Close()
		brief.SetPeers(on("isp", testPeers))
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error)
		go func() { ended <- brief.Run(ctx) }()
		netnstest.Eventually(t, "Run", func() bool { return !brief.Counts("p").Watching.IsZero() })
		before := brief.Counts("p")
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("%s: Run: %v", mode, err)
		}
		a, b := brief.Counts("p"), brief.Counts("p")
		if !a.Time.Equal(b.Time) {
			t.Errorf("%s: a reading of %v, and then of %v", mode, a.Time, b.Time)
		}
		if w := a.Since(before, evidence.No); !w.Conclusive() {
			t.Errorf("%s: a window until the end: %+v", mode, w)
		}
	}
}
