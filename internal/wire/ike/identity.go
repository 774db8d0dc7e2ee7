package ike

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"
)

// IDType is the type of an identity (IANA's registry; RFC 2407 section 4.6.2.1
// of IKEv1, which has the same numbers and more).
type IDType uint8

// The types of identities.
const (
	IDIPv4Addr   IDType = 1
	IDFQDN       IDType = 2
	IDUserFQDN   IDType = 3 // ID_RFC822_ADDR of IKEv2
	IDIPv4Subnet IDType = 4 // IKEv1 only, as are the next two
	IDIPv6Addr   IDType = 5
	IDIPv6Subnet IDType = 6
	IDIPv4Range  IDType = 7
	IDIPv6Range  IDType = 8
	IDDERASN1DN  IDType = 9
	IDDERASN1GN  IDType = 10
	IDKeyID      IDType = 11
	IDFCName     IDType = 12 // RFC 4595
	IDNull       IDType = 13 // RFC 7619
)

var idNames = map[IDType]string{
	IDIPv4Addr:   "ID_IPV4_ADDR",
	IDFQDN:       "ID_FQDN",
	IDUserFQDN:   "ID_RFC822_ADDR",
	IDIPv4Subnet: "ID_IPV4_ADDR_SUBNET",
	IDIPv6Addr:   "ID_IPV6_ADDR",
	IDIPv6Subnet: "ID_IPV6_ADDR_SUBNET",
	IDIPv4Range:  "ID_IPV4_ADDR_RANGE",
	IDIPv6Range:  "ID_IPV6_ADDR_RANGE",
	IDDERASN1DN:  "ID_DER_ASN1_DN",
	IDDERASN1GN:  "ID_DER_ASN1_GN",
	IDKeyID:      "ID_KEY_ID",
	IDFCName:     "ID_FC_NAME",
	IDNull:       "ID_NULL",
}

// String returns the name of IKEv2's registry, or else IKEv1's, or the number
// as in "ID_99".
func (t IDType) String() string { return name(idNames, t, "ID") }

// Identity is the body of an IKEv2 Identification payload (RFC 7296 section
// 3.5).
type Identity struct {
	Type IDType
	Data []byte
}

// ParseIdentity reads the body of an IKEv2 Identification payload.
func ParseIdentity(body []byte) (Identity, error) {
	if len(body) < 4 {
		return Identity{}, errors.New("identification shorter than 4 bytes")
	}
	return Identity{Type: IDType(body[0]), Data: body[4:]}, nil
}

// Payload returns i as a payload of the given type, [PayloadIDi] or
// [PayloadIDr].
func (i Identity) Payload(t PayloadType) Payload {
	return Payload{Type: t, Body: append([]byte{byte(i.Type), 0, 0, 0}, i.Data...)}
}

// String returns the identity in the notation of the daemons: an address, a
// name, user@host, a distinguished name, or "@#" and a key ID in hexadecimal.
// All others are shown as their type and value, such as "ID_99:0102".
func (i Identity) String() string {
	switch i.Type {
	case IDIPv4Addr, IDIPv6Addr:
		if a, ok := netip.AddrFromSlice(i.Data); ok && a.Is4() == (i.Type == IDIPv4Addr) {
			return a.String()
		}
	case IDFQDN, IDUserFQDN:
		if printable(string(i.Data)) {
			return string(i.Data)
		}
	case IDDERASN1DN:
		if s, ok := distinguishedName(i.Data); ok && printable(s) {
			return s
		}
	case IDKeyID:
		return "@#" + hex.EncodeToString(i.Data)
	case IDNull:
		if len(i.Data) == 0 {
			return "%null"
		}
	}
	return fmt.Sprintf("%v:%x", i.Type, i.Data)
}

// printable reports whether s can be shown as it is.
func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// distinguishedName returns an X.501 name from the country downwards, as the
// daemons write it.
func distinguishedName(der []byte) (string, bool) {
	var name pkix.RDNSequence
	if rest, err := asn1.Unmarshal(der, &name); err != nil || len(rest) > 0 {
		return "", false
	}
	parts := make([]string, len(name))
	for i, set := range name {
		parts[i] = pkix.RDNSequence{set}.String()
	}
	return strings.Join(parts, ", "), true
}

// IdentityOf reads an identity in the notation of the daemons: an IP address,
// user@host, @ and a name or the name alone, or @# and a key ID in
// hexadecimal. A distinguished name is not understood, and taken for a name.
func IdentityOf(s string) Identity {
	if key, ok := strings.CutPrefix(s, "@#"); ok {
		if id, err := hex.DecodeString(key); err == nil {
			return Identity{IDKeyID, id}
		}
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		if a.Is4() {
			return Identity{IDIPv4Addr, a.AsSlice()}
		}
		return Identity{IDIPv6Addr, a.AsSlice()}
	}
	if user, ok := strings.CutPrefix(s, "@@"); ok {
		return Identity{IDUserFQDN, []byte(user)}
	}
	if name, ok := strings.CutPrefix(s, "@"); ok {
		return Identity{IDFQDN, []byte(name)}
	}
	if strings.Contains(s, "@") {
		return Identity{IDUserFQDN, []byte(s)}
	}
	return Identity{IDFQDN, []byte(s)}
}
