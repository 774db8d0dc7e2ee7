package diagnosis

import (
	"fmt"
	"strings"

	"vpnprobe/evidence"
)

// The number of packets, or of fragmented packets, that make a finding of
// something that no single packet proves.
const minWirePackets = 3

// recorded reports whether a recorded capture is all that there is.
func (f *facts) recorded() bool { return f.Capture.Mode == evidence.CaptureFile }

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
		if !f.inboundSPISeen(!encap) {
			return no // anybody can send the other form
		}
		return yes(Certain, texts(encap, raw(encap)), say("they carry the SPI of this host's SA, which took none of them", "其 SPI 与本机 SA 一致，但该 SA 一个也未接收"))
	}
	if !f.recorded() || !f.Capture.Whole() {
		return no
	}
	encap := out.ESPInUDP.Packets >= minWirePackets
	if encap == (out.ESP.Packets >= minWirePackets) || raw(encap) < minWirePackets || expected(encap) > 0 {
		return no
	}
	return yes(Possible, texts(encap, raw(encap)), say("the two directions never use the same form; Linux takes no packet of the other, some gateways do", "两个方向从未使用相同的封装形式；Linux 不接收另一种形式的报文，部分网关可以接收"))
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

// fragmentedShare is the share of the encrypted packets from which fragments are
// more than a few packets that happen to be large.
const fragmentedShare = 0.05

// espFragmented: encrypted packets do not fit the path and travel in
// fragments, which cloud gateways and firewalls often drop. Few that all arrive
// on a tunnel that works are worth knowing only.
func espFragmented(f *facts) verdict {
	v := no
	for _, d := range []struct {
		w     evidence.WireTraffic
		name  Text
		whole bool
		own   uint64
	}{
		{f.Capture.Out, say("out", "发出"), f.Capture.Whole(), 0},
		{f.Capture.In, say("in", "收到"), f.Capture.Conclusive(), f.largeProbes()},
	} {
		for _, k := range []struct {
			c    evidence.FragmentCount
			name string
		}{{d.w.Fragments.ESP, "ESP"}, {d.w.Fragments.ESPInUDP, "UDP 4500"}} {
			// Without a first fragment nothing tells that a part belongs to a flow.
			if k.c.First < minWirePackets+d.own || espPackets(d.w) == 0 {
				continue
			}
			t := Text{
				EN: fmt.Sprintf("%s: %d packets of %s in fragments", d.name.EN, k.c.First, k.name),
				ZH: fmt.Sprintf("%s：%d 个 %s 报文被分片", d.name.ZH, k.c.First, k.name),
			}
			harmless := f.works() && float64(k.c.First) < fragmentedShare*float64(espPackets(d.w))
			if n := k.c.Incomplete(); n >= minWirePackets && d.whole {
				t.EN += fmt.Sprintf(", %d of them incomplete", n)
				t.ZH += fmt.Sprintf("，其中 %d 个不完整", n)
				harmless = false
			}
			if !v.holds {
				v = yes(Certain)
				v.harmless = true
			}
			v.evidence = append(v.evidence, t)
			v.harmless = v.harmless && harmless
		}
	}
	return v
}

// sweptLarge is how many large packets a sweep of a path through the tunnel
// sends, about: it may not be over yet.
const sweptLarge = 64

// largeProbes is how many large packets of ours went through the tunnel, at
// most. Their answers are as large, and may be fragmented where those of others,
// which must not be, never are.
func (f *facts) largeProbes() uint64 { return sweptLarge * uint64(len(f.Declared.Inner)) }

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
