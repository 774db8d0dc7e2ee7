package diagnosis

import (
	"net/netip"

	"vpnprobe/evidence"
)

// leak returns the leak of one kind, if there are enough packets of it.
func (f *facts) leak(kind evidence.LeakKind) (evidence.Leak, bool) {
	for _, l := range f.Capture.Leaks {
		if l.Kind == kind && l.Packets >= minWirePackets && !f.onLink(l.Destination) {
			return l, true
		}
	}
	return evidence.Leak{}, false
}

// onLink reports whether an address is a neighbour on the underlay: a wide
// remote subnet may contain the underlay's own.
func (f *facts) onLink(a netip.Addr) bool {
	src, ok := f.Host.Route.Source.Get()
	if !ok || src.Is4() != a.Is4() {
		return false
	}
	bits := 24
	if src.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(src, bits).Masked().Contains(a)
}

func leakText(l evidence.Leak) Text {
	return say("%d packets left in clear for a remote subnet, the last from %s to %s (IP protocol %d)", "%d 个发往对端网段的报文以明文发出，最近一个从 %s 发往 %s（IP 协议 %d）", l.Packets, l.Source, l.Destination, l.Protocol)
}

// unpoliced reports whether this host should be the tunnel's end and has no
// policy for it: then everything leaves in clear, which is no fault of its own.
func (f *facts) unpoliced() bool { return f.Host.Tunnel.Policy == evidence.No && f.engaged() }

// clearIsMeant reports whether packets in clear on the interface say nothing: a
// card that encrypts by itself gets them so.
func (f *facts) clearIsMeant() bool { return f.unpoliced() || f.offloaded() }

// natBeforeIPsec: packets for a remote subnet leave in clear, with the
// gateway's own address though it only forwards them: Linux looks for a policy
// again after source NAT, and finds none (net/netfilter/nf_nat_core.c,
// nf_xfrm_me_harder).
func natBeforeIPsec(f *facts) verdict {
	l, ok := f.leak(evidence.LeakRewritten)
	if !ok || f.clearIsMeant() {
		return no
	}
	v := yes(Likely, leakText(l), say("their hop limit shows that this gateway forwarded them: it rewrote their source before IPsec could take them", "其跳数表明报文由本网关转发：其源地址在进入 IPsec 之前被改写"))
	if f.innerAnswers() == evidence.Yes {
		// The tunnel takes its own traffic: it is others, such as guests, whose
		// packets for such an address leave.
		v.confidence, v.harmless = Possible, true
	}
	return v
}

// selectorNotCovering: packets for a remote subnet leave in clear, as they
// were sent. From a source that is not declared as local, that may be intended.
func selectorNotCovering(f *facts) verdict {
	if f.clearIsMeant() {
		return no
	}
	if l, ok := f.leak(evidence.LeakDeclared); ok {
		return yes(Likely, leakText(l), say("the source is in a declared local subnet, so the policies in force do not cover the pair", "源地址属于所声明的本端网段，因此现有策略未覆盖该网段对"))
	}
	l, ok := f.leak(evidence.LeakOther)
	if !ok {
		return no
	}
	v := yes(Possible, leakText(l), say("the source is in none of the declared local subnets", "源地址不属于任何所声明的本端网段"))
	v.harmless = true
	return v
}
