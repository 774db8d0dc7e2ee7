//go:build linux

package integration

import (
	"os"
	"slices"
	"strings"
	"testing"

	"vpnprobe/evidence"
	"vpnprobe/internal/lab"
)

// recorded are negotiations and tunnels of which there is a recording, and
// nothing else.
var recorded = []struct {
	name      string
	theirs    func(*lab.Tunnel) // what gateway b is told now
	fault     func(l *lab.Lab) *lab.Fault
	diagnoses []string // one of them
	log       string   // a regular expression that gateway b's log matches then
	carries   bool
}{
	{name: "healthy", diagnoses: []string{"ok"}, carries: true},
	{
		name: "esp_blocked", fault: func(l *lab.Lab) *lab.Fault { return l.ISP.Drop("FORWARD", "-i to-b -p esp") },
		diagnoses: []string{"esp_blocked"},
	},
	{
		name: "silent", fault: func(l *lab.Lab) *lab.Fault { return l.ISP.Drop("FORWARD", "-i to-b -p udp") },
		diagnoses: []string{"ike_exchange_timeout"},
	},
	{
		name: "key", theirs: func(t *lab.Tunnel) { t.Key = "another pre-shared key for tests" },
		diagnoses: []string{"psk_mismatch"}, log: `MAC mismatched`,
	},
	{
		name: "subnets", theirs: func(t *lab.Tunnel) { t.LocalSubnet = "10.9.0.0/24" },
		diagnoses: []string{"child_proposal_mismatch", "traffic_selector_mismatch"}, log: `traffic selectors .* unacceptable`,
	},
	{
		name: "esp", theirs: func(t *lab.Tunnel) { t.ESP = "aes128-sha1" },
		diagnoses: []string{"child_proposal_mismatch", "traffic_selector_mismatch"}, log: `no acceptable proposal found`,
	},
}

// TestAnalyze records negotiations, and has the agent look at nothing else.
func TestAnalyze(t *testing.T) {
	t.Parallel()
	impatient := func(t *lab.Tunnel) { t.Settings = "retransmit_timeout = 1\nretransmit_base = 1" }
	lab.Run(t, "strongswan", lab.Config{Tunnel: impatient}, func(l *lab.Lab) {
		t := l.T()
		agreed := l.B.Tunnel
		for _, c := range recorded {
			l.A.Restart()
			l.Retell(func(t *lab.Tunnel) {
				*t = agreed
				if c.theirs != nil {
					c.theirs(t)
				}
			}, l.B)
			var faults []*lab.Fault
			if c.fault != nil {
				faults = append(faults, c.fault(l))
			}
			before := logOf(t, l.B)
			rec := l.A.Record("wan", c.name+".pcap")
			answered := l.Traffic(140)() // 7 s and more; the first one sets the tunnel up
			rec.Stop()
			if (answered > 70) != c.carries {
				t.Errorf("%s: %d pings answered: this lab is not what the case says", c.name, answered)
			}
			if said := strings.TrimPrefix(logOf(t, l.B), before); !matches(c.log, said) {
				t.Errorf("%s: gateway b's log does not match %q: this lab is not what the case says:\n%s", c.name, c.log, said)
			}
			report := l.Analyze(rec)
			for _, fault := range faults {
				fault.Heal()
			}
			capture := report.Evidence.Capture
			if !slices.Contains(c.diagnoses, report.Diagnosis) {
				t.Errorf("%s: diagnosis is %q, want one of %q: %s\n%s\n%s", c.name, report.Diagnosis, c.diagnoses, report.Summary, report.Stderr, report.Raw)
			}
			if want := min(1, len(c.log)+len(faults)); report.ExitCode != want {
				t.Errorf("%s: exit status is %d, want %d", c.name, report.ExitCode, want)
			}
			if esp := rec.Count("ip proto 50"); capture.Mode != evidence.CaptureFile || int(capture.In.ESP.Packets+capture.Out.ESP.Packets) != esp {
				t.Errorf("%s: mode %s, %d and %d packets of ESP, tcpdump has %d", c.name, capture.Mode, capture.In.ESP.Packets, capture.Out.ESP.Packets, esp)
			}
		}
	})
}

// logOf returns what the gateway's IKE daemon has logged so far.
func logOf(t testing.TB, g *lab.Gateway) string {
	t.Helper()
	log, err := os.ReadFile(g.IKE.Log())
	if err != nil {
		t.Fatal(err)
	}
	return string(log)
}
