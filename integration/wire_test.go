//go:build linux

package integration

import (
	"strings"
	"testing"
	"time"

	"vpnprobe/internal/lab"
)

// A state is one that a lab goes through, and what the agent must say of it.
// A boot takes longer than a look, so several share a lab.
type state struct {
	name string
	// fault brings the state about; the function returned ends it, and fails
	// the test if the network was not in that state. nil is the plain tunnel.
	fault func(l *lab.Lab) (end func())

	// streams are the traffic while the agent looks; by default, some both ways.
	streams []lab.Stream
	idle    bool                        // none
	during  func(l *lab.Lab)            // what happens beside the traffic
	amid    func(l *lab.Lab) *lab.Fault // a fault that comes while the agent looks

	finding  string   // a label that must be found; "" is none but information
	info     bool     // the finding is of severity info
	cause    bool     // the finding is the cause
	evidence string   // a regular expression that the finding's evidence matches
	never    []string // labels that must not be found
	cut      bool     // the networks behind the gateways do not reach each other

	least time.Duration // that the agent looks, if that is more than usual
}

// least is how long the agent looks: the probes into the tunnel take their
// time to tell that nothing comes back.
const least = 6 * time.Second

// look brings a state about and checks what the agent makes of it.
func (s state) look(l *lab.Lab) *lab.Report {
	t := l.T()
	t.Helper()
	end := func() {}
	if s.fault != nil {
		end = s.fault(l)
	}
	report := l.Look(max(s.least, least))
	var streams []func() lab.Streamed
	if s.streams == nil && !s.idle {
		s.streams = []lab.Stream{{Packets: 200, Rate: 50}, {From: l.LanB, To: l.LanA, Packets: 200, Rate: 50}}
	}
	for _, stream := range s.streams {
		streams = append(streams, l.Stream(stream))
	}
	if s.during != nil {
		s.during(l)
	}
	if s.amid != nil {
		time.Sleep(2 * time.Second)
		fault := s.amid(l)
		healed := end
		end = func() { fault.Heal(); healed() }
	}
	for _, arrived := range streams {
		arrived()
	}
	r := report()
	if carries := l.Carries(); carries == s.cut {
		t.Errorf("%s: the tunnel carries packets: %v: this lab is not what the case says", s.name, carries)
	}
	end()
	s.check(t, r)
	return r
}

func (s state) check(t testing.TB, report *lab.Report) {
	t.Helper()
	wrong := 0
	errorf := func(format string, args ...any) {
		t.Helper()
		wrong++
		t.Errorf(s.name+": "+format, args...)
	}
	for _, label := range s.never {
		if f := report.Finding(label); f != nil {
			errorf("finding %s (%s): %q", label, f.Severity, f.Evidence)
		}
	}
	f := report.Finding(s.finding)
	switch {
	case s.finding == "" || s.info:
		if report.Diagnosis != "ok" {
			errorf("diagnosis is %q, want ok: %s", report.Diagnosis, report.Summary)
		}
	case s.cause && report.Diagnosis != s.finding:
		errorf("diagnosis is %q, want %q: %s", report.Diagnosis, s.finding, report.Summary)
	}
	switch {
	case s.finding == "":
	case f == nil:
		errorf("no finding %s", s.finding)
	case (f.Severity == "info") != s.info:
		errorf("finding %s is of severity %s", s.finding, f.Severity)
	case !matches(s.evidence, strings.Join(f.Evidence, "\n")):
		errorf("evidence of %s does not match %q:\n%s", s.finding, s.evidence, strings.Join(f.Evidence, "\n"))
	}
	if wrong > 0 {
		t.Logf("%s: exit status %d, %s\n%s", s.name, report.ExitCode, report.Stderr, report.Raw)
	}
}

// wireLabels are those that only the wire, or the wire above all, tells.
var wireLabels = []string{
	"esp_blocked", "encap_type_mismatch", "nat_before_ipsec", "selector_not_covering", "asymmetric_tunnels",
	"multipath_egress", "esp_fragmented", "dpd_not_answered_locally", "dpd_timeout", "multi_value_proposal",
}

// but returns the labels of the wire but those.
func but(labels ...string) []string {
	var rest []string
	for _, label := range wireLabels {
		if !strings.Contains(" "+strings.Join(labels, " ")+" ", " "+label+" ") {
			rest = append(rest, label)
		}
	}
	return rest
}

// healed makes a fault that is nothing but a lab's.
func healed(fault func(l *lab.Lab) *lab.Fault) func(l *lab.Lab) func() {
	return func(l *lab.Lab) func() { return fault(l).Heal }
}

// states are by the lab that they share.
var states = []struct {
	name   string
	config lab.Config
	before func(l *lab.Lab)
	states []state
}{
	{
		name: "esp",
		states: []state{
			{name: "healthy", never: wireLabels},
			{
				name:    "esp_blocked_out_here",
				fault:   healed(func(l *lab.Lab) *lab.Fault { return l.A.Drop("OUTPUT", "-p esp") }),
				finding: "esp_blocked", cause: true, evidence: `direction: from this host to the peer`,
				cut: true, never: but("esp_blocked"),
			},
			{
				name:    "esp_blocked_in",
				fault:   healed(func(l *lab.Lab) *lab.Fault { return l.ISP.Drop("FORWARD", "-i to-b -p esp") }),
				finding: "esp_blocked", cause: true, evidence: `direction: from the peer to this host`,
				cut: true, never: but("esp_blocked"),
			},
			{
				name: "udp_instead_of_raw", fault: otherEncap(false),
				finding: "encap_type_mismatch", cause: true, cut: true, never: but("encap_type_mismatch"),
			},
			{
				name: "fragmented", fault: fragmenting(true),
				streams: []lab.Stream{{Size: 1460, Packets: 100, Rate: 50, Fragments: true}},
				finding: "esp_fragmented", never: but("esp_fragmented"),
			},
			{
				name: "fragmentable", fault: fragmenting(false),
				streams: []lab.Stream{{Size: 1200, Packets: 100, Rate: 50, Fragments: true}},
				never:   wireLabels,
			},
		},
	},
	{
		name:   "esp_in_udp",
		config: lab.Config{Tunnel: func(t *lab.Tunnel) { t.Connection = "encap = yes" }},
		states: []state{
			{name: "healthy", never: wireLabels},
			{
				name: "raw_instead_of_udp", fault: otherEncap(true),
				finding: "encap_type_mismatch", cause: true, cut: true, never: but("encap_type_mismatch"),
			},
			{
				name:    "fragmented",
				streams: []lab.Stream{{Size: 1460, Packets: 100, Rate: 50, Fragments: true}},
				finding: "esp_fragmented", never: but("esp_fragmented"),
			},
		},
	},
	{
		name:   "leak",
		before: func(l *lab.Lab) { l.AddSecondSubnet(); l.Declared.Tunnel = bothSubnets },
		states: []state{
			{name: "covered", fault: inClear(nil, 0), never: wireLabels},
			{
				name: "gateway_itself", fault: inClear(nil, 5), idle: true,
				during: func(l *lab.Lab) { l.A.Try("ping -n -q -c 10 -i 0.3 -W 1 -I " + l.A.Address + " " + lab.LanBHost) },
				never:  wireLabels,
			},
			{
				name: "selector_not_covering", fault: inClear(nil, 50),
				streams: []lab.Stream{{Source: lab.LanASecondHost, Packets: 200, Rate: 50}},
				finding: "selector_not_covering", never: but("selector_not_covering"),
			},
			{
				name: "nat_exempt", fault: inClear(func(l *lab.Lab) *lab.Fault { return l.A.Masquerade(true) }, 0),
				never: wireLabels,
			},
			{
				name: "nat_before_ipsec", fault: inClear(func(l *lab.Lab) *lab.Fault { return l.A.Masquerade(false) }, 50),
				finding: "nat_before_ipsec", cause: true, cut: true, never: but("nat_before_ipsec"),
			},
		},
	},
	{
		name: "dpd",
		config: lab.Config{
			Theirs: func(t *lab.Tunnel) {
				t.Connection, t.Settings = "dpd_delay = 1s", "retransmit_timeout = 1\nretransmit_base = 1\nretransmit_tries = 30"
			},
		},
		before: func(l *lab.Lab) { l.Declared.Tunnel = func(t *lab.Tunnel) { t.RemoteSubnet = "" } },
		states: []state{
			{name: "answered", idle: true, never: wireLabels},
			{
				name: "not_answered",
				// From the beginning it could be anyone who asks.
				amid: func(l *lab.Lab) *lab.Fault {
					return l.A.Drop("OUTPUT", "-p udp -m multiport --sports 500,4500 -m multiport --dports 500,4500")
				},
				idle: true, least: 12 * time.Second,
				finding: "dpd_not_answered_locally", never: but("dpd_not_answered_locally"),
			},
		},
	},
	{
		name:   "offers",
		config: lab.Config{Tunnel: func(t *lab.Tunnel) { t.IKE = "aes256-aes128-sha256-sha512-modp2048" }},
		states: []state{
			{
				name: "several_values", during: (*lab.Lab).Reestablish,
				finding: "multi_value_proposal", info: true, never: but("multi_value_proposal"),
			},
			{
				name: "several_values_refused", fault: agree("aes192-sha384-modp3072", false),
				during:  func(l *lab.Lab) { l.A.IKE.Attempt() },
				finding: "multi_value_proposal", cut: true, never: but("multi_value_proposal"),
			},
			{
				name: "one_value", fault: agree("aes256-sha256-modp2048", true), during: (*lab.Lab).Reestablish,
				never: wireLabels,
			},
		},
	},
	{
		name: "uplinks",
		config: lab.Config{
			SecondUplink: true,
			// strongSwan would pin the far side to one uplink.
			Tunnel: func(t *lab.Tunnel) { t.Settings = "install_routes = no" },
		},
		before: func(l *lab.Lab) { l.Declared.AnyInterface = true },
		states: []state{
			{name: "one", never: wireLabels},
			{
				name: "shared", fault: sharedUplinks,
				streams: []lab.Stream{{Packets: 400, Rate: 100, Flows: 16}},
				finding: "multipath_egress", info: true, never: but("multipath_egress"),
			},
			{
				name: "failed_over", fault: byBothUplinks, amid: (*lab.Lab).UseSecondUplink,
				streams: []lab.Stream{{Packets: 400, Rate: 100, Flows: 16}},
				never:   wireLabels,
			},
		},
	},
	{
		name:   "twin",
		config: lab.Config{Twin: true},
		states: []state{
			{name: "symmetric", never: wireLabels},
			{
				name: "asymmetric", fault: byTwin,
				finding: "asymmetric_tunnels", info: true, never: but("asymmetric_tunnels"),
			},
		},
	},
}

func TestWire(t *testing.T) {
	t.Parallel()
	for _, group := range states {
		lab.Run(t, group.name, group.config, func(l *lab.Lab) {
			if group.before != nil {
				group.before(l)
			}
			l.Establish()
			for _, s := range group.states {
				s.look(l)
				if !l.Carries() {
					l.T().Fatalf("%s: the tunnel does not recover", s.name)
				}
			}
		})
	}
}
