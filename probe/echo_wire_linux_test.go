package probe

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"vpnprobe/evidence"
	"vpnprobe/internal/netnstest"
)

// The addresses of a wire: ours, a hop on the way, and a target behind it.
const (
	wireHost4, wireHop4, wireTarget4 = "192.0.2.1", "192.0.2.254", "198.51.100.7"
	wireHost6, wireHop6, wireTarget6 = "2001:db8:a::1", "2001:db8:a::254", "2001:db8:b::7"
)

// wire is the interface tun0 of a namespace and the network behind it, which
// the test plays: what comes out of the host is given to receive.
type wire struct {
	file    *os.File
	receive atomic.Pointer[func(p packet)]
	done    chan struct{}
}

func newWire(t *testing.T) *wire {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skipf("this host has no /dev/net/tun: %v", err)
	}
	ifr, err := unix.NewIfreq("tun0")
	if err != nil {
		t.Fatal(err)
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		t.Fatalf("make tun0: %v", err)
	}
	w := &wire{file: os.NewFile(uintptr(fd), "tun0"), done: make(chan struct{})}
	w.play(func(packet) {})
	go func() {
		defer close(w.done)
		buf := make([]byte, 65536)
		for {
			n, err := w.file.Read(buf)
			if errors.Is(err, os.ErrClosed) {
				return
			}
			if err == nil { // EIO while the interface is down
				(*w.receive.Load())(packet(slices.Clone(buf[:n])))
			}
		}
	}()
	t.Cleanup(func() { w.file.Close(); <-w.done })
	netnstest.Sysctl(t, "ipv6/conf/tun0/accept_dad", "0")
	netnstest.IP(t, "addr add "+wireHost4+"/24 dev tun0", "-6 addr add "+wireHost6+"/64 dev tun0 nodad", "link set tun0 up",
		"route add default via "+wireHop4+" dev tun0 onlink", "-6 route add default via "+wireHop6+" dev tun0 onlink")
	return w
}

func (w *wire) play(receive func(packet)) { w.receive.Store(&receive) }

// send gives a packet to the host. It is lost if the interface is down.
func (w *wire) send(p packet) { _, _ = w.file.Write(p) }

// sendAfter is send, later.
func (w *wire) sendAfter(d time.Duration, p packet) { time.AfterFunc(d, func() { w.send(p) }) }

// packet is an IP packet without options or extension headers.
type packet []byte

func (p packet) v6() bool { return p[0]>>4 == 6 }

func (p packet) payload() []byte {
	if p.v6() {
		return p[40:]
	}
	return p[20:]
}

func (p packet) protocol() byte {
	if p.v6() {
		return p[6]
	}
	return p[9]
}

func (p packet) src() netip.Addr {
	if p.v6() {
		return netip.AddrFrom16([16]byte(p[8:24]))
	}
	return netip.AddrFrom4([4]byte(p[12:16]))
}

func (p packet) dst() netip.Addr {
	if p.v6() {
		return netip.AddrFrom16([16]byte(p[24:40]))
	}
	return netip.AddrFrom4([4]byte(p[16:20]))
}

func (p packet) isEcho() bool {
	const icmp, icmp6, request, request6 = 1, 58, 8, 128
	return p.protocol() == icmp && p.payload()[0] == request || p.protocol() == icmp6 && p.payload()[0] == request6
}

// reply returns the echo reply to a request.
func (p packet) reply() packet {
	typ := byte(0)
	if p.v6() {
		typ = 129
	}
	return icmpPacket(p.dst(), p.src(), slices.Concat([]byte{typ, 0, 0, 0}, p.payload()[4:]))
}

// reject returns a hop's ICMP error about a packet, which quotes so many bytes
// of it behind the IP header.
func (p packet) reject(hop netip.Addr, typ, code byte, info uint32, quote int) packet {
	headerLen := len(p) - len(p.payload())
	body := binary.BigEndian.AppendUint32([]byte{typ, code, 0, 0}, info)
	return icmpPacket(hop, p.src(), append(body, p[:min(len(p), headerLen+quote)]...))
}

// icmpPacket fills in the checksums.
func icmpPacket(src, dst netip.Addr, body []byte) packet {
	if src.Is6() {
		pseudo := slices.Concat(src.AsSlice(), dst.AsSlice(), binary.BigEndian.AppendUint32(nil, uint32(len(body))), []byte{0, 0, 0, 58})
		binary.BigEndian.PutUint16(body[2:], internetChecksum(append(pseudo, body...)))
		h := append([]byte{0x60, 0, 0, 0}, byte(len(body)>>8), byte(len(body)), 58, 64)
		return slices.Concat(h, src.AsSlice(), dst.AsSlice(), body)
	}
	binary.BigEndian.PutUint16(body[2:], internetChecksum(body))
	total := 20 + len(body)
	h := slices.Concat([]byte{0x45, 0, byte(total >> 8), byte(total), 0, 0, 0, 0, 64, 1, 0, 0}, src.AsSlice(), dst.AsSlice())
	binary.BigEndian.PutUint16(h[10:], internetChecksum(h))
	return append(h, body...)
}

// internetChecksum is that of RFC 1071.
func internetChecksum(b []byte) uint16 {
	var sum uint32
	for i, c := range b {
		if i%2 == 0 {
			sum += uint32(c) << 8
		} else {
			sum += uint32(c)
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// What a network can do to echo requests, each family and each kind of socket.
func TestEchoWire(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	w := newWire(t)
	const ms = time.Millisecond
	for _, tt := range []struct {
		name string
		do   func(n int, request, reply packet)
		want map[string]int
	}{
		{"answered", func(_ int, _, r packet) { w.send(r) }, map[string]int{"reply": 8}},
		{"silent", func(int, packet, packet) {}, map[string]int{"lost": 8}},
		{"late", func(n int, _, r packet) {
			if n == 0 {
				w.sendAfter(450*ms, r)
			} else {
				w.send(r)
			}
		}, map[string]int{"reply": 7, "lost": 1, "late": 1, "reordered": 1}},
		{"duplicated", func(n int, _, r packet) {
			w.send(r)
			if n == 2 {
				w.send(r)
				w.sendAfter(20*ms, r)
			}
		}, map[string]int{"reply": 8, "duplicate": 2}},
		{"overtaken", func(n int, _, r packet) {
			if n == 1 {
				w.sendAfter(180*ms, r)
			} else {
				w.send(r)
			}
		}, map[string]int{"reply": 8, "reordered": 1}},
		{"forged", func(n int, _, r packet) {
			// Another identifier within pro-bing's data.
			body := slices.Clone(r.payload())
			body[20] ^= 0xff
			w.send(icmpPacket(r.src(), r.dst(), body))
		}, map[string]int{"lost": 8}},
	} {
		for _, groups := range []string{allGroups, noGroup} {
			for _, target := range []string{wireTarget4, wireTarget6} {
				t.Run(tt.name+" "+groups+" "+target, func(t *testing.T) {
					netnstest.Sysctl(t, "ipv4/ping_group_range", groups)
					n := 0
					w.play(func(p packet) {
						if p.isEcho() && p.dst().String() == target {
							tt.do(n, p, p.reply())
							n++
						}
					})
					cfg := EchoConfig{Target: netip.MustParseAddr(target), Interval: 100 * ms, Timeout: 300 * ms}
					wantTally(t, tt.want, runEcho(t, cfg, 8))
				})
			}
		}
	}
}

// ICMP errors are kept with the request that they are about, by cause and
// sender, however little they quote.
func TestEchoICMPErrors(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	w := newWire(t)
	all := 1 << 16
	for _, tt := range []struct {
		name       string
		target     string
		typ, code  byte
		info       uint32
		quote      int
		want       evidence.ICMPReason
		mtu        evidence.Opt[int]
		unanswered bool // the error is about another program's request
	}{
		{name: "prohibited", target: wireTarget4, typ: 3, code: 13, quote: all, want: evidence.AdminProhibited},
		{name: "short quote", target: wireTarget4, typ: 3, code: 1, quote: 8, want: evidence.HostUnreachable},
		{name: "expired", target: wireTarget4, typ: 11, code: 0, quote: 28, want: evidence.TTLExceeded},
		{name: "too big", target: wireTarget4, typ: 3, code: 4, info: 1300, quote: all, want: evidence.FragNeeded, mtu: evidence.Some(1300)},
		{name: "prohibited", target: wireTarget6, typ: 1, code: 1, quote: all, want: evidence.AdminProhibited},
		{name: "short quote", target: wireTarget6, typ: 1, code: 0, quote: 8, want: evidence.NetUnreachable},
		{name: "too big", target: wireTarget6, typ: 2, code: 0, info: 1300, quote: all, want: evidence.FragNeeded, mtu: evidence.Some(1300)},
		{name: "another's", target: wireTarget4, typ: 3, code: 13, quote: all, unanswered: true},
		{name: "another's", target: wireTarget6, typ: 1, code: 1, quote: all, unanswered: true},
	} {
		for _, cfg := range []EchoConfig{
			{}, {Interface: "tun0"}, {Source: netip.MustParseAddr(wireHost4)}, {Source: netip.MustParseAddr(wireHost6)},
		} {
			cfg.Target, cfg.Interval, cfg.Timeout = netip.MustParseAddr(tt.target), 50*time.Millisecond, 200*time.Millisecond
			if cfg.Source.IsValid() && cfg.Source.Is4() != cfg.Target.Is4() {
				continue
			}
			t.Run(tt.name+" "+tt.target+" "+cfg.Interface, func(t *testing.T) {
				netnstest.Sysctl(t, "ipv4/ping_group_range", allGroups)
				hop := netip.MustParseAddr(wireHop4)
				if cfg.Target.Is6() {
					hop = netip.MustParseAddr(wireHop6)
				}
				n := 0
				w.play(func(p packet) {
					if !p.isEcho() || p.dst() != cfg.Target {
						return
					}
					if tt.unanswered {
						p.payload()[15] ^= 0xff // the end of the timestamp
						p.payload()[10] ^= 0xff
					}
					if n++; n%2 == 1 {
						w.send(p.reject(hop, tt.typ, tt.code, tt.info, tt.quote))
					}
				})
				rejected := &evidence.ICMPError{Reason: tt.want, Type: tt.typ, Code: tt.code, MTU: tt.mtu, Offender: evidence.Some(hop)}
				if tt.unanswered {
					rejected = nil
				}
				want := []*evidence.ICMPError{rejected, nil, rejected, nil, rejected, nil, rejected, nil}
				var got []*evidence.ICMPError
				for _, r := range runEcho(t, cfg, len(want)) {
					got = append(got, r.ICMP)
					if r.Outcome != evidence.EchoLost {
						t.Errorf("got %+v, want it lost", r)
					}
				}
				if diff := cmp.Diff(want, got, compareValues...); diff != "" {
					t.Errorf("ICMP errors (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// An interface that is down or gone is a reason of its own.
func TestEchoInterface(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	netnstest.Sysctl(t, "ipv4/ping_group_range", allGroups)
	w := newWire(t)
	w.play(func(p packet) {
		if p.isEcho() {
			w.send(p.reply())
		}
	})
	routes := []string{"route replace default via " + wireHop4 + " dev tun0 onlink", "-6 route replace default via " + wireHop6 + " dev tun0 onlink"}
	for _, target := range []string{wireTarget4, wireTarget6} {
		for _, tt := range []struct {
			name     string
			down, up []string
			answered bool
		}{
			{"down later", []string{"link set tun0 down"}, []string{"link set tun0 up", "-6 addr replace " + wireHost6 + "/64 dev tun0 nodad"}, true},
			{"gone at the start", []string{"link set tun0 down", "link set tun0 name tun1"},
				[]string{"link set tun1 name tun0", "link set tun0 up", "-6 addr replace " + wireHost6 + "/64 dev tun0 nodad"}, false},
		} {
			t.Run(tt.name+" "+target, func(t *testing.T) {
				cfg := EchoConfig{Target: netip.MustParseAddr(target), Interface: "tun0", Interval: 50 * time.Millisecond, Timeout: 500 * time.Millisecond}
				checkOutage(t, cfg, outage{
					fail:     func() { netnstest.IP(t, tt.down...) },
					mend:     func() { netnstest.IP(t, tt.up...); netnstest.IP(t, routes...) },
					answered: tt.answered, reason: evidence.NoDevice,
				})
			})
		}
	}
}
