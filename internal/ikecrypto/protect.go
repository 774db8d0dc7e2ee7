package ikecrypto

import (
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"sync/atomic"
)

// ErrIntegrity says that a message was not protected with the keys it is
// opened with: it was changed on its way, made up, or made with other keys.
var ErrIntegrity = errors.New("integrity check failed")

var (
	errBody    = errors.New("encrypted payload of impossible length")
	errPadding = errors.New("encrypted payload with more padding than content")
)

// protection encrypts and authenticates what one end sends. A message has a
// head, up to and with the header of its Encrypted payload, which is
// authenticated only, and a body: IV, ciphertext and ICV (RFC 7296 section
// 3.14). What is encrypted is the content, padding and the padding's length.
type protection interface {
	// bodyLen returns the length of a body with n bytes of content.
	bodyLen(n int) int
	// seal appends the body to the head.
	seal(head, content []byte) []byte
	// open returns the content of the message m, whose head has n bytes. It
	// leaves m as it is.
	open(m []byte, n int) ([]byte, error)
}

// cbcProtection is a block cipher in CBC mode and an HMAC over all that is
// sent before it (RFC 7296 section 3.14).
type cbcProtection struct {
	block  cipher.Block
	integ  integrity
	macKey []byte
}

// padding returns how many bytes of padding make content and padding, with
// its length, whole blocks.
func (c *cbcProtection) padding(content int) int {
	size := c.block.BlockSize()
	return size - 1 - content%size
}

func (c *cbcProtection) bodyLen(n int) int {
	return c.block.BlockSize() + n + c.padding(n) + 1 + c.integ.icv
}

func (c *cbcProtection) seal(head, content []byte) []byte {
	iv := make([]byte, c.block.BlockSize())
	rand.Read(iv) // no receiver may foresee it (RFC 7296 section 3.14)
	pad := c.padding(len(content))
	m := append(head, iv...)
	start := len(m)
	m = append(m, content...)
	m = append(m, make([]byte, pad)...)
	m = append(m, byte(pad))
	cipher.NewCBCEncrypter(c.block, iv).CryptBlocks(m[start:], m[start:])
	return append(m, c.mac(m)...)
}

func (c *cbcProtection) open(m []byte, n int) ([]byte, error) {
	size := c.block.BlockSize()
	encrypted := len(m) - n - size - c.integ.icv // bytes
	if encrypted < size || encrypted%size != 0 {
		return nil, errBody
	}
	end := len(m) - c.integ.icv
	if !hmac.Equal(c.mac(m[:end]), m[end:]) {
		return nil, ErrIntegrity
	}
	plain := make([]byte, encrypted)
	cipher.NewCBCDecrypter(c.block, m[n:n+size]).CryptBlocks(plain, m[n+size:end])
	return cutPadding(plain)
}

func (c *cbcProtection) mac(m []byte) []byte {
	return c.integ.hash.sum(c.macKey, m)[:c.integ.icv]
}

// aeadProtection is a cipher that authenticates the head with the content
// (RFC 5282 section 5.1, for fragments RFC 7383 section 2.5.1). Its content
// needs no padding.
type aeadProtection struct {
	aead cipher.AEAD
	salt []byte
	// next numbers the messages, because no nonce may be used twice (RFC
	// 5282 section 3.1). It starts anywhere, so that keys that are derived
	// twice do not do it either.
	next atomic.Uint64
}

func newAEADProtection(aead cipher.AEAD, salt []byte) *aeadProtection {
	var start [explicitLen]byte
	rand.Read(start[:])
	a := &aeadProtection{aead: aead, salt: salt}
	a.next.Store(binary.BigEndian.Uint64(start[:]))
	return a
}

func (a *aeadProtection) bodyLen(n int) int {
	return explicitLen + n + 1 + a.aead.Overhead()
}

func (a *aeadProtection) seal(head, content []byte) []byte {
	m := binary.BigEndian.AppendUint64(head, a.next.Add(1))
	plain := append(content[:len(content):len(content)], 0) // no padding
	return a.aead.Seal(m, a.nonce(m[len(head):]), plain, head)
}

func (a *aeadProtection) open(m []byte, n int) ([]byte, error) {
	if len(m) < n+explicitLen+a.aead.Overhead() {
		return nil, errBody
	}
	explicit := n + explicitLen
	plain, err := a.aead.Open(nil, a.nonce(m[n:explicit]), m[explicit:], m[:n])
	if err != nil {
		return nil, ErrIntegrity
	}
	return cutPadding(plain)
}

func (a *aeadProtection) nonce(explicit []byte) []byte {
	return append(a.salt[:saltLen:saltLen], explicit...)
}

// cutPadding cuts off the padding and its length. The padding's bytes may be
// any (RFC 7296 section 3.14).
func cutPadding(plain []byte) ([]byte, error) {
	n := len(plain) - 1
	if n < 0 || int(plain[n]) > n {
		return nil, errPadding
	}
	return plain[:n-int(plain[n])], nil
}
