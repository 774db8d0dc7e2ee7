package ladder

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"vpnprobe/evidence"
)

// TestOddPeers has peers that handle a KE payload of another group in a way of
// their own, or lose what they are sent: nothing wrong may be said of them.
func TestOddPeers(t *testing.T) {
	const other = "aes128-sha1-modp2048"
	strict := func(p *peer) { p.strictKE = true }
	first := func(p *peer) { p.keFirst = true }
	demands := func(p *peer) { p.demands = true }
	takes := func(proposal string) peer { return peer{v2: []string{proposal}, noV1: true} }
	for _, tt := range []struct {
		name       string
		declared   string
		peer       peer
		facts      string
		confirmed  evidence.Fact
		mismatches string // the attributes, or "*"
	}{
		{"strict", good, with(takes(good), strict), "yyy", evidence.Yes, ""},
		{"strict, its group is our second", "aes256-sha256-modp1024,aes256-sha256-modp2048", with(takes(good), strict), "yyy", evidence.Yes, ""},
		{"strict, other algorithms", good, with(takes(other), strict), "yyn", evidence.Yes, "encryption integrity prf"},
		{"strict, nothing for us", good, with(peer{noV1: true}, strict), "ynn", evidence.Yes, ""},
		{"group first", good, with(takes(good), first), "yyy", evidence.Yes, ""},
		{"group first, other algorithms", good, with(takes(other), first), "yyn", evidence.Yes, "encryption integrity prf"},
		{"group first, all else", good, with(takes("aes128-sha1-modp1536"), first), "yyn", evidence.Yes, "encryption integrity prf group"},
		{"demands its group", good, with(takes("aes256-sha256-modp1536"), demands), "yyn", evidence.Yes, "group"},
		{"demands its group, all else", good, with(takes("aes128-sha1-modp1536"), demands), "yyn", evidence.Yes, "encryption integrity prf group"},
		{"demands a group that is unknown here", good, with(takes("aes256-sha256-ecp256bp"), demands), "y--", evidence.Unknown, ""},
		{"refuses complete ones", good, with(takes(good), func(p *peer) { p.fickle = true }), "ynn", evidence.Yes, ""},
		{"alternates", good, with(takes(good), func(p *peer) { p.alternates = true }), "yyy", evidence.Yes, ""},
		{"answers small ones", good, with(swan, func(p *peer) { p.maxBytes = 300 }), "---", evidence.Unknown, ""},
		{"answers ten in a second", good, with(takes(good), func(p *peer) { p.every = 100 * time.Millisecond }), "yyy", evidence.Yes, ""},
		{"answers two in a second", good, with(takes(good), func(p *peer) { p.every = 500 * time.Millisecond }), "yyy", evidence.Yes, ""},
		{"some cannot be offered", good + ",sm4-sm3-modp2048", takes(good), "yyy", evidence.Yes, ""},
		{"some cannot be offered, and the rest is refused", good + ",sm4-sm3-modp2048", takes(other), "yy-", evidence.Yes, ""},
		{"none can be offered, and all is refused", "sm4-sm3-modp2048", peer{noV1: true}, "yn-", evidence.Yes, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := Config{Version: 2, Proposals: strings.Split(tt.declared, ","), Stateful: true}
			out, _, _ := climbIn(t, cfg, tt.peer, time.Minute)
			var list []string
			for _, m := range out.Mismatches {
				list = append(list, string(m.Attribute))
			}
			if got := strings.Join(list, " "); facts(out.V2) != tt.facts || out.Confirmed != tt.confirmed || got != tt.mismatches {
				t.Errorf("got %s, confirmed %v, mismatches %q, %s, skipped %s", facts(out.V2), out.Confirmed, got, steps(out), skipped(out))
			}
			if unsupported := strings.Contains(skipped(out), "declared:unsupported"); unsupported != strings.Contains(tt.declared, "sm4") {
				t.Errorf("skipped %s", skipped(out))
			}
			// The gate holds everything back that would confirm it.
			cfg.Stateful = false
			if out, _, _ := climbIn(t, cfg, tt.peer, time.Minute); out.Confirmed != evidence.Unknown {
				t.Errorf("confirmed by nothing: %+v", out)
			}
		})
	}
}

// A peer that loses a third of what it is sent is asked again, and nothing is
// found wrong with it.
func TestLossyPeer(t *testing.T) {
	for seed := range uint64(100) {
		p := with(swan, func(p *peer) { p.noV1, p.loss, p.seed = true, 0.3, seed })
		out, _, _ := climbIn(t, Config{Version: 2, Proposals: []string{good}, Stateful: true}, p, time.Minute)
		if out.V2.Declared == evidence.No || out.V2.Accepts == evidence.No || len(out.Mismatches) > 0 {
			t.Errorf("seed %d: got %+v, %+v, %s", seed, out.V2, out.Mismatches, steps(out))
		}
	}
}

// What was declared at another time says nothing of what is now.
func TestPreviousOfOtherProposals(t *testing.T) {
	p := with(swan, func(p *peer) { p.noV1 = true })
	first, _, _ := climbIn(t, Config{Version: 2, Proposals: []string{"aes256-aes128-sha256-modp2048"}, Stateful: true}, p, time.Minute)
	synctest.Test(t, func(t *testing.T) {
		cfg := Config{Target: simPeer, Version: 2, Proposals: []string{good}, Stateful: true, Previous: &first, Timeout: time.Second}
		out := climb(t.Context(), cfg, newSim(t, p), &simGate{t: t, reason: evidence.SkipBudget})
		if _, ok := out.Exchange(evidence.StepInit); ok || skipped(out) != "init:budget" || out.V2.Declared != evidence.Yes || out.Confirmed != evidence.Unknown {
			t.Errorf("got %+v, skipped %s", out, skipped(out))
		}
	})
}

// TestLeftOutV1 has proposals that IKEv1 has no numbers for.
func TestLeftOutV1(t *testing.T) {
	for declared, want := range map[string]string{
		good: "yyn", good + ",sm4-sm3-modp2048": "yy-", "aes256gcm16-prfsha256-modp2048": "yy-",
	} {
		cfg := Config{Version: 1, Proposals: strings.Split(declared, ","), Stateful: true}
		out, _, _ := climbIn(t, cfg, peer{main: []string{"aes128-sha256-modp2048"}}, time.Minute)
		left := skipped(out) == "main:unsupported"
		if facts(out.Main) != want || left != (declared != good) || left == (len(out.Mismatches) > 0) || out.Confirmed != evidence.Yes {
			t.Errorf("%s: got %+v, %v, skipped %s", declared, out.Main, out.Mismatches, skipped(out))
		}
	}
}
