package report

import (
	"fmt"
	"strings"

	"vpnprobe/evidence"
)

// The number of rows that the rules, the connections and the changes may take.
const (
	shownClamps  = 4
	shownTCP     = 4
	shownChanges = 4
)

// tunnelBlock writes what fits into the tunnel, what this host does to the
// sizes of TCP, and what TCP showed of them.
func (t *text) tunnelBlock(s *evidence.Snapshot) []block {
	b := block{title: t.say("tunnel", "隧道")}
	sum, known := s.TunnelMTU.Get()
	if known {
		b.title = t.inside(sum)
		b.add(t.say("sum", "计算"), t.sum(sum))
	}
	t.clamps(&b, s.Host.MSSClamps, s.TunnelMTU)
	for _, c := range s.TCPSizes[:min(len(s.TCPSizes), shownTCP)] {
		b.add(fmt.Sprintf("TCP %d", c.Target.Port()), t.tcpSize(c))
	}
	changes := s.MTUChanges[max(0, len(s.MTUChanges)-shownChanges):]
	for _, c := range changes {
		b.add(t.say("changed", "变化"), t.join(
			fmt.Sprintf(t.say("%s %s: %d -> %d", "%s %s：%d → %d"), t.role(c.Role), address(c.Target), c.From, c.To), t.before(c.Time, s.Time)))
	}
	if !known && len(b.rows) == 0 {
		return nil
	}
	return []block{b}
}

// inside writes what fits into the tunnel, and from where that is known.
func (t *text) inside(m evidence.TunnelMTU) string {
	suite := clean(m.Suite)
	switch m.From {
	case "kernel":
		suite += t.say(" of an SA in use", "（使用中的 SA）")
	case "declared":
		suite += t.say(" as declared", "（所声明）")
	}
	if m.Mode == "transport" {
		suite = t.join(suite, t.say("transport mode", "传输模式"))
	}
	mss := ""
	switch {
	case m.MSS4 > 0 && m.MSS6 > 0:
		mss = fmt.Sprintf(t.say("MSS %d (IPv6 %d)", "MSS %d（IPv6 %d）"), m.MSS4, m.MSS6)
	case m.MSS4 > 0:
		mss = fmt.Sprintf("MSS %d", m.MSS4)
	case m.MSS6 > 0:
		mss = fmt.Sprintf("IPv6 MSS %d", m.MSS6)
	}
	outer := t.say("the outer MTU is the link's, not measured", "外层 MTU 取自链路，未测量")
	if m.Measured {
		outer = t.say("the outer MTU is measured", "外层 MTU 为实测")
	}
	return t.join(fmt.Sprintf(t.say("tunnel: %d inside", "隧道：内层 %d"), m.Inner), mss, suite, outer)
}

// sum writes the sum that leads from the MTU outside to that inside:
// 1500 - 20 IP - 8 ESP - 8 IV - 16 ICV = 1448, - 2 trailer = 1446.
func (t *text) sum(m evidence.TunnelMTU) string {
	out, rest := fmt.Sprint(m.Outer), m.Outer
	for _, x := range []struct {
		bytes int
		name  string
	}{{m.OuterIP, "IP"}, {m.UDP, "UDP"}, {m.ESP, "ESP"}, {m.IV, "IV"}, {m.ICV, "ICV"}} {
		if x.bytes != 0 {
			out += fmt.Sprintf(" - %d %s", x.bytes, x.name)
			rest -= x.bytes
		}
	}
	out += fmt.Sprintf(" = %d", rest)
	if m.Align > 0 && rest%m.Align != 0 {
		out += fmt.Sprintf(t.say(", aligned to %d: %d", "，按 %d 对齐：%d"), m.Align, rest-rest%m.Align)
	}
	out += fmt.Sprintf(t.say(", - %d trailer", "，- %d 尾部"), m.Trailer)
	if m.Mode == "transport" { // the packet keeps its own header, which is outside
		out += fmt.Sprintf(" + %d IP", m.OuterIP)
	}
	return out + fmt.Sprintf(" = %d", m.Inner)
}

// clamps adds the rules that set the MSS, as their tools print them.
func (t *text) clamps(b *block, c evidence.MSSClamps, fits evidence.Opt[evidence.TunnelMTU]) {
	name := t.say("MSS rule", "MSS 规则")
	for _, r := range c.Rules[:min(len(c.Rules), shownClamps)] {
		b.add(name, t.clamp(r, fits.Or(evidence.TunnelMTU{})))
		b.add("", clean(strings.TrimSpace(r.Rule)))
	}
	switch n := len(c.Rules) - shownClamps; {
	case n > 0:
		b.add(name, fmt.Sprintf(t.say("%d more", "另有 %d 条"), n))
	case len(c.Rules) == 0 && c.Readable == evidence.Yes && fits.Known():
		b.add(name, t.say("none on this host", "本机没有"))
	}
}

// clamp writes what a rule does. It says that a value is too large only where
// the rule may meet what the tunnel carries.
func (t *text) clamp(r evidence.MSSClamp, fits evidence.TunnelMTU) string {
	sets, verdict := t.say("follows the route's MTU", "随路由 MTU"), ""
	if mss, ok := r.MSS.Get(); ok {
		sets = fmt.Sprint(mss)
		limit := fits.MSS6
		if r.V4 {
			limit = fits.MSS4
		}
		if limit > 0 && mss > limit && r.Covers != evidence.No {
			verdict = fmt.Sprintf(t.say("TOO LARGE: %d fits", "过大：应为 %d"), limit)
		}
	}
	family := ""
	switch {
	case r.V4 && !r.V6:
		family = "IPv4"
	case r.V6 && !r.V4:
		family = "IPv6"
	}
	covers := ""
	switch r.Covers {
	case evidence.No:
		covers = t.say("not for the tunnel", "不涉及隧道")
	case evidence.Unknown:
		covers = t.say("maybe not for the tunnel", "可能不涉及隧道")
	}
	met := ""
	if n, ok := r.Packets.Get(); ok {
		met = t.say("met ", "命中 ") + t.count(n, "packet", "%d 个报文")
	}
	return t.join(clean(r.Tool)+" "+clean(r.Where)+t.say(": ", "：")+sets, verdict, family, covers, met)
}

// tcpSize writes what one connection through the tunnel showed of its sizes.
func (t *text) tcpSize(c evidence.TCPSize) string {
	var parts []string
	add := func(n evidence.Opt[int], en, zh string) {
		if bytes, ok := n.Get(); ok {
			parts = append(parts, fmt.Sprintf(t.say(en, zh), bytes))
		}
	}
	add(c.MSS, "MSS %d", "MSS %d")
	add(c.Ours, "ours %d", "本端 %d")
	if bytes, ok := c.Sent.Get(); ok {
		parts = append(parts, fmt.Sprintf(t.say("sent %d", "发送 %d"), bytes)+
			t.fact(c.Acked, t.say(" acknowledged", " 已确认"), t.say(" NOT ACKNOWLEDGED", " 未被确认")))
	}
	add(c.Received, "received %d", "收到 %d")
	if c.Stalled == evidence.Yes {
		parts = append(parts, t.say("the rest of the answer NEVER CAME", "应答的其余部分始终未到"))
	}
	if c.Retransmit > 0 {
		parts = append(parts, t.count(uint64(c.Retransmit), "retransmission", "重传 %d 次"))
	}
	if len(parts) == 0 {
		return ""
	}
	return address(c.Target.Addr()) + t.aside(c.Service) + t.say(": ", "：") + t.join(parts...)
}
