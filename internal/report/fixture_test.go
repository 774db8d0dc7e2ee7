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
			Mode: evidence.CaptureRing, Blind: evidence.No, Dropped: 4, Over: evidence.Seconds(10 * time.Second),
			Out:        evidence.WireTraffic{ESP: evidence.Traffic{Packets: 12, Bytes: 1992}, IKE: map[string]uint64{"IKE_SA_INIT": 5}, Fragments: 2},
			ICMPErrors: map[evidence.ICMPReason]uint64{evidence.AdminProhibited: 1},
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
		Mode: evidence.CaptureRing, Blind: evidence.No, Over: evidence.Seconds(10 * time.Second),
		In:  evidence.WireTraffic{ESPInUDP: evidence.Traffic{Packets: 20, Bytes: 20480}, NATKeepalives: 1},
		Out: evidence.WireTraffic{ESPInUDP: evidence.Traffic{Packets: 21, Bytes: 21504}},
	}
	s.Echoes = s.Echoes[:1]
	s.IKE = []evidence.IKEPort{{Port: 4500, Results: []evidence.IKEResult{{
		Port: 4500, Sent: now, Request: evidence.VersionProbe, Requests: 1, Outcome: evidence.IKEAnswered,
		Notify: "INVALID_MAJOR_VERSION", Version: "2.0", RTT: evidence.Some(ms(11.9)),
	}}}}
	s.TCP = []evidence.TCPResult{{Target: netip.MustParseAddrPort("10.2.0.10:443"), Sent: now, Connected: evidence.Yes, RTT: evidence.Some(ms(13))}}
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
	s.Capture.Reason = evil
	s.IKE = []evidence.IKEPort{
		{Port: 500, CannotLook: evil, Results: []evidence.IKEResult{{Outcome: evidence.IKEAnswered, Notify: evil}}},
		{Port: 4500, Results: []evidence.IKEResult{{Outcome: evil}}},
	}
	s.TCP = []evidence.TCPResult{{Connected: evidence.No, Reason: evil}}
	s.Echoes = []evidence.EchoSeries{{
		Role: evil, Target: addr("fe80::1%" + "eth\x1b[0m"), Sent: 1, SendErrors: map[evidence.SendReason]int{evil: 1},
		ICMPErrors: []evidence.CountedICMPError{{ICMPError: evidence.ICMPError{Reason: evil}}}, CannotLook: evil,
	}}
	r.Snapshot = &s
	return r
}
