// Package ladder asks an IKE responder, from the cheapest request to the
// dearest, what it makes of the declared connection: does it answer, does it
// know us, does it take the declared algorithms, and if not, which of them
// are wrong.
//
// Nearly all of it leaves nothing at the peer. An IKE_SA_INIT whose KE payload
// is of a group that is not in its proposals is refused whatever it offers,
// but how it is refused tells whether the responder would have taken a
// proposal (RFC 7296 sections 1.2 and 3.4): INVALID_KE_PAYLOAD names the group
// of the chosen one, NO_PROPOSAL_CHOSEN says that none fits. Section 3.4 wants
// the group among the proposals, so a responder may handle such a request in a
// way of its own. A complete request confirms what they show, and decides where
// it does not. The few requests that a responder may accept pass through a
// [Gate].
package ladder

import (
	"context"
	"net/netip"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/probe"
)

// DefaultTimeout is how long a request waits for its answer, unless
// configured otherwise; within it, the request is sent three times.
const DefaultTimeout = 2 * time.Second

// Config says which peer to ask, and what is declared about it.
type Config struct {
	// Target is the peer's address.
	Target netip.Addr
	// Source is the address to send from; the zero Addr leaves it to routing.
	Source netip.Addr
	// Ports replaces the peer's ports 500 and 4500, for a demonstration that
	// cannot have them. Results name the original.
	Ports map[uint16]uint16
	// Version is the declared IKE version, 1 or 2; 0 when none is.
	Version int
	// Mode is IKEv1's, "main" or "aggressive"; "" stands for main.
	Mode string
	// Proposals are the declared IKE proposals in strongSwan's notation.
	Proposals []string
	// LocalID and RemoteID are the declared identities, in the daemons'
	// notation. Aggressive mode introduces us by LocalID, or by our address if
	// it is empty. Nothing asks for RemoteID, as IKEv1 has no way to.
	LocalID, RemoteID string
	// Stateful permits the requests that may leave a half-open SA at the peer,
	// each as far as the Gate does.
	Stateful bool
	// Previous is what an earlier run found. Its answers to requests that may
	// have left a half-open SA stand in for those that the Gate holds back for
	// the budget, so they must be recent.
	Previous *evidence.Ladder
	// Timeout is how long to wait for the answer to each request; 0 means
	// [DefaultTimeout].
	Timeout time.Duration
}

// Gate admits the requests that may leave a half-open SA at the peer.
type Gate interface {
	// Admit returns a permit for one such request, or the reason why it must
	// not be sent now. It does not wait for long.
	Admit(ctx context.Context, step evidence.LadderStep) (Permit, *evidence.SkippedStep)
}

// Permit is the right to send one request that may leave a half-open SA. It
// counts as used until it is released.
type Permit interface {
	// Release gives the permit back, because the answer proved that nothing
	// was left at the peer.
	Release()
}

// Run asks the peer, and returns when it has learnt what it can, or when ctx
// ends. gate may be nil when cfg.Stateful is false; it is better not to be,
// because a responder that accepts what it must not is accounted for there.
func Run(ctx context.Context, cfg Config, gate Gate) evidence.Ladder {
	cfg.Target = cfg.Target.Unmap()
	if cfg.Timeout <= 0 {
		cfg.Timeout = DefaultTimeout
	}
	began := time.Now()
	conn, err := probe.OpenIKEClient(probe.IKEClientConfig{Target: cfg.Target, Ports: cfg.Ports, Source: cfg.Source})
	if err != nil {
		return evidence.Ladder{Time: evidence.Some(began), CannotLook: err.Error()}
	}
	defer conn.Close()
	tcp := make(chan evidence.IKEOverTCP, 1)
	go func() { tcp <- askTCP(ctx, cfg.Source, conn.Remote(portNATT)) }()
	out := climb(ctx, cfg, conn, gate)
	out.TCP = <-tcp
	return out
}

// climb takes all steps but the one over TCP.
func climb(ctx context.Context, cfg Config, conn asker, gate Gate) evidence.Ladder {
	r := newRun(cfg, conn, gate)
	r.reach(ctx)
	if r.hopeless() {
		return r.out
	}
	if cfg.Version == 1 {
		r.negotiateV1(ctx)
		if r.out.Main.Accepts != evidence.Yes && r.out.Aggressive.Accepts != evidence.Yes {
			r.negotiateV2(ctx)
		}
	} else {
		r.negotiateV2(ctx)
		if r.out.V2.Accepts != evidence.Yes {
			r.negotiateV1(ctx)
		}
	}
	r.introduce(ctx)
	r.doubtSilence()
	r.compareSizes(ctx)
	return r.out
}
