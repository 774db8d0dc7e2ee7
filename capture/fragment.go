package capture

import "vpnprobe/evidence"

// fragments counts the parts of packets, see [evidence.Fragments].
type fragments struct {
	esp, espInUDP, ike evidence.FragmentCount
	udp                kind // of the UDP packet whose first fragment was seen last
}

// add counts a fragment of what k says. AH counts as ESP does: their fragments
// have the same causes and cures.
func (f *fragments) add(p *packet, k kind) {
	if !p.fragment() {
		return
	}
	switch k {
	case kindKeepalive:
		return // its one byte cannot be cut
	case kindESPInUDP, kindIKE:
		if !p.later() {
			f.udp = k
		}
	}
	to := f.of(k)
	switch {
	case !p.later():
		to.First++
	case p.more:
		to.Middle++
	default:
		to.Last++
	}
}

// of returns where the fragments of a kind are counted. Those of UDP go with
// IKE, which has the longest messages, until a first one is seen.
func (f *fragments) of(k kind) *evidence.FragmentCount {
	if k == kindUDPFragment {
		k = f.udp
	}
	switch k {
	case kindESP, kindAH:
		return &f.esp
	case kindESPInUDP:
		return &f.espInUDP
	}
	return &f.ike
}

// addSample counts fragments as the kernel has counted them: first, middle,
// last.
func (f *fragments) addSample(k kind, n [3]uint64) {
	if k == kindESPInUDP && n[0] > 0 {
		f.udp = k
	}
	to := f.of(k)
	to.First += n[0]
	to.Middle += n[1]
	to.Last += n[2]
}

func (f *fragments) evidence() evidence.Fragments {
	return evidence.Fragments{ESP: f.esp, ESPInUDP: f.espInUDP, IKE: f.ike}
}

func fragmentsSince(now, was evidence.Fragments) evidence.Fragments {
	return evidence.Fragments{
		ESP:      fragmentCountSince(now.ESP, was.ESP),
		ESPInUDP: fragmentCountSince(now.ESPInUDP, was.ESPInUDP),
		IKE:      fragmentCountSince(now.IKE, was.IKE),
	}
}

func fragmentCountSince(now, was evidence.FragmentCount) evidence.FragmentCount {
	return evidence.FragmentCount{
		First:  less(now.First, was.First),
		Middle: less(now.Middle, was.Middle),
		Last:   less(now.Last, was.Last),
	}
}
