package ladder

import (
	"testing"

	"vpnprobe/evidence"
	"vpnprobe/internal/wire/ike"
)

func TestJudge(t *testing.T) {
	declared, _ := parseOffer("aes256-aes128-sha256-modp2048-ecp256")
	q := request{step: evidence.StepInit, offers: []offer{declared}, ke: "modp2048"}
	v1 := request{step: evidence.StepMain, offers: suites([]offer{declared})}
	req := ike.Message{Header: ike.Header{SPIi: ike.SPI{1}}}
	sa := func(texts ...string) ike.Message {
		m := notifyV2(req, ike.FragmentationSupported, nil)
		for i, text := range texts {
			o, _ := parseOffer(text)
			p := o.proposals()
			if i == 0 {
				m.Payloads = append(m.Payloads, ike.SA(p...))
			} else {
				sa, _ := m.First(ike.PayloadSA)
				first, _ := ike.ParseSA(sa.Body)
				m.Payloads[1] = ike.SA(append(first, p...)...)
			}
		}
		return m
	}
	saOfV1 := func(x ike.ExchangeType, text string) ike.Message {
		o, _ := parseOffer(text)
		return ike.Message{Header: ike.Header{SPIr: ike.SPI{1}, Version: ike.V1, Exchange: x}, Payloads: []ike.Payload{saV1([]offer{o})}}
	}
	for _, tt := range []struct {
		name    string
		request request
		message ike.Message
		want    evidence.IKEAnswer
		nothing bool // is left
	}{
		{"refusal", q, notifyV2(req, ike.NoProposalChosen, nil), evidence.AnswerNoProposal, true},
		{"group", q, notifyV2(req, ike.InvalidKEPayload, []byte{0, 19}), evidence.AnswerWrongGroup, true},
		{"the group that it got", q, notifyV2(req, ike.InvalidKEPayload, []byte{0, 14}), evidence.AnswerOther, true},
		{"a group that is not offered", q, notifyV2(req, ike.InvalidKEPayload, []byte{0, 2}), evidence.AnswerOther, true},
		{"no group", q, notifyV2(req, ike.InvalidKEPayload, nil), evidence.AnswerOther, true},
		{"cookie", q, notifyV2(req, ike.Cookie, []byte{1}), evidence.AnswerCookie, true},
		{"version", q, notifyV2(req, ike.InvalidMajorVersion, nil), evidence.AnswerBadVersion, true},
		{"redirect", q, notifyV2(req, ike.Redirect, nil), evidence.AnswerRedirect, true},
		{"syntax", q, notifyV2(req, ike.InvalidSyntax, nil), evidence.AnswerOther, true},
		{"a status", q, notifyV2(req, ike.FragmentationSupported, nil), evidence.AnswerOther, false},
		{"choice", q, sa("aes128-sha256-modp2048"), evidence.AnswerAccepted, false},
		{"two values", q, sa("aes256-aes128-sha256-modp2048"), evidence.AnswerOther, false},
		{"two choices", q, sa("aes128-sha256-modp2048", "aes256-sha256-modp2048"), evidence.AnswerOther, false},
		{"a choice that is not offered", q, sa("aes192-sha256-modp2048"), evidence.AnswerOther, false},
		{"a choice of another PRF", q, sa("aes256-sha256-prfsha1-modp2048"), evidence.AnswerOther, false},
		{"a choice by half", q, sa("aes256gcm16-prfsha256-modp2048"), evidence.AnswerOther, false},

		{"IKEv1 refusal", v1, notifyOfV1(req, 14), evidence.AnswerNoProposal, true},
		{"IKEv1 version", v1, notifyOfV1(req, 5), evidence.AnswerBadVersion, true},
		{"IKEv1 authentication", v1, notifyOfV1(req, 24), evidence.AnswerOther, true},
		{"IKEv1 status", v1, notifyOfV1(req, 24578), evidence.AnswerOther, false},
		{"IKEv1 choice", v1, saOfV1(ike.IdentityProtectionV1, "aes128-sha256-ecp256"), evidence.AnswerAccepted, false},
		{"IKEv1 choice, elsewhere", v1, saOfV1(ike.InformationalV1, "aes128-sha256-ecp256"), evidence.AnswerOther, false},
		{"IKEv1 choice that is not offered", v1, saOfV1(ike.IdentityProtectionV1, "3des-sha256-ecp256"), evidence.AnswerOther, false},
		{"nothing", q, ike.Message{Header: ike.Header{Version: ike.V2}}, evidence.AnswerOther, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := judge(tt.request, evidence.IKEExchange{Outcome: evidence.IKEAnswered, Requests: 1}, tt.message.Append(nil))
			if a.Answer != tt.want || a.leftNothing() != tt.nothing || (a.Chosen != "") != (tt.want == evidence.AnswerAccepted) {
				t.Errorf("got %s, chosen %q, leaves nothing: %v", a.Answer, a.Chosen, a.leftNothing())
			}
		})
	}
}

func TestLeftNothingUnanswered(t *testing.T) {
	for _, tt := range []struct {
		outcome  evidence.IKEOutcome
		requests int
		want     bool
	}{
		{evidence.IKESilent, 3, false},
		{evidence.IKESendError, 0, true},
		{evidence.IKERefused, 1, true},
		{evidence.IKERefused, 2, false},
	} {
		if got := (answer{IKEExchange: evidence.IKEExchange{Outcome: tt.outcome, Requests: tt.requests}}).leftNothing(); got != tt.want {
			t.Errorf("%s after %d: got %v", tt.outcome, tt.requests, got)
		}
	}
}

func TestMaxRequests(t *testing.T) {
	r := newRun(Config{Target: simPeer, Timeout: DefaultTimeout}, &sim{t: t, peer: swan}, nil)
	r.requests = maxRequests
	if _, ok := r.ask(t.Context(), request{step: evidence.StepWide}); ok || len(r.out.Exchanges) > 0 || skipped(r.out) != "wide:time" {
		t.Errorf("got %+v", r.out)
	}
}
