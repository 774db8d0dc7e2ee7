package esp

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// spi returns a key of the usual pair of addresses.
func spi(n uint32) Key {
	k := flowKey
	k.SPI = n
	return k
}

// at is a time in the packets' clock.
func at(d time.Duration) time.Time { return epoch.Add(d) }

// fixed gives a table always the same seed: which SPIs wait in the same row,
// and which pairs of addresses share a count, is up to chance otherwise.
func fixed(tab *Table) *Table {
	tab.flows.seed = [2]uint64{0x243f6a8885a308d3, 0x13198a2e03707344}
	return tab
}

// flowsOf returns the flows by key, and checks that the store is sound.
func flowsOf(t *testing.T, tab *Table, now time.Time) map[Key]Counts {
	t.Helper()
	out := make(map[Key]Counts)
	for k, c := range tab.Flows(now) {
		out[k] = c
	}
	if n := len(tab.flows.nodes); len(out) != n {
		t.Fatalf("%d flows of %d", len(out), n)
	}
	sound(t, tab.flows)
	return out
}

// sound checks the invariants of a store.
func sound[V any](t *testing.T, s *store[V]) {
	t.Helper()
	used, listed := 0, 0
	for _, e := range s.index {
		if e != 0 {
			used++
		}
	}
	for class, l := range s.lists {
		before := int16(-1)
		for slot := l.newest; slot >= 0; slot = s.nodes[slot].next {
			n := s.nodes[slot]
			if listed++; listed > len(s.nodes) || n.prev != before || int(n.class) != class {
				t.Fatalf("list %d is broken at %d: %+v", class, slot, n)
			}
			before = slot
		}
		if l.oldest != before {
			t.Fatalf("list %d ends with %d, not %d", class, before, l.oldest)
		}
	}
	shares := 0
	for _, n := range s.shares {
		shares += int(n)
	}
	n := len(s.nodes)
	if used != n || listed != n || shares != n || len(s.keys) != n || len(s.values) != n || n > s.limit {
		t.Fatalf("%d flows of at most %d: %d in the index, %d in the lists, %d in shares", n, s.limit, used, listed, shares)
	}
	for slot := range s.keys {
		if h := s.hash(&s.keys[slot]); s.find(&s.keys[slot], h) != int16(slot) {
			t.Fatalf("flow %d is not to be found", slot)
		}
	}
}

func TestTablePromotion(t *testing.T) {
	tab := fixed(NewTable())
	tab.Add(spi(1), 100, 500, FirstFragment, at(0))
	if got := flowsOf(t, tab, at(0)); len(got) != 0 {
		t.Fatalf("one packet made a flow: %v", got)
	}
	tab.Add(spi(1), 103, 1400, Whole, at(time.Second))
	want := map[Key]Counts{spi(1): {
		Packets: 2, Bytes: 1900, Longest: 1400, Expected: 4, Fragments: [3]uint64{1},
		First: at(0), Last: at(time.Second),
	}}
	if diff := cmp.Diff(want, flowsOf(t, tab, at(time.Second))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	// Numbers that do not fit together make none, ones that do make one.
	for i, n := range []uint32{5, 5000, 1 << 30, 1<<30 - 1024} {
		if len(tab.flows.nodes) != 1 {
			t.Fatalf("a flow from %d packets", i)
		}
		tab.Add(spi(2), n, 100, Whole, at(time.Second))
	}
	got := flowsOf(t, tab, at(time.Second))[spi(2)]
	if got.Packets != 4 || got.Strays != 2 || got.Lost() != 0 || got.Bytes != 400 {
		t.Errorf("%+v", got)
	}
	if tab.Forgotten() != 0 {
		t.Errorf("%d forgotten", tab.Forgotten())
	}
}

// TestTableFragments: parts without a header count with an SPI of 0.
func TestTableFragments(t *testing.T) {
	tab := fixed(NewTable())
	for i, part := range []Fragment{MiddleFragment, LastFragment, MiddleFragment} {
		tab.Add(spi(7), 0xdeadbeef*uint32(i), 100+i, part, at(0))
	}
	tab.Add(spi(0), 1, 50, Whole, at(0)) // nobody's packet
	want := map[Key]Counts{spi(0): {
		Packets: 1, Strays: 1, Bytes: 353, Longest: 102, Fragments: [3]uint64{0, 2, 1}, First: at(0), Last: at(0),
	}}
	if diff := cmp.Diff(want, flowsOf(t, tab, at(0))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestTableGap: nothing is lost in a gap.
func TestTableGap(t *testing.T) {
	tab := fixed(NewTable())
	for _, n := range []uint32{1, 2, 4} {
		tab.Add(spi(1), n, 100, Whole, at(0))
	}
	tab.Gap()
	tab.Add(spi(1), 800, 100, Whole, at(0))
	if c := flowsOf(t, tab, at(0))[spi(1)]; c.Lost() != 1 || c.Expected != 5 {
		t.Errorf("%+v", c)
	}
}

// TestTableSettles: runs of lost numbers are known two readings later.
func TestTableSettles(t *testing.T) {
	tab := fixed(NewTable())
	tab.Add(spi(1), 1, 100, Whole, at(0))
	for i, want := range []uint64{0, 0, 0, 0, 1} {
		tab.Add(spi(1), 5+uint32(i), 100, Whole, at(0))
		c := flowsOf(t, tab, at(time.Duration(i)*1500*time.Millisecond))[spi(1)]
		if c.Lost() != 3 || c.Bursts[1] != want {
			t.Errorf("reading %d: %d lost, bursts %v", i, c.Lost(), c.Bursts)
		}
	}
}

// TestTableFlood: SPIs at random neither need memory nor push out a flow, and
// a new flow is admitted all the same.
func TestTableFlood(t *testing.T) {
	tab := fixed(NewTable())
	tab.Leave = func(k Key, _ Counts) { t.Errorf("%x had to leave", k.SPI) }
	const used = 64
	now := time.Duration(0)
	seq := uint32(0)
	send := func(spis int) {
		for i := range spis {
			tab.Add(spi(uint32(i+1)), seq, 1400, Whole, at(now))
		}
		seq++
	}
	send(used)
	send(used)
	r := rand.New(rand.NewPCG(1, 1))
	flood := func(n int) { // at a million in a second
		for range n {
			tab.Add(spi(r.Uint32()|1<<31), r.Uint32(), 100, Whole, at(now))
			now += time.Microsecond
		}
	}
	flood(10_000)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const rounds, each = 50, 10_000
	for range rounds {
		flood(each)
		send(used)
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 64<<10 {
		t.Errorf("%d bytes allocated", grown)
	}
	if tab.Forgotten() < rounds*each {
		t.Errorf("%d forgotten of %d", tab.Forgotten(), rounds*each)
	}
	got := flowsOf(t, tab, at(now))
	for i := range used {
		if c := got[spi(uint32(i+1))]; c.Packets != rounds+2 || c.Lost() != 0 {
			t.Errorf("flow %d: %+v", i, c)
		}
	}

	const more = used + 1 // one that begins during the flood, with 100 packets in a second
	for range 800 {
		flood(each)
		if send(more); flowCount(tab, spi(more)) > 0 {
			return
		}
	}
	t.Error("no new flow was admitted in eight seconds")
}

// flowCount returns the number of packets of one flow.
func flowCount(tab *Table, k Key) uint64 {
	h := tab.flows.hash(&k)
	if slot := tab.flows.find(&k, h); slot >= 0 {
		return tab.flows.values[slot].c.Packets
	}
	return 0
}

// TestTablePromotedFlood: SPIs with as many packets as one likes, from one
// peer's address, do not push out flows in use, nor young ones of other peers.
func TestTablePromotedFlood(t *testing.T) {
	for name, packets := range map[string]int{"young": 2, "established": established + 1} {
		t.Run(name, func(t *testing.T) {
			tab := fixed(NewTable())
			gone := make(map[Key]bool)
			tab.Leave = func(k Key, _ Counts) { gone[k] = k.SPI < 1<<31 }
			other := func(n uint32) Key {
				k := spi(n)
				k.Src = addr("203.0.113.7")
				return k
			}
			for n := range uint32(30) {
				tab.Add(spi(1), n, 100, Whole, at(0))
				tab.Add(other(2), n, 100, Whole, at(0))
			}
			for n := range uint32(3) { // young for ever
				tab.Add(other(3), n, 100, Whole, at(0))
			}
			r := rand.New(rand.NewPCG(2, 2))
			for i := range 4 * MaxFlows {
				forged := spi(r.Uint32() | 1<<31)
				now := at(time.Duration(i) * time.Millisecond)
				for n := range packets {
					tab.Add(forged, uint32(n), 100, Whole, now)
				}
				if i%100 == 0 {
					tab.Add(spi(1), 30+uint32(i/100), 100, Whole, now)
				}
			}
			for _, k := range []Key{spi(1), other(2), other(3)} {
				if gone[k] {
					t.Errorf("SPI %d of %v had to leave", k.SPI, k.Src)
				}
			}
			if len(gone) == 0 || tab.Forgotten() < uint64(len(gone)) {
				t.Errorf("%d had to leave, %d forgotten", len(gone), tab.Forgotten())
			}
			flowsOf(t, tab, at(0))
		})
	}
}

// TestTableIdle: an established flow that is not used any more makes room.
func TestTableIdle(t *testing.T) {
	tab := newTable(2, 16)
	var left []uint32
	tab.Leave = func(k Key, _ Counts) { left = append(left, k.SPI) }
	use := func(n uint32, packets uint32, now time.Duration) {
		for i := range packets {
			tab.Add(spi(n), i, 100, Whole, at(now))
		}
	}
	use(1, established, 0)
	use(2, 2, time.Minute)
	use(3, 2, 2*time.Minute) // 1 is protected
	use(4, 2, 10*time.Minute)
	if diff := cmp.Diff([]uint32{2, 1}, left); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestTableAllEstablished: the longest unused one leaves if all are protected.
func TestTableAllEstablished(t *testing.T) {
	tab := newTable(2, 16)
	var left []uint32
	tab.Leave = func(k Key, _ Counts) { left = append(left, k.SPI) }
	for i, n := range []uint32{1, 2, 1, 3} {
		for seq := range uint32(established) {
			tab.Add(spi(n), uint32(i)*established+seq, 100, Whole, at(time.Duration(i)*time.Second))
		}
	}
	if diff := cmp.Diff([]uint32{2}, left); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestTableKeys: each part of a key tells flows apart.
func TestTableKeys(t *testing.T) {
	keys := []Key{
		spi(1), spi(2),
		{Src: flowKey.Dst, Dst: flowKey.Src, SPI: 1, Protocol: ESP},
		{Src: flowKey.Src, Dst: flowKey.Dst, SPI: 1, Protocol: AH},
		{Src: flowKey.Src, Dst: flowKey.Dst, SPI: 1, Protocol: ESP, Encap: true},
		{Src: flowKey.Src, Dst: flowKey.Dst, SPI: 1, Protocol: ESP, Outgoing: true},
		{Src: addr("2001:db8::1"), Dst: flowKey.Dst, SPI: 1, Protocol: ESP},
	}
	tab := fixed(newTable(len(keys), 1<<10))
	for n := range uint32(3) {
		for i, k := range keys {
			tab.Add(k, n<<i, 100, Whole, at(0))
		}
	}
	got := flowsOf(t, tab, at(0))
	for i, k := range keys {
		if want := uint64(2<<i + 1); got[k].Expected != want {
			t.Errorf("%+v: %d expected, want %d", k, got[k].Expected, want)
		}
	}
}

// TestHash: SPIs spread well over the places to wait, whatever the seed.
func TestHash(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	for range 500 {
		s := newStore[flow](1)
		s.seed = [2]uint64{r.Uint64(), r.Uint64()}
		base, shift := r.Uint32(), r.IntN(20)
		places, lows := make(map[uint64]bool), make(map[uint64]bool)
		for n := range uint32(64) {
			k := spi(base + n<<shift)
			h := s.hash(&k)
			places[h>>40%newcomers] = true
			lows[h%newcomers] = true
		}
		// 63.5 are to be expected.
		if len(places) < 54 || len(lows) < 54 {
			t.Fatalf("64 SPIs from %#x on by %d, seed %#x: %d and %d places", base, 1<<shift, s.seed, len(places), len(lows))
		}
	}
}

// TestTableTimeBack: an SPI from the future does not keep its place until then.
func TestTableTimeBack(t *testing.T) {
	tab := newTable(8, ways)
	for n := range uint32(ways) {
		tab.Add(spi(n+10), 1, 100, Whole, at(time.Hour))
	}
	for n := range uint32(ways + 1) { // the last one finds the places taken
		tab.Add(spi(n+20), 1, 100, Whole, at(0))
	}
	for n := range uint32(ways + 1) {
		tab.Add(spi(n+20), 2, 100, Whole, at(0))
	}
	if got := flowsOf(t, tab, at(0)); len(got) != ways || tab.Forgotten() != ways+1 {
		t.Errorf("%d forgotten, %v", tab.Forgotten(), got)
	}
}

func TestTableNoAllocations(t *testing.T) {
	tab, keys := busy(64)
	n := uint32(0)
	if got := testing.AllocsPerRun(10_000, func() {
		n++
		tab.Add(keys[n%64], n/64, 1400, Whole, epoch)
		tab.Add(spi(n*2654435761|1<<31), n, 1400, Whole, epoch)
	}); got != 0 {
		t.Errorf("%v allocations for two packets", got)
	}
}

// busy returns a table with so many flows.
func busy(flows int) (*Table, []Key) {
	tab, keys := NewTable(), make([]Key, flows)
	for i := range keys {
		keys[i] = spi(uint32(i)*2654435761 + 1)
		tab.Add(keys[i], 0, 1400, Whole, epoch)
		tab.Add(keys[i], 1, 1400, Whole, epoch)
	}
	return tab, keys
}

// FuzzTable shows packets of few SPIs to a small table.
func FuzzTable(f *testing.F) {
	f.Add([]byte("\x01\x00\x01\x01\x02\x00\x02\x01\x03\x00\x03\x01\x04\x00\x04\x01"))
	f.Add([]byte("\xf1\x00\xf1\x01\x42\x00\x82\x01\xc3\x00\xc3\x01\xff\xff\x04\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		tab := newTable(5, 2*ways)
		was := make(map[Key]Counts)
		var packets, bytes uint64
		gone := Counts{}
		tab.Leave = func(k Key, c Counts) { gone = gone.Plus(c); delete(was, k) }
		now := time.Duration(0)
		for ; len(b) >= 2; b = b[2:] {
			v := binary.BigEndian.Uint16(b)
			k := spi(uint32(v >> 12))
			k.Encap = v&(1<<11) != 0
			part := Fragment(v >> 9 & 3)
			now += time.Duration(v&0xff) * 5 * time.Millisecond
			if v&0xff == 0xff {
				tab.Gap()
				now -= time.Hour
			}
			tab.Add(k, uint32(v&0x1ff)*uint32(v&7), int(v&0xff), part, at(now))
			bytes += uint64(v & 0xff)
			if !part.later() {
				packets++
			}
			sum := gone
			for k, c := range flowsOf(t, tab, at(now)) {
				check(t, c, was[k])
				was[k] = c
				sum = sum.Plus(c)
			}
			if sum.Packets > packets || sum.Bytes > bytes {
				t.Fatalf("counted %+v of %d packets with %d bytes", sum, packets, bytes)
			}
		}
	})
}

func BenchmarkTable(b *testing.B) {
	tab, keys := busy(64)
	b.ReportAllocs()
	for n := uint32(128); b.Loop(); n++ {
		tab.Add(keys[n%64], n/64, 1400, Whole, epoch.Add(time.Duration(n)*time.Microsecond))
	}
}

func BenchmarkTableFull(b *testing.B) {
	tab, keys := busy(MaxFlows)
	b.ReportAllocs()
	for n := uint32(2 * MaxFlows); b.Loop(); n++ {
		tab.Add(keys[n%MaxFlows], n/MaxFlows, 1400, Whole, epoch.Add(time.Duration(n)*time.Microsecond))
	}
}

func BenchmarkTableFlood(b *testing.B) {
	for name, shift := range map[string]int{"one": 0, "promoted": 1} {
		b.Run(name, func(b *testing.B) {
			tab, _ := busy(MaxFlows)
			b.ReportAllocs()
			n := uint32(0)
			for b.Loop() {
				n++
				tab.Add(spi(n>>shift*2654435761|1<<31), n, 100, Whole, epoch.Add(time.Duration(n)*time.Microsecond))
			}
		})
	}
}
