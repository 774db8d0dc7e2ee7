package agent

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"vpnprobe/capture"
	"vpnprobe/config"
	"vpnprobe/evidence"
	"vpnprobe/hoststate"
	"vpnprobe/internal/netnstest"
)

var (
	captureGateway = netip.MustParseAddr("198.51.100.2")
	captureHost    = netip.MustParseAddr("203.0.113.2")
)

// startCaptures makes an interface wan, on which what is sent on isp comes in,
// and lets captures run until the test ends.
func startCaptures(t *testing.T, cfg config.Capture) *captures {
	t.Helper()
	netnstest.Veth(t)
	c := newCaptures(hoststate.New(), slog.New(slog.DiscardHandler))
	c.configure(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	netnstest.Eventually(t, "captures", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.ctx != nil
	})
	return c
}

// receiveESP has an ESP packet of the gateway come in on wan.
func receiveESP(t *testing.T, seq uint32) {
	t.Helper()
	b := []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 60, 0, 1, 0, 0, 64, 50, 0, 0}
	b = append(b, captureGateway.AsSlice()...)
	b = append(b, captureHost.AsSlice()...)
	b = binary.BigEndian.AppendUint32(b, 0xc0ffee)
	b = binary.BigEndian.AppendUint32(b, seq)
	b = append(b, make([]byte, 32)...)
	netnstest.Sender(t, "isp")(b)
}

func capturePeer(name string) capture.Peer {
	return capture.Peer{Name: name, Addrs: []netip.Addr{captureGateway}}
}

var wan = []string{"wan"}

// local is a reading of a tunnel that ends at this host.
var local = evidence.Tunnel{Readable: evidence.Yes}

func TestCaptures(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	c := startCaptures(t, config.Capture{Mode: "ring", XDP: "auto"})
	u := c.join(capturePeer("cloud"), time.Minute)
	defer u.leave()

	if w, _ := u.read(nil, local, evidence.Traffic{}); w.Mode != evidence.CaptureSA || w.Why != evidence.CaptureNoInterface || w.Conclusive() || w.Reason == "" {
		t.Errorf("no interface: %+v", w)
	}
	netnstest.Eventually(t, "the capture", func() bool {
		w, _ := u.read(wan, local, evidence.Traffic{})
		return w.Mode == evidence.CaptureRing && w.Reason == ""
	})
	receiveESP(t, 1)
	var total, last uint64
	netnstest.Eventually(t, "a packet", func() bool {
		w, d := u.read(wan, local, evidence.Traffic{})
		total += d.In.ESP.Packets
		last = w.In.ESP.Packets
		return last == 1
	})
	if total != 1 {
		t.Errorf("%d packets in all deltas, want 1", total)
	}
	w, d := u.read(wan, local, evidence.Traffic{})
	if d.In.ESP.Packets != 0 || w.In.ESP.Packets != 1 {
		t.Errorf("counted %d more, and %d in the window", d.In.ESP.Packets, w.In.ESP.Packets)
	}
	if !d.Conclusive() || d.Why != evidence.CaptureConfigured {
		t.Errorf("a whole window: %+v", d)
	}

	// Another peer does not disturb the first one, nor its leaving.
	v := c.join(capturePeer("other"), time.Minute)
	v.read(wan, local, evidence.Traffic{})
	v.leave()
	if _, d := u.read(wan, local, evidence.Traffic{}); !d.Conclusive() {
		t.Errorf("a window with a peer that came and went: %+v", d)
	}

	for mode, want := range map[string]evidence.CaptureMode{"sa": evidence.CaptureSA, "off": evidence.CaptureOff} {
		c.configure(config.Capture{Mode: mode, XDP: "auto"})
		if w, _ := u.read(wan, local, evidence.Traffic{}); w.Mode != want || w.Why != evidence.CaptureConfigured || w.Conclusive() || w.Reason == "" {
			t.Errorf("capture.mode %s: %+v", mode, w)
		}
		if w, _ := u.read(wan, evidence.Tunnel{}, evidence.Traffic{}); w.Mode != evidence.CaptureOff {
			t.Errorf("capture.mode %s without SAs to read: %+v", mode, w)
		}
	}
	c.configure(config.Capture{Mode: "ring", XDP: "auto"})
	if w, _ := u.read(wan, local, evidence.Traffic{}); w.Mode != evidence.CaptureRing || w.In.ESP.Packets != 0 {
		t.Errorf("captured anew: %+v", w)
	}
}

// Where the kernel's SAs received packets and the capture saw none of them, it
// is blind, whatever hides them.
func TestCapturesCrossCheck(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	c := startCaptures(t, config.Capture{Mode: "ring", XDP: "auto"})
	u := c.join(capturePeer("cloud"), time.Minute)
	defer u.leave()
	five := evidence.Traffic{Packets: 5, Bytes: 500}
	for range 3 {
		if w, _ := u.read(wan, local, five); w.Blind == evidence.Yes {
			t.Errorf("blind for packets that may be on the way: %+v", w)
		}
	}
	w, d := u.read(wan, local, five)
	for _, got := range []evidence.Capture{w, d} {
		if got.Blind != evidence.Yes || !strings.HasPrefix(got.Reason, "the kernel's SAs received 5 packets") || got.Conclusive() {
			t.Errorf("the SAs received what the capture did not see: %+v", got)
		}
	}
	receiveESP(t, 1)
	netnstest.Eventually(t, "a packet", func() bool {
		w, _ = u.read(wan, local, five)
		return w.In.ESP.Packets == 1
	})
	if w.Blind != evidence.No {
		t.Errorf("the capture sees: %+v", w)
	}
}

// A window slides: it is never longer than it should be but by one reading.
func TestCapturesWindow(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	c := startCaptures(t, config.Capture{Mode: "ring", XDP: "auto"})
	u := c.join(capturePeer("cloud"), 50*time.Millisecond)
	defer u.leave()
	receiveESP(t, 1)
	netnstest.Eventually(t, "the packet to leave the window", func() bool {
		w, _ := u.read(wan, local, evidence.Traffic{})
		return len(u.history) > 3 && w.In.ESP.Packets == 0
	})
	for i := 1; i+1 < len(u.history); i++ {
		if u.history[i].Time.Before(u.history[len(u.history)-1].Time.Add(-50 * time.Millisecond)) {
			t.Errorf("reading %d is older than the window", i)
		}
	}
}

// A peer is watched on the interface of its route, and on those that the kernel
// may turn to.
func TestCapturesInterfaces(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	c := startCaptures(t, config.Capture{Mode: "ring", XDP: "auto"})
	netnstest.IP(t, "address add 203.0.113.2/24 dev wan", "address add 203.0.114.2/24 dev isp",
		"route add default via 203.0.113.1 metric 1", "route add default via 203.0.114.1 metric 2")
	u := c.join(capturePeer("cloud"), time.Minute)
	defer u.leave()
	for _, tc := range []struct {
		first string
		want  []string
	}{
		{"wan", []string{"wan", "isp"}},
		{"isp", []string{"isp", "wan"}}, // declared, or the route changed
		{"lo", []string{"lo", "wan", "isp"}},
		{"", []string{"wan", "isp"}},
	} {
		if got := u.interfaces(tc.first, captureGateway, netip.Addr{}); !slices.Equal(got, tc.want) {
			t.Errorf("interfaces of a route by %q: %v, want %v", tc.first, got, tc.want)
		}
	}
}
