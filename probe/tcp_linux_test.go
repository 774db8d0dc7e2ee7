package probe

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/netnstest"
)

func TestConnectTCP(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	w := newWire(t)
	listen := func(addr string) netip.AddrPort {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l.Addr().(*net.TCPAddr).AddrPort()
	}
	open4, open6 := listen("127.0.0.1:0"), listen("[::1]:0")
	netnstest.IP(t, "route add prohibit 203.0.113.0/24")
	reject := func(hop string, typ, code byte) func(packet) {
		return func(p packet) { w.send(p.reject(netip.MustParseAddr(hop), typ, code, 0, 8)) }
	}
	for _, tt := range []struct {
		name    string
		cfg     TCPConfig
		network func(packet)
		want    evidence.Fact
		refused bool
		reason  string // contained
	}{
		{name: "open", cfg: TCPConfig{Target: open4}, want: evidence.Yes},
		{name: "open, mapped", cfg: TCPConfig{Target: netip.AddrPortFrom(netip.MustParseAddr("::ffff:127.0.0.1"), open4.Port())}, want: evidence.Yes},
		{name: "open IPv6", cfg: TCPConfig{Target: open6}, want: evidence.Yes},
		{name: "open, from", cfg: TCPConfig{Target: open4, Source: netip.MustParseAddr("127.0.0.9"), Interface: "lo"}, want: evidence.Yes},
		{name: "reset", cfg: TCPConfig{Target: netip.MustParseAddrPort("127.0.0.1:1")}, want: evidence.No, refused: true, reason: "reset"},
		{name: "reset IPv6", cfg: TCPConfig{Target: netip.MustParseAddrPort("[::1]:1")}, want: evidence.No, refused: true, reason: "reset"},
		{name: "silence", cfg: TCPConfig{Target: netip.MustParseAddrPort(wireTarget4 + ":443"), Timeout: 100 * time.Millisecond},
			want: evidence.No, reason: "no answer within 100ms"},
		// What iptables' REJECT sends: for connect(2) as good as a reset.
		{name: "rejected", cfg: TCPConfig{Target: netip.MustParseAddrPort(wireTarget4 + ":443")},
			network: reject(wireHop4, 3, 3), want: evidence.No, reason: "ICMP port_unreachable from " + wireHop4},
		{name: "prohibited", cfg: TCPConfig{Target: netip.MustParseAddrPort(wireTarget4 + ":443"), Interface: "tun0"},
			network: reject(wireHop4, 3, 13), want: evidence.No, reason: "ICMP admin_prohibited from " + wireHop4},
		{name: "rejected IPv6", cfg: TCPConfig{Target: netip.MustParseAddrPort("[" + wireTarget6 + "]:443")},
			network: reject(wireHop6, 1, 4), want: evidence.No, reason: "ICMP port_unreachable from " + wireHop6},
		{name: "prohibited here", cfg: TCPConfig{Target: netip.MustParseAddrPort("203.0.113.1:443")}, reason: "could not try"},
		{name: "no such source", cfg: TCPConfig{Target: open4, Source: netip.MustParseAddr("203.0.113.1")}, reason: "source 203.0.113.1"},
		{name: "no such interface", cfg: TCPConfig{Target: open4, Interface: "nope0"}, reason: `interface "nope0"`},
		{name: "families differ", cfg: TCPConfig{Target: open4, Source: netip.IPv6Loopback()}, reason: "could not try"},
		{name: "no target", reason: "no target address"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.play(func(p packet) {
				if tt.network != nil && p.protocol() == 6 {
					tt.network(p)
				}
			})
			got := ConnectTCP(t.Context(), tt.cfg)
			if got.Connected != tt.want || got.Refused != tt.refused || !strings.Contains(got.Reason, tt.reason) || got.Sent.IsZero() {
				t.Errorf("got %+v, want connected %v, refused %v, reason %q", got, tt.want, tt.refused, tt.reason)
			}
			if rtt, ok := got.RTT.Get(); ok != (tt.want == evidence.Yes || tt.refused) || ok && rtt <= 0 {
				t.Errorf("round-trip time %v, measured %v", rtt.Duration(), ok)
			}
		})
	}
	t.Run("stopped", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		w.play(func(p packet) {
			if p.protocol() == 6 {
				cancel()
			}
		})
		got := ConnectTCP(ctx, TCPConfig{Target: netip.MustParseAddrPort(wireTarget4 + ":443"), Timeout: time.Hour})
		if got.Connected != evidence.Unknown || !strings.Contains(got.Reason, "stopped") {
			t.Errorf("got %+v, want unknown", got)
		}
	})
}
