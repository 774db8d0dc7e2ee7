package capture

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// subnet is a prefix in a form that is compared without allocating.
type subnet struct {
	prefix   netip.Prefix
	hi, lo   uint64 // of an IPv4 address, the last 32 bits
	mhi, mlo uint64
	last     uint32 // the broadcast address of an IPv4 subnet; 0 where there is none
	peers    []*peer
}

func newSubnet(p netip.Prefix) subnet {
	s := subnet{prefix: p}
	addr := p.Addr().AsSlice()
	s.hi, s.lo = halves(addr)
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
		if p.Bits() < 31 {
			s.last = binary.BigEndian.Uint32(addr) | 1<<(32-p.Bits()) - 1
		}
	}
	s.mhi, s.mlo = ^uint64(0)<<max(64-bits, 0), ^uint64(0)<<(128-bits) // Go shifts by 64 and more to 0
	return s
}

// halves returns an address as two words, without saying of which version.
func halves(addr []byte) (hi, lo uint64) {
	if len(addr) == 4 {
		return 0, uint64(binary.BigEndian.Uint32(addr))
	}
	return binary.BigEndian.Uint64(addr), binary.BigEndian.Uint64(addr[8:])
}

// subnets is a list of subnets, by the version of IP.
type subnets struct{ four, six []subnet }

// of returns those that an address may be in.
func (s *subnets) of(addr []byte) []subnet {
	if len(addr) == 4 {
		return s.four
	}
	return s.six
}

// match returns the length of the longest prefix that an address has, or -1.
func (s *subnets) match(addr []byte) int {
	hi, lo := halves(addr)
	list, longest := s.of(addr), -1
	for i := range list {
		if list[i].contains(hi, lo) {
			longest = max(longest, list[i].prefix.Bits())
		}
	}
	return longest
}

func (s *subnet) contains(hi, lo uint64) bool {
	return (hi^s.hi)&s.mhi|(lo^s.lo)&s.mlo == 0
}

func (s *subnets) add(p netip.Prefix) *subnet {
	list := &s.four
	if p.Addr().Is6() {
		list = &s.six
	}
	i := slices.IndexFunc(*list, func(n subnet) bool { return n.prefix == p })
	if i < 0 {
		i = len(*list)
		*list = append(*list, newSubnet(p))
	}
	return &(*list)[i]
}

// normalizePrefixes returns the valid prefixes in the form that their addresses
// have on the wire, each once.
func normalizePrefixes(list []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range list {
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		if p = p.Masked(); p.IsValid() && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}
