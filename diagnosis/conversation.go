package diagnosis

import (
	"cmp"
	"fmt"
	"strings"

	"vpnprobe/evidence"
)

// dpdNotAnsweredLocally: the peer asks whether this side is alive, and repeats
// the question until it gives up: no answer leaves this host.
func dpdNotAnsweredLocally(f *facts) verdict {
	in := f.Capture.Talk.In
	if n := f.Capture.Talk.Ignored; n > 0 && f.Capture.Talk.Whole && (f.saUp() == evidence.Yes || f.recorded()) {
		v := yes(Likely,
			say("the peer repeats its requests (%d of them three times or more), and this side's IKE daemon says nothing at all", "对端不断重发请求（其中 %d 个重发至少两次），而本端 IKE 服务毫无应答", n),
			say("the capture began too late to see an answer to any of its kind", "抓包开始得较晚，未看到此前对此类请求的应答"))
		queue, known := f.Host.IKEBacklog.Get()
		if known && queue > 0 {
			v.evidence = append(v.evidence, say("%d bytes wait at this host's IKE ports for the daemon to read them", "本机 IKE 端口有 %d 字节等待 IKE 服务读取", queue))
		} else if f.unrefuted() {
			// Requests for an SPI that nobody uses may be forged, and a daemon
			// may ignore them.
			v.confidence, v.harmless = Possible, true
		}
		return v
	}
	if in.DPD.Trailing == 0 || in.Retransmissions < minWirePackets-1 || !f.Capture.Talk.Whole {
		return no
	}
	v := yes(Certain,
		say("%d dead peer detection requests of the peer came in and were given up unanswered, %d were answered before", "收到对端 %d 个 DPD 请求但未应答，此前应答过 %d 个", in.DPD.Missed, in.DPD.Answered),
		say("it repeated its requests %d times; no answer left this host", "对端重发请求 %d 次；本机没有发出应答", in.Retransmissions))
	// After a restart or a failover the peer may still ask for the IKE SA before.
	v.harmless = f.works() && in.Answered > 0
	return v
}

// dpdTimeout: the peer has stopped to answer this side's IKE daemon.
func dpdTimeout(f *facts) verdict {
	out := f.Capture.Talk.Out
	if out.DPD.Trailing == 0 || out.Retransmissions < minWirePackets-1 || !f.Capture.Talk.Whole {
		return no
	}
	v := yes(Certain, say("%d dead peer detection requests of this side's IKE daemon were given up unanswered after %d retransmissions", "本端 IKE 服务的 %d 个 DPD 请求在重发 %d 次后仍无应答", out.DPD.Missed, out.Retransmissions))
	v.harmless = f.unrefuted()
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
		if n.AnswerBytes > 0 {
			return no // there was an answer, of a length that tells nothing
		}
		where := 500
		if n.NATT {
			where = 4500
		}
		seen = say("the peer answers the first message of this side's IKE daemon, and not the first encrypted one, on UDP %d (%d negotiations, %d retransmissions)", "对端应答了本端 IKE 服务的首个报文，但未应答 UDP %d 上的首个加密报文（%d 次协商，重发 %d 次）", where, n.Repeated, f.Capture.Talk.Out.Retransmissions)
	default:
		return no
	}
	v := yes(Certain, seen)
	if n.Version == 1 && n.Reached == evidence.ReachedAuthSent {
		v.evidence = append(v.evidence, say("IKEv1 has no answer for what it cannot decrypt: a wrong key looks the same", "IKEv1 对无法解密的报文没有应答：密钥错误时表现相同"))
	}
	v.harmless = f.unrefuted()
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
		harmless := o.Answered == evidence.Yes || f.unrefuted()
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
