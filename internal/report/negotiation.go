package report

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"vpnprobe/evidence"
)

// negotiation adds the rows that tell what the peer makes of a negotiation:
// what the ladder found, what it had to leave out, and how an authenticated
// attempt ended.
func (t *text) negotiation(s *evidence.Snapshot, add func(name string, cells ...string)) {
	l := &s.Ladder
	add("IKEv2", t.offers(l.V2, chosen(l, evidence.StepInit)))
	if v1 := t.offersV1(l); v1 != "" {
		add("IKEv1", v1+t.asked(l, s.Time, stepsV1...))
	}
	for _, m := range l.Mismatches {
		add(t.say("mismatch", "不匹配"), t.mismatch(m))
	}
	add(t.say("IKE peer", "IKE 对端"), t.peer(l, s.Time))
	for _, x := range l.Large {
		add(t.say("IKE size", "IKE 大小"), t.large(x))
	}
	t.skipped(l.Skipped, s.Time, func(row string) { add(t.say("not asked", "未询问"), row) })
	add(t.say("IKE auth", "IKE 认证"), t.auth(&s.Auth, s.Time))
	for _, line := range lastLines(s.Auth.Said) {
		add("", clean(line))
	}
}

// stepsV1 are the steps whose answers tell about IKEv1 and may be reused.
var stepsV1 = []evidence.LadderStep{
	evidence.StepMain, evidence.StepMainWide, evidence.StepAggressive, evidence.StepAggressiveWide,
}

// offers writes what the peer makes of one way to begin a negotiation.
func (t *text) offers(o evidence.IKEOffers, chosen string) string {
	chosen = t.aside(chosen)
	switch {
	case o.Declared == evidence.Yes:
		return t.say("accepts the declared proposal", "接受所声明的提议") + chosen
	case o.Declared == evidence.No && o.Accepts == evidence.Yes:
		return t.say("refuses the declared proposal, accepts another", "拒绝所声明的提议，接受其他提议") + chosen
	case o.Accepts == evidence.No:
		return t.say("refuses every common algorithm from our address", "拒绝来自本端地址的所有常用算法")
	case o.Declared == evidence.No:
		return t.say("refuses the declared proposal", "拒绝所声明的提议")
	case o.Accepts == evidence.Yes:
		return t.say("accepts a proposal from our address", "接受来自本端地址的提议") + chosen
	}
	return t.fact(o.Answers, t.say("answers", "有应答"), t.say("no answer", "无应答"))
}

// aside puts a text of the peer's in brackets.
func (t *text) aside(s string) string {
	if s == "" {
		return ""
	}
	return t.say(" (", "（") + clean(s) + t.say(")", "）")
}

// offersV1 writes what the peer makes of both modes of IKEv1, once when it
// makes the same of both.
func (t *text) offersV1(l *evidence.Ladder) string {
	mainMode := t.offers(l.Main, chosen(l, evidence.StepMain, evidence.StepMainWide))
	aggressive := t.offers(l.Aggressive, chosen(l, evidence.StepAggressive, evidence.StepAggressiveWide))
	if mainMode == aggressive {
		return mainMode
	}
	return t.join(after(t.say("main mode ", "主模式"), mainMode), after(t.say("aggressive mode ", "野蛮模式"), aggressive))
}

// chosen returns the proposal that the peer chose in one of the steps.
func chosen(l *evidence.Ladder, steps ...evidence.LadderStep) string {
	for _, step := range steps {
		// What an earlier run was told may be true no longer.
		if x, ok := l.Exchange(step); ok && !x.Reused {
			return x.Chosen
		}
	}
	return ""
}

func (t *text) mismatch(m evidence.Mismatch) string {
	accepts := t.say("the peer accepts ", "对端接受 ") + list(m.Accepts)
	if len(m.Accepts) == 0 {
		accepts = t.say("no value was found that the peer accepts", "未找到对端接受的值")
	}
	return fmt.Sprintf(t.say("%s: %s declared -> %s", "%s：声明 %s → %s"), t.attribute(m.Attribute), list(m.Declared), accepts)
}

func (t *text) attribute(a evidence.Attribute) string {
	switch a {
	case evidence.Encryption:
		return t.say("encryption", "加密")
	case evidence.Integrity:
		return t.say("integrity", "完整性")
	case evidence.PRF:
		return "PRF"
	case evidence.Group:
		return t.say("group", "DH 组")
	}
	return clean(string(a))
}

func list(values []string) string { return clean(strings.Join(values, ", ")) }

// peer writes what the peer is and what lies between, in a few words: first
// what a complete answer told, which may be an earlier one, then the rest.
func (t *text) peer(l *evidence.Ladder, now time.Time) string {
	f := l.Features
	told := t.join(clean(f.Implementation), t.nat(f),
		t.fact(f.Fragmentation, t.say("fragments IKE messages", "支持 IKE 分片"), t.say("no IKE fragmentation", "不支持 IKE 分片")),
		after(t.say("redirects to ", "重定向到 "), clean(f.Redirect)))
	if told != "" {
		told += t.asked(l, now, append([]evidence.LadderStep{evidence.StepInit}, stepsV1...)...)
	}
	var cookie, large string
	if l.Cookie {
		cookie = t.say("asks for a cookie: it holds many half-open SAs", "要求 cookie：其半开 SA 很多")
	}
	if slices.ContainsFunc(l.Large, passes) && !slices.ContainsFunc(l.Large, vanishes) {
		large = t.say("large requests pass", "大报文可通过")
	}
	seen := t.join(cookie, large, t.overTCP(l.TCP))
	if told == "" || seen == "" {
		return told + seen
	}
	return told + t.say("; ", "；") + seen
}

func (t *text) nat(f evidence.IKEFeatures) string {
	if f.NATHere == evidence.No && f.NATThere == evidence.No {
		return t.say("no NAT between us", "两端之间无 NAT")
	}
	return t.join(t.fact(f.NATHere, t.say("NAT on our side", "本端位于 NAT 之后"), ""),
		t.fact(f.NATThere, t.say("NAT on its side (or it forces UDP encapsulation)", "对端位于 NAT 之后（或其强制 UDP 封装）"), ""))
}

func (t *text) overTCP(c evidence.IKEOverTCP) string {
	if c.Connected == evidence.Yes {
		return t.fact(c.Answered, t.say("also IKE over TCP 4500", "也支持 TCP 4500"), t.say("TCP 4500 connects without IKE", "TCP 4500 可连接，但无 IKE 应答"))
	}
	return t.fact(c.Connected, "", t.say("no TCP 4500", "TCP 4500 不通"))
}

// after returns a text behind its lead, or nothing when there is none.
func after(lead, s string) string {
	if s == "" {
		return ""
	}
	return lead + s
}

func passes(x evidence.LargeIKE) bool { return x.LargeSent > 0 && x.LargeAnswered == x.LargeSent }

// vanishes reports whether a large request was lost where small ones are
// answered.
func vanishes(x evidence.LargeIKE) bool {
	return x.LargeSent > 0 && !passes(x) && x.SmallAnswered > 0
}

// large writes a comparison of sizes that went badly. A port on which nothing
// is answered has a row of its own already.
func (t *text) large(x evidence.LargeIKE) string {
	if !vanishes(x) {
		return ""
	}
	return fmt.Sprintf(t.say("UDP %d: of %d bytes %d of %d answered, of %d bytes %d of %d", "UDP %d：%d 字节 %d/%d 有应答，%d 字节 %d/%d"),
		x.Port, x.SmallBytes, x.SmallAnswered, x.SmallSent, x.LargeBytes, x.LargeAnswered, x.LargeSent)
}

// asked says how old the oldest answer is that an earlier run was given in one
// of the steps.
func (t *text) asked(l *evidence.Ladder, now time.Time, steps ...evidence.LadderStep) string {
	oldest := now
	for _, x := range l.Exchanges {
		if x.Reused && slices.Contains(steps, x.Step) && x.Sent.Before(oldest) {
			oldest = x.Sent
		}
	}
	if oldest.Equal(now) {
		return ""
	}
	return t.ago(now.Sub(oldest))
}

// ago says how old an answer is.
func (t *text) ago(age time.Duration) string {
	return fmt.Sprintf(t.say(" (asked %s ago)", "（%s 前询问）"), duration(age.Round(time.Second)))
}

// skipped writes the steps that were left out, what each of them would have
// decided, and why, one row per reason.
func (t *text) skipped(steps []evidence.SkippedStep, now time.Time, add func(string)) {
	var reasons []string
	left := map[string][]evidence.LadderStep{}
	for _, s := range steps {
		why := t.skipReason(s, now)
		if left[why] == nil {
			reasons = append(reasons, why)
		}
		if !slices.Contains(left[why], s.Step) {
			left[why] = append(left[why], s.Step)
		}
	}
	for _, why := range reasons {
		if len(left[why]) == 1 {
			name, decides := t.step(left[why][0])
			add(fmt.Sprintf(t.say("%s: %s; it would have shown %s", "%s：%s；本可判断%s"), name, why, decides))
			continue
		}
		var parts []string
		for _, step := range left[why] {
			name, decides := t.step(step)
			part := name + t.say(" (", "（") + decides + t.say(")", "）")
			if !slices.Contains(parts, part) {
				parts = append(parts, part)
			}
		}
		add(t.join(parts...) + t.say(": ", "：") + why)
	}
}

func (t *text) skipReason(s evidence.SkippedStep, now time.Time) string {
	var why, again string
	switch s.Reason {
	case evidence.SkipBudget:
		why = t.say("one such request per 60 s towards this peer", "对该对端每 60 s 只允许一个此类请求")
		if until, ok := s.Until.Get(); ok {
			again = fmt.Sprintf(t.say("possible again in %s", "%s 后可再次询问"), duration(max(time.Second, until.Sub(now)).Round(time.Second)))
		}
	case evidence.SkipNegotiating:
		if s.Detail == "" { // which says so, of which daemon
			why = t.say("this host's IKE daemon is negotiating with the peer", "本机 IKE 进程正在与对端协商")
		}
	case evidence.SkipCookie:
		why = t.say("the peer asked for a cookie, it holds many half-open SAs", "对端要求 cookie，其半开 SA 很多")
	case evidence.SkipTime:
		why = t.say("the run ended first", "本次运行先结束了")
	case evidence.SkipNoState:
		why = t.say("there is no directory to keep the budget in", "没有可保存限额的目录")
	case evidence.SkipUnsupported:
		why = t.say("it has an algorithm that cannot be asked for", "含有无法询问的算法")
	case evidence.SkipNotOnDemand:
		why = t.say("left to agent probe", "仅由 agent probe 询问")
	default:
		why = clean(string(s.Reason))
	}
	return t.join(why, again, clean(s.Detail))
}

// step returns what a step asks for, and what its answer decides.
func (t *text) step(s evidence.LadderStep) (name, decides string) {
	switch s {
	case evidence.StepVersion, evidence.StepProposal:
		return "IKEv2", t.say("whether the peer speaks IKEv2", "对端是否使用 IKEv2")
	case evidence.StepProposalV1, evidence.StepProposalAggressive:
		return "IKEv1", t.say("whether the peer speaks IKEv1", "对端是否使用 IKEv1")
	case evidence.StepDeclared:
		return t.say("declared proposal", "所声明的提议"), t.say("whether the peer accepts it", "对端是否接受")
	case evidence.StepWide:
		return t.say("every common algorithm", "所有常用算法"), t.say("whether the peer has a configuration for our address", "对端是否有针对本端地址的配置")
	case evidence.StepBisect:
		return t.say("one attribute at a time", "逐项比较"), t.say("which attribute of the proposal differs", "提议中哪一项不同")
	case evidence.StepLarge:
		return t.say("large request", "大报文"), t.say("whether large IKE messages pass", "大的 IKE 报文能否通过")
	case evidence.StepInit:
		return t.say("complete IKE_SA_INIT", "完整 IKE_SA_INIT"), t.say("whether a NAT is between us, and what the peer is", "两端之间是否有 NAT、对端是什么设备")
	case evidence.StepMain:
		return t.say("IKEv1 main mode", "IKEv1 主模式"), t.say("whether the peer accepts the declared proposal in it", "对端是否在该模式下接受所声明的提议")
	case evidence.StepMainWide:
		return t.say("IKEv1 main mode, every algorithm", "IKEv1 主模式，所有算法"), t.say("whether the peer accepts any proposal in it", "对端是否在该模式下接受任何提议")
	case evidence.StepAggressive:
		return t.say("IKEv1 aggressive mode", "IKEv1 野蛮模式"), t.say("whether the peer accepts the declared proposal in it", "对端是否在该模式下接受所声明的提议")
	case evidence.StepAggressiveWide:
		return t.say("IKEv1 aggressive mode, every algorithm", "IKEv1 野蛮模式，所有算法"), t.say("whether the peer accepts any proposal in it", "对端是否在该模式下接受任何提议")
	}
	return clean(string(s)), t.say("more", "更多")
}

// auth writes who negotiated, how far it came, what was refused, and whether
// it was undone.
func (t *text) auth(a *evidence.IKEAuth, now time.Time) string {
	if a.Skipped != "" {
		return t.say("not tried: ", "未尝试：") + clean(a.Skipped)
	}
	if a.Stage == "" {
		return ""
	}
	parts := []string{t.by(a.By) + t.say(": ", "：") + t.stage(a)}
	if began, ok := a.Time.Get(); ok && a.Reused {
		parts[0] += t.ago(now.Sub(began))
	}
	for _, x := range []struct {
		takes  evidence.Fact
		en, zh string
		chosen string
	}{
		{a.OtherMode, "accepts the other ESP mode", "接受另一种 ESP 模式", ""},
		{a.OtherESP, "accepts other ESP algorithms", "接受其他 ESP 算法", a.ESPChosen},
		{a.OtherPFS, "accepts other PFS", "接受其他 PFS 设置", a.PFSGroup},
		{a.OtherSelectors, "accepts other subnets", "接受其他子网", a.Selectors},
	} {
		if x.takes == evidence.Yes {
			parts = append(parts, t.say(x.en, x.zh)+t.aside(x.chosen))
		}
	}
	if a.Narrowed == evidence.Yes {
		parts = append(parts, t.say("subnets narrowed", "子网被缩小")+t.aside(a.Selectors))
	}
	return t.join(append(parts,
		t.fact(a.Rekey, t.say("rekey with the declared PFS accepted", "接受以所声明的 PFS 重协商"), t.say("rekey with the declared PFS refused", "拒绝以所声明的 PFS 重协商")),
		t.fact(a.Deleted, t.say("deleted afterwards", "事后已删除"), t.say("its deletion was not confirmed", "删除未获确认")))...)
}

func (t *text) by(by evidence.AuthBy) string {
	switch by {
	case evidence.ByStrongSwan:
		return "strongSwan"
	case evidence.ByLibreswan:
		return "libreswan"
	case evidence.ByAgent:
		return t.say("this agent", "本程序")
	}
	return clean(string(by))
}

func (t *text) stage(a *evidence.IKEAuth) string {
	refused := t.say("no answer", "无应答")
	if a.Notify != "" {
		refused = clean(a.Notify)
	}
	switch a.Stage {
	case evidence.StageInit:
		return t.say("stopped before authentication: ", "未到认证阶段：") + refused
	case evidence.StageAuth:
		return t.say("not authenticated: ", "认证未通过：") + refused
	}
	out := t.say("authenticated", "认证通过")
	if a.RemoteID != "" {
		out = fmt.Sprintf(t.say("the peer authenticated as %s", "对端以 %s 通过认证"), clean(a.RemoteID)) +
			t.aside(t.fact(a.RemoteIDOther, t.say("not the declared identity", "并非所声明的身份"), ""))
	}
	if a.Stage == evidence.StageChild {
		return t.join(out, t.say("child SA refused: ", "子 SA 被拒绝：")+refused)
	}
	return t.join(out, t.say("child SA agreed", "子 SA 已协商")+t.aside(a.ESPChosen))
}

// saidLines is how many of a daemon's lines are shown: the last ones tell how
// it ended, and the JSON form holds all.
const saidLines = 5

func lastLines(said []string) []string { return said[max(0, len(said)-saidLines):] }
