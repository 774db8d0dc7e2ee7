package agent

import (
	"context"
	"net/netip"
	"time"

	"vpnprobe/config"
	"vpnprobe/evidence"
	"vpnprobe/probe/pmtu"
)

// outerSizes looks which sizes pass between the gateways.
func (p *peer) outerSizes(ctx context.Context, a netip.Addr) error {
	cfg := pmtu.Config{Target: a, Role: evidence.Gateway, Source: p.cfg.Source}
	var seen time.Time
	p.sizes(ctx, cfg, func(m evidence.PathMTU) {
		if t := m.Time.Or(time.Time{}); !t.Equal(seen) { // else it is the same search, reported again
			seen = t
			p.witness(ctx, cfg, m)
		}
	})
	return nil
}

// innerSizes looks which sizes pass through the tunnel.
func (p *peer) innerSizes(ctx context.Context, in config.Inner) error {
	p.sizes(ctx, pmtu.Config{Target: in.Address, Role: evidence.Inner, Source: in.Source}, func(evidence.PathMTU) {})
	return nil
}

// sweepEvery is about how often the daemon sweeps a path for holes.
const sweepEvery = 24 * time.Hour

// sizes watches a path MTU, out of step with other paths. An on-demand run
// searches, once more if that finds nothing, and then sweeps for holes.
func (p *peer) sizes(ctx context.Context, cfg pmtu.Config, then func(evidence.PathMTU)) {
	report := func(m evidence.PathMTU) {
		p.keepMTU(m)
		then(m)
	}
	if !p.pace.once {
		name := p.cfg.Name + " " + cfg.Target.String()
		if sleep(ctx, phase(10*time.Second, name)) {
			pmtu.Watch(ctx, cfg, pmtu.Pace{Raise: p.pace.mtu, Sweep: sweepEvery/2 + phase(sweepEvery, name)}, report)
		}
		return
	}
	for _, look := range []func(context.Context, pmtu.Config) (evidence.PathMTU, error){pmtu.Search, pmtu.Sweep} {
		for tries := range 3 {
			m, err := look(ctx, cfg)
			if ctx.Err() != nil {
				return // less may be known of it than before
			}
			if err != nil {
				m.CannotLook = err.Error()
			}
			if report(m); m.MTU.Known() {
				break
			}
			if tries == 2 || !sleep(ctx, p.pace.tcp) {
				return
			}
		}
	}
}

// witnessFor is how long the answers of IKE count.
const witnessFor = 30 * time.Minute

func (p *peer) keepMTU(m evidence.PathMTU) {
	if c, ok := p.state.setMTU(m).Get(); ok {
		p.log.Info("path MTU changed", "role", c.Role, "target", c.Target, "from", c.From, "to", c.To)
	}
	p.env.sub.ObservePathMTU(p.cfg.Name, m)
}

// witness asks IKE where pings tell too little: a gateway may ignore large ones,
// or all. Where pings tell, what IKE told before is forgotten.
func (p *peer) witness(ctx context.Context, cfg pmtu.Config, m evidence.PathMTU) {
	for _, by := range []struct {
		probe evidence.MTUProbe
		port  uint16
	}{{evidence.MTUByIKE, 500}, {evidence.MTUByIKENATT, 4500}} {
		if m.State == evidence.MTUFull || m.State == evidence.MTUReduced {
			p.state.forgetMTU(cfg.Role, cfg.Target, by.probe)
			continue
		}
		if w := p.state.pathMTU(cfg.Role, cfg.Target, by.probe); w.MTU.Known() && time.Since(w.Time.Or(time.Time{})) < witnessFor {
			return // it is not asked again for what it said
		}
		cfg.Probe, cfg.Port = by.probe, p.env.IKEPorts[by.port]
		w, err := pmtu.Search(ctx, cfg)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			w.CannotLook = err.Error()
		}
		if p.keepMTU(w); w.MTU.Known() {
			return // one port is enough
		}
	}
}
