package report

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnprobe/evidence"
)

// wireTexts returns the rows about the wire as "name: text".
func wireTexts(lang string, s *evidence.Snapshot) []string {
	var out []string
	t := text{Options: Options{Lang: lang}}
	add := func(name string, cells ...string) {
		if s := t.join(cells...); s != "" {
			out = append(out, name+": "+s)
		}
	}
	t.conversation(s, add)
	t.wireRows(s, add)
	return out
}

// whole is a window in which the capture missed nothing.
func whole() evidence.Capture {
	over := evidence.Seconds(10 * time.Second)
	return evidence.Capture{Mode: evidence.CaptureBPF, Blind: evidence.No, Over: over, Watched: over}
}

func TestLossIsSaidOnlyOfWholeWindows(t *testing.T) {
	lossy := evidence.Sequence{Expected: 100, Lost: 5, Bursts: []uint64{5, 0}}
	for name, c := range map[string]struct {
		change  func(*evidence.Capture)
		in, out string
	}{
		"whole":        {func(*evidence.Capture) {}, "5 lost (5 %)", "5 lost before they left this host (5 %)"},
		"of a file":    {func(c *evidence.Capture) { c.Mode = evidence.CaptureFile }, "5 lost (5 %)", "5 lost before the capture (5 %)"},
		"drops":        {func(c *evidence.Capture) { c.Dropped = 1 }, "loss not known (the capture dropped packets)", "loss not known (the capture dropped packets)"},
		"duty cycle":   {func(c *evidence.Capture) { c.Watched-- }, "loss not known (not watched all the time)", "loss not known (not watched all the time)"},
		"no window":    {func(c *evidence.Capture) { c.Over, c.Watched = 0, 0 }, "loss not known (not watched all the time)", "loss not known (not watched all the time)"},
		"blind":        {func(c *evidence.Capture) { c.Blind = evidence.Yes }, "loss not known (packets may bypass the capture)", "5 lost before they left this host (5 %)"},
		"maybe blind":  {func(c *evidence.Capture) { c.Blind = evidence.Unknown }, "5 lost (5 %)", "5 lost before they left this host (5 %)"},
		"nothing lost": {func(c *evidence.Capture) { c.In.Sequence.Lost, c.Out.Sequence.Lost = 0, 0 }, "none lost", "none lost"},
		"a packet alone": {func(c *evidence.Capture) {
			c.In.Sequence, c.Out.Sequence = evidence.Sequence{Expected: 1}, evidence.Sequence{}
		}, "nothing of the peer", "nothing of the peer"},
	} {
		x := whole()
		x.In.Sequence, x.Out.Sequence = lossy, lossy
		c.change(&x)
		got := wireTexts("en", &evidence.Snapshot{Time: now, Capture: x})[1:]
		if diff := cmp.Diff([]string{"wire in: " + c.in, "wire out: " + c.out}, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestBursts(t *testing.T) {
	for _, c := range []struct {
		bursts []uint64
		want   string
	}{
		{nil, ""},
		{[]uint64{9}, ""},
		{[]uint64{9, 0, 0}, ""},
		{[]uint64{9, 1, 0}, "in runs of up to 3"},
		{[]uint64{0, 0, 4, 0}, "in runs of up to 7"},
		{[]uint64{0, 0, 4, 1}, "in runs of 8 and more"},
		{make([]uint64, 200), ""},
	} {
		tx := text{Options: Options{Lang: "en"}}
		if got := tx.bursts(c.bursts); got != c.want {
			t.Errorf("bursts(%v) = %q, want %q", c.bursts, got, c.want)
		}
	}
}

func TestFragmentsLackPartsOnlyInWholeWindows(t *testing.T) {
	f := evidence.Fragments{IKE: evidence.FragmentCount{First: 3, Middle: 2, Last: 1}}
	tx := text{Options: Options{Lang: "en"}}
	for want, whole := range map[string]bool{"fragments 6 (IKE 6, 2 packets incomplete)": true, "fragments 6 (IKE 6)": false} {
		if got := tx.fragments(f, whole); got != want {
			t.Errorf("fragments(whole %t) = %q, want %q", whole, got, want)
		}
	}
}

// TestNothingIsSaidOfNothing: a capture that saw nothing says so once per
// direction, and one that could not look says nothing of the wire.
func TestNothingIsSaidOfNothing(t *testing.T) {
	for mode, want := range map[evidence.CaptureMode][]string{
		"":                   nil,
		evidence.CaptureOff:  nil,
		evidence.CaptureSA:   {"capture: no packets, only the kernel's SA counters"},
		evidence.CaptureFile: {"capture: recorded file", "wire in: nothing of the peer", "wire out: nothing of the peer"},
	} {
		c := whole()
		c.Mode = mode
		if diff := cmp.Diff(want, wireTexts("en", &evidence.Snapshot{Time: now, Capture: c})); diff != "" {
			t.Errorf("%q (-want +got):\n%s", mode, diff)
		}
	}
}

func TestEveryCaptureModeAndReasonHasWords(t *testing.T) {
	for _, lang := range []string{"en", "zh"} {
		tx := text{Options: Options{Lang: lang}}
		for _, m := range []evidence.CaptureMode{evidence.CaptureBPF, evidence.CaptureRing, evidence.CaptureSA, evidence.CaptureFile} {
			if tx.captureMode(evidence.Capture{Mode: m}) == "" {
				t.Errorf("%s: no words for mode %s", lang, m)
			}
		}
		for _, w := range []evidence.CaptureWhy{
			evidence.CaptureConfigured, evidence.CaptureNoPermission, evidence.CaptureNoKernel, evidence.CaptureNoInterface, evidence.CaptureHidden, evidence.CaptureRate, evidence.CaptureFailed,
		} {
			if got := tx.captureWhy(w); got == "" || got == string(w) {
				t.Errorf("%s: no words for reason %s", lang, w)
			}
		}
	}
}

func TestNewestNegotiation(t *testing.T) {
	began := now.Add(-8 * time.Second)
	for _, c := range []struct {
		n      evidence.IKENegotiation
		en, zh string
	}{
		{evidence.IKENegotiation{Version: 2, Ours: true, Reached: evidence.ReachedAsked, Repeated: 1},
			"IKEv2 begun here 8 s ago, IKE_SA_INIT not answered", "IKEv2 由本端发起，8 s前，IKE_SA_INIT 无应答"},
		{evidence.IKENegotiation{Version: 2, Reached: evidence.ReachedRefused, Notify: "NO_PROPOSAL_CHOSEN", Repeated: 2},
			"IKEv2 begun by the peer 8 s ago, IKE_SA_INIT refused (NO_PROPOSAL_CHOSEN), 2 in a row", "IKEv2 由对端发起，8 s前，IKE_SA_INIT 被拒绝（NO_PROPOSAL_CHOSEN），连续 2 次"},
		{evidence.IKENegotiation{Version: 2, Ours: true, Reached: evidence.ReachedInit},
			"IKEv2 begun here 8 s ago, IKE_SA_INIT answered, nothing after it", "IKEv2 由本端发起，8 s前，IKE_SA_INIT 有应答，之后无报文"},
		{evidence.IKENegotiation{Version: 2, Ours: true, Reached: evidence.ReachedAuthSent, NATT: true},
			"IKEv2 begun here 8 s ago, IKE_AUTH not answered, UDP 4500", "IKEv2 由本端发起，8 s前，IKE_AUTH 无应答，UDP 4500"},
		{evidence.IKENegotiation{Version: 2, Ours: true, Reached: evidence.ReachedRejected, Encrypted: true, AnswerBytes: 80},
			"IKEv2 begun here 8 s ago, IKE_AUTH refused: the answer of 80 bytes holds a lone notify", "IKEv2 由本端发起，8 s前，IKE_AUTH 被拒绝：80 字节的应答只含一个通知"},
		{evidence.IKENegotiation{Version: 1, Ours: true, Reached: evidence.ReachedRejected},
			"IKEv1 begun here 8 s ago, the first encrypted message refused", "IKEv1 由本端发起，8 s前，首个加密报文被拒绝"},
		{evidence.IKENegotiation{Version: 2, Ours: true, Reached: evidence.ReachedIKE, Encrypted: true, ChildRefused: evidence.Yes, AnswerBytes: 128},
			"IKEv2 begun here 8 s ago, IKE SA up, child SA refused: the answer of 128 bytes has no room for one", "IKEv2 由本端发起，8 s前，IKE SA 已建立，子 SA 被拒绝：128 字节的应答容不下子 SA"},
		{evidence.IKENegotiation{Version: 1, Ours: true, Reached: evidence.ReachedIKE},
			"IKEv1 begun here 8 s ago, IKE SA up, whether its child SA is does not show", "IKEv1 由本端发起，8 s前，IKE SA 已建立，子 SA 是否建立未知"},
		{evidence.IKENegotiation{Version: 2, Ours: true, Reached: evidence.ReachedChild, Suite: "aes256gcm16-prfsha256-ecp256", Notify: "COOKIE"},
			"IKEv2 begun here 8 s ago, child SA up, aes256gcm16-prfsha256-ecp256", "IKEv2 由本端发起，8 s前，子 SA 已建立，aes256gcm16-prfsha256-ecp256"},
	} {
		c.n.Began = began
		for lang, want := range map[string]string{"en": c.en, "zh": c.zh} {
			tx := text{Options: Options{Lang: lang}}
			if got := tx.newest(c.n, now); got != want {
				t.Errorf("%s: %q, want %q", c.n.Reached, got, want)
			}
		}
	}
}

// TestConversationThatGoesWell has no row but that of the detection of dead
// peers.
func TestConversationThatGoesWell(t *testing.T) {
	c := whole()
	c.Talk = evidence.IKETalk{
		In:       evidence.IKEDirection{Requests: 9, Answered: 9},
		Out:      evidence.IKEDirection{Requests: 9, Answered: 9, DPD: evidence.IKEDPD{Requests: 3, Answered: 2, RTTs: []evidence.Seconds{ms(30), ms(10)}}},
		Attempts: 1,
		Offers:   []evidence.WireOffer{{Ours: true, Version: 2, Proposals: 1, Text: "aes256-sha256-modp2048", Answered: evidence.Yes}},
	}
	got := wireTexts("en", &evidence.Snapshot{Time: now, Capture: c})
	if diff := cmp.Diff("DPD: this side's 2 of 2 answered, median 30 ms", got[0]); diff != "" || len(got) != 4 {
		t.Errorf("%s\n%s", diff, strings.Join(got, "\n"))
	}
}

func TestNotifiesThatRefuse(t *testing.T) {
	for name, want := range map[string]bool{
		"NO_PROPOSAL_CHOSEN": true, "NO-PROPOSAL-CHOSEN": true, "UNSUPPORTED_CRITICAL_PAYLOAD": true, "INVALID-COOKIE": true, "COOKIE": true, "REDIRECT": true,
		"NAT_DETECTION_SOURCE_IP": false, "IKEV2_FRAGMENTATION_SUPPORTED": false, "REDIRECT_SUPPORTED": false, "INITIAL-CONTACT": false, "NOTIFY_40000": false, "": false,
	} {
		if got := refuses(name); got != want {
			t.Errorf("refuses(%q) = %t", name, got)
		}
	}
}
