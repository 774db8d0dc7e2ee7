package hoststate

import (
	"net/netip"

	"vpnprobe/evidence"
)

// flowsOf asks the kernel which interfaces lead to the prefixes.
func (r *Reader) flowsOf(local, remote []netip.Prefix) *flows {
	f := &flows{local: unmapped(local), remote: unmapped(remote)}
	f.towardsLocal, _ = r.leadingTo(f.local)
	f.towardsRemote, f.intoTunnel = r.leadingTo(f.remote)
	return f
}

func unmapped(prefixes []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range prefixes {
		if !p.IsValid() {
			continue
		}
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		out = append(out, p.Masked())
	}
	return out
}

// mostLookups bounds how many prefixes are looked up: a hub may have thousands.
const mostLookups = 32

func (r *Reader) leadingTo(prefixes []netip.Prefix) (i interfaces, tunnel evidence.Fact) {
	i.complete = len(prefixes) <= mostLookups
	for n, p := range prefixes[:min(len(prefixes), mostLookups)] {
		route := r.routeInto(p)
		if route.Kind != evidence.RouteUnicast || route.Interface == "" {
			i.complete = false
			continue
		}
		i.names = append(i.names, route.Interface)
		if n == 0 {
			tunnel = route.Tunnel
		} else if tunnel != route.Tunnel {
			tunnel = evidence.Unknown
		}
	}
	if !i.complete {
		tunnel = evidence.Unknown
	}
	return i, tunnel
}

// routeInto returns the route to an address of the prefix that is not this
// host's own, nor the address of the network itself, which may be special.
func (r *Reader) routeInto(p netip.Prefix) (route evidence.Route) {
	if p.Bits() == 0 {
		return route // no address stands for all of them
	}
	a := p.Addr()
	if !p.IsSingleIP() {
		a = a.Next()
	}
	for tries := 0; tries < 3 && p.Contains(a); tries++ {
		if route = r.Route(a, netip.Addr{}, ""); route.Kind != evidence.RouteLocal {
			break
		}
		a = a.Next()
	}
	return route
}

// interfaceName returns the name of the interface of that index, or "".
func (f *flows) interfaceName(index uint32) string {
	name, known := f.nameOf[index]
	if !known && len(f.nameOf) < mostLookups {
		l, _ := getLink(linkByIndex(index))
		if name = l.name; f.nameOf == nil {
			f.nameOf = make(map[uint32]string)
		}
		f.nameOf[index] = name
	}
	return name
}
