package diagnosis

import (
	"cmp"
	"strings"
	"time"

	"vpnprobe/evidence"
)

// maxAuthAge is how old an authenticated negotiation may be to say something
// about now.
const maxAuthAge = 15 * time.Minute

// authFailed is the notify for a wrong key and for a wrong identity alike (RFC
// 7296 section 2.21.2): a responder must not tell which.
const authFailed = "AUTHENTICATION_FAILED"

// identityMismatch: the peer proved an identity that is not the declared one.
func identityMismatch(f *facts) verdict {
	if n, ok := f.authRefusedOnWire(); ok && n.InitiatorRefused == evidence.Yes {
		return f.refused(Likely, answerText(n),
			say("the responder took the initiator's proof of the key, and the initiator refused what the responder then proved: not the key, but an identity", "响应方接受了发起方的密钥证明，而发起方随后拒绝了响应方的证明：问题不在密钥，而在标识"))
	}
	a := &f.Auth
	if a.RemoteIDOther != evidence.Yes {
		return no
	}
	seen := []Text{say("the peer authenticates as %q, declared is %q", "对端以 %q 认证，声明的是 %q", a.RemoteID, f.Declared.RemoteID)}
	if a.Authenticated == evidence.Yes {
		seen = append(seen, say("with the declared key, so the key is right", "其密钥与声明一致，密钥正确"))
	}
	return f.refused(Certain, append(seen, f.byText())...)
}

// pskMismatch: the peer refuses our proof of the key, or its own proof does
// not fit our key.
func pskMismatch(f *facts) verdict {
	if n, ok := f.authRefusedOnWire(); ok {
		if n.InitiatorRefused == evidence.Yes {
			return no // identity_mismatch
		}
		return f.refused(Likely, answerText(n),
			say("the sizes and the order of the encrypted messages show that the authentication was refused", "加密报文的长度与顺序表明认证被拒绝"),
			say("a wrong identity looks the same", "标识错误时表现相同"))
	}
	a := &f.Auth
	if a.Stage != evidence.StageAuth || a.RemoteIDOther == evidence.Yes {
		return no
	}
	var seen Text
	switch {
	case a.Notify != "":
		seen = say("the peer answers authentication with %s", "对端以 %s 应答认证", a.Notify)
	case a.Authenticated == evidence.No:
		seen = say("the peer's own authentication does not fit the key", "对端的认证与密钥不符")
	case f.Declared.IKEVersion == 1 && f.ikeAnswers() == evidence.Yes && f.behindNAT() != evidence.Yes:
		// IKEv1 has no answer for what it cannot decrypt.
		seen = say("the peer answers main mode up to the first message under the key, and that one not", "对端应答主模式直至首个使用密钥的报文，该报文无应答")
	default:
		return no
	}
	if a.Notify != "" && a.Notify != authFailed && f.Declared.IKEVersion != 1 {
		return no // another refusal: not of the key
	}
	return f.refused(Likely, seen,
		say("a peer says the same when it does not know our identity: declared %s", "对端不认识本端标识时应答相同：声明的标识为 %s", cmp.Or(f.Declared.LocalID, "-")),
		f.byText())
}

// childProposalMismatch: authenticated, and the ESP algorithms are refused.
func childProposalMismatch(f *facts) verdict {
	if n, ok := f.childRefusedOnWire(); ok {
		return f.childRefused(n)
	}
	a := &f.Auth
	seen := []Text{
		say("the peer authenticates us and refuses the declared ESP proposals (%s) with %s", "对端认证通过，但以 %[2]s 拒绝所声明的 ESP 提议（%[1]s）", strings.Join(f.Declared.ESPProposals, ", "), a.Notify),
		f.byText(),
	}
	switch {
	case a.Stage != evidence.StageChild || a.OtherMode == evidence.Yes || a.OtherPFS == evidence.Yes:
		return no
	case a.OtherESP == evidence.Yes:
		return f.refused(Certain, append(seen, say("with every common algorithm offered it takes %s", "提供全部常用算法时其接受 %s", cmp.Or(a.ESPChosen, "one of them")))...)
	case a.Notify == "NO_PROPOSAL_CHOSEN" && a.OtherESP == evidence.No:
		return f.refused(Possible, append(seen, say("it refuses every common algorithm as well: its log tells whether it can install an SA at all", "其他常用算法同样被拒绝：请查看对端日志，确认其能否安装 SA"))...)
	case a.Notify == "NO_PROPOSAL_CHOSEN":
		return f.refused(Likely, seen...)
	}
	return no
}

// childRefused is the verdict when packets alone tell that the ends agree on
// IKE and not on the tunnel: its algorithms and its subnets are refused in
// answers of the same size.
func (f *facts) childRefused(n evidence.IKENegotiation) verdict {
	return f.refused(Possible, answerText(n),
		say("the authentication succeeded and the tunnel was refused: for its ESP algorithms (child_proposal_mismatch), its subnets (traffic_selector_mismatch) or its mode; the sizes do not tell which, the IKE log of either end does", "认证成功但隧道被拒绝：原因可能是 ESP 算法（child_proposal_mismatch）、网段（traffic_selector_mismatch）或模式；报文长度无法区分，任一端的 IKE 日志可以"))
}

// pfsMismatch: the peer wants another key exchange for a new child SA than the
// declared one, or none, or one where none is declared. The first child SA of
// an IKE SA has none (RFC 7296 section 1.2), so such a tunnel comes up and
// breaks when it is rekeyed.
func pfsMismatch(f *facts) verdict {
	a := &f.Auth
	if a.Rekey != evidence.No && a.OtherPFS != evidence.Yes {
		return no
	}
	var seen []Text
	if a.Rekey == evidence.No {
		seen = append(seen, say("the first child SA is agreed upon, one with the declared key exchange is refused (%s)", "首个子 SA 协商成功，但使用所声明密钥交换的子 SA 被拒绝（%s）", cmp.Or(a.Notify, "-")))
	}
	if a.OtherPFS == evidence.Yes {
		seen = append(seen, say("the peer takes the declared ESP algorithms with another PFS setting: group %s", "对端接受所声明的 ESP 算法，但 PFS 设置不同：组 %s", cmp.Or(a.PFSGroup, "none")))
	}
	seen = append(seen, say("declared ESP proposals: %s", "声明的 ESP 提议：%s", strings.Join(f.Declared.ESPProposals, ", ")), f.byText())
	v := yes(Likely, seen...)
	if a.OtherPFS == evidence.Yes {
		v.confidence = Certain
	}
	// A tunnel that is up may break when it is rekeyed, unless the finding is
	// older than the tunnel.
	v.harmless = a.Reused && f.refused(v.confidence).harmless
	return v
}

// encapModeMismatch: the peer takes the child SA in the other mode.
func encapModeMismatch(f *facts) verdict {
	a := &f.Auth
	if a.OtherMode != evidence.Yes {
		return no
	}
	mode, other := "tunnel", "transport"
	if f.Declared.ESPMode == other {
		mode, other = other, mode
	}
	return f.refused(Certain, say("the peer refuses %s mode (%s) and takes %s mode", "对端拒绝 %s 模式（%s），接受 %s 模式", mode, cmp.Or(a.Notify, "-"), other), f.byText())
}

// trafficSelectorMismatch: the peer refuses the declared subnets, or takes a
// part of them only.
func trafficSelectorMismatch(f *facts) verdict {
	if n, ok := f.childRefusedOnWire(); ok {
		return f.childRefused(n)
	}
	a := &f.Auth
	var declared []string
	for _, p := range f.Declared.LocalSubnets {
		declared = append(declared, p.String())
	}
	declared = append(declared, "===")
	for _, p := range f.Declared.RemoteSubnets {
		declared = append(declared, p.String())
	}
	seen := []Text{say("declared: %s", "声明：%s", strings.Join(declared, " "))}
	if a.Selectors != "" {
		seen = append(seen, say("the peer's: %s", "对端：%s", a.Selectors))
	}
	refused := a.Notify == "TS_UNACCEPTABLE" || a.Notify == "INVALID_ID_INFORMATION"
	switch {
	case a.Stage == evidence.StageChild && refused && a.OtherMode != evidence.Yes:
		seen = append([]Text{say("the peer refuses the declared subnets (%s)", "对端拒绝所声明的网段（%s）", a.Notify)}, append(seen, f.byText())...)
		if a.OtherSelectors == evidence.Yes {
			return f.refused(Certain, seen...)
		}
		return f.refused(Likely, append(seen, say("strongSwan says the same when its end is in transport mode", "strongSwan 一端处于传输模式时应答相同"))...)
	case a.Narrowed == evidence.Yes:
		return f.refused(Likely, append([]Text{say("the peer takes only a part of the declared subnets", "对端只接受所声明网段的一部分")}, append(seen, f.byText())...)...)
	}
	return no
}

// byText says who negotiated, and when.
func (f *facts) byText() Text {
	a := &f.Auth
	began, _ := a.Time.Get()
	age := f.Time.Sub(began).Seconds()
	switch a.By {
	case evidence.ByStrongSwan, evidence.ByLibreswan:
		return say("negotiated by this host's %s, %.0f s ago", "由本机 %s 协商，%.0f 秒前", a.By, age)
	}
	return say("negotiated by vpnprobe itself, %.0f s ago", "由 vpnprobe 自行协商，%.0f 秒前", age)
}
