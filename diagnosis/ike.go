package diagnosis

import (
	"math"
	"net/netip"
	"slices"

	"vpnprobe/evidence"
)

// peerIKENotListening: the peer's own address says that the port is closed
// (RFC 1122 3.2.2.1, RFC 4443 3.1 code 4). The other port must not answer.
func peerIKENotListening(f *facts) verdict {
	if f.recorded() {
		e, ok := f.icmpAbout("udp500", evidence.PortUnreachable)
		if !ok || !f.isGateway(e.Sender) || f.peerSpeaks() {
			return no
		}
		return yes(Certain, icmpText(e))
	}
	o500, _ := port(f.ike500)
	o4500, _ := port(f.ike4500)
	if o500 != evidence.IKERefused || o4500 == evidence.IKEAnswered {
		return no
	}
	v := yes(Certain, ikeText(f.ike500), ikeText(f.ike4500))
	if f.unrefuted() && !f.used() {
		v.confidence = Likely // a filter that rejects foreign source ports says the same
	}
	return v
}

// peerFirewallDropsIKE: a hop says that IKE is prohibited, or IKE is silent
// while the gateway itself is reached.
//
// Silence on a tunnel that works proves nothing (a filter may admit the
// daemon's port 500 only, and our heartbeat comes from another), unless the
// peer used to answer.
func peerFirewallDropsIKE(f *facts) verdict {
	if f.recorded() {
		e, ok := f.icmpAbout("udp500", evidence.AdminProhibited)
		if !ok || f.peerSpeaks() {
			return no
		}
		return yes(Certain, icmpText(e))
	}
	o500, _ := port(f.ike500)
	o4500, _ := port(f.ike4500)
	seen := []Text{ikeText(f.ike500), ikeText(f.ike4500), pingText(f.gateway)}
	if o500 == evidence.IKEProhibited && o4500 != evidence.IKEAnswered {
		v := yes(Certain, seen...)
		if f.unrefuted() && !f.used() {
			v.confidence, v.harmless = Possible, true
		}
		return v
	}
	if o500 != evidence.IKESilent || f.mayIgnoreHeartbeats() {
		return no
	}
	used := f.ike500.Ever == evidence.Yes
	if used {
		seen = append(seen, say("UDP 500 of the peer was answered before", "对端 UDP 500 此前有应答"))
	}
	if o4500 == evidence.IKEAnswered {
		// IKE starts on UDP 500: without it no new tunnel comes up, but one
		// that was negotiated, or that starts on 4500, may well work.
		if f.works() || f.saUp() != evidence.No || f.innerAnswers() != evidence.No && !used {
			return no
		}
		return yes(Likely, seen...)
	}
	if f.ikeAnswers() != evidence.No {
		return no
	}
	if f.works() && f.gatewayAnswersPing() == evidence.No && !f.cameInDuringSilence() {
		return no // what came in came before the silence: peer_unreachable is about to show
	}
	if f.unrefuted() && !f.used() {
		v := yes(Possible, append(seen, say("the tunnel passes traffic, so the peer may just ignore probes that do not come from port 500",
			"隧道仍有流量，因此对端可能只是忽略并非来自 500 端口的探测"))...)
		v.harmless = true
		return v
	}
	if f.lossExplains(f.ike500) {
		return no // underlay_loss
	}
	if f.gatewayAnswersPing() != evidence.Yes && !f.works() {
		return no // not reached at all: peer_unreachable or internet_down
	}
	return yes(Likely, seen...)
}

// peerSpeaks reports whether the wire brought IKE or ESP from the peer: then an
// ICMP error about a port was of another time, or of another's making.
func (f *facts) peerSpeaks() bool {
	return len(f.Capture.In.IKE) > 0 || espPackets(f.Capture.In) > 0
}

// isGateway reports whether an address is the peer's own.
func (f *facts) isGateway(a netip.Addr) bool { return slices.Contains(f.Addresses, a.Unmap()) }

// mayIgnoreHeartbeats reports whether the peer may be one that speaks IKEv1
// only, in a mode that answers no heartbeat: then only the probe ladder's
// silence in both modes counts.
func (f *facts) mayIgnoreHeartbeats() bool {
	l := &f.Ladder
	return f.Declared.IKEVersion == 1 && f.ike500.Ever != evidence.Yes &&
		(l.Main.Answers != evidence.No || l.Aggressive.Answers != evidence.No)
}

// nattBlocked: the ends need UDP 4500 because of a NAT between them, UDP 500
// is answered and 4500 is not.
func nattBlocked(f *facts) verdict {
	o500, _ := port(f.ike500)
	o4500, _ := port(f.ike4500)
	if o500 != evidence.IKEAnswered || !unanswered(o4500) || f.behindNAT() != evidence.Yes || f.works() ||
		f.innerAnswers() != evidence.No && f.ike4500.Ever != evidence.Yes {
		return no
	}
	src, _ := f.source().Get()
	seen := []Text{ikeText(f.ike500), ikeText(f.ike4500),
		say("this host sends from %s, which is not the public address that the peer sees, or its SA is UDP-encapsulated",
			"本机以 %s 发送，这不是对端看到的公网地址，或其 SA 采用 UDP 封装", src)}
	if o4500 == evidence.IKESilent {
		return yes(Likely, seen...)
	}
	return yes(Certain, seen...)
}

// lossExplains reports whether a path that loses as many pings as this one may
// well have lost every datagram of the present silence (1 in 100).
func (f *facts) lossExplains(p evidence.IKEPort) bool {
	answered := f.gateway.Replies + f.gateway.Late
	if answered == 0 || f.gateway.Lost == 0 {
		return false
	}
	sent := 0
	for _, r := range slices.Backward(p.Results) {
		if r.Outcome != evidence.IKESilent {
			break
		}
		sent += r.Requests
	}
	return math.Pow(float64(f.gateway.Lost)/float64(f.gateway.Lost+answered), float64(sent)) > 0.01
}

// cameInDuringSilence reports whether the tunnel brought something in after
// the first heartbeat of the present silence.
func (f *facts) cameInDuringSilence() bool {
	since := silentSince(f.ike500).Add(lag)
	last, ok := f.Host.Tunnel.LastIn.Get()
	in := ok && last.After(since)
	for _, e := range f.inner {
		last, ok := e.LastReply.Get()
		in = in || ok && last.After(since)
	}
	return in
}
