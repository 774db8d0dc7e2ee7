// Package ikecrypto does the cryptography of an IKE negotiation: key
// exchange, key derivation, the Encrypted payload and authentication with a
// pre-shared key, of IKEv2 (RFC 7296), and as much of IKEv1 (RFC 2409) as it
// takes to check an aggressive mode answer against a known key.
//
// It speaks what gateways in the field speak, old and weak algorithms
// included, because it is made to find out what a peer has, not to protect
// anything: no traffic flows under its keys. All arithmetic is the standard
// library's and golang.org/x/crypto's. That of the MODP groups is math/big's
// and so takes a time that depends on the secret; each secret is used once.
//
// The package is pure but for its random numbers. Keys and key exchanges
// print as their type only, and no error holds a part of a key.
package ikecrypto
