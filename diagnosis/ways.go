package diagnosis

import (
	"time"

	"vpnprobe/evidence"
)

// asymmetricTunnels: of two tunnels to one site, one carries what goes out and
// the other what comes in.
func asymmetricTunnels(f *facts) verdict {
	s, ok := f.reverse()
	if !ok {
		return no
	}
	in, out := f.tunnelTraffic()
	v := yes(Likely,
		say("this tunnel: %d packets out, %d in", "本隧道：发出 %d 个包，收到 %d 个", out, in),
		say("tunnel %s to the same subnets: %d packets out, %d in", "通往相同网段的隧道 %s：发出 %d 个包，收到 %d 个", s.Peer, s.Out.Packets, s.In.Packets))
	v.harmless = f.innerAnswers() == evidence.Yes
	return v
}

// reverse returns the sibling that carries the other direction of this
// tunnel's traffic.
func (f *facts) reverse() (evidence.Sibling, bool) {
	in, out := f.tunnelTraffic()
	for _, s := range f.Siblings {
		if oneSided(out, in) && oneSided(s.In.Packets, s.Out.Packets) || oneSided(in, out) && oneSided(s.Out.Packets, s.In.Packets) {
			return s, true
		}
	}
	return evidence.Sibling{}, false
}

// oneSided reports whether a tunnel is used in one direction. The other one
// need not be silent: the remote gateway itself answers probes that expire at it
// through the tunnel that they came by.
func oneSided(much, little uint64) bool { return much >= minOneWay && much >= 4*little }

// tunnelTraffic is what the tunnel carried, by the SAs where they can be read,
// else by a capture that missed nothing.
func (f *facts) tunnelTraffic() (in, out uint64) {
	switch {
	case f.saUp() == evidence.Yes:
		return f.Host.Tunnel.In.Packets, f.Host.Tunnel.Out.Packets
	case f.recorded() && f.Capture.Whole() && f.Capture.Blind != evidence.Yes, f.Capture.Conclusive():
		return espPackets(f.Capture.In), espPackets(f.Capture.Out)
	}
	return 0, 0
}

// minInterleaved is how long encrypted packets must leave by two interfaces at
// the same time: a failover moves them from one to the other.
const minInterleaved = 2 * time.Second

// multipathEgress: the tunnel's packets leave by several interfaces at once.
// Where the peer gets them all, that is no fault.
func multipathEgress(f *facts) verdict {
	var seen []Text
	var begin, end time.Time
	for _, i := range f.Capture.Interfaces {
		first, ok := i.FirstOut.Get()
		last, ok2 := i.LastOut.Get()
		if !ok || !ok2 || i.Out.Packets < minWirePackets {
			continue
		}
		seen = append(seen, say("%d encrypted packets left by %s", "%d 个加密报文从 %s 发出", i.Out.Packets, i.Name))
		if begin.Before(first) {
			begin = first
		}
		if end.IsZero() || end.After(last) {
			end = last
		}
	}
	if len(seen) < 2 || end.Sub(begin) < minInterleaved {
		return no
	}
	v := yes(Likely, append(seen, say("both within the same %.0f s", "均在同一段 %.0f 秒内", end.Sub(begin).Seconds()))...)
	v.harmless = f.works() && (len(f.inner) == 0 || f.innerClean() > 0)
	return v
}
