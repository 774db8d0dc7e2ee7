package agent

import (
	"vpnprobe/capture"
	"vpnprobe/evidence"
)

// blind reports whether the capture misses inbound ESP on one of the
// interfaces, and why. The modules, GRO and the SAs may change at any time, so
// this is asked at each reading.
func (u *tapUse) blind(live *capture.Live, t evidence.Tunnel) (evidence.Fact, string) {
	worst, reason := evidence.No, ""
	for _, iface := range u.peer.Interfaces {
		hidden, why := u.all.host.CaptureBlind(iface, t)
		sees, remedy := live.Uncover(iface, hidden)
		if hidden == evidence.No || sees {
			continue
		}
		if remedy != "" {
			why += ": " + remedy
		}
		if worst == evidence.No || hidden == evidence.Yes {
			worst, reason = hidden, why
		}
	}
	return worst, reason
}

// missed returns how many packets the kernel's SAs received of which the
// capture saw none at all. A packet that comes about the time of a reading may
// be on either side of it in the two counts: so the SAs' count leaves out a
// reading at both ends.
func (u *tapUse) missed() uint64 {
	n := len(u.history)
	if n < 4 {
		return 0
	}
	first, last := u.history[0], u.history[n-1]
	if seen(last.Counts) > seen(first.Counts) {
		return 0
	}
	return u.history[n-2].received.Sub(u.history[1].received).Packets
}

// seen counts the packets of SAs that came in.
func seen(c capture.Counts) uint64 {
	return c.In.ESP.Packets + c.In.ESPInUDP.Packets + c.In.AH.Packets
}
