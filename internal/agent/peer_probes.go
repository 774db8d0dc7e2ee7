package agent

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"vpnprobe/config"
	"vpnprobe/evidence"
	"vpnprobe/probe"
)

// echo starts the pings of one address.
func (p *peer) echo(ctx context.Context, wg *sync.WaitGroup, cfg probe.EchoConfig) {
	p.state.pingsFrom(cfg.Role, cfg.Target, cfg.Source)
	runEcho(ctx, wg, p.log, cfg, &audience{peers: []*peer{p}})
}

// runEcho pings one address on behalf of some peers.
func runEcho(ctx context.Context, wg *sync.WaitGroup, log *slog.Logger, cfg probe.EchoConfig, to *audience) {
	wg.Go(func() {
		supervise(ctx, log.With("task", "ping", "role", cfg.Role), cfg.Interval, func(ctx context.Context) error {
			err := probe.NewEcho(cfg).Run(ctx, 0, func(r evidence.EchoResult) {
				for _, p := range to.get() {
					p.state.addEcho(r)
					p.env.sub.Observe(p.cfg.Name, r)
				}
			})
			if err != nil && ctx.Err() == nil {
				for _, p := range to.get() {
					p.state.cannotEcho(cfg.Role, cfg.Target, err.Error())
				}
			}
			return err
		})
	})
}

// heartbeat asks one IKE port every interval. A first silence is asked again
// at once: two in a row decide.
func (p *peer) heartbeat(ctx context.Context, a netip.Addr, port uint16) error {
	to := port
	if other := p.env.IKEPorts[port]; other != 0 {
		to = other
	}
	k, err := probe.OpenIKE(probe.IKEConfig{
		Target: netip.AddrPortFrom(a, to), Port: port,
		Source: p.cfg.Source, Version: p.cfg.IKE.Version, Timeout: beatTimeout,
	})
	if err != nil {
		p.state.cannotIKE(port, err.Error())
		return err
	}
	defer k.Close()
	// The two ports are asked at different times: a peer that limits what it
	// answers would starve the same one always.
	apart := time.Duration(0)
	if port == 4500 {
		apart = min(p.pace.beat, time.Second) / 2
	}
	if !sleep(ctx, (phase(time.Second, p.cfg.Name)+apart)%time.Second) {
		return nil
	}
	silent := false
	for next := time.Now(); ; {
		r, err := k.Heartbeat(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			p.state.cannotIKE(port, err.Error())
			return err
		}
		p.state.addIKE(r)
		p.env.sub.ObserveIKE(p.cfg.Name, r)
		again := r.Outcome == evidence.IKESilent && !silent
		silent = r.Outcome == evidence.IKESilent
		for !next.After(time.Now()) {
			next = next.Add(p.pace.beat)
		}
		if again {
			continue
		}
		if !p.awaitBeat(ctx, r.Sent, next) {
			return nil
		}
	}
}

// awaitBeat waits for the next heartbeat: until its time, or until an address
// of the peer fell silent or came back since the last one, so that pings and
// heartbeats speak of the same state of the path.
func (p *peer) awaitBeat(ctx context.Context, last, next time.Time) bool {
	earliest := last.Add(min(p.pace.beat, time.Second))
	for {
		flip := p.state.flipped()
		if flip.at.After(last) {
			return sleep(ctx, time.Until(earliest))
		}
		t := time.NewTimer(time.Until(next))
		select {
		case <-ctx.Done():
			t.Stop()
			return false
		case <-t.C:
			return true
		case <-flip.next:
			t.Stop()
		}
	}
}

// connect opens a TCP connection to one inner port now and then.
func (p *peer) connect(ctx context.Context, in config.Inner, port uint16) error {
	for {
		r := probe.ConnectTCP(ctx, probe.TCPConfig{Target: netip.AddrPortFrom(in.Address, port), Source: in.Source, Timeout: p.pace.timeout})
		if ctx.Err() != nil {
			return nil
		}
		p.state.addTCP(r)
		p.env.sub.ObserveTCP(p.cfg.Name, r)
		if !sleep(ctx, p.pace.tcp) {
			return nil
		}
	}
}

// innerHop asks the remote gateway itself for an answer through the tunnel:
// rarely while all is well, so that its silence later means something, and at
// every turn while an inner host is silent. Only the tunnel's own end can ask,
// because elsewhere the next hop is not the remote gateway.
func (p *peer) innerHop(ctx context.Context) error {
	var last time.Time
	for {
		if !sleep(ctx, p.pace.inner) {
			return nil
		}
		if !p.state.holdsSA() || !p.state.innerSilent() && time.Since(last) < p.pace.hop {
			continue
		}
		last = time.Now()
		in := p.cfg.Inner[0]
		h, err := probe.ProbeHop(ctx, probe.HopConfig{Target: in.Address, Source: in.Source, TTLs: []int{1, 2}, Timeout: beatTimeout})
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		p.state.addHop(h)
	}
}
