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
