package diagnosis

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"vpnprobe/evidence"
)

const tenSeconds = evidence.Seconds(10 * time.Second)

// onWire is a complete capture of a healthy tunnel.
func onWire(s *evidence.Snapshot) {
	s.Capture = evidence.Capture{
		Mode: evidence.CaptureBPF, Blind: evidence.No, Over: tenSeconds, Watched: tenSeconds,
		In:   evidence.WireTraffic{ESP: evidence.Traffic{Packets: 40}},
		Out:  evidence.WireTraffic{ESP: evidence.Traffic{Packets: 40}},
		Talk: evidence.IKETalk{Over: tenSeconds, Whole: true},
	}
}

// numbered gives all encrypted packets numbers that fit into a stream.
func numbered(c *evidence.Capture) {
	for _, w := range []*evidence.WireTraffic{&c.In, &c.Out} {
		if w.Sequence.Expected == 0 {
			w.Sequence.Expected = anyESP(*w)
		}
	}
}

// wired changes the capture of a tunnel.
func wired(change func(c *evidence.Capture)) func(*evidence.Snapshot) {
	return func(s *evidence.Snapshot) {
		onWire(s)
		change(&s.Capture)
		numbered(&s.Capture)
	}
}

// file is a recorded capture and nothing else.
func file(change func(c *evidence.Capture)) func(*evidence.Snapshot) {
	return func(s *evidence.Snapshot) {
		*s = evidence.Snapshot{Peer: "cloud", Time: now, Window: tenSeconds, Declared: evidence.Declared{Gateway: gateway.String()}, Addresses: []netip.Addr{gateway}}
		onWire(s)
		s.Capture.Mode = evidence.CaptureFile
		change(&s.Capture)
		numbered(&s.Capture)
	}
}

func esp(in, out uint64) func(c *evidence.Capture) {
	return func(c *evidence.Capture) {
		c.In.ESP.Packets, c.Out.ESP.Packets = in, out
		c.In.Sequence, c.Out.Sequence = evidence.Sequence{Expected: in}, evidence.Sequence{Expected: out}
	}
}

func leaking(kind evidence.LeakKind, n uint64) func(c *evidence.Capture) {
	return func(c *evidence.Capture) {
		c.Leaks = []evidence.Leak{{Kind: kind, Packets: n, Source: source, Destination: inner, Protocol: 6, Last: now}}
	}
}

func negotiation(ours bool, reached evidence.IKEReached) func(c *evidence.Capture) {
	return func(c *evidence.Capture) {
		esp(0, 0)(c)
		refused := evidence.Unknown
		if reached == evidence.ReachedIKE {
			refused = evidence.Yes
		}
		c.Talk.Newest = evidence.Some(evidence.IKENegotiation{Version: 2, Ours: ours, Began: now, Last: now, Reached: reached, Suite: "aes256-sha256-modp2048", Encrypted: true, ChildRefused: refused, AnswerBytes: 80, Repeated: 2})
		c.Talk.Out.Retransmissions = 3
	}
}

// changed changes the newest negotiation.
func changed(first func(c *evidence.Capture), then func(n *evidence.IKENegotiation)) func(c *evidence.Capture) {
	return func(c *evidence.Capture) {
		first(c)
		n, _ := c.Talk.Newest.Get()
		then(&n)
		c.Talk.Newest = evidence.Some(n)
	}
}

func offered(multiple []string, accepted evidence.Fact) func(c *evidence.Capture) {
	return func(c *evidence.Capture) {
		c.Talk.Offers = []evidence.WireOffer{{Version: 2, Proposals: 1, Text: "aes128-aes256-sha256-modp2048", Multiple: multiple, Answered: accepted, Time: now}}
	}
}

func asked(in evidence.IKEDirection) func(c *evidence.Capture) {
	return func(c *evidence.Capture) { c.Talk.In = in }
}

func icmp(about string, why evidence.ICMPReason, sender netip.Addr) func(c *evidence.Capture) {
	return func(c *evidence.Capture) {
		esp(0, 0)(c)
		c.ICMP = []evidence.WireICMP{{Sender: sender, Reason: why, About: about, Ours: true, Count: 3, Last: now}}
	}
}

func out(name string, n uint64, from, to time.Duration) evidence.InterfaceTraffic {
	return evidence.InterfaceTraffic{Name: name, Out: evidence.Traffic{Packets: n},
		FirstOut: evidence.Some(now.Add(-from)), LastOut: evidence.Some(now.Add(-to))}
}

func by(list ...evidence.InterfaceTraffic) func(c *evidence.Capture) {
	return func(c *evidence.Capture) { c.Interfaces = list }
}

func fragments(esp, ike evidence.FragmentCount) func(c *evidence.Capture) {
	return func(c *evidence.Capture) { c.Out.Fragments = evidence.Fragments{ESP: esp, IKE: ike} }
}

// losing is a window in which packets of the peer's are missing.
func losing(n uint64, bursts []uint64) func(c *evidence.Capture) {
	return func(c *evidence.Capture) {
		c.In.ESP.Packets = 1000 - n
		c.In.Sequence = evidence.Sequence{Expected: 1000, Lost: n, Bursts: bursts}
	}
}

func missed(change func(c *evidence.Capture)) func(c *evidence.Capture) {
	return func(c *evidence.Capture) {
		change(c)
		c.Dropped, c.Talk.Whole = 5, false
	}
}

// sibling is another tunnel to the same site.
func sibling(in, out uint64) func(*evidence.Snapshot) {
	return func(s *evidence.Snapshot) {
		s.Siblings = []evidence.Sibling{{Peer: "cloud-2", In: evidence.Traffic{Packets: in}, Out: evidence.Traffic{Packets: out}}}
	}
}

// encapsulated is a tunnel whose SAs are encapsulated and take nothing in.
func encapsulated(s *evidence.Snapshot) {
	oneWay(s)
	for i := range s.Host.Tunnel.SAs {
		s.Host.Tunnel.SAs[i].Encap = true
	}
}

func TestWire(t *testing.T) {
	const blockedTunnel = "esp_blocked"
	silentDPD := evidence.IKEDirection{Requests: 4, Answered: 3, Unanswered: 1, Retransmissions: 2, DPD: evidence.IKEDPD{Requests: 4, Answered: 3, Missed: 1, Trailing: 1}}
	neverDPD := evidence.IKEDirection{Requests: 1, Unanswered: 1, Retransmissions: 2, DPD: evidence.IKEDPD{Requests: 1, Missed: 1, Trailing: 1}}
	someLost := func(s *evidence.Snapshot) { echo(s, evidence.Inner, every(10)) }
	quiet := func(s *evidence.Snapshot) { echo(s, evidence.Inner, always) }
	queued := func(s *evidence.Snapshot) { s.Host.IKEBacklog = evidence.Some(2304) }
	ownSPI := func(encap bool) func(*evidence.Snapshot) {
		return func(s *evidence.Snapshot) {
			s.Capture.Flows = []evidence.ESPFlow{{SPI: 1, Inbound: true, Protocol: "esp", Encap: encap}}
		}
	}
	answeredDPD := evidence.IKEDirection{Requests: 4, Answered: 4, Retransmissions: 2, DPD: evidence.IKEDPD{Requests: 4, Answered: 4, Missed: 1}}
	checkAll(t, []evaluation{
		{"healthy on the wire", onWire, OK, ""},

		{"DPD never answered", wired(asked(neverDPD)), "dpd_not_answered_locally", ""},
		{"DPD of the IKE SA before a restart not answered", wired(asked(silentDPD)), OK, "dpd_not_answered_locally"},
		{"requests ignored since the capture began", but(wired(func(c *evidence.Capture) { c.Talk.Ignored = 1 }), queued), "dpd_not_answered_locally", ""},
		{"requests that may be forged ignored, tunnel works", wired(func(c *evidence.Capture) { c.Talk.Ignored = 1 }), OK, "dpd_not_answered_locally"},
		{"requests for another host", but(wired(func(c *evidence.Capture) { c.Talk.Ignored = 1 }), elsewhere), OK, ""},
		{"DPD answered, late", wired(asked(answeredDPD)), OK, ""},
		{"DPD not answered, as far as was heard", wired(missed(asked(silentDPD))), OK, ""},
		{"our DPD not answered, tunnel works", wired(func(c *evidence.Capture) { c.Talk.Out = silentDPD }), OK, "dpd_timeout"},
		{"our DPD not answered, peer dark", but(wired(func(c *evidence.Capture) { esp(0, 0)(c); c.Talk.Out = silentDPD }), noTunnel, func(s *evidence.Snapshot) {
			echo(s, evidence.Gateway, always)
			ike(s, silent, silent)
		}), "peer_unreachable", ""},

		{"several values, taken", wired(offered([]string{"encryption"}, evidence.Yes)), OK, "multi_value_proposal"},
		{"several values, refused", but(wired(offered([]string{"encryption"}, evidence.No)), noTunnel, func(s *evidence.Snapshot) { esp(0, 0)(&s.Capture) }), "multi_value_proposal", ""},
		{"one value, refused", but(wired(offered(nil, evidence.No)), noTunnel, func(s *evidence.Snapshot) { esp(0, 0)(&s.Capture) }), "tunnel_down", ""},

		{"NAT before IPsec", but(wired(leaking(evidence.LeakRewritten, 5)), quiet), "nat_before_ipsec", ""},
		{"guests behind NAT ask for a remote address", wired(leaking(evidence.LeakRewritten, 5)), OK, "nat_before_ipsec"},
		{"a neighbour on the underlay in a wide remote subnet", wired(func(c *evidence.Capture) {
			leaking(evidence.LeakDeclared, 5)(c)
			c.Leaks[0].Destination = isp
		}), OK, ""},
		{"a card that encrypts", but(wired(leaking(evidence.LeakDeclared, 5)), func(s *evidence.Snapshot) { s.Host.Tunnel.SAs[0].Offloaded = true }), OK, ""},
		{"one packet rewritten", wired(leaking(evidence.LeakRewritten, 1)), OK, ""},
		{"the gateway's own packets in clear", wired(leaking(evidence.LeakOwn, 50)), OK, ""},
		{"a declared subnet in clear", wired(leaking(evidence.LeakDeclared, 5)), "selector_not_covering", ""},
		{"another subnet in clear", wired(leaking(evidence.LeakOther, 5)), OK, "selector_not_covering"},
		{"everything in clear, no policy", but(wired(leaking(evidence.LeakDeclared, 5)), noTunnel, func(s *evidence.Snapshot) {
			esp(0, 0)(&s.Capture)
			s.Host.Tunnel.Policy = evidence.No
		}), "tunnel_down", ""},

		{"plain ESP for an encapsulated SA", but(wired(esp(9, 0)), encapsulated, ownSPI(false), func(s *evidence.Snapshot) { s.Capture.Out.ESPInUDP.Packets = 9 }), "encap_type_mismatch", ""},
		{"plain ESP beside an encapsulated SA that works", but(wired(func(c *evidence.Capture) { c.In.ESPInUDP.Packets = 9 }), func(s *evidence.Snapshot) {
			for i := range s.Host.Tunnel.SAs {
				s.Host.Tunnel.SAs[i].Encap = true
			}
		}), OK, ""},
		{"encapsulated ESP for a plain SA", but(wired(func(c *evidence.Capture) { esp(0, 9)(c); c.In.ESPInUDP.Packets = 9 }), oneWay, ownSPI(true)), "encap_type_mismatch", ""},
		{"forged ESP in UDP on an idle tunnel", but(wired(func(c *evidence.Capture) { esp(0, 0)(c); c.In.ESPInUDP.Packets = 9 }), idle), OK, ""},

		{"SAs send, nothing leaves", but(wired(esp(0, 0)), oneWay), blockedTunnel, ""},
		{"SAs send, our firewall refuses, the peer's traffic comes in", but(wired(esp(40, 0)), func(s *evidence.Snapshot) {
			for i := range s.Echoes {
				if e := &s.Echoes[i]; e.Role == evidence.Inner {
					*e = evidence.EchoSeries{Role: e.Role, Target: e.Target, Sent: 28, SendErrors: map[evidence.SendReason]int{evidence.LocalFirewall: 28}, Trailing: 28, TrailingUnsent: 28}
				}
			}
		}), blockedTunnel, ""},
		{"SAs send, nothing was seen to leave, tunnel works", wired(esp(0, 0)), OK, ""},
		{"ESP refused by a filter", but(wired(icmp("esp", evidence.AdminProhibited, isp)), oneWay, func(s *evidence.Snapshot) { s.Capture.Out.Sequence.Expected = 40 }), blockedTunnel, ""},
		{"a forged ICMP error on an idle tunnel", but(wired(icmp("esp", evidence.AdminProhibited, isp)), idle), OK, ""},
		{"ESP refused by a filter once, tunnel works", wired(icmp("esp", evidence.AdminProhibited, isp)), OK, ""},

		{"a router that the tunnel passes one way", but(wired(esp(0, 40)), elsewhere, noInner), OK, "esp_blocked"},
		{"one way at the tunnel's end, SAs not readable", but(wired(esp(0, 40)), noInner, func(s *evidence.Snapshot) { s.Host.Tunnel = evidence.Tunnel{} }), blockedTunnel, ""},
		{"asymmetric", but(onWire, oneWay, sibling(40, 0)), "asymmetric_tunnels", ""},
		{"asymmetric, and it works", but(onWire, sibling(40, 0), func(s *evidence.Snapshot) { s.Host.Tunnel.In = evidence.Traffic{} }), OK, "asymmetric_tunnels"},
		{"asymmetric, but for what the remote gateway itself answers", but(onWire, oneWay, sibling(40, 5), func(s *evidence.Snapshot) { s.Host.Tunnel.In.Packets = 6 }), "asymmetric_tunnels", ""},
		{"one way, the sibling idle", but(onWire, oneWay, sibling(0, 0), func(s *evidence.Snapshot) { esp(0, 40)(&s.Capture) }), blockedTunnel, ""},
		{"two tunnels in use", but(onWire, sibling(40, 40)), OK, ""},

		{"two egresses, and it works", wired(by(out("wan", 20, 9*time.Second, 0), out("wan2", 20, 9*time.Second, 0))), OK, "multipath_egress"},
		{"two egresses, inner pings lost", but(wired(by(out("wan", 20, 9*time.Second, 0), out("wan2", 20, 9*time.Second, 0))), func(s *evidence.Snapshot) { echo(s, evidence.Inner, every(2)) }), "multipath_egress", ""},
		{"failover from one egress to the other", but(wired(by(out("wan", 20, 9*time.Second, 5*time.Second), out("wan2", 20, 5*time.Second, 0))), func(s *evidence.Snapshot) { echo(s, evidence.Inner, every(7)) }), OK, ""},

		{"loss on the way in", but(wired(losing(100, nil)), someLost), "underlay_loss", ""},
		{"loss on the way in, by gaps", but(wired(losing(100, []uint64{80, 10, 0, 0, 0, 0, 0, 0})), someLost), "underlay_loss", ""},
		{"loss by numbers, no ping through the tunnel lost", wired(losing(100, nil)), OK, ""},
		{"an outage", but(wired(losing(100, []uint64{0, 0, 0, 0, 0, 0, 0, 1})), someLost), OK, ""},
		{"an outage, lengths not known, at a gateway that ignores ping", but(wired(losing(100, nil)), someLost, func(s *evidence.Snapshot) { echo(s, evidence.Gateway, always) }), OK, "icmp_blocked"},
		{"a failover", but(wired(func(c *evidence.Capture) { losing(100, nil)(c); c.In.Sequence.Discontinuities = 1 }), someLost), OK, ""},
		{"loss that is our own", but(wired(missed(losing(100, nil))), someLost), OK, ""},
		{"a loss within the limit", but(wired(losing(5, nil)), someLost), OK, ""},
		{"ESP in fragments", wired(fragments(evidence.FragmentCount{First: 9, Last: 9}, evidence.FragmentCount{})), "esp_fragmented", ""},
		{"few packets in fragments", wired(func(c *evidence.Capture) {
			esp(400, 400)(c)
			fragments(evidence.FragmentCount{First: 4, Last: 4}, evidence.FragmentCount{})(c)
		}), OK, "esp_fragmented"},
		{"few packets in fragments, and not whole", wired(func(c *evidence.Capture) {
			esp(400, 400)(c)
			fragments(evidence.FragmentCount{First: 4}, evidence.FragmentCount{})(c)
		}), "esp_fragmented", ""},
		{"forged fragments", wired(func(c *evidence.Capture) {
			esp(0, 0)(c)
			fragments(evidence.FragmentCount{First: 9}, evidence.FragmentCount{})(c)
		}), OK, ""},
		{"one packet in fragments", wired(fragments(evidence.FragmentCount{First: 1, Last: 1}, evidence.FragmentCount{})), OK, ""},
		{"IKE in fragments", wired(fragments(evidence.FragmentCount{}, evidence.FragmentCount{First: 9, Last: 9})), OK, ""},

		{"authentication refused, by its size", but(wired(negotiation(true, evidence.ReachedRejected)), noTunnel), "psk_mismatch", ""},
		{"authentication refused, by its size, tunnel works", wired(negotiation(false, evidence.ReachedRejected)), OK, "psk_mismatch"},
		{"child refused, by its size", but(wired(negotiation(true, evidence.ReachedIKE)), noTunnel), "child_proposal_mismatch", ""},
		{"child refused before, tunnel works", wired(negotiation(true, evidence.ReachedIKE)), OK, ""},
		{"our daemon's first message not answered", but(wired(negotiation(true, evidence.ReachedAsked)), noTunnel), "ike_exchange_timeout", ""},
		{"the peer's first message not answered", but(wired(negotiation(false, evidence.ReachedAsked)), noTunnel), "tunnel_down", ""},
		{"negotiated", wired(negotiation(true, evidence.ReachedChild)), OK, ""},
	})
}

func TestRecorded(t *testing.T) {
	checkAll(t, []evaluation{
		{"both ways", file(func(*evidence.Capture) {}), OK, ""},
		{"empty", file(esp(0, 0)), Undecided, ""},
		{"out only", file(esp(0, 40)), "esp_blocked", ""},
		{"in only", file(esp(40, 0)), "esp_blocked", ""},
		{"out only, offload hides the rest", file(func(c *evidence.Capture) { esp(0, 40)(c); c.Blind = evidence.Yes }), Undecided, ""},
		{"out only, with drops", file(missed(esp(0, 40))), Undecided, ""},
		{"hardly anything", file(esp(0, 2)), Undecided, ""},
		{"negotiated, and idle", file(negotiation(true, evidence.ReachedChild)), OK, ""},
		{"authentication refused", file(negotiation(true, evidence.ReachedRejected)), "psk_mismatch", ""},
		{"child refused", file(negotiation(false, evidence.ReachedIKE)), "child_proposal_mismatch", ""},
		{"the initiator refuses the responder", file(changed(negotiation(true, evidence.ReachedRejected), func(n *evidence.IKENegotiation) { n.InitiatorRefused = evidence.Yes })), "identity_mismatch", ""},
		{"certificate refused", file(changed(negotiation(true, evidence.ReachedRejected), func(n *evidence.IKENegotiation) { n.Certificates = evidence.Yes })), Undecided, ""},
		{"authenticated, the rest not told", file(changed(negotiation(true, evidence.ReachedIKE), func(n *evidence.IKENegotiation) { n.ChildRefused = evidence.Unknown })), Undecided, ""},
		{"not answered", file(negotiation(true, evidence.ReachedAsked)), "ike_exchange_timeout", ""},
		{"the peer refuses the port", file(icmp("udp500", evidence.PortUnreachable, gateway)), "peer_ike_not_listening", ""},
		{"a router refuses the port", file(icmp("udp500", evidence.PortUnreachable, isp)), Undecided, ""},
		{"a filter prohibits IKE", file(icmp("udp500", evidence.AdminProhibited, isp)), "peer_firewall_drops_ike", ""},
		{"the forms differ", file(func(c *evidence.Capture) { esp(9, 0)(c); c.Out.ESPInUDP.Packets = 9 }), "encap_type_mismatch", ""},
		{"NAT before IPsec", file(leaking(evidence.LeakRewritten, 9)), "nat_before_ipsec", ""},
		{"came in until a while ago", file(func(c *evidence.Capture) {
			c.Flows = []evidence.ESPFlow{{SPI: 1, Inbound: true, Last: now.Add(-30 * time.Second)}, {SPI: 2, Last: now}}
		}), "esp_blocked", ""},
		{"the peer refused before it started", file(func(c *evidence.Capture) {
			icmp("udp500", evidence.PortUnreachable, gateway)(c)
			c.In.IKE = map[string]uint64{"IKE_SA_INIT": 1}
		}), Undecided, ""},
		{"refused in clear", file(changed(negotiation(true, evidence.ReachedRefused), func(n *evidence.IKENegotiation) { n.Notify = "NO_PROPOSAL_CHOSEN" })), "ike_proposal_mismatch", ""},
		{"another group wanted", file(changed(negotiation(true, evidence.ReachedRefused), func(n *evidence.IKENegotiation) { n.Notify = "INVALID_KE_PAYLOAD" })), "ike_dh_mismatch", ""},
		{"another version wanted", file(changed(negotiation(true, evidence.ReachedRefused), func(n *evidence.IKENegotiation) { n.Notify = "INVALID_MAJOR_VERSION" })), "ike_version_mismatch", ""},
		{"random packets", file(func(c *evidence.Capture) {
			esp(40, 0)(c)
			c.In.Sequence.Expected = 0
			c.Talk.In.DPD.Answered = 4
			c.Flows = nil
		}), "esp_blocked", ""},
		{"DPD only", file(func(c *evidence.Capture) { esp(0, 0)(c); c.Talk.In.DPD.Answered = 4 }), Undecided, ""},
	})
}

// TestDirection wants esp_blocked to name the direction.
func TestDirection(t *testing.T) {
	for direction, change := range map[string]func(*evidence.Snapshot){
		"from this host to the peer": but(wired(esp(0, 0)), oneWay),
		"from the peer to this host": but(wired(esp(0, 40)), oneWay),
	} {
		s := healthy()
		change(s)
		r := Evaluate(s)
		if r.Diagnosis() != "esp_blocked" || !strings.Contains(r.Findings[0].Evidence[0].EN, direction) {
			t.Errorf("%s, %v; want esp_blocked %s", r.Diagnosis(), r.Findings[0].Evidence, direction)
		}
	}
}
