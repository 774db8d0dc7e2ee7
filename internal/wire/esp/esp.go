// Package esp reads the headers of ESP (RFC 4303) and AH (RFC 4302) and keeps
// account of their sequence numbers: packet by packet in a [Table], or from the
// samples of a program in the kernel in a [Sampled]. Both tell the same numbers
// of the same packets. It is pure: it opens nothing and reads no clock.
package esp

import "net/netip"

// Protocol is an IP protocol number.
type Protocol uint8

// The protocols.
const (
	ESP Protocol = 50
	AH  Protocol = 51
	UDP Protocol = 17 // of fragments that have no more than that to tell
)

// Key names one flow: one SPI in one direction. An SPI of 0, which no SA has
// (RFC 4303, section 2.1), stands for fragments without a header.
type Key struct {
	Src, Dst netip.Addr
	SPI      uint32
	Protocol Protocol
	Encap    bool // in UDP (RFC 3948)
	Outgoing bool // sent by this host
}
