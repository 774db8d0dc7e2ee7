package exporter

import (
	"net/netip"
	"testing"
	"time"

	"vpnprobe/diagnosis"
	"vpnprobe/evidence"
)

var (
	start   = time.Date(2026, 3, 1, 3, 0, 0, 0, time.UTC)
	gateway = netip.MustParseAddr("198.51.100.2")
	inner   = netip.MustParseAddr("10.2.0.10")
)

// newTest returns an exporter at the time start.
func newTest(t *testing.T, peers ...string) *Exporter {
	t.Helper()
	e := New("1.2.3")
	e.now = func() time.Time { return start }
	e.SetPeers(peers)
	return e
}

func both(en, zh string) diagnosis.Text { return diagnosis.Text{EN: en, ZH: zh} }

func finding(label diagnosis.Label, severity diagnosis.Severity, role diagnosis.Role) diagnosis.Finding {
	return diagnosis.Finding{
		Label: label, Severity: severity, Confidence: diagnosis.Likely, Role: role,
		Evidence: []diagnosis.Text{both("seen "+string(label), "观测到 "+string(label))},
		Remedy:   both("mend "+string(label), "修复 "+string(label)),
	}
}

// report returns a report with a full snapshot.
func report(peer string, at time.Time, findings ...diagnosis.Finding) *diagnosis.Report {
	rtt := func(ms int) evidence.Opt[evidence.RTT] {
		d := evidence.Seconds(time.Duration(ms) * time.Millisecond)
		return evidence.Some(evidence.RTT{Min: d, Median: d, P90: d, Max: d})
	}
	return &diagnosis.Report{
		Peer: peer, Gateway: gateway.String(), Time: at, Duration: 10 * time.Second, Findings: findings,
		Summary: both("Summary of "+peer+".", peer+" 的结论。"),
		Snapshot: &evidence.Snapshot{
			Peer: peer, Time: at,
			Declared: evidence.Declared{MaxLoss: 0.02, References: []netip.Addr{netip.MustParseAddr("192.0.2.53")}, Inner: []netip.Addr{inner}},
			Echoes: []evidence.EchoSeries{
				{Role: evidence.Gateway, Target: gateway, Sent: 10, Replies: 9, Lost: 1, RTT: rtt(12)},
				{Role: evidence.Inner, Target: inner, Sent: 10, Lost: 10},
			},
			MTUs: []evidence.PathMTU{
				{Role: evidence.Gateway, Target: gateway, Time: evidence.Some(at), MTU: evidence.Some(1400), State: evidence.MTUReduced, Cached: evidence.Some(1400), Packets: 9},
				{
					Role: evidence.Inner, Target: inner, Time: evidence.Some(at), MTU: evidence.Some(1338), State: evidence.MTUBlackHole, Cached: evidence.Some(1438), Packets: 34,
					Fragmented: evidence.FragmentedProbe{Tried: evidence.Tried{Sent: 3}, Reversed: evidence.Tried{Sent: 3}},
				},
				{Role: evidence.Inner, Target: netip.MustParseAddr("10.2.0.11"), Time: evidence.Some(at), MTU: evidence.Some(1346), State: evidence.MTUReduced, Packets: 3},
				{Role: evidence.Reference},
			},
			TunnelMTU: evidence.Some(evidence.TunnelMTU{Suite: "aes128gcm16", From: "kernel", Mode: "tunnel", Outer: 1400, Measured: true, Inner: 1346, MSS4: 1306, MSS6: 1286}),
			TCPSizes:  []evidence.TCPSize{{Target: netip.MustParseAddrPort("10.2.0.10:443"), Acked: evidence.No, Stalled: evidence.Yes}},
			Capture:   capture(),
			Ladder:    ladder(at),
		},
	}
}

// ladder is a peer behind a NAT that takes another group than the declared one.
func ladder(at time.Time) evidence.Ladder {
	init := evidence.IKEExchange{Step: evidence.StepInit, Port: 500, Sent: at.Add(-34 * time.Second), Requests: 1, Outcome: evidence.IKEAnswered, Answer: evidence.AnswerAccepted}
	reused := init
	reused.Reused = true
	return evidence.Ladder{
		Time: evidence.Some(at.Add(-34 * time.Second)),
		Exchanges: []evidence.IKEExchange{
			{Step: evidence.StepDeclared, Port: 500, Requests: 2, Outcome: evidence.IKEAnswered, Answer: evidence.AnswerNoProposal},
			{Step: evidence.StepWide, Port: 500, Requests: 1, Outcome: evidence.IKEAnswered, Answer: evidence.AnswerWrongGroup},
			{Step: evidence.StepBisect, Port: 500, Requests: 3, Outcome: evidence.IKESilent},
			{Step: evidence.StepVersion, Port: 4500, Outcome: evidence.IKEAnswered, Answer: "never heard of"},
			init, reused,
		},
		Skipped: []evidence.SkippedStep{{Step: evidence.StepMain, Reason: evidence.SkipBudget}, {Step: evidence.StepMainWide, Reason: evidence.SkipBudget}},
		V2:      evidence.IKEOffers{Answers: evidence.Yes, Accepts: evidence.Yes, Declared: evidence.No},
		Main:    evidence.IKEOffers{Answers: evidence.No, Accepts: evidence.No, Declared: evidence.No},
		Mismatches: []evidence.Mismatch{
			{Attribute: evidence.Group, Declared: []string{"modp1024"}, Accepts: []string{"modp2048"}},
		},
		Cookie:   true,
		Features: evidence.IKEFeatures{Implementation: "strongSwan", NATHere: evidence.Yes, NATThere: evidence.No},
		Large:    []evidence.LargeIKE{{Port: 4500, SmallSent: 3, SmallAnswered: 3, LargeSent: 3, LargeAnswered: 1}},
		TCP:      evidence.IKEOverTCP{Connected: evidence.No},
	}
}

// capture is a window in which something of everything passed.
func capture() evidence.Capture {
	rtt := func(ms int) evidence.Seconds { return evidence.Seconds(time.Duration(ms) * time.Millisecond) }
	return evidence.Capture{
		Mode: evidence.CaptureRing, Why: evidence.CaptureNoPermission, Blind: evidence.No, Over: rtt(10000), Watched: rtt(10000),
		In: evidence.WireTraffic{
			ESP: evidence.Traffic{Packets: 300, Bytes: 30000}, IKE: map[string]uint64{"IKE_SA_INIT": 1, "INFORMATIONAL": 2},
			Sequence:  evidence.Sequence{Expected: 310, Lost: 11, Duplicates: 1, Reordered: 4, Depth: 12, Discontinuities: 1},
			Fragments: evidence.Fragments{IKE: evidence.FragmentCount{First: 2, Middle: 1, Last: 1}},
		},
		Out: evidence.WireTraffic{
			ESPInUDP: evidence.Traffic{Packets: 4, Bytes: 400}, AH: evidence.Traffic{Packets: 1, Bytes: 99}, NATKeepalives: 5,
			Sequence:  evidence.Sequence{Expected: 6, Lost: 1},
			Fragments: evidence.Fragments{ESP: evidence.FragmentCount{First: 2, Last: 2}, ESPInUDP: evidence.FragmentCount{First: 1, Last: 1}},
		},
		Forgotten:  3,
		ICMPErrors: map[evidence.ICMPReason]uint64{evidence.FragNeeded: 2},
		Leaks:      []evidence.Leak{{Kind: evidence.LeakRewritten, Packets: 5}, {Kind: "never heard of", Packets: 1}},
		Talk: evidence.IKETalk{
			In:     evidence.IKEDirection{Requests: 3, Answered: 2, Unanswered: 1, Retransmissions: 2, DPD: evidence.IKEDPD{Requests: 2, Answered: 1, Missed: 1, Trailing: 1, RTTs: []evidence.Seconds{rtt(1)}}},
			Out:    evidence.IKEDirection{Requests: 5, Answered: 5, DPD: evidence.IKEDPD{Requests: 2, Answered: 2, RTTs: []evidence.Seconds{rtt(11), rtt(13)}}},
			Rekeys: 2, RekeysFailed: 1, Attempts: 2,
			Newest: evidence.Some(evidence.IKENegotiation{Version: 2, Ours: true, Reached: evidence.ReachedRejected, Encrypted: true, AnswerBytes: 80, Repeated: 2}),
		},
	}
}

func reply(rtt time.Duration) evidence.EchoResult {
	return evidence.EchoResult{Target: gateway, Role: evidence.Gateway, Outcome: evidence.EchoReply, RTT: rtt}
}

func lost() evidence.EchoResult {
	return evidence.EchoResult{Target: gateway, Role: evidence.Gateway, Outcome: evidence.EchoLost}
}

// everything makes an exporter show every series that it has.
func everything(t *testing.T) *Exporter {
	e := newTest(t, "cloud")
	e.Observe("cloud", reply(12*time.Millisecond))
	e.Observe("cloud", lost())
	e.Observe("cloud", lost())
	e.Observe("cloud", evidence.EchoResult{Target: gateway, Role: evidence.Gateway, Late: true, RTT: time.Second})
	e.Observe("cloud", reply(15*time.Millisecond))
	e.Observe("cloud", evidence.EchoResult{Target: gateway, Role: evidence.Gateway, Duplicate: true, Reordered: true})
	e.Observe("cloud", evidence.EchoResult{Target: gateway, Role: evidence.Gateway, Outcome: evidence.EchoSendError, Send: evidence.NoRoute})
	e.Observe("cloud", evidence.EchoResult{Target: gateway, Role: evidence.Gateway, Outcome: evidence.EchoSendError, Send: "never heard of"})
	e.Observe("cloud", evidence.EchoResult{Target: inner, Role: evidence.Inner, Outcome: evidence.EchoLost, ICMP: &evidence.ICMPError{Reason: evidence.AdminProhibited}})
	e.Observe("cloud", evidence.EchoResult{Target: inner, Role: "no such role", Outcome: evidence.EchoLost})
	rtt := evidence.Some(evidence.Seconds(11 * time.Millisecond))
	for _, r := range []evidence.IKEResult{
		{Port: 500, Requests: 1, Outcome: evidence.IKEAnswered, Notify: "INVALID_MAJOR_VERSION", RTT: rtt},
		{Port: 500, Requests: 1, Outcome: evidence.IKEAnswered, Notify: "SOMETHING_ELSE", RTT: rtt, Unsolicited: 2},
		{Port: 500, Requests: 3, Outcome: evidence.IKESilent},
		{Port: 4500, Requests: 1, Outcome: evidence.IKEProhibited},
		{Port: 4500, Requests: 0, Outcome: evidence.IKESendError, Send: evidence.Prohibited},
	} {
		e.ObserveIKE("cloud", r)
	}
	e.ObserveIKE("cloud", evidence.IKEResult{Port: 500, Requests: 3, Outcome: evidence.IKEAnswered, Notify: "NO-PROPOSAL-CHOSEN", RTT: rtt})
	e.ObserveLadder("cloud", ladder(start))
	e.ObserveLadder("cloud", evidence.Ladder{Skipped: []evidence.SkippedStep{{Step: evidence.StepInit, Reason: evidence.SkipNoState}}}) // never began
	e.ObserveAuth("cloud", evidence.IKEAuth{Stage: evidence.StageChild, Notify: "TS_UNACCEPTABLE"})
	e.ObserveAuth("cloud", evidence.IKEAuth{Skipped: "the tunnel is up"})
	e.ObserveTCP("cloud", evidence.TCPResult{Connected: evidence.Yes, RTT: rtt})
	e.ObserveTCP("cloud", evidence.TCPResult{Connected: evidence.No, Refused: true, RTT: rtt})
	e.ObserveTCP("cloud", evidence.TCPResult{Connected: evidence.No})
	e.ObserveTCP("cloud", evidence.TCPResult{}) // could not try
	for _, m := range []evidence.PathMTU{
		{Role: evidence.Gateway, Target: gateway, MTU: evidence.Some(1500), Packets: 1},
		{
			Role: evidence.Gateway, Target: gateway, MTU: evidence.Some(1400), Packets: 9,
			Fragmented: evidence.FragmentedProbe{Tried: evidence.Tried{Sent: 3, Answered: 3}, Reversed: evidence.Tried{Sent: 2, Answered: 1}},
		},
		{Role: evidence.Inner, Target: inner, Packets: 34},
		{Role: evidence.Inner, Target: inner, CannotLook: "why"}, // not a search
		{Role: "no such role", Packets: 1},
	} {
		e.ObservePathMTU("cloud", m)
	}
	e.AddCapture("cloud", capture())
	missed := capture() // a window that tells no loss
	missed.Dropped = 7
	e.AddCapture("cloud", missed)
	e.AddTunnel("cloud", evidence.Traffic{Packets: 8, Bytes: 800}, evidence.Traffic{Packets: 9, Bytes: 900})
	e.Publish(report("cloud", start, finding("peer_firewall_drops_ike", diagnosis.Critical, diagnosis.Cause),
		finding("underlay_loss", diagnosis.Warning, diagnosis.Contributing), finding("inner_unreachable", diagnosis.Critical, diagnosis.Suppressed)))
	e.Reloaded(false, start.Add(time.Hour))
	return e
}
