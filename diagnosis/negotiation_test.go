package diagnosis

import (
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"vpnprobe/evidence"
)

// The verdicts of the ladder about one way to begin a negotiation.
var (
	takes       = evidence.IKEOffers{Answers: evidence.Yes, Accepts: evidence.Yes, Declared: evidence.Yes}
	takesOthers = evidence.IKEOffers{Answers: evidence.Yes, Accepts: evidence.Yes, Declared: evidence.No}
	refusesAll  = evidence.IKEOffers{Answers: evidence.Yes, Accepts: evidence.No, Declared: evidence.No}
	mute        = evidence.IKEOffers{Answers: evidence.No}
)

// ladder is a tunnel that is down, with what the ladder found about IKEv2,
// main and aggressive mode.
func ladder(version int, v2, mainMode, aggressive evidence.IKEOffers, mismatches ...evidence.Mismatch) func(*evidence.Snapshot) {
	return func(s *evidence.Snapshot) {
		noTunnel(s)
		s.Declared.IKEVersion, s.Declared.IKEProposals = version, []string{"aes256-sha256-modp2048"}
		s.Ladder = evidence.Ladder{Time: evidence.Some(now.Add(-5 * time.Second)), V2: v2, Main: mainMode, Aggressive: aggressive, Mismatches: mismatches, Confirmed: evidence.Yes}
	}
}

// but applies further changes.
func but(first func(*evidence.Snapshot), then ...func(*evidence.Snapshot)) func(*evidence.Snapshot) {
	return func(s *evidence.Snapshot) {
		first(s)
		for _, f := range then {
			f(s)
		}
	}
}

// carries makes the tunnel work again.
func carries(s *evidence.Snapshot) {
	h := healthy()
	s.Host, s.Echoes, s.Hop = h.Host, h.Echoes, h.Hop
}

func large(small, large int) func(*evidence.Snapshot) {
	return func(s *evidence.Snapshot) {
		s.Ladder.Large = []evidence.LargeIKE{{Port: 500, SmallBytes: 600, SmallSent: 5, SmallAnswered: small, LargeBytes: 2000, LargeSent: 5, LargeAnswered: large}}
	}
}

// blocked is a responder that answers version probes only.
func blocked(s *evidence.Snapshot) {
	s.Ladder.Exchanges = []evidence.IKEExchange{
		{Step: evidence.StepProposal, Port: 500, Bytes: 372, Requests: 3, Outcome: silent},
		{Step: evidence.StepVersion, Port: 500, Bytes: 372, Requests: 1, Outcome: answered, Answer: evidence.AnswerBadVersion},
	}
}

var (
	wrongEncryption = evidence.Mismatch{Attribute: evidence.Encryption, Declared: []string{"aes256"}, Accepts: []string{"aes128"}}
	wrongGroup      = evidence.Mismatch{Attribute: evidence.Group, Declared: []string{"modp2048"}, Accepts: []string{"ecp256"}}
)

func TestNegotiation(t *testing.T) {
	var none evidence.IKEOffers
	checkAll(t, []evaluation{
		{"encryption differs", ladder(2, takesOthers, none, none, wrongEncryption), "ike_proposal_mismatch", ""},
		{"encryption and group differ", ladder(2, takesOthers, none, none, wrongEncryption, wrongGroup), "ike_proposal_mismatch", ""},
		{"group differs", ladder(2, takesOthers, none, none, wrongGroup), "ike_dh_mismatch", ""},
		{"no attribute found", ladder(2, takesOthers, none, none), "ike_proposal_mismatch", ""},
		{"encryption differs in main mode", ladder(1, none, takesOthers, none, wrongEncryption), "ike_proposal_mismatch", ""},
		{"declared proposal taken", ladder(2, takes, none, none), "tunnel_down", ""},
		{"declared differs on a tunnel that works", but(ladder(2, takesOthers, none, none, wrongEncryption), carries), OK, "ike_proposal_mismatch"},
		{"answers of an hour ago", but(ladder(2, takesOthers, none, none, wrongEncryption), func(s *evidence.Snapshot) {
			s.Ladder.Time = evidence.Some(now.Add(-time.Hour))
		}), "tunnel_down", ""},

		{"no configuration", ladder(2, refusesAll, refusesAll, refusesAll), "peer_no_config", ""},
		{"no configuration, IKEv1 silent", ladder(2, refusesAll, mute, mute), "peer_no_config", ""},
		{"no configuration, IKEv1 declared", ladder(1, refusesAll, refusesAll, refusesAll), "peer_no_config", ""},
		{"no configuration for a stranger", but(ladder(0, refusesAll, none, none), elsewhere, noInner, func(s *evidence.Snapshot) {
			s.Declared.IKEProposals = nil
		}), OK, "peer_no_config"},
		{"IKEv2 refused, IKEv1 not asked yet", ladder(2, refusesAll, evidence.IKEOffers{Answers: evidence.Yes}, none), "tunnel_down", ""},
		{"IKEv2 refused, IKEv1 not asked yet, nothing inner", but(ladder(2, refusesAll, evidence.IKEOffers{Answers: evidence.Yes}, none), noInner), Undecided, ""},
		{"declared and not found out, nothing inner", but(ladder(1, takes, evidence.IKEOffers{Answers: evidence.Yes}, none), noInner), Undecided, ""},
		{"declared and taken, nothing inner", but(ladder(2, takes, none, none), noInner), OK, ""},
		{"authentication unanswered, nothing inner", but(ladder(2, takes, none, none), noInner, auth(evidence.IKEAuth{Stage: evidence.StageAuth})), Undecided, ""},
		{"IKEv2 refused, tunnel works", but(ladder(2, refusesAll, none, none), carries), OK, "peer_no_config"},

		{"IKEv2 declared, peer takes IKEv1", ladder(2, refusesAll, takes, none), "ike_version_mismatch", ""},
		{"IKEv2 declared, peer takes aggressive mode", ladder(2, refusesAll, refusesAll, takes), "ike_version_mismatch", ""},
		{"IKEv2 declared and silent, peer answers IKEv1", ladder(2, mute, evidence.IKEOffers{Answers: evidence.Yes}, none), "ike_version_mismatch", ""},
		{"IKEv1 declared, peer takes IKEv2", ladder(1, takes, refusesAll, refusesAll), "ike_version_mismatch", ""},
		{"IKEv1 declared and silent, peer takes IKEv2", ladder(1, takesOthers, mute, mute), "ike_version_mismatch", ""},
		{"both versions taken", ladder(1, takes, takes, none), "tunnel_down", ""},
		{"version not declared", ladder(0, refusesAll, takes, none), "tunnel_down", ""},

		{"main declared, aggressive taken", but(ladder(1, none, refusesAll, takes), func(s *evidence.Snapshot) { s.Declared.IKEMode = "main" }), "ikev1_mode_mismatch", ""},
		{"aggressive declared, main taken", but(ladder(1, none, takes, mute), func(s *evidence.Snapshot) { s.Declared.IKEMode = "aggressive" }), "ikev1_mode_mismatch", ""},
		{"mode not declared, aggressive taken", ladder(1, none, mute, takes), "ikev1_mode_mismatch", ""},
		{"aggressive declared and silent, main answered", but(ladder(1, refusesAll, evidence.IKEOffers{Answers: evidence.Yes}, mute), func(s *evidence.Snapshot) { s.Declared.IKEMode = "aggressive" }), "ikev1_mode_mismatch", ""},
		{"both modes silent, IKEv2 answered", ladder(1, evidence.IKEOffers{Answers: evidence.Yes}, mute, mute), "tunnel_down", ""},
		{"main taken, aggressive refused", ladder(1, none, takes, refusesAll), "tunnel_down", ""},

		{"cookie", but(ladder(2, evidence.IKEOffers{Answers: evidence.Yes}, none, none), func(s *evidence.Snapshot) { s.Ladder.Cookie = true }), "responder_rate_limited", ""},
		{"cookie, tunnel works", but(ladder(2, none, none, none), carries, func(s *evidence.Snapshot) { s.Ladder.Cookie = true }), "responder_rate_limited", ""},
		{"blocked", but(ladder(2, mute, none, none), blocked), "responder_rate_limited", ""},
		{"heartbeats with a proposal are answered", but(ladder(2, mute, none, none), blocked, func(s *evidence.Snapshot) {
			s.IKE[0].Results[2].Request = evidence.ProposalProbe
		}), "tunnel_down", ""},
		{"blocked, tunnel works", but(ladder(2, mute, none, none), blocked, carries), OK, "responder_rate_limited"},
		{"IKEv2 silent, IKEv1 answered", but(ladder(1, mute, takes, none), blocked), "tunnel_down", ""},
		{"all silent, version too", but(ladder(2, mute, none, none), blocked, func(s *evidence.Snapshot) {
			s.Ladder.Exchanges[1].Outcome = silent
		}), "tunnel_down", ""},

		{"large requests lost", but(ladder(2, takes, none, none), large(5, 0)), "ike_fragment_loss", ""},
		{"large requests lost, peer fragments IKE", but(ladder(2, takes, none, none), large(5, 0), func(s *evidence.Snapshot) {
			s.Ladder.Features.Fragmentation = evidence.Yes
		}), "tunnel_down", "ike_fragment_loss"},
		{"large requests lost, tunnel works", but(ladder(2, takes, none, none), large(5, 0), carries), OK, "ike_fragment_loss"},
		{"large requests lost, key refused", but(ladder(2, takes, none, none), large(5, 0), auth(evidence.IKEAuth{Stage: evidence.StageAuth, Notify: "AUTHENTICATION_FAILED"})), "psk_mismatch", "ike_fragment_loss"},
		{"one large request answered", but(ladder(2, takes, none, none), large(5, 1)), "tunnel_down", ""},
		{"small ones lost as well", but(ladder(2, takes, none, none), large(4, 0)), "tunnel_down", ""},

		{"NAT on our side", func(s *evidence.Snapshot) {
			ladder(2, takes, none, none)(s)
			carries(s)
			s.Ladder.Features.NATHere = evidence.Yes
		}, OK, "behind_nat"},
		{"NAT on our side, 4500 silent", but(ladder(2, takes, none, none), func(s *evidence.Snapshot) {
			s.Ladder.Features.NATHere = evidence.Yes
			ike(s, answered, silent)
		}), "natt_blocked", "behind_nat"},
		{"private source", func(s *evidence.Snapshot) {
			s.Host.Route.Source = evidence.Some(netip.MustParseAddr("192.168.100.2"))
		}, OK, "behind_nat"},

		{"IKEv1 silent on both modes", but(ladder(1, mute, mute, mute), func(s *evidence.Snapshot) { ike(s, silent, silent) }), "peer_firewall_drops_ike", ""},
		{"heartbeats silent, ladder answered", but(ladder(0, mute, takes, none), func(s *evidence.Snapshot) {
			ike(s, silent, silent)
			s.Ladder.Exchanges = []evidence.IKEExchange{{Step: evidence.StepMain, Outcome: answered, Sent: now.Add(-time.Second)}}
		}), "tunnel_down", ""},
		{"went silent after the ladder", but(ladder(0, takes, none, none), func(s *evidence.Snapshot) {
			ike(s, silent, silent)
			s.Ladder.Exchanges = []evidence.IKEExchange{{Step: evidence.StepDeclared, Outcome: answered, Sent: now.Add(-time.Minute)}}
		}), "peer_firewall_drops_ike", ""},
	})
}

// auth is what an authenticated negotiation showed a moment ago.
func auth(a evidence.IKEAuth) func(*evidence.Snapshot) {
	return func(s *evidence.Snapshot) {
		s.Auth = a
		s.Auth.Time = evidence.Some(now.Add(-5 * time.Second))
	}
}

func TestAuthentication(t *testing.T) {
	child := evidence.IKEAuth{Stage: evidence.StageChild, Authenticated: evidence.Yes, Notify: "NO_PROPOSAL_CHOSEN"}
	with := func(change func(*evidence.IKEAuth)) func(*evidence.Snapshot) {
		a := child
		change(&a)
		return but(noTunnel, auth(a))
	}
	checkAll(t, []evaluation{
		{"key refused", but(noTunnel, auth(evidence.IKEAuth{Stage: evidence.StageAuth, Notify: "AUTHENTICATION_FAILED"})), "psk_mismatch", ""},
		{"peer's proof wrong", but(noTunnel, auth(evidence.IKEAuth{Stage: evidence.StageAuth, Authenticated: evidence.No})), "psk_mismatch", ""},
		{"no answer to authentication", but(noTunnel, auth(evidence.IKEAuth{Stage: evidence.StageAuth})), "tunnel_down", ""},
		{"no answer to authentication in IKEv1", but(noTunnel, auth(evidence.IKEAuth{Stage: evidence.StageAuth}), func(s *evidence.Snapshot) { s.Declared.IKEVersion = 1 }), "psk_mismatch", ""},
		{"no answer to authentication in IKEv1 behind NAT", but(noTunnel, auth(evidence.IKEAuth{Stage: evidence.StageAuth}), func(s *evidence.Snapshot) {
			s.Declared.IKEVersion = 1
			s.Host.Route.Source = evidence.Some(netip.MustParseAddr("192.168.100.2"))
		}), "tunnel_down", "behind_nat"},
		{"another refusal", but(noTunnel, auth(evidence.IKEAuth{Stage: evidence.StageAuth, Notify: "INTERNAL_ADDRESS_FAILURE"})), "tunnel_down", ""},
		{"key refused, tunnel works", auth(evidence.IKEAuth{Stage: evidence.StageAuth, Notify: "AUTHENTICATION_FAILED"}), OK, "psk_mismatch"},
		{"key refused an hour ago", but(noTunnel, func(s *evidence.Snapshot) {
			s.Auth = evidence.IKEAuth{Time: evidence.Some(now.Add(-time.Hour)), Stage: evidence.StageAuth, Notify: "AUTHENTICATION_FAILED"}
		}), "tunnel_down", ""},
		{"another identity", but(noTunnel, auth(evidence.IKEAuth{Stage: evidence.StageAuth, RemoteID: "x", RemoteIDOther: evidence.Yes, Authenticated: evidence.Yes})), "identity_mismatch", ""},

		{"ESP algorithms refused, others taken", with(func(a *evidence.IKEAuth) { a.OtherESP = evidence.Yes }), "child_proposal_mismatch", ""},
		{"ESP proposal refused", with(func(*evidence.IKEAuth) {}), "child_proposal_mismatch", ""},
		{"refused with PFS, taken without", with(func(a *evidence.IKEAuth) { a.OtherPFS = evidence.Yes }), "pfs_mismatch", ""},
		{"rekey refused", auth(evidence.IKEAuth{Stage: evidence.StageComplete, Authenticated: evidence.Yes, Rekey: evidence.No, Notify: "NO_PROPOSAL_CHOSEN"}), "pfs_mismatch", ""},
		{"rekey taken", auth(evidence.IKEAuth{Stage: evidence.StageComplete, Authenticated: evidence.Yes, Rekey: evidence.Yes}), OK, ""},
		{"other mode taken", with(func(a *evidence.IKEAuth) { a.OtherMode = evidence.Yes }), "encap_mode_mismatch", ""},
		{"selectors refused", with(func(a *evidence.IKEAuth) { a.Notify = "TS_UNACCEPTABLE"; a.Selectors = "10.1.0.0/24 === 10.3.0.0/24" }), "traffic_selector_mismatch", ""},
		{"selectors narrowed", but(noTunnel, auth(evidence.IKEAuth{Stage: evidence.StageComplete, Authenticated: evidence.Yes, Narrowed: evidence.Yes})), "traffic_selector_mismatch", ""},
		{"another identity, tunnel works now", auth(evidence.IKEAuth{Stage: evidence.StageAuth, RemoteID: "x", RemoteIDOther: evidence.Yes, Authenticated: evidence.Yes}), OK, "identity_mismatch"},
		{"selectors narrowed, tunnel works", auth(evidence.IKEAuth{Stage: evidence.StageComplete, Authenticated: evidence.Yes, Narrowed: evidence.Yes}), OK, "traffic_selector_mismatch"},
		{"PFS refused by an earlier run, tunnel works now", auth(evidence.IKEAuth{Stage: evidence.StageComplete, Authenticated: evidence.Yes, Rekey: evidence.No, Reused: true}), OK, "pfs_mismatch"},
		{"all agreed", but(noTunnel, auth(evidence.IKEAuth{Stage: evidence.StageComplete, Authenticated: evidence.Yes})), "tunnel_down", ""},
	})
}

// TestMismatchEvidence wants the attribute named, with both values.
func TestMismatchEvidence(t *testing.T) {
	s := healthy()
	ladder(2, takesOthers, evidence.IKEOffers{}, evidence.IKEOffers{}, wrongEncryption, wrongGroup)(s)
	var lines []string
	for _, e := range Evaluate(s).Findings[0].Evidence {
		lines = append(lines, e.EN)
	}
	for _, want := range []string{`encryption: declared aes256\b.*aes128`, `group: declared modp2048\b.*ecp256`} {
		if !regexp.MustCompile(want).MatchString(strings.Join(lines, "\n")) {
			t.Errorf("no %q in %q", want, lines)
		}
	}
}
