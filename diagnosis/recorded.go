package diagnosis

import (
	"cmp"

	"vpnprobe/evidence"
)

// recordedVerdict is the verdict on a recorded capture in which no rule found a
// fault: ok only when ESP passes both ways in it, or a negotiation comes to its
// end.
func (f *facts) recordedVerdict() Finding {
	c := f.Capture
	in, out := espPackets(c.In), espPackets(c.Out)
	n, negotiated := c.Talk.Newest.Get()
	child := negotiated && n.Reached == evidence.ReachedChild
	switch {
	case in > 0 && out > 0:
		works := []Text{say("on the wire: %d ESP packets out, %d in", "线路上：发出 %d 个 ESP 报文，收到 %d 个", out, in)}
		if child {
			works = append(works, agreedText(n))
		}
		return healthyFinding(Certain, works)
	case child && in+out < minOneWay:
		return healthyFinding(Likely, []Text{say("a negotiation came to its end; the tunnel carried next to nothing (%d ESP packets)", "协商成功完成；隧道几乎没有流量（%d 个 ESP 报文）", in+out), agreedText(n)})
	}
	return Finding{Label: Undecided, Severity: Info, Confidence: Possible, Role: Cause, Evidence: f.recordedGaps(),
		Remedy: say("record for longer, on the underlay interface, while somebody uses the tunnel; or let the agent probe from the gateway itself", "在底层接口上、有人使用隧道时录制更长时间；或在网关上直接用 agent 探测")}
}

// healthyFinding is the verdict that all works.
func healthyFinding(c Confidence, works []Text) Finding {
	return Finding{Label: OK, Severity: Info, Confidence: c, Role: Cause, Evidence: works, Remedy: say("nothing to do", "无需处理")}
}

// agreedText says what a negotiation that came to its end agreed on.
func agreedText(n evidence.IKENegotiation) Text {
	return say("the two ends agreed on IKEv%d, %s, and on the tunnel", "两端就 IKEv%d（%s）与隧道达成一致", n.Version, cmp.Or(n.Suite, "?"))
}

// recordedGaps says why a recorded capture does not decide.
func (f *facts) recordedGaps() []Text {
	c := f.Capture
	in, out := espPackets(c.In), espPackets(c.Out)
	why := []Text{say("the capture of %.0f s holds %d ESP packets to the peer and %d from it", "%.0f 秒的抓包中，发往对端的 ESP 报文 %d 个，来自对端 %d 个", c.Over.Duration().Seconds(), out, in)}
	if n, ok := c.Talk.Newest.Get(); ok {
		why = append(why, say("the last negotiation came to stage %s", "最近一次协商到达阶段 %s", n.Reached))
	} else {
		why = append(why, say("it holds no negotiation", "其中没有协商过程"))
	}
	if n := c.Talk.In.DPD.Answered + c.Talk.Out.DPD.Answered; n > 0 {
		why = append(why, say("%d dead peer detection requests were answered: IKE is up", "%d 个 DPD 请求得到应答：IKE 正常", n))
	}
	if c.Dropped > 0 {
		why = append(why, say("%d packets are missing from it, so what is not there proves nothing", "抓包缺失 %d 个报文，因此未出现的内容不能说明问题", c.Dropped))
	}
	return why
}
