package ladder

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnprobe/evidence"
	"vpnprobe/internal/wire/ike"
)

// climbIn runs the ladder against a peer, in a bubble of its own.
func climbIn(t *testing.T, cfg Config, p peer, timeout time.Duration) (out evidence.Ladder, s *sim, g *simGate) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg.Target = simPeer
		if cfg.Timeout == 0 {
			cfg.Timeout = DefaultTimeout
		}
		s, g = newSim(t, p), &simGate{t: t}
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		out = climb(ctx, cfg, s, g)
	})
	checkHarmless(t, cfg, out, s, g)
	return out, s, g
}

func newSim(t *testing.T, p peer) *sim {
	return &sim{t: t, peer: p, rtt: 30 * time.Millisecond, dice: rand.New(rand.NewPCG(p.seed, 1))}
}

// checkHarmless holds every run to the rules of decision 1: at most one
// half-open SA, none without leave, and bounded work.
func checkHarmless(t *testing.T, cfg Config, out evidence.Ladder, s *sim, g *simGate) {
	t.Helper()
	if s.halfOpen > 1 || s.halfOpen > g.out && g.ungated == 0 {
		t.Errorf("%d half-open SAs at the peer, with %d permits", s.halfOpen, g.out)
	}
	if n := len(s.sent); n > maxRequests+4*samples+2 {
		t.Errorf("sent %d requests", n)
	}
	gated := 0
	for _, e := range out.Exchanges {
		if e.Step.LeavesState() && !e.Reused {
			gated++
		}
	}
	if !cfg.Stateful && gated > 0 {
		t.Errorf("%d requests that may leave state, without leave", gated)
	}
	if !cfg.Stateful {
		for _, m := range s.sent {
			if !leavesNothing(t, m) {
				t.Errorf("sent what may leave a half-open SA:\n%v", m)
			}
		}
	}
}

// leavesNothing reports whether no responder can accept a request, going by
// its bytes alone.
func leavesNothing(t *testing.T, m ike.Message) bool {
	t.Helper()
	const private = 0xff00
	switch m.Version.Major() {
	case 1:
		p, _ := m.First(ike.PayloadSAV1)
		sa, err := ike.ParseSAV1(p.Body)
		if err != nil {
			t.Fatal(err)
		}
		for _, tr := range sa.Proposals[0].Transforms {
			if a := tr.Attributes[0]; a.Type != ike.AttrV1Encryption || a.Value != private {
				return false
			}
		}
	case 2:
		p, _ := m.First(ike.PayloadSA)
		sa, err := ike.ParseSA(p.Body)
		if err != nil {
			t.Fatal(err)
		}
		k, _ := m.First(ike.PayloadKE)
		ke, err := ike.ParseKE(k.Body)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range sa {
			nobody := contains(p, ike.Transform{Type: ike.TransformEncryption, ID: private})
			if contains(p, ike.Transform{Type: ike.TransformKeyExchange, ID: ke.Group}) && !nobody {
				return false
			}
		}
	}
	return true
}

func steps(l evidence.Ladder) string {
	var names []string
	for _, e := range l.Exchanges {
		names = append(names, string(e.Step))
	}
	return strings.Join(slices.Compact(names), " ")
}

func skipped(l evidence.Ladder) string {
	var names []string
	for _, s := range l.Skipped {
		names = append(names, string(s.Step)+":"+string(s.Reason))
	}
	return strings.Join(names, " ")
}

func facts(o evidence.IKEOffers) string {
	short := map[evidence.Fact]string{evidence.Yes: "y", evidence.No: "n", evidence.Unknown: "-"}
	return short[o.Answers] + short[o.Accepts] + short[o.Declared]
}

const (
	good  = "aes256-sha256-modp2048"
	dated = "aes256-sha1-modp1024"
)

var (
	swan      = peer{v2: []string{good}}                                                   // strongSwan
	swanV1    = peer{main: []string{good}, authFails: true}                                // strongSwan, IKEv1
	libre     = peer{v2: []string{good}, silentModes: true}                                // libreswan
	libreV1   = peer{main: []string{good}, silentModes: true}                              // libreswan, main mode
	libreAggr = peer{aggressive: []string{good}, silentModes: true}                        // libreswan, aggressive mode
	iked      = peer{v2: []string{good}, noVersion: true, noV1: true}                      // OpenIKED
	oldMain   = peer{main: []string{dated}, noV2: true}                                    // IKEv1 only
	oldSilent = peer{main: []string{good}, noV2: true, noVersion: true}                    // IKEv1 only, and ignoring the rest
	discreet  = peer{v2: []string{good}, silentRefusal: true, noVersion: true, noV1: true} // answers what it takes
)

// with returns a peer that is changed.
func with(p peer, change func(*peer)) peer {
	change(&p)
	return p
}

// TestClimb has all responders that are known, the answers of the ladder, and
// the way to them. The facts are answers, accepts and accepts_declared.
func TestClimb(t *testing.T) {
	declared := []string{good}
	for _, tt := range []struct {
		name           string
		cfg            Config
		peer           peer
		v2, main, aggr string
		steps, skipped string
		halfOpen       int
	}{
		{
			"strongSwan, daemon", Config{Version: 2, Proposals: declared}, swan,
			"yyy", "---", "---", "proposal declared", "init:on_demand_only", 0,
		},
		{
			"strongSwan", Config{Version: 2, Proposals: declared, Stateful: true}, swan,
			"yyy", "---", "---", "proposal declared init", "", 1,
		},
		{
			"OpenIKED", Config{Version: 2, Proposals: declared, Stateful: true}, iked,
			"yyy", "---", "---", "proposal declared init", "", 1,
		},
		{
			"nothing declared", Config{Stateful: true}, swan,
			"yy-", "---", "---", "proposal wide init", "", 1,
		},
		{
			"unknown algorithms declared", Config{Proposals: []string{"aes256-sha256-ntru128"}, Stateful: true}, swan,
			"yy-", "---", "---", "proposal wide init", "declared:unsupported", 1,
		},
		{
			"no connection for us at strongSwan", Config{Version: 2, Proposals: declared, Stateful: true}, peer{},
			"ynn", "ynn", "ynn", "proposal declared wide init proposal_v1 main main_wide proposal_aggressive aggressive aggressive_wide", "", 0,
		},
		{
			"no connection for us at libreswan", Config{Version: 2, Proposals: declared, Stateful: true}, peer{silentModes: true},
			"ynn", "n--", "n--", "proposal declared wide init proposal_v1 proposal_aggressive", "", 0,
		},
		{
			"port 500 filtered", Config{Version: 2, Proposals: declared}, with(swan, func(p *peer) { p.deafOn500 = true }),
			"yyy", "---", "---", "proposal version proposal declared", "init:on_demand_only", 0,
		},
		{
			"IKE_SA_INIT dropped", Config{Version: 2, Proposals: declared, Stateful: true}, with(swan, func(p *peer) { p.blocks = true }),
			"n--", "n--", "n--", "proposal version proposal proposal_v1 proposal_aggressive", "", 0,
		},
		{
			"cookie at once", Config{Version: 2, Proposals: declared, Stateful: true}, with(swan, func(p *peer) { p.cookieAfter = 1 }),
			"y--", "---", "---", "proposal", "declared:cookie init:cookie proposal_v1:cookie proposal_aggressive:cookie large:cookie", 0,
		},
		{
			"cookie later", Config{Version: 2, Proposals: []string{dated}, Stateful: true}, with(swan, func(p *peer) { p.cookieAfter = 4 }),
			"yyn", "---", "---", "proposal declared wide bisect", "bisect:cookie init:cookie large:cookie", 0,
		},
		{
			"redirects", Config{Version: 2, Proposals: declared, Stateful: true}, with(swan, func(p *peer) { p.redirects = true }),
			"yyy", "---", "---", "proposal declared init", "", 0,
		},
		{
			"accepts any KE payload, daemon", Config{Version: 2, Proposals: declared}, with(swan, func(p *peer) { p.eager = true }),
			"yyy", "---", "---", "proposal declared", "", 1,
		},
		{
			"accepts any KE payload", Config{Version: 2, Proposals: declared, Stateful: true}, with(swan, func(p *peer) { p.eager = true }),
			"yyy", "---", "---", "proposal declared", "", 1,
		},
		{
			"refuses another group as malformed", Config{Version: 2, Proposals: declared, Stateful: true}, with(swan, func(p *peer) { p.syntax = true }),
			"yyy", "---", "---", "proposal declared init", "", 1,
		},
		{
			"the same, and wants our second group", Config{Version: 2, Proposals: []string{"aes256-sha256-modp1024-modp2048"}, Stateful: true},
			with(swan, func(p *peer) { p.syntax = true }), "yyy", "---", "---", "proposal declared init", "", 1,
		},
		{
			"answers what it takes", Config{Version: 2, Proposals: declared, Stateful: true}, discreet,
			"yyy", "---", "---", "proposal version proposal version declared init", "", 1,
		},
		{
			"IKEv1 declared, main", Config{Version: 1, Proposals: declared, Stateful: true}, swanV1,
			"---", "yyy", "---", "proposal_v1 main", "", 1,
		},
		{
			"IKEv1 declared, main, daemon", Config{Version: 1, Proposals: declared}, swanV1,
			"yn-", "y--", "---", "proposal_v1 wide", "main:on_demand_only init:on_demand_only", 0,
		},
		{
			"aggressive declared, main at strongSwan", Config{Version: 1, Mode: "aggressive", Proposals: declared, Stateful: true}, swanV1,
			"---", "yyy", "ynn", "proposal_aggressive aggressive proposal_v1 main", "", 1,
		},
		{
			"aggressive declared, main at libreswan", Config{Version: 1, Mode: "aggressive", Proposals: declared, Stateful: true}, libreV1,
			"y--", "yyy", "n--", "proposal_aggressive proposal proposal_v1 main", "", 1,
		},
		{
			"main declared, aggressive at libreswan", Config{Version: 1, Proposals: declared, Stateful: true}, libreAggr,
			"y--", "n--", "yyy", "proposal_v1 proposal proposal_aggressive aggressive", "", 1,
		},
		{
			"IKEv1 declared, IKEv2 at libreswan", Config{Version: 1, Proposals: declared, Stateful: true}, libre,
			"yy-", "n--", "n--", "proposal_v1 proposal proposal_aggressive main wide", "init:budget", 0,
		},
		{
			"IKEv1 declared, IKEv2 at strongSwan", Config{Version: 1, Proposals: declared, Stateful: true}, swan,
			"yy-", "ynn", "ynn", "proposal_v1 main main_wide proposal_aggressive aggressive aggressive_wide wide init", "", 1,
		},
		{
			"IKEv2 declared, IKEv1 at strongSwan", Config{Version: 2, Proposals: declared, Stateful: true}, swanV1,
			"ynn", "yyy", "---", "proposal declared wide init proposal_v1 main", "", 1,
		},
		{
			"IKEv2 declared, IKEv1 only", Config{Version: 2, Proposals: declared, Stateful: true}, oldMain,
			"nn-", "yyn", "---", "proposal proposal_v1 main main_wide", "", 1,
		},
		{
			"nothing declared, IKEv1 only, and silent about the rest", Config{Stateful: true}, oldSilent,
			"n--", "yy-", "---", "proposal version proposal version wide proposal_v1 main_wide", "", 1,
		},
		{
			"silent", Config{Version: 2, Proposals: declared, Stateful: true}, peer{blocks: true, noVersion: true},
			"---", "n--", "---", "proposal version proposal version declared proposal_v1 init", "", 0,
		},
		{
			"silent, IKEv1 declared", Config{Version: 1, Proposals: declared, Stateful: true}, peer{blocks: true, noVersion: true},
			"---", "n--", "---", "proposal_v1 proposal version proposal_v1 proposal version main wide", "", 0,
		},
		{
			"refused", Config{Version: 2, Proposals: declared, Stateful: true},
			peer{outcome: map[uint16]evidence.IKEOutcome{500: evidence.IKERefused, 4500: evidence.IKEProhibited}},
			"---", "---", "---", "proposal", "", 0,
		},
		{
			"port 500 refused, 4500 silent", Config{Version: 2, Proposals: declared},
			peer{blocks: true, noVersion: true, outcome: map[uint16]evidence.IKEOutcome{500: evidence.IKERefused}},
			"---", "n--", "---", "proposal version declared proposal_v1", "init:on_demand_only", 0,
		},
		{
			"no route", Config{Version: 2, Proposals: declared, Stateful: true},
			peer{outcome: map[uint16]evidence.IKEOutcome{500: evidence.IKESendError, 4500: evidence.IKESendError}},
			"---", "---", "---", "proposal", "", 0,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, s, _ := climbIn(t, tt.cfg, tt.peer, time.Minute)
			got := []string{facts(out.V2), facts(out.Main), facts(out.Aggressive), steps(out), skipped(out)}
			want := []string{tt.v2, tt.main, tt.aggr, tt.steps, tt.skipped}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("IKEv2, main, aggressive, steps, skipped (-want +got):\n%s", diff)
			}
			if s.halfOpen != tt.halfOpen {
				t.Errorf("left %d half-open SAs, want %d", s.halfOpen, tt.halfOpen)
			}
		})
	}
}

func TestFeatures(t *testing.T) {
	cfg := Config{Version: 2, Proposals: []string{good}, Stateful: true}
	known := evidence.IKEFeatures{
		VendorIDs: []string{"OpenIKED 7.2", "010203"}, Implementation: "OpenIKED 7.2",
		Fragmentation: evidence.Yes, Childless: evidence.No, NATHere: evidence.No, NATThere: evidence.No,
	}
	behindNAT, forced := known, known
	behindNAT.NATHere, forced.NATThere = evidence.Yes, evidence.Yes
	for _, tt := range []struct {
		name string
		peer peer
		want evidence.IKEFeatures
	}{
		{"no NAT", swan, known},
		{"NAT here", with(swan, func(p *peer) { p.natHere = true }), behindNAT},
		{"NAT there", with(swan, func(p *peer) { p.natThere = true }), forced},
		{"redirect", with(swan, func(p *peer) { p.redirects = true }), evidence.IKEFeatures{VendorIDs: []string{}, Redirect: "203.0.113.7"}},
		{"IKEv1", swanV1, evidence.IKEFeatures{VendorIDs: []string{"DPD"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, _, _ := climbIn(t, cfg, tt.peer, time.Minute)
			if diff := cmp.Diff(tt.want, out.Features); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// What a stateful request showed a moment ago stands in while the budget is
// spent; nothing else does.
func TestPrevious(t *testing.T) {
	cfg := Config{Version: 2, Proposals: []string{good}, Stateful: true}
	first, _, _ := climbIn(t, cfg, swan, time.Minute)
	cfg.Previous = &first
	for _, reason := range []evidence.SkipReason{evidence.SkipBudget, evidence.SkipNegotiating} {
		synctest.Test(t, func(t *testing.T) {
			s, g := &sim{t: t, peer: swan}, &simGate{t: t, reason: reason}
			cfg.Target, cfg.Timeout = simPeer, time.Second
			out := climb(t.Context(), cfg, s, g)
			e, ok := out.Exchange(evidence.StepInit)
			if reused := reason == evidence.SkipBudget; ok != reused || e.Reused != reused || s.halfOpen != 0 {
				t.Errorf("%s: got %+v, %d half-open", reason, e, s.halfOpen)
			} else if reused && (out.Features.Implementation == "" || len(out.Skipped) > 0) {
				t.Errorf("got %+v, skipped %v", out.Features, out.Skipped)
			} else if !reused && skipped(out) != "init:daemon_negotiating" {
				t.Errorf("skipped %v", out.Skipped)
			}
		})
	}

	cfg = Config{Version: 1, Proposals: []string{dated}, Stateful: true}
	first, _, _ = climbIn(t, cfg, libreV1, time.Minute)
	if len(first.Mismatches) == 0 {
		t.Fatalf("got %+v", first)
	}
	cfg.Previous = &first
	synctest.Test(t, func(t *testing.T) {
		cfg.Target, cfg.Timeout = simPeer, time.Second
		out := climb(t.Context(), cfg, &sim{t: t, peer: libreV1}, &simGate{t: t, reason: evidence.SkipBudget})
		if diff := cmp.Diff(first.Mismatches, out.Mismatches); diff != "" || out.Main != first.Main {
			t.Errorf("IKEv1: main %+v, mismatches (-first +second):\n%s", out.Main, diff)
		}
	})
}

func TestSizes(t *testing.T) {
	const lost = "small 5/5 large 0/5"
	for _, tt := range []struct {
		name          string
		peer          peer
		on500, on4500 string // "pass" when a large one is answered
	}{
		{"pass", swan, "pass", "pass"},
		{"fragments lost", with(swan, func(p *peer) { p.maxBytes = 1400 }), lost, lost},
		{"by proposals", with(iked, func(p *peer) { p.maxBytes = 1400 }), lost, lost},
		{"by proposals of IKEv1", with(oldSilent, func(p *peer) { p.maxBytes = 1400 }), lost, lost},
		{"one port filtered", with(swan, func(p *peer) { p.deafOn500 = true }), "small 0/1 large 0/0", "pass"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, s, _ := climbIn(t, Config{Proposals: []string{good}}, tt.peer, time.Minute)
			var got []string
			for _, l := range out.Large {
				text := fmt.Sprintf("small %d/%d large %d/%d", l.SmallAnswered, l.SmallSent, l.LargeAnswered, l.LargeSent)
				if l.LargeAnswered == 1 && l.LargeSent == 1 && l.SmallAnswered == l.SmallSent && l.SmallSent <= samples {
					text = "pass"
				}
				got = append(got, text)
			}
			if diff := cmp.Diff([]string{tt.on500, tt.on4500}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			for _, m := range s.sent {
				if m.Length > 600 && int(m.Length) != 1972 && int(m.Length) != 1968 && m.Length > 1500 {
					t.Errorf("a message of %d bytes is no packet of %d", m.Length, largePacket)
				}
			}
		})
	}
	if out, _, _ := climbIn(t, Config{}, peer{blocks: true, noVersion: true}, time.Minute); len(out.Large) > 0 {
		t.Errorf("asked a silent peer: %+v", out.Large)
	}
}

// What loses requests of any size at random, or answers only so many, does not
// look as if it lost the large ones.
func TestSizesByChance(t *testing.T) {
	alarms := 0
	for seed := range uint64(60) {
		p := with(swan, func(p *peer) { p.seed, p.loss = seed, 0.3 })
		if seed%3 > 0 {
			p = with(swan, func(p *peer) { p.every = []time.Duration{150 * time.Millisecond, time.Second}[seed%2] })
		}
		out, _, _ := climbIn(t, Config{Version: 2, Proposals: []string{good}}, p, time.Minute)
		for _, l := range out.Large {
			if l.SmallSent == samples && l.SmallAnswered == samples && l.LargeSent == samples && l.LargeAnswered == 0 {
				alarms++
			}
		}
	}
	if alarms > 6 { // about one in a hundred is expected
		t.Errorf("%d of 120 comparisons find large ones lost", alarms)
	}
}

// A run that ends early says what it did not come to.
func TestEndsEarly(t *testing.T) {
	for _, after := range []time.Duration{0, 10 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, time.Second} {
		out, _, _ := climbIn(t, Config{Version: 2, Proposals: []string{dated}, Stateful: true}, swan, after)
		if len(out.Skipped) == 0 || !strings.Contains(skipped(out), ":time") {
			t.Errorf("after %v: steps %s, skipped %s", after, steps(out), skipped(out))
		}
		if len(out.Mismatches) > 0 && after < time.Second {
			t.Errorf("after %v: found %v", after, out.Mismatches)
		}
	}
	// Nor does it take longer than a second for each of a few requests.
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		cfg := Config{Target: simPeer, Version: 2, Proposals: []string{good}, Stateful: true, Timeout: DefaultTimeout}
		climb(t.Context(), cfg, &sim{t: t, peer: peer{blocks: true, noVersion: true}}, &simGate{t: t})
		if d := time.Since(began); d > 10*time.Second {
			t.Errorf("a silent peer took %v", d)
		}
	})
}
