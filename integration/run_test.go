//go:build linux

package integration

import (
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

// TestRunning watches agents at work for a while, one way each. They have the
// machine for themselves, but share it: none of them needs much.
func TestRunning(t *testing.T) {
	t.Run("live_tunnel", testLiveTunnel)
	t.Run("renewed_tunnel", testRenewedTunnel)
	t.Run("prometheus", testPrometheus)
}

// testPrometheus breaks and mends the network under a running agent, and
// reads the diagnosis where its users do.
func testPrometheus(t *testing.T) {
	t.Parallel()
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

// peers are the IKE daemons that are watched while the agent is at work.
var peers = []struct {
	name   string
	daemon lab.Daemon
	keeps  time.Duration // a half-open handshake
}{
	{"strongswan", lab.StrongSwan, 30 * time.Second},
	{"libreswan", lab.Libreswan, 200 * time.Second},
}

// TestHeartbeats lets the peer have as many heartbeats as a peer gets in an
// hour, by several agents that each beat at their fastest.
func TestHeartbeats(t *testing.T) {
	t.Parallel()
	const (
		agents = 6
		hour   = int(time.Hour / (10 * time.Second)) // at the default interval
	)
	for _, peer := range peers {
		lab.Run(t, peer.name, lab.Config{DaemonB: peer.daemon}, func(l *lab.Lab) {
			t := l.T()
			l.Establish()
			before := l.B.SPIs()
			if len(before) != 2 {
				t.Fatalf("SPIs at the peer: %v, want two", before)
			}
			ike := l.B.Count("INPUT", "-p udp --dport 500")
			natt := l.B.Count("INPUT", "-p udp --dport 4500")
			for range agents {
				l.StartAgent("interval: 1s\n")
			}
			for start := time.Now(); ike() < hour || natt() < hour; time.Sleep(time.Second) {
				if n := l.B.IKE.HalfOpen(); n != 0 {
					t.Fatalf("%d half-open handshakes at the peer", n)
				}
				if time.Since(start) > 2*time.Minute {
					t.Fatalf("the peer saw %d and %d heartbeats, want %d on either port", ike(), natt(), hour)
				}
			}
			if n := l.B.IKE.HalfOpen(); n != 0 {
				t.Errorf("%d half-open handshakes at the peer", n)
			}
			if after := l.B.SPIs(); !slices.Equal(before, after) {
				t.Errorf("SPIs at the peer were %v and are %v", before, after)
			}
		})
	}
}

// testLiveTunnel watches the peer and the tunnel while one on-demand run
// follows the other, longer than the budget holds back a second handshake.
func testLiveTunnel(t *testing.T) {
	t.Parallel()
	const (
		soak    = 70 * time.Second
		packets = int(soak / (50 * time.Millisecond))
		// A busy machine drops one now and then; a tunnel that is down for a fifth
		// of a second loses more.
		dropped = 3
	)
	for _, peer := range peers {
		lab.Run(t, peer.name, lab.Config{DaemonB: peer.daemon, Identified: true}, func(l *lab.Lab) {
			t := l.T()
			l.Establish()
			before := l.B.SPIs()
			answered := l.Traffic(packets)
			reports := l.KeepProbing("--authenticate", "--duration", "5s")
			// Seen twice: a request that is being refused counts for a moment.
			highest, last := 0, 0
			for start := time.Now(); time.Since(start) < soak; time.Sleep(50 * time.Millisecond) {
				n := l.B.IKE.HalfOpen()
				highest, last = max(highest, min(n, last)), n
			}
			if n := answered(); n < packets-dropped {
				t.Errorf("%d of %d packets crossed the tunnel", n, packets)
			}
			all := reports()
			highest = max(highest, l.B.IKE.HalfOpen())
			handshakes := 0
			for _, r := range all {
				if matches(`"step": ?"init"[^}]*"reused": ?false`, string(r.Raw)) {
					handshakes++
				}
				if r.Diagnosis != "ok" {
					t.Errorf("diagnosis is %s: %s", r.Diagnosis, r.Summary)
				}
			}
			// One a minute is sent, and how long it stays is the peer's affair.
			most := 1 + int(min(peer.keeps, soak)/time.Minute)
			if handshakes == 0 || highest > most {
				t.Errorf("%d half-open handshakes at a time at the peer, of %d; want %d at most, of one or more", highest, handshakes, most)
			}
			if after := l.B.SPIs(); !slices.Equal(before, after) {
				t.Errorf("SPIs at the peer were %v and are %v", before, after)
			}
		})
	}
}

// testRenewedTunnel takes the tunnel down again and again, and lets it come
// back, while the agent probes as often as it can. The peer's limits of
// half-open handshakes are the defaults.
func testRenewedTunnel(t *testing.T) {
	t.Parallel()
	lab.Run(t, "strongswan", lab.Config{}, func(l *lab.Lab) {
		t := l.T()
		l.Establish()
		reports := l.KeepProbing("--duration", "3s")
		for range 5 {
			before := l.B.SPIs()
			l.A.IKE.Terminate()
			// The next packet sets it up anew.
			if !l.Carries() {
				t.Fatal("the tunnel does not come back")
			}
			if after := l.B.SPIs(); len(after) != 2 || slices.Contains(after, before[0]) {
				t.Fatalf("SPIs at the peer were %v and are %v, want two new ones", before, after)
			}
			time.Sleep(4 * time.Second)
		}
		if n := len(reports()); n < 5 {
			t.Errorf("%d runs of the agent, want more", n)
		}
	})
}
