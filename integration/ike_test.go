//go:build linux

package integration

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"vpnprobe/internal/lab"
)

// ikeFlags are those of agent probe where answers decide, and nothing has to
// be found silent.
var ikeFlags = []string{"--duration", "10s"}

// A speaker is an implementation of a version of IKE, at the far end.
type speaker struct {
	daemon  lab.Daemon
	version int
	refused string // what its log says of a proposal that does not fit
}

var speakers = map[string]speaker{
	"strongswan":       {lab.StrongSwan, 2, `received proposals unacceptable`},
	"strongswan_ikev1": {lab.StrongSwan, 1, `no proposal found`},
	"libreswan":        {lab.Libreswan, 2, `no local proposal matches remote proposals`},
	"libreswan_ikev1":  {lab.Libreswan, 1, `no acceptable Oakley Transform`},
	"openiked":         {lab.OpenIKED, 2, `no proposal chosen`},
}

// config returns a lab in which gateway b is the speaker, and both gateways
// are told the same but for what change, if not nil, does to b.
func (s speaker) config(change func(*lab.Tunnel)) lab.Config {
	return lab.Config{
		DaemonB: s.daemon,
		Tunnel: func(t *lab.Tunnel) {
			t.Version = s.version
			if s.daemon == lab.OpenIKED {
				t.ESP = "aes256-sha1" // on Linux it does not load any longer hash
			}
		},
		Theirs: change,
	}
}

// settings on gateway b that make strongSwan do what it refuses by default.
const (
	allowAggressive = "i_dont_care_about_security_and_use_aggressive_mode_psk = yes"
	cookieAtOnce    = "cookie_threshold = 1"
	noCookies       = "cookie_threshold = 0\ncookie_threshold_ip = 0"
)

// TestIKEProposal changes one algorithm of the far end's IKE proposal.
func TestIKEProposal(t *testing.T) {
	t.Parallel()
	changes := map[string]struct {
		theirs, diagnosis string
		evidence          string
		versions          []int
	}{
		"encryption": {"aes128-sha256-modp2048", "ike_proposal_mismatch", `(?i)encryption.*aes256`, []int{1, 2}},
		"integrity":  {"aes256-sha512-prfsha256-modp2048", "ike_proposal_mismatch", `(?i)integrity.*sha256`, []int{2}},
		"prf":        {"aes256-sha256-prfsha512-modp2048", "ike_proposal_mismatch", `(?i)prf.*sha256`, []int{2}},
		"hash":       {"aes256-sha512-modp2048", "ike_proposal_mismatch", `(?i)(integrity|hash).*sha256`, []int{1}},
		"group":      {"aes256-sha256-modp3072", "ike_dh_mismatch", `(?i)group.*modp2048`, []int{1, 2}},
	}
	for _, who := range slices.Sorted(maps.Keys(speakers)) {
		s := speakers[who]
		var cases []testCase
		for _, what := range slices.Sorted(maps.Keys(changes)) {
			c := changes[what]
			if !slices.Contains(c.versions, s.version) {
				continue
			}
			cases = append(cases, testCase{
				name: who + "_" + what, config: s.config(func(t *lab.Tunnel) { t.IKE = c.theirs }), idle: true,
				diagnosis: c.diagnosis, evidence: func(*lab.Lab) string { return c.evidence },
				flags: ikeFlags, log: s.refused, alsoIPv6: who == "strongswan" && what == "group",
			})
		}
		together(t, who, cases)
	}
}

// elsewhere is a configuration for another address than gateway a's.
func elsewhere(t *lab.Tunnel) { t.Remote = "203.0.113.77" }

// largeMessages makes the request of IKE_AUTH exceed the path MTU, as
// certificates do.
func largeMessages(t *lab.Tunnel) {
	for _, id := range []*string{&t.LocalID, &t.RemoteID} {
		*id = strings.Repeat("long.", 90) + *id
	}
	var proposals []string
	for _, cipher := range []string{"aes256", "aes192", "aes128"} {
		for _, hash := range []string{"sha256", "sha384", "sha512", "sha1"} {
			proposals = append(proposals, cipher+"-"+hash)
		}
	}
	t.ESP = strings.Join(proposals, ", ")
	t.Whole = true
}

// ikeHealthy are tunnels that work, whatever runs at the far end.
var ikeHealthy = []testCase{
	{name: "strongswan_ikev1", config: speakers["strongswan_ikev1"].config(nil)},
	{
		name: "strongswan_ikev1_aggressive",
		config: lab.Config{Tunnel: func(t *lab.Tunnel) {
			t.Version, t.Aggressive, t.Settings = 1, true, allowAggressive
		}},
	},
	{name: "libreswan", config: speakers["libreswan"].config(nil)},
	{name: "libreswan_ikev1", config: speakers["libreswan_ikev1"].config(nil)},
	{
		name:   "libreswan_ikev1_aggressive",
		config: lab.Config{DaemonB: lab.Libreswan, Tunnel: func(t *lab.Tunnel) { t.Version, t.Aggressive = 1, true }},
	},
	{name: "libreswan_here", config: lab.Config{DaemonA: lab.Libreswan}},
	{name: "openiked", config: speakers["openiked"].config(nil)},
	{
		name: "one_of_several_proposals",
		config: lab.Config{
			Tunnel: func(t *lab.Tunnel) {
				t.IKE = "aes256gcm16-prfsha384-ecp384, aes128-sha1-modp1536, aes256-sha256-modp2048"
			},
			Theirs: func(t *lab.Tunnel) { t.IKE = "aes256-sha256-modp2048" },
		},
	},
	{name: "large_messages", config: lab.Config{Tunnel: largeMessages}},
	{name: "nat_there", config: lab.Config{PeerNAT: true}, info: "behind_nat"},
	{name: "nat_at_both_ends", config: lab.Config{NAT: true, PeerNAT: true}, info: "behind_nat"},
	{
		name: "authenticated", idle: true,
		config: lab.Config{Identified: true}, flags: authenticate,
	},
}

// ikeFaulty are tunnels whose ends do not even begin to agree.
var ikeFaulty = []testCase{
	{
		name: "strongswan_no_config", config: lab.Config{Theirs: elsewhere},
		diagnosis: "peer_no_config", log: `no IKE config found for 198\.51\.100\.2\.\.\.203\.0\.113\.2`,
	},
	{
		name: "strongswan_ikev1_no_config", config: speakers["strongswan_ikev1"].config(elsewhere),
		diagnosis: "peer_no_config", log: `no IKE config found for 198\.51\.100\.2\.\.\.203\.0\.113\.2`,
	},
	{
		name: "libreswan_no_config", config: speakers["libreswan"].config(elsewhere),
		diagnosis: "peer_no_config", log: `no connection has been authorized`,
	},
	{
		name: "strongswan_speaks_ikev1", config: lab.Config{Theirs: func(t *lab.Tunnel) { t.Version = 1 }},
		diagnosis: "ike_version_mismatch", log: `no IKE config found`,
	},
	{
		name: "strongswan_speaks_ikev2", config: speakers["strongswan_ikev1"].config(func(t *lab.Tunnel) { t.Version = 2 }),
		diagnosis: "ike_version_mismatch", log: `no IKE config found`,
	},
	{
		name: "libreswan_speaks_ikev1", config: speakers["libreswan"].config(func(t *lab.Tunnel) { t.Version = 1 }),
		diagnosis: "ike_version_mismatch", log: `no suitable connection found with IKEv2 policy`,
	},
	{
		name: "libreswan_speaks_ikev2", config: speakers["libreswan_ikev1"].config(func(t *lab.Tunnel) { t.Version = 2 }),
		diagnosis: "ike_version_mismatch", log: `initial Main Mode message received but no connection has been authorized`,
	},
	{
		name: "openiked_speaks_ikev2", config: lab.Config{DaemonB: lab.OpenIKED, Tunnel: func(t *lab.Tunnel) { t.Version = 1 }},
		diagnosis: "ike_version_mismatch",
	},
	{
		name: "strongswan_wants_main_mode",
		config: lab.Config{
			Tunnel: func(t *lab.Tunnel) { t.Version, t.Aggressive, t.Settings = 1, true, allowAggressive },
			Theirs: func(t *lab.Tunnel) { t.Aggressive, t.Settings = false, "" },
		},
		diagnosis: "ikev1_mode_mismatch", log: `Aggressive Mode PSK disabled|none allows pre-shared key authentication using Aggressive Mode`,
	},
	{
		name: "libreswan_wants_main_mode",
		config: lab.Config{
			DaemonB:    lab.Libreswan,
			Tunnel:     func(t *lab.Tunnel) { t.Version, t.Aggressive = 1, true },
			Theirs:     func(t *lab.Tunnel) { t.Aggressive = false },
			Identified: true,
		},
		diagnosis: "ikev1_mode_mismatch", log: `initial Aggressive Mode message from .* but no`,
	},
	{
		// It answers the mode only under the identity that it expects.
		name: "libreswan_wants_aggressive_mode",
		config: lab.Config{
			DaemonB:    lab.Libreswan,
			Tunnel:     func(t *lab.Tunnel) { t.Version = 1 },
			Theirs:     func(t *lab.Tunnel) { t.Aggressive = true },
			Identified: true,
		},
		diagnosis: "ikev1_mode_mismatch", log: `initial Main Mode message received but no connection`,
	},
	{
		name:   "strongswan_asks_for_cookies",
		config: lab.Config{Theirs: func(t *lab.Tunnel) { t.Settings = cookieAtOnce }},
		fault:  func(l *lab.Lab) { l.Reference.Knock(2) },
		// The gateway's own daemon sends the cookie back.
		diagnosis: "responder_rate_limited", evidence: func(*lab.Lab) string { return `COOKIE` }, carries: true,
	},
	{
		name:      "libreswan_asks_for_cookies",
		config:    speakers["libreswan"].config(func(t *lab.Tunnel) { t.Settings = "ddos-mode=busy" }),
		diagnosis: "responder_rate_limited", evidence: func(*lab.Lab) string { return `COOKIE` }, carries: true,
	},
	{
		// Another host has the same public address. strongSwan's limit of
		// handshakes from one address is the default.
		name: "strongswan_blocks_address",
		config: lab.Config{
			NAT:    true,
			Theirs: func(t *lab.Tunnel) { t.Settings = noCookies },
		},
		fault:     func(l *lab.Lab) { l.NAT.Knock(6) },
		diagnosis: "responder_rate_limited", log: `per-IP half-open IKE_SA limit of 5 reached`,
	},
	{
		name:      "ike_fragments_dropped",
		config:    lab.Config{Tunnel: largeMessages},
		fault:     func(l *lab.Lab) { l.ISP.Drop("FORWARD", "-f") },
		flags:     []string{"--duration", "15s"},
		diagnosis: "ike_fragment_loss",
	},
}

func TestIKEHealthy(t *testing.T) {
	t.Parallel()
	cases := slices.Clone(ikeHealthy)
	for i := range cases {
		cases[i].diagnosis, cases[i].carries = "ok", true
	}
	together(t, "lab", cases)
}

func TestIKE(t *testing.T) {
	t.Parallel()
	cases := slices.Clone(ikeFaulty)
	for i := range cases {
		cases[i].idle = true
	}
	together(t, "lab", cases)
}

// matches says whether the regular expression matches text.
func matches(pattern, text string) bool { return regexp.MustCompile(pattern).MatchString(text) }
