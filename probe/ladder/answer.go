package ladder

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"vpnprobe/evidence"
	"vpnprobe/internal/wire/ike"
)

// request is one step to be taken.
type request struct {
	step    evidence.LadderStep
	offers  []offer // none when it is made to be refused
	ke      string  // the group of its KE payload; "" when there is none
	message []byte
}

// answer is what became of a request.
type answer struct {
	evidence.IKEExchange
	chosen offer // of AnswerAccepted
	// demanded is a group that was not offered, and that the peer wants before
	// it looks at the proposals. Of an earlier run's answer it is not known.
	demanded string
	// message is the zero one when nothing came, or when it came to an
	// earlier run.
	message ike.Message
}

// judge reads the bytes that answered a request.
func judge(q request, ex evidence.IKEExchange, raw []byte) answer {
	a := answer{IKEExchange: ex}
	a.Step, a.Offer = q.step, text(q.offers)
	if a.Outcome != evidence.IKEAnswered {
		return a
	}
	a.Answer = evidence.AnswerOther
	m, err := ike.Parse(raw)
	if err != nil {
		return a
	}
	a.message = m
	if m.Version.Major() == ike.V1.Major() {
		a.judgeV1(q)
	} else {
		a.judgeV2(q)
	}
	return a
}

func (a *answer) judgeV2(q request) {
	for _, n := range notifies(a.message) {
		switch n.Type {
		case ike.NoProposalChosen:
			a.Answer = evidence.AnswerNoProposal
		case ike.Cookie:
			a.Answer = evidence.AnswerCookie
		case ike.InvalidMajorVersion:
			a.Answer = evidence.AnswerBadVersion
		case ike.Redirect:
			a.Answer = evidence.AnswerRedirect
		case ike.InvalidKEPayload:
			if len(n.Data) != 2 {
				return
			}
			a.Group = ike.Transform{Type: ike.TransformKeyExchange, ID: binary.BigEndian.Uint16(n.Data)}.Keyword()
			switch {
			case !slices.Contains(union(q.offers...).group, a.Group):
				a.demanded = a.Group
			case a.Group != q.ke: // nor is the group that was used an answer
				a.Answer = evidence.AnswerWrongGroup
			}
		default:
			continue
		}
		return
	}
	sa, ok := a.message.First(ike.PayloadSA)
	if !ok {
		return
	}
	if list, err := ike.ParseSA(sa.Body); err == nil && len(list) == 1 {
		a.accept(q, offerOf(list[0]))
	}
}

func (a *answer) judgeV1(q request) {
	for _, p := range a.message.Payloads {
		if p.Type != ike.PayloadNotifyV1 {
			continue
		}
		switch n, err := ike.ParseNotifyV1(p.Body); {
		case err != nil:
		case n.Type == noProposalV1:
			a.Answer = evidence.AnswerNoProposal
			return
		case n.Type == badVersionV1:
			a.Answer = evidence.AnswerBadVersion
			return
		}
	}
	sa, ok := a.message.First(ike.PayloadSAV1)
	if !ok || a.message.Exchange == ike.InformationalV1 {
		return
	}
	s, err := ike.ParseSAV1(sa.Body)
	if err == nil && len(s.Proposals) == 1 && len(s.Proposals[0].Transforms) == 1 {
		encr, hash, group, _ := ike.PhaseOneKeywords(s.Proposals[0].Transforms[0].Attributes)
		a.accept(q, suite(encr, hash, group))
	}
}

// The notifications of IKEv1 (RFC 2408 section 3.14.1) that matter here.
const (
	badVersionV1  ike.NotifyTypeV1 = 5
	noProposalV1  ike.NotifyTypeV1 = 14
	authFailedV1  ike.NotifyTypeV1 = 24
	firstStatusV1 ike.NotifyTypeV1 = 16384
)

// accept takes note of a choice. One that was not offered is none.
func (a *answer) accept(q request, chosen offer) {
	if len(chosen.encr) == 1 && len(chosen.group) == 1 && takes(q.offers, chosen) {
		a.Answer, a.chosen, a.Chosen = evidence.AnswerAccepted, chosen, chosen.String()
	}
}

// silent reports whether nothing came back, and nothing explains it.
func (a answer) silent() bool { return a.Outcome == evidence.IKESilent }

// of reports whether the answer is in a version of IKE.
func (a answer) of(v ike.Version) bool {
	return a.Outcome == evidence.IKEAnswered && a.Version != "" && int(a.Version[0]-'0') == v.Major()
}

// leftNothing reports whether the outcome proves that the responder keeps
// nothing of the request.
func (a answer) leftNothing() bool {
	switch {
	case a.Outcome == evidence.IKESilent, a.Answer == evidence.AnswerAccepted:
		return false
	case a.Outcome != evidence.IKEAnswered:
		return a.Requests <= 1 // an earlier one may have arrived
	case a.Answer == evidence.AnswerOther:
		return isRefusal(a.message)
	}
	return true
}

// isRefusal reports whether a message says that the request was an error, and
// nothing else.
func isRefusal(m ike.Message) bool {
	for _, p := range m.Payloads {
		switch p.Type {
		case ike.PayloadNotify:
			if n, err := ike.ParseNotify(p.Body); err == nil && n.Type.IsError() {
				continue
			}
		case ike.PayloadNotifyV1:
			if n, err := ike.ParseNotifyV1(p.Body); err == nil && n.Type < firstStatusV1 {
				continue
			}
		case ike.PayloadVendorID, ike.PayloadVendorIDV1:
			continue
		}
		return false
	}
	return m.FirstNotify() != ""
}

// notifies returns the readable IKEv2 notifies of a message.
func notifies(m ike.Message) []ike.Notify {
	var list []ike.Notify
	for _, p := range m.Payloads {
		if p.Type == ike.PayloadNotify {
			if n, err := ike.ParseNotify(p.Body); err == nil {
				list = append(list, n)
			}
		}
	}
	return list
}

// redirectTo reads whom a REDIRECT names (RFC 5685 section 6.2): an address
// or a name. It returns "" for anything else.
func redirectTo(data []byte) string {
	const v4, v6, fqdn = 1, 2, 3
	if len(data) < 2 || len(data) < 2+int(data[1]) {
		return ""
	}
	id := data[2 : 2+int(data[1])]
	switch data[0] {
	case v4, v6:
		if a, ok := netip.AddrFromSlice(id); ok && a.Is4() == (data[0] == v4) {
			return a.String()
		}
	case fqdn:
		if isPrintable(id) {
			return string(id)
		}
	}
	return ""
}

func isPrintable(b []byte) bool {
	return !slices.ContainsFunc(b, func(c byte) bool { return c <= ' ' || c > '~' })
}
