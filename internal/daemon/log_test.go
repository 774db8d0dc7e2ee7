package daemon

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"vpnprobe/evidence"
)

// lines returns a recording: what strongSwan 5.9.8 and libreswan 4.10 said
// while the peer, a strongSwan 5.9.8, was configured in one thing differently.
func lines(t *testing.T, name string) []string {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var list []string
	for s := bufio.NewScanner(f); s.Scan(); {
		list = append(list, s.Text())
	}
	return list
}

// charonSays splits "[IKE] message".
func charonSays(line string) (group, message string) {
	group, message, _ = strings.Cut(strings.TrimPrefix(line, "["), "] ")
	return group, message
}

func readCharon(list []string) *charonLog {
	l := newCharonLog()
	for _, line := range list {
		l.add(charonSays(line))
	}
	return l
}

var (
	established = evidence.IKEAuth{
		Stage: evidence.StageComplete, RemoteID: "b.lab.example", RemoteIDOther: evidence.No, Authenticated: evidence.Yes,
		ESPChosen: "aes256-sha256", Selectors: "10.1.0.0/24 === 10.2.0.0/24",
	}
	wrongKey = evidence.IKEAuth{Stage: evidence.StageAuth, Notify: "AUTHENTICATION_FAILED", Authenticated: evidence.No}
	unsealed = evidence.IKEAuth{Stage: evidence.StageAuth, Authenticated: evidence.No}
	refused  = evidence.IKEAuth{Stage: evidence.StageInit, Notify: "NO_PROPOSAL_CHOSEN"}
	initial  = evidence.IKEAuth{Stage: evidence.StageInit}
)

// child is a negotiation that failed at the child SA.
func child(notify string) evidence.IKEAuth {
	return evidence.IKEAuth{Stage: evidence.StageChild, Notify: notify, RemoteID: "b.lab.example", RemoteIDOther: evidence.No, Authenticated: evidence.Yes}
}

// with returns a changed copy.
func with(a evidence.IKEAuth, change func(*evidence.IKEAuth)) evidence.IKEAuth {
	change(&a)
	return a
}

// withoutTime ignores what no table can hold.
var withoutTime = cmp.Options{cmpopts.IgnoreFields(evidence.IKEAuth{}, "Said", "By", "Time")}

func TestCharonLog(t *testing.T) {
	for _, tt := range []struct {
		name string
		ids  []string
		want evidence.IKEAuth
	}{
		{"ikev2-established", []string{"1"}, established},
		{"ikev2-narrowed", []string{"6"}, with(established, func(a *evidence.IKEAuth) { a.Selectors = "10.1.0.0/28 === 10.2.0.0/24" })},
		{"ikev2-psk", []string{"2"}, wrongKey},
		{"ikev2-local-id", []string{"3"}, wrongKey},
		{"ikev2-selectors", []string{"5"}, child("TS_UNACCEPTABLE")},
		{"ikev2-mode", []string{"8"}, child("TS_UNACCEPTABLE")},
		{"ikev2-esp", []string{"7"}, child("NO_PROPOSAL_CHOSEN")},
		{"ikev2-proposal", []string{"9"}, refused},
		{"ikev2-silence", []string{"14"}, initial},
		{"ikev2-silence-auth", []string{"15"}, evidence.IKEAuth{Stage: evidence.StageAuth}},
		{"ikev2-child-only", nil, evidence.IKEAuth{
			Stage: evidence.StageComplete, Authenticated: evidence.Yes, ESPChosen: "aes256-sha256-modp2048", Selectors: "10.1.0.0/24 === 10.2.0.0/24",
		}},
		{"ikev1-established", []string{"17"}, with(established, func(a *evidence.IKEAuth) { a.ESPChosen = "aes256-sha256-modp2048" })},
		{"ikev1-psk", []string{"18"}, unsealed},
		{"ikev1-local-id", []string{"19"}, wrongKey},
		{"ikev1-remote-id", []string{"20"}, evidence.IKEAuth{Stage: evidence.StageAuth, RemoteID: "d.lab.example", RemoteIDOther: evidence.Yes}},
		{"ikev1-selectors", []string{"21"}, child("INVALID_ID_INFORMATION")},
		{"ikev1-esp", []string{"23"}, child("NO_PROPOSAL_CHOSEN")},
		{"ikev1-proposal", []string{"25"}, refused},
		{"ikev1-silence", []string{"30"}, initial},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := readCharon(lines(t, "charon/"+tt.name))
			if diff := cmp.Diff(tt.want, l.auth, withoutTime); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tt.ids, l.begun([]ikeSA{{id: "99"}}), cmpopts.EquateEmpty()); diff != "" {
				t.Error(diff)
			}
			checkSaid(t, l.auth.Said)
		})
	}
}

// TestCharonLines has lines that the recordings lack, as strongSwan's sources
// have them.
func TestCharonLines(t *testing.T) {
	sent := []string{"[IKE] initiating IKE_SA cloud[1] to 198.51.100.2", "[ENC] generating IKE_AUTH request 1 [ IDi AUTH SA TSi TSr ]"}
	for _, tt := range []struct {
		name  string
		lines []string
		want  evidence.IKEAuth
	}{
		{"another identity", []string{
			"[IKE] authentication of 'd.lab.example' with pre-shared key successful",
			"[CFG] constraint check failed: identity 'b.lab.example' required ",
			"[CFG] selected peer config 'cloud' unacceptable: constraint checking failed",
		}, evidence.IKEAuth{Stage: evidence.StageAuth, RemoteID: "d.lab.example", RemoteIDOther: evidence.Yes, Authenticated: evidence.Yes}},
		{"aggressive mode, another identity", []string{"[IKE] received IDr d.lab.example, but require b.lab.example"},
			evidence.IKEAuth{Stage: evidence.StageAuth, RemoteID: "d.lab.example", RemoteIDOther: evidence.Yes}},
		{"its key is not ours", []string{"[IKE] tried 1 shared key for 'a.lab.example' - 'b.lab.example', but MAC mismatched"},
			evidence.IKEAuth{Stage: evidence.StageAuth, RemoteID: "b.lab.example", Authenticated: evidence.No}},
		{"another group for PFS", []string{
			"[IKE] IKE_SA cloud[1] established between 203.0.113.2[a]...198.51.100.2[C=CH, O=x, CN=b [1]]",
			"[ENC] generating CREATE_CHILD_SA request 2 [ SA No KE TSi TSr ]",
			"[ENC] parsed CREATE_CHILD_SA response 2 [ N(INVAL_KE) ]",
			"[IKE] peer didn't accept key exchange method MODP_2048, it requested ECP_384",
		}, evidence.IKEAuth{Stage: evidence.StageChild, Notify: "INVALID_KE_PAYLOAD", RemoteID: "C=CH, O=x, CN=b [1]",
			RemoteIDOther: evidence.No, Authenticated: evidence.Yes, PFSGroup: "ecp384"}},
		{"another group for IKE, then silence", []string{
			"[ENC] parsed IKE_SA_INIT response 0 [ N(INVAL_KE) ]",
			"[IKE] peer didn't accept DH group MODP_2048, it requested ECP_384",
			"[IKE] initiating IKE_SA cloud[1] to 198.51.100.2",
			"[ENC] generating IKE_AUTH request 1 [ IDi AUTH SA TSi TSr ]",
		}, evidence.IKEAuth{Stage: evidence.StageAuth}},
		{"our own kernel", []string{
			"[IKE] IKE_SA cloud[1] established between 203.0.113.2[a]...198.51.100.2[b]",
			"[IKE] unable to install inbound and outbound IPsec SA (SAD) in kernel",
		}, evidence.IKEAuth{Stage: evidence.StageChild, RemoteID: "b", RemoteIDOther: evidence.No, Authenticated: evidence.Yes,
			CannotLook: "strongSwan was unable to install inbound and outbound IPsec SA (SAD) in kernel, so its own end failed the tunnel"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := readCharon(append(sent[:2:2], tt.lines...))
			if diff := cmp.Diff(tt.want, l.auth, withoutTime); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func readPluto(list []string, l *plutoLog) *plutoLog {
	for _, line := range list {
		if l.decided {
			break
		}
		l.add(line)
	}
	return l
}

func TestPlutoLog(t *testing.T) {
	for _, tt := range []struct {
		name string
		want evidence.IKEAuth
	}{
		{"ikev2-established", established},
		{"ikev2-psk", wrongKey},
		{"ikev2-local-id", wrongKey},
		{"ikev2-remote-id", wrongKey},
		{"ikev2-selectors", child("TS_UNACCEPTABLE")},
		{"ikev2-mode", child("TS_UNACCEPTABLE")},
		{"ikev2-esp", child("NO_PROPOSAL_CHOSEN")},
		{"ikev2-proposal", refused},
		{"ikev2-silence", initial},
		{"ikev1-established", with(established, func(a *evidence.IKEAuth) { a.Selectors = "" })},
		{"ikev1-psk", unsealed},
		{"ikev1-local-id", unsealed},
		{"ikev1-remote-id", evidence.IKEAuth{Stage: evidence.StageAuth, RemoteID: "d.lab.example", RemoteIDOther: evidence.Yes}},
		// The peer's refusal is not said: only that quick mode goes on.
		{"ikev1-selectors", child("")},
		{"ikev1-mode", child("")},
		{"ikev1-pfs", child("")},
		{"ikev1-proposal", refused},
		{"ikev1-silence", initial},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := readPluto(lines(t, "pluto/"+tt.name), newPlutoLog("cloud"))
			if diff := cmp.Diff(tt.want, l.auth, withoutTime); diff != "" {
				t.Error(diff)
			}
			checkSaid(t, l.auth.Said)
		})
	}
}

func TestPlutoRekey(t *testing.T) {
	for name, want := range map[string]evidence.IKEAuth{
		"pluto/rekey-accepted": with(established, func(a *evidence.IKEAuth) { a.Rekey = evidence.Yes }),
		"pluto/rekey-refused": with(established, func(a *evidence.IKEAuth) {
			a.Rekey, a.Notify = evidence.No, "NO_PROPOSAL_CHOSEN"
		}),
	} {
		l := readPluto(lines(t, "pluto/ikev2-established"), newPlutoLog("cloud"))
		l.rekeying = true
		readPluto(lines(t, name), l)
		if diff := cmp.Diff(want, l.auth, withoutTime); diff != "" {
			t.Error(name, diff)
		}
	}
}

// TestPlutoLines has lines of other releases, and of what the recordings lack.
func TestPlutoLines(t *testing.T) {
	for _, tt := range []struct {
		name  string
		lines []string
		want  evidence.IKEAuth
	}{
		{"newer refusal", []string{
			`181 "cloud" #1: initiating IKEv2 connection to 198.51.100.2 using UDP`,
			`003 "cloud" #1: ignoring IKE_SA_INIT response containing NO_PROPOSAL_CHOSEN notification (Message ID 0; message payloads N, missing SA,KE,Ni)`,
		}, refused},
		{"another's line", []string{
			`181 "cloud" #1: initiating IKEv2 connection`,
			`003 "other" #9: IKE SA authentication request rejected by peer: AUTHENTICATION_FAILED`,
		}, initial},
		{"its key is not ours", []string{
			`182 "cloud"[1] 198.51.100.2 #1: sent IKE_AUTH request {cipher=AES_CBC_256}`,
			`003 "cloud"[1] 198.51.100.2 #1: authentication failed: computed hash does not match hash received from peer ID_FQDN '@b.lab.example'`,
		}, evidence.IKEAuth{Stage: evidence.StageAuth, RemoteID: "b.lab.example", Authenticated: evidence.No}},
		{"IKEv1 with PFS, whole subnets and an address", []string{
			`002 "cloud" #1: initiating IKEv1 Main Mode connection`,
			`004 "cloud" #1: IKE SA established {auth=PRESHARED_KEY}`,
			`002 "cloud" #2: initiating Quick Mode IKEv1+PSK {using isakmp#1 msgid:6b44089d proposal=AES_GCM_16_128-NONE pfsgroup=DH31}`,
			`004 "cloud" #2: IPsec SA established tunnel mode [2001:db8::-2001:db8::ffff:0-65535 0] {ESP=>0xc6f264c2 <0x1bfc29a5 xfrm=AES_GCM_16_128-NONE DPD=passive}`,
		}, evidence.IKEAuth{Stage: evidence.StageComplete, Authenticated: evidence.Yes, RemoteIDOther: evidence.No, ESPChosen: "aes128gcm16", Rekey: evidence.Yes}},
		{"quick mode narrowed", []string{
			`004 "cloud" #40: IKE SA established {auth=PRESHARED_KEY cipher=AES_CBC_256}`,
			`002 "cloud" #41: our client subnet returned doesn't match my proposal - us: 10.1.0.0/24 vs them: 10.1.0.0/28`,
			`004 "cloud" #41: IPsec SA established tunnel mode {ESP=>0xc92c2192 <0xdca47d01 xfrm=AES_CBC_256-HMAC_SHA2_256_128 DPD=passive}`,
		}, evidence.IKEAuth{Stage: evidence.StageComplete, Authenticated: evidence.Yes, RemoteIDOther: evidence.No, ESPChosen: "aes256-sha256", Narrowed: evidence.Yes}},
		{"refused by ourselves", []string{
			`003 "cloud" #20: initiator established IKE SA; authenticated peer using authby=secret and ID_FQDN '@b.lab.example'`,
			`003 "cloud" #21: CHILD SA failed: TS_UNACCEPTABLE`,
			`036 "cloud" #20: IKE SA established but initiator rejected Child SA response`,
		}, child("TS_UNACCEPTABLE")},
		{"not begun", []string{`022 "cloud": we cannot identify ourselves with either end of this connection`}, evidence.IKEAuth{
			Stage: evidence.StageInit, CannotLook: "libreswan did not begin: we cannot identify ourselves with either end of this connection",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := readPluto(tt.lines, newPlutoLog("cloud"))
			if diff := cmp.Diff(tt.want, l.auth, withoutTime); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// checkSaid holds what a result quotes to its bounds.
func checkSaid(t *testing.T, list []string) {
	t.Helper()
	if len(list) == 0 || len(list) > maxSaid {
		t.Errorf("%d lines are quoted", len(list))
	}
	for _, line := range list {
		if len(line) > maxSaidBytes || !utf8.ValidString(line) || key.MatchString(line) {
			t.Errorf("quoted %q", line)
		}
	}
}

func TestSaid(t *testing.T) {
	var got []string
	for _, line := range []string{
		"plain", "", "plain", "tab\tand\x1b[31mred\u202e",
		"shared key: 0123456789abcdef0123456789abcdef0",
		"secret => 32 bytes @ 0x7f: 30 31 32 33 34 35 36 37 38 39 3A 3B 3C 3D 3E 3F",
		"cookie 0123456789abcdef_i 0123456789abcdef_r",
		"\xff" + strings.Repeat("\u00e9", maxSaidBytes),
	} {
		got = said(got, line)
	}
	want := []string{"plain", "tab.and.[31mred.", "cookie 0123456789abcdef_i 0123456789abcdef_r", "." + strings.Repeat("\u00e9", 98) + "..."}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for i := range 100 {
		got = said(got, strings.Repeat("x", i))
	}
	if len(got) != maxSaid || len(got[maxSaid-1]) != 99 {
		t.Errorf("kept %d lines, the last %q", len(got), got[len(got)-1])
	}
}

func TestProposalOf(t *testing.T) {
	for names, want := range map[string]string{
		"AES_CBC_256/HMAC_SHA2_256_128/NO_EXT_SEQ":       "aes256-sha256",
		"AES_GCM_16_128/MODP_2048/EXT_SEQ":               "aes128gcm16-modp2048-esn",
		"CHACHA20_POLY1305/CURVE_25519/NO_EXT_SEQ":       "chacha20poly1305-curve25519",
		"AES_CTR_192/HMAC_SHA2_512_256/ECP_521":          "aes192ctr-sha512-ecp521",
		"3DES_CBC/HMAC_SHA1_96/MODP_1024":                "3des-sha1-modp1024",
		"CAMELLIA_CBC_256/AES_XCBC_96/ECP_256_BP":        "camellia256-aesxcbc-ecp256bp",
		"AES_CBC_256/HMAC_SHA2_384_192/DH19":             "aes256-sha384-ecp256",
		"NEW_CIPHER_1\x1b/HMAC_SHA2_256_128/NO_EXT_SEQ/": "new_cipher_1.-sha256",
	} {
		if got := proposalOf(names); got != want {
			t.Errorf("%q: got %q, want %q", names, got, want)
		}
	}
}

func TestNarrowed(t *testing.T) {
	a, b := []string{"10.1.0.0/24"}, []string{"10.2.0.0/24", "10.3.0.0/24"}
	for _, tt := range []struct {
		selectors     string
		local, remote []string
		want          evidence.Fact
	}{
		{"10.1.0.0/24 === 10.2.0.0/24 10.3.0.0/24", a, b, evidence.No},
		{"10.1.0.0/24 === 10.3.0.0/24 10.2.0.0/24", a, b, evidence.No},
		{"10.1.0.0/24 === 10.2.0.0/24", a, b, evidence.Yes},
		{"10.1.0.0/28 === 10.2.0.0/24 10.3.0.0/24", a, b, evidence.Yes},
		{"203.0.113.2/32 === 10.2.0.0/24 10.3.0.0/24", []string{"dynamic"}, b, evidence.Unknown},
		{"", a, b, evidence.Unknown},
		{"10.1.0.0/24 === 10.2.0.0/24", nil, nil, evidence.Unknown},
	} {
		if got := narrowed(tt.selectors, tt.local, tt.remote); got != tt.want {
			t.Errorf("%q: got %v, want %v", tt.selectors, got, tt.want)
		}
	}
}

func TestNetwork(t *testing.T) {
	for in, want := range map[string]string{
		"10.1.0.0-10.1.0.255":         "10.1.0.0/24",
		"10.1.0.1-10.1.0.255":         "10.1.0.1-10.1.0.255",
		"0.0.0.0-255.255.255.255":     "0.0.0.0/0",
		"192.0.2.1":                   "192.0.2.1/32",
		"192.0.2.1-192.0.2.1":         "192.0.2.1/32",
		"2001:db8::-2001:db8::ffff":   "2001:db8::/112",
		"10.0.0.0-2001:db8::1":        "10.0.0.0-2001:db8::1",
		"nothing":                     "nothing",
		"10.0.0.0-nothing":            "10.0.0.0-nothing",
		"10.1.0.255-10.1.0.0":         "10.1.0.255-10.1.0.0",
		"::ffff:1.2.3.0-::ffff:1.2.3": "::ffff:1.2.3.0-::ffff:1.2.3",
	} {
		if got := network(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// FuzzLogs feeds both readers what a daemon might say.
func FuzzLogs(f *testing.F) {
	for _, dir := range []string{"charon", "pluto"} {
		files, err := filepath.Glob(filepath.Join("testdata", dir, "*.log"))
		if err != nil || len(files) == 0 {
			f.Fatal(files, err)
		}
		for _, name := range files {
			b, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(b))
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		list := strings.Split(text, "\n")
		c, p := readCharon(list), newPlutoLog("cloud")
		for _, line := range list {
			p.add(line)
		}
		for _, said := range [][]string{c.auth.Said, p.auth.Said} {
			if len(said) > 0 {
				checkSaid(t, said)
			}
		}
		plutoStatusOf(list, evidencePeer)
	})
}
