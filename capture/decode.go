package capture

import (
	"encoding/binary"

	"vpnprobe/internal/wire/ike"
)

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

// strip returns the offset of the IP header in a frame, and whether the link
// header itself says that the frame was outgoing.
func (l LinkType) strip(frame []byte) (offset int, outgoing, ok bool) {
	switch l {
	case LinkRaw, LinkIPv4, LinkIPv6:
		return 0, false, true
	case LinkNull, LinkLoop:
		return 4, false, len(frame) >= 4
	case LinkEthernet:
		offset, ok = etherPayload(frame, 12)
		return offset, false, ok
	case LinkSLL:
		// packet type (2), device type (2), address (2+8), protocol (2)
		if len(frame) < 16 {
			return 0, false, false
		}
		offset, ok = etherPayload(frame, 14)
		return offset, binary.BigEndian.Uint16(frame) == sllOutgoing, ok
	case LinkSLL2:
		// protocol (2), reserved (2), interface (4), device type (2),
		// packet type (1), address (1+8): tags, if any, follow the header
		if len(frame) < 20 {
			return 0, false, false
		}
		outgoing = frame[10] == sllOutgoing
		switch t := binary.BigEndian.Uint16(frame); {
		case t == etherIPv4 || t == etherIPv6:
			return 20, outgoing, true
		case isTag(t):
			offset, ok = etherPayload(frame, 22)
			return offset, outgoing, ok
		}
	}
	return 0, false, false
}

// sllOutgoing is LINUX_SLL_OUTGOING, the kernel's PACKET_OUTGOING.
const sllOutgoing = 4

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
}

// fragment reports whether p is a part of a packet (RFC 6946: an IPv6 packet
// with a fragment header may still be whole), later whether it is a part
// without the payload's beginning.
func (p *packet) fragment() bool { return p.offset != 0 || p.more }
func (p *packet) later() bool    { return p.offset != 0 }

// parse decodes an IP packet of which b was captured. wireLen is its length on
// the wire as far as the link knows, padding included.
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
	*p = packet{
		src:     b[12:16],
		dst:     b[16:20],
		payload: b[header:],
		length:  wireLength(int(binary.BigEndian.Uint16(b[2:])), header, wireLen),
		ident:   uint32(binary.BigEndian.Uint16(b[4:])),
		offset:  frag & 0x1fff,
		more:    frag&0x2000 != 0,
		proto:   b[9],
	}
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
	*p = packet{
		src:    b[8:24],
		dst:    b[24:40],
		length: wireLength(40+int(binary.BigEndian.Uint16(b[4:])), 40, wireLen),
		proto:  b[6],
	}
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

// kind is what an IP packet carries.
type kind uint8

const (
	kindNone kind = iota // nothing that is counted
	kindESP
	kindAH
	kindESPInUDP
	kindIKE
	kindKeepalive
	kindUDPFragment // of UDP, without the ports: IKE or ESP as it seems
)

const (
	portIKE  = 500
	portNATT = 4500

	espHeader = 8  // SPI and sequence number, RFC 4303 section 2
	ikeHeader = 28 // RFC 7296 section 3.1; in IKEv1 too, RFC 2408 section 3.1
)

// classify says what p carries and, for IKE, of which exchange.
func (p *packet) classify() (kind, exchange) {
	switch p.proto {
	case protoESP:
		return kindESP, 0
	case protoAH:
		return kindAH, 0
	case protoUDP:
		if p.later() {
			return kindUDPFragment, 0
		}
		return p.classifyUDP()
	}
	return kindNone, 0
}

func (p *packet) classifyUDP() (kind, exchange) {
	if len(p.payload) < 8 {
		return kindNone, 0
	}
	src := binary.BigEndian.Uint16(p.payload)
	dst := binary.BigEndian.Uint16(p.payload[2:])
	data := p.payload[8:]
	switch {
	case dst == portIKE || src == portIKE && dst != portNATT:
		return classifyIKE(data)
	case src != portNATT && dst != portNATT:
		return kindNone, 0
	}
	// RFC 3948, section 2: one byte FF is a keepalive; four zero bytes, which
	// no SPI can be, come before IKE; all else is ESP.
	switch {
	case len(data) == 1 && data[0] == 0xff:
		return kindKeepalive, 0
	case len(data) < espHeader:
		return kindNone, 0
	case binary.BigEndian.Uint32(data) == 0:
		return classifyIKE(data[4:])
	}
	return kindESPInUDP, 0
}

func classifyIKE(b []byte) (kind, exchange) {
	if len(b) < ikeHeader {
		return kindNone, 0
	}
	return kindIKE, exchangeOf(b[17]>>4, ike.ExchangeType(b[18]))
}
