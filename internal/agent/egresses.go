package agent

import (
	"net/netip"
	"slices"
	"time"
)

// egresses remembers by which interfaces the kernel could send to a gateway.
type egresses struct {
	at   time.Time
	list []string
}

// The interfaces that a peer may use are asked for again after egressEvery,
// since that reads the routing table; maxEgresses of them are watched.
const (
	egressEvery = 10 * time.Second
	maxEgresses = 4
)

// interfaces returns the underlay interfaces of a peer: the declared one, or
// the route's, and the others by which the kernel could send to the gateway.
func (u *tapUse) interfaces(first string, gateway, source netip.Addr) []string {
	if now := time.Now(); u.egress.at.IsZero() || now.Sub(u.egress.at) >= egressEvery || first != "" && !slices.Contains(u.egress.list, first) {
		list, err := u.all.host.Egresses(gateway, source)
		if err != nil {
			list = nil // without a route there is none, and the rest is told by the route
		}
		u.egress = egresses{now, list}
	}
	var out []string
	if first != "" {
		out = append(out, first)
	}
	for _, name := range u.egress.list {
		if !slices.Contains(out, name) && len(out) < maxEgresses {
			out = append(out, name)
		}
	}
	return out
}
