package ikecrypto

import (
	"crypto/ecdh"
	"crypto/rand"
	"fmt"
	"io"

	"vpnprobe/internal/wire/ike"
)

// KeyExchange is one end's half of a Diffie-Hellman exchange, with a secret
// of its own. It is meant for one peer.
type KeyExchange interface {
	// Group returns the key exchange method's number in IANA's registry.
	Group() uint16
	// Public returns what a KE payload carries.
	Public() []byte
	// Shared returns the secret shared with the end that sent a public
	// value, g^ir of RFC 7296 section 2.14. It refuses values that no honest
	// peer sends.
	Shared(peer []byte) ([]byte, error)
}

// NewKeyExchange makes a new secret in a group. The groups that there are
// answer to [PublicLen].
func NewKeyExchange(group uint16) (KeyExchange, error) {
	if g, ok := modpGroupOf(group); ok {
		return newMODP(group, g), nil
	}
	if c, ok := curveOf(group); ok {
		return newCurve(group, c)
	}
	return nil, fmt.Errorf("key exchange: group %d is not supported", group)
}

// PublicLen returns the length of a group's public values in bytes, and
// whether the group is supported.
func PublicLen(group uint16) (int, bool) {
	if g, ok := modpGroupOf(group); ok {
		return g.bits / 8, true
	}
	c, ok := curveOf(group)
	return c.publicLen, ok
}

// curve is how a group on an elliptic curve goes over the wire.
type curve struct {
	ecdh.Curve
	publicLen int // bytes
	// prefix stands before a public value in the standard library's
	// encoding, and not in that of IKE (RFC 5903 section 7).
	prefix string
}

// uncompressed is the form of a point that names both coordinates (SEC 1
// section 2.3.3).
const uncompressed = "\x04"

func curveOf(group uint16) (curve, bool) {
	switch group {
	case ike.GroupECP256:
		return curve{ecdh.P256(), 2 * 32, uncompressed}, true
	case ike.GroupECP384:
		return curve{ecdh.P384(), 2 * 48, uncompressed}, true
	case ike.GroupECP521:
		return curve{ecdh.P521(), 2 * 66, uncompressed}, true // 521 bits take 66 bytes
	case ike.GroupCurve25519:
		return curve{ecdh.X25519(), 32, ""}, true
	}
	return curve{}, false
}

// curveExchange is a KeyExchange on an elliptic curve: RFC 5903 for those of
// NIST, RFC 8031 for Curve25519.
type curveExchange struct {
	group  uint16
	curve  curve
	secret *ecdh.PrivateKey
}

func newCurve(group uint16, c curve) (*curveExchange, error) {
	secret, err := c.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("key exchange: group %d: %w", group, err)
	}
	return &curveExchange{group, c, secret}, nil
}

func (x *curveExchange) Group() uint16 { return x.group }

func (x *curveExchange) Public() []byte {
	return x.secret.PublicKey().Bytes()[len(x.curve.prefix):]
}

// Shared returns the x coordinate alone (RFC 5903 section 7). The standard
// library refuses points that are not on the curve, and the all-zero secret
// of Curve25519, which says that the peer's point is of low order (RFC 8031
// section 3.2).
func (x *curveExchange) Shared(peer []byte) ([]byte, error) {
	if len(peer) != x.curve.publicLen {
		return nil, publicLenError(x.group, len(peer), x.curve.publicLen)
	}
	public, err := x.curve.NewPublicKey(append([]byte(x.curve.prefix), peer...))
	if err != nil {
		return nil, errBadPublic(x.group)
	}
	shared, err := x.secret.ECDH(public)
	if err != nil {
		return nil, errBadPublic(x.group)
	}
	return shared, nil
}

// Format hides the secret.
func (x *curveExchange) Format(f fmt.State, _ rune) { redact(f, "KeyExchange") }

func publicLenError(group uint16, got, want int) error {
	return fmt.Errorf("key exchange: public value of %d bytes, group %d has %d", got, group, want)
}

func errBadPublic(group uint16) error {
	return fmt.Errorf("key exchange: public value is not one of group %d", group)
}

// redact prints the name of a type that holds secrets in their place.
func redact(f fmt.State, name string) {
	io.WriteString(f, "ikecrypto."+name)
}
