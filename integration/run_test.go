//go:build linux

package integration

import (
	"os"
	"slices"
	"testing"
	"time"

	"vpnprobe/internal/lab"
)

const (
	interval = 5 * time.Second
	scrape   = time.Second
)

// settings of agent run that fit a test's patience.
var settings = "interval: " + interval.String() + `
inner_interval: 1s
icmp: {interval: 500ms, timeout: 1s}
`

// TestPrometheus breaks and mends the network under a running agent, and
// reads the diagnosis where its users do.
func TestPrometheus(t *testing.T) {
	for _, c := range []struct {
		name      string
		fault     func(l *lab.Lab) *lab.Fault
		diagnosis string
	}{
		{
			name:      "peer_dark",
			fault:     func(l *lab.Lab) *lab.Fault { return l.B.Drop("INPUT", "-i wan") },
			diagnosis: "peer_unreachable",
		},
		{
			name:      "esp_dropped",
			fault:     func(l *lab.Lab) *lab.Fault { return l.ISP.Drop("FORWARD", "-p esp") },
			diagnosis: "esp_blocked",
		},
	} {
		lab.Run(t, c.name, lab.Config{}, func(l *lab.Lab) {
			l.Establish()
			l.StartAgent(settings)
			p := l.StartPrometheus(scrape)
			awaitDiagnosis(l, p, "ok", 6*interval) // starting up may take its time
			fault := c.fault(l)
			awaitDiagnosis(l, p, c.diagnosis, 2*interval)
			fault.Heal()
			awaitDiagnosis(l, p, "ok", 2*interval)
		})
	}
}

// awaitDiagnosis waits until Prometheus knows the one diagnosis as the cause.
func awaitDiagnosis(l *lab.Lab, p *lab.Prometheus, want string, within time.Duration) {
	t := l.T()
	t.Helper()
	// What the agent publishes is seen one scrape later.
	within += 2 * scrape
	start := time.Now()
	var seen []string
	for time.Since(start) < within {
		before := seen
		seen = nil
		for _, series := range p.Query(`vpnprobe_diagnosis{role="cause"} == 1`) {
			seen = append(seen, series["diagnosis"])
		}
		if !slices.Equal(before, seen) {
			t.Logf("%q after %v", seen, time.Since(start).Round(100*time.Millisecond))
		}
		if slices.Equal(seen, []string{want}) {
			return
		}
		time.Sleep(scrape / 2)
	}
	t.Fatalf("Prometheus has the causes %q after %v, want only %s", seen, within, want)
}

// TestHarmless watches the peer while the agent beats at its fastest. How
// long is up to VPNPROBE_LAB_SOAK.
func TestHarmless(t *testing.T) {
	soak := 30 * time.Second
	if s := os.Getenv("VPNPROBE_LAB_SOAK"); s != "" {
		var err error
		if soak, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	lab.Run(t, "heartbeat", lab.Config{Timeout: soak + time.Minute}, func(l *lab.Lab) {
		t := l.T()
		l.Establish()
		before := l.B.SPIs()
		if len(before) != 2 {
			t.Fatalf("SPIs at the peer: %v, want two", before)
		}
		heartbeats := l.B.Count("INPUT", "-p udp --dport 500")
		l.StartAgent("interval: 1s\n")
		for start := time.Now(); time.Since(start) < soak; time.Sleep(time.Second) {
			if n := l.B.IKE.HalfOpen(); n != 0 {
				t.Fatalf("%d half-open handshakes at the peer", n)
			}
		}
		if after := l.B.SPIs(); !slices.Equal(before, after) {
			t.Errorf("SPIs at the peer were %v and are %v", before, after)
		}
		if n, want := heartbeats(), int(soak/time.Second)/2; n < want {
			t.Errorf("the peer saw %d heartbeats, want %d or more", n, want)
		}
	})
}
