//go:build linux

package integration

import (
	"testing"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/lab"
)

// TestOffloadBlindSpot has the kernel hide inbound ESP from packet sockets
// and from tc, as it does on gateways with ESP offload.
func TestOffloadBlindSpot(t *testing.T) {
	t.Parallel()
	lab.Run(t, "gro", lab.Config{}, func(l *lab.Lab) {
		t := l.T()
		l.Establish()
		l.OffloadESP()
		for _, mode := range []string{"auto", "ring", "bpf", "sa"} {
			l.Declared.Capture = mode
			report := state{name: mode, fault: unseen, never: wireLabels}.look(l)
			capture := report.Evidence.Capture
			if mode != "auto" && string(capture.Mode) != mode {
				t.Errorf("%s: the capture's mode is %s (%s): %s", mode, capture.Mode, capture.Why, capture.Reason)
			}
			if capture.Mode == evidence.CaptureRing && (capture.Blind != evidence.Yes || capture.Conclusive()) {
				t.Errorf("%s: blind: %v, want yes", mode, capture.Blind)
			}
			if capture.In.ESP.Packets == 0 && capture.Conclusive() {
				t.Errorf("%s: it saw none of the inbound ESP and is sure of it", mode)
			}
		}
		// What the SA's own counters tell is not hidden.
		l.Declared.Capture = ""
		state{
			name: "esp_blocked", fault: healed(func(l *lab.Lab) *lab.Fault { return l.ISP.Drop("FORWARD", "-i to-b -p esp") }),
			finding: "esp_blocked", cause: true, evidence: `direction: from the peer to this host`, cut: true, never: but("esp_blocked"),
		}.look(l)

		l.Declared.Capture = "ring"
		agent := l.StartAgent("interval: 1s\n")
		exported := func() string {
			body, _ := agent.TryGet("/metrics")
			return string(body)
		}
		const blind = `(?m)^vpnprobe_capture_blind\{.*\} 1$`
		for start := time.Now(); !matches(blind, exported()); time.Sleep(time.Second) {
			if time.Since(start) > 20*time.Second {
				t.Fatalf("no %s in:\n%s", blind, exported())
			}
		}
	})
}

// unseen checks that a packet socket sees none of the ESP that gateway a
// receives, though the tunnel works.
func unseen(l *lab.Lab) func() {
	in, out := "ip proto 50 and src "+l.B.Address, "ip proto 50 and dst "+l.B.Address
	rec := l.A.Record("wan", "unseen.pcap")
	before := l.A.Inbound().Packets
	return func() {
		rec.Stop()
		taken := l.A.Inbound().Packets - before
		if i, o := rec.Count(in), rec.Count(out); taken < 100 || i != 0 || o < 100 {
			l.T().Errorf("of %d packets of ESP that the kernel took, tcpdump saw %d, and %d that went out: it is not blind", taken, i, o)
		}
	}
}
