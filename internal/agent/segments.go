package agent

import (
	"context"
	"net/netip"
	"time"

	"vpnprobe/config"
	"vpnprobe/evidence"
	"vpnprobe/probe/tcpsize"
)

// unsettled is how long the daemon waits at most before it looks again at
// sizes that it found to be lost, or of which it could learn nothing.
const unsettled = time.Minute

// clampsEvery is how often the firewall is read, which may be large.
const clampsEvery = time.Minute

// watchClamps reads now and then what this host does to the MSS of TCP, where it
// is the tunnel's end.
func (p *peer) watchClamps(ctx context.Context) error {
	for {
		wait := p.pace.poll
		if p.state.holdsSA() {
			p.state.setClamps(p.env.Host.MSSClamps(ctx, p.cfg.LocalSubnets, p.cfg.RemoteSubnets))
			wait = clampsEvery
		}
		if !sleep(ctx, wait) {
			return nil
		}
	}
}

// segments looks now and then which segments a connection to one inner port
// gets across, once it is known to accept any.
func (p *peer) segments(ctx context.Context, in config.Inner, port uint16) error {
	target := netip.AddrPortFrom(in.Address, port)
	for {
		wait := p.pace.poll
		if p.state.connects(target) {
			t, err := tcpsize.Look(ctx, tcpsize.Config{Target: target, Source: in.Source})
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				t = evidence.TCPSize{Target: target, Time: time.Now(), CannotLook: err.Error()}
			}
			p.state.setTCPSize(t)
			wait = p.pace.mtu
			if err != nil || t.Acked == evidence.No || t.Stalled == evidence.Yes {
				wait = min(wait, unsettled)
			}
		}
		if !sleep(ctx, wait) {
			return nil
		}
	}
}
