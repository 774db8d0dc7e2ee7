package capture

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnprobe/evidence"
)

// The subnets of the tests, and hosts in them.
var (
	local4  = netip.MustParseAddr("10.1.0.10")
	remote4 = netip.MustParseAddr("10.2.0.10")
	guest4  = netip.MustParseAddr("192.168.7.7") // on this side, in no declared subnet
	local6  = netip.MustParseAddr("2001:db8:a::10")
	remote6 = netip.MustParseAddr("2001:db8:b::10")

	leakPeer = Peer{
		Name: "p", Addrs: []netip.Addr{peer4, peer6},
		Local:  []netip.Prefix{prefix("10.1.0.0/24"), prefix("2001:db8:a::/64")},
		Remote: []netip.Prefix{prefix("10.2.0.0/24"), prefix("2001:db8:b::/64")},
	}
	leakPeers = []Peer{leakPeer, {Name: "q", Addrs: []netip.Addr{other4}, Remote: []netip.Prefix{prefix("10.3.0.0/16")}}}
)

func ttl4(src, dst netip.Addr, proto, ttl uint8) []byte {
	return header4{src: src, dst: dst, proto: proto, ttl: ttl}.with(make([]byte, 40))
}

func hops6(src, dst netip.Addr, proto, hops uint8) []byte {
	b := ip6(src, dst, proto, make([]byte, 40))
	b[7] = hops
	return b
}

// leakCases are packets on the underlay that are leaks of peer p, or not if
// kind is "".
var leakCases = []struct {
	name    string
	ip      []byte
	inbound bool
	kind    evidence.LeakKind
}{
	{name: "rewritten, from Linux", ip: ttl4(host4, remote4, 6, 63), kind: evidence.LeakRewritten},
	{name: "rewritten, from far", ip: ttl4(host4, remote4, 17, 33), kind: evidence.LeakRewritten},
	{name: "rewritten, from Windows", ip: ttl4(host4, remote4, 1, 127), kind: evidence.LeakRewritten},
	{name: "rewritten, from a router", ip: ttl4(host4, remote4, 6, 254), kind: evidence.LeakRewritten},
	{name: "rewritten ipv6", ip: hops6(host6, remote6, 6, 63), kind: evidence.LeakRewritten},
	{name: "own", ip: ttl4(host4, remote4, 6, 64), kind: evidence.LeakOwn},
	{name: "own of 128", ip: ttl4(host4, remote4, 6, 128), kind: evidence.LeakOwn},
	{name: "own of 255", ip: ttl4(host4, remote4, 6, 255), kind: evidence.LeakOwn},
	{name: "own traceroute", ip: ttl4(host4, remote4, 17, 32), kind: evidence.LeakOwn},
	{name: "own of an odd start", ip: ttl4(host4, remote4, 6, 200), kind: evidence.LeakOwn},
	{name: "own ipv6", ip: hops6(host6, remote6, 6, 64), kind: evidence.LeakOwn},
	{name: "own ping to the inner host", ip: ip4(host4, remote4, 1, icmp(8, 0, make([]byte, 40))), kind: evidence.LeakOwn},
	{name: "declared", ip: ttl4(local4, remote4, 6, 63), kind: evidence.LeakDeclared},
	{name: "declared ipv6", ip: hops6(local6, remote6, 6, 63), kind: evidence.LeakDeclared},
	{name: "other", ip: ttl4(guest4, remote4, 6, 63), kind: evidence.LeakOther},
	{name: "other tunnel in clear", ip: ttl4(local4, remote4, 47, 63), kind: evidence.LeakDeclared},
	{name: "first fragment", ip: header4{src: local4, dst: remote4, proto: 17, frag: 0x2000}.with(udp(53, 53, make([]byte, 40))), kind: evidence.LeakDeclared},

	{name: "inbound", ip: ttl4(local4, remote4, 6, 63), inbound: true},
	{name: "decrypted, to the lan", ip: ttl4(remote4, local4, 6, 63)},
	{name: "answer to the lan", ip: ttl4(host4, local4, 6, 64)},
	{name: "esp to the peer", ip: ip4(host4, peer4, 50, espPacket(1, 1, 72))},
	{name: "esp to an inner host", ip: ip4(host4, remote4, 50, espPacket(1, 1, 72))},
	{name: "ah to an inner host", ip: ttl4(host4, remote4, 51, 64)},
	{name: "ike to an inner host", ip: ip4(host4, remote4, 17, udp(500, 500, ikeMsg(0x20, 34)))},
	{name: "esp in udp to an inner host", ip: ip4(host4, remote4, 17, udp(40000, 4500, espPacket(1, 1, 72)))},
	{name: "ping to the peer", ip: ip4(host4, peer4, 1, icmp(8, 0, make([]byte, 40)))},
	{name: "transit esp of another gateway", ip: ip4(host4, other4, 50, espPacket(1, 1, 72))},
	{name: "to a subnet of nobody", ip: ttl4(local4, netip.MustParseAddr("10.4.0.1"), 6, 63)},
	{name: "next to the subnet", ip: ttl4(local4, netip.MustParseAddr("10.2.1.10"), 6, 63)},
	{name: "next to the ipv6 subnet", ip: hops6(local6, netip.MustParseAddr("2001:db8:b:1::10"), 6, 63)},
	{name: "to the broadcast address", ip: ttl4(local4, netip.MustParseAddr("10.2.0.255"), 17, 63)},
	{name: "multicast", ip: ttl4(host4, netip.MustParseAddr("224.0.0.5"), 89, 1)},
	{name: "multicast ipv6", ip: hops6(host6, netip.MustParseAddr("ff02::5"), 89, 1)},
	{name: "between remote hosts", ip: ttl4(netip.MustParseAddr("10.2.0.11"), remote4, 6, 63)},
	{name: "icmp error", ip: ip4(host4, remote4, 1, icmp(3, 3, ip4(remote4, host4, 17, udp(53, 53, nil))))},
	{name: "icmpv6 error", ip: ip6(host6, remote6, 58, icmp(1, 4, ip6(remote6, host6, 17, udp(53, 53, nil))))},
	{name: "later fragment", ip: header4{src: local4, dst: remote4, proto: 17, frag: 185}.with(make([]byte, 40))},
	{name: "udp cut short", ip: ip4(local4, remote4, 17, make([]byte, 7))},
}

// greet sends the peer something, so that the way to it is known.
func greet(o *Observer, f Frame) {
	for _, ip := range [][]byte{
		ip4(host4, peer4, 17, udp(4500, 4500, []byte{0xff})),
		ip6(host6, peer6, 17, udp(4500, 4500, []byte{0xff})),
	} {
		f.Data = eth(ip)
		f.WireLen = len(f.Data)
		o.Packet(f)
	}
}

func TestLeaks(t *testing.T) {
	for _, tc := range leakCases {
		t.Run(tc.name, func(t *testing.T) {
			o := NewObserver(leakPeers)
			f := sent(nil)
			greet(o, f)
			f = sent(tc.ip)
			f.Outgoing = !tc.inbound
			o.Packet(f)
			c := o.Counts("p")
			if c.LeaksWatched != evidence.Yes {
				t.Errorf("watched: %v", c.LeaksWatched)
			}
			var got evidence.LeakKind
			if len(c.Leaks) == 1 && c.Leaks[0].Packets == 1 {
				got = c.Leaks[0].Kind
			} else if len(c.Leaks) > 0 {
				t.Errorf("counted %+v", c.Leaks)
			}
			if got != tc.kind {
				t.Errorf("counted as %q, want %q", got, tc.kind)
			}
			if n := len(o.Counts("q").Leaks); n != 0 {
				t.Errorf("%d leaks of the other peer", n)
			}
			if run(t, o, f) == 0 && tc.kind != "" {
				t.Error("the filter holds it back")
			}
			if run(t, o, Frame{Data: f.Data, Link: f.Link}) != 0 && tc.kind != "" {
				t.Error("the filter lets it in when it is received")
			}
		})
	}
}

// In a file without directions, the Ethernet address of who sends the peer its
// packets tells which are this side's.
func TestLeaksByAddress(t *testing.T) {
	ours, theirs := []byte{2, 0, 0, 0, 0, 2}, []byte{2, 0, 0, 0, 0, 9}
	for name, tc := range map[string]struct {
		change func(f *Frame)
		greet  bool
		want   uint64
	}{
		"ours":                    {func(f *Frame) { copy(f.Data[6:], ours) }, true, 1},
		"of a host on the lan":    {func(f *Frame) { copy(f.Data[6:], theirs) }, true, 0},
		"to a group":              {func(f *Frame) { f.Data[0] |= 1 }, true, 0},
		"before it is known":      {func(*Frame) {}, false, 0},
		"on an unknown interface": {func(f *Frame) { f.Interface = "lan" }, true, 0},
	} {
		o := NewObserver(leakPeers)
		if tc.greet {
			greet(o, received(nil))
		}
		f := received(ttl4(local4, remote4, 6, 63))
		tc.change(&f)
		o.Packet(f)
		var got uint64
		for _, l := range o.Counts("p").Leaks {
			got += l.Packets
		}
		if got != tc.want {
			t.Errorf("%s: counted %d, want %d", name, got, tc.want)
		}
	}
	o := NewObserver(leakPeers)
	if w := o.Counts("p").LeaksWatched; w != evidence.Unknown {
		t.Errorf("before the peer was sent anything: watched: %v", w)
	}
	raw := ip4(host4, peer4, 50, espPacket(1, 1, 72))
	o.Packet(Frame{Data: raw, Link: LinkRaw, WireLen: len(raw), Time: epoch})
	if w := o.Counts("p").LeaksWatched; w != evidence.Unknown {
		t.Errorf("without directions: watched: %v", w)
	}
}

// Packets in clear on the way into a tunnel interface are no leaks: nothing
// goes to the gateway by it.
func TestLeaksInto(t *testing.T) {
	o := NewObserver(leakPeers)
	gre := ttl4(local4, remote4, 6, 64)
	show := func(ip []byte, index byte) {
		f := cooked2(ip, sllOutgoing)
		f[7] = index
		o.Packet(Frame{Data: f, Link: LinkSLL2, Interface: "any", WireLen: len(f), Time: epoch})
	}
	show(ip4(host4, peer4, 50, espPacket(1, 1, 72)), 2)
	show(gre, 3)
	if c := o.Counts("p"); len(c.Leaks) != 0 {
		t.Errorf("leaks by the tunnel interface: %+v", c.Leaks)
	}
	show(ttl4(local4, remote4, 6, 63), 2)
	if c := o.Counts("p"); len(c.Leaks) != 1 {
		t.Errorf("leaks by the underlay: %+v", c.Leaks)
	}
}

// Of subnets that are part of each other, the longer prefix says on which side
// an address is.
func TestLeaksNested(t *testing.T) {
	hub := Peer{Name: "p", Addrs: leakPeer.Addrs, Local: []netip.Prefix{prefix("10.1.0.0/16")}, Remote: []netip.Prefix{prefix("10.0.0.0/8")}}
	for name, tc := range map[string]struct {
		ip   []byte
		want int
	}{
		"to the hub":        {ttl4(local4, remote4, 6, 63), 1},
		"within this side":  {ttl4(host4, local4, 6, 63), 0},
		"within the other":  {ttl4(remote4, netip.MustParseAddr("10.3.0.1"), 6, 63), 0},
		"from the internet": {ttl4(guest4, remote4, 6, 63), 1},
	} {
		o := NewObserver([]Peer{hub})
		greet(o, sent(nil))
		o.Packet(sent(tc.ip))
		if got := len(o.Counts("p").Leaks); got != tc.want {
			t.Errorf("%s: counted %d, want %d", name, got, tc.want)
		}
	}
}

func TestLeaksSince(t *testing.T) {
	o := NewObserver(leakPeers)
	greet(o, sent(nil))
	f := sent(ttl4(local4, remote4, 6, 63))
	o.Packet(f)
	earlier := o.Counts("p")
	f = sent(ttl4(host4, remote4, 17, 63))
	f.Time = epoch.Add(time.Second)
	o.Packet(f)
	want := []evidence.Leak{{
		Kind: evidence.LeakRewritten, Packets: 1, Source: host4, Destination: remote4, Protocol: 17, Last: f.Time,
	}}
	if diff := cmp.Diff(want, o.Counts("p").Since(earlier, evidence.No).Leaks, unexported); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A list of subnets that the filter has no room for is not watched, and said
// not to be.
func TestLeaksBound(t *testing.T) {
	subnets := func(n int, format string) (list []netip.Prefix) {
		for i := range n {
			list = append(list, prefix(fmt.Sprintf(format, i)))
		}
		return list
	}
	for name, tc := range map[string]struct {
		remote []netip.Prefix
		want   evidence.Fact
	}{
		"none":         {nil, evidence.No},
		"as many":      {append(subnets(maxWatched-1, "10.2.%d.0/24"), subnets(maxWatched-1, "10.2.%d.9/24")...), evidence.Yes},
		"too many":     {subnets(maxWatched, "10.2.%d.0/24"), evidence.No},
		"all":          {[]netip.Prefix{prefix("0.0.0.0/0")}, evidence.No},
		"one too wide": {[]netip.Prefix{prefix("10.2.0.0/24"), prefix("2000::/3")}, evidence.No},
		"wide":         {[]netip.Prefix{prefix("10.0.0.0/8"), prefix("2001:db8::/32")}, evidence.Yes},
		"mapped":       {[]netip.Prefix{netip.PrefixFrom(netip.AddrFrom16(remote4.As16()), 120)}, evidence.Yes},
	} {
		o := NewObserver([]Peer{{Name: "p", Addrs: leakPeer.Addrs, Local: leakPeer.Local, Remote: tc.remote}, leakPeers[1]})
		greet(o, sent(nil))
		f := sent(ttl4(local4, remote4, 6, 63))
		o.Packet(f)
		c := o.Counts("p")
		if c.LeaksWatched != tc.want {
			t.Errorf("%s: watched: %v", name, c.LeaksWatched)
		}
		if seen := run(t, o, f) > 0; len(c.Leaks) == 1 && !seen || tc.want == evidence.Yes && len(c.Leaks) != 1 {
			t.Errorf("%s: %d leaks, let through: %t", name, len(c.Leaks), seen)
		}
	}
}
