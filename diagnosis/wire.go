package diagnosis

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"vpnprobe/evidence"
)

// The number of packets, or of fragmented packets, that make a finding of
// something that no single packet proves.
const minWirePackets = 3

// recorded reports whether a recorded capture is all that there is.
func (f *facts) recorded() bool { return f.Capture.Mode == evidence.CaptureFile }

// dpdNotAnsweredLocally: the peer asks whether this side is alive, and repeats
// the question until it gives up: no answer leaves this host.
func dpdNotAnsweredLocally(f *facts) verdict {
	in := f.Capture.Talk.In
	if n := f.Capture.Talk.Ignored; n > 0 && f.Capture.Talk.Whole && (f.saUp() == evidence.Yes || f.recorded()) {
		return yes(Likely,
			say("the peer repeats its requests (%d of them three times or more), and this side's IKE daemon says nothing at all", "对端不断重发请求（其中 %d 个重发至少两次），而本端 IKE 服务毫无应答", n),
			say("the capture began too late to see an answer to any of its kind", "抓包开始得较晚，未看到此前对此类请求的应答"))
	}
	if in.DPD.Trailing == 0 || in.Retransmissions < minWirePackets-1 || !f.Capture.Talk.Whole {
		return no
	}
	return yes(Certain,
		say("%d dead peer detection requests of the peer came in and were given up unanswered, %d were answered before", "收到对端 %d 个 DPD 请求但未应答，此前应答过 %d 个", in.DPD.Missed, in.DPD.Answered),
		say("it repeated its requests %d times; no answer left this host", "对端重发请求 %d 次；本机没有发出应答", in.Retransmissions))
}

// dpdTimeout: the peer has stopped to answer this side's IKE daemon.
func dpdTimeout(f *facts) verdict {
	out := f.Capture.Talk.Out
	if out.DPD.Trailing == 0 || out.Retransmissions < minWirePackets-1 || !f.Capture.Talk.Whole {
		return no
	}
	v := yes(Certain, say("%d dead peer detection requests of this side's IKE daemon were given up unanswered after %d retransmissions", "本端 IKE 服务的 %d 个 DPD 请求在重发 %d 次后仍无应答", out.DPD.Missed, out.Retransmissions))
	v.harmless = f.works()
	return v
}

// ikeExchangeTimeout: a negotiation that this side's IKE daemon began gets no
// answer, at its first message or at its first encrypted one.
func ikeExchangeTimeout(f *facts) verdict {
	n, ok := f.Capture.Talk.Newest.Get()
	if !ok || !n.Ours || !f.Capture.Talk.Whole || f.Capture.Talk.Out.Retransmissions < minWirePackets-1 {
		return no
	}
	var seen Text
	switch n.Reached {
	case evidence.ReachedAsked:
		seen = say("the first message of this side's IKE daemon gets no answer (%d negotiations, %d retransmissions)", "本端 IKE 服务的首个报文无应答（%d 次协商，重发 %d 次）", n.Repeated, f.Capture.Talk.Out.Retransmissions)
	case evidence.ReachedAuthSent:
		where := 500
		if n.NATT {
			where = 4500
		}
		seen = say("the peer answers the first message of this side's IKE daemon, and not the first encrypted one, on UDP %d (%d negotiations, %d retransmissions)", "对端应答了本端 IKE 服务的首个报文，但未应答 UDP %d 上的首个加密报文（%d 次协商，重发 %d 次）", where, n.Repeated, f.Capture.Talk.Out.Retransmissions)
	default:
		return no
	}
	v := yes(Certain, seen)
	v.harmless = f.works()
	return v
}

// multiValueProposal: a side offers several values of an attribute, of which a
// peer that takes one only refuses the whole. Where the other side chose, it
// is worth knowing at most.
func multiValueProposal(f *facts) verdict {
	v := no
	for _, o := range f.Capture.Talk.Offers {
		if len(o.Multiple) == 0 || !o.Answered.Known() {
			continue
		}
		who := say("the peer", "对端")
		if o.Ours {
			who = say("this side", "本端")
		}
		what := strings.Join(o.Multiple, ", ")
		seen := Text{
			EN: fmt.Sprintf("%s offers several values of: %s (%s)", who.EN, what, o.Text),
			ZH: fmt.Sprintf("%s就以下属性提供了多个取值：%s（%s）", who.ZH, what, o.Text),
		}
		harmless := o.Answered == evidence.Yes || f.works()
		if !v.holds {
			v = yes(Possible)
			v.harmless = true
		}
		v.harmless = v.harmless && harmless
		v.evidence = append(v.evidence, seen)
		if !harmless {
			v.evidence = append(v.evidence, say("it was refused", "该提议被拒绝"))
		}
	}
	return v
}

// authRefusedOnWire returns the newest negotiation if its pre-shared key was
// refused, as the size of the encrypted answer tells (docs/capture.md).
func (f *facts) authRefusedOnWire() (evidence.IKENegotiation, bool) {
	n, ok := f.Capture.Talk.Newest.Get()
	return n, ok && n.Reached == evidence.ReachedRejected && n.Certificates != evidence.Yes && !f.Auth.Time.Known()
}

// childRefusedOnWire is the same for the child SA.
func (f *facts) childRefusedOnWire() (evidence.IKENegotiation, bool) {
	n, ok := f.Capture.Talk.Newest.Get()
	return n, ok && n.ChildRefused == evidence.Yes && !f.Auth.Time.Known() && f.saUp() != evidence.Yes && !f.works()
}

// answerText says what the encrypted answer of a negotiation was.
func answerText(n evidence.IKENegotiation) Text {
	who := say("by the peer", "由对端发起")
	if n.Ours {
		who = say("by this side", "由本端发起")
	}
	answer := say("no encrypted answer", "无加密应答")
	if n.AnswerBytes > 0 {
		answer = say("the encrypted answer has %d bytes", "加密应答为 %d 字节", n.AnswerBytes)
	}
	return Text{
		EN: fmt.Sprintf("negotiation %s, IKEv%d, %s: %s (%d in a row)", who.EN, n.Version, cmp.Or(n.Suite, "unknown algorithms"), answer.EN, n.Repeated),
		ZH: fmt.Sprintf("协商%s，IKEv%d，%s：%s（连续 %d 次）", who.ZH, n.Version, cmp.Or(n.Suite, "算法未知"), answer.ZH, n.Repeated),
	}
}

// encapTypeMismatch: one end wraps ESP in UDP and the other does not. The
// kernel drops what arrives in the other form than its SA's (XfrmInStateMismatch,
// net/xfrm/xfrm_input.c).
func encapTypeMismatch(f *facts) verdict {
	in, out := f.Capture.In, f.Capture.Out
	raw := func(encap bool) uint64 {
		if encap {
			return in.ESP.Packets
		}
		return in.ESPInUDP.Packets
	}
	expected := func(encap bool) uint64 { return in.ESP.Packets + in.ESPInUDP.Packets - raw(encap) }
	texts := func(encap bool, n uint64) Text {
		if encap {
			return say("the peer sends plain ESP (%d packets), this side wraps it in UDP 4500", "对端发送裸 ESP（%d 个包），而本端封装于 UDP 4500", n)
		}
		return say("the peer wraps ESP in UDP 4500 (%d packets), this side sends it plain", "对端将 ESP 封装于 UDP 4500（%d 个包），而本端发送裸 ESP", n)
	}
	if f.saUp() == evidence.Yes {
		encap := f.encapsulated()
		if raw(encap) < minWirePackets || expected(encap) > 0 || f.Host.Tunnel.In.Packets > 0 {
			return no
		}
		seen := []Text{texts(encap, raw(encap)), say("this host's SAs took none of them", "本机 SA 未接收其中任何一个")}
		if f.inboundSPISeen(!encap) {
			return yes(Certain, append(seen, say("they carry the SPI of this host's SA", "其 SPI 与本机 SA 一致"))...)
		}
		return yes(Likely, seen...)
	}
	if !f.recorded() {
		return no
	}
	encap := out.ESPInUDP.Packets >= minWirePackets
	if encap == (out.ESP.Packets >= minWirePackets) || raw(encap) < minWirePackets || expected(encap) > 0 {
		return no
	}
	return yes(Likely, texts(encap, raw(encap)), say("the two directions never use the same form", "两个方向从未使用相同的封装形式"))
}

// inboundSPISeen reports whether packets in the given form came in with the
// SPI of one of this host's inbound SAs.
func (f *facts) inboundSPISeen(encap bool) bool {
	for _, flow := range f.Capture.Flows {
		for _, sa := range f.Host.Tunnel.SAs {
			if flow.Inbound && flow.Encap == encap && sa.Inbound && sa.SPI == flow.SPI {
				return true
			}
		}
	}
	return false
}

// leak returns the leak of one kind, if there are enough packets of it.
func (f *facts) leak(kind evidence.LeakKind) (evidence.Leak, bool) {
	for _, l := range f.Capture.Leaks {
		if l.Kind == kind && l.Packets >= minWirePackets {
			return l, true
		}
	}
	return evidence.Leak{}, false
}

func leakText(l evidence.Leak) Text {
	return say("%d packets left in clear for a remote subnet, the last from %s to %s (IP protocol %d)", "%d 个发往对端网段的报文以明文发出，最近一个从 %s 发往 %s（IP 协议 %d）", l.Packets, l.Source, l.Destination, l.Protocol)
}

// natBeforeIPsec: packets for a remote subnet leave in clear, with the
// gateway's own address though it only forwards them: Linux looks for a policy
// again after source NAT, and finds none (net/netfilter/nf_nat_core.c,
// nf_xfrm_me_harder).
func natBeforeIPsec(f *facts) verdict {
	l, ok := f.leak(evidence.LeakRewritten)
	if !ok || f.Host.Tunnel.Policy == evidence.No {
		return no // without a policy anything leaves in clear
	}
	return yes(Likely, leakText(l), say("their hop limit shows that this gateway forwarded them: it rewrote their source before IPsec could take them", "其跳数表明报文由本网关转发：其源地址在进入 IPsec 之前被改写"))
}

// selectorNotCovering: packets for a remote subnet leave in clear, as they
// were sent. From a source that is not declared as local, that may be intended.
func selectorNotCovering(f *facts) verdict {
	if f.Host.Tunnel.Policy == evidence.No {
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

// asymmetricTunnels: of two tunnels to one site, one carries what goes out and
// the other what comes in.
func asymmetricTunnels(f *facts) verdict {
	s, ok := f.reverse()
	if !ok {
		return no
	}
	in, out := f.tunnelTraffic()
	v := yes(Likely,
		say("this tunnel: %d packets out, %d in", "本隧道：发出 %d 个包，收到 %d 个", out, in),
		say("tunnel %s to the same subnets: %d packets out, %d in", "通往相同网段的隧道 %s：发出 %d 个包，收到 %d 个", s.Peer, s.Out.Packets, s.In.Packets))
	v.harmless = f.innerAnswers() == evidence.Yes
	return v
}

// reverse returns the sibling that carries the other direction of this
// tunnel's traffic.
func (f *facts) reverse() (evidence.Sibling, bool) {
	in, out := f.tunnelTraffic()
	for _, s := range f.Siblings {
		if oneSided(out, in) && oneSided(s.In.Packets, s.Out.Packets) || oneSided(in, out) && oneSided(s.Out.Packets, s.In.Packets) {
			return s, true
		}
	}
	return evidence.Sibling{}, false
}

// oneSided reports whether a tunnel is used in one direction. The other one
// need not be silent: the remote gateway itself answers probes that expire at it
// through the tunnel that they came by.
func oneSided(much, little uint64) bool { return much >= minOneWay && much >= 4*little }

// tunnelTraffic is what the tunnel carried, by the SAs where they can be read.
func (f *facts) tunnelTraffic() (in, out uint64) {
	if f.saUp() == evidence.Yes {
		return f.Host.Tunnel.In.Packets, f.Host.Tunnel.Out.Packets
	}
	return espPackets(f.Capture.In), espPackets(f.Capture.Out)
}

// minInterleaved is how long encrypted packets must leave by two interfaces at
// the same time: a failover moves them from one to the other.
const minInterleaved = 2 * time.Second

// multipathEgress: the tunnel's packets leave by several interfaces at once.
// Where the peer gets them all, that is no fault.
func multipathEgress(f *facts) verdict {
	var seen []Text
	var begin, end time.Time
	for _, i := range f.Capture.Interfaces {
		first, ok := i.FirstOut.Get()
		last, ok2 := i.LastOut.Get()
		if !ok || !ok2 || i.Out.Packets < minWirePackets {
			continue
		}
		seen = append(seen, say("%d encrypted packets left by %s", "%d 个加密报文从 %s 发出", i.Out.Packets, i.Name))
		if begin.Before(first) {
			begin = first
		}
		if end.IsZero() || end.After(last) {
			end = last
		}
	}
	if len(seen) < 2 || end.Sub(begin) < minInterleaved {
		return no
	}
	v := yes(Likely, append(seen, say("both within the same %.0f s", "均在同一段 %.0f 秒内", end.Sub(begin).Seconds()))...)
	v.harmless = f.works() && f.innerLossless()
	return v
}

// innerLossless reports whether no inner echo was lost.
func (f *facts) innerLossless() bool {
	for _, e := range f.inner {
		if e.Lost > 0 {
			return false
		}
	}
	return true
}

// espFragmented: encrypted packets do not fit the path and travel in
// fragments, which cloud gateways and firewalls often drop.
func espFragmented(f *facts) verdict {
	var seen []Text
	for _, d := range []struct {
		w    evidence.WireTraffic
		name Text
	}{{f.Capture.Out, say("out", "发出")}, {f.Capture.In, say("in", "收到")}} {
		for _, k := range []struct {
			c    evidence.FragmentCount
			name string
		}{{d.w.Fragments.ESP, "ESP"}, {d.w.Fragments.ESPInUDP, "UDP 4500"}} {
			if k.c.First < minWirePackets && k.c.Last < minWirePackets {
				continue
			}
			t := Text{
				EN: fmt.Sprintf("%s: %d packets of %s in fragments", d.name.EN, max(k.c.First, k.c.Last), k.name),
				ZH: fmt.Sprintf("%s：%d 个 %s 报文被分片", d.name.ZH, max(k.c.First, k.c.Last), k.name),
			}
			if n := k.c.Incomplete(); n >= minWirePackets && f.Capture.Dropped == 0 {
				t.EN += fmt.Sprintf(", %d of them incomplete", n)
				t.ZH += fmt.Sprintf("，其中 %d 个不完整", n)
			}
			seen = append(seen, t)
		}
	}
	if len(seen) == 0 {
		return no
	}
	return yes(Certain, seen...)
}

// icmpAbout returns the newest ICMP error with one of the reasons about this
// side's packets of one of the kinds.
func (f *facts) icmpAbout(kinds string, reasons ...evidence.ICMPReason) (evidence.WireICMP, bool) {
	var newest evidence.WireICMP
	for _, e := range f.Capture.ICMP {
		for _, r := range reasons {
			if e.Ours && e.Reason == r && strings.Contains(kinds, e.About) && !e.Last.Before(newest.Last) {
				newest = e
			}
		}
	}
	return newest, newest.Count > 0
}

// icmpText says what an ICMP error on the wire says.
func icmpText(e evidence.WireICMP) Text {
	return say("%s answers this side's %s with ICMP %s (%d times)", "%[1]s 以 ICMP %[3]s 应答本端的 %[2]s（%[4]d 次）", e.Sender, e.About, e.Reason, e.Count)
}
