package pmtu

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/netnstest"
	"vpnprobe/internal/wire/ike"
)

// respond answers IKE requests on a port of a namespace as RFC 7296 section 2.5
// asks for a version that is too new: with a header of its own version.
func respond(t *testing.T, ns *netnstest.NS, port int) {
	t.Helper()
	var conn *net.UDPConn
	var err error
	ns.Do(func() { conn, err = net.ListenUDP("udp", &net.UDPAddr{Port: port}) })
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { conn.Close(); <-done })
	go func() {
		defer close(done)
		b := make([]byte, maxPacket)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			m, prefix := b[:n], []byte(nil)
			if port == portNATT {
				var ok bool
				if m, ok = ike.CutNonESPMarker(m); !ok {
					continue
				}
				prefix = ike.AppendNonESPMarker(nil)
			}
			h, err := ike.ParseHeader(m)
			if err != nil || int(h.Length) != len(m) {
				continue
			}
			reply := ike.Message{Header: ike.Header{SPIi: h.SPIi, Version: ike.V2, Exchange: h.Exchange, Flags: ike.FlagResponse}}
			_, _ = conn.WriteToUDPAddrPort(reply.Append(prefix), from)
		}
	}()
}

func TestSearchIKEReal(t *testing.T) {
	silent := []string{"icmp type destination-unreachable drop", "icmpv6 type packet-too-big drop"}
	for _, tt := range []struct {
		name  string
		far   int
		rules []string
		state evidence.MTUState
		want  int
	}{
		{"full", 1500, nil, evidence.MTUFull, 1500},
		{"reduced", 1391, nil, evidence.MTUReduced, 1391},
		{"black hole", 1437, silent, evidence.MTUBlackHole, 1420},
	} {
		for _, f := range families {
			for port, kind := range map[int]evidence.MTUProbe{portIKE: evidence.MTUByIKE, portNATT: evidence.MTUByIKENATT} {
				if f.b.Is6() != (port == portNATT) {
					continue // nothing new, and they take seconds
				}
				t.Run(fmt.Sprintf("%s/%s/%d", tt.name, f.name, port), func(t *testing.T) {
					t.Parallel()
					a, router, b := newPath(t, 1500, tt.far)
					respond(t, b, port)
					if tt.rules != nil {
						filter(t, router, "output", tt.rules...)
					}
					var got evidence.PathMTU
					var err error
					a.Do(func() {
						got, err = Search(context.Background(), Config{Target: f.b, Source: f.a, Probe: kind, Timeout: 80 * time.Millisecond})
					})
					if err != nil {
						t.Fatal(err)
					}
					t.Logf("%d packets in %v", got.Packets, time.Duration(got.Took))
					if got.State != tt.state || got.MTU.Or(0) != tt.want || got.Packets > maxIKEPackets {
						t.Errorf("want %q with %d: got %s", tt.state, tt.want, describe(got))
					}
				})
			}
		}
	}
}

// Nothing of what others send is taken for an answer.
func TestIKEParse(t *testing.T) {
	a, b := net.IPv4(127, 0, 0, 1), netip.MustParseAddr("127.0.0.1")
	peer, err := net.ListenUDP("udp4", &net.UDPAddr{IP: a})
	if err != nil {
		t.Skipf("no loopback: %v", err)
	}
	defer peer.Close()
	port := netip.MustParseAddrPort(peer.LocalAddr().String()).Port()
	cfg := Config{Target: b, Probe: evidence.MTUByIKE, Port: port}
	if err := cfg.complete(); err != nil {
		t.Fatal(err)
	}
	c, err := openIKE(cfg)
	if err != nil {
		t.Skipf("no socket: %v", err)
	}
	defer c.Close()
	if err := c.Send(packet{seq: 0, size: 600}); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2000)
	n, from, err := peer.ReadFromUDPAddrPort(buf)
	if err != nil || n != 600-headerLen4-udpHeaderLen {
		t.Fatalf("%d bytes, %v", n, err)
	}
	h, err := ike.ParseHeader(buf)
	if err != nil {
		t.Fatal(err)
	}
	other := h.SPIi
	other[3] ^= 1
	for _, m := range [][]byte{
		nil, buf[:7], buf[:n], // itself, sent back
		ike.Message{Header: ike.Header{SPIi: other, Version: ike.V2, Flags: ike.FlagResponse}}.Append(nil),
		ike.Message{Header: ike.Header{SPIi: h.SPIi, Version: ike.V2}}.Append(nil),
		ike.Message{Header: ike.Header{SPIi: h.SPIi, Version: ike.V2, Flags: ike.FlagResponse}}.Append(nil),
	} {
		if _, err := peer.WriteToUDPAddrPort(m, from); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	ev, err := c.Receive(ctx)
	if err != nil || ev.news != answer || ev.seq != 0 || ev.from != b {
		t.Fatalf("got %+v, %v", ev, err)
	}
	if ev, err := c.Receive(canceled(t)); err == nil {
		t.Errorf("a second answer: %+v", ev)
	}
}

func canceled(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}
