package evidence

import (
	"net/netip"
	"time"
)

// Snapshot is everything that is known about one peer at one time. It is
// built by its owner and never changed after it was handed on: readers share
// it without locks.
type Snapshot struct {
	Peer     string    `json:"peer"`
	Time     time.Time `json:"time"`           // when it was assembled
	Window   Seconds   `json:"window_seconds"` // how far back Echoes and IKE look
	Declared Declared  `json:"declared"`

	Addresses  []netip.Addr `json:"addresses"` // the gateway, resolved
	ResolveErr string       `json:"resolve_error,omitempty"`

	Host   Host         `json:"host"`
	Echoes []EchoSeries `json:"echoes"`
	IKE    []IKEPort    `json:"ike"`
	TCP    []TCPResult  `json:"tcp"` // newest result per target
	Hop    InnerHop     `json:"inner_hop"`
	MTUs   []PathMTU    `json:"path_mtu"`
	// Changes are the changes of path MTUs that the window saw, oldest first.
	MTUChanges []MTUChange `json:"path_mtu_changes"`
	TCPSizes   []TCPSize   `json:"tcp_sizes"` // newest per target
	// TunnelMTU is null when it is not known what encrypts.
	TunnelMTU Opt[TunnelMTU] `json:"tunnel_mtu"`
	Capture   Capture        `json:"capture"`
	// Siblings are the other peers that lead to the same remote subnets.
	Siblings []Sibling `json:"siblings"`

	Ladder Ladder  `json:"ike_ladder"`
	Auth   IKEAuth `json:"ike_authentication"`
}

// Declared is what the operator said of the peer. What is not declared is not
// judged.
type Declared struct {
	Gateway       string         `json:"gateway"`
	Interface     string         `json:"interface,omitempty"`
	LocalSubnets  []netip.Prefix `json:"local_subnets"`
	RemoteSubnets []netip.Prefix `json:"remote_subnets"`
	References    []netip.Addr   `json:"references"`
	Inner         []netip.Addr   `json:"inner"`
	IKEVersion    int            `json:"ike_version,omitempty"` // 1 or 2; 0 when not declared
	IKEMode       string         `json:"ike_mode,omitempty"`    // "main" or "aggressive", of version 1
	IKEProposals  []string       `json:"ike_proposals"`         // in strongSwan's notation
	ESPProposals  []string       `json:"esp_proposals"`
	ESPMode       string         `json:"esp_mode,omitempty"` // "tunnel" or "transport"
	LocalID       string         `json:"local_id,omitempty"`
	RemoteID      string         `json:"remote_id,omitempty"`
	// MaxLoss and MaxRTT are the limits above which loss (a ratio, 0 to 1)
	// and the median round-trip time are faults.
	MaxLoss float64 `json:"max_loss_ratio"`
	MaxRTT  Seconds `json:"max_rtt_seconds"`
}

// Sibling is another tunnel to the same site, with what it carried over the
// same window.
type Sibling struct {
	Peer string  `json:"peer"`
	In   Traffic `json:"in"`
	Out  Traffic `json:"out"`
}

// InnerHop is what a probe with a time to live of one or a few hops, sent
// into the tunnel, has shown: the remote gateway decrypts it, finds it
// expired and says so through the tunnel. Such an answer proves ESP in both
// directions though no inner host answers; silence proves nothing.
type InnerHop struct {
	Sent     int             `json:"sent"`
	Answered int             `json:"answered"`
	Offender Opt[netip.Addr] `json:"offender"`
	// Ever is Yes when the remote gateway answered such a probe at any time
	// since this agent started, so that its silence now means something.
	Ever Fact `json:"ever_answered"`
}

// Echo returns the series of all targets in one role.
func (s *Snapshot) Echo(role Role) []EchoSeries {
	var out []EchoSeries
	for _, e := range s.Echoes {
		if e.Role == role {
			out = append(out, e)
		}
	}
	return out
}

// IKEOn returns what was seen on one UDP port of the peer.
func (s *Snapshot) IKEOn(port uint16) (IKEPort, bool) {
	for _, p := range s.IKE {
		if p.Port == port {
			return p, true
		}
	}
	return IKEPort{}, false
}
