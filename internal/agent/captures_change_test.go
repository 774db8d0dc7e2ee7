package agent

import (
	"bytes"
	"context"
	"log/slog"
	"os/exec"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"vpnprobe/config"
	"vpnprobe/evidence"
	"vpnprobe/hoststate"
	"vpnprobe/internal/netnstest"
)

// An interface has room for one XDP program: a capture begins when the one
// before has left nothing behind.
func TestCapturesChange(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	c := startCaptures(t, config.Capture{Mode: "auto", XDP: "always"})
	u := c.join(capturePeer("cloud"), time.Minute)
	defer u.leave()
	if w, _ := u.read(wan, local, evidence.Traffic{}); w.Mode != evidence.CaptureBPF {
		t.Skipf("the kernel does not count: %s", w.Reason)
	}
	hooked := func() bool {
		out, err := exec.Command("ip", "link", "show", "wan").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.Contains(string(out), "xdp")
	}
	if !hooked() {
		t.Fatal("no XDP program")
	}
	for _, mode := range []string{"bpf", "ring", "auto"} {
		c.configure(config.Capture{Mode: mode, XDP: "always"})
		u.read(wan, local, evidence.Traffic{})
		receiveESP(t, 1)
		netnstest.Eventually(t, "a packet", func() bool {
			w, _ := u.read(wan, local, evidence.Traffic{})
			return w.In.ESP.Packets == 1
		})
		if hooked() != (mode != "ring") {
			t.Errorf("capture.mode %s: XDP program: %v", mode, hooked())
		}
	}
}

// A capture begins only when the one before has ended, and peers are read all
// the while.
func TestCapturesOneAfterAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCaptures(hoststate.New(), slog.New(slog.DiscardHandler))
		c.configure(config.Capture{Mode: "ring"})
		ctx, cancel := context.WithCancel(t.Context())
		go c.run(ctx)
		synctest.Wait()
		first, ended := c.live, make(chan struct{})
		if first == nil {
			t.Fatal("no capture")
		}
		c.ended = ended // as if the first one took its time
		go c.configure(config.Capture{Mode: "bpf"})
		synctest.Wait()
		u := c.join(capturePeer("cloud"), time.Minute)
		if w, _ := u.read(wan, local, evidence.Traffic{}); c.live != nil || w.Conclusive() || w.Reason == "" {
			t.Errorf("while one ends: %v, %+v", c.live, w)
		}
		u.leave()
		close(ended)
		synctest.Wait()
		if c.live == nil || c.live == first {
			t.Errorf("no other capture after it")
		}
		cancel()
		synctest.Wait()
		if c.live != nil {
			t.Error("a capture after the end")
		}
	})
}

// A peer that is reconfigured begins anew, under its own name, even where its
// predecessor has not left yet.
func TestCapturesSuccessor(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	var log bytes.Buffer
	c := startCaptures(t, config.Capture{Mode: "ring", XDP: "auto"})
	c.log = slog.New(slog.NewTextHandler(&log, nil))
	old := c.join(capturePeer("cloud"), time.Minute)
	old.read(wan, local, evidence.Traffic{})
	old.tell()
	receiveESP(t, 1)
	netnstest.Eventually(t, "a packet", func() bool {
		w, _ := old.read(wan, local, evidence.Traffic{})
		return w.In.ESP.Packets == 1
	})

	u := c.join(capturePeer("cloud"), time.Minute)
	if w, _ := old.read(wan, local, evidence.Traffic{}); w.Conclusive() || w.Reason == "" {
		t.Errorf("the predecessor: %+v", w)
	}
	w, d := u.read(wan, local, evidence.Traffic{})
	if w.In.ESP.Packets != 0 || d.In.ESP.Packets != 0 || w.Mode != evidence.CaptureRing {
		t.Errorf("the successor begins with %+v", w)
	}
	old.leave()
	receiveESP(t, 2)
	netnstest.Eventually(t, "a packet", func() bool {
		w, _ = u.read(wan, local, evidence.Traffic{})
		return w.In.ESP.Packets == 1
	})
	u.tell()
	u.leave()
	if len(c.uses) != 0 {
		t.Errorf("%d uses are left", len(c.uses))
	}
	for line := range strings.Lines(log.String()) {
		if !strings.Contains(line, " peer=cloud ") {
			t.Errorf("logged %q", line)
		}
	}
	if n := strings.Count(log.String(), "\n"); n != 2 {
		t.Errorf("%d lines: %s", n, log.String())
	}
}
