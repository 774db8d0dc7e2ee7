package agent

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"vpnprobe/config"
	"vpnprobe/diagnosis"
	"vpnprobe/evidence"
	"vpnprobe/hoststate"
	"vpnprobe/internal/budget"
	"vpnprobe/internal/daemon"
	"vpnprobe/probe"
)

// Env is what all peers of one agent share.
type Env struct {
	Host *hoststate.Reader
	Log  *slog.Logger
	// IKEPorts replaces the UDP ports 500 and 4500 of every peer, for a
	// demonstration without privileges. Zero means the real ports.
	IKEPorts map[uint16]uint16
	// Daemons finds the IKE daemons of this host; nil means none to ask.
	Daemons func(context.Context) ([]daemon.Daemon, error)
	// Budget limits what may leave a half-open SA at a peer. Where it is nil,
	// nothing of the kind is sent, and BudgetErr says why.
	Budget    *budget.Budget
	BudgetErr string
	captures  *captures
	sub       Subscriber
}

// daemons returns the IKE daemons of this host, and an error when one may run
// that cannot be asked.
func (e *Env) daemons(ctx context.Context) ([]daemon.Daemon, error) {
	if e.Daemons == nil {
		return nil, nil
	}
	return e.Daemons(ctx)
}

// peer runs every task of one configured peer.
type peer struct {
	env      *Env
	cfg      config.Peer
	siblings []config.Peer // other tunnels to the same site
	pace     pace
	state    *state
	log      *slog.Logger
}

func newPeer(env *Env, cfg config.Peer, siblings []config.Peer, refs []netip.Addr, p pace) *peer {
	return &peer{
		env: env, cfg: cfg, siblings: siblings, pace: p, log: env.Log.With("peer", cfg.Name),
		state: newState(cfg.Name, declared(cfg, refs), p),
	}
}

// declared is what the diagnosis may hold the peer to.
func declared(p config.Peer, refs []netip.Addr) evidence.Declared {
	d := evidence.Declared{
		Gateway: p.Gateway, Interface: p.Interface,
		LocalSubnets: p.LocalSubnets, RemoteSubnets: p.RemoteSubnets, References: refs, IKEVersion: p.IKE.Version,
		IKEMode: p.IKE.Mode, ESPMode: p.ESP.Mode, LocalID: p.IKE.LocalID, RemoteID: p.IKE.RemoteID,
		MaxLoss: p.Thresholds.Loss, MaxRTT: evidence.Seconds(p.Thresholds.RTT),
	}
	for _, q := range p.IKE.Proposals {
		d.IKEProposals = append(d.IKEProposals, q.String())
	}
	for _, q := range p.ESP.Proposals {
		d.ESPProposals = append(d.ESPProposals, q.String())
	}
	for _, in := range p.Inner {
		d.Inner = append(d.Inner, in.Address)
	}
	return d
}

// run probes the peer until ctx ends, and waits for all that it started. When
// the gateway's name gets another address, the tasks that probe it start anew.
func (p *peer) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	p.inner(ctx, &wg)
	if len(p.siblings) > 0 {
		wg.Go(func() { p.supervise(ctx, "siblings", p.watchSiblings) })
	}
	addr := make(chan netip.Addr)
	wg.Go(func() { p.supervise(ctx, "resolve", func(ctx context.Context) error { return p.resolve(ctx, addr) }) })
	cancel := func() {}
	defer func() { cancel() }()
	for {
		select {
		case <-ctx.Done():
			return
		case a := <-addr:
			cancel()
			p.state.probing(a)
			sub, stop := context.WithCancel(ctx)
			cancel = stop
			p.outer(sub, a, &wg)
		}
	}
}

// outer starts what probes the gateway's address. The probes are not bound to
// the declared interface: they must go where the tunnel's own packets go.
func (p *peer) outer(ctx context.Context, a netip.Addr, wg *sync.WaitGroup) {
	wg.Go(func() { p.supervise(ctx, "host", func(ctx context.Context) error { return p.watchHost(ctx, a) }) })
	p.echo(ctx, wg, probe.EchoConfig{
		Target: a, Role: evidence.Gateway, Source: p.cfg.Source,
		Interval: p.pace.echo, Timeout: p.pace.timeout, Size: p.cfg.ICMP.Size,
	})
	for _, port := range []uint16{500, 4500} {
		wg.Go(func() { p.supervise(ctx, "ike", func(ctx context.Context) error { return p.heartbeat(ctx, a, port) }) })
	}
	wg.Go(func() { p.supervise(ctx, "mss clamps", p.watchClamps) })
	wg.Go(func() { p.supervise(ctx, "ladder", func(ctx context.Context) error { return p.climb(ctx, a) }) })
	wg.Go(func() { p.supervise(ctx, "path mtu", func(ctx context.Context) error { return p.outerSizes(ctx, a) }) })
}

// inner starts what probes through the tunnel.
func (p *peer) inner(ctx context.Context, wg *sync.WaitGroup) {
	if p.pace.inner <= 0 {
		return
	}
	for _, in := range p.cfg.Inner {
		p.echo(ctx, wg, probe.EchoConfig{
			Target: in.Address, Role: evidence.Inner, Source: in.Source,
			Interval: p.pace.inner, Timeout: p.pace.timeout, Size: p.cfg.ICMP.Size,
		})
		wg.Go(func() {
			p.supervise(ctx, "inner path mtu", func(ctx context.Context) error { return p.innerSizes(ctx, in) })
		})
		for _, port := range in.TCPPorts {
			wg.Go(func() {
				p.supervise(ctx, "tcp", func(ctx context.Context) error { return p.connect(ctx, in, port) })
			})
			wg.Go(func() {
				p.supervise(ctx, "segments", func(ctx context.Context) error { return p.segments(ctx, in, port) })
			})
		}
	}
	if len(p.cfg.Inner) > 0 {
		wg.Go(func() { p.supervise(ctx, "inner hop", p.innerHop) })
	}
}

// report diagnoses what is known now.
func (p *peer) report() *diagnosis.Report {
	return diagnosis.Evaluate(p.state.snapshot(time.Now()))
}
