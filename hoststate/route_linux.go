package hoststate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"vpnprobe/evidence"
)

// Route asks the kernel how a packet from src to dst would leave. An invalid
// src leaves the choice of the source to the kernel.
//
// With an iface the answer is for a socket bound to it; then the kernel takes
// a destination that no route covers, or that an IPv4 route rejects, to be
// on-link (net/ipv4/route.c, ip_route_output_key_hash_rcu). To learn what this
// host does by itself, as for its IKE daemon, leave iface empty.
func (*Reader) Route(dst, src netip.Addr, iface string) evidence.Route {
	dst, src = dst.Unmap(), src.Unmap()
	request, err := routeRequest(dst, src, iface)
	if err != nil {
		return evidence.Route{CannotLook: err.Error()}
	}
	var found foundRoute
	err = query(unix.NETLINK_ROUTE, unix.RTM_GETROUTE, 0, request, func(b []byte) bool {
		found = parseRoute(b)
		return false
	})
	if err != nil && src.IsValid() {
		// The kernel rejects a source that is not ours with the errors of a
		// blackhole or a missing route, depending on its version.
		if own, err := SourceOnHost(src); err == nil && !own {
			return evidence.Route{CannotLook: fmt.Sprintf("ask for the route to %s: the source %s is not on this host", dst, src)}
		}
	}
	if kind, ok := rejection(err); ok {
		return evidence.Route{Kind: kind, Tunnel: evidence.No}
	}
	if err == nil && found.kind == "" {
		err = errMalformed
	}
	if err != nil {
		return evidence.Route{CannotLook: fmt.Sprintf("ask for the route to %s: %v", dst, err)}
	}
	return describeRoute(found, dst, src)
}

// describeRoute adds what the interface and the neighbour table know.
func describeRoute(found foundRoute, dst, src netip.Addr) evidence.Route {
	route := evidence.Route{Kind: found.kind}
	if found.source.IsValid() {
		route.Source = evidence.Some(found.source)
	} else if src.IsValid() {
		route.Source = evidence.Some(src)
	}
	hop := dst
	if found.nextHop.IsValid() {
		hop = found.nextHop
		route.NextHop = evidence.Some(hop)
	}
	if l, err := getLink(linkByIndex(found.ifindex)); err == nil {
		route.Interface = l.name
		route.Tunnel = l.tunnel()
	}
	if found.kind == evidence.RouteUnicast {
		route.Neighbour = neighbourResolved(hop.WithZone(""), found.ifindex)
	}
	return route
}

// rejection returns the kind of route that answers a lookup with err
// (net/ipv4/fib_semantics.c, fib_props; net/ipv6/route.c, fib6_prop).
func rejection(err error) (evidence.RouteKind, bool) {
	switch err {
	case unix.ENETUNREACH:
		return evidence.RouteNone, true
	case unix.EACCES:
		return evidence.RouteProhibit, true
	case unix.EINVAL:
		return evidence.RouteBlackhole, true
	case unix.EHOSTUNREACH:
		return evidence.RouteUnreachable, true
	}
	return "", false
}

// routeRequest builds a struct rtmsg (linux/rtnetlink.h) and its attributes.
// The zone of a link-local dst names an interface like iface does.
func routeRequest(dst, src netip.Addr, iface string) ([]byte, error) {
	if !dst.IsValid() {
		return nil, errors.New("ask for a route: no destination given")
	}
	if src.IsValid() && src.Is4() != dst.Is4() {
		return nil, fmt.Errorf("ask for the route to %s: the source %s is of the other address family", dst, src)
	}
	b := make([]byte, unix.SizeofRtMsg)
	b[0] = family(dst)
	b[1] = uint8(dst.BitLen()) // rtm_dst_len
	if src.IsValid() {
		b[2] = uint8(src.BitLen()) // rtm_src_len
	}
	b = appendAttribute(b, unix.RTA_DST, dst.AsSlice())
	if src.IsValid() {
		b = appendAttribute(b, unix.RTA_SRC, src.AsSlice())
	}
	if iface == "" {
		iface = dst.Zone()
	}
	if iface != "" {
		l, err := getLink(linkByName(iface))
		if err != nil {
			return nil, fmt.Errorf("ask for the route to %s on interface %s: %w", dst, iface, err)
		}
		b = appendAttribute(b, unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, l.index))
	}
	return b, nil
}

type foundRoute struct {
	kind    evidence.RouteKind // "" for a message too short to be a route
	ifindex uint32
	nextHop netip.Addr // invalid when on-link
	source  netip.Addr
}

func parseRoute(b []byte) foundRoute {
	if len(b) < unix.SizeofRtMsg {
		return foundRoute{}
	}
	found := foundRoute{kind: evidence.RouteUnicast} // also broadcast, multicast and anycast: it leaves by an interface
	if b[7] == unix.RTN_LOCAL {                      // rtm_type
		found.kind = evidence.RouteLocal
	}
	for kind, value := range attributes(b[unix.SizeofRtMsg:]) {
		switch kind {
		case unix.RTA_OIF:
			found.ifindex = uint32Of(value)
		case unix.RTA_GATEWAY:
			found.nextHop = addressOf(value)
		case unix.RTA_VIA: // struct rtvia: a next hop of the other family
			if len(value) > 2 {
				found.nextHop = addressOf(value[2:])
			}
		case unix.RTA_PREFSRC:
			found.source = addressOf(value)
		}
	}
	return found
}

// neighbourResolved asks for one entry of the neighbour table (Linux 5.0 and
// later answer this; before, and where there is no entry, the answer is
// Unknown).
func neighbourResolved(addr netip.Addr, ifindex uint32) evidence.Fact {
	request := make([]byte, unix.SizeofNdMsg) // struct ndmsg of linux/neighbour.h
	request[0] = family(addr)
	binary.NativeEndian.PutUint32(request[4:], ifindex)
	request = appendAttribute(request, unix.NDA_DST, addr.AsSlice())
	resolved := evidence.Unknown
	err := query(unix.NETLINK_ROUTE, unix.RTM_GETNEIGH, 0, request, func(b []byte) bool {
		resolved = parseNeighbour(b)
		return false
	})
	if err != nil {
		return evidence.Unknown
	}
	return resolved
}

// unansweredLong is how long an address must have been asked for in vain to
// call its resolution failed. While packets keep coming the kernel starts over
// as soon as it has given up, so "failed" alone is rarely seen: most readings
// meet a further attempt (net/core/neighbour.c). A healthy link answers in
// milliseconds, and the kernel repeats its question each second.
const unansweredLong = time.Second

func parseNeighbour(b []byte) evidence.Fact {
	if len(b) < unix.SizeofNdMsg {
		return evidence.Unknown
	}
	switch binary.NativeEndian.Uint16(b[8:]) { // ndm_state
	case unix.NUD_REACHABLE, unix.NUD_STALE, unix.NUD_DELAY, unix.NUD_PROBE, unix.NUD_PERMANENT:
		return evidence.Yes
	case unix.NUD_FAILED:
		return evidence.No
	case unix.NUD_INCOMPLETE:
		if stateAge(b[unix.SizeofNdMsg:]) >= unansweredLong {
			return evidence.No
		}
	}
	return evidence.Unknown
}

// stateAge returns how long ago a neighbour's state changed: ndm_updated of
// struct nda_cacheinfo, which counts in USER_HZ, 1/100 s wherever Go runs.
func stateAge(attrs []byte) time.Duration {
	for kind, value := range attributes(attrs) {
		if kind == unix.NDA_CACHEINFO && len(value) >= 12 {
			return time.Duration(binary.NativeEndian.Uint32(value[8:])) * (time.Second / 100)
		}
	}
	return 0
}

// SourceOnHost reports whether addr is an address of this host, so that
// packets can be sent from it.
func SourceOnHost(addr netip.Addr) (bool, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false, fmt.Errorf("list this host's addresses: %w", err)
	}
	addr = addr.Unmap().WithZone("")
	return slices.ContainsFunc(addrs, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		if !ok {
			return false
		}
		own, _ := netip.AddrFromSlice(n.IP)
		return own.Unmap() == addr
	}), nil
}
