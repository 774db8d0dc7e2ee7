package ike_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"vpnprobe/config"
	"vpnprobe/internal/wire/ike"
)

// keywords returns those of a configuration's proposals, by type. unnumbered
// are those whose algorithms have no registered number.
func keywords() (byType map[ike.TransformType][]string, unnumbered map[ike.TransformType][]string) {
	encryption := strings.Fields("des 3des null chacha20poly1305 cast128")
	other := []string{"sm4"}
	for _, bits := range []string{"128", "192", "256"} {
		for _, format := range strings.Fields("aes% aes%ctr aes%gmac camellia% camellia%ctr blowfish%") {
			encryption = append(encryption, strings.Replace(format, "%", bits, 1))
		}
		for _, icv := range []string{"8", "12", "16"} {
			encryption = append(encryption, "aes"+bits+"gcm"+icv, "aes"+bits+"ccm"+icv, "camellia"+bits+"ccm"+icv)
		}
		other = append(other, "serpent"+bits, "twofish"+bits)
	}
	return map[ike.TransformType][]string{
			ike.TransformEncryption: encryption,
			ike.TransformIntegrity:  strings.Fields("md5 md5_128 sha1 sha1_160 sha256 sha384 sha512 aesxcbc aescmac"),
			ike.TransformPRF:        strings.Fields("prfmd5 prfsha1 prfsha256 prfsha384 prfsha512 prfaesxcbc prfaescmac"),
			ike.TransformKeyExchange: strings.Fields(`modp768 modp1024 modp1536 modp2048 modp3072 modp4096 modp6144 modp8192
				modp1024s160 modp2048s224 modp2048s256 ecp192 ecp224 ecp256 ecp384 ecp521 ecp224bp ecp256bp ecp384bp ecp512bp
				curve25519 curve448 mlkem512 mlkem768 mlkem1024`),
			ike.TransformADDKE1:   {"ke1_mlkem768", "ke1_curve25519"},
			ike.TransformADDKE7:   {"ke7_modp2048"},
			ike.TransformSequence: {"esn", "noesn"},
		}, map[ike.TransformType][]string{
			ike.TransformEncryption:  other,
			ike.TransformIntegrity:   {"sha256_96", "camelliaxcbc", "sm3"},
			ike.TransformPRF:         {"prfcamelliaxcbc", "prfsm3"},
			ike.TransformKeyExchange: {"sm2"},
		}
}

// configured returns a keyword as the configuration keeps it, after it was
// written in a proposal.
func configured(t *testing.T, typ ike.TransformType, word string) []string {
	t.Helper()
	proposal := map[ike.TransformType]string{
		ike.TransformEncryption:  word + "-sha256",
		ike.TransformIntegrity:   "aes128-" + word,
		ike.TransformPRF:         "aes128-sha256-" + word + "-modp2048",
		ike.TransformKeyExchange: "aes128-sha256-" + word,
		ike.TransformSequence:    "aes128-sha256-" + word,
	}
	part, text := "esp", proposal[typ]
	switch {
	case typ == ike.TransformPRF:
		part = "ike"
	case typ >= ike.TransformADDKE1:
		text = "aes128-sha256-modp2048-" + word
	case typ == ike.TransformEncryption && isAEAD(word):
		text = word
	}
	y := fmt.Sprintf("peers: [{name: p, gateway: 198.51.100.2, %s: {proposals: [%s]}}]", part, text)
	c, err := config.Parse(strings.NewReader(y), "test.yaml", nil, nil)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	p := c.Peers[0].ESP.Proposals
	if part == "ike" {
		p = c.Peers[0].IKE.Proposals
	}
	switch typ {
	case ike.TransformEncryption:
		return p[0].Encryption
	case ike.TransformIntegrity:
		return p[0].Integrity
	case ike.TransformPRF:
		return p[0].PRF
	case ike.TransformSequence:
		return p[0].ESN
	}
	return p[0].Groups
}

func isAEAD(word string) bool {
	for _, s := range []string{"gcm", "ccm", "gmac", "poly1305"} {
		if strings.Contains(word, s) {
			return true
		}
	}
	return false
}

// Each keyword that a configuration may hold, and that has a number, becomes
// a transform of its type and the same keyword again.
func TestKeywords(t *testing.T) {
	numbered, unnumbered := keywords()
	seen := make(map[string]string)
	for typ, words := range numbered {
		for _, word := range words {
			if got := configured(t, typ, word); !slices.Contains(got, word) {
				t.Errorf("%s is kept as %v", word, got)
			}
			transform, ok := ike.TransformOf(word)
			if !ok || transform.Type != typ {
				t.Errorf("%s: %+v, %v", word, transform, ok)
				continue
			}
			if got := transform.Keyword(); got != word {
				t.Errorf("%s came back as %s", word, got)
			}
			id := fmt.Sprint(transform)
			if seen[id] != "" {
				t.Errorf("%s and %s are both %s", word, seen[id], id)
			}
			seen[id] = word
		}
	}
	for typ, words := range unnumbered {
		for _, word := range words {
			if got := configured(t, typ, word); !slices.Contains(got, word) {
				t.Errorf("%s is kept as %v", word, got)
			}
			if transform, ok := ike.TransformOf(word); ok {
				t.Errorf("%s has no number, but became %+v", word, transform)
			}
		}
	}
}

func TestTransforms(t *testing.T) {
	for word, want := range map[string]ike.Transform{
		"aes256":                 {Type: ike.TransformEncryption, ID: ike.EncrAESCBC, KeyLength: 256},
		"aes128gcm16":            {Type: ike.TransformEncryption, ID: ike.EncrAESGCM16, KeyLength: 128},
		"3des":                   {Type: ike.TransformEncryption, ID: ike.Encr3DES},
		"chacha20poly1305":       {Type: ike.TransformEncryption, ID: ike.EncrChaCha20Poly1305},
		"chacha20poly1305compat": {Type: ike.TransformEncryption, ID: ike.EncrChaCha20Poly1305, KeyLength: 256},
		"sha256":                 {Type: ike.TransformIntegrity, ID: ike.AuthHMACSHA256128},
		"prfsha256":              {Type: ike.TransformPRF, ID: ike.PRFHMACSHA256},
		"modp2048":               {Type: ike.TransformKeyExchange, ID: ike.GroupMODP2048},
		"ke2_mlkem768":           {Type: ike.TransformADDKE2, ID: ike.GroupMLKEM768},
		"noesn":                  {Type: ike.TransformSequence, ID: ike.SequenceNumbers32},
	} {
		got, ok := ike.TransformOf(word)
		if diff := cmp.Diff(want, got); !ok || diff != "" {
			t.Errorf("%s: %v, -want +got:\n%s", word, ok, diff)
		}
	}
	for _, word := range []string{"", "aes", "AES256", "aes256 ", "ke1_", "ke0_modp2048", "ke8_modp2048", "ke1_aes256", "ke1-modp2048", "ke1_ke1_modp2048"} {
		if got, ok := ike.TransformOf(word); ok {
			t.Errorf("%q became %+v", word, got)
		}
	}
	for want, transform := range map[string]ike.Transform{
		"ENCR_12/512":   {Type: ike.TransformEncryption, ID: ike.EncrAESCBC, KeyLength: 512},
		"ENCR_12":       {Type: ike.TransformEncryption, ID: ike.EncrAESCBC},
		"PRF_9":         {Type: ike.TransformPRF, ID: ike.PRFHMACStreebog512},
		"KE_1023":       {Type: ike.TransformKeyExchange, ID: 1023},
		"ADDKE3_33":     {Type: ike.TransformADDKE3, ID: ike.GroupGOST256},
		"TRANSFORM_0_0": {},
	} {
		if got := transform.Keyword(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestPhaseOne(t *testing.T) {
	short := func(values ...uint16) []ike.Attribute {
		var list []ike.Attribute
		for i := 0; i < len(values); i += 2 {
			list = append(list, ike.Attribute{Type: values[i], Value: values[i+1]})
		}
		return list
	}
	for _, tt := range []struct {
		encr, hash, group string
		want              []ike.Attribute
	}{
		{"aes256", "sha256", "modp2048", short(1, 7, 14, 256, 2, 4, 4, 14)},
		{"3des", "md5", "modp1024", short(1, 5, 2, 1, 4, 2)},
		{"des", "sha1", "modp768", short(1, 1, 2, 2, 4, 1)},
		{"camellia128", "sha512", "ecp521", short(1, 8, 14, 128, 2, 6, 4, 21)},
		{"blowfish192", "sha384", "curve25519", short(1, 3, 14, 192, 2, 5, 4, 31)},
		{"cast128", "sha1", "modp1536", short(1, 6, 14, 128, 2, 2, 4, 5)},
		{"sm4", "sm3", "modp2048", short(1, 129, 2, 20, 4, 14)},
		{"aes128gcm16", "sha256", "modp2048", nil},
		{"aes128ctr", "sha256", "modp2048", nil},
		{"sha256", "sha256", "modp2048", nil},
		{"aes128", "aesxcbc", "modp2048", nil},
		{"aes128", "prfsha256", "modp2048", nil},
		{"aes128", "sha256", "mlkem768", nil},
		{"aes128", "sha256", "sm2", nil},
		{"aes128", "sha256", "sha256", nil},
		{"", "", "", nil},
	} {
		got, ok := ike.PhaseOneOf(tt.encr, tt.hash, tt.group)
		if diff := cmp.Diff(tt.want, got); ok != (tt.want != nil) || diff != "" {
			t.Errorf("%s-%s-%s: %v, -want +got:\n%s", tt.encr, tt.hash, tt.group, ok, diff)
		}
		if !ok {
			continue
		}
		encr, hash, group, auth := ike.PhaseOneKeywords(append(got, ike.Attribute{Type: ike.AttrV1Auth, Value: ike.AuthV1SharedKey}))
		if encr != tt.encr || hash != tt.hash || group != tt.group || auth != "psk" {
			t.Errorf("%s-%s-%s came back as %s %s %s %s", tt.encr, tt.hash, tt.group, encr, hash, group, auth)
		}
	}
	for want, list := range map[string][]ike.Attribute{
		"|||":                            nil,
		"ENCR_99/128|HASH_9|KE_3|AUTH_6": short(1, 99, 14, 128, 2, 9, 4, 3, 3, 6),
		"ENCR_7||curve448|rsasig":        short(1, 7, 4, 32, 3, 3),
		"3des|||xauthpsk":                short(1, 5, 3, 65001, 1, 7),
		"|md5||":                         {{Type: 1, Data: []byte{0, 7}}, {Type: 2, Value: 1}},
	} {
		encr, hash, group, auth := ike.PhaseOneKeywords(list)
		if got := strings.Join([]string{encr, hash, group, auth}, "|"); got != want {
			t.Errorf("got %s, want %s", strconv.Quote(got), want)
		}
	}
}
