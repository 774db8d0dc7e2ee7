package bpfcount

import (
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"vpnprobe/internal/wire/esp"
)

// drain reads the frames that are there.
func drain(t testing.TB, c *Counter) []Frame {
	t.Helper()
	var list []Frame
	c.SetReadDeadline(time.Unix(1, 0)) // what is there, no more
	err := c.Read(func(f Frame) {
		f.Data = append([]byte(nil), f.Data...)
		if age := time.Since(f.Time); age < -time.Millisecond || age > time.Minute {
			t.Errorf("a frame of %v", f.Time)
		}
		f.Time = time.Time{}
		list = append(list, f)
	})
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("Read: %v", err)
	}
	return list
}

func ikeData(n int, marker bool) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)
	}
	if marker {
		return append(make([]byte, 4), b...)
	}
	return b
}

func icmpData(typ byte, quote []byte) []byte {
	return append([]byte{typ, 4, 0, 0, 0, 0, 5, 0}, quote...)
}

// TestFrames shows packets of which whole ones are wanted, and some that are
// like them.
func TestFrames(t *testing.T) {
	quote := ipPacket{src: host4, dst: peer4, proto: 50, payload: espData(1, 1, 0)}.bytes()
	quote6 := ipPacket{src: host6, dst: peer6, proto: 50, payload: espData(1, 1, 0)}.bytes()
	foreign := ipPacket{src: host4, dst: other4, proto: 50, payload: espData(1, 1, 0)}.bytes()
	c := openTest(t, bothPeers)
	in := func(src, dst netip.Addr, proto byte, payload []byte) ipPacket {
		return ipPacket{src: src, dst: dst, proto: proto, payload: payload}
	}
	for _, tt := range []struct {
		name string
		ip   ipPacket
		tags []uint16
		want bool
	}{
		{"ike", in(peer4, host4, 17, udpData(500, 500, ikeData(400, false))), nil, true},
		{"ike from another port", in(peer4, host4, 17, udpData(61000, 500, ikeData(400, false))), nil, true},
		{"ike to another port", in(host4, peer4, 17, udpData(500, 61000, ikeData(400, false))), nil, true},
		{"ike from 4500 to 500", in(peer4, host4, 17, udpData(4500, 500, ikeData(40, false))), nil, true},
		{"ike on 4500", in(peer4, host4, 17, udpData(4500, 4500, ikeData(400, true))), nil, true},
		{"ike of 2020 bytes", in(peer4, host4, 17, udpData(500, 500, ikeData(1992, false))), nil, true},
		{"ike of 3000 bytes", in(peer4, host4, 17, udpData(500, 500, ikeData(3000, false))), nil, true},
		{"ike in a vlan", in(peer4, host4, 17, udpData(500, 500, ikeData(400, false))), []uint16{5}, true},
		{"v6 ike", in(peer6, host6, 17, udpData(500, 500, ikeData(400, false))), nil, true},
		{"v6 ike behind headers", ipPacket{src: peer6, dst: host6, proto: 17, headers: []byte{0, 60}, payload: udpData(500, 500, ikeData(400, false))}, nil, true},
		{"first fragment of ike", ipPacket{src: peer4, dst: host4, proto: 17, more: true, payload: udpData(500, 500, ikeData(400, false))}, nil, true},
		{"keepalive", in(peer4, host4, 17, udpData(4500, 4500, []byte{0xff})), nil, true},
		{"ike of another", in(other4, host4, 17, udpData(500, 500, ikeData(400, false))), nil, false},
		{"keepalive of another", in(other4, host4, 17, udpData(4500, 4500, []byte{0xff})), nil, false},
		{"esp in udp", in(peer4, host4, 17, udpData(4500, 4500, espData(1, 1, 50))), nil, false},
		{"dns", in(peer4, host4, 17, udpData(53, 53, ikeData(100, false))), nil, false},
		{"icmp too big", in(other4, host4, 1, icmpData(3, quote)), nil, true},
		{"icmp time exceeded", in(other4, host4, 1, icmpData(11, quote)), nil, true},
		{"icmp about another", in(other4, host4, 1, icmpData(3, foreign)), nil, false},
		{"icmp echo", in(peer4, host4, 1, icmpData(8, quote)), nil, false},
		{"icmp without a quote", in(other4, host4, 1, icmpData(3, quote[:19])), nil, false},
		{"icmpv6 too big", in(peer6, host6, 58, icmpData(2, quote6)), nil, true},
		{"icmpv6 about the peer's", in(inner6, host6, 58, icmpData(1, ipPacket{src: peer6, dst: host6, proto: 50}.bytes())), nil, true},
		{"icmpv6 neighbour", in(peer6, host6, 58, icmpData(135, quote6)), nil, false},
		{"icmpv6 without a quote", in(peer6, host6, 58, icmpData(1, quote6[:39])), nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ip := tt.ip.bytes()
			for _, v := range []variant{tcIn, {frames: true}} { // the latter where XDP counts
				frame := ether(ip, tt.tags...)
				feed(t, c.get(t, v), frame)
				var want []Frame
				if tt.want {
					at := 14 + 4*len(tt.tags)
					// Test frames come in on the loopback.
					want = []Frame{{Ifindex: 1, WireLen: len(ip), Data: frame[at:min(len(frame), at+MaxFrame)]}}
				}
				if diff := cmp.Diff(want, drain(t, c)); diff != "" {
					t.Errorf("%+v (-want +got):\n%s", v, diff)
				}
			}
		})
	}
}

// TestFramesOnly checks that the program beside XDP does not count twice.
func TestFramesOnly(t *testing.T) {
	c := openTest(t, bothPeers)
	p := c.get(t, variant{frames: true})
	for _, payload := range []ipPacket{
		{proto: 50, payload: espData(1, 1, 50)},
		{proto: 51, payload: ahData(1, 1, 50)},
		{proto: 17, payload: udpData(4500, 4500, espData(1, 1, 50))},
		{proto: 50, offset: 5, payload: espData(1, 1, 50)},
	} {
		payload.src, payload.dst = peer4, host4
		feed(t, p, ether(payload.bytes()))
	}
	if got := samples(t, c); len(got) != 0 {
		t.Errorf("counted %v", got)
	}
	if got := drain(t, c); len(got) != 0 {
		t.Errorf("shown %v", got)
	}
}

// TestLeaks shows packets in clear that leave.
func TestLeaks(t *testing.T) {
	const limit = 5
	cfg := bothPeers
	cfg.LeaksPerSecond = limit
	cfg.Peers = append(cfg.Peers, netip.MustParseAddr("10.2.9.9")) // within a remote subnet
	c := openTest(t, cfg)
	clear := func(proto byte, dst netip.Addr) ipPacket {
		src := host4
		if dst.Is6() {
			src = host6
		}
		return ipPacket{src: src, dst: dst, proto: proto, payload: make([]byte, 40)}
	}
	vpn := clear(17, inner4)
	vpn.payload = udpData(4500, 4500, espData(1, 1, 20)) // of another VPN, to a host behind this one
	icmp := clear(1, inner4)
	icmp.payload = icmpData(3, clear(6, inner4).bytes())
	long := clear(6, inner4)
	long.payload = make([]byte, 1000)
	later := clear(17, inner4)
	later.offset = 20
	for _, tt := range []struct {
		name string
		ip   ipPacket
		want bool
	}{
		{"tcp", clear(6, inner4), true},
		{"longer than its headers", long, true},
		{"udp", clear(17, inner4), true},
		{"icmp", clear(1, inner4), true},
		{"icmp error", icmp, true},
		{"gre", clear(47, inner4), true},
		{"esp in udp", vpn, true},
		{"fragment", later, true},
		{"v6 tcp", clear(6, inner6), true},
		{"v6 behind headers", ipPacket{src: host6, dst: inner6, proto: 6, headers: []byte{0, 60}, payload: make([]byte, 40)}, true},
		{"esp", ipPacket{src: host4, dst: inner4, proto: 50, payload: espData(1, 1, 20)}, false},
		{"to the peer", clear(6, netip.MustParseAddr("10.2.9.9")), false},
		{"udp to the peer", clear(17, netip.MustParseAddr("10.2.9.9")), false},
		{"elsewhere", clear(6, netip.MustParseAddr("10.3.0.1")), false},
		{"v6 elsewhere", clear(6, netip.MustParseAddr("fd00:3::1")), false},
	} {
		ip := tt.ip.bytes()
		frame := ether(ip)
		nextSecond(t, c)
		feed(t, c.get(t, tcOut), frame)
		var shown []Frame
		if tt.want {
			shown = []Frame{{Ifindex: 1, Outgoing: true, Leak: true, WireLen: len(frame) - 14, Data: frame[14:min(len(frame), 14+MaxLeak)]}}
		}
		if diff := cmp.Diff(shown, drain(t, c)); diff != "" {
			t.Errorf("%s: frames (-want +got):\n%s", tt.name, diff)
		}
		feed(t, c.get(t, tcIn), frame) // what comes in is no leak
		if got := drain(t, c); len(got) != 0 {
			t.Errorf("%s: shown though it came in: %v", tt.name, got)
		}
	}
	if got := samples(t, c); len(got) != 0 {
		t.Errorf("counted %v", got)
	}

	// So many are shown, of each the headers.
	nextSecond(t, c)
	onCPU(t, 0, func() {
		for range 100 {
			feed(t, c.get(t, tcOut), ether(clear(6, inner4).bytes()))
		}
	})
	// The second may have ended meanwhile.
	if n := len(drain(t, c)); n < limit || n >= 100 {
		t.Errorf("%d leaks shown, want about %d", n, limit)
	}

	if err := c.SetLeaks(nil); err != nil {
		t.Fatal(err)
	}
	nextSecond(t, c)
	feed(t, c.get(t, tcOut), ether(clear(6, inner4).bytes()))
	if got := drain(t, c); len(got) != 0 {
		t.Errorf("shown after the subnets were taken away: %v", got)
	}
}

// nextSecond ends the second that the limit of leaks is for.
func nextSecond(t *testing.T, c *Counter) {
	t.Helper()
	if err := c.maps.tallies.Put(uint32(0), make([][tallySize]byte, c.cpus)); err != nil {
		t.Fatal(err)
	}
}

// TestDrops fills the ring buffer.
func TestDrops(t *testing.T) {
	cfg := bothPeers
	cfg.RingBytes = 4096
	c := openTest(t, cfg)
	frame := ether(ipPacket{src: peer4, dst: host4, proto: 17, payload: udpData(500, 500, ikeData(400, false))}.bytes())
	const sent = 50
	for range sent {
		feed(t, c.get(t, tcIn), frame)
	}
	drops := c.Drops()
	read := len(drain(t, c))
	if read == 0 || drops == 0 || uint64(read)+drops != sent {
		t.Errorf("%d frames read and %d dropped, of %d", read, drops, sent)
	}
	feed(t, c.get(t, tcIn), frame)
	if n := len(drain(t, c)); n != 1 || c.Drops() != drops {
		t.Errorf("%d frames read when there was room again, drops went from %d to %d", n, drops, c.Drops())
	}
}

// TestRead ends a Read that waits, by a deadline that is set later and by Close.
func TestRead(t *testing.T) {
	c := openTest(t, bothPeers)
	ended := make(chan error)
	read := func() { ended <- c.Read(func(Frame) {}) }
	c.SetReadDeadline(time.Now().Add(time.Hour))
	go read()
	c.SetReadDeadline(time.Unix(1, 0))
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("with a deadline that passed: %v", err)
	}
	c.SetReadDeadline(time.Time{})
	go read()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Errorf("of a closed counter: %v", err)
	}
}

// skb is struct __sk_buff, of which a test may set these fields.
type skb struct {
	_       [40]byte
	Ifindex uint32
	_       [116]byte
	WireLen uint32
	GSOSegs uint32
	_       [8]byte
	GSOSize uint32
	_       [12]byte
}

// TestAggregates shows packets that offload made of several, and compares with
// the same packets one by one.
func TestAggregates(t *testing.T) {
	c := openTest(t, bothPeers)
	const each = 16 // bytes of ESP
	type run struct{ first, n uint32 }
	for _, tt := range []struct {
		name string
		runs []run
	}{
		{"two", []run{{1, 2}}},
		{"one after another", []run{{1, 40}, {41, 40}, {81, 10}}},
		{"with loss between", []run{{1, 40}, {43, 40}, {100, 60}}},
		{"more than the window", []run{{1, 100}, {101, 70}, {200, 64}, {264, 65}}},
		{"wrap", []run{{0xfffffff0, 40}}},
		{"jump", []run{{1, 5}, {200000, 5}, {200005, 5}}},
		{"loss of 60000", []run{{1, 5}, {60000, 5}}},
		{"duplicates", []run{{1, 30}, {1, 30}}},
		{"late", []run{{1, 5}, {16, 5}, {6, 10}, {21, 1}}},
		{"overlap", []run{{1, 10}, {6, 10}, {16, 1}}},
	} {
		for _, encap := range []bool{false, true} {
			forget(t, c)
			var cell esp.Cell
			onCPU(t, 0, func() {
				for _, r := range tt.runs {
					var data []byte
					proto, head := byte(50), 20
					if encap {
						proto, head = 17, 28
						for i := range r.n {
							data = append(data, espData(7, r.first+i, each-8)...)
						}
						data = udpData(4500, 4500, data)
					} else {
						data = espData(7, r.first, int(r.n)*each-8)
					}
					frame := ether(ipPacket{src: peer4, dst: host4, proto: proto, payload: data}.bytes())
					ctx := skb{GSOSegs: r.n, GSOSize: each}
					if r.n == 1 {
						ctx = skb{}
					} else if !encap {
						ctx.WireLen = uint32(len(frame)) + (r.n-1)*(14+20)
						ctx.WireLen -= 14 * (r.n - 1) // as if Ethernet headers came once: the lengths of IP packets add up
					}
					if ret, err := c.get(t, tcIn).Run(&ebpf.RunOptions{Data: frame, Context: ctx}); err != nil || int32(ret) != -1 {
						t.Fatalf("%s: returned %d, %v", tt.name, int32(ret), err)
					}
					for i := range r.n {
						cell.Add(r.first+i, each+head, esp.Whole, time.Time{})
					}
				}
			})
			want := map[esp.Key]esp.Sample{{Src: peer4, Dst: host4, SPI: 7, Protocol: esp.ESP, Encap: encap}: cell.Sample}
			if diff := cmp.Diff(want, samples(t, c), ignoreTime); diff != "" {
				t.Errorf("%s, in UDP %v (-want +got):\n%s", tt.name, encap, diff)
			}
		}
	}
}

// TestMixedAggregate shows one of packets of two SPIs: what cannot be told apart
// counts as dropped.
func TestMixedAggregate(t *testing.T) {
	c := openTest(t, bothPeers)
	data := append(espData(7, 1, 92), espData(7, 2, 92)...)
	data = append(data, espData(8, 1, 92)...)
	frame := ether(ipPacket{src: peer4, dst: host4, proto: 17, payload: udpData(4500, 4500, data)}.bytes())
	if _, err := c.get(t, tcIn).Run(&ebpf.RunOptions{Data: frame, Context: skb{GSOSegs: 3, GSOSize: 100}}); err != nil {
		t.Fatal(err)
	}
	want := map[esp.Key]esp.Sample{{Src: peer4, Dst: host4, SPI: 7, Protocol: esp.ESP, Encap: true}: {Packets: 1, Bytes: 128, First: 1, Max: 1, Longest: 128}}
	if diff := cmp.Diff(want, samples(t, c), ignoreTime); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := c.Drops(); n != 2 {
		t.Errorf("%d drops, want 2", n)
	}
}

// FuzzPackets shows any frame to all programs: it passes unchanged, and what is
// counted is no longer than it is, as tc knows that.
func FuzzPackets(f *testing.F) {
	c := openTest(f, bothPeers)
	programs := []variant{tcIn, tcOut, xdpIn, {frames: true}, {bare: true, count: true, frames: true}, {bare: true, out: true, count: true, frames: true}}
	f.Add(ether(ipPacket{src: peer4, dst: host4, proto: 50, payload: espData(1, 1, 20)}.bytes()))
	f.Add(ether(ipPacket{src: peer6, dst: host6, proto: 17, headers: []byte{0, 44, 60}, payload: udpData(4500, 4500, espData(1, 1, 20))}.bytes()))
	f.Add(ether(ipPacket{src: host4, dst: inner4, proto: 1, options: 8, payload: icmpData(3, ipPacket{src: host4, dst: peer4}.bytes())}.bytes(), 1, 2))
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) < 14+40 || len(frame) > 1500 {
			return // the kernel does not test with less than the headers
		}
		forget(t, c)
		for _, v := range programs {
			feed(t, c.get(t, v), frame)
		}
		for _, s := range drain(t, c) {
			if len(s.Data) > len(frame) {
				t.Errorf("a frame of %d bytes, of %d", len(s.Data), len(frame))
			}
		}
		for k, s := range samples(t, c) {
			if s.Packets > uint64(len(programs)) || s.Longest > 1<<16+40 {
				t.Errorf("%v: %+v", k, s)
			}
		}
	})
}
