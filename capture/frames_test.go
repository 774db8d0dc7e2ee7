package capture

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"slices"
)

// The addresses of the tests: this host, the peer, a neighbour of the peer that
// is none, and a router.
var (
	host4   = netip.MustParseAddr("203.0.113.2")
	peer4   = netip.MustParseAddr("198.51.100.2")
	other4  = netip.MustParseAddr("198.51.100.3")
	router4 = netip.MustParseAddr("192.0.2.1")
	host6   = netip.MustParseAddr("2001:db8:1::2")
	peer6   = netip.MustParseAddr("2001:db8:2::2")
	other6  = netip.MustParseAddr("2001:db8:3::2") // the last word is the peer's
	router6 = netip.MustParseAddr("2001:db8:4::1")
)

// header4 is an IPv4 header under construction.
type header4 struct {
	src, dst netip.Addr
	proto    uint8
	id       uint16
	frag     uint16 // flags and offset
	ttl      uint8
	options  int // bytes, a multiple of 4
	length   int // as stated, if not the real one
}

func (h header4) with(payload []byte) []byte {
	n := 20 + h.options
	b := make([]byte, n, n+len(payload))
	b[0] = 4<<4 | uint8(n/4)
	if h.length == 0 {
		h.length = n + len(payload)
	}
	binary.BigEndian.PutUint16(b[2:], uint16(h.length))
	binary.BigEndian.PutUint16(b[4:], h.id)
	binary.BigEndian.PutUint16(b[6:], h.frag)
	b[8] = h.ttl
	if h.ttl == 0 {
		b[8] = 64
	}
	b[9] = h.proto
	copy(b[12:], h.src.AsSlice())
	copy(b[16:], h.dst.AsSlice())
	for i := range h.options {
		b[20+i] = 1 // no operation
	}
	binary.BigEndian.PutUint16(b[10:], checksum(b))
	return append(b, payload...)
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

func ip4(src, dst netip.Addr, proto uint8, payload []byte) []byte {
	return header4{src: src, dst: dst, proto: proto}.with(payload)
}

func ip6(src, dst netip.Addr, proto uint8, payload []byte) []byte {
	b := make([]byte, 40, 40+len(payload))
	b[0] = 6 << 4
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	b[6], b[7] = proto, 64
	copy(b[8:], src.AsSlice())
	copy(b[24:], dst.AsSlice())
	return append(b, payload...)
}

// ext6 is an IPv6 extension header of 8 bytes, with no options.
func ext6(next uint8, payload []byte) []byte {
	return append([]byte{next, 0, 1, 4, 0, 0, 0, 0}, payload...)
}

// frag6 is an IPv6 fragment header; offset is in 8 bytes.
func frag6(next uint8, offset uint16, more bool, payload []byte) []byte {
	b := []byte{next, 0, 0, 0, 0, 0, 0, 7}
	v := offset << 3
	if more {
		v |= 1
	}
	binary.BigEndian.PutUint16(b[2:], v)
	return append(b, payload...)
}

func udp(src, dst uint16, data []byte) []byte {
	b := make([]byte, 8, 8+len(data))
	binary.BigEndian.PutUint16(b, src)
	binary.BigEndian.PutUint16(b[2:], dst)
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(data)))
	return append(b, data...)
}

// espPacket is an ESP packet with n bytes behind its header.
func espPacket(spi, seq uint32, n int) []byte {
	b := make([]byte, 8+n)
	binary.BigEndian.PutUint32(b, spi)
	binary.BigEndian.PutUint32(b[4:], seq)
	return b
}

func ikeMsg(version, exchange uint8) []byte {
	b := make([]byte, 28)
	copy(b, "initiate")
	b[17], b[18] = version, exchange
	b[27] = 28
	return b
}

func marked(msg []byte) []byte { return append([]byte{0, 0, 0, 0}, msg...) }

func icmp(typ, code uint8, quote []byte) []byte {
	b := append([]byte{typ, code, 0, 0, 0, 0, 0, 0}, quote...)
	binary.BigEndian.PutUint16(b[2:], checksum(b))
	return b
}

// eth is an Ethernet frame, with VLAN tags of the given types.
func eth(ip []byte, tags ...uint16) []byte {
	b := []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2}
	for i, t := range tags {
		b = binary.BigEndian.AppendUint16(b, t)
		b = append(b, 0, byte(i+1))
	}
	etherType := uint16(etherIPv4)
	if len(ip) > 0 && ip[0]>>4 == 6 {
		etherType = etherIPv6
	}
	b = binary.BigEndian.AppendUint16(b, etherType)
	return slices.Concat(b, ip)
}

// frameOf is an Ethernet frame, received at the epoch.
func frameOf(data []byte) Frame {
	return Frame{Data: data, Link: LinkEthernet, WireLen: len(data), Time: epoch}
}

// sent is an Ethernet frame that this host sent at the epoch.
func sent(ip []byte) Frame {
	f := frameOf(eth(ip))
	f.Outgoing = true
	return f
}

// received is an Ethernet frame that this host received at the epoch.
func received(ip []byte) Frame { return frameOf(eth(ip)) }

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func addrsFrom(n byte) []netip.Addr {
	return []netip.Addr{netip.AddrFrom4([4]byte{198, 18, 0, n}), netip.AddrFrom4([4]byte{198, 18, 1, n})}
}

// readPcap shows the frames of a recorded capture, as [PcapReader] reads them.
// Those before an error are shown.
func readPcap(r io.Reader, show func(Frame)) error {
	p := NewPcapReader(r)
	for {
		f, err := p.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("capture file: %w", err)
		}
		show(f)
	}
}
