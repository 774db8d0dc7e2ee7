package hoststate

import (
	"net/netip"
	"strings"

	"vpnprobe/evidence"
)

// flows are the packets of the connections through a tunnel, by which a rule
// is judged.
type flows struct {
	local, remote []netip.Prefix
	// towardsLocal and towardsRemote are the interfaces that lead there.
	towardsLocal, towardsRemote interfaces
	// intoTunnel is Yes when the remote side is reached through a tunnel
	// interface, whose packets are encrypted behind the rules, and No when a
	// policy picks them from those of another interface.
	intoTunnel evidence.Fact

	nameOf map[uint32]string // of interfaces, by their index, once asked for
}

// interfaces are names of interfaces.
type interfaces struct {
	names    []string
	complete bool // no prefix is missing
}

// hosts reports whether the local side is hosts alone, which this host may be
// itself: then what it sends is what goes through the tunnel.
func (f *flows) hosts() bool {
	for _, p := range f.local {
		if !p.IsSingleIP() {
			return false
		}
	}
	return len(f.local) > 0
}

// uses reports whether anything of an address family goes through the tunnel.
func (f *flows) uses(v6 bool) bool {
	if len(f.local)+len(f.remote) == 0 {
		return true
	}
	for _, ps := range [2][]netip.Prefix{f.local, f.remote} {
		for _, p := range ps {
			if p.Addr().Is6() == v6 {
				return true
			}
		}
	}
	return false
}

// The indices of meets.
const (
	ipv4 = iota
	ipv6

	outbound = 0 // from the local to the remote side
	inbound  = 1
)

// meets says which packets of a tunnel's connections a rule, or a way to it,
// is for: by address family and by direction.
type meets [2][2]evidence.Fact

// all are every packet.
func all() meets {
	return meets{{evidence.Yes, evidence.Yes}, {evidence.Yes, evidence.Yes}}
}

// ofFamily are the packets of one address family.
func ofFamily(v6 bool) meets {
	m := meets{{evidence.No, evidence.No}, {evidence.No, evidence.No}}
	if v6 {
		m[ipv6] = [2]evidence.Fact{evidence.Yes, evidence.Yes}
	} else {
		m[ipv4] = [2]evidence.Fact{evidence.Yes, evidence.Yes}
	}
	return m
}

// inDirections are packets by their direction alone.
func inDirections(out, in evidence.Fact) meets { return meets{{out, in}, {out, in}} }

// perhaps are an unknown part of all packets.
func perhaps() meets { return meets{} }

func none() meets { return inDirections(evidence.No, evidence.No) }

// and are the packets of both m and n, or those of either.
func (m meets) and(n meets) meets {
	for f := range m {
		for d := range m[f] {
			m[f][d] = both(m[f][d], n[f][d])
		}
	}
	return m
}

func (m meets) or(n meets) meets {
	return m.not().and(n.not()).not()
}

// not are the other packets.
func (m meets) not() meets {
	for f := range m {
		for d := range m[f] {
			m[f][d] = opposite(m[f][d])
		}
	}
	return m
}

// unless returns m, or what it is not of.
func (m meets) unless(negated bool) meets {
	if negated {
		return m.not()
	}
	return m
}

// covers says whether a clamp for these packets is one for the tunnel. One
// direction is enough: which of both ends' announcements a rule changes is for
// its writer to choose.
func (m meets) covers(f *flows) evidence.Fact {
	result := evidence.No
	for family := range m {
		if f.uses(family == ipv6) {
			result = either(result, m.of(family))
		}
	}
	return result
}

// of says so of one address family.
func (m meets) of(family int) evidence.Fact {
	return either(m[family][outbound], m[family][inbound])
}

func both(a, b evidence.Fact) evidence.Fact {
	switch {
	case a == evidence.No || b == evidence.No:
		return evidence.No
	case a == evidence.Yes && b == evidence.Yes:
		return evidence.Yes
	}
	return evidence.Unknown
}

func opposite(a evidence.Fact) evidence.Fact {
	switch a {
	case evidence.Yes:
		return evidence.No
	case evidence.No:
		return evidence.Yes
	}
	return evidence.Unknown
}

func either(a, b evidence.Fact) evidence.Fact {
	return opposite(both(opposite(a), opposite(b)))
}

// address are the packets whose source, or else destination, is within p.
func (f *flows) address(p netip.Prefix, source bool) meets {
	m := none()
	family := ipv4
	if p.Addr().Is6() {
		family = ipv6
	}
	from, to := within(f.local, p), within(f.remote, p)
	if !source {
		from, to = to, from
	}
	m[family] = [2]evidence.Fact{outbound: from, inbound: to}
	return m
}

// within says whether all prefixes of the family of p are in p: Unknown when
// only a part is, or none is declared.
func within(declared []netip.Prefix, p netip.Prefix) evidence.Fact {
	if p.Bits() == 0 {
		return evidence.Yes
	}
	inside, outside, partly := 0, 0, 0
	for _, d := range declared {
		switch {
		case d.Addr().Is6() != p.Addr().Is6():
		case p.Bits() <= d.Bits() && p.Contains(d.Addr()):
			inside++
		case p.Overlaps(d):
			partly++
		default:
			outside++
		}
	}
	switch {
	case inside > 0 && outside+partly == 0:
		return evidence.Yes
	case outside > 0 && inside+partly == 0:
		return evidence.No
	}
	return evidence.Unknown
}

// throughInterface are the packets that come in by an interface, or else go
// out by it. The name may end in an asterisk, for any that begins with it.
func (f *flows) throughInterface(name string, in bool) meets {
	out, back := f.towardsRemote.match(name), f.towardsLocal.match(name)
	if in {
		out, back = back, out
	}
	return inDirections(out, back)
}

func (i interfaces) match(name string) evidence.Fact {
	if name == "*" {
		return evidence.Yes
	}
	matching := 0
	for _, n := range i.names {
		if prefix, any := strings.CutSuffix(name, "*"); n == name || any && strings.HasPrefix(n, prefix) {
			matching++
		}
	}
	switch {
	case !i.complete || len(i.names) == 0:
		return evidence.Unknown
	case matching == len(i.names):
		return evidence.Yes
	case matching == 0:
		return evidence.No
	}
	return evidence.Unknown
}

// transformed are the packets that IPsec will encrypt, or else that it has
// decrypted. Behind a tunnel interface it is not known to the rules.
func (f *flows) transformed(out bool) meets {
	switch {
	case f.intoTunnel != evidence.No:
		return perhaps()
	case out:
		return inDirections(evidence.Yes, evidence.No)
	}
	return inDirections(evidence.No, evidence.Yes)
}

// announcing are the packets whose MSS is in a range: what hosts on Ethernet
// announce, with IPv6 and IPv4, stands for all.
func announcing(low, high int) meets {
	if low <= 1440 && high >= 1460 {
		return all()
	}
	return perhaps()
}
