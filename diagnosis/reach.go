package diagnosis

import (
	"math"

	"vpnprobe/evidence"
)

// internetDown: the way out of this host is dead for everybody, not only for
// the peer. A link that is down or a next hop that does not resolve is proof;
// otherwise all references must be silent together with the peer.
func internetDown(f *facts) verdict {
	if f.gatewayAnswersPing() == evidence.Yes || f.ikeAnswers() == evidence.Yes || f.works() || f.referencesAnswer() == evidence.Yes {
		return no
	}
	l, r := f.Host.Underlay, f.Host.Route
	var seen []Text
	if onRoute := r.Interface == "" || r.Interface == l.Name; onRoute && (l.Up == evidence.No || l.Up == evidence.Yes && l.Carrier == evidence.No) {
		seen = append(seen, say("interface %s is down (up: %s, carrier: %s)", "接口 %s 处于断开状态（启用：%s，载波：%s）", l.Name, l.Up, l.Carrier))
	}
	// Without a next hop the neighbour is the peer itself.
	if hop, ok := r.NextHop.Get(); ok && r.Neighbour == evidence.No && f.gatewayAnswersPing() == evidence.No {
		seen = append(seen, say("the next hop %s on %s does not answer address resolution", "%s 是 %s 上的下一跳，但其地址解析无应答", hop, r.Interface))
	}
	proof := len(seen) > 0
	if !routable(r) && !proof {
		return no
	}
	silent := f.referencesAnswer() == evidence.No && f.gatewayAnswersPing() != evidence.Yes && f.ikeAnswers() == evidence.No
	if !proof && (!silent || f.unrefuted() && !f.used() && f.gateway.Replies == 0) {
		return no
	}
	seen = append(seen, referenceText(f.references)...)
	seen = append(seen, pingText(f.gateway), ikeText(f.ike500))
	if proof {
		return yes(Certain, seen...)
	}
	return yes(Likely, seen...)
}

func routable(r evidence.Route) bool {
	return r.Kind == evidence.RouteUnicast || r.Kind == evidence.RouteLocal
}

// underlayRouteWrong: the kernel itself says that it cannot send to the
// gateway, or it sends into a tunnel while nothing comes back.
func underlayRouteWrong(f *facts) verdict {
	r := f.Host.Route
	if f.gatewayAnswersPing() == evidence.Yes && f.gateway.Trailing == 0 || f.works() {
		return no
	}
	if !routable(r) {
		return yes(Certain, say("the kernel's route to %s is %q", "内核到 %s 的路由为 %q", f.Declared.Gateway, r.Kind))
	}
	if r.Tunnel == evidence.Yes && f.ikeAnswers() == evidence.No && f.gatewayAnswersPing() == evidence.No {
		return yes(Likely, say("the route to %s points into the tunnel interface %s", "到 %s 的路由指向隧道接口 %s", f.Declared.Gateway, r.Interface),
			pingText(f.gateway), ikeText(f.ike500))
	}
	return no
}

// peerUnreachable: neither ping nor IKE, on either port, brings anything back
// from the peer, while the rest of the Internet is not known to be down.
func peerUnreachable(f *facts) verdict {
	if f.gatewayAnswersPing() == evidence.Yes || f.ikeAnswers() != evidence.No || f.works() ||
		f.referencesAnswer() == evidence.No || !routable(f.Host.Route) && f.Host.Route.Kind != "" {
		return no
	}
	if f.unrefuted() && !f.used() && f.gateway.Replies == 0 {
		return no // an idle tunnel to a peer that never answered anything
	}
	o500, _ := port(f.ike500)
	o4500, _ := port(f.ike4500)
	if o500 == evidence.IKERefused || o4500 == evidence.IKERefused {
		return no // the peer itself said so
	}
	seen := []Text{pingText(f.gateway), ikeText(f.ike500), ikeText(f.ike4500)}
	seen = append(seen, referenceText(f.references)...)
	if r := f.Host.Route; r.Neighbour == evidence.No && !r.NextHop.Known() {
		seen = append(seen, say("%s is on the link of %s and does not answer address resolution", "%s 与 %s 同链路，但地址解析无应答", f.gateway.Target, r.Interface))
	}
	for _, p := range []evidence.IKEPort{f.ike500, f.ike4500} {
		if o, last := port(p); o == evidence.IKEUnreachable && last.ICMP != nil {
			return yes(Certain, seen...)
		}
	}
	for _, e := range f.gateway.ICMPErrors {
		if e.Reason == evidence.HostUnreachable || e.Reason == evidence.NetUnreachable {
			seen = append(seen, say("ICMP %s about our pings from %s, %d times", "收到 %[2]s 关于我们 ping 的 ICMP %[1]s，共 %[3]d 次", e.Reason, offender(&e.ICMPError), e.Count))
			return yes(Likely, seen...)
		}
	}
	switch {
	case f.gatewayAnswersPing() != evidence.No:
		return no // silence of IKE alone may be a filter's
	case f.referencesAnswer() == evidence.Yes:
		return yes(Likely, seen...)
	}
	return yes(Possible, seen...)
}

// underlayLoss: pings to the gateway are lost at random above the limit, and
// no other traffic to the gateway contradicts them.
func underlayLoss(f *facts) verdict {
	limit := f.Declared.MaxLoss
	if limit <= 0 && f.recorded() {
		limit = recordedLoss
	}
	if limit <= 0 {
		return no
	}
	esp := espLoss(f, limit)
	if lossy(f.gateway, limit) != evidence.Yes {
		return esp
	}
	if esp.holds {
		return yes(Certain, append(esp.evidence, say("pings to the gateway are lost as well", "到网关的 ping 同样丢失"))...)
	}
	n, lost := randomLoss(f.gateway)
	seen := []Text{say("ping %s: %d of %d lost at random (%.1f %%; limit %.1f %%)", "ping %s：随机丢失 %d/%d（%.1f %%；门限 %.1f %%）",
		f.gateway.Target, lost, n, percent(lost, n), 100*limit)}
	uplink, clean := false, false
	for _, e := range f.references {
		m, l := randomLoss(e)
		seen = append(seen, say("reference %s: %d of %d lost (%.1f %%)", "参照地址 %s：丢失 %d/%d（%.1f %%）", e.Target, l, m, percent(l, m)))
		uplink = uplink || lossy(e, limit) == evidence.Yes
		clean = clean || lossy(e, limit) == evidence.No
	}
	switch {
	case uplink && !clean:
		seen = append(seen, say("the references lose too: the loss is on this side's uplink", "参照地址也丢包：丢包发生在本端上行链路"))
		return yes(Certain, seen...)
	case f.contradicted(wilsonLow(lost, n)):
		return no
	case clean:
		seen = append(seen, say("the references do not: the loss is on the peer's side", "参照地址不丢包：丢包发生在对端一侧"))
	}
	return yes(Likely, seen...)
}

// recordedLoss is the limit where none can be declared, the same as the
// configuration's default.
const recordedLoss = 0.02

// minNumbered is the number of encrypted packets from which their numbers tell
// a loss rate.
const minNumbered = 200

// espLoss: packets of the tunnel are missing by their sequence numbers. Where
// the lengths of the gaps are known, long ones do not count: an outage is not a
// lossy path, nor is the jump of a failover.
func espLoss(f *facts, limit float64) verdict {
	in := f.Capture.In.Sequence
	// Without them only a gateway that answers pings shows that there was none.
	lost, outages := in.Lost, f.gateway.InOutages > 0 || f.gateway.Trailing > 1 || f.gateway.Replies == 0
	if in.Bursts != nil {
		lost, outages = min(lost, inShortGaps(in.Bursts)), false
	}
	expected := in.Expected - (in.Lost - lost)
	if f.Capture.LossDoubt(true) != evidence.LossKnown || in.Discontinuities > 0 || outages || expected < minNumbered ||
		wilsonLow(int(lost), int(expected)) <= limit {
		return no
	}
	if clean := f.innerClean(); math.Pow(1-wilsonLow(int(lost), int(expected)), float64(clean)) < 0.05 {
		return no // what goes through the tunnel says otherwise
	}
	return yes(Likely, say("of the peer's encrypted packets %d of %d are missing by their sequence numbers (%.1f %%; limit %.1f %%)", "按序列号，对端的加密报文缺失 %d/%d（%.1f %%；门限 %.1f %%）",
		lost, expected, percent(int(lost), int(expected)), 100*limit))
}

// innerClean counts the pings through the tunnel that were answered, if none was
// lost.
func (f *facts) innerClean() int {
	n := 0
	for _, e := range f.inner {
		if e.Lost > 0 {
			return 0
		}
		n += e.Replies
	}
	return n
}

// inShortGaps returns how many packets at most were lost in gaps of all lengths
// but the longest.
func inShortGaps(bursts []uint64) uint64 {
	var n uint64
	for i, count := range bursts[:max(len(bursts), 1)-1] {
		n += count * (1<<(i+1) - 1)
	}
	return n
}

// underlayLatency: the median round-trip time to the gateway is above the limit.
func underlayLatency(f *facts) verdict {
	limit := f.Declared.MaxRTT
	rtt, ok := f.gateway.RTT.Get()
	if limit <= 0 || !ok || f.gateway.Replies < 5 || rtt.Median <= limit {
		return no
	}
	for _, e := range f.inner { // a gateway that is slow to answer pings is no slow path
		if r, ok := e.RTT.Get(); ok && r.Median <= limit {
			return no
		}
	}
	for _, p := range []evidence.IKEPort{f.ike500, f.ike4500} {
		if last, ok := p.Last(); ok && last.Outcome == evidence.IKEAnswered {
			if r, ok := last.RTT.Get(); ok && r <= limit {
				return no
			}
		}
	}
	seen := []Text{say("ping %s: median round trip %.0f ms (limit %.0f ms)", "ping %s：往返时延中位数 %.0f 毫秒（门限 %.0f 毫秒）",
		f.gateway.Target, millis(rtt.Median), millis(limit))}
	for _, e := range f.references {
		if r, ok := e.RTT.Get(); ok {
			seen = append(seen, say("reference %s: median round trip %.0f ms", "参照地址 %s：往返时延中位数 %.0f 毫秒", e.Target, millis(r.Median)))
		}
	}
	return yes(Certain, seen...)
}

func millis(s evidence.Seconds) float64 { return 1000 * s.Duration().Seconds() }

// icmpBlocked: an address ignores ping and is reached otherwise.
func icmpBlocked(f *facts) verdict {
	var seen []Text
	if f.gatewayAnswersPing() == evidence.No && (f.ikeAnswers() == evidence.Yes || f.works()) {
		seen = append(seen, pingText(f.gateway))
		if f.ikeAnswers() == evidence.Yes {
			seen = append(seen, ikeText(f.ike500))
		}
	}
	_, pingOnly := f.lostInner()
	for _, e := range pingOnly {
		seen = append(seen, say("inner host %s answers TCP but no ping", "内部主机 %s 应答 TCP 但不应答 ping", e.Target))
	}
	if len(seen) == 0 {
		return no
	}
	return yes(Likely, seen...)
}
