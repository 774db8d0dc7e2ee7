package capture

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"vpnprobe/evidence"
	"vpnprobe/internal/wire/ike"
)

var epoch = time.Unix(1_700_000_000, 0).UTC()

var testPeers = []Peer{{Name: "p", Addrs: []netip.Addr{peer4, peer6}}}

// seen is what a frame must add to the counts of the peer.
type seen struct {
	In, Out    evidence.WireTraffic
	ICMP, Away map[evidence.ICMPReason]uint64
}

func (s seen) zero() bool { return cmp.Equal(s, seen{}, equateEmpty) }

var equateEmpty = cmpopts.EquateEmpty()

// unexported lets comparisons look into evidence.Opt.
var unexported = cmp.Exporter(func(reflect.Type) bool { return true })

func one(n uint64) evidence.Traffic { return evidence.Traffic{Packets: 1, Bytes: n} }

func message(name string) evidence.WireTraffic {
	return evidence.WireTraffic{IKE: map[string]uint64{name: 1}}
}

func reasonSeen(r evidence.ICMPReason) map[evidence.ICMPReason]uint64 {
	return map[evidence.ICMPReason]uint64{r: 1}
}

// packetCases are IP packets, and what is to be seen of them: nothing, if want
// is zero.
var packetCases = []struct {
	name string
	ip   []byte
	want seen
	// passed says that the kernel's filter lets the packet through though it
	// does not count.
	passed bool
}{
	// ESP and AH
	{name: "esp in", ip: ip4(peer4, host4, 50, espPacket(1, 1, 72)),
		want: seen{In: evidence.WireTraffic{ESP: one(100)}}},
	{name: "esp out", ip: ip4(host4, peer4, 50, espPacket(1, 1, 72)),
		want: seen{Out: evidence.WireTraffic{ESP: one(100)}}},
	{name: "esp behind ip options", ip: header4{src: peer4, dst: host4, proto: 50, options: 40}.with(espPacket(1, 1, 12)),
		want: seen{In: evidence.WireTraffic{ESP: one(80)}}},
	{name: "esp over ipv6", ip: ip6(peer6, host6, 50, espPacket(1, 1, 52)),
		want: seen{In: evidence.WireTraffic{ESP: one(100)}}},
	{name: "esp over ipv6 out", ip: ip6(host6, peer6, 50, espPacket(1, 1, 52)),
		want: seen{Out: evidence.WireTraffic{ESP: one(100)}}},
	{name: "esp behind destination options", ip: ip6(peer6, host6, 60, ext6(50, espPacket(1, 1, 44))),
		want: seen{In: evidence.WireTraffic{ESP: one(100)}}},
	{name: "esp behind two headers, one longer", ip: ip6(peer6, host6, 0, append([]byte{60, 1, 1, 12, 8: 0xff, 15: 0xff}, ext6(50, espPacket(1, 1, 28))...)),
		want: seen{In: evidence.WireTraffic{ESP: one(100)}}},
	{name: "ah", ip: ip4(host4, peer4, 51, make([]byte, 80)),
		want: seen{Out: evidence.WireTraffic{AH: one(100)}}},
	{name: "ah over ipv6", ip: ip6(peer6, host6, 51, make([]byte, 60)),
		want: seen{In: evidence.WireTraffic{AH: one(100)}}},
	{name: "esp of a neighbour", ip: ip4(other4, host4, 50, espPacket(1, 1, 72))},
	{name: "esp of an ipv6 neighbour", ip: ip6(other6, host6, 50, espPacket(1, 1, 72))},
	{name: "esp to a neighbour", ip: ip6(host6, other6, 50, espPacket(1, 1, 72))},
	{name: "proto 49", ip: ip4(peer4, host4, 49, espPacket(1, 1, 72))},
	{name: "tcp", ip: ip4(peer4, host4, 6, udp(500, 500, ikeMsg(0x20, 34)))},
	{name: "ipv6 tcp", ip: ip6(peer6, host6, 6, udp(500, 500, ikeMsg(0x20, 34)))},
	{name: "tcp behind destination options", ip: ip6(peer6, host6, 60, ext6(6, make([]byte, 40))), passed: true},

	// fragments
	{name: "first fragment of esp", ip: header4{src: peer4, dst: host4, proto: 50, frag: 0x2000}.with(espPacket(1, 1, 72)),
		want: seen{In: evidence.WireTraffic{ESP: one(100), Fragments: evidence.Fragments{ESP: evidence.FragmentCount{First: 1}}}}},
	{name: "last fragment of esp", ip: header4{src: peer4, dst: host4, proto: 50, frag: 10}.with(make([]byte, 80)),
		want: seen{In: evidence.WireTraffic{ESP: evidence.Traffic{Bytes: 100}, Fragments: evidence.Fragments{ESP: evidence.FragmentCount{Last: 1}}}}},
	{name: "first fragment of ike", ip: header4{src: host4, dst: peer4, proto: 17, frag: 0x2000}.with(udp(500, 500, ikeMsg(0x20, 35))),
		want: seen{Out: evidence.WireTraffic{IKE: map[string]uint64{"IKE_AUTH": 1}, Fragments: evidence.Fragments{IKE: evidence.FragmentCount{First: 1}}}}},
	{name: "last fragment of udp", ip: header4{src: host4, dst: peer4, proto: 17, frag: 185}.with(make([]byte, 40)),
		want: seen{Out: evidence.WireTraffic{Fragments: evidence.Fragments{IKE: evidence.FragmentCount{Last: 1}}}}},
	{name: "first fragment of other udp", ip: header4{src: host4, dst: peer4, proto: 17, frag: 0x2000}.with(udp(53, 53, make([]byte, 40)))},
	{name: "last fragment of tcp", ip: header4{src: host4, dst: peer4, proto: 6, frag: 185}.with(make([]byte, 40))},
	{name: "last fragment of a neighbour's udp", ip: header4{src: other4, dst: host4, proto: 17, frag: 185}.with(make([]byte, 40))},
	{name: "first ipv6 fragment of ike", ip: ip6(host6, peer6, 44, frag6(17, 0, true, udp(500, 500, ikeMsg(0x20, 35)))),
		want: seen{Out: evidence.WireTraffic{IKE: map[string]uint64{"IKE_AUTH": 1}, Fragments: evidence.Fragments{IKE: evidence.FragmentCount{First: 1}}}}},
	{name: "last ipv6 fragment of udp", ip: ip6(host6, peer6, 44, frag6(17, 181, false, make([]byte, 40))),
		want: seen{Out: evidence.WireTraffic{Fragments: evidence.Fragments{IKE: evidence.FragmentCount{Last: 1}}}}},
	{name: "last ipv6 fragment of esp", ip: ip6(peer6, host6, 44, frag6(50, 181, false, make([]byte, 52))),
		want: seen{In: evidence.WireTraffic{ESP: evidence.Traffic{Bytes: 100}, Fragments: evidence.Fragments{ESP: evidence.FragmentCount{Last: 1}}}}},
	{name: "atomic ipv6 fragment of ike", ip: ip6(host6, peer6, 44, frag6(17, 0, false, udp(500, 500, ikeMsg(0x20, 34)))),
		want: seen{Out: message("IKE_SA_INIT")}},
	{name: "ipv6 fragment of other udp", ip: ip6(host6, peer6, 44, frag6(17, 0, true, udp(53, 53, ikeMsg(0x20, 34))))},
	{name: "ipv6 fragment of tcp", ip: ip6(host6, peer6, 44, frag6(6, 181, false, make([]byte, 40)))},

	// IKE and NAT traversal
	{name: "ike_sa_init", ip: ip4(host4, peer4, 17, udp(500, 500, ikeMsg(0x20, 34))), want: seen{Out: message("IKE_SA_INIT")}},
	{name: "ike to an ephemeral port", ip: ip4(peer4, host4, 17, udp(500, 40000, ikeMsg(0x20, 37))), want: seen{In: message("INFORMATIONAL")}},
	{name: "ike from an ephemeral port", ip: ip4(host4, peer4, 17, udp(40000, 500, ikeMsg(0x20, 36))), want: seen{Out: message("CREATE_CHILD_SA")}},
	{name: "ike over ipv6", ip: ip6(peer6, host6, 17, udp(500, 500, ikeMsg(0x20, 43))), want: seen{In: message("IKE_INTERMEDIATE")}},
	{name: "ikev1", ip: ip4(peer4, host4, 17, udp(500, 500, ikeMsg(0x10, 2))), want: seen{In: message("Identity Protection")}},
	{name: "ike of version 3", ip: ip4(host4, peer4, 17, udp(500, 500, ikeMsg(0x30, 34))), want: seen{Out: message("other")}},
	{name: "ike behind ip options", ip: header4{src: host4, dst: peer4, proto: 17, options: 40}.with(udp(4500, 4500, marked(ikeMsg(0x20, 34)))),
		want: seen{Out: message("IKE_SA_INIT")}},
	{name: "ike on 4500", ip: ip4(host4, peer4, 17, udp(4500, 4500, marked(ikeMsg(0x20, 35)))), want: seen{Out: message("IKE_AUTH")}},
	{name: "ike from 500 to 4500", ip: ip4(host4, peer4, 17, udp(500, 4500, marked(ikeMsg(0x20, 35)))), want: seen{Out: message("IKE_AUTH")}},
	{name: "ike from 4500 to 500", ip: ip4(host4, peer4, 17, udp(4500, 500, ikeMsg(0x20, 35))), want: seen{Out: message("IKE_AUTH")}},
	{name: "esp in udp", ip: ip4(peer4, host4, 17, udp(4500, 4500, espPacket(7, 1, 64))),
		want: seen{In: evidence.WireTraffic{ESPInUDP: one(100)}}},
	{name: "esp in udp, port translated", ip: ip6(peer6, host6, 17, udp(61000, 4500, espPacket(7, 1, 44))),
		want: seen{In: evidence.WireTraffic{ESPInUDP: one(100)}}},
	{name: "nat keepalive", ip: ip4(host4, peer4, 17, udp(4500, 4500, []byte{0xff})),
		want: seen{Out: evidence.WireTraffic{NATKeepalives: 1}}},
	{name: "one other byte", ip: ip4(host4, peer4, 17, udp(4500, 4500, []byte{0xfe})), passed: true},
	{name: "two bytes", ip: ip4(host4, peer4, 17, udp(4500, 4500, []byte{0xff, 0xff})), passed: true},
	{name: "esp in udp too short", ip: ip4(host4, peer4, 17, udp(4500, 4500, []byte{0, 0, 0, 1, 0, 0, 0})), passed: true},
	{name: "ike too short", ip: ip4(host4, peer4, 17, udp(500, 500, ikeMsg(0x20, 34)[:27])), passed: true},
	{name: "marked ike too short", ip: ip4(host4, peer4, 17, udp(4500, 4500, marked(ikeMsg(0x20, 34)[:27]))), passed: true},
	{name: "port 501", ip: ip4(host4, peer4, 17, udp(501, 501, ikeMsg(0x20, 34)))},
	{name: "port 4501 over ipv6", ip: ip6(host6, peer6, 17, udp(4501, 499, ikeMsg(0x20, 34)))},
	{name: "ike of a neighbour", ip: ip4(other4, host4, 17, udp(500, 500, ikeMsg(0x20, 34)))},

	// ICMP errors
	{name: "router says too big", ip: ip4(router4, host4, 1, icmp(3, 4, ip4(host4, peer4, 50, espPacket(1, 1, 0)))),
		want: seen{ICMP: reasonSeen(evidence.FragNeeded)}},
	{name: "peer says port unreachable", ip: ip4(peer4, host4, 1, icmp(3, 3, ip4(host4, peer4, 17, udp(500, 500, nil)))),
		want: seen{ICMP: reasonSeen(evidence.PortUnreachable)}},
	{name: "firewall says prohibited", ip: header4{src: router4, dst: host4, proto: 1, options: 12}.with(icmp(3, 13, header4{src: host4, dst: peer4, proto: 17, options: 40}.with(udp(500, 500, nil)))),
		want: seen{ICMP: reasonSeen(evidence.AdminProhibited)}},
	{name: "we refuse the peer", ip: ip4(host4, peer4, 1, icmp(3, 2, ip4(peer4, host4, 50, espPacket(1, 1, 0)))),
		want: seen{Away: reasonSeen(evidence.ProtUnreachable)}},
	{name: "host unreachable for its tos", ip: ip4(router4, host4, 1, icmp(3, 12, ip4(host4, peer4, 50, espPacket(1, 1, 0)))),
		want: seen{ICMP: reasonSeen(evidence.OtherICMP)}},
	{name: "host unknown", ip: ip4(router4, host4, 1, icmp(3, 7, ip4(host4, peer4, 50, espPacket(1, 1, 0)))),
		want: seen{ICMP: reasonSeen(evidence.HostUnreachable)}},
	{name: "expired on the way", ip: ip4(router4, host4, 1, icmp(11, 0, ip4(host4, peer4, 1, make([]byte, 8)))),
		want: seen{ICMP: reasonSeen(evidence.TTLExceeded)}},
	{name: "reassembly took too long", ip: ip4(peer4, host4, 1, icmp(11, 1, ip4(host4, peer4, 17, udp(500, 500, nil)))),
		want: seen{ICMP: reasonSeen(evidence.OtherICMP)}},
	{name: "router says too big, ipv6", ip: ip6(router6, host6, 58, icmp(2, 0, ip6(host6, peer6, 50, espPacket(1, 1, 0)))),
		want: seen{ICMP: reasonSeen(evidence.FragNeeded)}},
	{name: "peer has no such port, ipv6", ip: ip6(peer6, host6, 58, icmp(1, 4, ip6(host6, peer6, 17, udp(500, 500, nil)))),
		want: seen{ICMP: reasonSeen(evidence.PortUnreachable)}},
	{name: "firewall says prohibited, ipv6", ip: ip6(router6, host6, 58, icmp(1, 1, ip6(host6, peer6, 50, espPacket(1, 1, 0)))),
		want: seen{ICMP: reasonSeen(evidence.AdminProhibited)}},
	{name: "source address fails policy", ip: ip6(router6, host6, 58, icmp(1, 5, ip6(host6, peer6, 50, espPacket(1, 1, 0)))),
		want: seen{ICMP: reasonSeen(evidence.AdminProhibited)}},
	{name: "reject route", ip: ip6(router6, host6, 58, icmp(1, 6, ip6(host6, peer6, 50, espPacket(1, 1, 0)))),
		want: seen{ICMP: reasonSeen(evidence.AdminProhibited)}},
	{name: "no esp here, ipv6", ip: ip6(peer6, host6, 58, icmp(4, 1, ip6(host6, peer6, 50, espPacket(1, 1, 0)))),
		want: seen{ICMP: reasonSeen(evidence.ProtUnreachable)}},
	{name: "error about a neighbour", ip: ip4(peer4, host4, 1, icmp(3, 3, ip4(host4, other4, 17, udp(500, 500, nil))))},
	{name: "error about an ipv6 neighbour", ip: ip6(peer6, host6, 58, icmp(1, 4, ip6(host6, other6, 17, udp(500, 500, nil))))},
	{name: "redirect", ip: ip4(router4, host4, 1, icmp(5, 1, ip4(host4, peer4, 17, udp(500, 500, nil))))},
	{name: "echo", ip: ip4(host4, peer4, 1, icmp(8, 0, ip4(host4, peer4, 17, udp(500, 500, nil))))},
	{name: "ipv6 echo", ip: ip6(peer6, host6, 58, icmp(128, 0, ip6(host6, peer6, 17, udp(500, 500, nil))))},
	{name: "error without a quote", ip: ip4(router4, host4, 1, icmp(3, 3, nil))},
	{name: "error in a later fragment", ip: header4{src: router4, dst: host4, proto: 1, frag: 1}.with(icmp(3, 3, ip4(host4, peer4, 17, udp(500, 500, nil))))},
	{name: "quote of the other version", ip: ip4(router4, host4, 1, icmp(3, 3, ip6(host6, peer6, 17, nil)))},
}

func look(o *Observer) seen {
	c := o.Counts("p")
	return seen{In: c.In, Out: c.Out, ICMP: c.ICMPErrors, Away: away(c)}
}

// away returns the ICMP errors about packets from the peer.
func away(c Counts) map[evidence.ICMPReason]uint64 {
	m := map[evidence.ICMPReason]uint64{}
	for _, e := range c.ICMP {
		if !e.Ours {
			m[e.Reason] += e.Count
		}
	}
	return m
}

// cooked and cooked2 are Linux cooked captures.
func cooked(ip []byte, packetType byte) []byte {
	return append([]byte{0, packetType, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0}, eth(ip)[12:]...)
}

func cooked2(ip []byte, packetType byte) []byte {
	return append(append(eth(ip)[12:14:14], 0, 0, 0, 0, 0, 2, 0, 1, packetType, 6, 2, 0, 0, 0, 0, 1, 0, 0), ip...)
}

func TestPacket(t *testing.T) {
	for _, tc := range packetCases {
		t.Run(tc.name, func(t *testing.T) {
			padded := append(eth(tc.ip), make([]byte, 20)...)
			for name, f := range map[string]struct {
				link  LinkType
				frame []byte
			}{
				"ethernet": {LinkEthernet, eth(tc.ip)},
				"padded":   {LinkEthernet, padded},
				"vlan":     {LinkEthernet, eth(tc.ip, etherVLAN)},
				"qinq":     {LinkEthernet, eth(tc.ip, etherQinQ, etherVLAN)},
				"raw":      {LinkRaw, tc.ip},
				"null":     {LinkNull, append([]byte{2, 0, 0, 0}, tc.ip...)},
				"sll":      {LinkSLL, cooked(tc.ip, 0)},
				"sll2":     {LinkSLL2, cooked2(tc.ip, 0)},
			} {
				o := NewObserver(testPeers)
				o.Packet(Frame{Data: f.frame, Link: f.link, WireLen: len(f.frame), Time: epoch})
				if diff := cmp.Diff(tc.want, look(o), equateEmpty); diff != "" {
					t.Errorf("%s (-want +got):\n%s", name, diff)
				}
				if n := len(f.frame); n > 160 {
					t.Fatalf("a case of %d bytes tests no cut", n)
				}
			}
		})
	}
}

// Frames that are cut off must not count what is not there, nor panic.
func TestPacketCut(t *testing.T) {
	for _, tc := range packetCases {
		for n := range tc.ip {
			o := NewObserver(testPeers)
			o.Packet(Frame{Data: tc.ip[:n], Link: LinkRaw, WireLen: len(tc.ip), Time: epoch})
			got := look(o)
			if n < 20 && !got.zero() {
				t.Errorf("%s: %d bytes of a header were counted: %+v", tc.name, n, got)
			}
		}
	}
}

func TestPacketLinks(t *testing.T) {
	packet := ip4(peer4, host4, 50, espPacket(1, 1, 0))
	tests := map[string]struct {
		link  LinkType
		frame []byte
	}{
		"three tags":      {LinkEthernet, eth(packet, etherQinQ, etherVLAN, etherVLAN)},
		"arp":             {LinkEthernet, append([]byte{11: 0, 12: 8, 13: 6}, packet...)},
		"empty":           {LinkEthernet, nil},
		"no ethertype":    {LinkEthernet, make([]byte, 13)},
		"half a tag":      {LinkEthernet, eth(packet, etherVLAN)[:16]},
		"short cooked":    {LinkSLL, make([]byte, 15)},
		"short cooked 2":  {LinkSLL2, make([]byte, 19)},
		"short null":      {LinkNull, make([]byte, 3)},
		"wifi":            {105, packet},
		"version 5":       {LinkRaw, append([]byte{0x55}, packet[1:]...)},
		"header too long": {LinkRaw, append([]byte{0x4f}, packet[1:]...)},
		"header of zero":  {LinkRaw, append([]byte{0x40}, packet[1:]...)},
	}
	for name, tc := range tests {
		o := NewObserver(testPeers)
		o.Packet(Frame{Data: tc.frame, Link: tc.link, WireLen: len(tc.frame), Time: epoch})
		if got := look(o); !got.zero() {
			t.Errorf("%s: counted %+v", name, got)
		}
	}
}

// An ESP packet of 1400 bytes is cut to snapLen, and may state no length at
// all before segmentation offload has cut it.
func TestPacketLength(t *testing.T) {
	for name, stated := range map[string]int{"right": 1400, "too much": 1500, "less than a header": 19} {
		frame := eth(header4{src: peer4, dst: host4, proto: 50, length: stated}.with(espPacket(1, 1, 1372)))
		o := NewObserver(testPeers)
		o.Packet(Frame{Data: frame[:snapLen], Link: LinkEthernet, WireLen: len(frame), Time: epoch})
		if got := look(o).In.ESP; got != one(1400) {
			t.Errorf("%s: counted %+v", name, got)
		}
	}
}

func TestTwins(t *testing.T) {
	const in, out = false, true
	first := header4{src: peer4, dst: host4, proto: 50, id: 1}.with(espPacket(1, 1, 72))
	forwarded := header4{src: peer4, dst: host4, proto: 50, id: 1, ttl: 63}.with(espPacket(1, 1, 72))
	second := header4{src: peer4, dst: host4, proto: 50, id: 2}.with(espPacket(1, 2, 72))
	type sight struct {
		ip       []byte
		outgoing bool
		after    time.Duration
	}
	for name, tc := range map[string]struct {
		sights []sight
		want   uint64
	}{
		"loopback":          {[]sight{{first, out, 0}, {first, in, 0}}, 1},
		"one-armed router":  {[]sight{{first, in, 0}, {second, in, 1}, {forwarded, out, 2}}, 2},
		"network duplicate": {[]sight{{first, in, 0}, {first, in, 1}}, 2},
		"resent":            {[]sight{{first, out, 0}, {first, in, 0}, {first, out, 1}, {first, in, 1}}, 2},
		"loopback, again":   {[]sight{{first, out, 0}, {first, in, 0}, {first, in, 1}}, 2},
		"much later":        {[]sight{{first, in, 0}, {first, out, time.Second}}, 2},
		"another":           {[]sight{{first, in, 0}, {second, out, 0}}, 2},
	} {
		o := NewObserver(testPeers)
		for _, s := range tc.sights {
			o.Packet(Frame{Data: s.ip, Link: LinkRaw, Outgoing: s.outgoing, WireLen: len(s.ip), Time: epoch.Add(s.after)})
		}
		if got := look(o).In.ESP.Packets; got != tc.want {
			t.Errorf("%s: counted %d, want %d", name, got, tc.want)
		}
	}
	o := NewObserver(testPeers)
	o.Packet(Frame{Data: cooked(first, sllOutgoing), Link: LinkSLL, WireLen: 116, Time: epoch})
	o.Packet(Frame{Data: cooked2(first, 0), Link: LinkSLL2, WireLen: 120, Time: epoch})
	if got := look(o).In.ESP.Packets; got != 1 {
		t.Errorf("cooked capture of loopback: counted %d, want 1", got)
	}
}

func TestSetPeers(t *testing.T) {
	packet := ip4(peer4, host4, 50, espPacket(1, 1, 72))
	mapped := netip.AddrFrom16(peer4.As16()) // ::ffff:198.51.100.2
	o := NewObserver([]Peer{{Name: "a", Addrs: []netip.Addr{mapped, peer4}}, {Name: "b", Addrs: []netip.Addr{other4}}})
	show := func() { o.Packet(Frame{Data: packet, Link: LinkRaw, WireLen: len(packet), Time: epoch}) }
	show()

	changed := o.SetPeers([]Peer{
		{Name: "a", Addrs: []netip.Addr{peer4}}, {Name: "b", Addrs: []netip.Addr{peer4}}, {Name: "c", Addrs: []netip.Addr{peer4}}, {Name: "d", Addrs: nil},
	})
	if diff := cmp.Diff([]string{"b", "c", "d"}, changed); diff != "" {
		t.Errorf("changed (-want +got):\n%s", diff)
	}
	show()
	o.SetPeers([]Peer{{Name: "a", Addrs: []netip.Addr{other4}}, {Name: "b", Addrs: []netip.Addr{peer4}}})
	show()
	want := map[string]uint64{"a": 2, "b": 2, "c": 0, "nobody": 0}
	for name, n := range want {
		if got := o.Counts(name).In.ESP.Packets; got != n {
			t.Errorf("peer %s: counted %d, want %d", name, got, n)
		}
	}
	if c := o.Counts("c"); !c.Watching.IsZero() || c.Reason == "" {
		t.Errorf("a peer that was removed is watched: %+v", c)
	}
}

func TestLoopbackPeer(t *testing.T) {
	o := NewObserver(testPeers)
	packet := ip4(peer4, peer4, 50, espPacket(1, 1, 72))
	o.Packet(Frame{Data: packet, Link: LinkRaw, WireLen: len(packet), Time: epoch})
	if got := look(o); got.In.ESP.Packets != 1 || got.Out.ESP.Packets != 0 {
		t.Errorf("a packet of the peer's to itself: %+v", got)
	}
}

func TestExchangeNames(t *testing.T) {
	for _, tc := range []struct {
		major uint8
		typ   ike.ExchangeType
		want  string
	}{
		{2, 33, "other"}, {2, 34, "IKE_SA_INIT"}, {2, 35, "IKE_AUTH"}, {2, 36, "CREATE_CHILD_SA"},
		{2, 37, "INFORMATIONAL"}, {2, 38, "IKE_SESSION_RESUME"}, {2, 39, "other"}, {2, 42, "other"},
		{2, 43, "IKE_INTERMEDIATE"}, {2, 44, "IKE_FOLLOWUP_KE"}, {2, 45, "other"}, {2, 255, "other"},
		{1, 2, "Identity Protection"}, {1, 4, "Aggressive"}, {1, 5, "Informational"},
		{1, 6, "Transaction"}, {1, 32, "Quick Mode"}, {1, 34, "other"}, {0, 34, "other"}, {3, 34, "other"},
	} {
		if got := exchangeOf(tc.major, tc.typ).String(); got != tc.want {
			t.Errorf("version %d, type %d: %s, want %s", tc.major, tc.typ, got, tc.want)
		}
	}
}

func BenchmarkPacket(b *testing.B) {
	for name, ip := range map[string][]byte{
		"ESP":      ip4(peer4, host4, 50, espPacket(1, 1, 100)),
		"ESP6":     ip6(peer6, host6, 50, espPacket(1, 1, 80)),
		"ESPInUDP": ip4(peer4, host4, 17, udp(4500, 4500, espPacket(1, 1, 90))),
		"IKE":      ip4(peer4, host4, 17, udp(500, 500, ikeMsg(0x20, 37))),
		"ICMP":     ip4(router4, host4, 1, icmp(3, 4, ip4(host4, peer4, 50, espPacket(1, 1, 0)))),
		"Foreign":  ip4(other4, host4, 50, espPacket(1, 1, 100)),
	} {
		frame := eth(ip)
		b.Run(name, func(b *testing.B) {
			o := NewObserver(testPeers)
			b.ReportAllocs()
			for b.Loop() {
				o.Packet(Frame{Data: frame, Link: LinkEthernet, WireLen: len(frame), Time: epoch})
			}
		})
	}
}

func TestPacketAllocations(t *testing.T) {
	for _, tc := range packetCases {
		frame := eth(tc.ip)
		o := NewObserver(testPeers)
		if n := testing.AllocsPerRun(100, func() { o.Packet(Frame{Data: frame, Link: LinkEthernet, WireLen: len(frame), Time: epoch}) }); n != 0 {
			t.Errorf("%s: %v allocations", tc.name, n)
		}
	}
}
