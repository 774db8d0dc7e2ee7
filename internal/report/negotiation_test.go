package report

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnprobe/evidence"
)

// rows returns what the text says of a ladder, without the names of the rows.
func rows(l evidence.Ladder) []string {
	var out []string
	t := text{Options: Options{Lang: "en"}}
	t.negotiation(&evidence.Snapshot{Time: now, Ladder: l}, func(name string, cells ...string) {
		if s := t.join(cells...); s != "" {
			out = append(out, s)
		}
	})
	return out
}

func TestOffers(t *testing.T) {
	const yes, no = evidence.Yes, evidence.No
	for want, o := range map[string]evidence.IKEOffers{
		"":                              {},
		"answers":                       {Answers: yes},
		"no answer":                     {Answers: no},
		"accepts the declared proposal": {Answers: yes, Accepts: yes, Declared: yes},
		"refuses the declared proposal": {Answers: yes, Declared: no},
		"refuses the declared proposal, accepts another":    {Answers: yes, Accepts: yes, Declared: no},
		"refuses every common algorithm from our address":   {Answers: yes, Accepts: no, Declared: no},
		"accepts a proposal from our address (aes128-sha1)": {Answers: yes, Accepts: yes},
		"accepts the declared proposal (aes128-sha1)":       {Declared: yes},
	} {
		chosen := ""
		if strings.Contains(want, "aes128") {
			chosen = "aes128-sha1"
		}
		tx := text{Options: Options{Lang: "en"}}
		if got := tx.offers(o, chosen); got != want {
			t.Errorf("offers(%+v) = %q, want %q", o, got, want)
		}
	}
}

func TestNegotiationSaysOnlyWhatIsKnown(t *testing.T) {
	small := evidence.LargeIKE{Port: 500, SmallBytes: 600, SmallSent: 3, SmallAnswered: 3, LargeBytes: 2000, LargeSent: 3}
	passed, silent := small, small
	passed.LargeAnswered = 3
	silent.Port, silent.SmallAnswered, silent.LargeSent = 4500, 0, 0
	skip := func(step evidence.LadderStep, until time.Duration) evidence.SkippedStep {
		return evidence.SkippedStep{Step: step, Reason: evidence.SkipBudget, Until: evidence.Some(now.Add(until))}
	}
	for name, c := range map[string]struct {
		ladder evidence.Ladder
		want   []string
	}{
		"nothing":                 {evidence.Ladder{}, nil},
		"ran, and nothing came":   {evidence.Ladder{Time: evidence.Some(now), Exchanges: []evidence.IKEExchange{{Step: evidence.StepWide, Outcome: evidence.IKESilent}}}, nil},
		"large ones vanish":       {evidence.Ladder{Large: []evidence.LargeIKE{small}}, []string{"UDP 500: of 600 bytes 3 of 3 answered, of 2000 bytes 0 of 3"}},
		"one port silent":         {evidence.Ladder{Large: []evidence.LargeIKE{passed, silent}}, []string{"large requests pass"}},
		"both ports silent":       {evidence.Ladder{Large: []evidence.LargeIKE{silent}}, nil},
		"NAT at one end":          {evidence.Ladder{Features: evidence.IKEFeatures{NATHere: evidence.Yes, NATThere: evidence.No}}, []string{"NAT on our side"}},
		"NAT known of one end":    {evidence.Ladder{Features: evidence.IKEFeatures{NATHere: evidence.No}}, nil},
		"budget that ends now":    {evidence.Ladder{Skipped: []evidence.SkippedStep{skip(evidence.StepInit, -time.Second)}}, []string{"complete IKE_SA_INIT: one such request per 60 s towards this peer, possible again in 1 s; it would have shown whether a NAT is between us, and what the peer is"}},
		"two steps, two reasons":  {evidence.Ladder{Skipped: []evidence.SkippedStep{skip(evidence.StepMain, time.Minute), {Step: evidence.StepLarge, Reason: evidence.SkipCookie}}}, []string{"IKEv1 main mode: one such request per 60 s towards this peer, possible again in 1m0s; it would have shown whether the peer accepts the declared proposal in it", "large request: the peer asked for a cookie, it holds many half-open SAs; it would have shown whether large IKE messages pass"}},
		"modes that do the same":  {evidence.Ladder{Main: evidence.IKEOffers{Answers: evidence.No}, Aggressive: evidence.IKEOffers{Answers: evidence.No}}, []string{"no answer"}},
		"one mode":                {evidence.Ladder{Aggressive: evidence.IKEOffers{Answers: evidence.Yes}}, []string{"aggressive mode answers"}},
		"a fresh answer, no age":  {evidence.Ladder{Features: evidence.IKEFeatures{Implementation: "OpenIKED"}, Exchanges: []evidence.IKEExchange{{Step: evidence.StepInit, Sent: now.Add(-9 * time.Second)}}}, []string{"OpenIKED"}},
		"an answer that was kept": {evidence.Ladder{Features: evidence.IKEFeatures{Implementation: "OpenIKED"}, Exchanges: []evidence.IKEExchange{{Step: evidence.StepInit, Sent: now.Add(-9 * time.Second), Reused: true}}}, []string{"OpenIKED (asked 9 s ago)"}},
	} {
		if diff := cmp.Diff(c.want, rows(c.ladder)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
