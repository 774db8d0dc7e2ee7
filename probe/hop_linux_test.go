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
