package config

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestProposal(t *testing.T) {
	tests := []struct {
		text string
		want Proposal
		str  string
		aead bool
	}{
		{"aes256-sha256-modp2048", Proposal{Encryption: []string{"aes256"}, Integrity: []string{"sha256"}, Groups: []string{"modp2048"}}, "aes256-sha256-modp2048", false},
		// Any order, any case, other names, strongSwan's old mark for "only these".
		{"X25519-SHA2_512-AES!", Proposal{Encryption: []string{"aes128"}, Integrity: []string{"sha512"}, Groups: []string{"curve25519"}}, "aes128-sha512-curve25519", false},
		{"aes256gcm128-prfsha384-ecp384", Proposal{Encryption: []string{"aes256gcm16"}, PRF: []string{"prfsha384"}, Groups: []string{"ecp384"}}, "aes256gcm16-prfsha384-ecp384", true},
		{"aes128-aes256-sha1-modp1024-modp2048", Proposal{Encryption: []string{"aes128", "aes256"}, Integrity: []string{"sha1"}, Groups: []string{"modp1024", "modp2048"}}, "aes128-aes256-sha1-modp1024-modp2048", false},
		{"chacha20poly1305-prfsha256-curve25519-ke1_mlkem768", Proposal{Encryption: []string{"chacha20poly1305"}, PRF: []string{"prfsha256"}, Groups: []string{"curve25519", "ke1_mlkem768"}}, "chacha20poly1305-prfsha256-curve25519-ke1_mlkem768", true},
		{"aes256ctr-aesxcbc-ecp256", Proposal{Encryption: []string{"aes256ctr"}, Integrity: []string{"aesxcbc"}, Groups: []string{"ecp256"}}, "aes256ctr-aesxcbc-ecp256", false},
	}
	for _, tt := range tests {
		got, err := parseIKEProposal(tt.text)
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
			continue
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.text, diff)
		}
		if got.String() != tt.str || got.AEAD() != tt.aead {
			t.Errorf("%s prints as %s, AEAD %t", tt.text, got, got.AEAD())
		}
	}
}

// TestAlgorithmNames wants every name that a keyword is kept under to be a
// keyword itself, of the same type, or printing would change the meaning.
func TestAlgorithmNames(t *testing.T) {
	known := algorithms()
	for word, a := range known {
		if known[a.name] != a || a.transform == 0 {
			t.Errorf("%s is kept as %q of type %d, which is kept as %q of type %d", word, a.name, a.transform, known[a.name].name, known[a.name].transform)
		}
	}
}
