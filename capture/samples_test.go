package capture

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnprobe/evidence"
	"vpnprobe/internal/wire/esp"
)

// samplesOf yields what a kernel program would say of cells.
func samplesOf(cells map[esp.Key]*esp.Cell) func(func(esp.Key, esp.Sample) bool) {
	return func(yield func(esp.Key, esp.Sample) bool) {
		for k, c := range cells {
			if !yield(k, c.Sample) {
				return
			}
		}
	}
}

// What the kernel counts must come to the same as what is shown packet by
// packet.
func TestSamples(t *testing.T) {
	const seconds, rate = 20, 500
	rnd := rand.New(rand.NewPCG(3, 4))
	shown, counted := NewObserver(testPeers), NewObserver(testPeers)
	in := esp.Key{Src: peer4, Dst: host4, SPI: 7, Protocol: esp.ESP}
	out := esp.Key{Src: host4, Dst: peer4, SPI: 9, Protocol: esp.ESP, Encap: true, Outgoing: true}
	through := esp.Key{Src: peer4, Dst: host4, SPI: 7, Protocol: esp.ESP, Outgoing: true} // a one-armed router's
	cells := map[esp.Key]*esp.Cell{in: {}, out: {}, through: {}}
	var lost uint64
	for n := range uint32(seconds * rate) {
		at := epoch.Add(time.Duration(n) * time.Second / rate)
		if n%rate == rate-1 {
			counted.Samples("wan", at.Add(500*time.Millisecond), samplesOf(cells))
		}
		show := func(ip []byte, outgoing bool, k esp.Key) {
			shown.Packet(Frame{Data: ip, Link: LinkRaw, Interface: "wan", Outgoing: outgoing, WireLen: len(ip), Time: at})
			cells[k].Add(n+1, len(ip), esp.Whole, at)
		}
		if rnd.IntN(10) > 0 {
			show(espIn(7, n+1), false, in)
			cells[through].Add(n+1, 100, esp.Whole, at)
		} else if n > 0 && n < seconds*rate-rate {
			lost++
		}
		show(ip4(host4, peer4, 17, udp(4500, 4500, espPacket(9, n+1, 64))), true, out)
	}
	counted.Samples("wan", epoch.Add(time.Minute), samplesOf(cells))
	a, b := shown.Counts("p"), counted.Counts("p")
	ignore := func(c Counts) Counts {
		c.In.Sequence.Bursts, c.Out.Sequence.Bursts = nil, nil
		return c
	}
	for i, pair := range [][2]evidence.WireTraffic{
		{ignore(a).In, ignore(b).In},
		{ignore(a).Out, ignore(b).Out},
	} {
		if diff := cmp.Diff(pair[0], pair[1], equateEmpty); diff != "" {
			t.Errorf("%d (-shown +counted):\n%s", i, diff)
		}
	}
	if a.In.Sequence.Lost < lost {
		t.Errorf("%d lost, want at least %d", a.In.Sequence.Lost, lost)
	}
	flows := b.Since(Counts{}, evidence.No).Flows
	if len(flows) != 2 || flows[0].SPI != 9 || flows[0].Inbound || flows[0].Sequence.Bursts != nil {
		t.Errorf("flows: %+v", flows)
	}
	if b.LeaksWatched != evidence.No || len(b.Interfaces) != 1 || b.Interfaces[0].Out.Packets != seconds*rate {
		t.Errorf("interfaces: %+v", b.Interfaces)
	}
}

// Packets that passed while the kernel did not count are not lost, nor are
// those of a counter that was replaced.
func TestSamplesGap(t *testing.T) {
	key := esp.Key{Src: peer4, Dst: host4, SPI: 7, Protocol: esp.ESP}
	cell := &esp.Cell{}
	o := NewObserver(testPeers)
	now, seq := epoch, uint32(0)
	pass := func(n uint32, counted bool) {
		for range n {
			seq++
			now = now.Add(time.Millisecond)
			if counted {
				cell.Add(seq, 100, esp.Whole, now)
			}
		}
	}
	read := func() {
		now = now.Add(time.Second)
		o.Samples("wan", now, samplesOf(map[esp.Key]*esp.Cell{key: cell}))
	}
	check := func(what string, packets, lost uint64) {
		t.Helper()
		c := o.Counts("p")
		if c.In.ESP.Packets != packets || c.In.Sequence.Lost != lost || c.In.Sequence.Expected != packets+lost {
			t.Errorf("%s: %d packets, %+v; want %d and %d lost", what, c.In.ESP.Packets, c.In.Sequence, packets, lost)
		}
	}
	pass(100, true)
	read()
	check("first", 100, 0)
	pass(1, false)
	pass(100, true)
	read()
	check("one lost", 200, 1)
	for range 3 {
		pass(300, false)
		o.Gap("wan")
		pass(100, true)
		read()
	}
	check("gaps", 500, 1)
	pass(100, true)
	read()
	check("on", 600, 1)
	cell = &esp.Cell{}
	pass(50, true)
	read()
	check("counted anew", 650, 1)
	for range 20 { // readings without the flow
		o.Samples("wan", now, samplesOf(nil))
	}
	if len(o.kernel[o.recent].flows) != 0 {
		t.Error("a flow that the kernel forgot is kept")
	}
}

// What the kernel counted before a peer came, or had other interfaces, is not
// the peer's; nor does it lose what it had.
func TestSamplesOfPeers(t *testing.T) {
	key := esp.Key{Src: peer4, Dst: host4, SPI: 7, Protocol: esp.ESP}
	cell := &esp.Cell{}
	a := Peer{Name: "a", Addrs: []netip.Addr{peer4}, Interfaces: []string{"wan"}}
	b := Peer{Name: "b", Addrs: []netip.Addr{peer4}, Interfaces: []string{"wan", "wan2"}}
	other := Peer{Name: "c", Addrs: []netip.Addr{other4}}
	o := NewObserver([]Peer{a})
	now, seq := epoch, uint32(0)
	pass := func() { // 90 of 100 packets
		for range 100 {
			if seq++; seq%10 != 5 {
				cell.Add(seq, 100, esp.Whole, now)
			}
		}
		now = now.Add(time.Second)
		o.Samples("wan", now, samplesOf(map[esp.Key]*esp.Cell{key: cell}))
	}
	check := func(what, name string, packets, lost uint64) {
		t.Helper()
		c := o.Counts(name)
		if c.In.ESP.Packets != packets || c.In.Sequence.Lost != lost || c.In.Sequence.Expected != packets+lost {
			t.Errorf("%s: %s: %d packets, %+v; want %d and %d lost", what, name, c.In.ESP.Packets, c.In.Sequence, packets, lost)
		}
	}
	pass()
	o.SetPeers([]Peer{a, b})
	pass()
	check("joined", "a", 180, 20)
	check("joined", "b", 90, 10)
	a.Interfaces = b.Interfaces
	o.SetPeers([]Peer{a, b})
	pass()
	check("moved", "a", 270, 30)
	check("moved", "b", 180, 20)
	o.SetPeers([]Peer{other})
	for range 2 * forgetAfter {
		pass()
	}
	o.SetPeers([]Peer{a, other})
	pass()
	check("came back", "a", 90, 10)
	check("is another", "c", 0, 0)
}

// Totals only grow, and windows add up, whatever happens.
func TestMonotonic(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 8))
	o := NewObserver(leakPeers)
	cells := map[esp.Key]*esp.Cell{}
	for spi := range uint32(4) {
		cells[esp.Key{Src: peer4, Dst: host4, SPI: spi, Protocol: esp.ESP}] = &esp.Cell{}
		cells[esp.Key{Src: host4, Dst: peer4, SPI: spi, Protocol: esp.ESP, Outgoing: true}] = &esp.Cell{}
	}
	var readings []Counts
	sum := func(w evidence.WireTraffic) uint64 {
		s := w.Sequence
		n := w.ESP.Bytes + w.ESPInUDP.Packets + w.AH.Bytes + w.Fragments.Total() + s.Expected + s.Duplicates + s.Reordered + s.Discontinuities
		for _, k := range w.IKE {
			n += k
		}
		return n
	}
	for n := range uint32(5000) {
		at := epoch.Add(time.Duration(n) * 10 * time.Millisecond)
		iface := []string{"wan", "wan2"}[rnd.IntN(2)]
		switch r := rnd.IntN(1000); {
		case r < 5:
			peers := slices.Clone(leakPeers)
			if rnd.IntN(2) == 0 {
				peers[0].Interfaces = []string{iface}
			}
			if rnd.IntN(4) == 0 {
				peers[0].Addrs = peers[1].Addrs
			}
			o.SetPeers(peers)
		case r < 10:
			o.Gap(iface)
		case r < 50:
			o.Samples(iface, at, samplesOf(cells))
		case r < 100:
			readings = append(readings, o.CountsAt("p", at))
		case r < 500:
			for k, c := range cells {
				if k.SPI%2 == n%2 {
					c.Add(n+uint32(rnd.IntN(5)), 100, esp.Fragment(rnd.IntN(4)), at)
				}
			}
		case r < 700:
			tc := packetCases[rnd.IntN(len(packetCases))]
			o.Packet(Frame{Data: tc.ip, Link: LinkRaw, Interface: iface, WireLen: len(tc.ip), Time: at})
		case r < 800:
			tc := leakCases[rnd.IntN(len(leakCases))]
			o.Packet(Frame{Data: tc.ip, Link: LinkRaw, Interface: iface, Outgoing: !tc.inbound, WireLen: len(tc.ip), Time: at})
		default:
			ip := espIn(uint32(rnd.IntN(3)), n+uint32(rnd.IntN(5)))
			o.Packet(Frame{Data: ip, Link: LinkRaw, Interface: iface, WireLen: len(ip), Time: at})
		}
	}
	first := readings[0]
	for i, now := range readings[1:] {
		was := readings[i]
		for name, pair := range map[string][2]uint64{
			"in":        {sum(was.In), sum(now.In)},
			"out":       {sum(was.Out), sum(now.Out)},
			"forgotten": {was.Forgotten, now.Forgotten},
			"leaks":     {total(Counts{Leaks: was.Leaks}, true), total(Counts{Leaks: now.Leaks}, true)},
		} {
			if pair[1] < pair[0] {
				t.Errorf("reading %d: %s shrank from %d to %d", i+1, name, pair[0], pair[1])
			}
		}
		window, sofar, next := now.Since(was, evidence.No), was.Since(first, evidence.No), now.Since(first, evidence.No)
		if sum(sofar.In)+sum(window.In) != sum(next.In) {
			t.Errorf("reading %d: windows of %d and %d make %d", i+1, sum(sofar.In), sum(window.In), sum(next.In))
		}
		if n := window.In.ESP.Packets; n > 1<<20 {
			t.Errorf("reading %d: %d packets in a window", i+1, n)
		}
	}
}

// The fragments of a flow that the kernel counts.
func TestSamplesFragments(t *testing.T) {
	o := NewObserver(testPeers)
	natt := esp.Key{Src: peer4, Dst: host4, SPI: 7, Protocol: esp.ESP, Encap: true}
	rest := esp.Key{Src: peer4, Dst: host4, Protocol: esp.UDP}
	raw := esp.Key{Src: host4, Dst: peer4, SPI: 8, Protocol: esp.ESP, Outgoing: true}
	rawRest := esp.Key{Src: host4, Dst: peer4, Protocol: esp.ESP, Outgoing: true}
	cells := map[esp.Key]*esp.Cell{natt: {}, rest: {}, raw: {}, rawRest: {}}
	for n := range uint32(3) {
		cells[natt].Add(n, 1500, esp.FirstFragment, epoch)
		cells[rest].Add(0, 200, esp.LastFragment, epoch)
		cells[raw].Add(n, 1500, esp.FirstFragment, epoch)
		cells[rawRest].Add(0, 200, esp.MiddleFragment, epoch)
		cells[rawRest].Add(0, 100, esp.LastFragment, epoch)
	}
	o.Samples("wan", epoch, samplesOf(cells))
	c := o.Counts("p")
	if got := c.In.Fragments; got != (evidence.Fragments{ESPInUDP: evidence.FragmentCount{First: 3, Last: 3}}) {
		t.Errorf("in: %+v", got)
	}
	if got := c.Out.Fragments.ESP; got != (evidence.FragmentCount{First: 3, Middle: 3, Last: 3}) {
		t.Errorf("out: %+v", got)
	}
	if c.In.ESPInUDP != (evidence.Traffic{Packets: 3, Bytes: 4500}) || c.Out.ESP != (evidence.Traffic{Packets: 3, Bytes: 5400}) {
		t.Errorf("traffic: %+v, %+v", c.In.ESPInUDP, c.Out.ESP)
	}
}
