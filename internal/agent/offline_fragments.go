package agent

import (
	"vpnprobe/capture"
	"vpnprobe/evidence"
)

// torn returns of how many packets of UDP a capture has the first fragment,
// where it has not one later fragment of any, in either direction. A later
// fragment has no ports, so a capture filter by port drops it: that says nothing
// of the network. ESP and AH are told by the protocol, which all fragments
// have.
func torn(c capture.Counts) uint64 {
	var first, later uint64
	for _, f := range []evidence.Fragments{c.In.Fragments, c.Out.Fragments} {
		for _, k := range []evidence.FragmentCount{f.ESPInUDP, f.IKE} {
			first += k.First
			later += k.Middle + k.Last
		}
	}
	if later > 0 {
		return 0
	}
	return first
}

// leaveOut removes the fragments of UDP, so that they are not taken for packets
// that did not come through whole.
func leaveOut(f *evidence.Fragments) {
	f.ESPInUDP, f.IKE = evidence.FragmentCount{}, evidence.FragmentCount{}
}
