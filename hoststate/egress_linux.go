package hoststate

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// maxRoutes is how many routes of a table Egresses looks at. A router with the
// routes of the whole Internet has a million of them; there, only the next hops
// of the one route that covers the gateway are told.
const maxRoutes = 1 << 12

// Egresses returns the names of the interfaces by which the kernel could send
// to a gateway from a source (an invalid one leaves that to the kernel): those
// of all next hops of the route that covers it, of the routes in the same table
// for the same prefix with another metric, which take over when that one goes,
// and of the routes that cover it best in other tables, where rules by mark or
// source may send some of its packets.
//
// The error wraps unix.ENETUNREACH, unix.EACCES, unix.EINVAL or
// unix.EHOSTUNREACH when there is no such route.
func (*Reader) Egresses(gateway, source netip.Addr) ([]string, error) {
	gateway, source = gateway.Unmap(), source.Unmap()
	request, err := routeRequest(gateway, source, "")
	if err != nil {
		return nil, err
	}
	// The answer is the route as it is in the table, with all its next hops.
	// A kernel that does not know the flag tells what the route means for this
	// one destination: one next hop.
	binary.NativeEndian.PutUint32(request[8:], unix.RTM_F_FIB_MATCH|unix.RTM_F_LOOKUP_TABLE)
	var found tableRoute
	err = query(unix.NETLINK_ROUTE, unix.RTM_GETROUTE, 0, request, func(b []byte) bool {
		found = parseTableRoute(b)
		return false
	})
	if err != nil {
		return nil, fmt.Errorf("ask for the routes to %s: %w", gateway, err)
	}
	hops := found.hops
	more, err := alternatives(found, gateway)
	if err != nil {
		return nil, fmt.Errorf("list the routes to %s: %w", gateway, err)
	}
	for _, h := range more {
		if !slices.Contains(hops, h) {
			hops = append(hops, h)
		}
	}
	var names []string
	for _, h := range hops {
		if l, err := getLink(linkByIndex(h)); err == nil && !slices.Contains(names, l.name) {
			names = append(names, l.name)
		}
	}
	return names, nil
}

// tableRoute is a route of a table.
type tableRoute struct {
	family, length uint8  // of the destination's prefix
	prefix         []byte // without it, the default route
	table          uint32
	cached         bool     // what was learned of one destination: not in the table
	hops           []uint32 // interfaces
}

// prefixOf returns the destination of the route, in the family of an address.
func (r tableRoute) prefixOf(a netip.Addr) netip.Prefix {
	b := make([]byte, a.BitLen()/8)
	copy(b, r.prefix)
	dst, _ := netip.AddrFromSlice(b)
	return netip.PrefixFrom(dst, int(r.length))
}

// alternatives returns the interfaces of the other routes for the packets of
// one, and of those that cover the gateway best in each other table.
func alternatives(want tableRoute, gateway netip.Addr) ([]uint32, error) {
	request := make([]byte, unix.SizeofRtMsg)
	request[0] = want.family
	best := map[uint32][]tableRoute{} // by table
	n := 0
	err := query(unix.NETLINK_ROUTE, unix.RTM_GETROUTE, unix.NLM_F_DUMP, request, func(b []byte) bool {
		r := parseTableRoute(b)
		n++
		if r.family != want.family || r.cached || r.table == unix.RT_TABLE_LOCAL || !r.prefixOf(gateway).Contains(gateway) {
			return n < maxRoutes
		}
		switch old := best[r.table]; {
		case r.table == want.table && (r.length != want.length || !bytes.Equal(r.prefix, want.prefix)):
		case len(old) == 0 || old[0].length == r.length:
			best[r.table] = append(old, r)
		case old[0].length < r.length:
			best[r.table] = []tableRoute{r}
		}
		return n < maxRoutes
	})
	if n >= maxRoutes {
		return nil, nil // as if there were none
	}
	var hops []uint32
	for _, table := range slices.Sorted(maps.Keys(best)) {
		for _, r := range best[table] {
			hops = append(hops, r.hops...)
		}
	}
	return hops, err
}

// parseTableRoute reads a struct rtmsg and its attributes (linux/rtnetlink.h).
func parseTableRoute(b []byte) tableRoute {
	if len(b) < unix.SizeofRtMsg {
		return tableRoute{}
	}
	r := tableRoute{family: b[0], length: b[1], table: uint32(b[4])}
	r.cached = binary.NativeEndian.Uint32(b[8:])&unix.RTM_F_CLONED != 0
	for kind, value := range attributes(b[unix.SizeofRtMsg:]) {
		switch kind {
		case unix.RTA_DST:
			r.prefix = bytes.Clone(value)
		case unix.RTA_TABLE: // rtm_table has room for 8 bits of it
			r.table = uint32Of(value)
		case unix.RTA_OIF:
			r.hops = append(r.hops, uint32Of(value))
		case unix.RTA_MULTIPATH:
			r.hops = append(r.hops, nextHops(value)...)
		}
	}
	return r
}

// nextHops returns the interfaces of a list of struct rtnexthop, which have a
// header of 8 bytes and attributes behind it.
func nextHops(b []byte) []uint32 {
	const header = unix.SizeofRtNexthop
	var out []uint32
	for len(b) >= header {
		n := int(binary.NativeEndian.Uint16(b))
		if n < header || n > len(b) {
			break
		}
		out = append(out, binary.NativeEndian.Uint32(b[4:]))
		b = b[min(align(n), len(b)):]
	}
	return out
}
