package ike

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// SPI identifies one end's half of an IKE SA (RFC 7296 section 3.1; IKEv1
// calls it a cookie). It is an opaque value; a zero SPI means that the
// responder has not chosen one.
type SPI [8]byte

// IsZero reports whether the SPI is not chosen yet.
func (s SPI) IsZero() bool { return s == SPI{} }

// Version is the protocol version of a message.
type Version uint8

// The versions that exist.
const (
	V1 Version = 0x10
	V2 Version = 0x20
)

// Major returns the major version, 0 to 15.
func (v Version) Major() int { return int(v >> 4) }

// Minor returns the minor version, 0 to 15.
func (v Version) Minor() int { return int(v & 0x0f) }

// String returns the version as in "2.0".
func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major(), v.Minor()) }

// Flags are the flags of a header.
type Flags uint8

// The flags: those of IKEv2 (RFC 7296 section 3.1), then those of IKEv1 (RFC
// 2408 section 3.1), which has no others.
const (
	FlagInitiator Flags = 0x08 // sent by the original initiator of the SA
	FlagVersion   Flags = 0x10 // the sender could speak a higher major version
	FlagResponse  Flags = 0x20 // answers a request of the same message ID

	FlagEncryptedV1 Flags = 0x01 // all payloads are encrypted
	FlagCommitV1    Flags = 0x02
	FlagAuthOnlyV1  Flags = 0x04
)

// HeaderLen is the length of a header in bytes.
const HeaderLen = 28

// Header is the fixed header of every IKE message, of either version.
type Header struct {
	SPIi, SPIr  SPI
	NextPayload PayloadType
	Version     Version
	Exchange    ExchangeType
	Flags       Flags
	MessageID   uint32
	Length      uint32 // bytes of the whole message, this header included
}

var errShort = errors.New("shorter than an IKE header")

// ParseHeader reads the header at the start of b, of any version. It requires
// nothing of Length: see [Parse].
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderLen {
		return Header{}, errShort
	}
	return Header{
		SPIi:        SPI(b[0:8]),
		SPIr:        SPI(b[8:16]),
		NextPayload: PayloadType(b[16]),
		Version:     Version(b[17]),
		Exchange:    ExchangeType(b[18]),
		Flags:       Flags(b[19]),
		MessageID:   binary.BigEndian.Uint32(b[20:24]),
		Length:      binary.BigEndian.Uint32(b[24:28]),
	}, nil
}

// Append appends the header, as it is, to b.
func (h Header) Append(b []byte) []byte {
	b = append(b, h.SPIi[:]...)
	b = append(b, h.SPIr[:]...)
	b = append(b, byte(h.NextPayload), byte(h.Version), byte(h.Exchange), byte(h.Flags))
	b = binary.BigEndian.AppendUint32(b, h.MessageID)
	return binary.BigEndian.AppendUint32(b, h.Length)
}

// markerLen is the length of the non-ESP marker in bytes.
const markerLen = 4

// AppendNonESPMarker appends the four zero bytes that precede an IKE message
// on UDP port 4500, where ESP would have its SPI (RFC 3948 section 2.2).
func AppendNonESPMarker(b []byte) []byte {
	return append(b, 0, 0, 0, 0)
}

// CutNonESPMarker returns what follows the non-ESP marker, and whether there
// is one: what comes to port 4500 without it is ESP, or a NAT keepalive of
// one byte.
func CutNonESPMarker(b []byte) ([]byte, bool) {
	if len(b) < markerLen || [markerLen]byte(b) != [markerLen]byte{} {
		return b, false
	}
	return b[markerLen:], true
}

// IsNATKeepalive reports whether b, which came to UDP port 4500, is a
// NAT keepalive: the one byte 0xff (RFC 3948 section 2.3). It is never
// answered.
func IsNATKeepalive(b []byte) bool { return len(b) == 1 && b[0] == 0xff }
