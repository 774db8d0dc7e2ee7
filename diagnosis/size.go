package diagnosis

import (
	"net/netip"
	"slices"

	"vpnprobe/evidence"
)

// sizes returns the searches in one role that ended with a path MTU.
func (f *facts) sizes(role evidence.Role, probes ...evidence.MTUProbe) []evidence.PathMTU {
	var out []evidence.PathMTU
	for _, m := range f.MTUs {
		if m.Role != role || m.MTU.Or(0) == 0 {
			continue
		}
		for _, p := range probes {
			if m.Probe == p {
				out = append(out, m)
			}
		}
	}
	return out
}

// outer returns the search for the path MTU between the gateways, by ping where
// any are answered, and innerSizes those through the tunnel.
func (f *facts) outer() (evidence.PathMTU, bool) {
	list := slices.Concat(f.sizes(evidence.Gateway, evidence.MTUByICMP), f.sizes(evidence.Gateway, evidence.MTUByIKE, evidence.MTUByIKENATT))
	if len(list) == 0 {
		return evidence.PathMTU{}, false
	}
	return list[0], true
}

func (f *facts) innerSizes() []evidence.PathMTU { return f.sizes(evidence.Inner, evidence.MTUByICMP) }

// spent returns the bytes that the tunnel adds to the largest packet, 0 when
// it is not known what encrypts.
func (f *facts) spent() int {
	if sum, ok := f.TunnelMTU.Get(); ok {
		return sum.Outer - sum.Inner
	}
	return 0
}

// A hole is made by the outer path where the size inside, with what the tunnel
// adds, is the size outside; padding makes up to this much of a difference.
const maxPadding = 32

// fits reports whether a packet of the tunnel of an inner size is of an outer
// one.
func (f *facts) fits(inner, outer int) bool {
	d := outer - inner - f.spent()
	return f.spent() > 0 && d >= -maxPadding && d < maxPadding
}

// blackHoles returns the searches that found sizes to vanish without a word.
func blackHoles(list []evidence.PathMTU) []evidence.PathMTU {
	var out []evidence.PathMTU
	for _, m := range list {
		if m.State == evidence.MTUBlackHole && len(m.Holes) == 0 {
			out = append(out, m)
		}
	}
	return out
}

// tcpPasses reports whether TCP through the tunnel was seen to carry a segment
// that is too large for a packet of n bytes, to the host of a search.
func (f *facts) tcpPasses(to netip.Addr, n int) bool {
	for _, t := range f.TCPSizes {
		if t.Target.Addr() == to && t.Acked == evidence.Yes && t.Sent.Or(0)+ipTCP(to) > n {
			return true
		}
	}
	return false
}

// ipTCP is the length of the headers of a TCP segment without options.
func ipTCP(a netip.Addr) int {
	if a.Unmap().Is4() {
		return 40
	}
	return 60
}

// tcpStuck returns the connections through the tunnel of which large segments
// vanish while small ones pass.
func (f *facts) tcpStuck() []evidence.TCPSize {
	var out []evidence.TCPSize
	for _, t := range f.TCPSizes {
		if t.Acked == evidence.No || t.Stalled == evidence.Yes {
			out = append(out, t)
		}
	}
	return out
}

// blackHole: packets above a size vanish and nobody says so. Inside the tunnel
// it is a fault. Outside it is one where it can be seen to be about more than
// large pings, which some gateways do not answer.
func blackHole(f *facts) verdict {
	if pmtudICMPFiltered(f).holds {
		return no // somebody does say so
	}
	stuck := f.tcpStuck()
	var seen []Text
	confidence := Possible
	for _, m := range blackHoles(f.innerSizes()) {
		if f.tcpPasses(m.Target, m.MTU.Or(0)) {
			continue // only of pings
		}
		seen = append(seen, sizeText(m), f.sideText(m))
		if m.Lost.Known() || f.outerAgrees(m) {
			confidence = Likely
		}
	}
	for _, t := range stuck {
		seen = append(seen, stuckText(t))
	}
	outer, witness, outside := f.outerBlackHole()
	switch {
	case len(seen) == 0 && !outside:
		return no
	case len(seen) == 0:
		v := yes(witness, sizeText(outer), say("side: underlay, between the two gateways", "位置：底层网络，两端网关之间"))
		v.evidence = append(v.evidence, lostText(outer)...)
		if witness == Possible {
			v.evidence = append(v.evidence, say("only pings of these sizes were seen to vanish: a gateway may ignore large ones", "仅观测到这些大小的 ping 丢失：网关可能不应答大包 ping"))
			v.harmless = true
		}
		return v
	}
	if len(stuck) > 0 {
		confidence = Likely
		if len(seen) > len(stuck) {
			confidence = Certain // pings and users' own traffic agree
		}
	}
	if outside {
		seen = append(seen, sizeText(outer))
	}
	return yes(confidence, seen...)
}

// outerBlackHole returns the black hole between the gateways and how sure it
// is: by pings alone, it may be the gateway's policy.
func (f *facts) outerBlackHole() (evidence.PathMTU, Confidence, bool) {
	m, ok := f.outer()
	if !ok || len(blackHoles([]evidence.PathMTU{m})) == 0 {
		return m, "", false
	}
	witness := Possible
	for _, k := range f.sizes(evidence.Gateway, evidence.MTUByIKE, evidence.MTUByIKENATT) {
		switch {
		case m.Probe != evidence.MTUByICMP:
			// It is this one.
		case k.State == evidence.MTUBlackHole && near(k.MTU.Or(0), m.MTU.Or(0)):
			witness = Likely
		case k.MTU.Or(0) > m.MTU.Or(0)+maxPadding:
			return m, Possible, true
		}
	}
	return m, witness, true
}

func near(a, b int) bool { return a-b <= maxPadding && b-a <= maxPadding }

// outerAgrees reports whether the sizes that an inner search lost are those
// that are lost outside.
func (f *facts) outerAgrees(m evidence.PathMTU) bool {
	o, ok := f.outer()
	return ok && o.State == evidence.MTUBlackHole && f.fits(m.MTU.Or(0), o.MTU.Or(0))
}

func inSubnets(a netip.Addr, list []netip.Prefix) bool {
	for _, p := range list {
		if a.IsValid() && p.Contains(a) {
			return true
		}
	}
	return false
}

// pmtudICMPFiltered: somebody does say that packets are too big, or has to, and
// this is kept from those who send them.
func pmtudICMPFiltered(f *facts) verdict {
	if o, ok := f.outer(); ok && o.State == evidence.MTUBlackHole && f.Capture.Seen() {
		if e, ok := f.icmpAbout("icmp udp500 udp4500 esp", evidence.FragNeeded); ok && e.MTU.Or(0) >= o.MTU.Or(0) && near(e.MTU.Or(0), o.MTU.Or(0)) {
			return yes(Certain, sizeText(o), icmpText(e),
				say("it reached this host's interface (MTU %d) but not its IP: a firewall of this host drops it", "该消息（MTU %d）到达本机接口，但未到达 IP 层：被本机防火墙丢弃", e.MTU.Or(0)))
		}
	}
	// Behind the gateway: what does not fit into the tunnel is exactly what
	// vanishes, and the gateway has to say so but does not.
	sum, ok := f.TunnelMTU.Get()
	if !ok || !sum.Measured || f.saUp() == evidence.Yes {
		return no
	}
	if o, ok := f.outer(); !ok || o.State == evidence.MTUBlackHole {
		return no
	}
	for _, m := range blackHoles(f.innerSizes()) {
		lost, located := m.Lost.Get()
		if m.MTU.Or(0) == sum.Inner && located && lost.After.IsValid() && !f.tcpPasses(m.Target, sum.Inner) {
			return yes(Likely, sizeText(m), say("that is what fits into the tunnel (%s): its gateway, %s or the hop behind it, has to say so", "这正是隧道所能容纳的大小（%s）：其网关 %s 或其后一跳应当告知", sum.Suite, lost.After))
		}
	}
	return no
}

// fragmentsDropped: packets in fragments vanish on the underlay, each of which
// fits, while whole ones pass. It hurts only what is sent in fragments; and
// where only pings are, it may be the gateway's policy.
func fragmentsDropped(f *facts) verdict {
	o, ok := f.outer()
	if !ok || !lostAll(o.Fragmented.Tried) {
		return no
	}
	v := yes(Possible, fragmentsText(o))
	used := f.Capture.Out.Fragments.ESP.First+f.Capture.Out.Fragments.ESPInUDP.First > 0
	ike := false
	for _, l := range f.Ladder.Large {
		switch {
		case l.LargeAnswered > 0:
			return v.info(say("IKE requests in fragments are answered on UDP %d: the gateway ignores pings in fragments", "UDP %d 上的分片 IKE 请求有应答：网关只是忽略分片的 ping", l.Port))
		case l.SmallAnswered > 0 && l.LargeSent >= 3:
			ike = true
			v.evidence = append(v.evidence, say("IKE requests in fragments vanish too on UDP %d", "UDP %d 上的分片 IKE 请求同样丢失", l.Port))
		}
	}
	switch {
	case ike:
		v.confidence = Likely
	case used:
		v.evidence = append(v.evidence, say("and the tunnel's own packets leave in fragments", "且隧道自身的报文以分片发出"))
	default:
		return v.info(say("only pings in fragments were seen to vanish, and the tunnel sends none", "仅观测到分片的 ping 丢失，且隧道未发送分片"))
	}
	return v
}

// info is v as something only worth knowing, and why.
func (v verdict) info(why Text) verdict {
	v.harmless = true
	v.evidence = append(v.evidence, why)
	return v
}

// lostAll reports whether enough of one kind were sent, and none was answered.
func lostAll(t evidence.Tried) bool { return t.Sent >= 3 && t.Answered == 0 }

// fragmentOrder: packets in fragments pass in order and vanish when the last
// fragment comes first. Networks do reorder fragments now and then.
func fragmentOrder(f *facts) verdict {
	o, ok := f.outer()
	if !ok || !lostAll(o.Fragmented.Reversed) || o.Fragmented.Answered < 2 {
		return no
	}
	v := yes(Likely, say("in fragments to %s: %d of %d answered in order, 0 of %d with the last one first", "发往 %s 的分片报文：按序应答 %d/%d，末片先发应答 0/%d",
		o.Target, o.Fragmented.Answered, o.Fragmented.Sent, o.Fragmented.Reversed.Sent))
	v.harmless = f.Capture.Out.Fragments.ESP.First+f.Capture.Out.Fragments.ESPInUDP.First == 0
	return v
}

// reassemblyFailing: the target complains that fragments of ours stay
// incomplete: some, not all, are lost.
func reassemblyFailing(f *facts) verdict {
	for _, m := range f.MTUs {
		if n := m.Fragmented.Expired; n > 0 {
			return yes(Certain, say("%s gave up on %d packets of ours of which fragments were missing (ICMP: reassembly time exceeded)", "%s 因分片缺失放弃了本端的 %d 个报文（ICMP：重组超时）", m.Target, n))
		}
	}
	return no
}

// dfCleared: a hop fragments what must not be fragmented.
func dfCleared(f *facts) verdict {
	for _, m := range f.MTUs {
		if m.Cleared != evidence.Yes {
			continue
		}
		v := yes(Certain, say("a hop towards %s quotes a packet of ours without the \"don't fragment\" bit that it was sent with", "通往 %s 的某一跳引用的本端报文已失去其发出时的 DF 位", m.Target))
		v.harmless = f.works() && len(blackHoles(f.innerSizes())) == 0 && len(f.tcpStuck()) == 0
		return v
	}
	return no
}

// ptbBogus: a "too big" message that cannot be true. It does harm once the
// kernel believes it.
func ptbBogus(f *facts) verdict {
	v := no
	for _, m := range f.MTUs {
		cached := m.Cached.Or(0)
		for _, e := range m.Bogus {
			if !v.holds {
				v = yes(Likely)
				v.harmless = true
			}
			v.evidence = append(v.evidence, bogusText(e, m))
			if cached > 0 && cached < m.MTU.Or(0) && cached == e.MTU.Or(0) {
				v.harmless = false
				v.evidence = append(v.evidence, say("the kernel believes it: it cuts packets to %d bytes", "内核已采信：将报文限制为 %d 字节", cached))
			}
		}
	}
	return v
}

// pmtuCacheStale: the kernel cuts packets to less than what passes: an old or
// forged "too big", or a route with an MTU of its own, which may be meant.
func pmtuCacheStale(f *facts) verdict {
	if o, ok := f.outer(); ok && o.Cached.Or(0) > 0 && o.Cached.Or(0) < o.MTU.Or(0) {
		return yes(Certain, say("the kernel believes in %d bytes to %s; %d were answered", "内核认为到 %[2]s 的 MTU 为 %[1]d 字节；实测 %[3]d 字节有应答", o.Cached.Or(0), o.Target, o.MTU.Or(0)))
	}
	return no
}

// sizeHole: a range of sizes vanishes while smaller and larger ones pass.
func sizeHole(f *facts) verdict {
	var v verdict
	for _, m := range f.MTUs {
		for _, h := range m.Holes {
			if !v.holds {
				v = yes(Likely)
			}
			v.evidence = append(v.evidence, say("to %s: %d to %d bytes are lost, smaller and larger packets pass (up to %d)", "发往 %s：%d 至 %d 字节的报文丢失，更小与更大的均可通过（最大 %d）", m.Target, h.From, h.To, m.MTU.Or(0)))
			v.evidence = append(v.evidence, lostText(m)...)
		}
	}
	return v
}

// mssNotClamped: sizes are a problem on this tunnel, and this gateway does not
// do what would hide it from TCP. A tunnel whose path MTU discovery works needs
// no clamp.
func mssNotClamped(f *facts) verdict {
	sum, ok := f.TunnelMTU.Get()
	if !ok || f.Host.MSSClamps.Readable != evidence.Yes || f.saUp() != evidence.Yes {
		return no
	}
	inner := sum.Inner
	for _, m := range blackHoles(f.innerSizes()) {
		inner = min(inner, m.MTU.Or(inner))
	}
	hurts := blackHole(f)
	if fragmented := espFragmented(f); !(hurts.holds && !hurts.harmless) && !(fragmented.holds && !fragmented.harmless) && !pmtudICMPFiltered(f).holds {
		return no
	}
	v4 := true
	for _, p := range f.Declared.RemoteSubnets {
		v4 = v4 && p.Addr().Is4()
	}
	mss := inner - 40
	if !v4 {
		mss = inner - 60
	}
	for _, c := range f.Host.MSSClamps.Rules {
		if c.Covers != evidence.No && (c.V4 && v4 || c.V6 && !v4) && c.MSS.Or(mss+1) <= mss {
			return no
		}
	}
	v := yes(Certain, say("TCP through this tunnel fits with an MSS of at most %d bytes (%d inside, %s, less %d of headers)", "隧道内 TCP 的 MSS 不得超过 %d 字节（内层 %d，%s，减去头部 %d）", mss, inner, sum.Suite, inner-mss))
	for _, c := range f.Host.MSSClamps.Rules {
		v.evidence = append(v.evidence, say("present rule in %s: %s", "现有规则（%s）：%s", c.Where, c.Rule))
	}
	if len(f.Host.MSSClamps.Rules) == 0 {
		v.evidence = append(v.evidence, say("this host has no rule that sets the MSS", "本机没有设置 MSS 的规则"))
	}
	for _, p := range f.Declared.RemoteSubnets {
		for _, to := range []string{"daddr", "saddr"} {
			v.evidence = append(v.evidence, clampText(p, to, mss))
		}
	}
	return v
}
