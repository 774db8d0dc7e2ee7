package diagnosis

import (
	"time"

	"vpnprobe/evidence"
)

// espBlocked: IKE passes between the ends and ESP does not, in one direction at
// least.
func espBlocked(f *facts) verdict {
	if e, ok := f.icmpAbout("esp udp4500", evidence.AdminProhibited, evidence.ProtUnreachable); ok && e.Count >= minWirePackets && espPackets(f.Capture.Out) > 0 &&
		f.tunnelReceives() != evidence.Yes && f.innerAnswers() != evidence.Yes && (e.About == "esp" || f.ikeAnswers() == evidence.Yes) {
		// Anybody can send an ICMP error: on a tunnel that may just be idle it is
		// no more than worth knowing.
		v := yes(Likely, outward, icmpText(e))
		v.harmless = f.unrefuted()
		return v
	}
	if _, ok := f.reverse(); ok {
		return no // asymmetric_tunnels
	}
	if f.recorded() || f.saUp() != evidence.Yes && f.innerAnswers() != evidence.Yes {
		v := espOneWay(f)
		// Beside a router that the tunnel only passes, its answers may come
		// another way.
		v.harmless = !f.recorded() && f.saUp() == evidence.No && !f.engaged()
		return v
	}
	if v := espKeptIn(f); v.holds {
		return v
	}
	return espKeptOut(f)
}

// The directions of blocked ESP.
var (
	outward = say("direction: from this host to the peer", "方向：本机到对端")
	inward  = say("direction: from the peer to this host", "方向：对端到本机")
)

// espKeptIn: the kernel encrypts and counts, and nothing of it leaves by the
// interfaces that lead to the peer. A card that encrypts by itself, unknown to
// the kernel, looks the same but for the inner hosts, which answer.
func espKeptIn(f *facts) verdict {
	t, c := f.Host.Tunnel, f.Capture
	refused := f.innerRefusedHere()
	if f.saUp() != evidence.Yes || f.offloaded() || t.Out.Packets < 2*minOutPackets || anyESP(c.Out) > 0 || !c.Whole() || c.Over < t.Over/2 ||
		f.innerAnswers() != evidence.No && refused == 0 {
		return no
	}
	seen := []Text{outward,
		say("the SAs carried %d packets out, and none left on %s: this host's own firewall drops them, or they go another way", "SA 发出 %d 个包，但没有一个从 %s 离开：被本机防火墙丢弃，或走了其他路径", t.Out.Packets, f.Host.Underlay.Name)}
	if refused > 0 {
		return yes(Certain, append(seen, say("this host's firewall refused %d pings to inner hosts", "本机防火墙拒绝了 %d 个发往内部主机的 ping", refused))...)
	}
	return yes(Likely, append(seen, ikeText(f.ike500), ikeText(f.ike4500))...)
}

// innerRefusedHere returns how many of the last pings to inner hosts this
// host's own firewall refused.
func (f *facts) innerRefusedHere() int {
	n := 0
	for _, e := range f.inner {
		if e.TrailingUnsent > 0 {
			n += e.SendErrors[evidence.LocalFirewall]
		}
	}
	return n
}

const (
	// minOneWay is the number of encrypted packets in one direction, and none
	// in the other, that the wire must show where nothing else tells.
	minOneWay = 10

	// stopped is how long one direction must go on without the other.
	stopped = 10 * time.Second
)

// espOneWay: the wire shows ESP in one direction only, from the beginning or
// since some time.
func espOneWay(f *facts) verdict {
	c := f.Capture
	in, out := espPackets(c.In), espPackets(c.Out)
	if !c.Whole() || c.Blind == evidence.Yes || !f.recorded() && c.Blind != evidence.No {
		return no
	}
	lastIn, lastOut := f.lastESP(true), f.lastESP(false)
	counts := say("on the wire: %d ESP packets out, %d in", "线路上：发出 %d 个 ESP 报文，收到 %d 个", out, in)
	switch {
	case out >= minOneWay && anyESP(c.In) == 0:
		return yes(Possible, inward, counts,
			say("a tunnel that only sends looks the same, and so does a host whose ESP offload hides what comes in: `ip -s xfrm state` on it tells", "只发送的隧道、以及因 ESP 卸载而看不到入向报文的主机表现相同：在该主机上用 `ip -s xfrm state` 可以区分"))
	case in >= minOneWay && anyESP(c.Out) == 0 && !f.leaking():
		return yes(Possible, outward, counts,
			say("a tunnel that only receives looks the same, and so does a host that has no route or policy for the answers", "只接收的隧道、以及缺少回程路由或策略的主机表现相同"))
	case out >= minOneWay && in > 0 && lastOut.Sub(lastIn) >= stopped:
		return yes(Possible, inward, counts,
			say("the last one came in %.0f s before the last one out, at %s", "最后一个收到的报文比最后一个发出的早 %.0f 秒，时间为 %s", lastOut.Sub(lastIn).Seconds(), lastIn.UTC().Format(time.TimeOnly)),
			say("a tunnel that only sends since then looks the same", "此后只发送的隧道表现相同"))
	}
	return no
}

// lastESP is when the last encrypted packet of one direction passed.
func (f *facts) lastESP(inbound bool) (last time.Time) {
	for _, flow := range f.Capture.Flows {
		if flow.Inbound == inbound && flow.Last.After(last) {
			last = flow.Last
		}
	}
	return last
}

// leaking reports whether traffic that should leave encrypted leaves in clear.
func (f *facts) leaking() bool {
	_, rewritten := f.leak(evidence.LeakRewritten)
	_, declared := f.leak(evidence.LeakDeclared)
	return rewritten || declared
}

// espKeptOut: the SAs are up, we encrypt and send, and the kernel has
// accepted no packet from the peer in the same time, though inner probes and
// probes that expire at the remote gateway asked for one.
//
// A packet that a capture saw come in is not blocked, whatever the kernel
// then did with it.
func espKeptOut(f *facts) verdict {
	if f.saUp() != evidence.Yes || f.tunnelReceives() != evidence.No || f.innerAnswers() == evidence.Yes ||
		!f.ikeAnsweredSince() || f.captured() {
		return no
	}
	if f.Hop.Sent == 0 || f.Hop.Answered > 0 {
		return no
	}
	t := f.Host.Tunnel
	seen := []Text{
		inward,
		f.oneWayText(),
		say("%d probes that expire at the remote gateway brought nothing back through the tunnel", "%d 个在对端网关处过期的探测未从隧道返回任何报文", f.Hop.Sent),
		ikeText(f.ike500), ikeText(f.ike4500),
	}
	if f.Capture.Conclusive() && anyESP(f.Capture.In) == 0 { // its window may begin before the silence
		seen = append(seen, say("on the wire: %d ESP packets out, 0 in, none missed", "线路上：发出 %d 个 ESP 报文，收到 0 个，无漏抓", espPackets(f.Capture.Out)))
	}
	var ever uint64
	for _, sa := range t.SAs {
		if sa.Inbound {
			ever += sa.Packets
		}
	}
	switch {
	case f.Hop.Ever == evidence.Yes:
		return yes(Likely, append(seen, say("the remote gateway answered such probes before", "对端网关此前会应答此类探测"))...)
	case ever == 0 && !t.LastIn.Known():
		return yes(Likely, append(seen, say("these SAs never received a packet", "这些 SA 从未收到过报文"))...)
	}
	return yes(Possible, append(seen, say("these SAs received packets before (%d); a remote gateway that lost the SA looks the same", "这些 SA 此前收到过 %d 个包；对端网关丢失 SA 时表现相同", ever))...)
}

// oneWayText says how long nothing came in.
func (f *facts) oneWayText() Text {
	t := f.Host.Tunnel
	if last, ok := t.LastIn.Get(); ok {
		return say("the SAs carried %d packets out within %.0f s; the last one in came %.0f s ago", "SA 在 %.0[2]f 秒内发出 %[1]d 个包；最近一次收到是在 %.0[3]f 秒前",
			t.Out.Packets, t.Over.Duration().Seconds(), f.Time.Sub(last).Seconds())
	}
	return say("the SAs carried %d packets out and 0 in within %.0f s", "%.0[2]f 秒内 SA 发出 %[1]d 个包，收到 0 个", t.Out.Packets, t.Over.Duration().Seconds())
}

// captured reports whether the wire brought ESP in while no inner host
// answered. The window of a capture may begin before they fell silent.
func (f *facts) captured() bool {
	_, known := f.innerSilentSince()
	return !known && espPackets(f.Capture.In) > 0
}

// innerUnreachable: the tunnel passes, or cannot be looked into, and a
// declared inner host is reached neither by ping nor by TCP.
func innerUnreachable(f *facts) verdict {
	silent, _ := f.lostInner()
	if len(silent) == 0 || !f.ikeAnsweredSince() && f.tunnelReceives() != evidence.Yes {
		return no
	}
	t := f.Host.Tunnel
	var seen []Text
	for _, e := range silent {
		seen = append(seen, say("inner host %s: %d of %d pings answered", "内部主机 %s：%d/%d 个 ping 有应答", e.Target, e.Replies, e.Sent))
	}
	for _, r := range f.TCP {
		if !tcpReached(r) && r.Connected == evidence.No {
			seen = append(seen, say("inner host %s: no TCP connection (%s)", "内部主机 %s：TCP 无法连接（%s）", r.Target, r.Reason))
		}
	}
	if hop, ok := f.Hop.Offender.Get(); ok {
		seen = append(seen, say("the remote gateway answers through the tunnel (%s)", "对端网关通过隧道应答（%s）", hop))
	}
	switch f.tunnelReceives() {
	case evidence.Yes:
		seen = append(seen, say("the tunnel carried %d packets out and %d in meanwhile", "其间隧道发出 %d 个包，收到 %d 个", t.Out.Packets, max(t.In.Packets, espPackets(f.Capture.In))))
		return yes(Likely, seen...)
	case evidence.No:
		return yes(Possible, append(seen, say("our packets go out encrypted (%d), nothing comes back", "我们的报文已加密发出（%d 个），没有任何返回", t.Out.Packets))...)
	}
	if f.saUp() == evidence.Unknown && f.ikeAnswers() == evidence.Yes {
		return yes(Possible, append(seen, say("this host's IPsec state cannot be read, so whether the tunnel is up is not known", "无法读取本机 IPsec 状态，因此不知道隧道是否建立"))...)
	}
	return no
}

// tunnelDown: the peer answers IKE, this host is the tunnel's end (it has a
// policy for it or runs an IKE daemon), traffic asked for the tunnel, and no
// SA exists.
func tunnelDown(f *facts) verdict {
	here := f.Host.Tunnel.Policy == evidence.Yes || f.Host.Daemon == evidence.Yes
	if f.saUp() != evidence.No || !here || f.innerAnswers() != evidence.No || f.ikeAnswers() != evidence.Yes {
		return no
	}
	silent, _ := f.lostInner()
	confidence := Certain
	if f.Host.Tunnel.Policy != evidence.Yes {
		confidence = Possible // the daemon here may serve others only
	}
	seen := []Text{
		say("the kernel holds no pair of SAs with the peer (policy installed: %s, IKE daemon here: %s)", "内核没有与对端的成对 SA（已安装策略：%s，本机 IKE 服务：%s）", f.Host.Tunnel.Policy, f.Host.Daemon),
		say("inner hosts asked for it and stay silent: %s", "内部主机已触发流量但无应答：%s", targets(silent)),
		ikeText(f.ike500),
	}
	if mine, _, ok := f.offers(); ok && mine.Declared == evidence.Yes && !f.Auth.Time.Known() {
		seen = append(seen, say("the peer takes a declared IKE proposal, so it is the key, an identity, the ESP proposal or a subnet: agent probe --authenticate tells which",
			"对端接受所声明的 IKE 提议，因此问题在于密钥、标识、ESP 提议或网段：agent probe --authenticate 可进一步判断"))
	}
	return yes(confidence, seen...)
}
