package hoststate

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"vpnprobe/evidence"
	"vpnprobe/internal/netnstest"
)

// underlay is a host with an uplink; the far end of it stays in the same
// namespace, and answers for no address.
var underlay = []string{
	"sysctl -qw net.ipv6.conf.default.accept_dad=0",
	"ip link add wan type veth peer name far",
	"ip link set wan up", "ip link set far up",
	"ip addr add 192.0.2.1/24 dev wan",
	"ip addr add 2001:db8::1/64 dev wan nodad",
}

func TestRoute(t *testing.T) {
	netnstest.Thread(t)
	run(t, underlay...)
	run(t,
		"ip route add 198.51.100.0/24 via 192.0.2.254",
		"ip neigh add 192.0.2.254 lladdr 02:00:00:00:00:01 dev wan nud permanent",
		"ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev wan nud stale",
		"ip route add prohibit 203.0.113.1",
		"ip route add blackhole 203.0.113.2",
		"ip route add unreachable 203.0.113.3",
		"ip route add 203.0.113.4 via inet6 2001:db8::fe dev wan",
		"ip neigh add 2001:db8::fe lladdr 02:00:00:00:00:06 dev wan nud reachable",
		"ip -6 route add 2001:db8:1::/64 via 2001:db8::fe",
		"ip -6 route add prohibit 2001:db8:2::1",
		"ip -6 route add blackhole 2001:db8:2::2",
		"ip -6 route add unreachable 2001:db8:2::3",
		"ip tuntap add dev tun0 mode tun", "ip link set tun0 up", "ip route add 203.0.113.64/26 dev tun0 src 192.0.2.1",
		"ip tuntap add dev tap0 mode tap", "ip link set tap0 up", "ip route add 203.0.113.128/26 dev tap0 src 192.0.2.1",
	)
	some4, some6 := evidence.Some(addr("192.0.2.1")), evidence.Some(addr("2001:db8::1"))
	rejected := func(k evidence.RouteKind) evidence.Route {
		return evidence.Route{Kind: k, Tunnel: evidence.No}
	}
	unicast := func(dev string, src evidence.Opt[netip.Addr], neighbour, tunnel evidence.Fact) evidence.Route {
		return evidence.Route{Kind: evidence.RouteUnicast, Interface: dev, Source: src, Neighbour: neighbour, Tunnel: tunnel}
	}
	via := func(r evidence.Route, hop string) evidence.Route {
		r.NextHop = evidence.Some(addr(hop))
		return r
	}
	tests := []struct {
		name            string
		dst, src, iface string
		want            evidence.Route
	}{
		{"via a next hop", "198.51.100.2", "", "", via(unicast("wan", some4, evidence.Yes, evidence.No), "192.0.2.254")},
		{"from a source", "198.51.100.2", "192.0.2.1", "", via(unicast("wan", some4, evidence.Yes, evidence.No), "192.0.2.254")},
		{"on an interface", "198.51.100.2", "", "wan", via(unicast("wan", some4, evidence.Yes, evidence.No), "192.0.2.254")},
		{"mapped address", "::ffff:198.51.100.2", "", "", via(unicast("wan", some4, evidence.Yes, evidence.No), "192.0.2.254")},
		{"on-link, known neighbour", "192.0.2.9", "", "", unicast("wan", some4, evidence.Yes, evidence.No)},
		{"on-link, untried neighbour", "192.0.2.10", "", "", unicast("wan", some4, evidence.Unknown, evidence.No)},
		{"IPv4 via IPv6", "203.0.113.4", "", "", via(unicast("wan", some4, evidence.Yes, evidence.No), "2001:db8::fe")},
		{"own address", "192.0.2.1", "", "", evidence.Route{Kind: evidence.RouteLocal, Interface: "lo", Source: some4, Tunnel: evidence.No}},
		{"none", "8.8.8.8", "", "", rejected(evidence.RouteNone)},
		{"prohibit", "203.0.113.1", "", "", rejected(evidence.RouteProhibit)},
		{"blackhole", "203.0.113.2", "", "", rejected(evidence.RouteBlackhole)},
		{"blackhole from a source", "203.0.113.2", "192.0.2.1", "", rejected(evidence.RouteBlackhole)},
		{"prohibit, on an interface", "203.0.113.1", "", "wan", unicast("wan", some4, evidence.Unknown, evidence.No)},
		{"none, on an interface", "8.8.8.8", "", "wan", unicast("wan", some4, evidence.Unknown, evidence.No)},
		{"unreachable", "203.0.113.3", "", "", rejected(evidence.RouteUnreachable)},
		{"tun", "203.0.113.65", "", "", unicast("tun0", some4, evidence.Unknown, evidence.Yes)},
		{"tap", "203.0.113.129", "", "", unicast("tap0", some4, evidence.Unknown, evidence.No)},
		{"IPv6 via a next hop", "2001:db8:1::2", "", "", via(unicast("wan", some6, evidence.Yes, evidence.No), "2001:db8::fe")},
		{"IPv6 from a source", "2001:db8:1::2", "2001:db8::1", "wan", via(unicast("wan", some6, evidence.Yes, evidence.No), "2001:db8::fe")},
		{"IPv6 none", "2001:db8:f::1", "", "", rejected(evidence.RouteNone)},
		{"IPv6 prohibit", "2001:db8:2::1", "", "", rejected(evidence.RouteProhibit)},
		{"IPv6 blackhole", "2001:db8:2::2", "", "", rejected(evidence.RouteBlackhole)},
		{"IPv6 unreachable", "2001:db8:2::3", "", "", rejected(evidence.RouteUnreachable)},
	}
	for _, tt := range tests { // no subtests: they would leave the namespace
		var src netip.Addr
		if tt.src != "" {
			src = addr(tt.src)
		}
		got := New().Route(addr(tt.dst), src, tt.iface)
		if diff := cmp.Diff(tt.want, got, compareOpts); diff != "" {
			t.Errorf("%s: Route(%s, %q, %q) (-want +got):\n%s", tt.name, tt.dst, tt.src, tt.iface, diff)
		}
	}
}

func TestRouteCannotLook(t *testing.T) {
	netnstest.Thread(t)
	run(t, underlay...)
	tests := []struct {
		name, iface string
		dst, src    netip.Addr
		want        string
	}{
		{"no destination", "", netip.Addr{}, netip.Addr{}, "no destination given"},
		{"absent interface", "nosuch0", addr("198.51.100.2"), netip.Addr{}, "interface nosuch0: no such device"},
		{"absent source", "", addr("192.0.2.9"), addr("192.0.2.77"), "the source 192.0.2.77 is not on this host"},
		{"mixed families", "", addr("192.0.2.9"), addr("2001:db8::1"), "other address family"},
	}
	for _, tt := range tests {
		got := New().Route(tt.dst, tt.src, tt.iface)
		if got.Kind != "" || !strings.Contains(got.CannotLook, tt.want) {
			t.Errorf("%s: Route() = kind %q, %q, want none and %q", tt.name, got.Kind, got.CannotLook, tt.want)
		}
	}
}

// TestRouteTunnels covers the devices that not every kernel has.
func TestRouteTunnels(t *testing.T) {
	for _, tt := range []struct{ name, add string }{
		{"ipip", "ip link add dev0 type ipip local 192.0.2.1 remote 192.0.2.2"},
		{"gre", "ip link add dev0 type gre local 192.0.2.1 remote 192.0.2.2"},
		{"sit", "ip link add dev0 type sit local 192.0.2.1 remote 192.0.2.2"},
		{"ip6tnl", "ip link add dev0 type ip6tnl local 2001:db8::1 remote 2001:db8::2"},
		{"vti", "ip link add dev0 type vti local 192.0.2.1 remote 192.0.2.2 key 1"},
		{"xfrm", "ip link add dev0 type xfrm dev lo if_id 1"},
		{"wireguard", "ip link add dev0 type wireguard"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			netnstest.Thread(t)
			skipUnless(t, tt.add)
			run(t, "ip link set dev0 up", "ip route add 198.51.100.0/24 dev dev0")
			if got := New().Route(addr("198.51.100.2"), netip.Addr{}, ""); got.Tunnel != evidence.Yes {
				t.Errorf("Route() into %s = %+v, want a tunnel", tt.name, got)
			}
		})
	}
}

func TestNeighbourFails(t *testing.T) {
	netnstest.Thread(t)
	run(t, underlay...)
	for _, dst := range []string{"192.0.2.200", "2001:db8::200"} {
		send := func() {
			conn, err := net.Dial("udp", netip.AddrPortFrom(addr(dst), 9).String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.Write([]byte{0}) // an error only says that the address does not resolve
		}
		send()
		netnstest.Eventually(t, dst+" is seen not to resolve", func() bool {
			return New().Route(addr(dst), netip.Addr{}, "").Neighbour == evidence.No
		})
	}
}

func TestParseNeighbour(t *testing.T) {
	entry := func(state uint8, updated uint8) []byte {
		b := make([]byte, 12)
		b[8] = state
		cache := make([]byte, 16)
		cache[8] = updated
		return appendAttribute(b, 3, cache)
	}
	tests := []struct {
		name string
		b    []byte
		want evidence.Fact
	}{
		{"reachable", entry(0x02, 0), evidence.Yes},
		{"stale", entry(0x04, 0), evidence.Yes},
		{"failed", entry(0x20, 0), evidence.No},
		{"just asked for", entry(0x01, 99), evidence.Unknown},
		{"asked for in vain", entry(0x01, 100), evidence.No},
		{"asked for, since unknown when", entry(0x01, 200)[:12], evidence.Unknown},
		{"no neighbours here", entry(0x40, 0), evidence.Unknown},
		{"truncated", entry(0x02, 0)[:11], evidence.Unknown},
	}
	for _, tt := range tests {
		if got := parseNeighbour(tt.b); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestSourceOnHost(t *testing.T) {
	netnstest.Thread(t)
	run(t, underlay...)
	for s, want := range map[string]bool{
		"192.0.2.1": true, "::ffff:192.0.2.1": true, "2001:db8::1": true, "127.0.0.1": true,
		"192.0.2.2": false, "2001:db8::2": false, "0.0.0.0": false,
	} {
		got, err := SourceOnHost(addr(s))
		if got != want || err != nil {
			t.Errorf("SourceOnHost(%s) = %v, %v, want %v", s, got, err, want)
		}
	}
}

func TestLink(t *testing.T) {
	netnstest.Thread(t)
	run(t, underlay...)
	run(t, "ip link set wan mtu 1400", "ip link property add dev wan altname underlay-with-a-long-name",
		"ip link add down0 type veth peer name down1", "ip link add half0 type veth peer name half1", "ip link set half0 up")
	tests := []evidence.Link{
		{Name: "wan", Exists: evidence.Yes, Up: evidence.Yes, Carrier: evidence.Yes, MTU: evidence.Some(1400)},
		{Name: "underlay-with-a-long-name", Exists: evidence.Yes, Up: evidence.Yes, Carrier: evidence.Yes, MTU: evidence.Some(1400)},
		{Name: "half0", Exists: evidence.Yes, Up: evidence.Yes, Carrier: evidence.No, MTU: evidence.Some(1500)},
		{Name: "down0", Exists: evidence.Yes, Up: evidence.No, MTU: evidence.Some(1500)},
		{Name: "nosuch0", Exists: evidence.No},
		{Name: "nosuch0-and-longer-than-fits", Exists: evidence.No},
		{Name: strings.Repeat("x", 200)}, // no name at all: the kernel refuses to look
	}
	for _, want := range tests {
		if diff := cmp.Diff(want, New().Link(want.Name), compareOpts); diff != "" {
			t.Errorf("Link(%s) (-want +got):\n%s", want.Name, diff)
		}
	}
}
