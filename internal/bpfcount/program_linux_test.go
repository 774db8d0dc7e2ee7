package bpfcount

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"vpnprobe/internal/wire/esp"
)

// openTest opens a counter that is attached to nothing.
func openTest(t testing.TB, cfg Config) *Counter {
	t.Helper()
	needRoot(t)
	c, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

var bothPeers = Config{Peers: []netip.Addr{peer4, peer6}, Leaks: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/16"), netip.MustParsePrefix("fd00:2::/32")}}

// get returns a loaded program.
func (c *Counter) get(t testing.TB, v variant) *ebpf.Program {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := c.program(v)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	return p
}

// The programs that count.
var (
	tcIn  = variant{count: true, frames: true}
	tcOut = variant{out: true, count: true, frames: true}
	xdpIn = variant{xdp: true, count: true}
)

// The same as for other kernels, and as without CAP_PERFMON.
var (
	xdpOld  = variant{xdp: true, count: true, direct: true, fixed: true}
	tcSlow  = variant{count: true, frames: true, fixed: true}
	xdpSlow = variant{xdp: true, count: true, loads: true, fixed: true}
)

// feed runs a program on frames, which it has to let pass as they are.
func feed(t testing.TB, p *ebpf.Program, frames ...[]byte) {
	t.Helper()
	for _, f := range frames {
		ret, out, err := p.Test(f)
		if err != nil {
			t.Fatal(err)
		}
		if p.Type() == ebpf.XDP && ret != 2 || p.Type() != ebpf.XDP && int32(ret) != -1 {
			t.Fatalf("returned %d", int32(ret))
		}
		if string(out) != string(f) {
			t.Fatalf("changed %x to %x", f, out)
		}
	}
}

// samples reads all flows.
func samples(t testing.TB, c *Counter) map[esp.Key]esp.Sample {
	t.Helper()
	got := map[esp.Key]esp.Sample{}
	if err := c.Samples(func(_ int, k esp.Key, s esp.Sample) bool {
		if _, twice := got[k]; twice {
			t.Errorf("%v is there twice", k)
		}
		got[k] = s
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return got
}

// forget empties the tables of flows.
func forget(t testing.TB, c *Counter) {
	t.Helper()
	forgetAll[rawKey](t, c, c.maps.fresh, 1)
	forgetAll[rawKey4](t, c, c.maps.flows4, c.cpus)
	forgetAll[rawKey](t, c, c.maps.flows6, c.cpus)
}

func forgetAll[K comparable](t testing.TB, c *Counter, m *ebpf.Map, cpus int) {
	t.Helper()
	if err := each(c, m, cpus, func(k *K, _ []rawCell) {
		if err := m.Delete(k); err != nil {
			t.Fatal(err)
		}
	}); err != nil {
		t.Fatal(err)
	}
}

var ignoreTime = cmp.Options{
	cmpopts.IgnoreFields(esp.Sample{}, "Last"),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
}

// TestPackets shows one packet each to the programs for what comes in.
func TestPackets(t *testing.T) {
	in := func(proto byte, payload []byte) ipPacket {
		return ipPacket{src: peer4, dst: host4, proto: proto, payload: payload}
	}
	in6 := func(proto byte, payload []byte, headers ...byte) ipPacket {
		return ipPacket{src: peer6, dst: host6, proto: proto, payload: payload, headers: headers}
	}
	frag := func(p ipPacket, offset int, more bool) ipPacket {
		p.offset, p.more = offset, more
		return p
	}
	key := esp.Key{Src: peer4, Dst: host4, SPI: 0xc0000001, Protocol: esp.ESP}
	key6 := esp.Key{Src: peer6, Dst: host6, SPI: 0xc0000001, Protocol: esp.ESP}
	as := func(k esp.Key, proto esp.Protocol, encap bool) esp.Key {
		k.Protocol, k.Encap = proto, encap
		return k
	}
	part := func(k esp.Key, proto esp.Protocol) esp.Key {
		k.SPI, k.Protocol = 0, proto
		return k
	}
	data := espData(0xc0000001, 7, 92)
	ah := ahData(0xc0000001, 7, 92)
	natt := udpData(4500, 4500, data)
	whole := esp.Sample{Packets: 1, First: 7, Max: 7}
	c := openTest(t, bothPeers)
	for _, tt := range []struct {
		name string
		ip   ipPacket
		raw  []byte // instead
		tags []uint16
		key  esp.Key // none if zero
		want esp.Sample
		xdp  bool // too short for a test of tc
	}{
		{name: "esp", ip: in(50, data), key: key, want: whole},
		{name: "ah", ip: in(51, ah), key: as(key, esp.AH, false), want: whole},
		{name: "esp in udp", ip: in(17, natt), key: as(key, esp.ESP, true), want: whole},
		{name: "esp in udp, port translated", ip: in(17, udpData(61000, 4500, data)), key: as(key, esp.ESP, true), want: whole},
		{name: "esp in udp, to a translated port", ip: in(17, udpData(4500, 61000, data)), key: as(key, esp.ESP, true), want: whole},
		{name: "from 500 to 4500", ip: in(17, udpData(500, 4500, data)), key: as(key, esp.ESP, true), want: whole},
		{name: "from 4500 to 500 is no esp", ip: in(17, udpData(4500, 500, data))},
		{name: "other ports", ip: in(17, udpData(4501, 4501, data))},
		{name: "esp behind options", ip: ipPacket{src: peer4, dst: host4, proto: 50, payload: data, options: 40}, key: key, want: whole},
		{name: "esp in udp behind options", ip: ipPacket{src: peer4, dst: host4, proto: 17, payload: natt, options: 4}, key: as(key, esp.ESP, true), want: whole},
		{name: "in a vlan", ip: in(50, data), tags: []uint16{7}, key: key, want: whole},
		{name: "in a vlan in a vlan", ip: in(50, data), tags: []uint16{7, 8}, key: key, want: whole},
		{name: "three tags", ip: in(50, data), tags: []uint16{7, 8, 9}},
		{name: "v6", ip: in6(50, data), key: key6, want: whole},
		{name: "v6 ah", ip: in6(51, ah), key: as(key6, esp.AH, false), want: whole},
		{name: "v6 esp in udp", ip: in6(17, natt), key: as(key6, esp.ESP, true), want: whole},
		{name: "v6 in a vlan", ip: in6(50, data), tags: []uint16{7}, key: key6, want: whole},
		{name: "v6 behind headers", ip: in6(50, data, 0, 60, 43), key: key6, want: whole},
		{name: "v6 esp in udp behind headers", ip: in6(17, natt, 0, 60), key: as(key6, esp.ESP, true), want: whole},
		{name: "v6 behind five headers", ip: in6(50, data, 0, 60, 43, 44, 60), key: key6, want: whole},
		{name: "v6 behind six headers", ip: in6(50, data, 0, 60, 43, 60, 60, 60)},
		{name: "v6 atomic fragment", ip: in6(50, data, 44), key: key6, want: whole},
		{name: "v6 two fragment headers", ip: frag(in6(50, data, 44, 44), 0, true)},
		{name: "first fragment", ip: frag(in(50, data), 0, true), key: key, want: esp.Sample{Packets: 1, First: 7, Max: 7, Fragments: [3]uint64{1}}},
		{name: "first fragment of esp in udp", ip: frag(in(17, natt), 0, true), key: as(key, esp.ESP, true), want: esp.Sample{Packets: 1, First: 7, Max: 7, Fragments: [3]uint64{1}}},
		{name: "middle fragment", ip: frag(in(50, data), 20, true), key: part(key, esp.ESP), want: esp.Sample{Fragments: [3]uint64{0, 1}}},
		{name: "last fragment", ip: frag(in(50, data), 40, false), key: part(key, esp.ESP), want: esp.Sample{Fragments: [3]uint64{0, 0, 1}}},
		{name: "last fragment of ah", ip: frag(in(51, data), 40, false), key: part(key, esp.AH), want: esp.Sample{Fragments: [3]uint64{0, 0, 1}}},
		{name: "last fragment of udp", ip: frag(in(17, natt), 40, false), key: part(key, esp.UDP), want: esp.Sample{Fragments: [3]uint64{0, 0, 1}}},
		{name: "last fragment of one byte", ip: frag(in(50, data[:1]), 40, false), key: part(key, esp.ESP), want: esp.Sample{Fragments: [3]uint64{0, 0, 1}}},
		{name: "v6 first fragment", ip: frag(in6(50, data, 44), 0, true), key: key6, want: esp.Sample{Packets: 1, First: 7, Max: 7, Fragments: [3]uint64{1}}},
		{name: "v6 middle fragment", ip: frag(in6(50, data, 44), 9, true), key: part(key6, esp.ESP), want: esp.Sample{Fragments: [3]uint64{0, 1}}},
		{name: "v6 last fragment of udp", ip: frag(in6(17, natt, 0, 44), 9, false), key: part(key6, esp.UDP), want: esp.Sample{Fragments: [3]uint64{0, 0, 1}}},
		{name: "fragment of tcp", ip: frag(in(6, data), 20, true)},
		{name: "without a sequence number", ip: in(50, data[:7])},
		{name: "esp with nothing in it", ip: in(50, data[:8]), key: key, want: whole},
		{name: "ah too short", ip: in(51, ah[:11])},
		{name: "ah that ends early by its own length", ip: in(51, append([]byte{4, 0}, ah[2:]...))},
		{name: "spi 0", ip: in(50, espData(0, 7, 92))},
		{name: "ah spi 0", ip: in(51, ahData(0, 7, 92))},
		{name: "ike", ip: in(17, udpData(4500, 4500, append(make([]byte, 4), data...)))},
		{name: "keepalive", ip: in(17, udpData(4500, 4500, []byte{0xff}))},
		{name: "esp in udp too short", ip: in(17, udpData(4500, 4500, data[:7]))},
		{name: "udp too short", ip: in(17, natt[:7])},
		{name: "tcp", ip: in(6, data)},
		{name: "not a peer", ip: ipPacket{src: other4, dst: host4, proto: 50, payload: data}},
		{name: "to a peer", ip: ipPacket{src: host4, dst: peer4, proto: 50, payload: data}, key: esp.Key{Src: host4, Dst: peer4, SPI: 0xc0000001, Protocol: esp.ESP}, want: whole},
		{name: "not ip", raw: []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 192, 0, 2, 2}},
		{name: "nothing behind ethernet", raw: []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0}, xdp: true},
		{name: "header cut off", raw: ether(in(50, data).bytes())[:14+19], xdp: true},
		{name: "v6 header cut off", raw: ether(in6(50, data).bytes())[:14+39], xdp: true},
		{name: "payload cut off", raw: ether(in(50, data).bytes())[:14+20+7], xdp: true},
		{name: "payload cut off behind options", raw: ether(ipPacket{src: peer4, dst: host4, proto: 50, payload: data, options: 20}.bytes())[:14+40+7], xdp: true},
		{name: "v6 payload cut off", raw: ether(in6(50, data).bytes())[:14+40+7], xdp: true},
		{name: "v6 payload cut off behind a header", raw: ether(in6(50, data, 0).bytes())[:14+48+7], xdp: true},
		{name: "version 5", raw: func() []byte { f := ether(in(50, data).bytes()); f[14] = 0x55; return f }()},
		{name: "header of 16 bytes", raw: func() []byte { f := ether(in(50, data).bytes()); f[14] = 0x44; return f }()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			frame := tt.raw
			want := map[esp.Key]esp.Sample{}
			if frame == nil {
				ip := tt.ip.bytes()
				frame = ether(ip, tt.tags...)
				if tt.key.Src.IsValid() {
					tt.want.Bytes, tt.want.Longest = uint64(len(ip)), uint32(len(ip))
					want[tt.key] = tt.want
				}
			}
			for _, v := range []variant{tcIn, xdpIn, xdpOld, tcSlow, xdpSlow} {
				if tt.xdp && !v.xdp {
					continue
				}
				forget(t, c)
				feed(t, c.get(t, v), frame)
				if diff := cmp.Diff(want, samples(t, c), ignoreTime); diff != "" {
					t.Errorf("%+v (-want +got):\n%s", v, diff)
				}
			}
		})
	}
}

// TestStatedLength shows lengths that are not those of the frame.
func TestStatedLength(t *testing.T) {
	ip := ipPacket{src: peer4, dst: host4, proto: 50, payload: espData(5, 1, 92)}
	ip6 := ipPacket{src: peer6, dst: host6, proto: 50, payload: espData(5, 1, 92)}
	c := openTest(t, bothPeers)
	for _, tt := range []struct {
		name   string
		ip     ipPacket
		length int
		want   uint64 // 0: none
	}{
		{"shorter than the frame", ip, 100, 100},
		{"longer than the frame", ip, 200, 120},
		{"no room for esp", ip, 27, 0},
		{"of offload", ip, 1, 120},
		{"v6 shorter than the frame", ip6, 80, 120},
		{"v6 longer than the frame", ip6, 200, 140},
		{"v6 no room for esp", ip6, 7, 0},
	} {
		forget(t, c)
		tt.ip.length = tt.length
		feed(t, c.get(t, tcIn), ether(tt.ip.bytes()))
		var got uint64
		for _, s := range samples(t, c) {
			got += s.Bytes
		}
		if got != tt.want {
			t.Errorf("%s: %d bytes, want %d", tt.name, got, tt.want)
		}
	}
}

// sequences are streams of numbers that take every branch of esp.Cell.
func sequences() map[string][]uint32 {
	up := func(from uint32, n int) (s []uint32) {
		for i := range uint32(n) {
			s = append(s, from+i)
		}
		return s
	}
	cat := func(lists ...[]uint32) (s []uint32) {
		for _, l := range lists {
			s = append(s, l...)
		}
		return s
	}
	list := map[string][]uint32{
		"in order":          up(1, 100),
		"wrap":              up(0xfffffff0, 40),
		"loss":              {1, 2, 5, 6, 100, 101, 1125, 1126},
		"step of 1024":      {1, 1025, 2049},
		"step of 1025":      {1, 1026, 1027},
		"duplicates":        {1, 1, 2, 3, 2, 2, 70, 7, 6, 3, 70},
		"window's edge":     {1, 64, 1, 65, 1, 1, 2, 2},
		"reordered":         {10, 5, 9, 8, 20, 12, 1200, 200, 176, 175},
		"before the anchor": {100, 99, 98, 50, 1},
		"stray":             cat(up(1, 5), []uint32{0x80000000}, up(6, 5)),
		"two strays":        cat(up(1, 5), []uint32{0x80000000, 0x40000000}, up(6, 5)),
		"loss of 60000":     cat(up(1, 5), up(60000, 5)),
		"jump of 65536":     cat(up(1, 5), up(5+65536, 5)),
		"jump of 65537":     cat(up(1, 5), up(5+65537, 5)),
		"jump back":         cat(up(100000, 5), up(1, 5)),
		"jump, then 63":     {1, 200000, 200063, 200000},
		"jump, then 64":     {1, 200000, 200064, 200000},
		"jump, then 1024":   {1, 200000, 201024, 200000, 201024},
		"jump, then 1025":   {1, 200000, 201025, 201026},
		"stray twice":       {1, 200000, 200000, 200001},
		"back 1024":         {5000, 3976, 3976},
		"back 1025":         {5000, 3975, 3976},
	}
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		n := r.Uint32()
		var s []uint32
		for range 300 {
			switch r.IntN(12) {
			case 0:
				n += r.Uint32N(70000)
			case 1:
				n = r.Uint32()
			case 2:
				s = append(s, n-r.Uint32N(1100))
				continue
			case 3:
				s = append(s, n-r.Uint32N(70))
				continue
			case 4:
				n += r.Uint32N(1100)
			default:
				n++
			}
			s = append(s, n)
		}
		list[fmt.Sprint("random ", seed)] = s
	}
	return list
}

// TestCell compares the program to the Go form of its rule.
func TestCell(t *testing.T) {
	c := openTest(t, bothPeers)
	for name, numbers := range sequences() {
		t.Run(name, func(t *testing.T) {
			var cell esp.Cell
			var frames [][]byte
			for i, n := range numbers {
				ip := ipPacket{src: peer4, dst: host4, proto: 50, payload: espData(9, n, i%100)}.bytes()
				frames = append(frames, ether(ip))
				cell.Add(n, len(ip), esp.Whole, time.Time{})
			}
			want := map[esp.Key]esp.Sample{{Src: peer4, Dst: host4, SPI: 9, Protocol: esp.ESP}: cell.Sample}
			for _, v := range []variant{tcIn, xdpIn} {
				forget(t, c)
				onCPU(t, 0, func() { feed(t, c.get(t, v), frames...) })
				if diff := cmp.Diff(want, samples(t, c), ignoreTime); diff != "" {
					t.Errorf("%+v (-want +got):\n%s", v, diff)
				}
			}
		})
	}
}

// TestOut counts what goes out.
func TestOut(t *testing.T) {
	c := openTest(t, bothPeers)
	feed(t, c.get(t, tcOut),
		ether(ipPacket{src: host4, dst: peer4, proto: 50, payload: espData(1, 1, 20)}.bytes()),
		ether(ipPacket{src: host4, dst: peer4, proto: 50, payload: espData(1, 2, 20)}.bytes()),
		ether(ipPacket{src: host6, dst: peer6, proto: 50, payload: espData(2, 1, 20)}.bytes()),
		ether(ipPacket{src: host4, dst: other4, proto: 50, payload: espData(3, 1, 20)}.bytes()))
	want := map[esp.Key]esp.Sample{
		{Src: host4, Dst: peer4, SPI: 1, Protocol: esp.ESP, Outgoing: true}: {Packets: 2, Bytes: 96, First: 1, Max: 2, Longest: 48},
		{Src: host6, Dst: peer6, SPI: 2, Protocol: esp.ESP, Outgoing: true}: {Packets: 1, Bytes: 68, First: 1, Max: 1, Longest: 68},
	}
	if diff := cmp.Diff(want, samples(t, c), ignoreTime); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
