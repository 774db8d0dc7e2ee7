package agent

import (
	"net/netip"
	"testing"
	"time"

	"vpnprobe/evidence"
)

func TestTunnelMTU(t *testing.T) {
	gateway4, gateway6, host := netip.MustParseAddr("198.51.100.2"), netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("10.2.0.10")
	sa := func(suite string, encap bool, age time.Duration) evidence.SA {
		return evidence.SA{Protocol: "esp", Mode: "tunnel", Suite: suite, Encap: encap, Created: time.Unix(1e9, 0).Add(-age)}
	}
	found := func(role evidence.Role, to netip.Addr, probe evidence.MTUProbe, state evidence.MTUState, mtu int) evidence.PathMTU {
		return evidence.PathMTU{Role: role, Target: to, Probe: probe, State: state, MTU: evidence.Some(mtu), LinkMTU: evidence.Some(1500)}
	}
	icmp, ike := evidence.MTUByICMP, evidence.MTUByIKE
	gw, inner := evidence.Gateway, evidence.Inner
	full := []evidence.PathMTU{found(gw, gateway4, icmp, evidence.MTUFull, 1500)}
	hole := found(gw, gateway4, icmp, evidence.MTUBlackHole, 1400)
	tests := []struct {
		name     string
		gateway  netip.Addr
		sas      []evidence.SA
		declared []string
		mtus     []evidence.PathMTU
		inner    int // 0 for no sum
		outer    int
		measured bool
		from     string
	}{
		{"AES-GCM", gateway4, []evidence.SA{sa("aes128gcm16", false, 0)}, nil, full, 1446, 1500, true, "kernel"},
		{"in UDP", gateway4, []evidence.SA{sa("aes128gcm16", true, 0)}, nil, full, 1438, 1500, true, "kernel"},
		{"IPv6 outside", gateway6, []evidence.SA{sa("aes128gcm16", false, 0)}, nil, full, 1426, 1500, true, "kernel"},
		{"the newest SA counts", gateway4, []evidence.SA{sa("aes128gcm16", false, 0), sa("aes256-sha512", true, time.Hour)}, nil, full, 1446, 1500, true, "kernel"},
		{"an unknown algorithm", gateway4, []evidence.SA{sa("", false, 0)}, nil, full, 0, 0, false, ""},
		{"as declared", gateway4, nil, []string{"aes256-sha256-modp2048", "aes128-sha256"}, full, 1438, 1500, true, "declared"},
		{"declarations of different sizes", gateway4, nil, []string{"aes256-sha256", "aes128gcm16"}, full, 0, 0, false, ""},
		{"nothing known", gateway4, nil, nil, full, 0, 0, false, ""},
		{"not searched", gateway4, []evidence.SA{sa("aes128gcm16", false, 0)}, nil, nil, 1446, 1500, false, "kernel"},
		{"only large pings are lost", gateway4, []evidence.SA{sa("aes128gcm16", false, 0)}, nil, []evidence.PathMTU{hole}, 1446, 1500, false, "kernel"},
		{"IKE requests are lost too", gateway4, []evidence.SA{sa("aes128gcm16", false, 0)}, nil,
			[]evidence.PathMTU{hole, found(gw, gateway4, ike, evidence.MTUBlackHole, 1380)}, 1346, 1400, true, "kernel"},
		{"the tunnel's packets are lost too", gateway4, []evidence.SA{sa("aes128gcm16", false, 0)}, nil,
			[]evidence.PathMTU{hole, found(inner, host, icmp, evidence.MTUBlackHole, 1346)}, 1346, 1400, true, "kernel"},
		{"the tunnel's packets are lost elsewhere", gateway4, []evidence.SA{sa("aes128gcm16", false, 0)}, nil,
			[]evidence.PathMTU{hole, found(inner, host, icmp, evidence.MTUBlackHole, 1000)}, 1446, 1500, false, "kernel"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := &evidence.Snapshot{
				Addresses: []netip.Addr{tt.gateway}, MTUs: tt.mtus, Declared: evidence.Declared{ESPProposals: tt.declared},
				Host: evidence.Host{Underlay: evidence.Link{MTU: evidence.Some(1500)}, Tunnel: evidence.Tunnel{SAs: tt.sas}},
			}
			sum, ok := tunnelMTU(s).Get()
			if ok != (tt.inner > 0) {
				t.Fatalf("sum known: %v, want %v", ok, tt.inner > 0)
			}
			if sum.Inner != tt.inner || sum.Outer != tt.outer || sum.Measured != tt.measured || sum.From != tt.from {
				t.Errorf("got %+v, want %d inside of %d (measured: %v) from %q", sum, tt.inner, tt.outer, tt.measured, tt.from)
			}
			if ok && (sum.MSS4 != sum.Inner-40 || sum.MSS6 != sum.Inner-60) {
				t.Errorf("MSS %d and %d for %d", sum.MSS4, sum.MSS6, sum.Inner)
			}
		})
	}
}

// A change of a path MTU is noted once, and a search that finds nothing is none.
func TestMTUChanges(t *testing.T) {
	a := netip.MustParseAddr("198.51.100.2")
	s := newState("cloud", evidence.Declared{}, pace{window: time.Minute})
	for _, n := range []int{1500, 1500, 0, 1400, 1400} {
		m := evidence.PathMTU{Role: evidence.Gateway, Target: a, Probe: evidence.MTUByICMP}
		if n > 0 {
			m.MTU = evidence.Some(n)
		}
		s.setMTU(m)
	}
	s.setMTU(evidence.PathMTU{Role: evidence.Gateway, Target: a, Probe: evidence.MTUByIKE, MTU: evidence.Some(1280)})
	changes := s.snapshot(time.Now()).MTUChanges
	if len(changes) != 1 || changes[0].From != 1500 || changes[0].To != 1400 {
		t.Errorf("changes are %+v, want one from 1500 to 1400", changes)
	}
}
