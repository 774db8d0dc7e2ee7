package evidence

import (
	"net/netip"
	"time"
)

// RouteKind is what the kernel would do with a packet.
type RouteKind string

// The kinds of a route.
const (
	RouteUnicast     RouteKind = "unicast"
	RouteLocal       RouteKind = "local"       // the address is this host's own
	RouteNone        RouteKind = "none"        // ENETUNREACH
	RouteProhibit    RouteKind = "prohibit"    // EACCES
	RouteBlackhole   RouteKind = "blackhole"   // EINVAL
	RouteUnreachable RouteKind = "unreachable" // EHOSTUNREACH
)

// Route is the kernel's answer to "how would a packet from here to there go".
type Route struct {
	Kind      RouteKind       `json:"kind"` // "" when it could not be asked
	Interface string          `json:"interface,omitempty"`
	Source    Opt[netip.Addr] `json:"source"`
	NextHop   Opt[netip.Addr] `json:"next_hop"` // null when on-link
	// Neighbour is Yes when the next hop's link-layer address is resolved, No
	// when its resolution failed, Unknown otherwise (a link without
	// neighbours, or not tried yet).
	Neighbour Fact `json:"neighbour_resolved"`
	// Tunnel is Yes when the interface is itself a tunnel (vti, xfrm, ipip,
	// tun ...): a route to the gateway must not point into one.
	Tunnel     Fact   `json:"into_tunnel"`
	CannotLook string `json:"cannot_look,omitempty"`
}

// Link is the state of one network interface.
type Link struct {
	Name    string   `json:"name"`
	Exists  Fact     `json:"exists"`
	Up      Fact     `json:"up"`      // set up by the administrator
	Carrier Fact     `json:"carrier"` // the lower layer is up
	MTU     Opt[int] `json:"mtu_bytes"`
}

// SA is one security association of this host's kernel with the peer, without
// its keys.
type SA struct {
	SPI      uint32 `json:"-"`
	Inbound  bool   `json:"inbound"`
	Protocol string `json:"protocol"` // "esp" or "ah"
	Mode     string `json:"mode"`     // "tunnel", "transport", ...
	Encap    bool   `json:"udp_encapsulated"`
	// Suite names the algorithms in strongSwan's notation ("aes128gcm16",
	// "aes256-sha256"), "" when one is not known to us.
	Suite string `json:"suite,omitempty"`
	// Offloaded says that the network card encrypts and decrypts by itself: then
	// no capture on this host sees ESP, but the packets in clear.
	Offloaded bool           `json:"offloaded"`
	Packets   uint64         `json:"packets"`
	Bytes     uint64         `json:"bytes"`
	Created   time.Time      `json:"created"`
	Used      Opt[time.Time] `json:"last_used"`
}

// Tunnel is what the kernel's own IPsec state says about the peer, with the
// traffic over a window. The counters are the kernel's own, so no capture can
// miss what they count.
type Tunnel struct {
	// Readable is Yes when the kernel's SAs could be read here.
	Readable Fact `json:"readable"`
	SAs      []SA `json:"sas"`
	// Policy is Yes when a policy with a template towards the peer is
	// installed (a tunnel, or a trap for one), No when none is.
	Policy Fact `json:"policy"`
	// In and Out count what the SAs with the peer carried during Over.
	In   Traffic `json:"in"`
	Out  Traffic `json:"out"`
	Over Seconds `json:"window_seconds"`
	// LastIn is when inbound traffic was last counted.
	LastIn     Opt[time.Time] `json:"last_in"`
	CannotLook string         `json:"cannot_look,omitempty"`
}

// Traffic is a count of packets and their bytes.
type Traffic struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// Add returns the sum of two counts.
func (t Traffic) Add(u Traffic) Traffic {
	return Traffic{t.Packets + u.Packets, t.Bytes + u.Bytes}
}

// Sub returns what was counted since u.
func (t Traffic) Sub(u Traffic) Traffic {
	return Traffic{t.Packets - u.Packets, t.Bytes - u.Bytes}
}

// Host is what this host believes about the way to the peer.
type Host struct {
	Route    Route  `json:"route"`    // to the gateway
	Underlay Link   `json:"underlay"` // the declared interface, or the route's
	Tunnel   Tunnel `json:"tunnel"`
	// Daemon is Yes when an IKE daemon holds UDP 500 or 4500 on this host.
	Daemon Fact `json:"ike_daemon"`
	// IKEBacklog is how much waits at UDP 500 and 4500 for the IKE daemon to read
	// it, in bytes: one that is stopped or overloaded lets it pile up.
	IKEBacklog Opt[int] `json:"ike_backlog_bytes"`
	// MSSClamps are read where this host is the gateway.
	MSSClamps MSSClamps `json:"mss_clamps"`
}
