package ike

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// The types of traffic selectors (RFC 7296 section 3.13.1, IANA's registry).
const (
	TSIPv4AddrRange uint8 = 7
	TSIPv6AddrRange uint8 = 8
	TSFCAddrRange   uint8 = 9  // RFC 4595
	TSSecurityLabel uint8 = 10 // RFC 9478
)

// TrafficSelector is one selector of a Traffic Selector payload (RFC 7296
// section 3.13.1): the addresses, ports and protocol of packets.
type TrafficSelector struct {
	Protocol           uint8  // 0 is any
	StartPort, EndPort uint16 // 0 to 65535 is any; 65535 to 0 means "not visible"
	Start, End         netip.Addr
	// Raw is the whole selector, from its type on, when it is not a range of
	// IP addresses; all other fields are zero then.
	Raw []byte
}

const (
	selectorHeaderLen = 4
	selectorPortsLen  = 4
)

// ParseTS reads the body of a Traffic Selector payload.
func ParseTS(body []byte) ([]TrafficSelector, error) {
	const fixed = 4
	if len(body) < fixed {
		return nil, errors.New("traffic selectors shorter than 4 bytes")
	}
	n := int(body[0])
	if body = body[fixed:]; n*selectorHeaderLen > len(body) {
		return nil, fmt.Errorf("%d traffic selectors in %d bytes", n, len(body))
	}
	list := make([]TrafficSelector, n)
	for i := range list {
		if len(body) < selectorHeaderLen {
			return nil, fmt.Errorf("traffic selector %d: %d bytes left", i+1, len(body))
		}
		size := int(binary.BigEndian.Uint16(body[2:]))
		if size < selectorHeaderLen || size > len(body) {
			return nil, fmt.Errorf("traffic selector %d: length %d with %d bytes left", i+1, size, len(body))
		}
		var err error
		if list[i], err = parseSelector(body[:size:size]); err != nil {
			return nil, fmt.Errorf("traffic selector %d: %w", i+1, err)
		}
		body = body[size:]
	}
	if len(body) != 0 {
		return nil, errors.New("bytes behind the last traffic selector")
	}
	return list, nil
}

func parseSelector(b []byte) (TrafficSelector, error) {
	var size int // of an address
	switch b[0] {
	case TSIPv4AddrRange:
		size = 4
	case TSIPv6AddrRange:
		size = 16
	default:
		return TrafficSelector{Raw: b}, nil
	}
	if want := selectorHeaderLen + selectorPortsLen + 2*size; len(b) != want {
		return TrafficSelector{}, fmt.Errorf("length %d, where its type has %d", len(b), want)
	}
	s := TrafficSelector{
		Protocol:  b[1],
		StartPort: binary.BigEndian.Uint16(b[4:]),
		EndPort:   binary.BigEndian.Uint16(b[6:]),
	}
	b = b[selectorHeaderLen+selectorPortsLen:]
	s.Start, _ = netip.AddrFromSlice(b[:size])
	s.End, _ = netip.AddrFromSlice(b[size:])
	return s, nil
}

// TS returns the selectors as a payload of the given type, [PayloadTSi] or
// [PayloadTSr]. It panics when there are more than 255.
func TS(t PayloadType, list []TrafficSelector) Payload {
	b := []byte{length8("traffic selectors", len(list)), 0, 0, 0}
	for _, s := range list {
		b = s.append(b)
	}
	return Payload{Type: t, Body: b}
}

func (s TrafficSelector) append(b []byte) []byte {
	if s.Raw != nil {
		return append(b, s.Raw...)
	}
	v4 := s.Start.Is4() && s.End.Is4()
	typ, size := TSIPv6AddrRange, 16
	if v4 {
		typ, size = TSIPv4AddrRange, 4
	}
	b = append(b, typ, s.Protocol)
	b = binary.BigEndian.AppendUint16(b, uint16(selectorHeaderLen+selectorPortsLen+2*size))
	b = binary.BigEndian.AppendUint16(b, s.StartPort)
	b = binary.BigEndian.AppendUint16(b, s.EndPort)
	for _, a := range [2]netip.Addr{s.Start, s.End} {
		if v4 {
			b4 := a.As4()
			b = append(b, b4[:]...)
		} else {
			b16 := a.As16()
			b = append(b, b16[:]...)
		}
	}
	return b
}

// SelectorOf returns the selector of all packets to or from the addresses of
// p.
func SelectorOf(p netip.Prefix) TrafficSelector {
	p = p.Masked()
	return TrafficSelector{EndPort: 0xffff, Start: p.Addr(), End: lastOf(p)}
}

// lastOf returns the highest address of a masked prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := range b {
		if n := p.Bits() - 8*i; n < 8 {
			b[i] |= 0xff >> max(n, 0)
		}
	}
	last, _ := netip.AddrFromSlice(b)
	return last
}

// Prefix returns the selector's addresses, and false when they are not just
// those of a prefix.
func (s TrafficSelector) Prefix() (netip.Prefix, bool) {
	if !s.Start.IsValid() {
		return netip.Prefix{}, false
	}
	for bits := range s.Start.BitLen() + 1 {
		p, err := s.Start.Prefix(bits)
		if err == nil && p.Addr() == s.Start && lastOf(p) == s.End {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// String returns the selector in the notation of the daemons, such as
// "10.1.0.0/16", "10.1.0.1-10.1.0.9[6]" or "10.1.0.0/16[17/53]", with the
// numbers of protocol and ports.
func (s TrafficSelector) String() string {
	if s.Raw != nil {
		return fmt.Sprintf("TS_%d", s.Raw[0])
	}
	text := fmt.Sprintf("%v-%v", s.Start, s.End)
	if p, ok := s.Prefix(); ok {
		text = p.String()
	}
	ports := ""
	switch {
	case s.StartPort == 0 && s.EndPort == 0xffff:
		if s.Protocol == 0 {
			return text
		}
	case s.StartPort == s.EndPort:
		ports = fmt.Sprintf("/%d", s.StartPort)
	default:
		ports = fmt.Sprintf("/%d-%d", s.StartPort, s.EndPort)
	}
	return fmt.Sprintf("%s[%d%s]", text, s.Protocol, ports)
}
