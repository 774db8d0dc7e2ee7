package capture

import (
	"bytes"
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// Pair is two hosts that exchanged IPsec traffic: ESP, AH or IKE. The address
// of A is below that of B.
type Pair struct {
	A, B Side
}

// Side is one end of a [Pair].
type Side struct {
	Addr netip.Addr
	// Sent counts the packets that this end sent; OnItsWayOut those of them that
	// the capturing host sent, as far as the capture tells.
	Sent, OnItsWayOut uint64
}

// Packets returns the number of packets in both directions.
func (p Pair) Packets() uint64 { return p.A.Sent + p.B.Sent }

// Survey finds out who speaks IPsec with whom in a capture of which nothing is
// known. It keeps the busiest pairs, in fixed memory.
type Survey struct {
	pairs    map[[2]netip.Addr]*Pair
	directed bool // the capture tells directions
	left     uint64
	frames   uint64
	began    time.Time
}

// maxPairs is how many pairs a survey keeps. When there are more, one makes room
// that nobody would miss, so that a flood of forged addresses displaces only
// what is about as rare.
const maxPairs = 64

// Packet takes note of one frame.
func (s *Survey) Packet(f Frame) {
	if s.frames == 0 {
		s.began = f.Time
	}
	s.frames++
	h, ok := f.Link.strip(f.Data)
	out := h.outgoing || f.Outgoing
	s.directed = s.directed || out
	if !ok {
		return
	}
	var p packet
	if !p.parse(f.Data[h.offset:], max(f.WireLen, len(f.Data))-h.offset) || p.later() || bytes.Equal(p.src, p.dst) {
		return
	}
	switch k, _ := p.classify(); k {
	case kindESP, kindAH, kindESPInUDP, kindIKE, kindKeepalive:
	default:
		return
	}
	src, _ := netip.AddrFromSlice(p.src)
	dst, _ := netip.AddrFromSlice(p.dst)
	pair := s.pair(src, dst)
	from := &pair.A
	if src == pair.B.Addr {
		from = &pair.B
	}
	from.Sent++
	if out {
		from.OnItsWayOut++
	}
}

func (s *Survey) pair(a, b netip.Addr) *Pair {
	if b.Less(a) {
		a, b = b, a
	}
	key := [2]netip.Addr{a, b}
	p := s.pairs[key]
	if p != nil {
		return p
	}
	if s.pairs == nil {
		s.pairs = map[[2]netip.Addr]*Pair{}
	}
	if len(s.pairs) == maxPairs {
		s.makeRoom()
	}
	p = &Pair{A: Side{Addr: a}, B: Side{Addr: b}}
	s.pairs[key] = p
	return p
}

// makeRoom forgets a pair: one where nobody answers rather than others, and of
// those one with the fewest packets, at random.
func (s *Survey) makeRoom() {
	answered := func(p *Pair) int { return int(min(p.A.Sent, p.B.Sent, 1)) }
	var least *Pair
	for _, p := range s.pairs {
		if least == nil || cmp.Or(cmp.Compare(answered(p), answered(least)), cmp.Compare(p.Packets(), least.Packets())) < 0 {
			least = p
		}
	}
	delete(s.pairs, [2]netip.Addr{least.A.Addr, least.B.Addr})
	s.left++
}

// busier orders pairs: the one with more packets first.
func busier(a, b Pair) int {
	return cmp.Or(cmp.Compare(b.Packets(), a.Packets()), a.A.Addr.Compare(b.A.Addr), a.B.Addr.Compare(b.B.Addr))
}

// Pairs returns the pairs, the busiest first.
func (s *Survey) Pairs() []Pair {
	out := make([]Pair, 0, len(s.pairs))
	for _, p := range s.pairs {
		out = append(out, *p)
	}
	slices.SortFunc(out, busier)
	return out
}

// Left returns how many pairs found no room.
func (s *Survey) Left() uint64 { return s.left }

// Frames returns how many frames were shown, of whatever kind.
func (s *Survey) Frames() uint64 { return s.frames }

// Began returns the time of the first frame.
func (s *Survey) Began() time.Time { return s.began }

// Ours returns which end of the pair the capturing host is, as far as the
// directions in the capture tell: the end whose packets went out and to which
// none did. A host between the two sees the packets of both go out.
func (s *Survey) Ours(p Pair) (ours netip.Addr, ok bool) {
	if !s.directed {
		return netip.Addr{}, false
	}
	a, b := p.A.OnItsWayOut > 0, p.B.OnItsWayOut > 0
	switch {
	case a && !b:
		return p.A.Addr, true
	case b && !a:
		return p.B.Addr, true
	case !a && p.A.Sent > 0 && p.B.Sent == 0:
		return p.B.Addr, true // only what came in was seen
	case !b && p.B.Sent > 0 && p.A.Sent == 0:
		return p.A.Addr, true
	}
	return netip.Addr{}, false
}
