package ikecrypto

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"vpnprobe/internal/wire/ike"
)

// proposal returns the proposal of strongSwan's keywords.
func proposal(t testing.TB, keywords string) ike.Proposal {
	t.Helper()
	p := ike.Proposal{Protocol: ike.ProtocolIKE}
	for word := range strings.SplitSeq(keywords, "-") {
		transform, ok := ike.TransformOf(word)
		if !ok {
			t.Fatalf("no transform %q", word)
		}
		p.Transforms = append(p.Transforms, transform)
	}
	return p
}

func newSuite(t testing.TB, keywords string) *Suite {
	t.Helper()
	s, err := NewSuite(proposal(t, keywords))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestNewSuiteErrors(t *testing.T) {
	for _, tt := range []struct{ keywords, want string }{
		{"aes128-sha256-prfsha256", "suite: no KE transform"},
		{"aes128-sha256-modp2048", "suite: no PRF transform"},
		{"sha256-prfsha256-modp2048", "suite: no ENCR transform"},
		{"aes128-prfsha256-modp2048", "suite: no INTEG transform"},
		{"aes128gcm16-sha256-prfsha256-modp2048", "suite: INTEG transform besides an encryption that authenticates"},
		{"aes128-aes256-sha256-prfsha256-modp2048", "suite: more than one ENCR transform"},
		{"aes128-sha256-prfsha256-modp2048-ecp256", "suite: more than one KE transform"},
		{"aes128ctr-sha256-prfsha256-modp2048", "suite: aes128ctr is not supported"},
		{"aes128-aesxcbc-prfsha256-modp2048", "suite: aesxcbc is not supported"},
		{"aes128-sha256-prfaesxcbc-modp2048", "suite: prfaesxcbc is not supported"},
		{"aes128-sha256-prfsha256-curve448", "suite: curve448 is not supported"},
	} {
		s, err := NewSuite(proposal(t, tt.keywords))
		if err == nil || err.Error() != tt.want || s != nil {
			t.Errorf("%s: %v, want %s", tt.keywords, err, tt.want)
		}
	}
	p := proposal(t, "aes128gcm16-prfsha256-modp2048")
	p.Transforms = append(p.Transforms, ike.Transform{Type: ike.TransformIntegrity, ID: ike.AuthNone})
	if _, err := NewSuite(p); err != nil {
		t.Errorf("AEAD with no integrity: %v", err)
	}
	p = proposal(t, "aes128-prfsha256-modp2048")
	p.Transforms = append(p.Transforms, ike.Transform{Type: ike.TransformIntegrity, ID: ike.AuthNone})
	if _, err := NewSuite(p); err == nil {
		t.Error("a block cipher with no integrity was accepted")
	}
	for _, bits := range []uint16{0, 64, 127, 129, 512} {
		if transform := (ike.Transform{Type: ike.TransformEncryption, ID: ike.EncrAESCBC, KeyLength: bits}); Supports(transform) {
			t.Errorf("AES with %d bits is supported", bits)
		}
	}
	if Supports(ike.Transform{Type: ike.TransformSequence}) || !Supports(ike.Transform{Type: ike.TransformEncryption, ID: ike.Encr3DES}) {
		t.Error("Supports")
	}
}

// What holds secrets prints none of them, however it is printed.
func TestSecretsDoNotPrint(t *testing.T) {
	k := testKeys(t, "aes256-sha256-prfsha256-ecp256")
	modp, ecp := newKeyExchange(t, ike.GroupMODP2048), newKeyExchange(t, ike.GroupECP256)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X", "%o", "%b", "%c", "%U"} {
		for value, want := range map[any]string{
			k: "ikecrypto.Keys", modp: "ikecrypto.KeyExchange", ecp: "ikecrypto.KeyExchange",
		} {
			if got := fmt.Sprintf(verb, value); got != want {
				t.Errorf("%s of %T prints %q", verb, value, got)
			}
		}
		// Deeper down a pointer prints as an address, if it is not asked.
		type holder struct {
			Keys *Keys
			keys *Keys
			kx   KeyExchange
		}
		got := fmt.Sprintf(verb, holder{k, k, modp})
		for _, secret := range [][]byte{k.initiator.p, k.responder.p, k.initiator.protection.(*cbcProtection).macKey, modp.(*modpExchange).secret.Bytes()} {
			for _, form := range []string{fmt.Sprint(secret), fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret), string(secret)} {
				if strings.Contains(got, strings.Trim(form, "[]")) {
					t.Errorf("%s prints a secret: %s", verb, got)
				}
			}
		}
	}
	if b, err := json.Marshal([]any{k, modp, ecp}); err != nil || string(b) != "[{},{},{}]" {
		t.Errorf("JSON: %s, %v", b, err)
	}
	if k.String() != "ikecrypto.Keys" || k.GoString() != k.String() {
		t.Error("String")
	}
}

var (
	testSPIi = ike.SPI{1, 2, 3, 4, 5, 6, 7, 8}
	testSPIr = ike.SPI{11, 12, 13, 14, 15, 16, 17, 18}
)

func testKeys(t testing.TB, keywords string) *Keys {
	t.Helper()
	return newSuite(t, keywords).Keys([]byte("shared secret"), []byte("nonce of the initiator"), []byte("nonce of the responder"), testSPIi, testSPIr)
}
