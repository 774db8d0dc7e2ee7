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
