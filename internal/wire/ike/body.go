package ike

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// KeyExchange is the body of an IKEv2 Key Exchange payload (RFC 7296 section
// 3.4).
type KeyExchange struct {
	Group  uint16
	Public []byte
}

// KE returns a Key Exchange payload: a public value in the given group.
func KE(group uint16, public []byte) Payload {
	b := binary.BigEndian.AppendUint16(make([]byte, 0, 4+len(public)), group)
	b = append(b, 0, 0)
	return Payload{Type: PayloadKE, Body: append(b, public...)}
}

// ParseKE reads the body of an IKEv2 Key Exchange payload. The length of the
// public value is not checked.
func ParseKE(body []byte) (KeyExchange, error) {
	if len(body) < 4 {
		return KeyExchange{}, errors.New("key exchange shorter than 4 bytes")
	}
	return KeyExchange{Group: binary.BigEndian.Uint16(body), Public: body[4:]}, nil
}

// Payload returns k as a payload.
func (k KeyExchange) Payload() Payload { return KE(k.Group, k.Public) }

// Nonce returns a Nonce payload (RFC 7296 section 3.9); a nonce has 16 to 256
// bytes.
func Nonce(nonce []byte) Payload { return Payload{Type: PayloadNonce, Body: nonce} }

// VendorID returns an IKEv2 Vendor ID payload (RFC 7296 section 3.12).
func VendorID(id []byte) Payload { return Payload{Type: PayloadVendorID, Body: id} }

// AuthMethod is how an AUTH payload proves an identity (IANA's registry).
type AuthMethod uint8

// The authentication methods.
const (
	AuthRSASignature     AuthMethod = 1
	AuthSharedKey        AuthMethod = 2
	AuthDSSSignature     AuthMethod = 3
	AuthECDSA256         AuthMethod = 9
	AuthECDSA384         AuthMethod = 10
	AuthECDSA521         AuthMethod = 11
	AuthSecurePassword   AuthMethod = 12 // RFC 6467
	AuthNull             AuthMethod = 13 // RFC 7619
	AuthDigitalSignature AuthMethod = 14 // RFC 7427
)

var authNames = map[AuthMethod]string{
	AuthRSASignature:     "RSA Digital Signature",
	AuthSharedKey:        "Shared Key Message Integrity Code",
	AuthDSSSignature:     "DSS Digital Signature",
	AuthECDSA256:         "ECDSA with SHA-256 on the P-256 curve",
	AuthECDSA384:         "ECDSA with SHA-384 on the P-384 curve",
	AuthECDSA521:         "ECDSA with SHA-512 on the P-521 curve",
	AuthSecurePassword:   "Generic Secure Password Authentication Method",
	AuthNull:             "NULL Authentication",
	AuthDigitalSignature: "Digital Signature",
}

// String returns the registered name, or the number as in "AUTH_99".
func (m AuthMethod) String() string { return name(authNames, m, "AUTH") }

// Authentication is the body of an Authentication payload (RFC 7296 section
// 3.8).
type Authentication struct {
	Method AuthMethod
	Data   []byte
}

// ParseAuth reads the body of an Authentication payload.
func ParseAuth(body []byte) (Authentication, error) {
	if len(body) < 4 {
		return Authentication{}, errors.New("authentication shorter than 4 bytes")
	}
	return Authentication{Method: AuthMethod(body[0]), Data: body[4:]}, nil
}

// Payload returns a as a payload.
func (a Authentication) Payload() Payload {
	return Payload{Type: PayloadAuth, Body: append([]byte{byte(a.Method), 0, 0, 0}, a.Data...)}
}

// Delete is the body of an IKEv2 Delete payload (RFC 7296 section 3.11).
type Delete struct {
	Protocol ProtocolID
	SPISize  uint8    // in bytes; 0 deletes the IKE SA that the message is of
	SPIs     [][]byte // of SPISize bytes each
}

// ParseDelete reads the body of an IKEv2 Delete payload.
func ParseDelete(body []byte) (Delete, error) {
	const fixed = 4
	if len(body) < fixed {
		return Delete{}, errors.New("delete shorter than 4 bytes")
	}
	d := Delete{Protocol: ProtocolID(body[0]), SPISize: body[1]}
	n, size := int(binary.BigEndian.Uint16(body[2:])), int(d.SPISize)
	if body = body[fixed:]; n*size != len(body) {
		return Delete{}, fmt.Errorf("delete of %d SPIs of %d bytes each, with %d bytes", n, size, len(body))
	}
	if size == 0 || n == 0 {
		return d, nil
	}
	d.SPIs = make([][]byte, n)
	for i := range d.SPIs {
		d.SPIs[i], body = body[:size:size], body[size:]
	}
	return d, nil
}

// Payload returns d as a payload. It panics when an SPI has another length
// than it says.
func (d Delete) Payload() Payload {
	b := []byte{byte(d.Protocol), d.SPISize}
	b = binary.BigEndian.AppendUint16(b, length16("SPIs", len(d.SPIs)))
	for _, spi := range d.SPIs {
		if len(spi) != int(d.SPISize) {
			panic(fmt.Sprintf("ike: delete of an SPI of %d bytes, where it says %d", len(spi), d.SPISize))
		}
		b = append(b, spi...)
	}
	return Payload{Type: PayloadDelete, Body: b}
}

// The types of a Configuration payload (RFC 7296 section 3.15).
const (
	ConfigRequest uint8 = 1
	ConfigReply   uint8 = 2
	ConfigSet     uint8 = 3
	ConfigAck     uint8 = 4
)

// The attributes of a Configuration payload (RFC 7296 section 3.15.1, IANA's
// registry).
const (
	ConfigInternalIP4Address  uint16 = 1
	ConfigInternalIP4Netmask  uint16 = 2
	ConfigInternalIP4DNS      uint16 = 3
	ConfigInternalIP4NBNS     uint16 = 4
	ConfigInternalIP4DHCP     uint16 = 6
	ConfigApplicationVersion  uint16 = 7
	ConfigInternalIP6Address  uint16 = 8
	ConfigInternalIP6DNS      uint16 = 10
	ConfigInternalIP6DHCP     uint16 = 12
	ConfigInternalIP4Subnet   uint16 = 13
	ConfigSupportedAttributes uint16 = 14
	ConfigInternalIP6Subnet   uint16 = 15
	ConfigInternalDNSDomain   uint16 = 25 // RFC 8598
)

// Configuration is the body of a Configuration payload (RFC 7296 section
// 3.15).
type Configuration struct {
	Type       uint8
	Attributes []Attribute
}

// ParseConfiguration reads the body of a Configuration payload.
func ParseConfiguration(body []byte) (Configuration, error) {
	if len(body) < 4 {
		return Configuration{}, errors.New("configuration shorter than 4 bytes")
	}
	list, err := parseAttributes(body[4:], true)
	if err != nil {
		return Configuration{}, fmt.Errorf("configuration: %w", err)
	}
	return Configuration{Type: body[0], Attributes: list}, nil
}

// Payload returns c as a payload.
func (c Configuration) Payload() Payload {
	return Payload{Type: PayloadConfig, Body: appendAttributes([]byte{c.Type, 0, 0, 0}, c.Attributes, true)}
}

// Fragment is the body of an Encrypted Fragment payload (RFC 7383 section
// 2.5). The type of the first payload inside stands in the first fragment's
// [Payload].Inner, and 0 in that of the others.
type Fragment struct {
	Number uint16 // counted from 1
	Total  uint16
	Body   []byte // initialization vector, ciphertext and integrity check value
}

// ParseFragment reads the body of an Encrypted Fragment payload. It refuses
// what a recipient must ignore (RFC 7383 section 2.6): a fragment 0, and one
// behind the last.
func ParseFragment(body []byte) (Fragment, error) {
	if len(body) < 4 {
		return Fragment{}, errors.New("fragment shorter than 4 bytes")
	}
	f := Fragment{Number: binary.BigEndian.Uint16(body), Total: binary.BigEndian.Uint16(body[2:]), Body: body[4:]}
	if f.Number == 0 || f.Number > f.Total {
		return Fragment{}, fmt.Errorf("fragment %d of %d", f.Number, f.Total)
	}
	return f, nil
}

// Payload returns f as a payload; inner is the type of the first payload
// inside when f is the first fragment, and 0 otherwise.
func (f Fragment) Payload(inner PayloadType) Payload {
	b := binary.BigEndian.AppendUint16(make([]byte, 0, 4+len(f.Body)), f.Number)
	b = binary.BigEndian.AppendUint16(b, f.Total)
	return Payload{Type: PayloadFragment, Inner: inner, Body: append(b, f.Body...)}
}
