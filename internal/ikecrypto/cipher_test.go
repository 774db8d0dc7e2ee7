package ikecrypto

import (
	"bytes"
	"crypto/cipher"
	"fmt"
	"testing"

	"vpnprobe/internal/wire/ike"
)

// Test case 4 of the specification of GCM (McGrew and Viega), of which the
// shorter tags are the first bytes.
func TestGCM(t *testing.T) {
	key, nonce := unhex(t, "feffe9928665731c6d6a8f9467308308"), unhex(t, "cafebabefacedbaddecaf888")
	ad := unhex(t, "feedfacedeadbeeffeedfacedeadbeefabaddad2")
	plain := unhex(t, `d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72
		1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39`)
	sealed := unhex(t, `42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e
		21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091 5bc94fbc3221a5db94fae95ae7121a47`)
	for id, tag := range map[uint16]int{18: 8, 19: 12, 20: 16} {
		t.Run(fmt.Sprint(tag), func(t *testing.T) {
			gcm := aeadOf(t, id, key)
			if gcm.Overhead() != tag {
				t.Fatalf("tag of %d bytes", gcm.Overhead())
			}
			want := sealed[:len(plain)+tag]
			if got := gcm.Seal([]byte("x"), nonce, plain, ad); !bytes.Equal(got, append([]byte("x"), want...)) {
				t.Errorf("sealed %x", got)
			}
			got, err := gcm.Open([]byte("x"), nonce, want, ad)
			if err != nil || !bytes.Equal(got, append([]byte("x"), plain...)) {
				t.Errorf("opened %x, %v", got, err)
			}
			for i := range want {
				bad := bytes.Clone(want)
				bad[i] ^= 1
				if got, err := gcm.Open(nil, nonce, bad, ad); err == nil || got != nil {
					t.Errorf("opened with a changed byte %d: %x", i, got)
				}
			}
			for n := range want {
				if got, err := gcm.Open(nil, nonce, want[:n], ad); err == nil {
					t.Errorf("opened %d bytes: %x", n, got)
				}
			}
			if _, err := gcm.Open(nil, nonce, want, ad[1:]); err == nil {
				t.Error("opened with other additional data")
			}
		})
	}
}

func aeadOf(t *testing.T, id uint16, key []byte) cipher.AEAD {
	t.Helper()
	e, ok := encryptionOf(ike.Transform{Type: ike.TransformEncryption, ID: id, KeyLength: uint16(8 * len(key))})
	if !ok || e.aead == nil || e.keyLen != len(key) {
		t.Fatalf("encryption %d: %+v", id, e)
	}
	a, err := e.aead(key)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// RFC 7634 appendix B: a whole message, from the responder.
func TestChaCha20Poly1305Message(t *testing.T) {
	m := unhex(t, `c0c1c2c3c4c5c6c7d0d1d2d3d4d5d6d72e20250000000009000000452900002910111213141516176103
		94701f8d017f7c12924889 6b71bfe25236efd7cdc67066906315b2`)
	e, _ := encryptionOf(ike.Transform{ID: 28})
	s := &Suite{encr: e}
	p := s.protection(unhex(t, "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3"), nil).(*aeadProtection)
	k := &Keys{spii: ike.SPI(m[:8]), spir: ike.SPI(m[8:16]), responder: &side{protection: p}}
	msg, err := k.Open(m)
	if err != nil {
		t.Fatal(err)
	}
	n, err := ike.ParseNotify(msg.Payloads[0].Body)
	if err != nil || len(msg.Payloads) != 1 || n.Type != ike.SetWindowSize || !bytes.Equal(n.Data, []byte{0, 0, 0, 10}) {
		t.Errorf("opened %+v", msg)
	}
	// The same again, with the same IV.
	p.next.Store(0x1011121314151616)
	h := ike.Header{Exchange: ike.Informational, MessageID: 9}
	if got, err := k.Seal(false, h, msg.Payloads); err != nil || !bytes.Equal(got, m) {
		t.Errorf("sealed %x, %v", got, err)
	}
}
