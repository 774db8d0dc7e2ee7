package report

import (
	"net/netip"
	"time"

	"vpnprobe/diagnosis"
	"vpnprobe/evidence"
)

// tooBig is a message from a hop whose next link takes mtu bytes.
func tooBig(hop string, mtu, count int) evidence.CountedICMPError {
	return evidence.CountedICMPError{Count: count, ICMPError: evidence.ICMPError{
		Reason: evidence.FragNeeded, Type: 3, Code: 4, MTU: evidence.Some(mtu), Offender: evidence.Some(addr(hop)),
	}}
}

// sizes returns one result per size: answered below limit, silent above it.
func sizes(limit int, all ...int) []evidence.SizeResult {
	var out []evidence.SizeResult
	for _, n := range all {
		r := evidence.SizeResult{Size: n, Sent: 1, Answered: 1}
		if n > limit {
			r = evidence.SizeResult{Size: n, Sent: 3}
		}
		out = append(out, r)
	}
	return out
}

// sized is a tunnel with a fault of every kind that has to do with sizes.
func sized() *diagnosis.Report {
	r := healthy()
	s := *r.Snapshot
	told := evidence.PathMTU{
		Role: evidence.Gateway, Target: addr("198.51.100.2"), Probe: evidence.MTUByICMP, Time: evidence.Some(now), Took: ms(31), State: evidence.MTUReduced,
		MTU: evidence.Some(1400), LinkMTU: evidence.Some(1500), Cached: evidence.Some(1400), Packets: 9,
		TooBig:     []evidence.CountedICMPError{tooBig("203.0.113.1", 1400, 1), tooBig("192.0.2.33", 1492, 1)},
		Sizes:      append(sizes(1400, 1280, 1400), evidence.SizeResult{Size: 1492, Sent: 1, TooBig: true}, evidence.SizeResult{Size: 1500, Sent: 1, TooBig: true}),
		Small:      evidence.Tried{Sent: 2, Answered: 2},
		Fragmented: evidence.FragmentedProbe{Tried: evidence.Tried{Sent: 2, Answered: 2}, Reversed: evidence.Tried{Sent: 2, Answered: 2}},
		Cleared:    evidence.No,
	}
	var sweep []evidence.SizeResult
	for n := 68; n <= 1500; n += evidence.SweepStep {
		result := evidence.SizeResult{Size: n, Sent: 1, Answered: 1}
		if n >= 1364 && n <= 1428 {
			result = evidence.SizeResult{Size: n, Sent: 3}
		}
		sweep = append(sweep, result)
	}
	hole := evidence.PathMTU{
		Role: evidence.Gateway, Target: addr("2001:db8::2"), Probe: evidence.MTUByIKENATT, Time: evidence.Some(now), Took: ms(4100), State: evidence.MTUFull,
		MTU: evidence.Some(1500), LinkMTU: evidence.Some(1500), Cached: evidence.Some(1280), Packets: 214, Swept: true,
		Sizes: sweep, Holes: []evidence.SizeRange{{From: 1364, To: 1428}}, Small: evidence.Tried{Sent: 14, Answered: 11},
		Bogus:   []evidence.CountedICMPError{tooBig("203.0.113.66", 68, 12)},
		Cleared: evidence.Yes, ReplyFragment: evidence.Some(1396),
		Lost: evidence.Some(evidence.LostBetween{Size: 1400, Before: addr("2001:db8:ffff::1")}),
	}
	black := evidence.PathMTU{
		Role: evidence.Inner, Target: addr("10.2.0.10"), Source: addr("10.1.0.1"), Probe: evidence.MTUByICMP, Time: evidence.Some(now), Took: ms(3140), State: evidence.MTUBlackHole,
		MTU: evidence.Some(1312), LinkMTU: evidence.Some(1438), Cached: evidence.Some(1438), Packets: 34,
		Sizes:      append(sizes(1312, 576, 1280, 1312, 1313, 1320, 1358, 1380, 1400, 1420, 1438), evidence.SizeResult{Size: 1500, Sent: 1, Local: true}),
		Small:      evidence.Tried{Sent: 6, Answered: 6},
		Fragmented: evidence.FragmentedProbe{Tried: evidence.Tried{Sent: 3}, Reversed: evidence.Tried{Sent: 3}, Expired: 1},
		Lost:       evidence.Some(evidence.LostBetween{Size: 1438, After: addr("10.2.0.1"), Before: addr("10.2.0.10"), Hops: 1}),
	}
	mute := evidence.PathMTU{Role: evidence.Inner, Target: addr("10.2.0.11"), Probe: evidence.MTUByICMP, Packets: 3}
	denied := evidence.PathMTU{Role: evidence.Inner, Target: addr("10.2.0.12"), CannotLook: "needs CAP_NET_RAW: sudo setcap cap_net_raw+ep agent"}
	s.MTUs = []evidence.PathMTU{told, hole, black, mute, denied}
	s.MTUChanges = []evidence.MTUChange{{Role: evidence.Gateway, Target: addr("198.51.100.2"), Time: now.Add(-90 * time.Second), From: 1500, To: 1400}}
	s.TunnelMTU = evidence.Some(evidence.TunnelMTU{
		Suite: "aes256-sha256", From: "kernel", Mode: "tunnel", Encap: true, Outer: 1400, Measured: true,
		OuterIP: 20, UDP: 8, ESP: 8, IV: 16, ICV: 16, Align: 16, Trailer: 2, Inner: 1326, MSS4: 1286, MSS6: 1266,
	})
	s.Host.Tunnel.SAs = []evidence.SA{{Inbound: true, Protocol: "esp", Mode: "tunnel", Suite: "aes256-sha256", Created: now}}
	s.Host.MSSClamps = evidence.MSSClamps{
		Readable: evidence.Yes,
		Rules: []evidence.MSSClamp{
			{Tool: "nft", Where: "inet fw forward", Rule: "oifname \"wan\" tcp flags syn tcp option maxseg size set 1360", MSS: evidence.Some(1360), V4: true, V6: true, Covers: evidence.Yes, Packets: evidence.Some(uint64(1))},
			{Tool: "iptables", Where: "ip mangle FORWARD", Rule: "-A FORWARD -o ppp0 -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu", V4: true, Covers: evidence.No},
			{Tool: "nft", Where: "ip6 fw forward", Rule: "tcp flags syn tcp option maxseg size set 1200", MSS: evidence.Some(1200), V6: true},
		},
		CannotLook: "iptables: needs CAP_NET_ADMIN: sudo setcap cap_net_admin+ep agent",
	}
	s.TCPSizes = []evidence.TCPSize{
		{
			Target: netip.MustParseAddrPort("10.2.0.10:443"), Time: now, Service: "tls", MSS: evidence.Some(1460), Ours: evidence.Some(1398), Sent: evidence.Some(1398),
			Acked: evidence.No, Received: evidence.Some(536), Stalled: evidence.Yes, Retransmit: 1,
		},
		{Target: netip.MustParseAddrPort("10.2.0.10:22"), Time: now, Service: "ssh", MSS: evidence.Some(1260), Ours: evidence.Some(1260), Sent: evidence.Some(1260), Acked: evidence.Yes, Stalled: evidence.No},
		{Target: netip.MustParseAddrPort("10.2.0.10:9"), Time: now, CannotLook: "no connection"},
	}
	r.Snapshot = &s
	r.Summary = both("Packets above 1312 bytes vanish behind the peer.", "超过 1312 字节的报文在对端之后消失。")
	r.Findings = []diagnosis.Finding{{
		Label: "mtu_black_hole", Severity: diagnosis.Critical, Confidence: diagnosis.Certain, Role: diagnosis.Cause,
		Evidence: []diagnosis.Text{both("1312 bytes pass, 1313 do not", "1312 字节可通过，1313 字节不通过")}, Remedy: both("Let ICMP through.", "放通 ICMP。"),
	}}
	return r
}
