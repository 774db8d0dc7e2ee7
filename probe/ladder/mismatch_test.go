package ladder

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnprobe/evidence"
	"vpnprobe/internal/wire/ike"
)

// TestMismatches has peers that differ from what is declared in each way.
func TestMismatches(t *testing.T) {
	m := func(a evidence.Attribute, declared, accepts string) evidence.Mismatch {
		return evidence.Mismatch{Attribute: a, Declared: strings.Split(declared, " "), Accepts: strings.Split(accepts, " ")}
	}
	const encr, integ, prf, group = evidence.Encryption, evidence.Integrity, evidence.PRF, evidence.Group
	for _, tt := range []struct {
		name     string
		declared []string
		peer     []string
		want     []evidence.Mismatch
	}{
		{"encryption", []string{"aes128-sha256-modp2048"}, []string{good}, []evidence.Mismatch{m(encr, "aes128", "aes256")}},
		{"integrity", []string{"aes256-sha512-prfsha256-modp2048"}, []string{good}, []evidence.Mismatch{m(integ, "sha512", "sha256")}},
		{"PRF", []string{"aes256-sha256-prfsha512-modp2048"}, []string{good}, []evidence.Mismatch{m(prf, "prfsha512", "prfsha256")}},
		{"group", []string{"aes256-sha256-modp1024"}, []string{good}, []evidence.Mismatch{m(group, "modp1024", "modp2048")}},
		{"the decoy's group", []string{good}, []string{"aes256-sha256-modp3072"}, []evidence.Mismatch{m(group, "modp2048", "modp3072")}},
		{"integrity and what is derived from it", []string{good}, []string{"aes256-sha1-modp2048"}, []evidence.Mismatch{
			m(integ, "sha256", "sha1"), m(prf, "prfsha256", "prfsha1"),
		}},
		{"encryption and group", []string{"aes128-sha256-ecp256"}, []string{good}, []evidence.Mismatch{
			m(encr, "aes128", "aes256"), m(group, "ecp256", "modp2048"),
		}},
		{"everything", []string{"3des-md5-modp1536"}, []string{good}, []evidence.Mismatch{
			m(encr, "3des", "aes256"), m(integ, "md5", "sha256"), m(prf, "prfmd5", "prfsha256"), m(group, "modp1536", "modp2048"),
		}},
		{"combined encryption declared", []string{"aes256gcm16-prfsha256-modp2048"}, []string{good}, []evidence.Mismatch{
			m(encr, "aes256gcm16", "aes256"),
		}},
		{"combined encryption at the peer", []string{good}, []string{"aes256gcm16-prfsha256-modp2048"}, []evidence.Mismatch{
			m(encr, "aes256", "aes256gcm16"),
		}},
		{"length of the tag", []string{"aes256gcm16-prfsha384-ecp384"}, []string{"aes256gcm8-prfsha384-ecp384"}, []evidence.Mismatch{
			m(encr, "aes256gcm16", "aes256gcm8"),
		}},
		{"several declared", []string{"aes128-sha256-modp2048", "aes192-sha256-modp2048"}, []string{good}, []evidence.Mismatch{
			m(encr, "aes128 aes192", "aes256"),
		}},
		{"several at the peer", []string{"aes256-sha256-modp1024"}, []string{"aes128-sha1-modp2048", good}, []evidence.Mismatch{
			m(group, "modp1024", "modp2048"),
		}},
		{"each, but not together", []string{good}, []string{"aes256-sha256-modp1024", "aes128-sha256-modp2048"}, []evidence.Mismatch{
			m(group, "modp2048", "modp1024"),
		}},
		{"each, but in no one proposal", []string{"aes256-sha256-modp2048", "aes128-sha1-modp1024"}, []string{"aes256-sha1-modp2048"}, []evidence.Mismatch{
			m(integ, "sha256", "sha1"),
		}},
		{"the group, and all else elsewhere", []string{good}, []string{"aes256-sha256-modp3072", "aes128-sha1-modp1024"}, []evidence.Mismatch{
			m(group, "modp2048", "modp3072"),
		}},
		{"beside a proposal that is all different", []string{good}, []string{"aes256-sha256-modp1024", "aes256gcm16-prfsha384-ecp384"}, []evidence.Mismatch{
			m(group, "modp2048", "modp1024"),
		}},
		{"an uncommon algorithm", []string{"aes256-sha256-curve448"}, []string{"camellia192-sha256-curve448", good}, []evidence.Mismatch{
			m(group, "curve448", "modp2048"),
		}},
		{"none", []string{good}, []string{good}, []evidence.Mismatch{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := peer{v2: tt.peer, noV1: true}
			for _, kind := range []peer{p, with(p, func(p *peer) { p.strictKE = true })} {
				out, _, _ := climbIn(t, Config{Version: 2, Proposals: tt.declared, Stateful: true}, kind, time.Minute)
				if diff := cmp.Diff(tt.want, out.Mismatches); diff != "" && !kind.strictKE {
					t.Errorf("on demand (-want +got):\n%s", diff)
				}
				// What the strict one chooses of everything may differ in more.
				want := evidence.FactOf(len(tt.want) == 0)
				if out.V2.Declared != want || out.V2.Accepts != evidence.Yes || out.Confirmed != evidence.Yes || (want == evidence.No) != (len(out.Mismatches) > 0) {
					t.Errorf("on demand, strict %v: got %+v, %v, confirmed %v, %s", kind.strictKE, out.V2, out.Mismatches, out.Confirmed, steps(out))
				}
			}
			out, s, _ := climbIn(t, Config{Version: 2, Proposals: tt.declared}, peer{v2: tt.peer}, time.Minute)
			if diff := cmp.Diff(tt.want, out.Mismatches); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			t.Logf("%d requests", len(out.Exchanges))
			if want := evidence.FactOf(len(tt.want) == 0); out.V2.Declared != want || out.V2.Accepts != evidence.Yes || s.halfOpen != 0 {
				t.Errorf("got %+v, %d half-open", out.V2, s.halfOpen)
			}
			if skipped(out) != "init:on_demand_only" {
				t.Errorf("skipped %s", skipped(out))
			}
		})
	}
}

// The same by IKEv1, where the peer shows what it takes.
func TestMismatchesV1(t *testing.T) {
	for _, tt := range []struct {
		declared, peer string
		want           string // the attributes
	}{
		{good, good, ""},
		{good, "aes128-sha256-modp2048", "encryption"},
		{good, "3des-sha256-modp2048", "encryption"},
		{good, "aes256-sha1-modp2048", "integrity"},
		{good, "aes256-sha256-modp1024", "group"},
		{good, "aes256-sha1-modp1024", "integrity group"},
		{good, "aes128-sha1-modp2048", "encryption integrity"},
		{good, "3des-md5-modp1024", "encryption integrity group"},
		{"aes256gcm16-prfsha256-modp2048", good, ""}, // not an algorithm of IKEv1
	} {
		for _, mode := range []string{"main", "aggressive"} {
			p := peer{silentModes: true, main: []string{tt.peer}}
			if mode == "aggressive" {
				p = peer{silentModes: true, aggressive: []string{tt.peer}}
			}
			t.Run(tt.peer+" "+mode, func(t *testing.T) {
				out, s, _ := climbIn(t, Config{Version: 1, Mode: mode, Proposals: []string{tt.declared}, Stateful: true}, p, time.Minute)
				var got []string
				for _, m := range out.Mismatches {
					got = append(got, string(m.Attribute))
				}
				if strings.Join(got, " ") != tt.want || s.halfOpen != 1 {
					t.Errorf("declared %s: got %+v, want %q; %d half-open, %s", tt.declared, out.Mismatches, tt.want, s.halfOpen, steps(out))
				}
			})
		}
	}
}

// A peer that contradicts itself has no mismatch, and ends the run in time.
func TestContradictions(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		inits := 0
		p := with(swan, func(p *peer) {
			p.twist = func(b []byte) {
				inits++
				if len(b) < ike.HeaderLen+8 || inits < 4 {
					return
				}
				switch m, _ := ike.Parse(b); m.FirstNotify() {
				case "INVALID_KE_PAYLOAD":
					b[len(b)-1] = []byte{14, 14, 15, 19, 77}[r.IntN(5)]
				case "NO_PROPOSAL_CHOSEN":
					b[len(b)-1] = []byte{14, 14, 7}[r.IntN(3)]
				}
			}
		})
		out, _, _ := climbIn(t, Config{Version: 2, Proposals: []string{dated}}, p, time.Minute)
		for _, m := range out.Mismatches {
			if slices.Equal(m.Declared, []string{"aes256"}) {
				t.Errorf("seed %d: a mismatch in what is right: %+v", seed, out.Mismatches)
			}
		}
	}

	// One that is configured during the run takes what it refused.
	for n := 3; n < 40; n++ {
		out, s, _ := climbIn(t, Config{Version: 2, Proposals: []string{dated}}, with(swan, func(p *peer) { p.learns = n }), time.Minute)
		if learnt := s.inits >= n; learnt && (len(out.Mismatches) > 0 || out.V2.Declared == evidence.No) {
			t.Errorf("from request %d on: got %+v, %+v", n, out.Mismatches, out.V2)
		} else if !learnt && len(out.Mismatches) != 3 {
			t.Errorf("never learnt: got %+v", out.Mismatches)
		}
	}
}

// What is wrong by another version than the declared one is not the matter.
func TestMismatchesOfOtherVersion(t *testing.T) {
	out, _, _ := climbIn(t, Config{Version: 2, Proposals: []string{dated}, Stateful: true}, swanV1, time.Minute)
	if len(out.Mismatches) > 0 || facts(out.Main) != "yyn" {
		t.Errorf("got %+v, %+v", out.Mismatches, out.Main)
	}
}
