package diagnosis

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"vpnprobe/evidence"
)

// maxLadderAge is how old answers of the probe ladder may be to say something
// about now.
const maxLadderAge = 15 * time.Minute

// engaged reports whether this host is meant to negotiate with the peer. To
// anybody else the peer rightly says that it has no configuration.
func (f *facts) engaged() bool {
	return f.Host.Tunnel.Policy == evidence.Yes || f.Host.Daemon == evidence.Yes ||
		f.Declared.IKEVersion != 0 || len(f.Declared.IKEProposals) > 0 || f.Capture.Talk.Newest.Known()
}

// refused is the verdict of a rule about a negotiation that the peer refuses.
// Where an SA exists all the same, what was declared is not what the daemons
// use, and no fault of the tunnel; nor is it one where no tunnel is meant to
// be.
func (f *facts) refused(c Confidence, seen ...Text) verdict {
	v := yes(c, seen...)
	v.harmless = f.saUp() == evidence.Yes || f.works() || !f.engaged()
	return v
}

// responderRateLimited: the peer asks for cookies, or it answers a version
// probe and none of the requests that begin a negotiation, though they are
// as long.
func responderRateLimited(f *facts) verdict {
	l := &f.Ladder
	if l.Cookie {
		return yes(Certain, say("the peer answers IKE_SA_INIT with COOKIE: too many half-open negotiations", "对端以 COOKIE 应答 IKE_SA_INIT：半开协商过多"))
	}
	version, ok := l.Exchange(evidence.StepVersion)
	if !ok || version.Outcome != evidence.IKEAnswered || l.V2.Answers != evidence.No ||
		l.Main.Answers == evidence.Yes || l.Aggressive.Answers == evidence.Yes {
		return no
	}
	proposal, ok := l.Exchange(evidence.StepProposal)
	if !ok || proposal.Outcome != evidence.IKESilent || proposal.Unsolicited > 0 || f.proposalsAnswered() {
		return no
	}
	v := yes(Likely,
		say("%d IKE_SA_INIT requests of %d bytes were not answered", "%d 个 IKE_SA_INIT 请求（%d 字节）无应答", proposal.Requests, proposal.Bytes),
		say("a version probe of %d bytes, sent after them, was answered", "其后发出的 %d 字节版本探测有应答", version.Bytes),
		say("that is how strongSwan treats an address with five half-open negotiations", "strongSwan 对存在五个半开协商的地址即如此处理"))
	v.harmless = f.works() || f.saUp() == evidence.Yes
	return v
}

// proposalsAnswered reports whether the peer answered a heartbeat that is an
// IKE_SA_INIT.
func (f *facts) proposalsAnswered() bool {
	return slices.ContainsFunc(slices.Concat(f.ike500.Results, f.ike4500.Results), func(r evidence.IKEResult) bool {
		return r.Outcome == evidence.IKEAnswered && r.Request == evidence.ProposalProbe
	})
}

// offers returns what the ladder found about the declared version, and about
// the best of the other.
func (f *facts) offers() (declared, other evidence.IKEOffers, known bool) {
	l := &f.Ladder
	v1 := l.Main
	if l.Main.Accepts != evidence.Yes && l.Aggressive.Accepts == evidence.Yes || l.Main.Answers != evidence.Yes && l.Aggressive.Answers == evidence.Yes {
		v1 = l.Aggressive
	}
	switch f.Declared.IKEVersion {
	case 1:
		return v1, l.V2, true
	case 2:
		return l.V2, v1, true
	}
	return evidence.IKEOffers{}, evidence.IKEOffers{}, false
}

// ikeVersionMismatch: the peer takes nothing of the declared version from us,
// and something of the other.
func ikeVersionMismatch(f *facts) verdict {
	if n, ok := f.refusedInClear("INVALID_MAJOR_VERSION"); ok {
		return f.refused(Likely, clearText(n))
	}
	mine, other, ok := f.offers()
	if !ok || mine.Accepts == evidence.Yes || mine.Accepts == evidence.Unknown && mine.Answers != evidence.No {
		return no
	}
	v, o := f.Declared.IKEVersion, 3-f.Declared.IKEVersion
	seen := []Text{offerText(v, mine), offerText(o, other)}
	switch {
	case other.Accepts == evidence.Yes && mine.Accepts == evidence.No:
		return f.refused(Certain, seen...)
	case other.Accepts == evidence.Yes:
		return f.refused(Likely, seen...)
	case v == 2 && mine.Answers == evidence.No && other.Answers == evidence.Yes && other.Accepts != evidence.No:
		// Not so the other way round: many are silent to IKEv1 in a mode, or
		// under an identity, that they do not know.
		return f.refused(Likely, seen...)
	}
	return no
}

// refusedInClear returns the newest negotiation on the wire if its first message
// was refused with a notify, and the probe ladder, which tells more, was not run.
func (f *facts) refusedInClear(notify string) (evidence.IKENegotiation, bool) {
	n, ok := f.Capture.Talk.Newest.Get()
	v1 := strings.ReplaceAll(notify, "_", "-")
	return n, ok && n.Reached == evidence.ReachedRefused && (n.Notify == notify || n.Notify == v1) && !f.Ladder.Time.Known()
}

// clearText says how a negotiation was refused in clear.
func clearText(n evidence.IKENegotiation) Text {
	if n.Ours {
		return say("the peer answers the first message of this side's IKE daemon with %s (IKEv%d, %d in a row)", "对端以 %s 应答本端 IKE 服务的首个报文（IKEv%d，连续 %d 次）", n.Notify, n.Version, n.Repeated)
	}
	return say("this side's IKE daemon answers the peer's first message with %s (IKEv%d, %d in a row)", "本端 IKE 服务以 %s 应答对端的首个报文（IKEv%d，连续 %d 次）", n.Notify, n.Version, n.Repeated)
}

// peerNoConfig: the peer answers, and refuses every algorithm in common use.
func peerNoConfig(f *facts) verdict {
	l := &f.Ladder
	if l.V2.Accepts == evidence.Yes || l.Main.Accepts == evidence.Yes || l.Aggressive.Accepts == evidence.Yes || l.Cookie {
		return no
	}
	switch {
	case l.V2.Accepts == evidence.No && f.Declared.IKEVersion != 1:
	case l.Main.Accepts == evidence.No || l.Aggressive.Accepts == evidence.No:
		if f.Declared.IKEVersion != 1 && l.V2.Answers != evidence.No {
			return no
		}
	default:
		return no
	}
	seen := []Text{say("we ask from %s", "本端地址为 %s", f.asker()), offerText(2, l.V2), modeText("main", l.Main), modeText("aggressive", l.Aggressive)}
	switch {
	case f.mayTakeOther():
		return no // the other version, or mode, was not asked yet
	case l.V2.Accepts != evidence.No || l.Confirmed != evidence.Yes:
		return f.refused(Possible, append(seen, say("a peer that takes none but uncommon algorithms looks the same", "只接受不常用算法的对端表现相同"))...)
	}
	return f.refused(Likely, seen...)
}

// mayTakeOther reports whether the peer answers IKEv1 in a mode in which it was
// not asked for all it may take.
func (f *facts) mayTakeOther() bool {
	for _, o := range []evidence.IKEOffers{f.Ladder.Main, f.Ladder.Aggressive} {
		if o.Answers == evidence.Yes && o.Accepts == evidence.Unknown {
			return true
		}
	}
	return false
}

// asker is the address that the ladder asked from.
func (f *facts) asker() string {
	if a, ok := f.Ladder.Local.Get(); ok {
		return a.String()
	}
	return "?"
}

// ikev1ModeMismatch: the peer takes IKEv1 in the other mode only. Without a
// declared mode, main mode is what daemons use.
func ikev1ModeMismatch(f *facts) verdict {
	if f.Declared.IKEVersion != 1 {
		return no
	}
	mode, mine, other := "main", f.Ladder.Main, f.Ladder.Aggressive
	if f.Declared.IKEMode == "aggressive" {
		mode, mine, other = "aggressive", other, mine
	}
	// libreswan is silent in a mode that it has no connection for, and refuses
	// what does not fit in one that it has.
	suggested := other.Answers == evidence.Yes && other.Accepts != evidence.No && mine.Answers == evidence.No
	if other.Accepts != evidence.Yes && !suggested || mine.Accepts == evidence.Yes || mine.Accepts == evidence.Unknown && mine.Answers != evidence.No {
		return no
	}
	seen := []Text{modeText("main", f.Ladder.Main), modeText("aggressive", f.Ladder.Aggressive), say("declared: %s mode", "声明的模式：%s", mode)}
	if mine.Accepts == evidence.No {
		return f.refused(Certain, seen...)
	}
	return f.refused(Likely, seen...)
}

// ikeProposalMismatch: the peer takes a proposal from us, and none of those
// declared.
func ikeProposalMismatch(f *facts) verdict {
	if n, ok := f.refusedInClear("NO_PROPOSAL_CHOSEN"); ok {
		return f.refused(Possible, clearText(n), say("a gateway that has no configuration for the other's address says the same (peer_no_config): agent probe tells them apart", "没有针对对方地址配置的网关应答相同（peer_no_config）：agent probe 可以区分"))
	}
	if f.onlyGroupDiffers() {
		return no // ike_dh_mismatch
	}
	return f.proposalRefused()
}

// ikeDHMismatch: of the declared proposals the peer takes everything but the
// group.
func ikeDHMismatch(f *facts) verdict {
	if n, ok := f.refusedInClear("INVALID_KE_PAYLOAD"); ok {
		return f.refused(Likely, clearText(n))
	}
	if !f.onlyGroupDiffers() {
		return no
	}
	return f.proposalRefused()
}

func (f *facts) onlyGroupDiffers() bool {
	m := f.Ladder.Mismatches
	return len(m) == 1 && m[0].Attribute == evidence.Group
}

func (f *facts) proposalRefused() verdict {
	mine, _, ok := f.offers()
	if !ok {
		mine = f.Ladder.V2
	}
	if mine.Declared != evidence.No || mine.Accepts != evidence.Yes {
		return no
	}
	seen := []Text{say("the peer refuses the declared proposals: %s", "对端拒绝所声明的提议：%s", strings.Join(f.Declared.IKEProposals, ", "))}
	for _, m := range f.Ladder.Mismatches {
		seen = append(seen, mismatchText(m))
	}
	if len(f.Ladder.Mismatches) == 0 {
		return f.refused(Likely, append(seen, say("it takes others; which attribute differs was not found", "对端接受其他提议；未能确定是哪一项属性不同"))...)
	}
	if f.Declared.IKEVersion != 1 && f.Ladder.Confirmed != evidence.Yes {
		return f.refused(Likely, seen...)
	}
	return f.refused(Certain, seen...)
}

func mismatchText(m evidence.Mismatch) Text {
	declared, takes := cmp.Or(strings.Join(m.Declared, ", "), "-"), strings.Join(m.Accepts, ", ")
	zh := map[evidence.Attribute]string{evidence.Encryption: "加密算法", evidence.Integrity: "完整性算法", evidence.PRF: "PRF", evidence.Group: "DH 组"}[m.Attribute]
	if takes == "" {
		return Text{
			EN: fmt.Sprintf("%s: declared %s, which the peer does not take", m.Attribute, declared),
			ZH: fmt.Sprintf("%s：声明为 %s，对端不接受", zh, declared),
		}
	}
	return Text{
		EN: fmt.Sprintf("%s: declared %s, the peer takes %s", m.Attribute, declared, takes),
		ZH: fmt.Sprintf("%s：声明为 %s，对端接受 %s", zh, declared, takes),
	}
}

// ikeFragmentLoss: IKE messages above the path MTU, which IP fragments, get no
// answer where small ones of the same kind do. It is what keeps a tunnel down
// only where the peer does not fragment IKE by itself (RFC 7383).
func ikeFragmentLoss(f *facts) verdict {
	var seen []Text
	for _, l := range f.Ladder.Large {
		// At 30 % random loss this happens once in a thousand runs.
		if l.SmallSent >= 5 && l.SmallAnswered == l.SmallSent && l.LargeSent >= 5 && l.LargeAnswered == 0 {
			seen = append(seen, say("UDP %d: %d of %d requests of %d bytes answered, 0 of %d of %d bytes", "UDP %d：%[4]d 字节的请求应答 %[2]d/%[3]d，%[6]d 字节的应答 0/%[5]d",
				l.Port, l.SmallAnswered, l.SmallSent, l.SmallBytes, l.LargeSent, l.LargeBytes))
		}
	}
	if len(seen) == 0 {
		return no
	}
	v := f.refused(Likely, seen...)
	switch {
	case f.Ladder.Features.Fragmentation == evidence.Yes:
		v.harmless = true
		v.evidence = append(v.evidence, say("the peer offers IKE fragmentation (RFC 7383), which avoids them", "对端支持 IKE 分片（RFC 7383），可避免 IP 分片"))
	case f.Auth.Stage == evidence.StageChild || f.Auth.Stage == evidence.StageComplete || f.Auth.Notify != "":
		v.harmless = true // the negotiation got past its large messages
	}
	return v
}

// behindNAT: an address is translated on the way between the ends.
func behindNAT(f *facts) verdict {
	var seen []Text
	n := f.Ladder.Features
	if n.NATHere == evidence.Yes {
		seen = append(seen, say("the peer sees us under another address or port than our own: NAT on our side", "对端看到的本端地址或端口与实际不同：NAT 位于本端"))
	} else if src, ok := f.source().Get(); ok && f.behindNAT() == evidence.Yes && !public(src) {
		seen = append(seen, say("this host sends from %s, which is not a public address: NAT on our side", "本机以 %s 发送，并非公网地址：NAT 位于本端", src))
	}
	if n.NATThere == evidence.Yes {
		seen = append(seen, say("the peer's own address is not the one that we reach: NAT on its side, or it forces UDP encapsulation", "对端自身地址与我们访问的地址不同：NAT 位于对端，或其强制 UDP 封装"))
	}
	if len(seen) == 0 {
		return no
	}
	return yes(Certain, seen...)
}

// offerText says what the peer makes of negotiations of one IKE version.
func offerText(version int, o evidence.IKEOffers) Text {
	switch {
	case o.Accepts == evidence.Yes:
		return say("IKEv%d: the peer takes a proposal from our address", "IKEv%d：对端接受本端地址的提议", version)
	case o.Accepts == evidence.No:
		return say("IKEv%d: the peer refuses every algorithm in common use from our address", "IKEv%d：对端拒绝本端地址的所有常用算法", version)
	case o.Answers == evidence.Yes:
		return say("IKEv%d: the peer answers; whether it takes a proposal was not found", "IKEv%d：对端有应答；未能确定其是否接受提议", version)
	case o.Answers == evidence.No:
		return say("IKEv%d: the peer does not answer", "IKEv%d：对端无应答", version)
	}
	return say("IKEv%d: not asked", "IKEv%d：未询问", version)
}

// modeText is [offerText] for one mode of IKEv1.
func modeText(mode string, o evidence.IKEOffers) Text {
	t := offerText(1, o)
	t.EN = strings.Replace(t.EN, "IKEv1", "IKEv1 "+mode+" mode", 1)
	t.ZH = strings.Replace(t.ZH, "IKEv1", "IKEv1 "+map[string]string{"main": "主模式", "aggressive": "野蛮模式"}[mode], 1)
	return t
}
