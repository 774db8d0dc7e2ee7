package pmtu

import (
	"encoding/binary"
	"net/netip"

	"vpnprobe/evidence"
)

// quote is what an ICMP error quotes of a packet: its IP header, as it was
// when it met the hop, and what followed.
type quote struct {
	length   int // of the IP packet in bytes; 0 when there is no quote
	df       bool
	fragment bool // of a packet, not the whole
	protocol uint8
	src, dst netip.Addr
	payload  []byte // from the transport's header on; maybe cut off
}

// cleared says whether the packet had lost its DF bit, or was no longer whole;
// Unknown when the quote is of a packet so small that nobody would.
func (q quote) cleared() evidence.Fact {
	const small = minMTU4
	switch {
	case q.length == 0:
		return evidence.Unknown
	case q.fragment || !q.df:
		return evidence.Yes
	case q.length <= small:
		return evidence.Unknown
	}
	return evidence.No
}

const (
	headerLen4     = 20 // without options
	headerLen6     = 40
	fragmentLen6   = 8 // the IPv6 fragment header
	icmpHeaderLen  = 8
	protoICMP      = 1
	protoICMP6     = 58
	protoFragment6 = 44
)

// parseError reads an ICMP error: of IPv4 a whole IP packet, of IPv6 what
// follows the header, as raw sockets deliver them. It returns false for what is
// no error about a first or only fragment.
func parseError(b []byte, v6 bool) (typ, code uint8, mtu int, q quote, ok bool) {
	if !v6 {
		if len(b) < headerLen4 || b[0]>>4 != 4 || b[9] != protoICMP {
			return 0, 0, 0, quote{}, false
		}
		n := int(b[0]&0x0f) * 4
		if n < headerLen4 || len(b) < n {
			return 0, 0, 0, quote{}, false
		}
		b = b[n:]
	}
	if len(b) < icmpHeaderLen {
		return 0, 0, 0, quote{}, false
	}
	typ, code = b[0], b[1]
	switch {
	case v6 && typ == 2:
		// More than any packet has is not worth an overflow on 32 bits.
		mtu = int(min(binary.BigEndian.Uint32(b[4:]), 1<<30))
	case !v6 && typ == 3 && code == 4:
		mtu = int(binary.BigEndian.Uint16(b[6:])) // RFC 1191 section 4
	}
	if v6 {
		q, ok = parseQuote6(b[icmpHeaderLen:])
	} else {
		q, ok = parseQuote4(b[icmpHeaderLen:])
	}
	return typ, code, mtu, q, ok
}

func parseQuote4(b []byte) (quote, bool) {
	if len(b) < headerLen4 || b[0]>>4 != 4 {
		return quote{}, false
	}
	n := int(b[0]&0x0f) * 4
	if n < headerLen4 || len(b) < n {
		return quote{}, false
	}
	const dontFragment, moreFragments, offsetMask = 0x4000, 0x2000, 0x1fff
	flags := binary.BigEndian.Uint16(b[6:])
	q := quote{
		length:   int(binary.BigEndian.Uint16(b[2:])),
		df:       flags&dontFragment != 0,
		fragment: flags&(moreFragments|offsetMask) != 0,
		protocol: b[9],
		src:      netip.AddrFrom4([4]byte(b[12:16])),
		dst:      netip.AddrFrom4([4]byte(b[16:20])),
		payload:  b[n:],
	}
	return q, flags&offsetMask == 0 && q.length >= n
}

// parseQuote6 knows no extension header but that of fragments: our probes have
// no other.
func parseQuote6(b []byte) (quote, bool) {
	if len(b) < headerLen6 || b[0]>>4 != 6 {
		return quote{}, false
	}
	q := quote{
		length:   headerLen6 + int(binary.BigEndian.Uint16(b[4:])),
		df:       true, // as all of IPv6
		protocol: b[6],
		src:      netip.AddrFrom16([16]byte(b[8:24])),
		dst:      netip.AddrFrom16([16]byte(b[24:40])),
		payload:  b[headerLen6:],
	}
	if q.protocol == protoFragment6 {
		if len(q.payload) < fragmentLen6 {
			return quote{}, false
		}
		const offsetMask = 0xfff8
		if binary.BigEndian.Uint16(q.payload[2:])&offsetMask != 0 {
			return quote{}, false
		}
		q.fragment, q.protocol, q.payload = true, q.payload[0], q.payload[fragmentLen6:]
	}
	return q, true
}
