package agent

import (
	"context"
	"net/netip"
	"time"

	"vpnprobe/capture"
	"vpnprobe/evidence"
)

// watchHost reads the host's side of the way to the gateway.
func (p *peer) watchHost(ctx context.Context, a netip.Addr) error {
	use := p.env.captures.join(capture.Peer{
		Name: p.cfg.Name, Addrs: []netip.Addr{a}, Local: p.cfg.LocalSubnets, Remote: p.cfg.RemoteSubnets,
	}, p.pace.tunnelWin)
	defer use.leave()
	for {
		h := p.readHost(a)
		in, out := p.state.setHost(h, time.Now())
		p.env.sub.AddTunnel(p.cfg.Name, in, out)
		iface := p.cfg.Interface
		if iface == "" {
			iface = h.Route.Interface
		}
		window, delta := use.read(use.interfaces(iface, a, p.cfg.Source), h.Tunnel, in)
		if ctx.Err() != nil && !window.Whole() {
			return nil // the capture ended before it was read
		}
		use.tell()
		p.state.setCapture(window)
		p.env.sub.AddCapture(p.cfg.Name, delta)
		if !sleep(ctx, p.pace.poll) {
			return nil
		}
	}
}

// readHost reads what the host believes. The route is asked for as the IKE
// daemon would ask: bound to an interface, Linux takes an address that it has
// no route to for one on the link.
func (p *peer) readHost(a netip.Addr) evidence.Host {
	host := p.env.Host
	h := evidence.Host{
		Route:  host.Route(a, p.cfg.Source, ""),
		Tunnel: host.Tunnel([]netip.Addr{a}, p.cfg.Source),
	}
	h.Daemon, h.IKEBacklog = host.Daemon()
	name := p.cfg.Interface
	if name == "" {
		name = h.Route.Interface
	}
	if name == "" {
		name = p.state.lastInterface()
	}
	if name != "" {
		h.Underlay = host.Link(name)
	}
	return h
}
