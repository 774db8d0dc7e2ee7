package agent

import (
	"context"
	"net/netip"

	"vpnprobe/config"
	"vpnprobe/evidence"
	"vpnprobe/probe/pmtu"
)

// outerSizes looks which sizes pass between the gateways.
func (p *peer) outerSizes(ctx context.Context, a netip.Addr) error {
	cfg := pmtu.Config{Target: a, Role: evidence.Gateway, Source: p.cfg.Source}
	p.sizes(ctx, cfg, func(m evidence.PathMTU) { p.witness(ctx, cfg, m) })
	return nil
}

// innerSizes looks which sizes pass through the tunnel.
func (p *peer) innerSizes(ctx context.Context, in config.Inner) error {
	p.sizes(ctx, pmtu.Config{Target: in.Address, Role: evidence.Inner, Source: in.Source}, func(evidence.PathMTU) {})
	return nil
}

// sizes watches a path MTU. An on-demand run searches until it finds one, and
// then sweeps for holes.
func (p *peer) sizes(ctx context.Context, cfg pmtu.Config, then func(evidence.PathMTU)) {
	report := func(m evidence.PathMTU) {
		p.keepMTU(m)
		then(m)
	}
	if !p.pace.once {
		pmtu.Watch(ctx, cfg, pmtu.Pace{Raise: p.pace.mtu}, report)
		return
	}
	for _, look := range []func(context.Context, pmtu.Config) (evidence.PathMTU, error){pmtu.Search, pmtu.Sweep} {
		for {
			m, err := look(ctx, cfg)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				m.CannotLook = err.Error()
			}
			if report(m); m.MTU.Known() {
				break
			}
			if !sleep(ctx, p.pace.tcp) {
				return
			}
		}
	}
}

func (p *peer) keepMTU(m evidence.PathMTU) {
	p.state.setMTU(m)
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
