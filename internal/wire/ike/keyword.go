package ike

import (
	"fmt"
	"slices"
	"strings"
)

// keywords are the algorithms of strongSwan's proposals that have a registered
// number, under the names that are in use for several.
var keywords = slices.Concat(
	[]keyword{
		{"des", Transform{Type: TransformEncryption, ID: EncrDES}},
		{"3des", Transform{Type: TransformEncryption, ID: Encr3DES}},
		{"null", Transform{Type: TransformEncryption, ID: EncrNull}},
		{"cast128", Transform{Type: TransformEncryption, ID: EncrCAST, KeyLength: 128}},
		{"chacha20poly1305", Transform{Type: TransformEncryption, ID: EncrChaCha20Poly1305}},
		// RFC 7634 has no key length; some send it all the same.
		{"chacha20poly1305compat", Transform{Type: TransformEncryption, ID: EncrChaCha20Poly1305, KeyLength: 256}},
	},
	keyed("blowfish%d", EncrBlowfish),
	keyed("aes%d", EncrAESCBC),
	keyed("aes%dctr", EncrAESCTR),
	keyed("aes%dccm8", EncrAESCCM8),
	keyed("aes%dccm12", EncrAESCCM12),
	keyed("aes%dccm16", EncrAESCCM16),
	keyed("aes%dgcm8", EncrAESGCM8),
	keyed("aes%dgcm12", EncrAESGCM12),
	keyed("aes%dgcm16", EncrAESGCM16),
	keyed("aes%dgmac", EncrNullAuthAESGMAC),
	keyed("camellia%d", EncrCamelliaCBC),
	keyed("camellia%dctr", EncrCamelliaCTR),
	keyed("camellia%dccm8", EncrCamelliaCCM8),
	keyed("camellia%dccm12", EncrCamelliaCCM12),
	keyed("camellia%dccm16", EncrCamelliaCCM16),
	unkeyed(TransformIntegrity, map[string]uint16{
		"md5": AuthHMACMD596, "md5_128": AuthHMACMD5128,
		"sha1": AuthHMACSHA196, "sha1_160": AuthHMACSHA1160,
		"sha256": AuthHMACSHA256128, "sha384": AuthHMACSHA384192, "sha512": AuthHMACSHA512256,
		"aesxcbc": AuthAESXCBC96, "aescmac": AuthAESCMAC96,
	}),
	unkeyed(TransformPRF, map[string]uint16{
		"prfmd5": PRFHMACMD5, "prfsha1": PRFHMACSHA1,
		"prfsha256": PRFHMACSHA256, "prfsha384": PRFHMACSHA384, "prfsha512": PRFHMACSHA512,
		"prfaesxcbc": PRFAES128XCBC, "prfaescmac": PRFAES128CMAC,
	}),
	unkeyed(TransformKeyExchange, map[string]uint16{
		"modp768": GroupMODP768, "modp1024": GroupMODP1024, "modp1536": GroupMODP1536,
		"modp2048": GroupMODP2048, "modp3072": GroupMODP3072, "modp4096": GroupMODP4096,
		"modp6144": GroupMODP6144, "modp8192": GroupMODP8192,
		"modp1024s160": GroupMODP1024S160, "modp2048s224": GroupMODP2048S224, "modp2048s256": GroupMODP2048S256,
		"ecp192": GroupECP192, "ecp224": GroupECP224, "ecp256": GroupECP256, "ecp384": GroupECP384, "ecp521": GroupECP521,
		"ecp224bp": GroupBrainpool224, "ecp256bp": GroupBrainpool256, "ecp384bp": GroupBrainpool384, "ecp512bp": GroupBrainpool512,
		"curve25519": GroupCurve25519, "curve448": GroupCurve448,
		"mlkem512": GroupMLKEM512, "mlkem768": GroupMLKEM768, "mlkem1024": GroupMLKEM1024,
	}),
	unkeyed(TransformSequence, map[string]uint16{"noesn": SequenceNumbers32, "esn": SequenceNumbers64}),
)

type keyword struct {
	name      string
	transform Transform
}

// keyed returns the keywords of an encryption algorithm with a choice of key
// lengths.
func keyed(format string, id uint16) []keyword {
	var list []keyword
	for _, bits := range []uint16{128, 192, 256} {
		list = append(list, keyword{fmt.Sprintf(format, bits), Transform{Type: TransformEncryption, ID: id, KeyLength: bits}})
	}
	return list
}

// unkeyed returns the keywords of algorithms without a key length.
func unkeyed(t TransformType, ids map[string]uint16) []keyword {
	var list []keyword
	for name, id := range ids {
		list = append(list, keyword{name, Transform{Type: t, ID: id}})
	}
	return list
}

// TransformOf returns the transform of a keyword of strongSwan's proposals, in
// lower case and under the most common of its names, such as "aes256",
// "aes128gcm16", "sha256" (integrity), "prfsha256", "modp2048" or
// "ke1_mlkem768". It returns false when the keyword is unknown or the
// algorithm has no registered number.
func TransformOf(word string) (Transform, bool) {
	name, add := word, TransformType(0)
	if len(word) > 4 && strings.HasPrefix(word, "ke") && word[2] >= '1' && word[2] <= '7' && word[3] == '_' {
		name, add = word[4:], TransformADDKE1+TransformType(word[2]-'1')
	}
	for _, k := range keywords {
		if k.name != name {
			continue
		}
		t := k.transform
		if add != 0 {
			if t.Type != TransformKeyExchange {
				break
			}
			t.Type = add
		}
		return t, true
	}
	return Transform{}, false
}

// Keyword returns the keyword of strongSwan's proposals for t, or else its
// numbers as in "ENCR_12/512".
func (t Transform) Keyword() string {
	if word, ok := t.keyword(); ok {
		return word
	}
	return t.numbers()
}

func (t Transform) keyword() (string, bool) {
	prefix := ""
	if t.Type >= TransformADDKE1 && t.Type <= TransformADDKE7 {
		prefix = fmt.Sprintf("ke%d_", t.Type-TransformADDKE1+1)
		t.Type = TransformKeyExchange
	}
	for _, k := range keywords {
		if k.transform.Type == t.Type && k.transform.ID == t.ID && k.transform.KeyLength == t.KeyLength {
			return prefix + k.name, true
		}
	}
	return "", false
}

// numbers returns the transform as in "ENCR_12/512".
func (t Transform) numbers() string {
	if t.KeyLength != 0 {
		return fmt.Sprintf("%v_%d/%d", t.Type, t.ID, t.KeyLength)
	}
	return fmt.Sprintf("%v_%d", t.Type, t.ID)
}
