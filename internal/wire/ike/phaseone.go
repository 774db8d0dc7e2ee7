package ike

import "slices"

// The attributes of an IKEv1 transform for the IKE SA (RFC 2409 appendix A).
const (
	AttrV1Encryption   uint16 = 1
	AttrV1Hash         uint16 = 2
	AttrV1Auth         uint16 = 3
	AttrV1Group        uint16 = 4
	AttrV1GroupType    uint16 = 5
	AttrV1LifeType     uint16 = 11
	AttrV1LifeDuration uint16 = 12
	AttrV1PRF          uint16 = 13
	AttrV1KeyLength    uint16 = 14
)

// The encryption algorithms of [AttrV1Encryption].
const (
	EncrV1DES      uint16 = 1
	EncrV1IDEA     uint16 = 2
	EncrV1Blowfish uint16 = 3
	EncrV1RC5      uint16 = 4
	EncrV13DES     uint16 = 5
	EncrV1CAST     uint16 = 6
	EncrV1AES      uint16 = 7
	EncrV1Camellia uint16 = 8
	EncrV1SM4      uint16 = 129 // not registered; GM/T 0022
)

// The hash algorithms of [AttrV1Hash].
const (
	HashV1MD5    uint16 = 1
	HashV1SHA1   uint16 = 2
	HashV1Tiger  uint16 = 3
	HashV1SHA256 uint16 = 4
	HashV1SHA384 uint16 = 5
	HashV1SHA512 uint16 = 6
	HashV1SM3    uint16 = 20 // not registered; GM/T 0022
)

// The authentication methods of [AttrV1Auth].
const (
	AuthV1SharedKey       uint16 = 1
	AuthV1DSS             uint16 = 2
	AuthV1RSA             uint16 = 3
	AuthV1RSAEncryption   uint16 = 4
	AuthV1RSARevised      uint16 = 5
	AuthV1ECDSA256        uint16 = 9
	AuthV1ECDSA384        uint16 = 10
	AuthV1ECDSA521        uint16 = 11
	AuthV1HybridInitRSA   uint16 = 64221
	AuthV1XAuthInitShared uint16 = 65001
	AuthV1XAuthInitRSA    uint16 = 65005
)

// The units of [AttrV1LifeDuration], in [AttrV1LifeType].
const (
	LifeV1Seconds   uint16 = 1
	LifeV1Kilobytes uint16 = 2
)

// encryptionV1 has the number in IKEv1 of each encryption algorithm of IKEv2
// that is in both.
var encryptionV1 = map[uint16]uint16{
	EncrDES: EncrV1DES, EncrIDEA: EncrV1IDEA, EncrRC5: EncrV1RC5, Encr3DES: EncrV13DES, EncrCAST: EncrV1CAST,
	EncrBlowfish: EncrV1Blowfish, EncrAESCBC: EncrV1AES, EncrCamelliaCBC: EncrV1Camellia,
}

var hashesV1 = map[uint16]string{
	HashV1MD5: "md5", HashV1SHA1: "sha1", HashV1SHA256: "sha256", HashV1SHA384: "sha384", HashV1SHA512: "sha512", HashV1SM3: "sm3",
}

var authsV1 = map[uint16]string{
	AuthV1SharedKey: "psk", AuthV1DSS: "dss", AuthV1RSA: "rsasig", AuthV1RSAEncryption: "rsaenc", AuthV1RSARevised: "rsaencrev",
	AuthV1ECDSA256: "ecdsa256", AuthV1ECDSA384: "ecdsa384", AuthV1ECDSA521: "ecdsa521",
	AuthV1HybridInitRSA: "hybridinitrsa", AuthV1XAuthInitShared: "xauthpsk", AuthV1XAuthInitRSA: "xauthrsasig",
}

// maxGroupV1 is the last group that IKEv1 implementations take from IKEv2; the
// later ones are no Diffie-Hellman groups.
const maxGroupV1 = GroupCurve448

// PhaseOneOf returns the attributes of an IKEv1 transform for the IKE SA with
// the algorithms of three keywords of strongSwan's proposals, such as
// "aes256", "sha256" and "modp2048": encryption, key length, hash and group.
// The authentication method and lifetime are for the caller to append. It
// returns false when IKEv1 has no such algorithm.
func PhaseOneOf(encr, hash, group string) ([]Attribute, bool) {
	list, okEncr := phaseOneEncryption(encr)
	h, okHash := uint16(0), false
	for id, keyword := range hashesV1 {
		if keyword == hash {
			h, okHash = id, true
		}
	}
	g, okGroup := TransformOf(group)
	if !okEncr || !okHash || !okGroup || g.Type != TransformKeyExchange || g.ID > maxGroupV1 {
		return nil, false
	}
	return append(list, Attribute{Type: AttrV1Hash, Value: h}, Attribute{Type: AttrV1Group, Value: g.ID}), true
}

func phaseOneEncryption(word string) ([]Attribute, bool) {
	if word == "sm4" {
		return []Attribute{{Type: AttrV1Encryption, Value: EncrV1SM4}}, true
	}
	t, ok := TransformOf(word)
	id, known := encryptionV1[t.ID]
	if !ok || !known || t.Type != TransformEncryption {
		return nil, false
	}
	list := []Attribute{{Type: AttrV1Encryption, Value: id}}
	if t.KeyLength != 0 {
		list = append(list, Attribute{Type: AttrV1KeyLength, Value: t.KeyLength})
	}
	return list, true
}

// PhaseOneKeywords returns the keywords of the algorithms of an IKEv1
// transform for the IKE SA, and its authentication method, such as "psk" or
// "rsasig". What has no keyword is shown by its number in IKEv1, as in
// "ENCR_99/128", "HASH_9", "KE_3" or "AUTH_6", and what is not there is "".
func PhaseOneKeywords(list []Attribute) (encr, hash, group, auth string) {
	first := func(t uint16) (uint16, bool) {
		i := slices.IndexFunc(list, func(a Attribute) bool { return a.Type == t && a.Data == nil })
		if i < 0 {
			return 0, false
		}
		return list[i].Value, true
	}
	if v, ok := first(AttrV1Encryption); ok {
		bits, _ := first(AttrV1KeyLength)
		encr = phaseOneKeyword(v, bits)
	}
	if v, ok := first(AttrV1Hash); ok {
		hash = name(hashesV1, v, "HASH")
	}
	if v, ok := first(AttrV1Group); ok {
		group = Transform{Type: TransformKeyExchange, ID: v}.Keyword()
	}
	if v, ok := first(AttrV1Auth); ok {
		auth = name(authsV1, v, "AUTH")
	}
	return encr, hash, group, auth
}

func phaseOneKeyword(id, bits uint16) string {
	if id == EncrV1SM4 {
		return "sm4"
	}
	for v2, v1 := range encryptionV1 {
		if v1 == id {
			if word, ok := (Transform{Type: TransformEncryption, ID: v2, KeyLength: bits}).keyword(); ok {
				return word
			}
		}
	}
	return Transform{Type: TransformEncryption, ID: id, KeyLength: bits}.numbers()
}
