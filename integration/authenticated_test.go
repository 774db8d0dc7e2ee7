//go:build linux

package integration

import (
	"strings"
	"testing"

	"vpnprobe/internal/lab"
)

// authenticate are the flags of an authenticated probe.
var authenticate = []string{"--authenticate", "--duration", "8s"}

// disagreement is something wrong at the far end that shows only to who has
// the key.
type disagreement struct {
	tunnel, theirs func(*lab.Tunnel)
	diagnosis      string
	evidence       string
	carries        bool // where gateway a has a daemon of its own
	log            map[lab.Daemon]string
}

var disagreements = map[string]disagreement{
	"key": {
		theirs:    func(t *lab.Tunnel) { t.Key = "another pre-shared key for tests" },
		diagnosis: "psk_mismatch", evidence: `key|AUTHENTICATION_FAILED`,
		log: map[lab.Daemon]string{
			lab.StrongSwan: `MAC mismatched|could not decrypt payloads`,
			lab.Libreswan:  `computed hash does not match hash received|probable authentication failure`,
			lab.OpenIKED:   `AUTHENTICATION_FAILED`,
		},
	},
	"their_identity": {
		theirs:    func(t *lab.Tunnel) { t.LocalID = "c.lab.example" },
		diagnosis: "identity_mismatch", evidence: `c\.lab\.example`,
	},
	"our_identity": { // of which a peer says the same as of a wrong key
		theirs:    func(t *lab.Tunnel) { t.RemoteID = "c.lab.example" },
		diagnosis: "psk_mismatch", evidence: `identity: declared a\.lab\.example`,
		log: map[lab.Daemon]string{lab.StrongSwan: `no matching peer config found`},
	},
	"subnets": {
		theirs:    func(t *lab.Tunnel) { t.LocalSubnet = "10.9.0.0/24" },
		diagnosis: "traffic_selector_mismatch", evidence: `TS_UNACCEPTABLE|INVALID_ID_INFORMATION|10\.9\.0\.0/24`,
		log: map[lab.Daemon]string{
			lab.StrongSwan: `traffic selectors .* unacceptable|no matching CHILD_SA config found`,
			lab.Libreswan:  `TS_UNACCEPTABLE`,
		},
	},
	"esp": {
		theirs:    func(t *lab.Tunnel) { t.ESP = "aes128-sha1" },
		diagnosis: "child_proposal_mismatch", evidence: `takes aes128-sha1|NO_PROPOSAL_CHOSEN`,
		log: map[lab.Daemon]string{lab.StrongSwan: `no acceptable proposal found|no matching proposal found`, lab.Libreswan: `NO_PROPOSAL_CHOSEN`},
	},
	"transport": { // strongSwan and OpenIKED take tunnel mode all the same, or refuse the subnets
		theirs:    func(t *lab.Tunnel) { t.Transport = true },
		diagnosis: "encap_mode_mismatch", evidence: `transport mode`,
	},
	"pfs_group": { // which shows with the second child SA
		tunnel:    func(t *lab.Tunnel) { t.ESP += "-modp2048" },
		theirs:    func(t *lab.Tunnel) { t.ESP = strings.Replace(t.ESP, "modp2048", "modp3072", 1) },
		diagnosis: "pfs_mismatch", evidence: `modp3072|modp2048`, carries: true,
	},
	"pfs": {
		theirs:    func(t *lab.Tunnel) { t.ESP += "-modp3072" },
		diagnosis: "pfs_mismatch", evidence: `modp3072`, carries: true,
	},
}

// TestAuthenticated has the agent ask the daemon of its gateway to negotiate,
// or negotiate by itself where none runs: alone.
func TestAuthenticated(t *testing.T) {
	t.Parallel()
	for _, how := range []struct {
		name   string
		config lab.Config
		alone  bool
		about  []string // of disagreements
	}{
		{"strongswan", speakers["strongswan"].config(nil), false, []string{"key", "their_identity", "subnets", "esp", "pfs_group"}},
		{"strongswan_ikev1", speakers["strongswan_ikev1"].config(nil), false, []string{"key", "subnets", "esp"}},
		{"strongswan_alone", speakers["strongswan"].config(nil), true, []string{"key", "their_identity", "our_identity", "subnets", "esp", "pfs_group", "pfs"}},
		{"libreswan", speakers["libreswan"].config(nil), false, []string{"transport"}},
		{"libreswan_ikev1", speakers["libreswan_ikev1"].config(nil), false, []string{"key", "esp"}},
		{"libreswan_alone", speakers["libreswan"].config(nil), true, []string{"key", "their_identity", "subnets", "esp", "transport", "pfs_group"}},
		{"libreswan_here", lab.Config{DaemonA: lab.Libreswan}, false, []string{"key", "esp"}},
		{"openiked_alone", speakers["openiked"].config(nil), true, []string{"key", "subnets", "esp", "pfs"}},
	} {
		var cases []testCase
		for _, about := range how.about {
			d := disagreements[about]
			c := testCase{
				name: how.name + "_" + about, config: d.config(how.config), idle: true,
				diagnosis: d.diagnosis, evidence: func(*lab.Lab) string { return d.evidence }, carries: d.carries && !how.alone,
				flags: authenticate, log: d.log[how.config.DaemonB],
				alsoIPv6: how.name == "strongswan_alone" && about == "subnets",
			}
			if how.alone {
				c.fault = func(l *lab.Lab) { l.A.IKE.Stop() }
				c.after = func(l *lab.Lab) { leavesNothing(l, how.config.DaemonB) }
			}
			cases = append(cases, c)
		}
		together(t, how.name, cases)
	}
}

// config returns a lab with the disagreement.
func (d disagreement) config(c lab.Config) lab.Config {
	agreed := c.Tunnel
	c.Tunnel = func(t *lab.Tunnel) {
		for _, change := range []func(*lab.Tunnel){agreed, d.tunnel} {
			if change != nil {
				change(t)
			}
		}
	}
	c.Theirs, c.Identified = d.theirs, true
	return c
}

// leavesNothing checks that the peer holds nothing of a negotiation any more.
func leavesNothing(l *lab.Lab, daemon lab.Daemon) {
	l.T().Helper()
	// OpenIKED keeps one that it refused to authenticate.
	if n := l.B.IKE.HalfOpen(); n > 1 && daemon != lab.OpenIKED {
		l.T().Errorf("%d half-open handshakes at the peer, want that of the ladder at most", n)
	}
	if left := l.B.SPIs(); len(left) > 0 {
		l.T().Errorf("SPIs at the peer: %v, want none", left)
	}
}
