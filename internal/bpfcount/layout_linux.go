package bpfcount

import (
	"encoding/binary"
	"net/netip"
	"time"

	"vpnprobe/internal/wire/esp"
)

// The key of a flow: addresses, of IPv4 the first 4 bytes, SPI as in the
// packet, and what follows.
const (
	keySrc     = 0
	keyDst     = 16
	keySPI     = 32
	keyProto   = 36
	keyEncap   = 37
	keyOut     = 38
	keyFamily  = 39 // 4 or 6
	keyIfindex = 40
	keySize    = 44
)

// The key of a flow of IPv4 in a table of its own, as three numbers of 64 bits.
// A packet costs less with it than with the longer key: there is less to hash
// and to compare.
const (
	key4Addrs = 0  // the source as in the packet, and the destination in the upper half
	key4SPI   = 8  // as in the packet, and the interface in the upper half
	key4Proto = 16 // with encap, out and family, as in the longer key
	key4Size  = 24
)

// The value of a flow: an [esp.Cell], with what every packet changes in front.
const (
	cellPackets    = 0
	cellBytes      = 8
	cellWindow     = 16
	cellLast       = 24 // a count of ticks
	cellMax        = 32
	cellLongest    = 36
	cellStray      = 40
	cellPending    = 44
	cellFirst      = 48
	cellDepth      = 52
	cellStrays     = 56
	cellDuplicates = 64
	cellReordered  = 72
	cellJumps      = 80
	cellFragments  = 88 // three
	cellSize       = 112
)

// The key of the peers: the family and an address. That of the leaks has the
// prefix length before it, which counts from the family on.
const (
	peerSize   = 4 + 16
	prefixSize = 4 + peerSize
)

// The settings, one for all CPUs.
const (
	setLeaks = 0 // 1 if there are any
	setLimit = 4 // leaks per second and CPU to show
	setZero  = 8 // an empty cell, to begin flows with
	setTicks = setZero + cellSize
	setTime  = setTicks + 8 // CLOCK_MONOTONIC at that tick, in nanoseconds
	setSize  = setTime + 8
)

// The tallies, of each CPU.
const (
	tallyDrops  = 0  // frames that found the ring full
	tallySecond = 8  // when the second began that tallyShown is about
	tallyShown  = 16 // leaks
	tallySize   = 24
)

// The key of the totals: the peer's address, and what follows as in that of a
// flow. All zero stands for what passes through this host to a peer or from
// one, and for what goes to itself, which count on their other way.
const (
	sumAddr    = 0
	sumProto   = 16 // with encap, out and family
	sumIfindex = 20
	sumKeySize = 24
)

// The totals, of each CPU: what was counted in the table of fresh flows, and
// what moved on from there to the table of flows.
const (
	sumCreated      = 0 // flows
	sumPackets      = 8
	sumBytes        = 16
	sumMovedPackets = 24
	sumMovedBytes   = 32
	sumSize         = 40
)

// What comes before a frame in the ring buffer.
const (
	frameTime    = 0 // CLOCK_MONOTONIC, in nanoseconds
	frameIfindex = 8
	frameWire    = 12
	frameFlags   = 16
	frameHeader  = 24
)

// The flags of a frame.
const (
	flagOut  = 1
	flagLeak = 2
)

func appendPeer(b []byte, a netip.Addr) []byte {
	a = a.Unmap().WithZone("")
	family := uint32(6)
	if a.Is4() {
		family = 4
	}
	b = binary.NativeEndian.AppendUint32(b, family)
	return appendAddr(b, a)
}

func appendAddr(b []byte, a netip.Addr) []byte {
	var wide [16]byte
	copy(wide[:], a.AsSlice())
	return append(b, wide[:]...)
}

func appendPrefix(b []byte, p netip.Prefix) []byte {
	p = p.Masked()
	b = binary.NativeEndian.AppendUint32(b, uint32(32+p.Bits()))
	return appendPeer(b, p.Addr())
}

func addrOf(b []byte, family byte) netip.Addr {
	if family == 4 {
		return netip.AddrFrom4([4]byte(b))
	}
	return netip.AddrFrom16([16]byte(b))
}

func parseKey(b []byte) (ifindex int, k esp.Key) {
	family := b[keyFamily]
	return int(binary.NativeEndian.Uint32(b[keyIfindex:])), esp.Key{
		Src:      addrOf(b[keySrc:keyDst], family),
		Dst:      addrOf(b[keyDst:keySPI], family),
		SPI:      binary.BigEndian.Uint32(b[keySPI:]),
		Protocol: esp.Protocol(b[keyProto]),
		Encap:    b[keyEncap] != 0,
		Outgoing: b[keyOut] != 0,
	}
}

// long returns the key in the form of the other table.
func (s *rawKey4) long() (k rawKey) {
	addrs := binary.NativeEndian.Uint64(s[key4Addrs:])
	rest := binary.NativeEndian.Uint64(s[key4SPI:])
	put := func(at int, n uint64) { binary.NativeEndian.PutUint32(k[at:], uint32(n)) }
	put(keySrc, addrs)
	put(keyDst, addrs>>32)
	put(keySPI, rest)
	put(keyIfindex, rest>>32)
	put(keyProto, binary.NativeEndian.Uint64(s[key4Proto:]))
	return k
}

// short returns the key of a flow of IPv4 in the form of its table.
func (k *rawKey) short() (s rawKey4) {
	get := func(at int) uint64 { return uint64(binary.NativeEndian.Uint32(k[at:])) }
	binary.NativeEndian.PutUint64(s[key4Addrs:], get(keySrc)|get(keyDst)<<32)
	binary.NativeEndian.PutUint64(s[key4SPI:], get(keySPI)|get(keyIfindex)<<32)
	binary.NativeEndian.PutUint64(s[key4Proto:], get(keyProto))
	return s
}

// sumOf returns the key of the totals that a flow belongs to.
func (k *rawKey) sumOf() (s sumKey) {
	far := keySrc
	if k[keyOut] != 0 {
		far = keyDst
	}
	copy(s[sumAddr:], k[far:far+16])
	copy(s[sumProto:], k[keyProto:keyProto+4])
	copy(s[sumIfindex:], k[keyIfindex:])
	return s
}

// parse reads the key of totals. The address of this side is not in it.
func (s *sumKey) parse() (ifindex int, k esp.Key) {
	far := addrOf(s[sumAddr:sumProto], s[sumProto+keyFamily-keyProto])
	k = esp.Key{
		Protocol: esp.Protocol(s[sumProto]),
		Encap:    s[sumProto+keyEncap-keyProto] != 0,
		Outgoing: s[sumProto+keyOut-keyProto] != 0,
	}
	if k.Outgoing {
		k.Dst = far
	} else {
		k.Src = far
	}
	return int(binary.NativeEndian.Uint32(s[sumIfindex:])), k
}

// parseCell reads a cell. boot is the time at which the kernel's monotonic
// clock was zero.
func parseCell(b []byte, boot time.Time, t *ticks) esp.Sample {
	u64 := func(off int) uint64 { return binary.NativeEndian.Uint64(b[off:]) }
	u32 := func(off int) uint32 { return binary.NativeEndian.Uint32(b[off:]) }
	return esp.Sample{
		Packets:    u64(cellPackets),
		Bytes:      u64(cellBytes),
		First:      u32(cellFirst),
		Max:        u32(cellMax),
		Strays:     u64(cellStrays),
		Duplicates: u64(cellDuplicates),
		Reordered:  u64(cellReordered),
		Jumps:      u64(cellJumps),
		Depth:      u32(cellDepth),
		Longest:    u32(cellLongest),
		Fragments:  [3]uint64{u64(cellFragments), u64(cellFragments + 8), u64(cellFragments + 16)},
		Last:       boot.Add(t.at(u64(cellLast))),
	}
}
