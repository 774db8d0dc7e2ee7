package diagnosis

import (
	"cmp"
	"slices"

	"vpnprobe/evidence"
)

// Evaluate decides on one snapshot. It depends on nothing else: the same
// snapshot always gives the same report.
func Evaluate(s *evidence.Snapshot) *Report {
	f := derive(s)
	var found []Finding
	var because []Text
	for i := range ruleset {
		r := &ruleset[i]
		if missing, ok := r.missing(f); ok {
			if !missing.optional() {
				because = append(because, say("%s cannot be decided without: %s", "缺少以下观测，无法判断 %s：%s", r.Label, missing))
			}
			continue
		}
		v := r.decide(f)
		if !v.holds {
			continue
		}
		severity := r.Severity
		if v.harmless {
			severity = Info
		}
		found = append(found, Finding{
			Label: r.Label, Severity: severity, Confidence: v.confidence,
			Role: Contributing, Evidence: v.evidence, Remedy: r.Remedy,
		})
	}
	return assemble(s, f, found, because)
}

// assemble orders the findings, gives them their roles and adds the verdict
// where no rule gave one.
func assemble(s *evidence.Snapshot, f *facts, found []Finding, because []Text) *Report {
	slices.SortStableFunc(found, func(a, b Finding) int {
		return cmp.Or(
			cmp.Compare(rank(a.Severity), rank(b.Severity)),
			cmp.Compare(order(a.Label), order(b.Label)))
	})
	r := &Report{Peer: s.Peer, Gateway: s.Declared.Gateway, Time: s.Time, Duration: s.Window.Duration(), Snapshot: s}
	if len(found) == 0 || found[0].Severity == Info {
		r.Findings = append([]Finding{healthyOrUnknown(f, because)}, found...)
		r.Summary = SummaryOf(r.Findings[0].Label)
		return r
	}
	found[0].Role = Cause
	explained := explainedBy(found[0].Label)
	for i := 1; i < len(found); i++ {
		if explained[found[i].Label] {
			found[i].Role = Suppressed
		}
	}
	slices.SortStableFunc(found, func(a, b Finding) int { return cmp.Compare(roleRank(a.Role), roleRank(b.Role)) })
	r.Findings = found
	r.Summary = SummaryOf(found[0].Label)
	return r
}

// rank puts what is only worth knowing behind every fault.
func rank(s Severity) int {
	if s == Info {
		return 1
	}
	return 0
}

// symptomOrder is behind every rule that tells why, but for the generic
// tunnel_down, which tells less than any.
const symptomOrder = 98

// order is a rule's precedence among those that hold.
func order(l Label) int {
	r := ruleOf(l)
	if r.Symptom {
		return max(r.Precedence, symptomOrder)
	}
	return r.Precedence
}

func roleRank(r Role) int { return slices.Index([]Role{Cause, Contributing, Suppressed}, r) }

// explainedBy returns every label that the given one explains, directly or
// through others.
func explainedBy(l Label) map[Label]bool {
	out := map[Label]bool{}
	var walk func(Label)
	walk = func(l Label) {
		for _, e := range ruleOf(l).Explains {
			if !out[e] {
				out[e] = true
				walk(e)
			}
		}
	}
	walk(l)
	return out
}

// healthyOrUnknown is the verdict when no rule found a fault: ok only when
// something was seen to work and nothing that was declared is undecided.
func healthyOrUnknown(f *facts, because []Text) Finding {
	if f.recorded() {
		return f.recordedVerdict()
	}
	var works []Text
	if _, r := port(f.ike500); r.Outcome == evidence.IKEAnswered {
		works = append(works, say("IKE is answered on UDP 500 (%s)", "UDP 500 上的 IKE 有应答（%s）", r.Notify))
	}
	if _, r := port(f.ike4500); r.Outcome == evidence.IKEAnswered {
		works = append(works, say("IKE is answered on UDP 4500 (%s)", "UDP 4500 上的 IKE 有应答（%s）", r.Notify))
	}
	if mine, _, ok := f.offers(); ok && mine.Declared == evidence.Yes {
		works = append(works, say("the peer takes a declared IKE proposal", "对端接受所声明的 IKE 提议"))
	}
	if f.Auth.Stage == evidence.StageComplete {
		works = append(works, say("a negotiation with the key succeeded", "使用密钥的协商成功"))
	}
	if f.tunnelReceives() == evidence.Yes {
		works = append(works, say("encrypted traffic comes in from the peer (%d packets)", "收到来自对端的加密流量（%d 个包）",
			max(f.Host.Tunnel.In.Packets, espPackets(f.Capture.In))))
	}
	if f.innerAnswers() == evidence.Yes {
		works = append(works, say("an inner host answers", "内部主机有应答"))
	}
	innerPending := len(f.inner) > 0 && f.innerAnswers() != evidence.Yes
	ike := f.ikeAnswers() == evidence.Yes
	if !innerPending && (ike || f.works()) && !f.unagreed() {
		confidence := Certain
		switch {
		case f.works() && !ike && f.tunnelReceives() != evidence.Yes:
			confidence = Likely // an answer that may have come another way
		case !f.works() && f.saUp() != evidence.Yes && f.Auth.Stage != evidence.StageComplete && f.engaged():
			confidence = Likely
			works = append(works, say("no tunnel was seen: there is no SA here, and no inner host is declared; key, identities, ESP and subnets are not checked", "未观测到隧道：本机没有 SA，也未声明内部主机；密钥、标识、ESP 与网段未经检查"))
		}
		return healthyFinding(confidence, works)
	}
	if f.ResolveErr != "" && len(f.Addresses) == 0 {
		return Finding{Label: Undecided, Severity: Info, Confidence: Possible, Role: Cause, Evidence: f.undecided()[:1],
			Remedy: say("make the gateway's name resolve here, or give its address", "使网关域名在本机可解析，或改用其地址")}
	}
	why := append(f.undecided(), because...)
	if len(why) == 0 {
		why = []Text{say("nothing was observed yet", "尚无观测结果")}
	}
	return Finding{Label: Undecided, Severity: Info, Confidence: Possible, Role: Cause, Evidence: why,
		Remedy: say("give the agent what it could not see, or observe for longer", "补上代理看不到的权限或信息，或延长观测时间")}
}

// unagreed reports whether somebody wanted to know if the ends would agree, and
// nothing tells: the peer was asked in vain for what is declared, or a
// negotiation with the key did not come to its end.
func (f *facts) unagreed() bool {
	if f.works() || f.saUp() == evidence.Yes {
		return false
	}
	a := &f.Auth
	if a.CannotLook != "" || a.Skipped != "" || a.Time.Known() && a.Stage != evidence.StageComplete {
		return true
	}
	mine, _, ok := f.offers()
	if !ok {
		mine = f.Ladder.V2
	}
	return f.Ladder.Time.Known() && f.engaged() && len(f.Declared.IKEProposals) > 0 && mine.Declared != evidence.Yes
}

// undecided lists what kept the rules from deciding, most important first.
func (f *facts) undecided() []Text {
	var why []Text
	if f.ResolveErr != "" {
		why = append(why, say("the gateway's name does not resolve: %s", "网关域名无法解析：%s", f.ResolveErr))
	}
	for _, p := range []evidence.IKEPort{f.ike500, f.ike4500} {
		last, ok := p.Last()
		switch {
		case p.CannotLook != "":
			why = append(why, say("no IKE heartbeat on UDP %d: %s", "无法在 UDP %d 上发送 IKE 心跳：%s", p.Port, p.CannotLook))
		case ok && last.Outcome == evidence.IKESendError:
			why = append(why, say("IKE heartbeats to UDP %d do not leave this host (%s)", "发往 UDP %d 的 IKE 心跳未能离开本机（%s）", p.Port, last.Send))
		case ok && last.Outcome == evidence.IKESilent:
			why = append(why, say("the peer's UDP %d is silent, which a peer that works may be", "对端 UDP %d 无应答，正常的对端也可能如此", p.Port))
		}
	}
	if f.unagreed() && f.Auth.Stage != "" {
		why = append(why, say("the negotiation with the key ended at stage %s (%s)", "使用密钥的协商止于 %s 阶段（%s）", f.Auth.Stage, cmp.Or(f.Auth.Notify, "-")))
	}
	if f.unagreed() && f.Ladder.Time.Known() {
		why = append(why, say("whether the peer takes the declared proposal was not found", "未能确定对端是否接受所声明的提议"))
	}
	for _, skipped := range f.Ladder.Skipped {
		why = append(why, say("the peer was not asked %s (%s)", "未向对端询问 %s（%s）", skipped.Step, skipped.Reason))
	}
	if f.Auth.Skipped != "" || f.Auth.CannotLook != "" {
		why = append(why, say("no negotiation with the key: %s", "未使用密钥进行协商：%s", cmp.Or(f.Auth.Skipped, f.Auth.CannotLook)))
	}
	for _, e := range f.Echoes {
		switch {
		case e.CannotLook != "":
			why = append(why, say("no ping to %s: %s", "无法 ping %s：%s", e.Target, e.CannotLook))
		case e.TrailingUnsent > 0:
			why = append(why, say("pings to %s do not leave this host (%s)", "发往 %s 的 ping 未能离开本机（%s）", e.Target, sendReasons(e)))
		}
	}
	if silent, _ := f.lostInner(); len(silent) > 0 {
		why = append(why, say("%s does not answer through the tunnel, and no cause shows from here", "%s 未通过隧道应答，且从本机看不出原因", targets(silent)))
	}
	if f.innerAnswers() == evidence.Yes && f.elsewhere() {
		why = append(why, say("an inner host answers, but nothing shows that it does so through this peer", "内部主机有应答，但没有迹象表明应答经过该对端"))
	}
	if f.Host.Tunnel.CannotLook != "" {
		why = append(why, say("the kernel's IPsec state cannot be read: %s", "无法读取内核的 IPsec 状态：%s", f.Host.Tunnel.CannotLook))
	}
	return why
}
