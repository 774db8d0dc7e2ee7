package daemon

import (
	"context"
	"errors"
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
	// how that went. What fails leaves nothing here that was not there before.
	//
	// It does not while an SA with the peer is up or being negotiated: the
	// result then says why it was skipped, and nobody else should negotiate
	// either. Nor does it when there is no SA and the daemon cannot set one up,
	// for it has no connection or no way to try once: the error is then
	// ErrUnable, beside a result that says why too. Only after that error may a
	// caller go on without the daemon; any other means that it is not known
	// what the daemon does.
	//
	// With rekey, and when this call set the child SA up, the daemon is asked
	// once to rekey it: only then is the PFS group of a connection used.
	Initiate(ctx context.Context, peer netip.Addr, rekey bool) (evidence.IKEAuth, error)
}

// ErrUnable says that a daemon has nothing to do with a peer, and cannot set up
// a connection with it.
var ErrUnable = errors.New("the IKE daemon cannot set the tunnel up")

// Status is what a daemon has to do with one peer.
type Status struct {
	Configured  bool // a connection for that remote address is loaded
	Negotiating bool // an SA with it is being set up
	Established bool // an IKE SA with it is up
	Installed   bool // a child SA with it is up
}
