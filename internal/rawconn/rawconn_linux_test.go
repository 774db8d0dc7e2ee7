package rawconn

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnprobe/internal/netnstest"
)

// enterLoopback moves the calling test into a network namespace of its own, with
// a loopback interface of the MTU of an Ethernet.
func enterLoopback(t *testing.T) {
	t.Helper()
	netnstest.Thread(t)
	netnstest.IP(t, "link set lo mtu 1500", "addr add 192.0.2.1/24 dev lo", "addr add 2001:db8::1/64 dev lo nodad")
	// An IPv6 address that was added is routed to only some time later. The
	// local table holds what is received, where it is not yet received it is
	// still sent.
	netnstest.Eventually(t, "the IPv6 address", func() bool {
		out, err := exec.Command("ip", "-6", "route", "get", loopbacks[1].String()).CombinedOutput()
		return err == nil && strings.HasPrefix(string(out), "local ")
	})
}

// dropCapabilities takes capabilities from the calling thread.
func dropCapabilities(t *testing.T, caps ...uint) {
	t.Helper()
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		t.Errorf("capget: %v", err)
	}
	for _, c := range caps {
		data[c/32].Effective &^= 1 << (c % 32)
	}
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		t.Errorf("capset: %v", err)
	}
}

var loopbacks = []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}

// soon bounds waits that do not end otherwise.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func listen(t *testing.T, v6 bool, o Options) *Conn {
	t.Helper()
	c, err := ListenUDP(v6, o)
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func openEcho(t *testing.T, v6 bool, o Options) *Echo {
	t.Helper()
	e, err := OpenEcho(v6, o)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func TestUDP(t *testing.T) {
	enterLoopback(t)
	for _, addr := range loopbacks {
		v6 := addr.Is6()
		a := listen(t, v6, Options{Source: addr, Interface: "lo", BypassIPsec: true})
		b := listen(t, v6, Options{})
		if !a.BypassesIPsec() || b.BypassesIPsec() {
			t.Errorf("bypass: asked for %v, not asked for %v", a.BypassesIPsec(), b.BypassesIPsec())
		}
		from, err := a.Local()
		if err != nil || from.Addr() != addr || from.Port() == 0 {
			t.Errorf("local: %v, %v", from, err)
		}
		to, _ := b.Local()
		if err := a.Send([]byte("hello"), netip.AddrPortFrom(addr, to.Port())); err != nil {
			t.Errorf("send: %v", err)
		}
		ev, err := b.Receive(soon(t))
		if err != nil || string(ev.Data) != "hello" || ev.From != from || ev.Err != nil || ev.Time.IsZero() {
			t.Errorf("received %+v, %v", ev, err)
		}
	}
}

func TestUDPErrorQueue(t *testing.T) {
	enterLoopback(t)
	for _, addr := range loopbacks {
		typ, code := uint8(3), uint8(3)
		if addr.Is6() {
			typ, code = 1, 4
		}
		c := listen(t, addr.Is6(), Options{})
		closed := netip.AddrPortFrom(addr, 9)
		// The error about each is there before the next is sent, and must
		// not be mistaken for the next one's.
		for i := range 3 {
			if err := c.Send(fmt.Append(nil, "datagram ", i), closed); err != nil {
				t.Errorf("send %d: %v", i, err)
			}
		}
		for i := range 3 {
			ev, err := c.Receive(soon(t))
			if err != nil || ev.Err == nil {
				t.Errorf("received %+v, %v", ev, err)
				return
			}
			want := Error{Errno: unix.ECONNREFUSED, Type: typ, Code: code, Offender: addr}
			if *ev.Err != want || ev.From != closed || string(ev.Data) != fmt.Sprint("datagram ", i) {
				t.Errorf("got %+v about %q to %v, want %+v", *ev.Err, ev.Data, ev.From, want)
			}
		}
	}
}

func TestListenUDPAvoidsIKE(t *testing.T) {
	enterLoopback(t)
	netnstest.Sysctl(t, "ipv4/ip_unprivileged_port_start", "0")
	netnstest.Sysctl(t, "ipv4/ip_local_port_range", "4499 4500")
	for range 10 {
		c, err := ListenUDP(false, Options{})
		if err != nil {
			t.Errorf("listen: %v", err)
			return
		}
		if local, _ := c.Local(); local.Port() != 4499 {
			t.Errorf("took port %d", local.Port())
		}
		c.Close()
	}
	netnstest.Sysctl(t, "ipv4/ip_local_port_range", "4500 4500")
	if c, err := ListenUDP(false, Options{}); err == nil {
		c.Close()
		t.Error("took port 4500")
	}
}

func TestReceiveEnds(t *testing.T) {
	enterLoopback(t)
	c := listen(t, false, Options{})
	for range 3 {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
		if _, err := c.Receive(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after the deadline: %v", err)
		}
		cancel()
		if _, err := c.Receive(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with a dead context: %v", err)
		}
	}
	// A context that has ended must not end the next Receive.
	local, _ := c.Local()
	if err := c.Send([]byte("x"), netip.AddrPortFrom(loopbacks[0], local.Port())); err != nil {
		t.Error(err)
	}
	if ev, err := c.Receive(soon(t)); err != nil || string(ev.Data) != "x" {
		t.Errorf("received %+v, %v", ev, err)
	}
	done := make(chan error)
	go func() {
		_, err := c.Receive(context.Background())
		done <- err
	}()
	c.Close()
	if err := <-done; !errors.Is(err, os.ErrClosed) {
		t.Errorf("after close: %v", err)
	}
}

func TestEcho(t *testing.T) {
	for _, kind := range []struct {
		name   string
		groups string // who may open unprivileged sockets
		raw    bool
	}{{"unprivileged", "0 2147483647", false}, {"raw", "1 0", true}} {
		t.Run(kind.name, func(t *testing.T) {
			enterLoopback(t)
			netnstest.Sysctl(t, "ipv4/ping_group_range", kind.groups)
			for _, addr := range loopbacks {
				testEcho(t, addr, kind.raw)
			}
		})
	}
}

func testEcho(t *testing.T, addr netip.Addr, raw bool) {
	v6 := addr.Is6()
	e := openEcho(t, v6, Options{ProbeMTU: true})
	if e.raw != raw {
		t.Errorf("raw socket: %v, want %v", e.raw, raw)
	}
	other := openEcho(t, v6, Options{})
	for seq, size := range map[uint16]int{1: MinEcho(v6), 65535: 1500} {
		if err := other.Send(addr, seq, 100); err != nil {
			t.Errorf("send: %v", err)
		}
		if err := e.Send(addr, seq, size); err != nil {
			t.Errorf("send %d bytes: %v", size, err)
		}
		ev, err := e.Receive(soon(t))
		if err != nil || ev.Seq != seq || ev.Size != size || ev.From != addr || ev.Err != nil {
			t.Errorf("%d bytes: received %+v, %v", size, ev, err)
		}
	}
	// What does not fit the link is refused, with the link's MTU.
	if err := e.Send(addr, 3, 1501); !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("send 1501 bytes: %v", err)
	}
	ev, err := e.Receive(soon(t))
	if err != nil || ev.Err == nil || !ev.Err.Local || ev.Err.MTU != 1500 || ev.Err.Offender.IsValid() {
		t.Errorf("received %+v, %v", ev, err)
	}
	for _, size := range []int{0, MinEcho(v6) - 1, 65536} {
		if err := e.Send(addr, 4, size); err == nil {
			t.Errorf("a request of %d bytes was accepted", size)
		}
	}
}

func TestWithoutCapabilities(t *testing.T) {
	enterLoopback(t)
	netnstest.Sysctl(t, "ipv4/ping_group_range", "1 0")
	dropCapabilities(t, unix.CAP_NET_ADMIN, unix.CAP_NET_RAW)
	if _, err := OpenEcho(false, Options{}); err == nil || !strings.Contains(err.Error(), "needs CAP_NET_RAW") {
		t.Errorf("open ICMP socket: %v", err)
	}
	c, err := ListenUDP(false, Options{BypassIPsec: true, Interface: "lo"})
	if err != nil {
		t.Errorf("listen: %v", err)
		return
	}
	defer c.Close()
	if c.BypassesIPsec() {
		t.Error("exempt from IPsec without CAP_NET_ADMIN")
	}
}

func TestOpenErrors(t *testing.T) {
	enterLoopback(t)
	for _, tt := range []struct {
		name string
		v6   bool
		o    Options
		want error
	}{
		{"no interface", false, Options{Interface: "wan"}, unix.ENODEV},
		{"not our source", false, Options{Source: netip.MustParseAddr("198.51.100.1")}, unix.EADDRNOTAVAIL},
		{"not our source", true, Options{Source: netip.MustParseAddr("2001:db8:1::1")}, unix.EADDRNOTAVAIL},
		{"other family", true, Options{Source: loopbacks[0]}, nil},
		{"no zone", true, Options{Source: netip.MustParseAddr("fe80::1%wan")}, nil},
	} {
		c, err := ListenUDP(tt.v6, tt.o)
		if err == nil {
			c.Close()
			t.Errorf("%s: opened", tt.name)
		} else if tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestLookUpPath(t *testing.T) {
	enterLoopback(t)
	for _, addr := range loopbacks {
		p, err := LookUpPath(addr, Options{})
		if want := (Path{Source: addr, MTU: 1500}); err != nil || p != want {
			t.Errorf("%v: got %+v, %v: want %+v", addr, p, err, want)
		}
	}
	if _, err := LookUpPath(netip.MustParseAddr("203.0.113.1"), Options{}); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("without a route: %v", err)
	}
}
