package ikecrypto

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/subtle"
	"errors"

	"golang.org/x/crypto/chacha20poly1305"

	"vpnprobe/internal/wire/ike"
)

// encryption is an encryption algorithm: either a block cipher, used in CBC
// mode (RFC 2451, RFC 3602), or one that authenticates, too (RFC 5282, RFC
// 7634).
type encryption struct {
	keyLen int // bytes, without the salt
	block  func(key []byte) (cipher.Block, error)
	aead   func(key []byte) (cipher.AEAD, error)
}

// saltLen is the length of what of an AEAD's nonce comes from the keying
// material, in bytes, and explicitLen of what is sent with each message (RFC
// 5282 section 4, RFC 7634 section 2).
const (
	saltLen     = 4
	explicitLen = 8
)

func encryptionOf(t ike.Transform) (encryption, bool) {
	switch t.ID {
	case ike.Encr3DES:
		return encryption{keyLen: 24, block: des.NewTripleDESCipher}, t.KeyLength == 0
	case ike.EncrChaCha20Poly1305:
		// Some name the length of its key although it has but one.
		return encryption{keyLen: chacha20poly1305.KeySize, aead: chacha20poly1305.New}, t.KeyLength == 0 || t.KeyLength == 256
	}
	// AES has a Key Length attribute always (RFC 7296 section 3.3.5).
	e := encryption{keyLen: int(t.KeyLength / 8)}
	switch t.KeyLength {
	case 128, 192, 256:
	default:
		return encryption{}, false
	}
	switch t.ID {
	case ike.EncrAESCBC:
		e.block = aes.NewCipher
	case ike.EncrAESGCM8:
		e.aead = newGCM(gcm8Tag)
	case ike.EncrAESGCM12:
		e.aead = newGCM(12)
	case ike.EncrAESGCM16:
		e.aead = newGCM(16)
	default:
		return encryption{}, false
	}
	return e, true
}

// materialLen returns how many bytes of SK_ei or SK_er the algorithm takes.
func (e encryption) materialLen() int {
	if e.aead != nil {
		return e.keyLen + saltLen
	}
	return e.keyLen
}

// newGCM returns the constructor of AES-GCM with a tag of so many bytes.
func newGCM(tag int) func(key []byte) (cipher.AEAD, error) {
	return func(key []byte) (cipher.AEAD, error) {
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, err
		}
		if tag != gcm8Tag {
			return cipher.NewGCMWithTagSize(block, tag)
		}
		gcm, err := cipher.NewGCM(block)
		return gcm8{gcm, block}, err
	}
}

// gcm8 is AES-GCM with a tag of 8 bytes, for which the standard library,
// rightly, has no constructor: its own GCM with most of the tag cut off.
type gcm8 struct {
	cipher.AEAD
	block cipher.Block
}

const gcm8Tag = 8

func (gcm8) Overhead() int { return gcm8Tag }

func (g gcm8) Seal(dst, nonce, plain, ad []byte) []byte {
	out := g.AEAD.Seal(dst, nonce, plain, ad)
	return out[:len(out)-(g.AEAD.Overhead()-gcm8Tag)]
}

var errTag = errors.New("message authentication failed")

// Open decrypts without the tag, which takes the cipher in counter mode from
// the block after the one that masks the tag (NIST SP 800-38D section 7.1),
// and then looks whether the tag is what encrypting again gives.
func (g gcm8) Open(dst, nonce, sealed, ad []byte) ([]byte, error) {
	n := len(sealed) - gcm8Tag
	if n < 0 {
		return nil, errTag
	}
	counter := make([]byte, aes.BlockSize)
	copy(counter, nonce)
	counter[aes.BlockSize-1] = 2
	plain := make([]byte, n)
	cipher.NewCTR(g.block, counter).XORKeyStream(plain, sealed[:n])
	if subtle.ConstantTimeCompare(g.Seal(nil, nonce, plain, ad), sealed) != 1 {
		return nil, errTag
	}
	return append(dst, plain...), nil
}
