package probe

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnprobe/evidence"
	"vpnprobe/internal/wire/ike"
)

// serveIKE runs a responder on a UDP port of the namespace until the test
// ends.
func (ns *namespace) serveIKE(addr netip.Addr, port uint16, respond ikeResponder) {
	ns.t.Helper()
	listen := func(port uint16) (conn *net.UDPConn) {
		ns.t.Helper()
		var err error
		ns.Do(func() { conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, port))) })
		if err != nil {
			ns.t.Fatal(err)
		}
		return conn
	}
	conn, other := listen(port), listen(0)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 65535)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			b := buf[:n]
			if port == portNATT {
				b, _ = ike.CutNonESPMarker(b)
			}
			req, err := ike.Parse(b)
			if err != nil {
				ns.t.Errorf("received what does not parse: %v", err)
				continue
			}
			for _, r := range respond(req) {
				out := conn
				if r.otherPort {
					out = other
				}
				if _, err := out.WriteToUDPAddrPort(r.datagram(port), from); err != nil {
					ns.t.Errorf("reply: %v", err)
				}
			}
		}
	}()
	ns.t.Cleanup(func() {
		conn.Close()
		other.Close()
		<-done
	})
}

// openIKE opens a probe in the namespace.
func (ns *namespace) openIKE(cfg IKEConfig) *IKE {
	ns.t.Helper()
	var k *IKE
	var err error
	ns.Do(func() { k, err = OpenIKE(cfg) })
	if err != nil {
		ns.t.Fatal(err)
	}
	ns.t.Cleanup(func() { k.Close() })
	return k
}

func TestIKEHeartbeatReal(t *testing.T) {
	a, _, b := newRoutedPair(t, 1500)
	for i, tt := range ikeCases {
		for _, f := range families {
			for _, nominal := range []uint16{500, portNATT} {
				t.Run(tt.name+"/"+f.name, func(t *testing.T) {
					// The marker follows the nominal port, wherever the peer is.
					port := nominal
					if nominal == 500 {
						port = uint16(20000 + i)
					}
					b.t = t
					b.serveIKE(f.b, port, tt.respond)
					// Enough for an answer on a busy machine, short for the
					// cases that have to wait.
					timeout := 100 * time.Millisecond
					if tt.want.Outcome == evidence.IKEAnswered && tt.want.Requests == 1 {
						timeout = 5 * time.Second
					}
					a.t = t
					k := a.openIKE(IKEConfig{Target: netip.AddrPortFrom(f.b, port), Port: nominal, Source: f.a, Timeout: timeout})
					if !k.BypassesIPsec() {
						t.Error("IPsec policies apply to the probe of root")
					}
					got := beat(t, k)
					want := tt.want
					want.Port, want.Sent, want.Local, want.RTT = nominal, got.Sent, evidence.Some(f.a), got.RTT
					if diff := cmp.Diff(want, got, cmpValues); diff != "" {
						t.Errorf("-want +got:\n%s", diff)
					}
					if (want.Outcome == evidence.IKEAnswered) != (got.RTT.Or(0) > 0) {
						t.Errorf("RTT %v", got.RTT)
					}
				})
			}
		}
	}
}

func TestIKEHeartbeatRefusedReal(t *testing.T) {
	rejects := []struct {
		name    string
		rule    map[string]string // of the router's filter, by family
		outcome evidence.IKEOutcome
		reason  evidence.ICMPReason
		peer    bool // the offender is the peer
	}{
		{name: "closed port", outcome: evidence.IKERefused, reason: evidence.PortUnreachable, peer: true},
		{
			name:    "prohibited",
			rule:    map[string]string{"IPv4": "udp dport 500 reject with icmp type admin-prohibited", "IPv6": "udp dport 500 reject with icmpv6 type admin-prohibited"},
			outcome: evidence.IKEProhibited, reason: evidence.AdminProhibited,
		},
		{
			name:    "rejected as by default",
			rule:    map[string]string{"IPv4": "udp dport 500 reject with icmp type port-unreachable", "IPv6": "udp dport 500 reject with icmpv6 type port-unreachable"},
			outcome: evidence.IKEProhibited, reason: evidence.PortUnreachable,
		},
		{
			name:    "no route",
			rule:    map[string]string{"IPv4": "udp dport 500 reject with icmp type net-unreachable", "IPv6": "udp dport 500 reject with icmpv6 type no-route"},
			outcome: evidence.IKEUnreachable, reason: evidence.NetUnreachable,
		},
	}
	for _, tt := range rejects {
		for _, f := range families {
			t.Run(tt.name+"/"+f.name, func(t *testing.T) {
				t.Parallel()
				a, router, _ := newRoutedPair(t, 1500)
				if rule, ok := tt.rule[f.name]; ok {
					router.filter("forward", rule)
				}
				offender := f.routerA
				if tt.peer {
					offender = f.b
				}
				k := a.openIKE(IKEConfig{Target: netip.AddrPortFrom(f.b, 500), Source: f.a, Interface: "eth0", Timeout: 5 * time.Second})
				got := beat(t, k)
				if got.Outcome != tt.outcome || got.Requests != 1 || got.ICMP == nil {
					t.Fatalf("got %+v, want %q after one request", got, tt.outcome)
				}
				if got.ICMP.Reason != tt.reason || got.ICMP.Offender.Or(netip.Addr{}) != offender {
					t.Errorf("got ICMP error %+v, want %q by %v", got.ICMP, tt.reason, offender)
				}
			})
		}
	}
}

func TestIKEHeartbeatSendErrorReal(t *testing.T) {
	target := netip.MustParseAddrPort(hostB4 + ":500")
	tests := []struct {
		name  string
		setup []string
		cfg   IKEConfig
		want  evidence.SendReason
	}{
		{"no route", nil, IKEConfig{}, evidence.NoRoute},
		{"unreachable route", []string{"route add unreachable default"}, IKEConfig{}, evidence.NoRoute},
		{"blackhole route", []string{"route add blackhole default"}, IKEConfig{}, evidence.NoRoute},
		{"prohibit route", []string{"route add prohibit default"}, IKEConfig{}, evidence.Prohibited},
		{"no source", nil, IKEConfig{Source: netip.MustParseAddr(hostA4)}, evidence.NoAddress},
		{"no interface", nil, IKEConfig{Interface: "wan"}, evidence.NoDevice},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ns := newNamespace(t)
			ns.IP(tt.setup...)
			cfg := tt.cfg
			cfg.Target, cfg.Timeout = target, 5*time.Second
			k := ns.openIKE(cfg)
			var got evidence.IKEResult
			ns.Do(func() { got = beat(t, k) }) // opens the socket again
			if got.Outcome != evidence.IKESendError || got.Send != tt.want || got.Requests != 0 {
				t.Errorf("got %+v, want %q", got, tt.want)
			}
		})
	}
	t.Run("output filter", func(t *testing.T) {
		a, _, _ := newRoutedPair(t, 1500)
		a.filter("output", "udp dport 500 drop")
		if got := beat(t, a.openIKE(IKEConfig{Target: target})); got.Send != evidence.LocalFirewall {
			t.Errorf("got %+v, want %q", got, evidence.LocalFirewall)
		}
	})
}

// An interface that appears after the probe was opened, goes, and returns.
func TestIKEHeartbeatInterfaceReturns(t *testing.T) {
	ns := newNamespace(t)
	target := netip.MustParseAddrPort("192.0.2.1:500")
	k := ns.openIKE(IKEConfig{Target: target, Interface: "wan", Timeout: 20 * time.Millisecond})
	outcome := func() (got evidence.IKEResult) {
		ns.Do(func() { got = beat(t, k) })
		return got
	}
	for range 2 {
		if got := outcome(); got.Send != evidence.NoDevice {
			t.Fatalf("without the interface: got %+v", got)
		}
		ns.IP("link add wan type veth peer name lan", "addr add 192.0.2.9/24 dev wan", "link set wan up", "link set lan up")
		// Nobody answers on that link: what matters is that it left.
		if got := outcome(); got.Outcome == evidence.IKESendError || got.Requests == 0 {
			t.Fatalf("with the interface: got %+v", got)
		}
		ns.IP("link del wan")
		if got := outcome(); got.Send != evidence.NoDevice && got.Send != evidence.NoRoute {
			t.Fatalf("after the interface went: got %+v", got)
		}
	}
}

// A policy that covers both hosts must not swallow the probe: without a
// security association, it would.
func TestIKEHeartbeatBypassesPolicy(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			a, _, b := newRoutedPair(t, 1500)
			b.serveIKE(f.b, 500, answersAll)
			for _, dir := range []string{"out", "in"} {
				src, dst := f.a, f.b
				if dir == "in" {
					src, dst = dst, src
				}
				if err := a.Run("ip xfrm policy add src " + src.String() + " dst " + dst.String() + " dir " + dir + " action block"); err != nil {
					t.Skipf("this kernel has no IPsec policies: %v", err)
				}
			}
			cfg := IKEConfig{Target: netip.AddrPortFrom(f.b, 500), Source: f.a, Timeout: 5 * time.Second}
			if got := beat(t, a.openIKE(cfg)); got.Outcome != evidence.IKEAnswered {
				t.Errorf("got %+v, want an answer", got)
			}
		})
	}
}
