package capture

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnprobe/evidence"
	"vpnprobe/internal/wire/esp"
)

// espIn and espOut are ESP packets of the peer's, of 100 bytes.
func espIn(spi, seq uint32) []byte  { return ip4(peer4, host4, 50, espPacket(spi, seq, 72)) }
func espOut(spi, seq uint32) []byte { return ip4(host4, peer4, 50, espPacket(spi, seq, 72)) }

// ahPacket is an AH header with 12 bytes of ICV.
func ahPacket(spi, seq uint32) []byte {
	b := make([]byte, 80)
	b[0], b[1] = 4, 4
	binary.BigEndian.PutUint32(b[4:], spi)
	binary.BigEndian.PutUint32(b[8:], seq)
	return b
}

// player shows frames to an observer, a millisecond apart.
type player struct {
	*Observer
	frame Frame // what all have in common
	n     int
}

func (p *player) show(ip []byte) {
	f := p.frame
	f.Data, f.Link, f.WireLen = ip, LinkRaw, len(ip)
	f.Time = epoch.Add(time.Duration(p.n) * time.Millisecond)
	p.n++
	p.Packet(f)
}

// play shows the numbers from..to of an SPI, but those to be skipped.
func (p *player) play(pack func(spi, seq uint32) []byte, spi, from, to uint32, skip ...uint32) {
	for seq := from; seq != to+1; seq++ {
		if !slices.Contains(skip, seq) {
			p.show(pack(spi, seq))
		}
	}
}

// account is the part of evidence.Sequence that most tests are about.
func account(s evidence.Sequence) [5]uint64 {
	return [5]uint64{s.Expected, s.Lost, s.Duplicates, s.Reordered, s.Discontinuities}
}

func TestSequences(t *testing.T) {
	type packer = func(spi, seq uint32) []byte
	natt := func(spi, seq uint32) []byte { return ip4(peer4, host4, 17, udp(4500, 4500, espPacket(spi, seq, 64))) }
	six := func(spi, seq uint32) []byte { return ip6(peer6, host6, 50, espPacket(spi, seq, 52)) }
	ah := func(spi, seq uint32) []byte { return ip4(peer4, host4, 51, ahPacket(spi, seq)) }
	for name, pack := range map[string]packer{"esp": espIn, "udp": natt, "ipv6": six, "ah": ah} {
		for name2, tc := range map[string]struct {
			play func(p *player)
			want [5]uint64
		}{
			"whole":      {func(p *player) { p.play(pack, 1, 1, 100) }, [5]uint64{100, 0, 0, 0, 0}},
			"from mid":   {func(p *player) { p.play(pack, 1, 5000, 5099) }, [5]uint64{100, 0, 0, 0, 0}},
			"loss":       {func(p *player) { p.play(pack, 1, 1, 100, 7, 50, 51) }, [5]uint64{100, 3, 0, 0, 0}},
			"reordered":  {func(p *player) { p.play(pack, 1, 1, 100, 7); p.show(pack(1, 7)) }, [5]uint64{100, 0, 0, 1, 0}},
			"duplicate":  {func(p *player) { p.play(pack, 1, 1, 100); p.show(pack(1, 90)) }, [5]uint64{100, 0, 1, 0, 0}},
			"wrap":       {func(p *player) { p.play(pack, 1, ^uint32(0)-49, 49, 3) }, [5]uint64{100, 1, 0, 0, 0}},
			"jump":       {func(p *player) { p.play(pack, 1, 1, 50); p.play(pack, 1, 1e6, 1e6+49) }, [5]uint64{100, 0, 0, 0, 1}},
			"rekey":      {func(p *player) { p.play(pack, 1, 1, 50); p.play(pack, 2, 1, 50) }, [5]uint64{100, 0, 0, 0, 0}},
			"two spis":   {func(p *player) { p.play(pack, 1, 1, 50, 9); p.play(pack, 2, 1, 50, 9) }, [5]uint64{100, 2, 0, 0, 0}},
			"gap":        {func(p *player) { p.play(pack, 1, 1, 50); p.Gap(""); p.play(pack, 1, 900, 949) }, [5]uint64{100, 0, 0, 0, 0}},
			"gap, other": {func(p *player) { p.play(pack, 1, 1, 50); p.Gap("lan"); p.play(pack, 1, 61, 100) }, [5]uint64{100, 10, 0, 0, 0}},
			"forged one": {func(p *player) { p.play(pack, 1, 1, 50); p.show(pack(1, 7e8)); p.play(pack, 1, 51, 100) }, [5]uint64{100, 0, 0, 0, 0}},
		} {
			peers := testPeers
			if name2 == "gap, other" {
				peers = []Peer{{Name: "p", Addrs: testPeers[0].Addrs, Interfaces: []string{"wan"}}}
			}
			p := &player{Observer: NewObserver(peers)}
			tc.play(p)
			c := p.Counts("p")
			if diff := cmp.Diff(tc.want, account(c.In.Sequence)); diff != "" {
				t.Errorf("%s, %s (-want +got):\n%s", name, name2, diff)
			}
			if n := account(c.Out.Sequence); n != ([5]uint64{}) {
				t.Errorf("%s, %s: out: %v", name, name2, n)
			}
			if sum := c.In.ESP.Packets + c.In.ESPInUDP.Packets + c.In.AH.Packets; sum != uint64(p.n) {
				t.Errorf("%s, %s: %d packets, want %d", name, name2, sum, p.n)
			}
		}
	}
}

func TestFlows(t *testing.T) {
	p := &player{Observer: NewObserver(testPeers)}
	p.play(espIn, 0x11, 1, 10, 4)
	p.play(espOut, 0x22, 1, 20)
	earlier := p.Counts("p")
	p.play(espOut, 0x22, 21, 30)
	p.play(espIn, 0x33, 1, 40, 8, 9)
	now := p.Counts("p")
	at := func(n int) time.Time { return epoch.Add(time.Duration(n) * time.Millisecond) }
	want := []evidence.ESPFlow{
		{
			SPI: 0x33, Inbound: true, Protocol: "esp", Traffic: evidence.Traffic{Packets: 38, Bytes: 3800},
			Sequence: evidence.Sequence{Expected: 40, Lost: 2}, Longest: 100, First: at(39), Last: at(76),
		},
		{
			SPI: 0x22, Protocol: "esp", Traffic: evidence.Traffic{Packets: 10, Bytes: 1000},
			Sequence: evidence.Sequence{Expected: 10}, Longest: 100, First: at(9), Last: at(38),
		},
	}
	got := now.Since(earlier, evidence.No)
	for i := range got.Flows {
		got.Flows[i].Sequence.Bursts = nil
	}
	if diff := cmp.Diff(want, got.Flows); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if s := got.In.Sequence; s.Expected != 40 || s.Lost != 2 {
		t.Errorf("in: %+v", s)
	}
	all := now.Since(Counts{}, evidence.No)
	if s := all.In.Sequence; s.Expected != 50 || s.Lost != 3 {
		t.Errorf("in, from the beginning: %+v", s)
	}
	if len(all.Flows) != 3 {
		t.Errorf("%d flows from the beginning", len(all.Flows))
	}
}

func TestBursts(t *testing.T) {
	p := &player{Observer: NewObserver(testPeers)}
	p.play(espIn, 1, 1, 3000, 10, 20, 21, 30, 31, 32)
	if got := p.Counts("p").In.Sequence.Bursts; len(got) < 3 || got[0] != 1 || got[1] != 2 {
		t.Errorf("bursts: %v, want 1 of one, 2 of two to three", got)
	}
}

// A flood of SPIs must not take what was counted of the flows in use, nor
// memory.
func TestFlood(t *testing.T) {
	p := &player{Observer: NewObserver(testPeers)}
	rnd := rand.New(rand.NewPCG(1, 2))
	const packets = 20_000
	for i := range uint32(packets) {
		if i%100 == 0 {
			p.show(espIn(1, i/100))
		}
		p.show(espIn(rnd.Uint32()|2, rnd.Uint32()))
	}
	c := p.Counts("p")
	if c.In.ESP.Packets != uint64(p.n) {
		t.Errorf("%d packets, want %d", c.In.ESP.Packets, p.n)
	}
	if c.In.Sequence.Expected != packets/100 || c.In.Sequence.Lost != 0 {
		t.Errorf("%+v", c.In.Sequence)
	}
	if c.Forgotten == 0 {
		t.Error("no SPI was forgotten")
	}
	// Flows of two packets each do become flows.
	for i := range uint32(packets) {
		p.show(espIn(i+10, 1))
		p.show(espIn(i+10, 2))
	}
	c = p.Counts("p")
	if len(c.flows) > maxFlowCounts {
		t.Errorf("%d flows in a reading", len(c.flows))
	}
	if c.In.Sequence.Expected < 2*packets*9/10 {
		t.Errorf("flows that left took their counts with them: %+v", c.In.Sequence)
	}
	if e := c.Since(Counts{}, evidence.No); len(e.Flows) != evidence.MaxFlows || e.Flows[0].SPI != 1 {
		t.Errorf("%d flows in the window", len(e.Flows))
	}
}

// A packet that passes both ways is one, and none of its numbers is a
// duplicate.
func TestTwinSequences(t *testing.T) {
	for name, way := range map[string][2]Frame{
		"one-armed router": {{}, {Outgoing: true}},
		"two interfaces":   {{Interface: "lan"}, {Interface: "wan", Outgoing: true}},
		"bond":             {{Interface: "eth0"}, {Interface: "bond0"}},
	} {
		p := &player{Observer: NewObserver(testPeers)}
		for seq := range uint32(100) {
			for _, p.frame = range way {
				p.show(espIn(1, seq+1))
			}
		}
		c := p.Counts("p")
		if got := account(c.In.Sequence); got != [5]uint64{100, 0, 0, 0, 0} || c.In.ESP.Packets != 100 {
			t.Errorf("%s: %v, %d packets", name, got, c.In.ESP.Packets)
		}
	}
}

// Totals only grow whatever becomes of the peers, and what was counted for
// another peer is not this one's.
func TestSequencesOfPeers(t *testing.T) {
	a := Peer{Name: "a", Addrs: []netip.Addr{peer4}}
	b := Peer{Name: "b", Addrs: []netip.Addr{peer4}}
	p := &player{Observer: NewObserver([]Peer{a})}
	check := func(what, name string, expected, lost uint64) {
		t.Helper()
		if s := p.Counts(name).In.Sequence; s.Expected != expected || s.Lost != lost {
			t.Errorf("%s: %s expected %d, lost %d; want %d, %d", what, name, s.Expected, s.Lost, expected, lost)
		}
	}
	p.play(espIn, 1, 1, 10, 5)
	check("alone", "a", 10, 1)
	p.SetPeers([]Peer{a, b})
	check("joined", "b", 0, 0)
	p.play(espIn, 1, 11, 20, 15)
	check("both", "a", 20, 2)
	check("both", "b", 10, 1)
	if e := p.Counts("b").Since(Counts{}, evidence.No); len(e.Flows) != 1 || e.Flows[0].Traffic.Packets != 9 {
		t.Errorf("flows of b: %+v", e.Flows)
	}
	a.Addrs = []netip.Addr{other4}
	p.SetPeers([]Peer{a, b})
	check("moved", "a", 20, 2)
	p.play(espIn, 1, 21, 30, 25)
	check("moved", "a", 20, 2)
	check("stayed", "b", 20, 2)
	a.Addrs = []netip.Addr{peer4}
	a.Interfaces = []string{"wan"}
	p.SetPeers([]Peer{a, b})
	check("back", "a", 20, 2)
	p.play(espIn, 1, 31, 40, 35)
	check("back", "a", 30, 3)
	check("back", "b", 30, 3)
	p.SetPeers([]Peer{b})
	check("gone", "a", 0, 0)
}

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
