package hoststate

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vpnprobe/internal/netnstest"
)

// uplinks are three ways out, each with an address of its own.
var uplinks = []string{
	"sysctl -qw net.ipv6.conf.default.accept_dad=0",
	"for i in 1 2 3; do ip link add wan$i type veth peer name far$i; ip link set wan$i up; ip link set far$i up;" +
		" ip addr add 192.0.2.$((i*16+1))/28 dev wan$i; ip addr add 2001:db8:$i::1/64 dev wan$i nodad; done",
}

func TestEgresses(t *testing.T) {
	tests := []struct {
		name    string
		routes  []string
		gateway string
		source  string
		want    string
	}{
		{"one route", []string{"ip route add 198.51.100.0/24 via 192.0.2.18"}, "198.51.100.2", "", "wan1"},
		{"on-link", nil, "192.0.2.20", "", "wan1"},
		{"multipath", []string{"ip route add 198.51.100.0/24 nexthop via 192.0.2.18 nexthop via 192.0.2.34 nexthop via 192.0.2.50"},
			"198.51.100.2", "", "wan1 wan2 wan3"},
		{"two next hops on one interface", []string{"ip route add 198.51.100.0/24 nexthop via 192.0.2.18 nexthop via 192.0.2.19"},
			"198.51.100.2", "", "wan1"},
		{"two default routes", []string{"ip route add default via 192.0.2.18 metric 100", "ip route add default via 192.0.2.34 metric 200"},
			"198.51.100.2", "", "wan1 wan2"},
		{"multipath with a spare", []string{"ip route add 198.51.100.0/24 metric 10 nexthop via 192.0.2.18 nexthop via 192.0.2.34",
			"ip route add 198.51.100.0/24 metric 20 via 192.0.2.50"}, "198.51.100.2", "", "wan1 wan2 wan3"},
		{"a wider route is no alternative", []string{"ip route add 198.51.100.0/24 via 192.0.2.18", "ip route add default via 192.0.2.34"},
			"198.51.100.2", "", "wan1"},
		{"another table", []string{"ip route add 198.51.100.0/24 via 192.0.2.18", "ip route add 198.51.100.0/24 via 192.0.2.34 table 700", "ip route add default via 192.0.2.50 table 700"},
			"198.51.100.2", "", "wan1 wan2"},
		{"another table without a way there", []string{"ip route add 198.51.100.0/24 via 192.0.2.18", "ip route add 10.0.0.0/8 via 192.0.2.34 table 700"},
			"198.51.100.2", "", "wan1"},
		{"a rule by source", []string{"ip route add default via 192.0.2.18", "ip route add default via 192.0.2.34 table 700", "ip route add default via 192.0.2.50 table 700 metric 9",
			"ip rule add from 192.0.2.33 table 700"}, "198.51.100.2", "192.0.2.33", "wan1 wan2 wan3"},
		{"IPv6 multipath", []string{"ip -6 route add 2001:db8:f::/64 nexthop via 2001:db8:1::9 nexthop via 2001:db8:2::9"},
			"2001:db8:f::1", "", "wan1 wan2"},
		{"IPv6 default routes", []string{"ip -6 route add default via 2001:db8:1::9 metric 10", "ip -6 route add default via 2001:db8:3::9 metric 20"},
			"2001:db8:f::1", "", "wan1 wan3"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			netnstest.Thread(t)
			run(t, uplinks...)
			run(t, tt.routes...)
			var source netip.Addr
			if tt.source != "" {
				source = addr(tt.source)
			}
			got, err := New().Egresses(addr(tt.gateway), source)
			slices.Sort(got)
			if err != nil || strings.Join(got, " ") != tt.want {
				t.Errorf("Egresses() = %v, %v, want %s", got, err, tt.want)
			}
		})
	}
}

func TestEgressesErrors(t *testing.T) {
	netnstest.Thread(t)
	run(t, uplinks...)
	if got, err := New().Egresses(addr("198.51.100.2"), netip.Addr{}); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("no route: %v, %v", got, err)
	}
	if got, err := New().Egresses(netip.Addr{}, netip.Addr{}); err == nil {
		t.Errorf("no gateway: %v", got)
	}
}

// A table of a great many routes is not read to its end, and the next hops of
// the route itself are known all the same.
func TestEgressesManyRoutes(t *testing.T) {
	netnstest.Thread(t)
	run(t, uplinks...)
	run(t, "ip route add 198.51.100.0/24 nexthop via 192.0.2.18 nexthop via 192.0.2.34",
		"ip route add 198.51.100.0/24 metric 20 via 192.0.2.50",
		"i=0; while [ $i -lt 5000 ]; do echo route add 10.$((i/250)).$((i%250)).0/24 via 192.0.2.18; i=$((i+1)); done | ip -batch -")
	got, err := New().Egresses(addr("198.51.100.2"), netip.Addr{})
	slices.Sort(got)
	if err != nil || !slices.Equal(got, []string{"wan1", "wan2"}) {
		t.Errorf("Egresses() = %v, %v", got, err)
	}
}

// Nothing that the kernel could send leads out of the message.
func FuzzParseTableRoute(f *testing.F) {
	hop := append([]byte{16, 0, 0, 0, 7, 0, 0, 0}, 8, 0, 5, 0, 192, 0, 2, 1)
	f.Add(appendAttribute(appendAttribute(make([]byte, unix.SizeofRtMsg), unix.RTA_DST, []byte{198, 51, 100, 0}), unix.RTA_MULTIPATH, append(hop, hop...)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := parseTableRoute(b)
		if len(r.hops) > len(b) {
			t.Errorf("%d next hops in %d bytes", len(r.hops), len(b))
		}
	})
}
