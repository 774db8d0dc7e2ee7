package exporter

import (
	"fmt"

	"vpnprobe/evidence"
)

// wire writes, in a few words each, what passed on the underlay: how it was
// watched, ESP in each direction, and what is wrong.
func (w words) wire(c evidence.Capture) []string {
	mode := w.captureMode(c.Mode)
	if mode == "" {
		return nil
	}
	out := []string{mode}
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if c.Seen() {
		if c.Over > 0 && c.Watched < c.Over {
			add(w.pick("watched %.3g %% of the time", "监听了 %.3g %% 的时间"), 100*c.Watched.Duration().Seconds()/c.Over.Duration().Seconds())
		}
		if c.Dropped > 0 {
			add(w.pick("%d dropped by the capture", "抓包丢弃 %d 个"), c.Dropped)
		}
		if c.Blind == evidence.Yes {
			add("%s", w.pick("inbound ESP may bypass it", "入向 ESP 可能绕过抓包"))
		}
		add("%s", w.esp(w.pick("ESP in ", "ESP 入 "), c.In, c.LossDoubt(true) == evidence.LossKnown, w.pick("lost", "丢包")))
		add("%s", w.esp(w.pick("ESP out ", "ESP 出 "), c.Out, c.LossDoubt(false) == evidence.LossKnown, w.pick("lost on this host", "本机丢包")))
	}
	for _, x := range []struct {
		n           uint64
		one, en, zh string
	}{
		{leaked(c.Leaks), "1 packet in clear", "%d packets in clear", "%d 个明文报文"},
		{c.In.Fragments.Total() + c.Out.Fragments.Total(), "1 fragment", "%d fragments", "%d 个分片"},
		{c.Talk.Out.DPD.Trailing, "the last DPD not answered by the peer", "the last %d DPD not answered by the peer", "对端未应答最近 %d 次 DPD"},
		{c.Talk.In.DPD.Trailing, "the last DPD not answered by this side", "the last %d DPD not answered by this side", "本端未应答最近 %d 次 DPD"},
		{c.Talk.RekeysFailed, "1 rekey failed", "%d rekeys failed", "%d 次重协商失败"},
	} {
		switch {
		case x.n == 0:
		case x.n == 1 && !w.zh:
			out = append(out, x.one)
		default:
			add(w.pick(x.en, x.zh), x.n)
		}
	}
	if n, ok := c.Talk.Newest.Get(); ok {
		if stage := w.reached(n); stage != "" {
			add("IKEv%d: %s", n.Version, stage)
		}
	}
	return out
}

func (w words) captureMode(m evidence.CaptureMode) string {
	switch m {
	case evidence.CaptureBPF:
		return w.pick("counted in the kernel", "内核中计数")
	case evidence.CaptureRing:
		return w.pick("packet ring", "报文环")
	case evidence.CaptureSA:
		return w.pick("no packets seen, only the kernel's SA counters", "看不到报文，仅有内核的 SA 计数")
	case evidence.CaptureFile:
		return w.pick("recorded file", "抓包文件")
	}
	return ""
}

// esp writes what carried the tunnel in one direction, and what was lost. What
// is sent and does not pass the capture was lost before it left.
func (w words) esp(name string, t evidence.WireTraffic, known bool, lost string) string {
	packets := t.ESP.Packets + t.ESPInUDP.Packets + t.AH.Packets
	switch {
	case packets == 0:
		return name + w.pick("none", "无")
	case !known || t.Sequence.Expected <= 1:
		return name + w.count(packets, "packet", "%d 包")
	}
	ratio := 100 * float64(t.Sequence.Lost) / float64(t.Sequence.Expected)
	return name + fmt.Sprintf(w.pick("%[1]s, %.3[2]g %% %[3]s", "%[1]s，%[3]s %.3[2]g %%"), w.count(packets, "packet", "%d 包"), ratio, lost)
}

func leaked(leaks []evidence.Leak) uint64 {
	var n uint64
	for _, l := range leaks {
		n += l.Packets
	}
	return n
}

// reached writes where a negotiation ended that came to nothing.
func (w words) reached(n evidence.IKENegotiation) string {
	switch n.Reached {
	case evidence.ReachedAsked:
		return w.pick("the first message is not answered", "首个报文无应答")
	case evidence.ReachedRefused:
		return w.pick("the first message is refused ", "首个报文被拒绝 ") + n.Notify
	case evidence.ReachedAuthSent:
		return w.pick("the authentication is not answered", "认证报文无应答")
	case evidence.ReachedRejected:
		return w.pick("the authentication is refused", "认证被拒绝")
	case evidence.ReachedIKE:
		return w.pick("authenticated, no child SA", "认证通过，子 SA 未建立")
	}
	return ""
}
