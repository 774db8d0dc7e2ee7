package diagnosis

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"vpnprobe/evidence"
)

// gcm is the sum of a tunnel with AES-GCM-16 over an underlay of outer bytes.
func gcm(outer int) evidence.Opt[evidence.TunnelMTU] {
	inside := (outer-20-8-8-16)/4*4 - 2
	return evidence.Some(evidence.TunnelMTU{
		Suite: "aes128gcm16", From: "kernel", Mode: "tunnel", Outer: outer, Measured: true,
		OuterIP: 20, ESP: 8, IV: 8, ICV: 16, Align: 4, Trailer: 2, Inner: inside, MSS4: inside - 40, MSS6: inside - 60,
	})
}

func search(role evidence.Role, state evidence.MTUState, mtu int) evidence.PathMTU {
	target := gateway
	if role == evidence.Inner {
		target = inner
	}
	m := evidence.PathMTU{
		Role: role, Target: target, Probe: evidence.MTUByICMP, Time: evidence.Some(now), State: state,
		MTU: evidence.Some(mtu), LinkMTU: evidence.Some(1500), Cached: evidence.Some(mtu),
		Small:      evidence.Tried{Sent: 4, Answered: 4},
		Fragmented: evidence.FragmentedProbe{Tried: evidence.Tried{Sent: 3, Answered: 3}, Reversed: evidence.Tried{Sent: 3, Answered: 3}},
		Cleared:    evidence.No,
		Sizes:      []evidence.SizeResult{{Size: mtu, Sent: 1, Answered: 1}},
	}
	if state != evidence.MTUFull {
		m.Sizes = append(m.Sizes, evidence.SizeResult{Size: mtu + 1, Sent: 3, TooBig: state == evidence.MTUReduced})
	}
	return m
}

func passes(role evidence.Role, mtu int) evidence.PathMTU { return search(role, evidence.MTUFull, mtu) }
func vanishes(role evidence.Role, mtu int) evidence.PathMTU {
	return search(role, evidence.MTUBlackHole, mtu)
}
func reduced(role evidence.Role, mtu int) evidence.PathMTU {
	return search(role, evidence.MTUReduced, mtu)
}

// edited is a search with a change.
func edited(m evidence.PathMTU, change func(m *evidence.PathMTU)) evidence.PathMTU {
	change(&m)
	return m
}

// sized is a tunnel with searches of sizes.
func sized(outer int, list ...evidence.PathMTU) func(*evidence.Snapshot) {
	return func(s *evidence.Snapshot) {
		onWire(s)
		numbered(&s.Capture)
		s.MTUs, s.TunnelMTU = list, gcm(outer)
		s.Declared.LocalSubnets = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")}
		s.Declared.RemoteSubnets = []netip.Prefix{netip.MustParsePrefix("10.2.0.0/24")}
	}
}

func both(list ...func(*evidence.Snapshot)) func(*evidence.Snapshot) {
	return func(s *evidence.Snapshot) {
		for _, change := range list {
			change(s)
		}
	}
}

func tcp(change func(t *evidence.TCPSize)) func(*evidence.Snapshot) {
	return func(s *evidence.Snapshot) {
		t := evidence.TCPSize{Target: netip.AddrPortFrom(inner, 22), Time: now, Service: "ssh", MSS: evidence.Some(1460), Sent: evidence.Some(1400), Acked: evidence.Yes, Stalled: evidence.No}
		change(&t)
		s.TCPSizes = []evidence.TCPSize{t}
	}
}

// behindGateway is an agent on a host of the LAN, whose gateway has the tunnel.
func behindGateway(s *evidence.Snapshot) {
	s.Host.Tunnel = evidence.Tunnel{Readable: evidence.Yes, Policy: evidence.No}
	s.Host.Daemon = evidence.No
}

func lost(after, before string, size int) func(m *evidence.PathMTU) {
	return func(m *evidence.PathMTU) {
		l := evidence.LostBetween{Size: size}
		if after != "" {
			l.After, l.Hops = netip.MustParseAddr(after), 1
		}
		if before != "" {
			l.Before = netip.MustParseAddr(before)
		}
		m.Lost = evidence.Some(l)
	}
}

func clamps(list ...evidence.MSSClamp) func(*evidence.Snapshot) {
	return func(s *evidence.Snapshot) {
		s.Host.MSSClamps = evidence.MSSClamps{Readable: evidence.Yes, Rules: list}
	}
}

func TestSizes(t *testing.T) {
	const blackHole = "mtu_black_hole"
	fixed := func(mss int, covers evidence.Fact) evidence.MSSClamp {
		return evidence.MSSClamp{Tool: "nft", Where: "inet filter forward", Rule: "maxseg size set", MSS: evidence.Some(mss), V4: true, V6: true, Covers: covers}
	}
	bogus := func(m *evidence.PathMTU) {
		m.Bogus = []evidence.CountedICMPError{{Count: 3, ICMPError: evidence.ICMPError{Reason: evidence.FragNeeded, MTU: evidence.Some(600), Offender: evidence.Some(isp)}}}
	}
	noFragments := func(m *evidence.PathMTU) {
		m.Fragmented.Answered, m.Fragmented.Reversed.Answered = 0, 0
	}
	noIKEFragments := func(s *evidence.Snapshot) {
		s.Ladder = evidence.Ladder{Time: evidence.Some(now), Large: []evidence.LargeIKE{{Port: 500, SmallBytes: 200, LargeBytes: 2000, SmallSent: 3, SmallAnswered: 3, LargeSent: 3}}}
	}
	tests := []struct {
		name   string
		change func(*evidence.Snapshot)
		want   Label
		info   Label  // a finding that is worth knowing only
		says   string // in the evidence of want, or info
	}{
		{"nothing in the way", sized(1500, passes(evidence.Gateway, 1500), passes(evidence.Inner, 1446)), OK, "", ""},
		{"a smaller path, and a hop says so", sized(1400, reduced(evidence.Gateway, 1400), reduced(evidence.Inner, 1346)), OK, "", ""},
		{"behind the peer, and a hop says so", sized(1500, passes(evidence.Gateway, 1500), reduced(evidence.Inner, 1300)), OK, "", ""},
		{"no search was answered", sized(1500, evidence.PathMTU{Role: evidence.Gateway, Target: gateway, Probe: evidence.MTUByICMP, Packets: 3}), OK, "", ""},

		{"black hole at the provider", sized(1400, vanishes(evidence.Gateway, 1400), vanishes(evidence.Inner, 1346)), blackHole, "", "side: underlay"},
		{"black hole outside, as IKE tells too", sized(1400, vanishes(evidence.Gateway, 1400),
			edited(vanishes(evidence.Gateway, 1396), func(m *evidence.PathMTU) { m.Probe = evidence.MTUByIKE })), blackHole, "", "side: underlay"},
		{"gateway ignores large pings", sized(1500, vanishes(evidence.Gateway, 1000), passes(evidence.Inner, 1446)), OK, blackHole, "ignore large ones"},
		{"gateway ignores large pings, IKE passes", sized(1500, vanishes(evidence.Gateway, 1000),
			edited(passes(evidence.Gateway, 1500), func(m *evidence.PathMTU) { m.Probe = evidence.MTUByIKE })), OK, blackHole, "ignore large ones"},
		{"black hole behind the peer", sized(1500, passes(evidence.Gateway, 1500), edited(vanishes(evidence.Inner, 1300), lost("10.2.0.1", "", 1301))), blackHole, "", "side: behind the peer"},
		{"black hole behind the peer, no hop tells", sized(1500, passes(evidence.Gateway, 1500), vanishes(evidence.Inner, 1300)), blackHole, "", "not the underlay"},
		{"inner host ignores large pings, TCP passes", both(sized(1500, passes(evidence.Gateway, 1500), vanishes(evidence.Inner, 1300)), tcp(func(*evidence.TCPSize) {})), OK, "", ""},
		{"black hole on our LAN", both(sized(1500, passes(evidence.Gateway, 1500), edited(vanishes(evidence.Inner, 1200), lost("", "10.1.0.1", 1201))), behindGateway), blackHole, "", "our own LAN"},
		{"ssh freezes", both(sized(1500, passes(evidence.Gateway, 1500), passes(evidence.Inner, 1446)), tcp(func(t *evidence.TCPSize) { t.Acked = evidence.No })), blackHole, "", "not acknowledged"},
		{"the answer freezes", both(sized(1500, passes(evidence.Gateway, 1500)), tcp(func(t *evidence.TCPSize) { t.Stalled = evidence.Yes; t.Received = evidence.Some(500) })), blackHole, "", "never comes"},

		{"this host's firewall drops too big", both(sized(1400, edited(vanishes(evidence.Gateway, 1400), func(m *evidence.PathMTU) { m.Cached = evidence.Some(1500) }), vanishes(evidence.Inner, 1346)), func(s *evidence.Snapshot) {
			s.Capture.ICMP = []evidence.WireICMP{{Sender: isp, Reason: evidence.FragNeeded, MTU: evidence.Some(1400), About: "icmp", Ours: true, Count: 3, Last: now}}
		}), "pmtud_icmp_filtered", "", "not its IP"},
		{"an old too big of another size", both(sized(1400, vanishes(evidence.Gateway, 1400), vanishes(evidence.Inner, 1346)), func(s *evidence.Snapshot) {
			s.Capture.ICMP = []evidence.WireICMP{{Sender: isp, Reason: evidence.FragNeeded, MTU: evidence.Some(1480), About: "icmp", Ours: true, Count: 3, Last: now}}
		}), blackHole, "", "side: underlay"},
		{"our gateway keeps quiet", both(sized(1500, passes(evidence.Gateway, 1500), edited(vanishes(evidence.Inner, 1446), lost("10.1.0.1", "", 1447))), behindGateway), "pmtud_icmp_filtered", "", "has to say so"},
		{"smaller than the tunnel takes", both(sized(1500, passes(evidence.Gateway, 1500), edited(vanishes(evidence.Inner, 1400), lost("10.1.0.1", "", 1401))), behindGateway), blackHole, "", "10.1.0.1"},

		{"fragments dropped", both(sized(1500, edited(passes(evidence.Gateway, 1500), noFragments)), noIKEFragments), "fragments_dropped", "", "0 of 3"},
		{"gateway ignores pings in fragments", both(sized(1500, edited(passes(evidence.Gateway, 1500), noFragments)), func(s *evidence.Snapshot) {
			noIKEFragments(s)
			s.Ladder.Large[0].LargeAnswered = 3
		}), OK, "fragments_dropped", "ignores pings"},
		{"pings in fragments are lost, nothing else is sent in any", sized(1500, edited(passes(evidence.Gateway, 1500), noFragments)), OK, "fragments_dropped", "sends none"},
		{"fragments out of order are lost, and some are sent", both(sized(1500, edited(passes(evidence.Gateway, 1500), func(m *evidence.PathMTU) { m.Fragmented.Reversed.Answered = 0 })),
			func(s *evidence.Snapshot) { s.Capture.Out.Fragments.ESP = evidence.FragmentCount{First: 1, Last: 1} }), "fragment_order_dropped", "", "last one first"},
		{"fragments out of order are lost, none is sent", sized(1500, edited(passes(evidence.Gateway, 1500), func(m *evidence.PathMTU) { m.Fragmented.Reversed.Answered = 0 })), OK, "fragment_order_dropped", ""},
		{"fragments stay incomplete", both(sized(1500, edited(passes(evidence.Gateway, 1500), func(m *evidence.PathMTU) { m.Fragmented.Answered, m.Fragmented.Expired = 0, 1 })), noIKEFragments), "reassembly_failing", "", "gave up on 1"},
		{"pings in fragments stay incomplete, nothing else is sent in any", sized(1500, edited(passes(evidence.Gateway, 1500), func(m *evidence.PathMTU) { m.Fragmented.Expired = 1 })), OK, "reassembly_failing", "sends none"},
		{"one inner host ignores large pings, another does not", both(sized(1500, passes(evidence.Gateway, 1500), vanishes(evidence.Inner, 1024),
			edited(passes(evidence.Inner, 1446), func(m *evidence.PathMTU) { m.Target = inner.Next() }))), OK, "", ""},
		{"a black hole outside that TCP is kept from", both(sized(1492, vanishes(evidence.Gateway, 1492),
			edited(vanishes(evidence.Gateway, 1492), func(m *evidence.PathMTU) { m.Probe = evidence.MTUByIKE })), tcp(func(*evidence.TCPSize) {})), OK, blackHole, "side: underlay"},

		{"hole", sized(1500, edited(passes(evidence.Gateway, 1500), func(m *evidence.PathMTU) { m.Holes = []evidence.SizeRange{{From: 1373, To: 1472}} })), "size_hole", "", "1373 to 1472"},
		{"hole inside", sized(1500, passes(evidence.Gateway, 1500), edited(passes(evidence.Inner, 1446), func(m *evidence.PathMTU) { m.Holes = []evidence.SizeRange{{From: 1300, To: 1400}} })), "size_hole", "", "1300 to 1400"},
		{"DF cleared, and the tunnel hangs", sized(1500, edited(passes(evidence.Gateway, 1500), func(m *evidence.PathMTU) { m.Cleared = evidence.Yes }), vanishes(evidence.Inner, 1300)), blackHole, "", ""},
		{"DF cleared, harmless", sized(1500, edited(passes(evidence.Gateway, 1500), func(m *evidence.PathMTU) { m.Cleared = evidence.Yes }), passes(evidence.Inner, 1446)), OK, "df_cleared_fragmented", "don't fragment"},

		{"the answers to our own pings come in fragments", both(sized(1500, passes(evidence.Gateway, 1500), passes(evidence.Inner, 1446)),
			func(s *evidence.Snapshot) { s.Capture.In.Fragments.ESP = evidence.FragmentCount{First: 30, Last: 30} }), OK, "", ""},
		{"more than the answers to our own pings comes in fragments", both(sized(1500, passes(evidence.Gateway, 1500), passes(evidence.Inner, 1446)),
			func(s *evidence.Snapshot) { s.Capture.In.Fragments.ESP = evidence.FragmentCount{First: 100, Last: 100} }), "esp_fragmented", "", "100 packets of ESP"},
		{"a lie that is believed", sized(1500, edited(edited(passes(evidence.Gateway, 1500), bogus), func(m *evidence.PathMTU) { m.Cached = evidence.Some(600) })), "ptb_bogus", "", "believes it"},
		{"a lie that is not", sized(1500, edited(passes(evidence.Gateway, 1500), bogus)), OK, "ptb_bogus", "600"},
		{"a route with an MTU of its own", sized(1500, edited(passes(evidence.Gateway, 1500), func(m *evidence.PathMTU) { m.Cached = evidence.Some(1400) })), OK, "pmtu_cache_stale", "1400"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := healthy()
			tt.change(s)
			r := Evaluate(s)
			if r.Findings[0].Label != tt.want {
				t.Fatalf("diagnosis is %s, want %s: %v", r.Findings[0].Label, tt.want, r.Findings)
			}
			label := tt.want
			if tt.info != "" {
				label = tt.info
			}
			i := slices.IndexFunc(r.Findings, func(f Finding) bool { return f.Label == label })
			if i < 0 {
				t.Fatalf("no %s among the findings: %v", label, r.Findings)
			}
			if tt.info != "" && r.Findings[i].Severity != Info {
				t.Errorf("%s is %s, want info", label, r.Findings[i].Severity)
			}
			var all []string
			for _, e := range r.Findings[i].Evidence {
				all = append(all, e.EN)
			}
			if text := strings.Join(all, "; "); !strings.Contains(text, tt.says) {
				t.Errorf("evidence %q does not say %q", text, tt.says)
			}
		})
	}

	stuck := sized(1500, passes(evidence.Gateway, 1500), edited(vanishes(evidence.Inner, 1300), lost("10.2.0.1", "", 1301)))
	fine := sized(1500, passes(evidence.Gateway, 1500), passes(evidence.Inner, 1446))
	clamp := []struct {
		name   string
		change func(*evidence.Snapshot)
		says   string // "" for no finding
	}{
		{"no rule", both(stuck, clamps()), "ip daddr 10.2.0.0/24 tcp flags syn tcp option maxseg size set 1260"},
		{"a rule that follows the route", both(stuck, clamps(evidence.MSSClamp{V4: true, Covers: evidence.Yes})), "set 1260"},
		{"a rule that is too generous", both(stuck, clamps(fixed(1400, evidence.Yes))), "set 1260"},
		{"a rule for other traffic", both(stuck, clamps(fixed(1200, evidence.No))), "set 1260"},
		{"a rule that does", both(stuck, clamps(fixed(1260, evidence.Yes))), ""},
		{"a rule that may", both(stuck, clamps(fixed(1200, evidence.Unknown))), ""},
		{"no rule, no need", both(fine, clamps()), ""},
		{"not read", stuck, ""},
		{"not the gateway", both(stuck, clamps(), behindGateway), ""},
	}
	for _, tt := range clamp {
		t.Run("clamp: "+tt.name, func(t *testing.T) {
			s := healthy()
			tt.change(s)
			r := Evaluate(s)
			i := slices.IndexFunc(r.Findings, func(f Finding) bool { return f.Label == "mss_not_clamped" })
			if (i >= 0) != (tt.says != "") {
				t.Fatalf("findings: %v", r.Findings)
			}
			if i >= 0 {
				text := ""
				for _, e := range r.Findings[i].Evidence {
					text += e.EN + "\n"
				}
				if !strings.Contains(text, tt.says) {
					t.Errorf("evidence %q does not say %q", text, tt.says)
				}
			}
		})
	}
}
