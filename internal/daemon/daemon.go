package daemon

import (
	"context"
	"net/netip"

	"vpnprobe/evidence"
)

// Daemon is an IKE daemon that runs on this host.
type Daemon interface {
	// Name returns "strongswan" or "libreswan".
	Name() string
	// Status says what the daemon has to do with a peer.
	Status(ctx context.Context, peer netip.Addr) (Status, error)
	// Initiate has the daemon set up its connection with a peer, and returns
	// how that went. It does not when a child SA with the peer is installed,
	// nor without a connection: the result then says why it was skipped. What
	// fails leaves nothing here that was not there before.
	//
	// With rekey, and when this call set the child SA up, the daemon is asked
	// once to rekey it: only then is the PFS group of a connection used.
	Initiate(ctx context.Context, peer netip.Addr, rekey bool) (evidence.IKEAuth, error)
}

// Status is what a daemon has to do with one peer.
type Status struct {
	Configured  bool // a connection for that remote address is loaded
	Negotiating bool // an SA with it is being set up
	Established bool // an IKE SA with it is up
	Installed   bool // a child SA with it is up
}
