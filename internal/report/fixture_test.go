package report

import (
	"net/netip"
	"time"

	"vpnprobe/diagnosis"
	"vpnprobe/evidence"
)

var now = time.Date(2026, 3, 1, 3, 12, 7, 0, time.UTC)

func ms(n float64) evidence.Seconds { return evidence.Seconds(n * float64(time.Millisecond)) }

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func both(en, zh string) diagnosis.Text { return diagnosis.Text{EN: en, ZH: zh} }

// filtered is a peer whose firewall drops IKE, with a little of everything
// beside it.
func filtered() *diagnosis.Report {
	s := &evidence.Snapshot{
		Peer: "cloud", Time: now, Window: evidence.Seconds(10 * time.Second),
		Declared: evidence.Declared{
			Gateway: "198.51.100.2", Interface: "wan", MaxLoss: 0.02, MaxRTT: ms(250),
			LocalSubnets: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")}, Inner: []netip.Addr{addr("10.2.0.10")},
		},
		Addresses: []netip.Addr{addr("198.51.100.2")},
		Host: evidence.Host{
			Route: evidence.Route{
				Kind: evidence.RouteUnicast, Interface: "wan", Source: evidence.Some(addr("203.0.113.2")),
				NextHop: evidence.Some(addr("203.0.113.1")), Neighbour: evidence.Yes, Tunnel: evidence.No,
			},
			Underlay: evidence.Link{Name: "wan", Exists: evidence.Yes, Up: evidence.Yes, Carrier: evidence.Yes, MTU: evidence.Some(1500)},
			Tunnel: evidence.Tunnel{
				Readable: evidence.Yes, Policy: evidence.Yes, Over: evidence.Seconds(10 * time.Second),
				SAs:    []evidence.SA{{Inbound: true, Protocol: "esp", Mode: "tunnel", Created: now}, {Protocol: "esp", Mode: "tunnel", Created: now}},
				Out:    evidence.Traffic{Packets: 12, Bytes: 1776},
				LastIn: evidence.Some(now.Add(-61 * time.Second)),
			},
			Daemon: evidence.Yes,
		},
		Echoes: []evidence.EchoSeries{
			{
				Role: evidence.Gateway, Target: addr("198.51.100.2"), Sent: 10, Replies: 9, Lost: 1, Late: 1,
				RTT: evidence.Some(evidence.RTT{Min: ms(11), Median: ms(12.3), P90: ms(15.04), Max: ms(16), Jitter: ms(1)}),
			},
			{
				Role: evidence.Reference, Target: addr("192.0.2.53"), Sent: 10, Replies: 8,
				SendErrors: map[evidence.SendReason]int{evidence.NoBuffer: 2},
				RTT:        evidence.Some(evidence.RTT{Min: ms(0.2), Median: ms(0.31), P90: ms(1240), Max: ms(1300), Jitter: ms(1)}),
			},
			{
				Role: evidence.Inner, Target: addr("10.2.0.10"), Sent: 10, Lost: 10, LongestRun: 10, InOutages: 10, Trailing: 10,
				ICMPErrors: []evidence.CountedICMPError{{ICMPError: evidence.ICMPError{Reason: evidence.HostUnreachable, Type: 3, Code: 1, Offender: evidence.Some(addr("203.0.113.9"))}, Count: 3}},
			},
		},
		IKE: []evidence.IKEPort{
			{Port: 500, Results: []evidence.IKEResult{{Port: 500, Sent: now, Request: evidence.VersionProbe, Requests: 3, Outcome: evidence.IKESilent}}},
			{Port: 4500, Results: []evidence.IKEResult{{
				Port: 4500, Sent: now, Request: evidence.VersionProbe, Requests: 1, Outcome: evidence.IKEProhibited,
				ICMP: &evidence.ICMPError{Reason: evidence.AdminProhibited, Type: 3, Code: 13, Offender: evidence.Some(addr("203.0.113.9"))},
			}}},
		},
		TCP: []evidence.TCPResult{{Target: netip.MustParseAddrPort("10.2.0.10:443"), Sent: now, Connected: evidence.No, Reason: "timed out after 2s"}},
		Hop: evidence.InnerHop{Sent: 3, Ever: evidence.Yes},
		MTUs: []evidence.PathMTU{{
			Role: evidence.Gateway, Target: addr("198.51.100.2"), Time: evidence.Some(now), State: evidence.MTUReduced,
			MTU: evidence.Some(1400), LinkMTU: evidence.Some(1500), Packets: 9,
			TooBig: []evidence.CountedICMPError{{ICMPError: evidence.ICMPError{Reason: evidence.FragNeeded, Type: 3, Code: 4, MTU: evidence.Some(1400), Offender: evidence.Some(addr("203.0.113.1"))}, Count: 1}},
			Sizes:  []evidence.SizeResult{{Size: 1400, Sent: 1, Answered: 1}, {Size: 1500, Sent: 1, TooBig: true}},
		}},
		Capture: evidence.Capture{
			Mode: evidence.CaptureRing, Why: evidence.CaptureNoPermission, Reason: "needs CAP_BPF: sudo setcap cap_bpf,cap_net_admin,cap_net_raw+ep agent",
			Blind: evidence.No, Dropped: 4, Over: evidence.Seconds(10 * time.Second), Watched: evidence.Seconds(2500 * time.Millisecond),
			Out: evidence.WireTraffic{
				ESP: evidence.Traffic{Packets: 12, Bytes: 1992}, IKE: map[string]uint64{"IKE_SA_INIT": 5},
				Sequence:  evidence.Sequence{Expected: 14, Lost: 2},
				Fragments: evidence.Fragments{ESP: evidence.FragmentCount{First: 2}},
			},
			Talk: evidence.IKETalk{
				Out: evidence.IKEDirection{Requests: 1, Retransmissions: 4, Unanswered: 1},
				Newest: evidence.Some(evidence.IKENegotiation{
					Version: 2, Ours: true, Began: now.Add(-9 * time.Second), Last: now.Add(-2 * time.Second), Reached: evidence.ReachedAsked, Repeated: 1,
				}),
			},
			ICMPErrors: map[evidence.ICMPReason]uint64{evidence.AdminProhibited: 1},
			ICMP: []evidence.WireICMP{{
				Sender: addr("203.0.113.9"), Reason: evidence.AdminProhibited, About: "udp4500", Ours: true, Count: 1, Last: now.Add(-4 * time.Second),
			}},
		},
	}
	return &diagnosis.Report{
		Peer: "cloud", Gateway: "198.51.100.2", Time: now, Duration: 10 * time.Second, Snapshot: s,
		Summary: both("The gateway answers ping, but a filter in front of it discards IKE, so no tunnel can be set up.",
			"网关可以 ping 通，但其前方的过滤设备丢弃了 IKE 报文，因此隧道无法建立。"),
		Findings: []diagnosis.Finding{
			{
				Label: "peer_firewall_drops_ike", Severity: diagnosis.Critical, Confidence: diagnosis.Likely, Role: diagnosis.Cause,
				Evidence: []diagnosis.Text{
					both("UDP 500: 3 requests sent over 10 s, no answer and no ICMP error", "UDP 500：10 秒内发送 3 个请求，没有应答，也没有 ICMP 错误"),
					both("UDP 4500: 203.0.113.9 says that a filter forbids it (ICMP type 3 code 13)", "UDP 4500：203.0.113.9 表示被过滤规则禁止（ICMP 类型 3 代码 13）"),
				},
				Remedy: both("Allow UDP 500 and 4500 and IP protocol 50 from 203.0.113.2 in the security group and the ACL of the peer.\nThen run the probe again.",
					"在对端的安全组和 ACL 中放通来自 203.0.113.2 的 UDP 500、4500 和 IP 协议 50。\n然后重新探测。"),
			},
			{
				Label: "underlay_loss", Severity: diagnosis.Warning, Confidence: diagnosis.Certain, Role: diagnosis.Contributing,
				Evidence: []diagnosis.Text{both("10 % of 10 echo requests were lost, above the limit of 2 %", "10 个回显请求丢失 10 %，高于 2 % 的上限")},
				Remedy:   both("Ask the provider about the path to 198.51.100.2.", "请联系运营商检查到 198.51.100.2 的路径。"),
			},
			{Label: "natt_blocked", Severity: diagnosis.Critical, Confidence: diagnosis.Likely, Role: diagnosis.Suppressed, Evidence: []diagnosis.Text{both("e", "e")}},
			{Label: "inner_unreachable", Severity: diagnosis.Critical, Confidence: diagnosis.Possible, Role: diagnosis.Suppressed, Evidence: []diagnosis.Text{both("e", "e")}},
		},
	}
}

// healthy is a peer without a fault.
func healthy() *diagnosis.Report {
	r := filtered()
	s := *r.Snapshot
	s.Capture = evidence.Capture{
		Mode: evidence.CaptureBPF, Blind: evidence.No, Over: evidence.Seconds(10 * time.Second), Watched: evidence.Seconds(10 * time.Second),
		In:  evidence.WireTraffic{ESPInUDP: evidence.Traffic{Packets: 20, Bytes: 20480}, Sequence: evidence.Sequence{Expected: 20}, IKE: map[string]uint64{"INFORMATIONAL": 2}, NATKeepalives: 1},
		Out: evidence.WireTraffic{ESPInUDP: evidence.Traffic{Packets: 21, Bytes: 21504}, Sequence: evidence.Sequence{Expected: 21}, IKE: map[string]uint64{"INFORMATIONAL": 2}},
		Flows: []evidence.ESPFlow{
			{SPI: 0xc0ffee01, Inbound: true, Protocol: "esp", Encap: true, Traffic: evidence.Traffic{Packets: 20, Bytes: 20480}, Sequence: evidence.Sequence{Expected: 20}, Longest: 1422, First: now.Add(-time.Hour), Last: now.Add(-200 * time.Millisecond)},
			{SPI: 0xbeef, Protocol: "esp", Encap: true, Traffic: evidence.Traffic{Packets: 21, Bytes: 21504}, Sequence: evidence.Sequence{Expected: 21}, Longest: 1422, First: now.Add(-time.Hour), Last: now.Add(-100 * time.Millisecond)},
		},
		Talk: evidence.IKETalk{
			In:  evidence.IKEDirection{Requests: 1, Answered: 1, DPD: evidence.IKEDPD{Requests: 1, Answered: 1, RTTs: []evidence.Seconds{ms(0.31)}}},
			Out: evidence.IKEDirection{Requests: 1, Answered: 1, DPD: evidence.IKEDPD{Requests: 1, Answered: 1, RTTs: []evidence.Seconds{ms(12.1)}}},
		},
	}
	s.Echoes = s.Echoes[:1]
	s.IKE = []evidence.IKEPort{{Port: 4500, Results: []evidence.IKEResult{{
		Port: 4500, Sent: now, Request: evidence.VersionProbe, Requests: 1, Outcome: evidence.IKEAnswered,
		Notify: "INVALID_MAJOR_VERSION", Version: "2.0", RTT: evidence.Some(ms(11.9)),
	}}}}
	yes := evidence.IKEOffers{Answers: evidence.Yes, Accepts: evidence.Yes, Declared: evidence.Yes}
	s.Ladder = evidence.Ladder{
		Time: evidence.Some(now.Add(-8 * time.Second)), Local: evidence.Some(addr("203.0.113.2")),
		V2: yes, Main: evidence.IKEOffers{Answers: evidence.No}, Aggressive: evidence.IKEOffers{Answers: evidence.No},
		Exchanges: []evidence.IKEExchange{{
			Step: evidence.StepInit, Port: 500, Sent: now.Add(-34 * time.Second), Requests: 1, Outcome: evidence.IKEAnswered,
			Answer: evidence.AnswerAccepted, Chosen: "aes256-sha256-modp2048", Reused: true,
		}},
		Features: evidence.IKEFeatures{Implementation: "strongSwan", Fragmentation: evidence.Yes, Childless: evidence.Yes, NATHere: evidence.No, NATThere: evidence.No},
		Large:    []evidence.LargeIKE{{Port: 500, SmallSent: 3, SmallAnswered: 3, LargeSent: 3, LargeAnswered: 3}, {Port: 4500, SmallSent: 3, SmallAnswered: 3, LargeSent: 3, LargeAnswered: 3}},
		TCP:      evidence.IKEOverTCP{Connected: evidence.No, Reason: "refused"},
	}
	s.TCP = []evidence.TCPResult{{Target: netip.MustParseAddrPort("10.2.0.10:443"), Sent: now, Connected: evidence.Yes, RTT: evidence.Some(ms(13))}}
	s.MTUs = []evidence.PathMTU{{
		Role: evidence.Gateway, Target: addr("198.51.100.2"), Probe: evidence.MTUByICMP, Time: evidence.Some(now), Took: ms(12.4), State: evidence.MTUFull,
		MTU: evidence.Some(1500), LinkMTU: evidence.Some(1500), Cached: evidence.Some(1500), Packets: 1,
		Sizes: []evidence.SizeResult{{Size: 1500, Sent: 1, Answered: 1}},
	}}
	s.Hop = evidence.InnerHop{Sent: 3, Answered: 3, Offender: evidence.Some(addr("10.2.0.1"))}
	s.Host.Tunnel.In = evidence.Traffic{Packets: 20, Bytes: 1_968_000}
	s.Host.Tunnel.LastIn = evidence.Some(now.Add(-200 * time.Millisecond))
	r.Snapshot = &s
	r.Summary = both("The tunnel carries traffic in both directions.", "隧道双向通信正常。")
	r.Findings = []diagnosis.Finding{{
		Label: diagnosis.OK, Severity: diagnosis.Info, Confidence: diagnosis.Certain, Role: diagnosis.Cause,
		Evidence: []diagnosis.Text{both("20 packets were decrypted in the last 10 s", "最近 10 秒解密了 20 个报文")},
	}}
	return r
}

// mismatched is a peer that takes another proposal than the declared one, and
// whose negotiation was asked for in every way.
func mismatched() *diagnosis.Report {
	r := healthy()
	s := *r.Snapshot
	s.Declared.IKEVersion, s.Declared.IKEMode, s.Declared.ESPMode = 1, "main", "tunnel"
	s.Declared.IKEProposals, s.Declared.ESPProposals = []string{"aes256-sha256-modp1024"}, []string{"aes256-sha256"}
	s.Declared.LocalID, s.Declared.RemoteID = "branch.example.net", "cloud.example.net"
	s.IKE = []evidence.IKEPort{{Port: 500, Results: []evidence.IKEResult{{
		Port: 500, Sent: now, Request: evidence.ProposalProbeV1, Requests: 3, Outcome: evidence.IKEAnswered, Notify: "NO-PROPOSAL-CHOSEN", Version: "1.0",
	}}}}
	refused := evidence.IKEOffers{Answers: evidence.Yes, Accepts: evidence.Yes, Declared: evidence.No}
	until := evidence.Some(now.Add(26 * time.Second))
	exchange := func(step evidence.LadderStep, offer string) evidence.IKEExchange {
		return evidence.IKEExchange{Step: step, Port: 500, Offer: offer, Bytes: 372, Sent: now.Add(-7 * time.Second), Requests: 1, Outcome: evidence.IKEAnswered, Version: "2.0", RTT: evidence.Some(ms(12))}
	}
	declared := exchange(evidence.StepDeclared, "aes256-sha256-modp1024")
	declared.Answer, declared.Notify = evidence.AnswerNoProposal, "NO_PROPOSAL_CHOSEN"
	wide := exchange(evidence.StepWide, "aes256-aes128-sha256-sha1-modp2048-modp1024")
	wide.Answer, wide.Notify, wide.Group = evidence.AnswerWrongGroup, "INVALID_KE_PAYLOAD", "modp2048"
	mainWide := exchange(evidence.StepMainWide, "aes256-aes128-sha256-sha1-modp2048-modp1024")
	mainWide.Answer, mainWide.Version, mainWide.Chosen, mainWide.Reused = evidence.AnswerAccepted, "1.0", "aes256-sha256-modp2048", true
	mainWide.Sent = now.Add(-34 * time.Second)
	large := exchange(evidence.StepLarge, "")
	large.Port, large.Outcome, large.Requests = 4500, evidence.IKESilent, 3
	filtered := exchange(evidence.StepAggressive, "")
	filtered.Outcome, filtered.Send = evidence.IKESendError, evidence.NoBuffer
	filtered.ICMP = &evidence.ICMPError{Reason: evidence.AdminProhibited, Type: 3, Code: 13, Offender: evidence.Some(addr("203.0.113.9"))}
	s.Ladder = evidence.Ladder{
		Time: evidence.Some(now.Add(-8 * time.Second)), Local: evidence.Some(addr("203.0.113.2")),
		Exchanges: []evidence.IKEExchange{declared, wide, mainWide, large, filtered},
		Skipped: []evidence.SkippedStep{
			{Step: evidence.StepInit, Reason: evidence.SkipBudget, Until: until},
			{Step: evidence.StepAggressive, Reason: evidence.SkipBudget, Until: until},
			{Step: evidence.StepAggressive, Reason: evidence.SkipBudget, Until: until},
			{Step: evidence.StepBisect, Reason: evidence.SkipTime, Detail: "prf"},
		},
		V2: refused, Main: refused, Aggressive: evidence.IKEOffers{Answers: evidence.No},
		Mismatches: []evidence.Mismatch{
			{Attribute: evidence.Group, Declared: []string{"modp1024"}, Accepts: []string{"modp2048", "ecp256"}},
			{Attribute: evidence.PRF, Declared: []string{"prfsha256"}},
		},
		Cookie: true,
		Features: evidence.IKEFeatures{
			VendorIDs: []string{"XAUTH", "0102030405060708"}, Implementation: "libreswan", Fragmentation: evidence.No, Childless: evidence.No,
			Redirect: "192.0.2.7", NATHere: evidence.Yes, NATThere: evidence.Yes,
		},
		Large: []evidence.LargeIKE{
			{Port: 500, SmallBytes: 400, SmallSent: 3, SmallAnswered: 3, LargeBytes: 2000, LargeSent: 3, LargeAnswered: 3},
			{Port: 4500, SmallBytes: 404, SmallSent: 3, SmallAnswered: 3, LargeBytes: 2004, LargeSent: 3},
		},
		TCP:        evidence.IKEOverTCP{Connected: evidence.Yes, Answered: evidence.No, Reason: "closed by the peer"},
		CannotLook: "the ladder was interrupted",
	}
	s.Auth = evidence.IKEAuth{
		Time: evidence.Some(now.Add(-3 * time.Second)), By: evidence.ByStrongSwan, Stage: evidence.StageChild, Notify: "TS_UNACCEPTABLE",
		RemoteID: "gw.example.net", RemoteIDOther: evidence.Yes, Authenticated: evidence.Yes,
		OtherMode: evidence.Yes, OtherESP: evidence.Yes, OtherPFS: evidence.Yes, OtherSelectors: evidence.Yes,
		ESPChosen: "aes256-sha256", PFSGroup: "modp2048", Rekey: evidence.No, Narrowed: evidence.Yes, Selectors: "10.1.0.0/25 === 10.2.0.0/24", Deleted: evidence.Yes,
		Said: []string{
			"initiating IKE_SA cloud[1] to 198.51.100.2", "established CHILD_SA failed", "IKE_SA cloud[1] established",
			"authentication of 'gw.example.net' with pre-shared key successful", "received TS_UNACCEPTABLE notify, no CHILD_SA built", "closing IKE_SA",
		},
		CannotLook: "the kernel's SAs are unreadable",
	}
	r.Snapshot = &s
	r.Summary = both("The peer refuses the declared Diffie-Hellman group.", "对端拒绝所声明的 DH 组。")
	r.Findings = []diagnosis.Finding{{
		Label: "ike_dh_mismatch", Severity: diagnosis.Critical, Confidence: diagnosis.Certain, Role: diagnosis.Cause,
		Evidence: []diagnosis.Text{both("group: modp1024 declared, the peer accepts modp2048", "DH 组：声明 modp1024，对端接受 modp2048")},
		Remedy:   both("Declare modp2048 on both ends.", "在两端声明 modp2048。"),
	}}
	return r
}

// undone is a negotiation that the agent itself made and completed.
func undone() *diagnosis.Report {
	r := healthy()
	s := *r.Snapshot
	s.Ladder = evidence.Ladder{
		Time: evidence.Some(now), V2: evidence.IKEOffers{Answers: evidence.Yes, Accepts: evidence.No, Declared: evidence.No},
		Skipped: []evidence.SkippedStep{{Step: evidence.StepInit, Reason: evidence.SkipNegotiating}, {Step: evidence.StepLarge, Reason: evidence.SkipCookie}},
		TCP:     evidence.IKEOverTCP{Connected: evidence.Yes, Answered: evidence.Yes},
	}
	s.Auth = evidence.IKEAuth{
		Time: evidence.Some(now), By: evidence.ByAgent, Stage: evidence.StageComplete, Authenticated: evidence.Yes,
		ESPChosen: "aes256-sha256", Rekey: evidence.Yes, Deleted: evidence.No,
	}
	r.Snapshot = &s
	return r
}

// watched is a tunnel with a fault of every kind that packets can show.
func watched() *diagnosis.Report {
	r := healthy()
	s := *r.Snapshot
	ago := func(n float64) time.Time { return now.Add(-ms(1000 * n).Duration()) }
	count := func(packets uint64) evidence.Traffic {
		return evidence.Traffic{Packets: packets, Bytes: 1000 * packets}
	}
	flow := func(spi uint32, inbound bool, packets uint64) evidence.ESPFlow {
		return evidence.ESPFlow{SPI: spi, Inbound: inbound, Protocol: "esp", Traffic: count(packets), Longest: 1438, First: ago(60), Last: ago(0.5)}
	}
	lossy := flow(0xc1a2b3c4, true, 1188)
	lossy.Sequence = evidence.Sequence{Expected: 1200, Lost: 15, Duplicates: 2, Reordered: 3, Depth: 12, Bursts: []uint64{4, 2, 1, 0}}
	authentication := flow(7, true, 9)
	authentication.Protocol = "ah"
	wrapped := flow(0xdead0001, false, 8)
	wrapped.Encap = true
	s.Capture = evidence.Capture{
		Mode: evidence.CaptureRing, Why: evidence.CaptureConfigured, Blind: evidence.No, Over: evidence.Seconds(10 * time.Second), Watched: evidence.Seconds(10 * time.Second),
		In: evidence.WireTraffic{
			ESP: count(1188), AH: count(9), IKE: map[string]uint64{"IKE_AUTH": 4, "INFORMATIONAL": 9},
			Sequence:  evidence.Sequence{Expected: 1210, Lost: 15, Duplicates: 2, Reordered: 3, Depth: 12, Bursts: []uint64{4, 2, 1, 0}},
			Fragments: evidence.Fragments{ESP: evidence.FragmentCount{First: 5, Middle: 1, Last: 4}, IKE: evidence.FragmentCount{First: 2, Last: 2}},
		},
		Out: evidence.WireTraffic{
			ESP: count(900), ESPInUDP: count(8), IKE: map[string]uint64{"IKE_AUTH": 4}, NATKeepalives: 3,
			Sequence: evidence.Sequence{Expected: 960, Lost: 52, Discontinuities: 1, Bursts: []uint64{0, 0, 0, 2}},
		},
		Flows:     []evidence.ESPFlow{lossy, flow(0x0badcafe, false, 900), authentication, wrapped, flow(0x1001, true, 1), flow(0x1002, true, 1)},
		Forgotten: 1040,
		Interfaces: []evidence.InterfaceTraffic{
			{Name: "wan0", In: count(1188), Out: count(450), FirstOut: evidence.Some(ago(9)), LastOut: evidence.Some(ago(1))},
			{Name: "wan1", Out: count(458), FirstOut: evidence.Some(ago(9)), LastOut: evidence.Some(ago(0.5))},
		},
		Talk: evidence.IKETalk{
			In:     evidence.IKEDirection{Requests: 5, Answered: 3, Unanswered: 1, Retransmissions: 6, Deletes: 2, DPD: evidence.IKEDPD{Requests: 3, Answered: 1, Missed: 2, Trailing: 2}},
			Out:    evidence.IKEDirection{Requests: 12, Answered: 10, Retransmissions: 4, Deletes: 1, DPD: evidence.IKEDPD{Requests: 6, Answered: 5, Missed: 1, RTTs: []evidence.Seconds{ms(11), ms(900), ms(12.3)}}},
			Rekeys: 3, RekeysFailed: 1, Attempts: 4,
			Newest: evidence.Some(evidence.IKENegotiation{
				Version: 2, Ours: true, Began: ago(8), Last: ago(7.5), Reached: evidence.ReachedRejected, Suite: "aes256-sha256-modp2048", Encrypted: true, AnswerBytes: 80, Repeated: 3, NATT: true,
			}),
			Offers: []evidence.WireOffer{
				{Ours: true, Version: 2, Proposals: 2, Text: "aes256-aes128-sha256-modp2048-modp1024, aes256gcm16-prfsha256-ecp256", Multiple: []string{"encryption", "dh_group", "proposal"}, Answered: evidence.Yes, Time: ago(8)},
				{Version: 1, Proposals: 1, Text: "3des-sha1-modp1024", Multiple: []string{"prf"}, Answered: evidence.No, Time: ago(9)},
				{Version: 2, Proposals: 1, Text: "aes256-sha256-modp2048", Answered: evidence.Yes, Time: ago(9)},
			},
			Notifies: []evidence.WireNotify{{Name: "NO_PROPOSAL_CHOSEN", Inbound: true, Count: 3, Last: ago(6)}, {Name: "NAT_DETECTION_SOURCE_IP", Count: 8, Last: ago(6)}, {Name: "INVALID_IKE_SPI", Count: 1, Last: ago(5)}},
		},
		Leaks: []evidence.Leak{
			{Kind: evidence.LeakRewritten, Packets: 42, Source: addr("203.0.113.2"), Destination: addr("10.2.0.10"), Protocol: 6, Last: ago(0.25)},
			{Kind: evidence.LeakOwn, Packets: 1, Source: addr("203.0.113.2"), Destination: addr("10.2.0.11"), Protocol: 1, Last: ago(3)},
			{Kind: evidence.LeakDeclared, Packets: 2, Source: addr("10.1.0.5"), Destination: addr("10.2.0.10"), Protocol: 17, Last: ago(3)},
			{Kind: evidence.LeakOther, Packets: 3, Source: addr("2001:db8::5"), Destination: addr("2001:db8:2::10"), Protocol: 132, Last: ago(3)},
		},
		ICMPErrors: map[evidence.ICMPReason]uint64{evidence.FragNeeded: 7},
		ICMP: []evidence.WireICMP{
			{Sender: addr("203.0.113.1"), Reason: evidence.FragNeeded, MTU: evidence.Some(1400), About: "esp", Ours: true, Count: 7, Last: ago(2)},
			{Sender: addr("203.0.113.2"), Reason: evidence.PortUnreachable, About: "udp500", Count: 1, Last: ago(2)},
			{Sender: addr("203.0.113.2"), Reason: evidence.ProtUnreachable, About: "ah", Count: 1, Last: ago(2)},
			{Sender: addr("192.0.2.9"), Reason: evidence.TTLExceeded, About: "other", Ours: true, Count: 1, Last: ago(2)},
			{Sender: addr("192.0.2.9"), Reason: evidence.HostUnreachable, About: "icmp", Ours: true, Count: 1, Last: ago(2)},
		},
	}
	s.Siblings = []evidence.Sibling{{Peer: "cloud-2", In: count(3000), Out: evidence.Traffic{}}}
	r.Snapshot = &s
	r.Summary = both("Packets to the peer's subnets leave in clear.", "发往对端子网的报文以明文发出。")
	r.Findings = []diagnosis.Finding{{
		Label: "nat_before_ipsec", Severity: diagnosis.Critical, Confidence: diagnosis.Certain, Role: diagnosis.Cause,
		Evidence: []diagnosis.Text{both("42 packets in clear", "42 个明文报文")}, Remedy: both("Exempt 10.2.0.0/24 from NAT.", "将 10.2.0.0/24 排除在 NAT 之外。"),
	}}
	return r
}

// blind is a peer of which nothing could be observed.
func blind() *diagnosis.Report {
	const why = "icmp socket: operation not permitted: needs CAP_NET_RAW: sudo setcap cap_net_raw+ep agent"
	return &diagnosis.Report{
		Peer: "198.51.100.2", Gateway: "198.51.100.2", Time: now, Duration: 1500 * time.Millisecond,
		Summary: both("Nothing could be observed, so nothing is decided.", "没有任何观测，无法判断。"),
		Findings: []diagnosis.Finding{{
			Label: diagnosis.Undecided, Severity: diagnosis.Info, Confidence: diagnosis.Possible, Role: diagnosis.Cause,
			Evidence: []diagnosis.Text{both("no prober could look", "所有探测器都无法工作")},
			Remedy:   both("Grant the capabilities below.", "授予下列权限。"),
		}},
		Snapshot: &evidence.Snapshot{
			Peer: "198.51.100.2", Time: now,
			Echoes:  []evidence.EchoSeries{{Role: evidence.Gateway, Target: addr("198.51.100.2"), CannotLook: why}},
			Host:    evidence.Host{Tunnel: evidence.Tunnel{CannotLook: "needs CAP_NET_ADMIN: sudo setcap cap_net_admin+ep agent"}},
			Capture: evidence.Capture{Mode: evidence.CaptureOff, Reason: "needs CAP_NET_RAW: sudo setcap cap_net_raw+ep agent"},
		},
	}
}

// hostile is a report whose every text came from an attacker.
func hostile() *diagnosis.Report {
	const evil = "a\x1b[2Jb\rc\nd\u202ee\x00f\xffg\u2028h\u009bi"
	r := filtered()
	r.Peer, r.Gateway, r.Summary = evil, evil+"2", both(evil, evil)
	r.Findings[0].Evidence = []diagnosis.Text{both(evil, evil)}
	r.Findings[0].Remedy = both(evil, evil)
	r.Findings[1].Label = evil
	s := *r.Snapshot
	s.ResolveErr = evil
	s.Host.Route.Interface = evil
	s.Host.Underlay.Name = evil
	s.Host.Tunnel.CannotLook = evil
	s.Capture = evidence.Capture{
		Mode: evidence.CaptureRing, Why: evil, Reason: evil, Over: ms(1), Dropped: 4,
		In:         evidence.WireTraffic{IKE: map[string]uint64{evil: 1}},
		Flows:      []evidence.ESPFlow{{Protocol: evil}},
		Interfaces: []evidence.InterfaceTraffic{{Name: evil}, {Name: evil}},
		Talk: evidence.IKETalk{
			Newest:   evidence.Some(evidence.IKENegotiation{Version: -1, Reached: evil, Suite: evil, Notify: evil, Last: now.Add(time.Hour)}),
			Offers:   []evidence.WireOffer{{Text: evil, Multiple: []string{evil}}},
			Notifies: []evidence.WireNotify{{Name: "INVALID_" + evil}, {Name: "NOTIFY_40000"}},
			Out:      evidence.IKEDirection{Unanswered: 1<<64 - 1, DPD: evidence.IKEDPD{Missed: 1, RTTs: []evidence.Seconds{-1 << 63}}},
		},
		Leaks: []evidence.Leak{{Kind: evil, Protocol: -1}},
		ICMP:  []evidence.WireICMP{{Reason: evil, About: evil}},
	}
	s.Siblings = []evidence.Sibling{{Peer: evil}}
	s.IKE = []evidence.IKEPort{
		{Port: 500, CannotLook: evil, Results: []evidence.IKEResult{{Outcome: evidence.IKEAnswered, Notify: evil}}},
		{Port: 4500, Results: []evidence.IKEResult{{Outcome: evil}}},
	}
	s.TCP = []evidence.TCPResult{{Connected: evidence.No, Reason: evil}}
	s.Echoes = []evidence.EchoSeries{{
		Role: evil, Target: addr("fe80::1%" + "eth\x1b[0m"), Sent: 1, SendErrors: map[evidence.SendReason]int{evil: 1},
		ICMPErrors: []evidence.CountedICMPError{{ICMPError: evidence.ICMPError{Reason: evil}}}, CannotLook: evil,
	}}
	s.Ladder = evidence.Ladder{
		Exchanges:  []evidence.IKEExchange{{Step: evidence.StepInit, Answer: evil, Chosen: evil, Notify: evil}},
		Skipped:    []evidence.SkippedStep{{Step: evil, Reason: evil, Detail: evil}},
		V2:         evidence.IKEOffers{Declared: evidence.Yes},
		Mismatches: []evidence.Mismatch{{Attribute: evil, Declared: []string{evil}, Accepts: []string{evil}}},
		Features:   evidence.IKEFeatures{VendorIDs: []string{evil}, Implementation: evil, Redirect: evil},
		CannotLook: evil,
	}
	s.Host.MSSClamps = evidence.MSSClamps{
		Rules: []evidence.MSSClamp{{Tool: evil, Where: evil, Rule: evil}}, CannotLook: evil,
	}
	s.MTUs = []evidence.PathMTU{{
		Role: evil, Target: addr("fe80::1%" + "eth\x1b[0m"), Probe: evil, State: evil, Packets: 1 << 40, MTU: evidence.Some(-1), Cached: evidence.Some(1 << 40),
		TooBig: []evidence.CountedICMPError{{ICMPError: evidence.ICMPError{Reason: evil, MTU: evidence.Some(-1), Offender: evidence.Some(netip.Addr{})}}},
		Bogus:  []evidence.CountedICMPError{{ICMPError: evidence.ICMPError{Reason: evil}}},
		Sizes:  []evidence.SizeResult{{Size: -1, Sent: 1, Answered: 2}}, Holes: []evidence.SizeRange{{From: -1}},
		Lost: evidence.Some(evidence.LostBetween{}), CannotLook: evil,
	}}
	s.MTUChanges = []evidence.MTUChange{{Role: evil}}
	s.TunnelMTU = evidence.Some(evidence.TunnelMTU{Suite: evil, From: evil, Mode: evil})
	s.TCPSizes = []evidence.TCPSize{{Service: evil, MSS: evidence.Some(-1), CannotLook: evil}}
	s.Auth = evidence.IKEAuth{
		By: evil, Stage: evidence.StageChild, Notify: evil, RemoteID: evil, PFSGroup: evil, Narrowed: evidence.Yes, Selectors: evil,
		Said: []string{evil}, CannotLook: evil,
	}
	r.Snapshot = &s
	return r
}
