package ladder

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/wire/ike"
)

// serve runs the model of a peer on two ports of the loopback, until the test
// ends.
func (s *sim) serve() {
	s.t.Helper()
	s.ports = make(map[uint16]uint16)
	conns := make(map[uint16]*net.UDPConn)
	for _, port := range []uint16{portIKE, portNATT} {
		conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(loopback, 0)))
		if err != nil {
			s.t.Fatal(err)
		}
		conns[port], s.ports[port] = conn, uint16(conn.LocalAddr().(*net.UDPAddr).Port)
	}
	var mu sync.Mutex // one of the ports at a time
	var serving sync.WaitGroup
	for port, conn := range conns {
		serving.Go(func() {
			buf := make([]byte, 65535)
			for {
				n, from, err := conn.ReadFromUDPAddrPort(buf)
				if err != nil {
					return
				}
				mu.Lock()
				s.here = from
				reply := s.datagram(buf[:n], port)
				mu.Unlock()
				_, _ = conn.WriteToUDPAddrPort(reply, from) // a lost answer is seen as one
			}
		})
	}
	s.t.Cleanup(func() {
		for _, conn := range conns {
			conn.Close()
		}
		serving.Wait()
	})
}

func (s *sim) datagram(b []byte, port uint16) []byte {
	var marker []byte
	if port == portNATT {
		var ok bool
		if b, ok = ike.CutNonESPMarker(b); !ok {
			s.t.Error("no marker before a message to port 4500")
		}
		marker = ike.AppendNonESPMarker(nil)
	}
	m, err := ike.Parse(b)
	if h, herr := ike.ParseHeader(b); herr == nil && h.Version.Major() == 3 {
		m, err = ike.Message{Header: h}, nil
	}
	if err != nil {
		s.t.Errorf("received what does not parse: %v", err)
		return nil
	}
	r, _ := s.respond(m, port)
	return r.Append(marker)
}

// TestRun asks by real sockets.
func TestRun(t *testing.T) {
	s, g := &sim{t: t, peer: swan}, &simGate{t: t}
	s.serve()
	cfg := Config{Target: loopback, Ports: s.ports, Version: 2, Proposals: []string{good}, Stateful: true, Timeout: 5 * time.Second}
	out := Run(t.Context(), cfg, g)
	if facts(out.V2) != "yyy" || out.CannotLook != "" || len(out.Skipped) > 0 || out.Local.Or(netip.Addr{}) != loopback || g.out != 1 {
		t.Errorf("got %+v", out)
	}
	if f := out.Features; f.NATHere != evidence.No || f.NATThere != evidence.No || f.Implementation != "OpenIKED 7.2" {
		t.Errorf("features %+v", f)
	}
	for _, l := range out.Large {
		if l.SmallAnswered != l.SmallSent || l.LargeAnswered != 1 || l.LargeSent != 1 {
			t.Errorf("sizes %+v", l)
		}
	}
	if len(out.Large) != 2 || out.TCP.Connected != evidence.No || out.TCP.Reason != "refused" {
		t.Errorf("sizes %+v, TCP %+v", out.Large, out.TCP)
	}
	for _, e := range out.Exchanges {
		if _, ok := e.RTT.Get(); !ok || e.Sent.IsZero() || e.Port != portIKE {
			t.Errorf("exchange %+v", e)
		}
	}
}

func TestRunCannotLook(t *testing.T) {
	cfg := Config{Target: loopback, Source: netip.MustParseAddr("192.0.2.77"), Version: 2}
	if out := Run(t.Context(), cfg, nil); out.CannotLook == "" || len(out.Exchanges) > 0 {
		t.Errorf("got %+v", out)
	}
}

func TestAskTCP(t *testing.T) {
	reply := func(b []byte) []byte {
		m, _ := ike.Parse(b)
		return ike.AppendTCP(nil, notifyV2(m, ike.InvalidMajorVersion, nil).Append(nil))
	}
	for _, tt := range []struct {
		name     string
		serve    func(conn net.Conn, request []byte)
		answered evidence.Fact
		reason   string
	}{
		{"answers", func(c net.Conn, b []byte) { c.Write(reply(b)) }, evidence.Yes, ""},
		{"answers behind ESP, in pieces", func(c net.Conn, b []byte) {
			for _, p := range append([]byte{0, 6, 1, 2, 3, 4}, reply(b)...) {
				c.Write([]byte{p})
			}
		}, evidence.Yes, ""},
		{"another SPI", func(c net.Conn, b []byte) { b[3]++; c.Write(reply(b)) }, evidence.No, "closed"},
		{"sends it back", func(c net.Conn, b []byte) { c.Write(ike.AppendTCP(nil, b)) }, evidence.No, "closed"},
		{"closes", func(net.Conn, []byte) {}, evidence.No, "closed"},
		{"another protocol", func(c net.Conn, _ []byte) { c.Write(make([]byte, 64)) }, evidence.No, "not IKE"},
		{"endless", func(c net.Conn, _ []byte) {
			for {
				if _, err := c.Write([]byte{0xff, 0xff, 1, 2, 3, 4, 5, 6, 7, 8}); err != nil {
					return
				}
			}
		}, evidence.No, "not IKE"},
		{"silent", func(c net.Conn, _ []byte) { io.Copy(io.Discard, c) }, evidence.No, "timeout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			defer func() { l.Close(); <-done }()
			go func() {
				defer close(done)
				conn, err := l.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				request := make([]byte, len(ike.TCPPrefix)+2+4+ike.HeaderLen)
				if _, err := io.ReadFull(conn, request); err != nil || string(request[:6]) != ike.TCPPrefix {
					t.Errorf("read % x: %v", request, err)
				}
				tt.serve(conn, request[len(request)-ike.HeaderLen:])
			}()
			got := askTCP(t.Context(), netip.Addr{}, netip.MustParseAddrPort(l.Addr().String()))
			if want := (evidence.IKEOverTCP{Connected: evidence.Yes, Answered: tt.answered, Reason: tt.reason}); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := askTCP(ctx, netip.Addr{}, netip.AddrPortFrom(loopback, 9)); got.Connected != evidence.Unknown {
		t.Errorf("canceled: got %+v", got)
	}
}
