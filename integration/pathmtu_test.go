//go:build linux

package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/lab"
)

// sizeCase is something wrong with sizes, or that looks so, and what the agent
// must say of it.
type sizeCase struct {
	name   string
	faults func(l *lab.Lab) []*lab.Fault
	proof  func(l *lab.Lab) // that the network is as the case says
	behind bool             // the agent runs on the host behind gateway a
	flags  []string

	diagnosis string // of the cause; ok by default
	evidence  string // a regular expression that its evidence matches
	info      string // a label of severity info that is found too
	warns     string // a label that is found too, with the evidence of the next
	rule      string // a regular expression
	never     []string
	outer     int // what is measured between the gateways; 0 if nothing has to be
	hangs     bool
	after     func(l *lab.Lab, r *lab.Report)
}

// sizeLabels are those of problems of size.
var sizeLabels = []string{
	"mtu_black_hole", "pmtud_icmp_filtered", "fragments_dropped", "reassembly_failing", "fragment_order_dropped",
	"size_hole", "df_cleared_fragmented", "ptb_bogus", "mss_not_clamped",
}

// sizeFlags are those of agent probe where nothing has to be found silent.
var sizeFlags = []string{"--duration", "8s"}

// longFlags are those where silence decides, which takes several times as long.
var longFlags = []string{"--duration", "12s"}

// What a search for a path MTU may cost, and a sweep, which tries more sizes
// than a search has packets.
const (
	mostPackets = 60
	mostSwept   = 220
)

// transfer is enough bytes to fill some segments, and to hang by them.
const transfer = 200_000

// sizesHealthy are paths of many sizes on which everything works.
var sizesHealthy = []sizeCase{
	{name: "1500", faults: func(*lab.Lab) []*lab.Fault { return nil }, outer: 1500},
	{name: "1492", faults: narrow(1492), proof: tells(1492), outer: 1492},
	{name: "1438", faults: narrow(1438), proof: tells(1438), outer: 1438},
	{name: "1280", faults: narrow(1280), proof: tells(1280), outer: 1280},
	{
		name: "9000", faults: one(func(l *lab.Lab) *lab.Fault { return l.LinkMTU(9000) }), outer: 9000,
		proof: func(l *lab.Lab) { passes(l, lab.Ping{From: l.A.Node, To: l.Peer(), Size: 9000}) },
	},
	{
		name: "fragments_reordered", faults: one((*lab.Lab).ReorderFragments), outer: 1500,
		proof: func(l *lab.Lab) { passes(l, lab.Ping{From: l.A.Node, To: l.Peer(), Size: 3000, Fragment: true}) },
	},
}

// sizesFaulty are paths on which some sizes do not pass.
var sizesFaulty = []sizeCase{
	{
		name: "black_hole", faults: silent(1400), proof: vanish(outside, 1400), hangs: true, outer: 1400,
		diagnosis: "mtu_black_hole", evidence: `(?i)underlay`,
		warns: "mss_not_clamped", rule: `maxseg|set-mss`, after: recommendation,
	},
	{
		name: "black_hole_behind_peer", faults: one(func(l *lab.Lab) *lab.Fault { return l.Swallow(lab.PeerLAN, 1301, lab.Largest) }),
		proof: vanish(inside, 1300), hangs: true, outer: 1500,
		diagnosis: "mtu_black_hole", evidence: `(?i)behind the peer`,
		warns: "mss_not_clamped", rule: `maxseg|set-mss`, after: recommendation,
	},
	{
		name: "black_hole_on_our_lan", behind: true,
		faults: func(l *lab.Lab) []*lab.Fault {
			return []*lab.Fault{l.A.Masquerade(true), l.A.AnswerAll(), l.Swallow(lab.OurLAN, 1301, lab.Largest)}
		},
		proof: vanish(inside, 1300), hangs: true,
		diagnosis: "mtu_black_hole", evidence: `(?i)our own LAN`,
	},
	{
		name: "too_big_filtered_here", hangs: true, outer: 1400,
		faults: func(l *lab.Lab) []*lab.Fault {
			return []*lab.Fault{l.A.Drop("INPUT", l.TooBig()), l.PathMTU(1400)}
		},
		proof: vanish(outside, 1400), diagnosis: "pmtud_icmp_filtered", evidence: `1400`, warns: "mss_not_clamped",
	},
	{
		name: "fragments_dropped", faults: one(func(l *lab.Lab) *lab.Fault { return l.ISP.Drop("FORWARD", l.Fragments()) }),
		proof: func(l *lab.Lab) {
			passes(l, lab.Ping{From: l.A.Node, To: l.Peer(), Size: 1500})
			if !(lab.Ping{From: l.A.Node, To: l.Peer(), Size: 3000, Fragment: true}).Lost() {
				l.T().Error("fragments pass: this lab is not what the case says")
			}
		},
		diagnosis: "fragments_dropped", outer: 1500, flags: []string{"--duration", "15s"},
	},
	{
		name: "reassembly_failing",
		faults: func(l *lab.Lab) []*lab.Fault {
			return []*lab.Fault{l.B.ReassemblyTime(1), l.ISP.Drop("FORWARD", "-o to-b -f")}
		},
		diagnosis: "reassembly_failing", outer: 1500, flags: longFlags,
	},
	{
		name: "fragments_must_be_in_order", faults: one((*lab.Lab).KeepFragmentsInOrder),
		proof: func(l *lab.Lab) {
			p := lab.Ping{From: l.A.Node, To: l.Peer(), Size: 2000, Fragment: true}
			passes(l, p)
			reordered := l.ReorderFragments()
			defer reordered.Heal()
			if !p.Lost() {
				l.T().Error("fragments out of order pass: this lab is not what the case says")
			}
		},
		info: "fragment_order_dropped", outer: 1500, flags: longFlags,
	},
	{
		name: "size_hole", faults: one(func(l *lab.Lab) *lab.Fault { return l.Swallow(lab.ProviderLink, 1373, 1472) }),
		proof: func(l *lab.Lab) {
			vanish(outside, 1372)(l)
			passes(l, lab.Ping{From: l.A.Node, To: l.Peer(), Size: 1473})
			passes(l, lab.Ping{From: l.A.Node, To: l.Peer(), Size: 1500})
		},
		diagnosis: "size_hole", evidence: `1[34]\d\d to 14\d\d bytes`, flags: []string{"--duration", "25s"},
	},
	{
		name: "df_cleared", faults: func(l *lab.Lab) []*lab.Fault { return []*lab.Fault{l.ClearDF(), l.PathMTU(1400)} },
		proof: func(l *lab.Lab) { passes(l, lab.Ping{From: l.A.Node, To: l.Peer(), Size: 1500}) },
		info:  "df_cleared_fragmented",
	},
	{
		name: "router_lies", faults: one(func(l *lab.Lab) *lab.Fault { return l.LieTooBig(1000, 900) }),
		proof: func(l *lab.Lab) {
			if said := (lab.Ping{From: l.A.Node, To: l.Peer(), Size: 1500}).Refused(); !strings.Contains(said, "900") {
				l.T().Errorf("the router says %q: this lab is not what the case says", said)
			}
			l.ForgetSizes()
		},
		diagnosis: "ptb_bogus", evidence: `900`, outer: 1500,
	},
	{
		name: "loss", faults: one(func(l *lab.Lab) *lab.Fault { return l.ISP.Netem("to-b", "loss 10%") }),
		diagnosis: "underlay_loss", never: sizeLabels, flags: []string{"--duration", "20s"}, outer: 1500,
	},
	{
		name: "black_hole_amid_loss",
		faults: func(l *lab.Lab) []*lab.Fault {
			return append(silent(1400)(l), l.ISP.Netem("to-b", "loss 10%"))
		},
		proof: vanish(outside, 1400), hangs: true, outer: 1400,
		diagnosis: "mtu_black_hole", evidence: `(?i)underlay`, flags: []string{"--duration", "20s"},
	},
}

// TestPathMTU measures what sizes pass, and says why others do not.
func TestPathMTU(t *testing.T) {
	t.Parallel()
	type group struct {
		name   string
		config lab.Config
		cases  []sizeCase
	}
	groups := []group{
		{"healthy", lab.Config{}, sizesHealthy},
		{"ipv6", lab.Config{IPv6: true}, []sizeCase{
			{name: "1400", faults: narrow(1400), proof: tells(1400), outer: 1400},
			{
				name: "black_hole", faults: silent(1400), proof: vanish(outside, 1400), hangs: true, outer: 1400,
				diagnosis: "mtu_black_hole", evidence: `(?i)underlay`, warns: "mss_not_clamped", after: recommendation,
			},
		}},
		{"nat", lab.Config{NAT: true}, []sizeCase{
			{name: "1400", faults: narrow(1400), proof: tells(1400), outer: 1400, info: "behind_nat"},
			{
				name: "black_hole", faults: silent(1400), proof: vanish(outside, 1400), hangs: true, outer: 1400,
				diagnosis: "mtu_black_hole", evidence: `(?i)underlay`, warns: "mss_not_clamped", after: recommendation,
			},
		}},
	}
	for cases := range slices.Chunk(sizesFaulty, maxTogether) {
		groups = append(groups, group{fmt.Sprintf("faulty_%d", len(groups)-2), lab.Config{}, cases})
	}
	for _, group := range groups {
		group.config.Timeout = 6 * time.Minute
		lab.Run(t, group.name, group.config, func(l *lab.Lab) {
			l.Establish()
			for _, c := range group.cases {
				c.check(l)
			}
		})
	}
}

func (c sizeCase) check(l *lab.Lab) {
	t := l.T()
	t.Helper()
	wrong := 0
	errorf := func(format string, args ...any) {
		t.Helper()
		wrong++
		t.Errorf(c.name+": "+format, args...)
	}
	faults := c.faults(l)
	t.Logf("%s", c.name)
	if c.proof != nil {
		c.proof(l)
	}
	if moved := l.Transfer(transfer); !moved.Connected || moved.Completed == c.hangs {
		errorf("TCP through the tunnel: %v: this lab is not what the case says", moved)
	}
	l.Declared.Behind = c.behind
	flags := c.flags
	if flags == nil {
		flags = sizeFlags
	}
	report := l.Probe(flags...)
	l.Declared.Behind = false
	c.judge(report, errorf)
	if c.after != nil {
		c.after(l, report)
	}
	for _, f := range faults {
		f.Heal()
	}
	l.ForgetSizes()
	if !l.Carries() {
		t.Fatalf("%s: the tunnel does not recover", c.name)
	}
	if wrong > 0 {
		t.Logf("%s: exit status %d, %s\n%s", c.name, report.ExitCode, report.Stderr, report.Raw)
	}
}

// judge checks what the agent said.
func (c sizeCase) judge(report *lab.Report, errorf func(string, ...any)) {
	want, exit := c.diagnosis, 1
	if want == "" {
		want, exit = "ok", 0
	}
	if report.Diagnosis != want || report.ExitCode != exit {
		errorf("diagnosis is %q, exit status %d; want %q and %d: %s", report.Diagnosis, report.ExitCode, want, exit, report.Summary)
	}
	expected := map[string]bool{c.diagnosis: true, c.info: true, c.warns: true, "ok": true}
	if c.hangs {
		expected["mss_not_clamped"] = true
	}
	for _, f := range report.Findings {
		if !expected[f.Diagnosis] && f.Severity != "info" && (exit == 0 || contains(sizeLabels, f.Diagnosis)) || contains(c.never, f.Diagnosis) {
			errorf("finding %s (%s): %q", f.Diagnosis, f.Severity, f.Evidence)
		}
	}
	for _, e := range []struct{ label, pattern string }{{c.diagnosis, c.evidence}, {c.info, ""}, {c.warns, c.rule}} {
		f := report.Finding(e.label)
		switch {
		case e.label == "":
		case f == nil:
			errorf("no finding %s", e.label)
		case (f.Severity == "info") != (e.label == c.info):
			errorf("finding %s is of severity %s", e.label, f.Severity)
		case !matches(e.pattern, strings.Join(f.Evidence, "\n")+"\n"+f.Remedy):
			errorf("evidence of %s does not match %q: %q; %s", e.label, e.pattern, f.Evidence, f.Remedy)
		}
	}
	measured := 0
	for _, m := range report.Evidence.MTUs {
		if m.Role == evidence.Gateway && m.Probe == evidence.MTUByICMP {
			measured = m.MTU.Or(0)
			most := mostPackets
			if len(m.Sizes) > mostPackets {
				most = mostSwept
			}
			if m.Packets > most {
				errorf("the search took %d packets", m.Packets)
			}
		}
	}
	if c.outer != 0 && measured != c.outer {
		errorf("%d bytes measured between the gateways, want %d", measured, c.outer)
	}
}

func contains(list []string, s string) bool {
	return strings.Contains(" "+strings.Join(list, " ")+" ", " "+s+" ")
}
