package capture

import (
	"strings"
	"testing"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/netnstest"
)

// A ring that costs too much is closed most of the time: what it sees is real,
// but nothing is called absent. When the load falls it stays open again, and
// its windows are conclusive again.
func TestLiveDutyCycle(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	netnstest.Veth(t)
	l, err := Open(Config{Mode: evidence.CaptureRing})
	if err != nil {
		t.Fatal(err)
	}
	l.afford = budget{packets: 2000, cpu: 1, turn: 20 * time.Millisecond}
	l.SetPeers(on("wan", testPeers))
	runLive(t, l)
	netnstest.Eventually(t, "Run", func() bool { return !l.Counts("p").Watching.IsZero() })

	before := l.Counts("p")
	stop, stopped := make(chan struct{}), make(chan struct{})
	send := netnstest.Sender(t, "wan")
	go func() { // a flood that the filter rejects, which costs all the same
		defer close(stopped)
		frame := eth(ip4(host4, other4, 17, udp(1, 1, nil)))
		for {
			select {
			case <-stop:
				return
			default:
				send(frame)
			}
		}
	}()
	netnstest.Eventually(t, "the duty cycle", func() bool { return strings.Contains(l.State("p").Reason, "listens 1 s in 10") })
	if s := l.State("p"); s.Mode != evidence.CaptureRing || s.Why != evidence.CaptureRate {
		t.Errorf("in the duty cycle: %+v", s)
	}
	// Packets of the peer are seen in the turns that the ring is open.
	peer := netnstest.Sender(t, "isp")
	netnstest.Eventually(t, "a packet", func() bool {
		peer(eth(ip4(peer4, host4, 50, espPacket(1, 1, 72))))
		return l.look().In.ESP.Packets > 0
	})
	w := l.Counts("p").Since(before, evidence.No)
	if w.Conclusive() || w.Watched <= 0 || w.Watched >= w.Over || w.Mode != evidence.CaptureRing {
		t.Errorf("a window with pauses in it: watched %v of %v, %+v", w.Watched.Duration(), w.Over.Duration(), w)
	}

	close(stop)
	<-stopped
	netnstest.Eventually(t, "the end of the duty cycle", func() bool { return l.State("p").Reason == "" })
	if s := l.State("p"); s.Why != evidence.CaptureConfigured {
		t.Errorf("after the duty cycle: %+v", s)
	}
	before = l.Counts("p")
	n := l.look().In.ESP.Packets
	peer(eth(ip4(peer4, host4, 50, espPacket(1, 2, 72))))
	netnstest.Eventually(t, "a packet after it", func() bool { return l.look().In.ESP.Packets == n+1 })
	if w := l.Counts("p").Since(before, evidence.No); !w.Conclusive() {
		t.Errorf("a window after it: %+v", w)
	}
}
