package diagnosis

import "vpnprobe/evidence"

// peerIKENotListening: the peer's own address says that the port is closed
// (RFC 1122 3.2.2.1, RFC 4443 3.1 code 4). The other port must not answer.
func peerIKENotListening(f *facts) verdict {
	o500, _ := port(f.ike500)
	o4500, _ := port(f.ike4500)
	if o500 != evidence.IKERefused || o4500 == evidence.IKEAnswered {
		return no
	}
	return yes(Certain, ikeText(f.ike500), ikeText(f.ike4500))
}

// peerFirewallDropsIKE: a hop says that IKE is prohibited, or IKE is silent
// while the gateway itself is reached.
//
// Silence on a tunnel that works proves nothing (a filter may admit the
// daemon's port 500 only, and our heartbeat comes from another), unless the
// peer used to answer.
func peerFirewallDropsIKE(f *facts) verdict {
	o500, _ := port(f.ike500)
	o4500, _ := port(f.ike4500)
	seen := []Text{ikeText(f.ike500), ikeText(f.ike4500), pingText(f.gateway)}
	if o500 == evidence.IKEProhibited && o4500 != evidence.IKEAnswered {
		return yes(Certain, seen...)
	}
	if o500 != evidence.IKESilent || f.Declared.IKEVersion == 1 && f.ike500.Ever != evidence.Yes {
		return no // what speaks IKEv1 only may ignore heartbeats of IKEv2
	}
	used := f.ike500.Ever == evidence.Yes
	if used {
		seen = append(seen, say("UDP 500 of the peer was answered before", "对端 UDP 500 此前有应答"))
	}
	if o4500 == evidence.IKEAnswered {
		// IKE starts on UDP 500: without it no new tunnel comes up, but one
		// that was negotiated, or that starts on 4500, may well work.
		if f.works() || f.saUp() != evidence.No {
			return no
		}
		return yes(Likely, seen...)
	}
	if f.ikeAnswers() != evidence.No {
		return no
	}
	if f.works() && !used {
		v := yes(Possible, append(seen, say("the tunnel passes traffic, so the peer may just ignore probes that do not come from port 500",
			"隧道仍有流量，因此对端可能只是忽略并非来自 500 端口的探测"))...)
		v.harmless = true
		return v
	}
	if f.gatewayAnswersPing() != evidence.Yes && !f.works() {
		return no // not reached at all: peer_unreachable or internet_down
	}
	return yes(Likely, seen...)
}

// nattBlocked: the ends need UDP 4500 because of a NAT between them, UDP 500
// is answered and 4500 is not.
func nattBlocked(f *facts) verdict {
	o500, _ := port(f.ike500)
	o4500, _ := port(f.ike4500)
	if o500 != evidence.IKEAnswered || !unanswered(o4500) || f.behindNAT() != evidence.Yes || f.works() {
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
