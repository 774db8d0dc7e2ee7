package capture

import "encoding/binary"

// LinkType says what a frame begins with. The values are those of capture
// files (the LINKTYPE_ registry of tcpdump.org).
type LinkType uint32

// The link types that can be decoded.
const (
	LinkNull     LinkType = 0   // BSD loopback: 4 bytes of address family
	LinkEthernet LinkType = 1   // with up to two VLAN tags
	LinkRaw      LinkType = 101 // IPv4 or IPv6, by its version
	LinkLoop     LinkType = 108 // OpenBSD loopback, as LinkNull
	LinkSLL      LinkType = 113 // Linux cooked capture
	LinkIPv4     LinkType = 228
	LinkIPv6     LinkType = 229
	LinkSLL2     LinkType = 276 // Linux cooked capture, version 2
)

const (
	etherIPv4  = 0x0800
	etherIPv6  = 0x86dd
	etherVLAN  = 0x8100 // IEEE 802.1Q
	etherQinQ  = 0x88a8 // IEEE 802.1ad
	etherQinQ2 = 0x9100 // the same, before there was a standard

	maxTags = 2
)

// framing is what the link header of a frame tells.
type framing struct {
	offset   int    // of the IP header
	source   []byte // Ethernet address of the sender, or nil
	index    uint32 // of the interface, where frames of several come together
	hardware uint16 // type of the interface (ARPHRD_), likewise
	outgoing bool   // this host sent the frame
	group    bool   // it went to a multicast or broadcast address of the link
}

// strip reads the link header of a frame.
func (l LinkType) strip(frame []byte) (h framing, ok bool) {
	ok = h.read(l, frame)
	return h, ok
}

// read reads the link header of a frame into an empty h.
func (h *framing) read(l LinkType, frame []byte) (ok bool) {
	switch l {
	case LinkEthernet:
		if len(frame) < 14 {
			return false
		}
		h.group, h.source = frame[0]&1 != 0, frame[6:12]
		h.offset, ok = etherPayload(frame, 12)
		return ok
	case LinkRaw, LinkIPv4, LinkIPv6:
		return true
	case LinkNull, LinkLoop:
		h.offset = 4
		return len(frame) >= 4
	case LinkSLL:
		// packet type (2), device type (2), address (2+8), protocol (2)
		if len(frame) < 16 {
			return false
		}
		h.cooked(binary.BigEndian.Uint16(frame))
		h.hardware = binary.BigEndian.Uint16(frame[2:])
		h.offset, ok = etherPayload(frame, 14)
		return ok
	case LinkSLL2:
		// protocol (2), reserved (2), interface (4), device type (2),
		// packet type (1), address (1+8): tags, if any, follow the header
		if len(frame) < 20 {
			return false
		}
		h.cooked(uint16(frame[10]))
		h.index, h.hardware = binary.BigEndian.Uint32(frame[4:]), binary.BigEndian.Uint16(frame[8:])
		switch t := binary.BigEndian.Uint16(frame); {
		case t == etherIPv4 || t == etherIPv6:
			h.offset = 20
			return true
		case isTag(t):
			h.offset, ok = etherPayload(frame, 22)
			return ok
		}
	}
	return false
}

// Packet types of Linux cooked captures, which are the kernel's PACKET_ ones.
const (
	sllBroadcast = 1
	sllMulticast = 2
	sllOutgoing  = 4
)

func (h *framing) cooked(packetType uint16) {
	h.outgoing = packetType == sllOutgoing
	h.group = packetType == sllBroadcast || packetType == sllMulticast
}

// etherPayload follows VLAN tags from the EtherType at off on.
func etherPayload(frame []byte, off int) (int, bool) {
	for range maxTags + 1 {
		if off+2 > len(frame) {
			return 0, false
		}
		t := binary.BigEndian.Uint16(frame[off:])
		if t == etherIPv4 || t == etherIPv6 {
			return off + 2, true
		}
		if !isTag(t) {
			return 0, false
		}
		off += 4
	}
	return 0, false
}

func isTag(etherType uint16) bool {
	return etherType == etherVLAN || etherType == etherQinQ || etherType == etherQinQ2
}

// IP protocol numbers, as far as they matter here.
const (
	protoHopByHop = 0
	protoICMP     = 1
	protoUDP      = 17
	protoRouting  = 43
	protoFragment = 44
	protoESP      = 50
	protoAH       = 51
	protoICMPv6   = 58
	protoDestOpts = 60
)

// packet is a decoded IP header. Its slices are parts of the frame.
type packet struct {
	src, dst []byte // 4 or 16 bytes
	payload  []byte // what was captured of it
	length   uint64 // of the whole IP packet on the wire, in bytes
	ident    uint32 // the identification of IPv4, or of an IPv6 fragment
	offset   uint16 // of the fragment, in 8 bytes
	more     bool   // more fragments follow
	extended bool   // IPv6 with extension headers before the payload
	proto    uint8
	ttl      uint8 // or hop limit
}

// fragment reports whether p is a part of a packet (RFC 6946: an IPv6 packet
// with a fragment header may still be whole), later whether it is a part
// without the payload's beginning.
func (p *packet) fragment() bool { return p.offset != 0 || p.more }
func (p *packet) later() bool    { return p.offset != 0 }

// parse decodes an IP packet of which b was captured into an empty p. wireLen is
// its length on the wire as far as the link knows, padding included.
func (p *packet) parse(b []byte, wireLen int) bool {
	if len(b) == 0 {
		return false
	}
	switch b[0] >> 4 {
	case 4:
		return p.parse4(b, wireLen)
	case 6:
		return p.parse6(b, wireLen)
	}
	return false
}

// parse4 decodes the header of RFC 791, section 3.1.
func (p *packet) parse4(b []byte, wireLen int) bool {
	header := int(b[0]&0x0f) * 4
	if header < 20 || len(b) < header {
		return false
	}
	frag := binary.BigEndian.Uint16(b[6:])
	p.src, p.dst, p.payload = b[12:16], b[16:20], b[header:]
	p.length = wireLength(int(binary.BigEndian.Uint16(b[2:])), header, wireLen)
	p.ident = uint32(binary.BigEndian.Uint16(b[4:]))
	p.offset, p.more = frag&0x1fff, frag&0x2000 != 0
	p.proto, p.ttl = b[9], b[8]
	p.clip(header)
	return true
}

// maxExtensions bounds the chain of IPv6 extension headers. RFC 8200, section
// 4.1 allows each once, destination options twice.
const maxExtensions = 6

// parse6 decodes the headers of RFC 8200, sections 3 and 4.
func (p *packet) parse6(b []byte, wireLen int) bool {
	if len(b) < 40 {
		return false
	}
	p.src, p.dst = b[8:24], b[24:40]
	p.length = wireLength(40+int(binary.BigEndian.Uint16(b[4:])), 40, wireLen)
	p.proto, p.ttl = b[6], b[7]
	off := 40
	for range maxExtensions {
		var size int
		switch p.proto {
		default:
			p.payload = b[off:]
			p.clip(off)
			return true
		case protoHopByHop, protoRouting, protoDestOpts:
			if p.later() || off+2 > len(b) {
				return false
			}
			size = 8 + int(b[off+1])*8
		case protoFragment:
			if p.fragment() || off+8 > len(b) {
				return false
			}
			size = 8
			frag := binary.BigEndian.Uint16(b[off+2:])
			p.offset, p.more = frag>>3, frag&1 != 0
			p.ident = binary.BigEndian.Uint32(b[off+4:])
		}
		if off+size > len(b) {
			return false
		}
		p.proto = b[off]
		p.extended = true
		off += size
	}
	return false
}

// wireLength is the length that the header states, or the link's where the
// header cannot be right: 0 in packets that segmentation offload has yet to
// cut.
func wireLength(stated, header, wireLen int) uint64 {
	if stated <= header || stated > wireLen {
		return uint64(max(wireLen, 0))
	}
	return uint64(stated)
}

// clip takes what follows the packet in the frame, Ethernet's padding, from
// the payload.
func (p *packet) clip(header int) {
	if n := int(p.length) - header; n >= 0 && n < len(p.payload) {
		p.payload = p.payload[:n]
	}
}
