package agent

import (
	"context"
	"net/netip"
	"time"

	"vpnprobe/config"
	"vpnprobe/evidence"
)

// carrier adds up what the SAs with one gateway carried over a window.
type carrier struct {
	sas     []evidence.SA // of the last reading
	samples []carried
}

// carried is what the SAs carried from one reading to the next.
type carried struct {
	at      time.Time
	in, out evidence.Traffic
}

// add keeps one reading and returns what was carried since the one before.
func (c *carrier) add(t evidence.Tunnel, at time.Time, window time.Duration) (in, out evidence.Traffic) {
	if t.Readable != evidence.Yes {
		*c = carrier{}
		return in, out
	}
	if len(c.samples) > 0 {
		in, out = evidence.SADelta(c.sas, t.SAs)
	}
	c.sas = t.SAs
	c.samples = append(c.samples, carried{at, in, out})
	for len(c.samples) > 2 && c.samples[1].at.Before(at.Add(-window)) {
		c.samples = c.samples[1:]
	}
	return in, out
}

// sum adds up the samples of the window; the first only marks its beginning.
func (c *carrier) sum() (in, out evidence.Traffic, over evidence.Seconds) {
	if len(c.samples) == 0 {
		return in, out, 0
	}
	for _, s := range c.samples[1:] {
		in, out = in.Add(s.in), out.Add(s.out)
	}
	return in, out, evidence.Seconds(c.samples[len(c.samples)-1].at.Sub(c.samples[0].at))
}

// siblings returns the other peers that lead to one of the peer's remote
// subnets: a second tunnel to the same site.
func siblings(p config.Peer, all []config.Peer) []config.Peer {
	var out []config.Peer
	for _, other := range all {
		if other.Name != p.Name && other.Gateway != p.Gateway && overlap(p.RemoteSubnets, other.RemoteSubnets) {
			out = append(out, other)
		}
	}
	return out
}

func overlap(a, b []netip.Prefix) bool {
	for _, p := range a {
		for _, q := range b {
			if p.Overlaps(q) {
				return true
			}
		}
	}
	return false
}

// watchSiblings reads what the other tunnels to the same site carry.
func (p *peer) watchSiblings(ctx context.Context) error {
	type sibling struct {
		carrier
		addrs    []netip.Addr
		resolved time.Time
	}
	all := make([]sibling, len(p.siblings))
	for {
		var list []evidence.Sibling
		for i, cfg := range p.siblings {
			s := &all[i]
			if s.resolved.IsZero() || time.Since(s.resolved) > p.pace.resolve {
				// One that does not resolve carries nothing; its own report says so.
				s.addrs, _ = lookUp(ctx, cfg.Gateway, cfg.Source)
				s.resolved = time.Now()
			}
			s.add(p.env.Host.Tunnel(s.addrs, cfg.Source), time.Now(), p.pace.tunnelWin)
			if in, out, over := s.sum(); over > 0 {
				list = append(list, evidence.Sibling{Peer: cfg.Name, In: in, Out: out})
			}
		}
		p.state.setSiblings(list)
		if !sleep(ctx, p.pace.poll) {
			return nil
		}
	}
}
