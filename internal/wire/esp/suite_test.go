package esp_test

import (
	"strings"
	"testing"

	"vpnprobe/internal/wire/esp"
)

func TestParseSuite(t *testing.T) {
	for _, tt := range []struct {
		proposal string
		want     esp.Suite
	}{
		{"aes256-sha256-modp2048", esp.Suite{Name: "aes256-sha256", IV: 16, ICV: 16, Block: 16}},
		{"aes-sha1", esp.Suite{Name: "aes128-sha1", IV: 16, ICV: 12, Block: 16}},
		{"AES256-SHA2_256-ESN!", esp.Suite{Name: "aes256-sha256", IV: 16, ICV: 16, Block: 16}},
		{"aes128-sha256_96-noesn", esp.Suite{Name: "aes128-sha256_96", IV: 16, ICV: 12, Block: 16}},
		{"aes192-sha384-ecp384", esp.Suite{Name: "aes192-sha384", IV: 16, ICV: 24, Block: 16}},
		{"aes256-sha512-x25519-ke1_mlkem768", esp.Suite{Name: "aes256-sha512", IV: 16, ICV: 32, Block: 16}},
		{"3des-md5-modp1024", esp.Suite{Name: "3des-md5", IV: 8, ICV: 12, Block: 8}},
		{"blowfish256-sha1", esp.Suite{Name: "blowfish256-sha1", IV: 8, ICV: 12, Block: 8}},
		{"camellia-aesxcbc", esp.Suite{Name: "camellia128-aesxcbc", IV: 16, ICV: 12, Block: 16}},
		{"sm4-sm3", esp.Suite{Name: "sm4-sm3", IV: 16, ICV: 32, Block: 16}},
		{"null-sha256", esp.Suite{Name: "null-sha256", ICV: 16, Block: 1}},
		{"aes256ctr-aescmac", esp.Suite{Name: "aes256ctr-aescmac", IV: 8, ICV: 12, Block: 1}},
		{"aes128gcm16", esp.Suite{Name: "aes128gcm16", IV: 8, ICV: 16, Block: 1}},
		{"aes128gcm128-modp2048", esp.Suite{Name: "aes128gcm16", IV: 8, ICV: 16, Block: 1}},
		{"aes256gcm-prfsha256", esp.Suite{Name: "aes256gcm16", IV: 8, ICV: 16, Block: 1}},
		{"aes256gcm64", esp.Suite{Name: "aes256gcm8", IV: 8, ICV: 8, Block: 1}},
		{"aes256ccm96", esp.Suite{Name: "aes256ccm12", IV: 8, ICV: 12, Block: 1}},
		{"camellia256ccm8", esp.Suite{Name: "camellia256ccm8", IV: 8, ICV: 8, Block: 1}},
		{"aes128gmac", esp.Suite{Name: "aes128gmac", IV: 8, ICV: 16, Block: 1}},
		{"chacha20poly1305-curve25519", esp.Suite{Name: "chacha20poly1305", IV: 8, ICV: 16, Block: 1}},
		{"chacha20poly1305iiv", esp.Suite{Name: "chacha20poly1305iiv", ICV: 16, Block: 1}},
		{"aes256gcm16iiv", esp.Suite{Name: "aes256gcm16iiv", ICV: 16, Block: 1}},
		// Choices that all give packets of one size.
		{"aes128-aes256-camellia256-sha256", esp.Suite{Name: "aes128-sha256", IV: 16, ICV: 16, Block: 16}},
		{"aes128gcm16-chacha20poly1305", esp.Suite{Name: "aes128gcm16", IV: 8, ICV: 16, Block: 1}},
		{"aes256gcm16-sha256", esp.Suite{Name: "aes256gcm16", IV: 8, ICV: 16, Block: 1}}, // brings its own
		{"aes256-modp2048", esp.Suite{Name: "aes256", IV: 16, Block: 16}},
	} {
		if got, err := esp.ParseSuite(tt.proposal); err != nil || got != tt.want {
			t.Errorf("ParseSuite(%q) = %+v, %v, want %+v", tt.proposal, got, err, tt.want)
		}
	}
}

func TestParseSuiteRefuses(t *testing.T) {
	for proposal, say := range map[string]string{
		"":                       "no algorithm",
		"sha256-modp2048":        "no encryption",
		"aes256-sha265":          `"sha265"`,
		"aes128-sha1-sha256":     "aes128-sha1 or aes128-sha256",
		"aes128-3des-sha1":       "aes128-sha1 or 3des-sha1",
		"aes256gcm16-aes256gcm8": "aes256gcm16 or aes256gcm8",
		"aesgcm16":               `"aesgcm16"`,
		"aes128gcm10":            `"aes128gcm10"`,
		"aes129":                 `"aes129"`,
		"camellia128gcm16":       `"camellia128gcm16"`,
		"serpent128ctr":          `"serpent128ctr"`,
		"aes128gcm8iiv":          `"aes128gcm8iiv"`, // RFC 8750 has whole ICVs only
		"camellia128ccm16iiv":    `"camellia128ccm16iiv"`,
		"aes128g":                `"aes128g"`,
		"aes128-ke8_mlkem768":    `"ke8_mlkem768"`,
		"default":                `"default"`,
	} {
		if got, err := esp.ParseSuite(proposal); err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("ParseSuite(%q) = %+v, %v; want an error with %s", proposal, got, err, say)
		}
	}
}

func TestKernelSuite(t *testing.T) {
	type alg = esp.Algorithm
	for _, tt := range []struct {
		aead, enc, auth alg
		want            string // "" if not known
		icv             int
	}{
		{aead: alg{"rfc4106(gcm(aes))", 128 + 32, 128}, want: "aes128gcm16", icv: 16},
		{aead: alg{"rfc4106(gcm(aes))", 256 + 32, 64}, want: "aes256gcm8", icv: 8},
		{aead: alg{"rfc4106(gcm(aes))", 192 + 32, 96}, want: "aes192gcm12", icv: 12},
		{aead: alg{"rfc4309(ccm(aes))", 256 + 24, 128}, want: "aes256ccm16", icv: 16},
		{aead: alg{"rfc4543(gcm(aes))", 128 + 32, 128}, want: "aes128gmac", icv: 16},
		{aead: alg{"rfc7539esp(chacha20,poly1305)", 256 + 32, 128}, want: "chacha20poly1305", icv: 16},
		{aead: alg{"rfc4106(gcm(aes))", 128 + 32, 32}},
		{aead: alg{"rfc4106(gcm(aes))", 128, 128}}, // no room for the salt
		{aead: alg{"rfc4106(gcm(aes))", 0, 128}},
		{aead: alg{"rfc4543(gcm(aes))", 128 + 32, 64}},
		{aead: alg{"gcm(aes)", 128 + 32, 128}},

		{enc: alg{"cbc(aes)", 256, 0}, auth: alg{"hmac(sha256)", 256, 128}, want: "aes256-sha256", icv: 16},
		{enc: alg{"cbc(aes)", 256, 0}, auth: alg{"hmac(sha256)", 256, 96}, want: "aes256-sha256_96", icv: 12},
		{enc: alg{"cbc(aes)", 256, 0}, auth: alg{"hmac(sha256)", 256, 0}, want: "aes256-sha256_96", icv: 12},
		{enc: alg{"aes", 128, 0}, auth: alg{"sha1", 160, 0}, want: "aes128-sha1", icv: 12},
		{enc: alg{"cbc(aes)", 128, 0}, auth: alg{"hmac(sha1)", 160, 160}, want: "aes128-sha1_160", icv: 20},
		{enc: alg{"cbc(aes)", 192, 0}, auth: alg{"hmac(sha384)", 384, 192}, want: "aes192-sha384", icv: 24},
		{enc: alg{"cbc(aes)", 256, 0}, auth: alg{"hmac(sha512)", 512, 256}, want: "aes256-sha512", icv: 32},
		{enc: alg{"cbc(des3_ede)", 192, 0}, auth: alg{"hmac(md5)", 128, 96}, want: "3des-md5", icv: 12},
		{enc: alg{"cbc(camellia)", 256, 0}, auth: alg{"xcbc(aes)", 128, 96}, want: "camellia256-aesxcbc", icv: 12},
		{enc: alg{"rfc3686(ctr(aes))", 256 + 32, 0}, auth: alg{"cmac(aes)", 128, 96}, want: "aes256ctr-aescmac", icv: 12},
		{enc: alg{"cbc(sm4)", 128, 0}, auth: alg{"hmac(sm3)", 256, 256}, want: "sm4-sm3", icv: 32},
		{enc: alg{"cbc(sm4)", 128, 0}, auth: alg{"hmac(sm3)", 256, 128}, want: "sm4-sm3_128", icv: 16},
		{enc: alg{"ecb(cipher_null)", 0, 0}, auth: alg{"hmac(rmd160)", 160, 96}, want: "null-ripemd160", icv: 12},
		{enc: alg{"cbc(aes)", 256, 0}, auth: alg{"digest_null", 0, 0}, want: "aes256"},
		{enc: alg{"cbc(aes)", 256, 0}, want: "aes256"},
		{enc: alg{"cbc(aes)", 255, 0}, auth: alg{"hmac(sha1)", 160, 96}},
		{enc: alg{"cbc(aes)", 256, 0}, auth: alg{"hmac(sha1)", 160, 168}},
		{enc: alg{"cbc(aes)", 256, 0}, auth: alg{"hmac(sha1)", 160, 97}},
		{enc: alg{"cbc(aes)", 256, 0}, auth: alg{"hmac(sha1)", 160, -8}},
		{enc: alg{"cbc(aes)", 256, 0}, auth: alg{"hmac(new)", 160, 96}},
		{enc: alg{"cbc(new)", 256, 0}, auth: alg{"hmac(sha1)", 160, 96}},
		{auth: alg{"hmac(sha1)", 160, 96}},
	} {
		got, ok := esp.KernelSuite(tt.aead, tt.enc, tt.auth)
		if ok != (tt.want != "") || got.Name != tt.want || got.ICV != tt.icv {
			t.Errorf("KernelSuite(%v, %v, %v) = %+v, %t, want %q", tt.aead, tt.enc, tt.auth, got, ok, tt.want)
		}
	}
	if got := esp.KernelIntegrity(alg{"hmac(sha256)", 256, 128}); got != "sha256" {
		t.Errorf("KernelIntegrity of SHA-256-128 is %q", got)
	}
	if got := esp.KernelIntegrity(alg{"hmac(new)", 256, 128}); got != "" {
		t.Errorf("KernelIntegrity of an unknown algorithm is %q", got)
	}
}

// FuzzParseSuite checks that a suite's name is understood again, as one of the
// same size.
func FuzzParseSuite(f *testing.F) {
	for _, s := range []string{"aes256-sha256-modp2048", "aes128gcm128", "chacha20poly1305iiv", "null-sm3", "camellia-sha1_160!", "aes128ccmiiv", "ke1_mlkem768-3des"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, proposal string) {
		s, err := esp.ParseSuite(proposal)
		if err != nil {
			return
		}
		again, err := esp.ParseSuite(s.Name)
		if err != nil || again != s {
			t.Errorf("%q is %+v, whose name is %+v, %v", proposal, s, again, err)
		}
	})
}
