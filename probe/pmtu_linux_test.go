package probe

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"vpnprobe/evidence"
)

// families are the two targets behind the router of newRoutedPair.
var families = []struct {
	name          string
	a, routerA, b netip.Addr
}{
	{"IPv4", netip.MustParseAddr(hostA4), netip.MustParseAddr(routerA4), netip.MustParseAddr(hostB4)},
	{"IPv6", netip.MustParseAddr(hostA6), netip.MustParseAddr(routerA6), netip.MustParseAddr(hostB6)},
}

func TestSearchPathMTUReal(t *testing.T) {
	tests := []struct {
		name   string
		mtu    int    // behind the router
		hook   string // of the router's filter
		rules  []string
		max    int
		state  evidence.MTUState
		want   int
		cached int
		tooBig bool
	}{
		{name: "full", mtu: 1500, state: evidence.MTUFull, want: 1500, cached: 1500},
		{name: "limited", mtu: 1500, max: 1400, state: evidence.MTUFull, want: 1400, cached: 1500},
		{name: "reduced", mtu: 1400, state: evidence.MTUReduced, want: 1400, cached: 1400, tooBig: true},
		{
			name: "black hole", mtu: 1437, state: evidence.MTUBlackHole, want: 1437, cached: 1500,
			hook: "output", rules: []string{"icmp type destination-unreachable drop", "icmpv6 type packet-too-big drop"},
		},
		{
			name: "silent", mtu: 1500, state: evidence.MTUUnknown, cached: 1500,
			hook: "forward", rules: []string{"icmp type echo-request drop", "icmpv6 type echo-request drop"},
		},
	}
	for _, tt := range tests {
		for _, f := range families {
			t.Run(tt.name+"/"+f.name, func(t *testing.T) {
				t.Parallel()
				a, router, _ := newRoutedPair(t, tt.mtu)
				if tt.hook != "" {
					router.filter(tt.hook, tt.rules...)
				}
				var got evidence.PathMTU
				var err error
				a.Do(func() {
					got, err = SearchPathMTU(context.Background(), PathMTUConfig{
						Target: f.b, Role: evidence.Gateway, Source: f.a, Max: tt.max, Timeout: 150 * time.Millisecond,
					})
				})
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%d packets", got.Packets)
				if got.State != tt.state || got.MTU.Or(0) != tt.want {
					t.Errorf("got %q with %d bytes, want %q with %d", got.State, got.MTU.Or(0), tt.state, tt.want)
				}
				if got.LinkMTU.Or(0) != 1500 || got.Cached.Or(0) != tt.cached {
					t.Errorf("link MTU %d, cached %d: want 1500, %d", got.LinkMTU.Or(0), got.Cached.Or(0), tt.cached)
				}
				if got.Packets > maxMTUPackets {
					t.Errorf("sent %d packets", got.Packets)
				}
				if (len(got.TooBig) > 0) != tt.tooBig {
					t.Errorf("too big: %v", got.TooBig)
				}
				for _, e := range got.TooBig {
					if e.Offender.Or(netip.Addr{}) != f.routerA || e.MTU.Or(0) != tt.mtu {
						t.Errorf("too big %+v: want from %v with %d", e, f.routerA, tt.mtu)
					}
				}
			})
		}
	}
}

func TestSearchPathMTUCannotSend(t *testing.T) {
	ns := newNamespace(t)
	var got evidence.PathMTU
	var err error
	ns.Do(func() {
		got, err = SearchPathMTU(context.Background(), PathMTUConfig{Target: netip.MustParseAddr(hostB4)})
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := "no_route: sendto: network is unreachable"; got.CannotLook != want {
		t.Errorf("cannot look: %q, want %q", got.CannotLook, want)
	}
}

func TestSearchPathMTUIgnoresCache(t *testing.T) {
	a, _, _ := newRoutedPair(t, 1500)
	a.IP("route add " + hostB4 + "/32 via " + routerA4 + " mtu 1300")
	var got evidence.PathMTU
	var err error
	a.Do(func() {
		got, err = SearchPathMTU(context.Background(), PathMTUConfig{Target: netip.MustParseAddr(hostB4)})
	})
	if err != nil {
		t.Fatal(err)
	}
	// The route's MTU is only a belief, which a probe is there to test.
	if got.State != evidence.MTUFull || got.MTU.Or(0) != 1500 || got.Cached.Or(0) != 1300 {
		t.Errorf("got %+v", got)
	}
}

func TestProbeHopReal(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			a, _, _ := newRoutedPair(t, 1500)
			probe := func(ttls ...int) evidence.InnerHop {
				var got evidence.InnerHop
				var err error
				a.Do(func() {
					got, err = ProbeHop(context.Background(), HopConfig{Target: f.b, Source: f.a, TTLs: ttls, Timeout: 5 * time.Second})
				})
				if err != nil {
					t.Fatal(err)
				}
				return got
			}
			want := evidence.InnerHop{Sent: 1, Answered: 1, Offender: evidence.Some(f.routerA), Ever: evidence.Yes}
			if got := probe(); got != want {
				t.Errorf("one hop: got %+v, want %+v", got, want)
			}
			want = evidence.InnerHop{Sent: 2, Answered: 2, Offender: evidence.Some(f.b), Ever: evidence.Yes}
			if got := probe(1, 2); got != want {
				t.Errorf("two hops: got %+v, want %+v", got, want)
			}
		})
	}
}
