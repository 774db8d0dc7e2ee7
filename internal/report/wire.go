package report

import (
	"fmt"

	"vpnprobe/evidence"
)

// wireRows adds what passed on the underlay: how it was watched, the packets
// of each direction, and what is worth a row of its own.
func (t *text) wireRows(s *evidence.Snapshot, add func(name string, cells ...string)) {
	c := s.Capture
	add(t.say("capture", "抓包"), t.captureMode(c))
	if c.Seen() {
		add(t.say("wire in", "线路入向"), t.wire(c, c.In, true))
		add(t.say("wire out", "线路出向"), t.wire(c, c.Out, false))
		t.flows(c, s.Time, add)
		if len(c.Interfaces) > 1 {
			for _, i := range c.Interfaces {
				add(t.say("wire on", "线路接口"), t.interfaceTraffic(i))
			}
		}
		for _, l := range c.Leaks {
			add(t.say("IN CLEAR", "明文泄漏"), t.leak(l, s.Time))
		}
		t.icmpErrors(c.ICMP, s.Time, add)
	}
	for _, x := range s.Siblings {
		add(t.say("other tunnel", "其他隧道"), clean(x.Peer)+t.say(": ", "：")+t.bothWays(x.In, x.Out))
	}
}

// captureMode writes where the counts come from and why there is no better
// source. That nothing is seen, and why, is listed elsewhere.
func (t *text) captureMode(c evidence.Capture) string {
	var mode string
	switch c.Mode {
	case evidence.CaptureBPF:
		mode = t.say("counted in the kernel (eBPF)", "内核中计数（eBPF）")
	case evidence.CaptureRing:
		mode = t.say("packet ring (AF_PACKET)", "报文环（AF_PACKET）")
	case evidence.CaptureSA:
		mode = t.say("no packets, only the kernel's SA counters", "看不到报文，仅有内核的 SA 计数")
	case evidence.CaptureFile:
		mode = t.say("recorded file", "抓包文件")
	default:
		return ""
	}
	return t.join(mode, t.captureWhy(c.Why))
}

func (t *text) captureWhy(w evidence.CaptureWhy) string {
	switch w {
	case evidence.CaptureBest:
		return ""
	case evidence.CaptureConfigured:
		return t.say("as configured", "按配置")
	case evidence.CaptureNoPermission:
		return t.say("a better mode lacks a capability", "缺少更优方式所需的权限")
	case evidence.CaptureNoKernel:
		return t.say("this kernel has no better mode", "内核不支持更优方式")
	case evidence.CaptureNoInterface:
		return t.say("no interface for a better mode", "没有可用于更优方式的接口")
	case evidence.CaptureHidden:
		return t.say("ESP offload may hide inbound ESP", "ESP 卸载可能隐藏入向 ESP")
	case evidence.CaptureRate:
		return t.say("one second in ten, for there is too much traffic to look at all of it", "流量过大，每十秒只监听一秒")
	case evidence.CaptureFailed:
		return t.say("a better mode failed", "更优方式启用失败")
	}
	return clean(string(w))
}

// wire writes what the capture saw in one direction.
func (t *text) wire(c evidence.Capture, w evidence.WireTraffic, inbound bool) string {
	var parts []string
	for _, p := range []struct {
		name  string
		count evidence.Traffic
	}{{"ESP", w.ESP}, {t.say("ESP in UDP", "UDP 封装 ESP"), w.ESPInUDP}, {"AH", w.AH}} {
		if p.count.Packets > 0 {
			parts = append(parts, p.name+" "+t.traffic(p.count))
		}
	}
	parts = append(parts, t.sequence(c, w.Sequence, inbound)...)
	var ike uint64
	for _, n := range w.IKE {
		ike += n
	}
	for _, p := range []struct {
		name  string
		count uint64
	}{{"IKE", ike}, {t.say("NAT keepalives", "NAT 保活"), w.NATKeepalives}} {
		if p.count > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", p.name, p.count))
		}
	}
	if f := t.fragments(w.Fragments, c.LossDoubt(inbound) == evidence.LossKnown); f != "" {
		parts = append(parts, f)
	}
	if len(parts) == 0 {
		return t.say("nothing of the peer", "没有该对端的报文")
	}
	return t.join(parts...)
}

// sequence writes what the sequence numbers tell. What the capture missed
// cannot make a packet late or double, so only loss needs a whole window.
func (t *text) sequence(c evidence.Capture, s evidence.Sequence, inbound bool) []string {
	var parts []string
	if s.Expected > 1 { // of a single packet nothing can be missing
		parts = append(parts, t.loss(c, s, inbound))
	}
	if s.Reordered > 0 {
		parts = append(parts, fmt.Sprintf(t.say("%d reordered by up to %d", "%d 个乱序（最深 %d）"), s.Reordered, s.Depth))
	}
	if s.Duplicates > 0 {
		parts = append(parts, t.count(s.Duplicates, "duplicate", "%d 个重复"))
	}
	if s.Discontinuities > 0 {
		parts = append(parts, fmt.Sprintf(t.say("sequence numbers jumped %d×", "序列号跳变 %d 次"), s.Discontinuities))
	}
	return parts
}

func (t *text) loss(c evidence.Capture, s evidence.Sequence, inbound bool) string {
	switch c.LossDoubt(inbound) {
	case evidence.LossDropped:
		return t.say("loss not known (the capture dropped packets)", "丢包未知（抓包自身有丢弃）")
	case evidence.LossUnwatched:
		return t.say("loss not known (not watched all the time)", "丢包未知（未全程监听）")
	case evidence.LossHidden:
		return t.say("loss not known (packets may bypass the capture)", "丢包未知（报文可能绕过抓包）")
	}
	if s.Lost == 0 {
		return t.say("none lost", "无丢包")
	}
	ratio := 100 * float64(s.Lost) / float64(s.Expected)
	format := t.say("%d lost (%.3g %%)", "丢失 %d 个（%.3g %%）")
	// A number that was given out and never passed was lost before the
	// capture, not on the way to the peer.
	switch {
	case inbound:
	case c.Mode == evidence.CaptureFile:
		format = t.say("%d lost before the capture (%.3g %%)", "在抓包点之前丢失 %d 个（%.3g %%）")
	default:
		format = t.say("%d lost before they left this host (%.3g %%)", "离开本机前丢失 %d 个（%.3g %%）")
	}
	return t.join(fmt.Sprintf(format, s.Lost, ratio), t.bursts(s.Bursts))
}

// bursts writes the length of the longest runs of lost packets, unless all
// were lost one by one.
func (t *text) bursts(b []uint64) string {
	for i := len(b) - 1; i > 0; i-- {
		switch {
		case b[i] == 0:
		case i == len(b)-1:
			return fmt.Sprintf(t.say("in runs of %d and more", "连续丢失达 %d 个或更多"), uint64(1)<<min(i, 63))
		default:
			return fmt.Sprintf(t.say("in runs of up to %d", "连续丢失最多 %d 个"), uint64(1)<<min(i+1, 63)-1)
		}
	}
	return ""
}

// fragments counts them by what they are parts of. Only a window in which
// nothing was missed can tell that parts are missing.
func (t *text) fragments(f evidence.Fragments, whole bool) string {
	if f.Total() == 0 {
		return ""
	}
	var of []string
	for _, k := range []struct {
		name  string
		count evidence.FragmentCount
	}{{"ESP", f.ESP}, {t.say("ESP in UDP", "UDP 封装 ESP"), f.ESPInUDP}, {"IKE", f.IKE}} {
		if n := k.count.Total(); n > 0 {
			of = append(of, fmt.Sprintf("%s %d", k.name, n))
		}
	}
	if n := f.Incomplete(); whole && n > 0 {
		of = append(of, t.count(n, "packet", "%d 个报文")+t.say(" incomplete", "不完整"))
	}
	return fmt.Sprintf(t.say("fragments %d", "分片 %d"), f.Total()) + t.aside(t.join(of...))
}
