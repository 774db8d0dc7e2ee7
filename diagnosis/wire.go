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
		seen := []Text{texts(encap, raw(encap)), say("this host's SAs took none of them", "本机 SA 未接收其中任何一个")}
		if f.inboundSPISeen(!encap) {
			return yes(Certain, append(seen, say("they carry the SPI of this host's SA", "其 SPI 与本机 SA 一致"))...)
		}
		return yes(Likely, seen...)
	}
	if !f.recorded() || !f.Capture.Whole() {
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

// espFragmented: encrypted packets do not fit the path and travel in
// fragments, which cloud gateways and firewalls often drop.
func espFragmented(f *facts) verdict {
	var seen []Text
	for _, d := range []struct {
		w     evidence.WireTraffic
		name  Text
		whole bool
	}{
		{f.Capture.Out, say("out", "发出"), f.Capture.Whole()},
		{f.Capture.In, say("in", "收到"), f.Capture.Conclusive()},
	} {
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
			if n := k.c.Incomplete(); n >= minWirePackets && d.whole {
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
