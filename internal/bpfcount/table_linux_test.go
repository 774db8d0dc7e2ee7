package bpfcount

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"vpnprobe/internal/wire/esp"
)

// TestLast checks the time of the last packet.
func TestLast(t *testing.T) {
	c := openTest(t, bothPeers)
	before := time.Now()
	feed(t, c.get(t, tcIn), ether(ipPacket{src: peer4, dst: host4, proto: 50, payload: espData(1, 1, 20)}.bytes()))
	for _, s := range samples(t, c) {
		// The clock stands still between two ticks.
		if s.Last.Before(before.Add(-100*time.Millisecond)) || s.Last.After(time.Now()) {
			t.Errorf("Last is %v, sent at %v", s.Last, before)
		}
	}
}

// TestSetPeers replaces the peers under way.
func TestSetPeers(t *testing.T) {
	c := openTest(t, bothPeers)
	third := netip.MustParseAddr("198.51.100.3")
	send := func() {
		for _, src := range []netip.Addr{peer4, third} {
			for seq := range uint32(3) {
				feed(t, c.get(t, tcIn), ether(ipPacket{src: src, dst: host4, proto: 50, payload: espData(1, seq+1, 20)}.bytes()))
			}
		}
	}
	counts := func() map[netip.Addr]uint64 {
		m := map[netip.Addr]uint64{}
		for k, s := range samples(t, c) {
			m[k.Src] += s.Packets
		}
		return m
	}
	check := func(want map[netip.Addr]uint64) {
		t.Helper()
		if got := counts(); !maps.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	send()
	check(map[netip.Addr]uint64{peer4: 3})
	if err := c.SetPeers([]netip.Addr{netip.AddrFrom16(peer4.As16()), third, third, {}}); err != nil {
		t.Fatal(err)
	}
	send()
	check(map[netip.Addr]uint64{peer4: 6, third: 3})
	if err := c.SetPeers([]netip.Addr{third}); err != nil {
		t.Fatal(err)
	}
	check(map[netip.Addr]uint64{third: 3})
	send()
	check(map[netip.Addr]uint64{third: 6})
	if n := forgotten(c); n != 0 {
		t.Errorf("%d flows forgotten, want 0: a peer that was removed is not", n)
	}
	if err := c.SetPeers(make([]netip.Addr, 10000)); err != nil { // none is valid
		t.Fatal(err)
	}
	var many []netip.Addr
	for i := range uint32(maxPeers) {
		many = append(many, netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, i+1))))
	}
	if err := c.SetPeers(many); err != nil {
		t.Fatal(err)
	}
	for i := range many { // all others: no room for both at a time
		many[i] = netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(i)+100000)))
	}
	if err := c.SetPeers(many); err != nil {
		t.Fatal(err)
	}
	if err := c.SetPeers(append(many, peer4)); err == nil {
		t.Error("one too many was accepted")
	}
}

// TestFlood shows forged SPIs between the packets of a flow that is in use and
// one that is quiet.
func TestFlood(t *testing.T) {
	c := openTest(t, Config{Peers: []netip.Addr{peer4}, FlowEntries: 64})
	p := c.get(t, tcIn)
	packet := func(spi, seq uint32) []byte {
		return ether(ipPacket{src: peer4, dst: host4, proto: 50, payload: espData(spi, seq, 20)}.bytes())
	}
	feed(t, p, packet(1, 1), packet(1, 2), packet(2, 1), packet(2, 2))
	const flood = 10000
	for i := range uint32(flood) {
		feed(t, p, packet(1000+i, i))
		if i%100 == 0 {
			feed(t, p, packet(1, 3+i/100))
		}
	}
	got := samples(t, c)
	for spi, want := range map[uint32]uint64{1: 2 + flood/100, 2: 2} {
		if s := got[esp.Key{Src: peer4, Dst: host4, SPI: spi, Protocol: esp.ESP}]; s.Packets != want || s.Strays+s.Duplicates+s.Reordered != 0 {
			t.Errorf("SPI %d: %+v, want %d packets", spi, s, want)
		}
	}
	if len(got) > c.Capacity() {
		t.Errorf("%d flows, capacity %d", len(got), c.Capacity())
	}
	if n := uint64(len(got)) + forgotten(c); n != flood+2 {
		t.Errorf("%d flows and %d forgotten, want %d in all", len(got), forgotten(c), flood+2)
	}
	check := func(packets, forgotten uint64) {
		t.Helper()
		samples(t, c)
		want := []Total{{
			Ifindex: 1, Key: esp.Key{Src: peer4, Protocol: esp.ESP},
			Packets: packets, Bytes: packets * (20 + 8 + 20), Forgotten: forgotten,
		}}
		if diff := cmp.Diff(want, c.Totals(), ignoreTime, cmpopts.IgnoreFields(Total{}, "Last")); diff != "" {
			t.Errorf("totals (-want +got):\n%s", diff)
		}
	}
	moved := uint64(0)
	check(flood+flood/100+4, flood+2-uint64(len(got)))
	for k := range got { // once more: they move
		if k.SPI >= 1000 && moved < 30 {
			moved++
			feed(t, p, packet(k.SPI, k.SPI-1000+1))
		}
	}
	check(flood+flood/100+4+moved, flood+2-uint64(len(got)))
}

// TestOldest makes the least recently used flow leave.
func TestOldest(t *testing.T) {
	c := openTest(t, Config{Peers: []netip.Addr{peer4}, FlowEntries: 64})
	p := c.get(t, tcIn)
	var all uint64
	for spi := uint32(1); spi <= 500; spi++ {
		for _, s := range []uint32{1, spi} { // the first is always in use
			for range 2 {
				all++
				feed(t, p, ether(ipPacket{src: peer4, dst: host4, proto: 50, payload: espData(s, uint32(all), 20)}.bytes()))
			}
		}
		got := samples(t, c)
		if spi%8 == 0 {
			time.Sleep(c.ticks.tick) // the clock has to go on
		}
		if _, ok := got[esp.Key{Src: peer4, Dst: host4, SPI: 1, Protocol: esp.ESP}]; !ok {
			t.Fatalf("the flow in use left after %d others", spi)
		}
		if _, ok := got[esp.Key{Src: peer4, Dst: host4, SPI: spi, Protocol: esp.ESP}]; !ok {
			t.Fatalf("flow %d is not there", spi)
		}
		if len(got) > 64 {
			t.Fatalf("%d flows", len(got))
		}
		if n := uint64(len(got)) + forgotten(c); n != uint64(spi) {
			t.Fatalf("%d flows and %d forgotten, want %d in all", len(got), forgotten(c), spi)
		}
		if n := c.Totals()[0].Packets; n != all {
			t.Fatalf("%d packets in all, want %d", n, all)
		}
	}
}

// TestFull shows that a full table still counts what is in it.
func TestFull(t *testing.T) {
	c := openTest(t, Config{Peers: []netip.Addr{peer4}, FlowEntries: 8})
	p := c.get(t, tcIn)
	for seq := range uint32(50) {
		for spi := uint32(1); spi <= 30; spi++ {
			feed(t, p, ether(ipPacket{src: peer4, dst: host4, proto: 50, payload: espData(spi, seq, 20)}.bytes()))
		}
	}
	got := samples(t, c)
	if len(got) != 28 { // two leave, so that there is room for new ones
		t.Errorf("%d flows, want 28", len(got))
	}
	for k, s := range got {
		if s.Packets != 50 {
			t.Errorf("SPI %d: %d packets, want 50", k.SPI, s.Packets)
		}
	}
	if n := c.Totals()[0].Packets; n != 50*30 {
		t.Errorf("%d packets in all, want %d", n, 50*30)
	}
}

// forgotten returns how many flows had left by the last call of Samples.
func forgotten(c *Counter) (n uint64) {
	for _, t := range c.Totals() {
		n += t.Forgotten
	}
	return n
}

// TestTotals adds up all kinds of packets, with those of offload and in
// fragments, and leaves out what passes through this host.
func TestTotals(t *testing.T) {
	c := openTest(t, bothPeers)
	volumes := map[esp.Key]volume{}
	count := func(frames ...[]byte) {
		t.Helper()
		feed(t, c.get(t, tcIn), frames...)
		samples(t, c)
		for _, s := range c.Totals() {
			volumes[s.Key] = volume{s.Packets, s.Bytes}
		}
	}
	in := esp.Key{Src: peer4, Protocol: esp.ESP}
	esp4 := func(spi, seq uint32) []byte {
		return ether(ipPacket{src: peer4, dst: host4, proto: 50, payload: espData(spi, seq, 20)}.bytes())
	}
	count(esp4(1, 1), esp4(1, 2), esp4(1, 3), esp4(2, 1))
	aggregate := ether(ipPacket{src: peer4, dst: host4, proto: 50, payload: espData(3, 1, 92)}.bytes())
	if _, err := c.get(t, tcIn).Run(&ebpf.RunOptions{Data: aggregate, Context: skb{GSOSegs: 5, GSOSize: 20, WireLen: 14 + 5*40}}); err != nil {
		t.Fatal(err)
	}
	count(
		ether(ipPacket{src: peer4, dst: host4, proto: 50, more: true, payload: espData(4, 1, 40)}.bytes()),
		ether(ipPacket{src: peer4, dst: host4, proto: 50, offset: 6, payload: make([]byte, 30)}.bytes()),
		ether(ipPacket{src: peer6, dst: host6, proto: 51, payload: ahData(1, 1, 20)}.bytes()),
		ether(ipPacket{src: peer6, dst: host6, proto: 51, payload: ahData(1, 2, 20)}.bytes()),
		ether(ipPacket{src: peer4, dst: host4, proto: 17, payload: udpData(4500, 4500, espData(1, 1, 20))}.bytes()),
		ether(ipPacket{src: other4, dst: peer4, proto: 50, payload: espData(9, 1, 20)}.bytes()),
		ether(ipPacket{src: other4, dst: peer4, proto: 50, payload: espData(9, 2, 20)}.bytes()),
	)
	want := map[esp.Key]volume{
		in:                             {4 + 5 + 1, 4*48 + 5*40 + 68 + 50},
		{Src: peer6, Protocol: esp.AH}: {2, 2 * (40 + 12 + 20)},
		{Src: peer4, Protocol: esp.ESP, Encap: true}: {1, 20 + 8 + 28},
	}
	if diff := cmp.Diff(want, volumes, cmp.AllowUnexported(volume{}), ignoreTime); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	// A peer that comes back begins anew.
	if err := c.SetPeers(nil); err != nil {
		t.Fatal(err)
	}
	samples(t, c)
	if got := c.Totals(); len(got) != 0 {
		t.Errorf("of no peer: %v", got)
	}
	if err := c.SetPeers([]netip.Addr{peer4}); err != nil {
		t.Fatal(err)
	}
	clear(volumes)
	count(esp4(1, 1000))
	if diff := cmp.Diff(map[esp.Key]volume{in: {1, 48}}, volumes, cmp.AllowUnexported(volume{}), ignoreTime); diff != "" {
		t.Errorf("anew (-want +got):\n%s", diff)
	}
}

// TestWithoutBatch reads entry by entry, as kernels before 5.6 need it.
func TestWithoutBatch(t *testing.T) {
	c := openTest(t, bothPeers)
	p := c.get(t, tcIn)
	for i := range uint32(3000) {
		feed(t, p, ether(ipPacket{src: peer4, dst: host4, proto: 50, payload: espData(i/2+1, i, 20)}.bytes()))
	}
	want := samples(t, c)
	if len(want) != 1500 {
		t.Errorf("%d flows, want 1500", len(want))
	}
	c.table.noBatch = true
	if diff := cmp.Diff(want, samples(t, c), ignoreTime); diff != "" {
		t.Errorf("(-batch +one by one):\n%s", diff)
	}
}

func TestClosed(t *testing.T) {
	c := openTest(t, bothPeers)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Samples(nil); err == nil {
		t.Error("Samples of a closed counter")
	}
	for name, err := range map[string]error{
		"SetPeers": c.SetPeers(nil), "SetLeaks": c.SetLeaks(nil), "Read": c.Read(nil), "Close": c.Close(),
	} {
		if (name == "Close") != (err == nil) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.Attach(1, Options{}); err != os.ErrClosed {
		t.Errorf("Attach: %v", err)
	}
	c.Drops()
}
