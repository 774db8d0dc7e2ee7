package report

import (
	"fmt"
	"time"

	"vpnprobe/evidence"
)

// The number of rows that a list of the capture may take. The JSON form holds
// everything.
const (
	shownFlows = 4
	shownICMP  = 4
)

// flows adds the busiest SPIs, so that they can be compared with those of
// "ip xfrm state" and of the peer.
func (t *text) flows(c evidence.Capture, now time.Time, add func(name string, cells ...string)) {
	for _, f := range c.Flows[:min(len(c.Flows), shownFlows)] {
		way := t.say("SPI out", "SPI 出向")
		if f.Inbound {
			way = t.say("SPI in", "SPI 入向")
		}
		longest := ""
		if f.Longest > 0 {
			longest = fmt.Sprintf(t.say("longest %d B", "最长 %d B"), f.Longest)
		}
		lost := ""
		if f.Sequence.Lost > 0 && c.LossDoubt(f.Inbound) == evidence.LossKnown {
			lost = fmt.Sprintf(t.say("%d missing", "缺 %d 个"), f.Sequence.Lost)
		}
		add(way, fmt.Sprintf("0x%08x ", f.SPI)+t.encapsulation(f), t.traffic(f.Traffic), longest, lost,
			after(t.say("last ", "最近 "), t.before(f.Last, now)))
	}
	more := ""
	if n := len(c.Flows) - shownFlows; n > 0 {
		more = fmt.Sprintf(t.say("%d more", "另有 %d 个"), n)
	}
	forgotten := ""
	if c.Forgotten > 0 {
		forgotten = fmt.Sprintf(t.say("%d not kept (forged ones, as a rule)", "%d 个未保留（多为伪造）"), c.Forgotten)
	}
	add(t.say("SPIs", "SPI 其余"), more, forgotten)
}

func (t *text) encapsulation(f evidence.ESPFlow) string {
	switch {
	case f.Protocol == "ah":
		return "AH"
	case f.Encap:
		return t.say("ESP in UDP", "UDP 封装 ESP")
	}
	return "ESP"
}

// count writes a number of things; the Chinese text has a place for it.
func (t *text) count(n uint64, en, zh string) string {
	if n != 1 {
		en += "s"
	}
	return fmt.Sprintf(t.say("%d "+en, zh), n)
}

// before says how long ago something happened, if that is known.
func (t *text) before(at, now time.Time) string {
	if at.IsZero() {
		return ""
	}
	return fmt.Sprintf(t.say("%s ago", "%s前"), duration(max(0, now.Sub(at)).Round(time.Millisecond)))
}

// bothWays writes what something carried.
func (t *text) bothWays(in, out evidence.Traffic) string {
	return t.join(t.say("in ", "入 ")+t.traffic(in), t.say("out ", "出 ")+t.traffic(out))
}

func (t *text) interfaceTraffic(i evidence.InterfaceTraffic) string {
	return clean(i.Name) + t.say(": ", "：") + t.bothWays(i.In, i.Out)
}

func (t *text) leak(l evidence.Leak, now time.Time) string {
	var kind string
	switch l.Kind {
	case evidence.LeakRewritten:
		kind = t.say("source rewritten to the gateway's address", "源地址被改写为网关地址")
	case evidence.LeakOwn:
		kind = t.say("sent by this host itself", "由本机自身发出")
	case evidence.LeakDeclared:
		kind = t.say("from a declared subnet", "来自所声明的子网")
	case evidence.LeakOther:
		kind = t.say("from no declared subnet", "来自未声明的子网")
	default:
		kind = clean(string(l.Kind))
	}
	return t.join(t.count(l.Packets, "packet", "%d 包"), kind,
		fmt.Sprintf(t.say("last %s -> %s %s", "最近 %s → %s %s"), address(l.Source), address(l.Destination), protocol(l.Protocol)),
		t.before(l.Last, now))
}

// protocol names the usual protocols of IP by their IANA keyword.
func protocol(n int) string {
	switch n {
	case 1:
		return "ICMP"
	case 6:
		return "TCP"
	case 17:
		return "UDP"
	case 58:
		return "ICMPv6"
	}
	return fmt.Sprintf("IP %d", n)
}

// icmpErrors adds the ICMP errors that passed, with what they are about.
func (t *text) icmpErrors(list []evidence.WireICMP, now time.Time, add func(name string, cells ...string)) {
	name := t.say("ICMP seen", "ICMP 错误")
	for _, e := range list[:min(len(list), shownICMP)] {
		sent := evidence.ICMPError{Reason: e.Reason, MTU: e.MTU}
		if e.Sender.IsValid() {
			sent.Offender = evidence.Some(e.Sender)
		}
		add(name, fmt.Sprintf("%d× %s", e.Count, t.icmp(sent)), t.about(e), t.before(e.Last, now))
	}
	if n := len(list) - shownICMP; n > 0 {
		add(name, fmt.Sprintf(t.say("%d more", "另有 %d 种"), n))
	}
}

// about writes whose packets an error is about, and what they carried.
func (t *text) about(e evidence.WireICMP) string {
	whose := t.say("about packets of the peer", "关于对端的报文")
	if e.Ours {
		whose = t.say("about packets of ours", "关于本端的报文")
	}
	names := map[string]string{"esp": "ESP", "ah": "AH", "udp500": "UDP 500", "udp4500": "UDP 4500", "icmp": "ICMP", "other": ""}
	what, ok := names[e.About]
	if !ok {
		what = e.About
	}
	return whose + t.aside(what)
}
