//go:build linux

package integration

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"vpnprobe/internal/lab"
)

// testCase is one state of the network, and what the agent must say of it.
type testCase struct {
	name   string
	config lab.Config

	// idle leaves the tunnel down, waiting for its first packet. Otherwise
	// it is up when the fault comes.
	idle  bool
	fault func(l *lab.Lab)

	diagnosis string
	evidence  func(l *lab.Lab) string // a regular expression that the cause's evidence must match
	carries   bool                    // whether the networks behind the gateways still reach each other
	info      string                  // the diagnosis of a finding of severity info that must be there too
	log       string                  // a regular expression that matches the log of gateway b, which refuses the tunnel

	after func(l *lab.Lab) // checks more of the lab, after the probe

	flags    []string // for agent probe
	alsoIPv6 bool     // repeat the case over an IPv6 underlay
}

// healthy networks, some of which look odd. None of this is a fault.
var healthy = []testCase{
	{
		name:     "plain",
		alsoIPv6: true,
	},
	{
		name:   "behind_nat",
		config: lab.Config{NAT: true},
		info:   "behind_nat",
	},
	{
		name:     "gateway_ignores_ping",
		fault:    func(l *lab.Lab) { l.B.Drop("INPUT", l.EchoRequests()) },
		alsoIPv6: true,
	},
	{
		name:     "narrow_path",
		fault:    func(l *lab.Lab) { l.PathMTU(1400) },
		alsoIPv6: true,
	},
	{
		name: "not_yet_triggered",
		idle: true,
	},
}

// faulty networks, from the far end of the ladder to the near one.
var faulty = []testCase{
	{
		name:      "remote_host_filtered",
		fault:     func(l *lab.Lab) { l.LanB.Drop("INPUT", "") },
		diagnosis: "inner_unreachable",
	},
	{
		name:      "esp_dropped",
		fault:     func(l *lab.Lab) { l.ISP.Drop("FORWARD", "-p esp") },
		diagnosis: "esp_blocked",
		alsoIPv6:  true,
	},
	{
		name:      "esp_dropped_inbound",
		fault:     func(l *lab.Lab) { l.ISP.Drop("FORWARD", "-i to-b -p esp") },
		diagnosis: "esp_blocked",
	},
	{
		name:      "natt_dropped",
		config:    lab.Config{NAT: true},
		idle:      true,
		fault:     func(l *lab.Lab) { l.ISP.Drop("FORWARD", "-p udp --dport 4500") },
		diagnosis: "natt_blocked",
	},
	{
		name: "ike_dropped",
		idle: true,
		fault: func(l *lab.Lab) {
			l.ISP.Drop("FORWARD", "-p udp -m multiport --dports 500,4500")
		},
		diagnosis: "peer_firewall_drops_ike",
		alsoIPv6:  true,
	},
	{
		name: "ike_prohibited",
		idle: true,
		fault: func(l *lab.Lab) {
			l.ISP.Reject("FORWARD", "-p udp -m multiport --dports 500,4500")
		},
		diagnosis: "peer_firewall_drops_ike",
		evidence:  func(l *lab.Lab) string { return regexp.QuoteMeta(l.Hop()) },
		alsoIPv6:  true,
	},
	{
		name:      "peer_daemon_stopped",
		fault:     func(l *lab.Lab) { l.B.IKE.Stop() },
		diagnosis: "peer_ike_not_listening",
		alsoIPv6:  true,
	},
	{
		name:      "peer_dark",
		fault:     func(l *lab.Lab) { l.B.Drop("INPUT", "-i wan") },
		diagnosis: "peer_unreachable",
		alsoIPv6:  true,
	},
	{
		name:      "peer_unplugged",
		fault:     func(l *lab.Lab) { l.B.Unplug("wan") },
		diagnosis: "peer_unreachable",
	},
	{
		name:      "loss_on_uplink",
		fault:     func(l *lab.Lab) { l.ISP.Netem("to-a", "loss 10%") },
		diagnosis: "underlay_loss",
		carries:   true,
		flags:     []string{"--duration", "20s"},
	},
	{
		name:      "loss_on_peer_side",
		fault:     func(l *lab.Lab) { l.ISP.Netem("to-b", "loss 15%") },
		diagnosis: "underlay_loss",
		evidence:  func(*lab.Lab) string { return `(?i)reference` },
		carries:   true,
		flags:     []string{"--duration", "20s"},
	},
	{
		name:      "delay",
		fault:     func(l *lab.Lab) { l.ISP.Netem("to-b", "delay 300ms") },
		diagnosis: "underlay_latency",
		carries:   true,
	},
	{
		name:      "uplink_dead",
		fault:     func(l *lab.Lab) { l.ISP.Drop("PREROUTING -t raw", "-i to-a") },
		diagnosis: "internet_down",
		alsoIPv6:  true,
	},
	{
		name:      "uplink_unplugged",
		fault:     func(l *lab.Lab) { l.ISP.Unplug("to-a") },
		diagnosis: "internet_down",
	},
	{
		name:      "no_route",
		fault:     func(l *lab.Lab) { l.A.DeleteDefaultRoute() },
		diagnosis: "underlay_route_wrong",
		alsoIPv6:  true,
	},
	{
		name:      "route_prohibited",
		fault:     func(l *lab.Lab) { l.A.ProhibitRoute(l.Peer()) },
		diagnosis: "underlay_route_wrong",
	},
}

func TestHealthy(t *testing.T) {
	t.Parallel()
	cases := slices.Clone(healthy)
	for i := range cases {
		cases[i].diagnosis, cases[i].carries = "ok", true
	}
	together(t, "lab", cases)
}

func TestDiagnosis(t *testing.T) {
	t.Parallel()
	together(t, "lab", faulty)
}

// maxTogether is how many cases share a lab at most: labs run in parallel,
// the cases of one do not.
const maxTogether = 5

// together runs cases that leave nothing broken behind. Those with the same
// network share labs, which are named after a test and numbered.
func together(t *testing.T, name string, cases []testCase) {
	t.Helper()
	for _, c := range cases {
		if c.alsoIPv6 {
			c.name, c.alsoIPv6, c.config.IPv6 = c.name+"_ipv6", false, true
			cases = append(cases, c)
		}
	}
	var labs [][]lab.Case
	for _, c := range cases {
		next := lab.Case{Name: c.name, Config: c.config, Body: func(l *lab.Lab) { c.check(l) }}
		fits := func(l []lab.Case) bool { return len(l) < maxTogether && lab.SameNetwork(l[0].Config, c.config) }
		if i := slices.IndexFunc(labs, fits); i >= 0 {
			labs[i] = append(labs[i], next)
		} else {
			labs = append(labs, []lab.Case{next})
		}
	}
	for i, l := range labs {
		lab.RunCases(t, fmt.Sprintf("%s_%d", name, i+1), l)
	}
}

func (c testCase) check(l *lab.Lab) {
	t := l.T()
	if !c.idle {
		l.Establish()
	}
	if c.fault != nil {
		c.fault(l)
	}
	report := l.Probe(c.flags...)
	defer func() {
		if t.Failed() {
			t.Logf("exit status %d, %s\n%s", report.ExitCode, report.Stderr, report.Raw)
		}
	}()
	if report.Diagnosis != c.diagnosis {
		t.Errorf("diagnosis is %q, want %q: %s", report.Diagnosis, c.diagnosis, report.Summary)
	}
	if c.info != "" && report.Finding(c.info) == nil {
		t.Errorf("no finding %s", c.info)
	}
	if c.diagnosis == "ok" {
		checkHealthy(t, report)
	} else {
		c.checkCause(l, report)
	}
	if c.after != nil {
		c.after(l)
	}
	// After the probe: before it, this would set a waiting tunnel up. That
	// nothing passes takes a while to tell; the peer's log tells it as well.
	if c.log != "" && !c.carries {
		c.checkLog(l)
	} else if carries := l.Carries(); carries != c.carries {
		t.Errorf("the tunnel carries packets: %v, want %v: this lab is not what the case says", carries, c.carries)
	}
}

// checkLog checks that gateway b met what the case says.
func (c testCase) checkLog(l *lab.Lab) {
	l.T().Helper()
	log, err := os.ReadFile(l.B.IKE.Log())
	if err != nil || !matches(c.log, string(log)) {
		l.T().Errorf("gateway b's log does not match %q, error %v: this lab is not what the case says", c.log, err)
	}
}

// checkHealthy checks that nothing worse than information was found.
func checkHealthy(t testing.TB, report *lab.Report) {
	t.Helper()
	if report.ExitCode != 0 {
		t.Errorf("exit status is %d, want 0", report.ExitCode)
	}
	for _, f := range report.Findings {
		if f.Severity != "info" && f.Diagnosis != "ok" {
			t.Errorf("finding %s of severity %s in a healthy network: %s", f.Diagnosis, f.Severity, f.Evidence)
		}
	}
}

// checkCause checks that the report names one cause, with evidence and remedy.
func (c testCase) checkCause(l *lab.Lab, report *lab.Report) {
	t := l.T()
	t.Helper()
	if report.ExitCode != 1 {
		t.Errorf("exit status is %d, want 1", report.ExitCode)
	}
	var causes []lab.Finding
	for _, f := range report.Findings {
		if f.Role == "cause" {
			causes = append(causes, f)
		}
	}
	if len(causes) != 1 || causes[0].Diagnosis != c.diagnosis {
		t.Errorf("causes are %+v, want only %s", causes, c.diagnosis)
		return
	}
	evidence := strings.Join(causes[0].Evidence, "\n")
	if evidence == "" || causes[0].Remedy == "" {
		t.Errorf("finding %s has evidence %q and remedy %q, want both", c.diagnosis, evidence, causes[0].Remedy)
	}
	if c.evidence == nil {
		return
	}
	if want := c.evidence(l); !matches(want, evidence) {
		t.Errorf("evidence does not match %q:\n%s", want, evidence)
	}
}
