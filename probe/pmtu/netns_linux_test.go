package pmtu

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/netnstest"
	"vpnprobe/internal/rawconn"
)

const (
	hostA4, routerA4 = "192.0.2.1", "192.0.2.254"
	hostB4, routerB4 = "198.51.100.2", "198.51.100.254"
	hostA6, routerA6 = "2001:db8:a::1", "2001:db8:a::254"
	hostB6, routerB6 = "2001:db8:b::2", "2001:db8:b::254"
)

var families = []struct {
	name          string
	a, routerA, b netip.Addr
}{
	{"IPv4", netip.MustParseAddr(hostA4), netip.MustParseAddr(routerA4), netip.MustParseAddr(hostB4)},
	{"IPv6", netip.MustParseAddr(hostA6), netip.MustParseAddr(routerA6), netip.MustParseAddr(hostB6)},
}

// newPath makes host a, a router and host b, with links of the given MTUs.
func newPath(t *testing.T, near, far int) (a, router, b *netnstest.NS) {
	t.Helper()
	a, router, b = netnstest.New(t), netnstest.New(t), netnstest.New(t)
	router.IP(
		fmt.Sprintf("link add ra mtu %d type veth peer name eth0 mtu %d netns %d", near, near, a.Tid()),
		fmt.Sprintf("link add rb mtu %d type veth peer name eth0 mtu %d netns %d", far, far, b.Tid()),
		"addr add "+routerA4+"/24 dev ra", "-6 addr add "+routerA6+"/64 dev ra nodad",
		"addr add "+routerB4+"/24 dev rb", "-6 addr add "+routerB6+"/64 dev rb nodad",
		"link set ra up", "link set rb up",
	)
	router.Sysctl("ipv4/ip_forward", "1")
	router.Sysctl("ipv6/conf/all/forwarding", "1")
	a.IP("addr add "+hostA4+"/24 dev eth0", "-6 addr add "+hostA6+"/64 dev eth0 nodad", "link set eth0 up",
		"route add default via "+routerA4, "-6 route add default via "+routerA6)
	b.IP("addr add "+hostB4+"/24 dev eth0", "-6 addr add "+hostB6+"/64 dev eth0 nodad", "link set eth0 up",
		"route add default via "+routerB4, "-6 route add default via "+routerB6)
	for _, target := range []string{hostB4, hostB6} {
		settle(t, a, netip.MustParseAddr(target))
	}
	return a, router, b
}

// settle waits until a link carries packets, and neighbours found each other.
func settle(t *testing.T, ns *netnstest.NS, target netip.Addr) {
	t.Helper()
	var conn *rawconn.Echo
	var err error
	ns.Do(func() { conn, err = rawconn.OpenEcho(target.Is6(), rawconn.Options{}) })
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	netnstest.Eventually(t, target.String()+" answers", func() bool {
		_ = conn.Send(target, 1, smallSize) // not before the link is up
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		ev, err := conn.Receive(ctx)
		return err == nil && ev.Err == nil
	})
}

// filter makes nftables rules in a chain of the namespace.
func filter(t *testing.T, ns *netnstest.NS, hook string, rules ...string) {
	t.Helper()
	if err := ns.Run("nft add table inet t"); err != nil {
		t.Skipf("this host cannot filter packets: %v", err)
	}
	// Before anything puts fragments together.
	if err := ns.Run("nft add chain inet t c { type filter hook " + hook + " priority -450; }"); err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		if err := ns.Run("nft add rule inet t c " + r); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSearchReal(t *testing.T) {
	silent := []string{"icmp type destination-unreachable drop", "icmpv6 type packet-too-big drop"}
	tests := []struct {
		name      string
		near, far int // MTUs
		hook      string
		rules     []string
		max       int
		state     evidence.MTUState
		want      int
		cached    int
		tooBig    bool
		fragments bool // pass
		most      int  // packets
	}{
		{name: "full", near: 1500, far: 1500, state: evidence.MTUFull, want: 1500, cached: 1500, fragments: true, most: 7},
		{name: "1280", near: 1280, far: 1280, state: evidence.MTUFull, want: 1280, cached: 1280, fragments: true, most: 7},
		{name: "1492", near: 1492, far: 1492, state: evidence.MTUFull, want: 1492, cached: 1492, fragments: true, most: 7},
		{name: "9000", near: 9000, far: 9000, state: evidence.MTUFull, want: 9000, cached: 9000, fragments: true, most: 9},
		{name: "limited", near: 1500, far: 1500, max: 1400, state: evidence.MTUFull, want: 1400, cached: 1500, fragments: true, most: 7},
		{name: "to 1400", near: 1500, far: 1400, state: evidence.MTUReduced, want: 1400, cached: 1400, tooBig: true, fragments: true, most: 12},
		{name: "to 1438", near: 9000, far: 1438, state: evidence.MTUReduced, want: 1438, cached: 1438, tooBig: true, fragments: true, most: 12},
		{name: "to 1280", near: 1500, far: 1280, state: evidence.MTUReduced, want: 1280, cached: 1280, tooBig: true, fragments: true, most: 12},
		{name: "black hole", near: 1500, far: 1437, hook: "output", rules: silent, state: evidence.MTUBlackHole, want: 1437, cached: 1500, fragments: true, most: maxPackets},
		{
			name: "fragments dropped", near: 1500, far: 1500, hook: "prerouting",
			rules: []string{"ip frag-off & 0x3fff != 0 drop", "exthdr frag exists drop"},
			state: evidence.MTUFull, want: 1500, cached: 1500, most: 40,
		},
		{
			name: "silent", near: 1500, far: 1500, hook: "forward", rules: []string{"icmp type echo-request drop", "icmpv6 type echo-request drop"},
			state: evidence.MTUUnknown, cached: 1500, most: 4,
		},
	}
	for _, tt := range tests {
		for _, f := range families {
			t.Run(tt.name+"/"+f.name, func(t *testing.T) {
				t.Parallel()
				a, router, _ := newPath(t, tt.near, tt.far)
				if tt.hook != "" {
					filter(t, router, tt.hook, tt.rules...)
				}
				var got evidence.PathMTU
				var err error
				a.Do(func() {
					got, err = Search(context.Background(), Config{
						Target: f.b, Role: evidence.Gateway, Source: f.a, Max: tt.max, Timeout: 150 * time.Millisecond,
					})
				})
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%d packets in %v, small %v, fragments %+v", got.Packets, time.Duration(got.Took), got.Small, got.Fragmented)
				if got.State != tt.state || got.MTU.Or(0) != tt.want {
					t.Errorf("want %q with %d: got %s", tt.state, tt.want, describe(got))
				}
				if got.LinkMTU.Or(0) != tt.near || got.Cached.Or(0) != tt.cached {
					t.Errorf("link MTU %d, cached %d: want %d, %d", got.LinkMTU.Or(0), got.Cached.Or(0), tt.near, tt.cached)
				}
				if got.Packets > tt.most {
					t.Errorf("more than %d packets: %s", tt.most, describe(got))
				}
				if got.Fragmented.Answered > 0 != tt.fragments || got.Fragmented.Reversed.Answered > 0 != tt.fragments {
					t.Errorf("fragments: %+v", got.Fragmented)
				}
				if (len(got.TooBig) > 0) != tt.tooBig || len(got.Bogus) > 0 {
					t.Errorf("too big: %v, bogus: %v", got.TooBig, got.Bogus)
				}
				for _, e := range got.TooBig {
					if e.Offender.Or(netip.Addr{}) != f.routerA || e.MTU.Or(0) != tt.far {
						t.Errorf("too big %+v: want from %v with %d", e, f.routerA, tt.far)
					}
				}
				if tt.state == evidence.MTUReduced && got.Cleared != evidence.No {
					t.Errorf("DF cleared: %v, though the router quotes it", got.Cleared)
				}
				if tt.state == evidence.MTUBlackHole {
					want := evidence.LostBetween{Size: 1438, After: f.routerA, Before: f.b, Hops: 1}
					if got.Lost != evidence.Some(want) {
						t.Errorf("lost at %+v, want %+v", got.Lost, want)
					}
				}
			})
		}
	}
}

func TestSearchCannotSend(t *testing.T) {
	ns := netnstest.New(t)
	var got evidence.PathMTU
	var err error
	ns.Do(func() { got, err = Search(context.Background(), Config{Target: netip.MustParseAddr(hostB4)}) })
	if err != nil {
		t.Fatal(err)
	}
	if want := "no_route: sendto: network is unreachable"; got.CannotLook != want {
		t.Errorf("cannot look: %q, want %q", got.CannotLook, want)
	}
}

func TestSearchIgnoresCache(t *testing.T) {
	t.Parallel()
	a, _, _ := newPath(t, 1500, 1500)
	a.IP("route add " + hostB4 + "/32 via " + routerA4 + " mtu 1300")
	var got evidence.PathMTU
	var err error
	a.Do(func() { got, err = Search(context.Background(), Config{Target: netip.MustParseAddr(hostB4)}) })
	if err != nil {
		t.Fatal(err)
	}
	// The route's MTU is only a belief, which a probe is there to test.
	if got.State != evidence.MTUFull || got.MTU.Or(0) != 1500 || got.Cached.Or(0) != 1300 {
		t.Errorf("got %s, cached %v", describe(got), got.Cached)
	}
}

func TestSearchLoopback(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	for _, target := range []string{"127.0.0.1", "::1"} {
		var got evidence.PathMTU
		var err error
		ns.Do(func() { got, err = Search(context.Background(), Config{Target: netip.MustParseAddr(target)}) })
		if err != nil || got.State != evidence.MTUFull {
			t.Errorf("%s: %v: %s", target, err, describe(got))
		}
	}
}

// A target on a narrower route than ours answers in fragments.
func TestReplyFragment(t *testing.T) {
	t.Parallel()
	a, router, _ := newPath(t, 1500, 1500)
	// Replies, which the kernel sends without the DF bit, are cut by the
	// router on their way back; requests are not.
	router.IP("route add " + hostA4 + "/32 dev ra mtu lock 1400")
	var got evidence.PathMTU
	var err error
	a.Do(func() { got, err = Search(context.Background(), Config{Target: netip.MustParseAddr(hostB4)}) })
	if err != nil {
		t.Fatal(err)
	}
	if got.State != evidence.MTUFull || got.ReplyFragment.Or(0) == 0 || got.ReplyFragment.Or(0) > 1400 {
		t.Errorf("reply fragment %v: %s", got.ReplyFragment, describe(got))
	}
}
