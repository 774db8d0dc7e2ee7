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
	confidence, alone := Possible, false
	for _, m := range blackHoles(f.innerSizes()) {
		if f.tcpPasses(m.Target, m.MTU.Or(0)) || f.innerPasses(m) {
			continue // only of pings
		}
		seen = append(seen, sizeText(m), f.sideText(m))
		if f.outerAgrees(m) {
			confidence = Likely
		} else {
			alone = true
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
		v.harmless = f.tcpFine()
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
	if alone && confidence == Possible {
		seen = append(seen, say("a host that ignores large pings looks the same: declare one of its tcp_ports to tell", "忽略大包 ping 的主机表现相同：请声明其 tcp_ports 以便区分"))
	}
	v := yes(confidence, seen...)
	v.harmless = len(stuck) == 0 && f.tcpFine()
	return v
}

// innerPasses reports whether another host in the same remote subnet was seen to
// answer larger packets than a search found to pass.
func (f *facts) innerPasses(m evidence.PathMTU) bool {
	for _, o := range f.innerSizes() {
		if o.Target == m.Target || o.MTU.Or(0) <= m.MTU.Or(0) {
			continue
		}
		for _, p := range f.Declared.RemoteSubnets {
			if p.Contains(o.Target) && p.Contains(m.Target) {
				return true
			}
		}
	}
	return false
}

// tcpFine reports whether TCP through the tunnel gets its segments across: it
// was seen to, or this gateway clamps it to what passes. What is lost then does
// not hurt it.
func (f *facts) tcpFine() bool {
	if len(f.tcpStuck()) > 0 {
		return false
	}
	for _, t := range f.TCPSizes {
		if t.Acked == evidence.Yes && t.Stalled != evidence.Yes {
			return true
		}
	}
	mss, _ := f.clampTo()
	return mss > 0 && f.clamped(mss)
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
		// What is about other packets may be due to another limit, or forged.
		e, told := f.icmpAbout("icmp", evidence.FragNeeded)
		if told && e.MTU.Or(0) >= o.MTU.Or(0) && near(e.MTU.Or(0), o.MTU.Or(0)) && o.Cached.Or(0) > e.MTU.Or(0) {
			return yes(Likely, sizeText(o), icmpText(e),
				say("it reached this host's interface (MTU %d) but not its IP: a firewall of this host drops it", "该消息（MTU %d）到达本机接口，但未到达 IP 层：被本机防火墙丢弃", e.MTU.Or(0)))
		}
	}
	// Behind the gateway: what does not fit into the tunnel is exactly what
	// vanishes, and the gateway has to say so but does not.
	sum, ok := f.TunnelMTU.Get()
	if !ok || !sum.Measured || f.saUp() != evidence.No {
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
	if !ok || !lostAll(o.Fragmented.Tried) || o.Fragmented.Expired > 0 {
		return no
	}
	return f.fragmentsMatter(yes(Possible, fragmentsText(o)))
}

// fragmentsMatter is a verdict on pings in fragments, with what tells whether it
// is about more than pings.
func (f *facts) fragmentsMatter(v verdict) verdict {
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
		if v.confidence == Possible {
			v.confidence = Likely
		}
	case f.sendsFragments():
		v.evidence = append(v.evidence, say("and the tunnel's own packets leave in fragments", "且隧道自身的报文以分片发出"))
	default:
		return v.info(say("only pings in fragments were seen to vanish, and the tunnel sends none", "仅观测到分片的 ping 丢失，且隧道未发送分片"))
	}
	return v
}

// sendsFragments reports whether the tunnel's own packets leave in fragments.
func (f *facts) sendsFragments() bool {
	return f.Capture.Out.Fragments.ESP.First+f.Capture.Out.Fragments.ESPInUDP.First > 0
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
	if !ok || !lostAll(o.Fragmented.Reversed) || o.Fragmented.Answered == 0 || o.Fragmented.Expired > 0 {
		return no
	}
	v := yes(Likely, say("in fragments to %s: %d of %d answered in order, 0 of %d with the last one first", "发往 %s 的分片报文：按序应答 %d/%d，末片先发应答 0/%d",
		o.Target, o.Fragmented.Answered, o.Fragmented.Sent, o.Fragmented.Reversed.Sent))
	v.harmless = !f.sendsFragments()
	return v
}

// reassemblyFailing: the target complains that fragments of ours stay
// incomplete: some, not all, are lost.
func reassemblyFailing(f *facts) verdict {
	for _, m := range f.MTUs {
		if n := m.Fragmented.Expired; n > 0 {
			return f.fragmentsMatter(yes(Certain, say("%s gave up on %d packets of ours of which fragments were missing (ICMP: reassembly time exceeded)", "%s 因分片缺失放弃了本端的 %d 个报文（ICMP：重组超时）", m.Target, n)))
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

// clampTo returns the MSS to clamp TCP through this tunnel to, by what fits and
// what passes, and the packet that it is of, in bytes; 0 where that is unknown.
func (f *facts) clampTo() (mss, packet int) {
	sum, ok := f.TunnelMTU.Get()
	if !ok {
		return 0, 0
	}
	packet = sum.Inner
	for _, m := range blackHoles(f.innerSizes()) {
		if !f.innerPasses(m) && !f.tcpPasses(m.Target, m.MTU.Or(0)) {
			packet = min(packet, m.MTU.Or(packet))
		}
	}
	if f.innerV6() {
		return packet - 60, packet
	}
	return packet - 40, packet
}

// innerV6 reports whether only IPv6 goes through the tunnel.
func (f *facts) innerV6() bool {
	for _, p := range f.Declared.RemoteSubnets {
		if p.Addr().Is4() {
			return false
		}
	}
	return len(f.Declared.RemoteSubnets) > 0
}

// clamped reports whether a rule of this host keeps the MSS within a limit.
func (f *facts) clamped(mss int) bool {
	for _, c := range f.Host.MSSClamps.Rules {
		if c.Covers != evidence.No && (c.V4 && !f.innerV6() || c.V6 && f.innerV6()) && c.MSS.Or(mss+1) <= mss {
			return true
		}
	}
	return false
}

// mssNotClamped: sizes are a problem on this tunnel, and this gateway does not
// do what would hide it from TCP. A tunnel whose path MTU discovery works needs
// no clamp.
func mssNotClamped(f *facts) verdict {
	mss, packet := f.clampTo()
	if mss <= 0 || f.Host.MSSClamps.Readable != evidence.Yes || f.saUp() != evidence.Yes || f.clamped(mss) {
		return no
	}
	confidence := Certain
	switch hole, cut := blackHole(f), espFragmented(f); {
	case hole.holds && !hole.harmless:
		confidence = hole.confidence
	case cut.holds && !cut.harmless, pmtudICMPFiltered(f).holds:
	default:
		return no
	}
	sum, _ := f.TunnelMTU.Get()
	v := yes(confidence, say("TCP through this tunnel fits with an MSS of at most %d bytes (%d inside, %s, less %d of headers)", "隧道内 TCP 的 MSS 不得超过 %d 字节（内层 %d，%s，减去头部 %d）", mss, packet, sum.Suite, packet-mss))
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
