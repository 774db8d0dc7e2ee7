package ike

import (
	"encoding/csv"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"testing"
)

// registered is what a registry calls a number of ours.
type registered map[int]string

// registry reads the numbers and names of a registry in testdata, without
// those that are reserved, unassigned or of private use.
func registry(t testing.TB, file string, column int) registered {
	t.Helper()
	f, err := os.Open("testdata/" + file + ".csv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	free := regexp.MustCompile(`(?i)^(reserved$|unassigned|private use|reserved for private)`)
	names := make(registered)
	for _, row := range rows[1:] {
		if free.MatchString(row[column]) || free.MatchString(row[1]) {
			continue
		}
		n, err := strconv.Atoi(row[0])
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		names[n] = row[column]
	}
	return names
}

// named lists numbers as a type of ours names them.
func named[T interface {
	~uint8 | ~uint16
	fmt.Stringer
}](names map[T]string, keep func(T) bool) registered {
	r := make(registered)
	for n := range names {
		if keep == nil || keep(n) {
			r[int(n)] = n.String()
		}
	}
	return r
}

func ours[T ~uint8 | ~uint16](names map[T]string) registered {
	r := make(registered)
	for n, name := range names {
		r[int(n)] = name
	}
	return r
}

// registries has, for each registry in testdata, our numbers under the
// registry's names.
var registries = []struct {
	file   string
	column int // of the name
	ours   registered
	some   bool // we do not know all of them
}{
	{"ikev2-parameters-1", 1, named(exchangeNames, func(t ExchangeType) bool { return t >= SAInit }), false},
	{"ikev2-parameters-2", 2, named(payloadNames, func(t PayloadType) bool { return t >= PayloadSA && t < 128 }), false},
	{"ikev2-parameters-3", 1, named(transformNames, nil), false},
	{"ikev2-parameters-5", 1, ours(map[uint16]string{
		EncrDESIV64: "ENCR_DES_IV64", EncrDES: "ENCR_DES", Encr3DES: "ENCR_3DES", EncrRC5: "ENCR_RC5", EncrIDEA: "ENCR_IDEA",
		EncrCAST: "ENCR_CAST", EncrBlowfish: "ENCR_BLOWFISH", Encr3IDEA: "ENCR_3IDEA", EncrDESIV32: "ENCR_DES_IV32",
		EncrNull: "ENCR_NULL", EncrAESCBC: "ENCR_AES_CBC", EncrAESCTR: "ENCR_AES_CTR",
		EncrAESCCM8: "ENCR_AES_CCM_8", EncrAESCCM12: "ENCR_AES_CCM_12", EncrAESCCM16: "ENCR_AES_CCM_16",
		EncrAESGCM8: "ENCR_AES_GCM_8", EncrAESGCM12: "ENCR_AES_GCM_12", EncrAESGCM16: "ENCR_AES_GCM_16",
		EncrNullAuthAESGMAC: "ENCR_NULL_AUTH_AES_GMAC", EncrXTSAES: "Reserved for IEEE P1619 XTS-AES",
		EncrCamelliaCBC: "ENCR_CAMELLIA_CBC", EncrCamelliaCTR: "ENCR_CAMELLIA_CTR",
		EncrCamelliaCCM8: "ENCR_CAMELLIA_CCM_8", EncrCamelliaCCM12: "ENCR_CAMELLIA_CCM_12", EncrCamelliaCCM16: "ENCR_CAMELLIA_CCM_16",
		EncrChaCha20Poly1305: "ENCR_CHACHA20_POLY1305", EncrAESCCM8IIV: "ENCR_AES_CCM_8_IIV",
		EncrAESGCM16IIV: "ENCR_AES_GCM_16_IIV", EncrChaCha20Poly1305IIV: "ENCR_CHACHA20_POLY1305_IIV",
		EncrKuznyechikMGM: "ENCR_KUZNYECHIK_MGM_KTREE", EncrMagmaMGM: "ENCR_MAGMA_MGM_KTREE",
		EncrKuznyechikMGMMAC: "ENCR_KUZNYECHIK_MGM_MAC_KTREE", EncrMagmaMGMMAC: "ENCR_MAGMA_MGM_MAC_KTREE",
	}), false},
	{"ikev2-parameters-6", 1, ours(map[uint16]string{
		PRFHMACMD5: "PRF_HMAC_MD5", PRFHMACSHA1: "PRF_HMAC_SHA1", PRFHMACTiger: "PRF_HMAC_TIGER", PRFAES128XCBC: "PRF_AES128_XCBC",
		PRFHMACSHA256: "PRF_HMAC_SHA2_256", PRFHMACSHA384: "PRF_HMAC_SHA2_384", PRFHMACSHA512: "PRF_HMAC_SHA2_512",
		PRFAES128CMAC: "PRF_AES128_CMAC", PRFHMACStreebog512: "PRF_HMAC_STREEBOG_512",
	}), false},
	{"ikev2-parameters-7", 1, ours(map[uint16]string{
		AuthNone: "NONE", AuthHMACMD596: "AUTH_HMAC_MD5_96", AuthHMACSHA196: "AUTH_HMAC_SHA1_96", AuthDESMAC: "AUTH_DES_MAC",
		AuthKPDKMD5: "AUTH_KPDK_MD5", AuthAESXCBC96: "AUTH_AES_XCBC_96", AuthHMACMD5128: "AUTH_HMAC_MD5_128",
		AuthHMACSHA1160: "AUTH_HMAC_SHA1_160", AuthAESCMAC96: "AUTH_AES_CMAC_96", AuthAES128GMAC: "AUTH_AES_128_GMAC",
		AuthAES192GMAC: "AUTH_AES_192_GMAC", AuthAES256GMAC: "AUTH_AES_256_GMAC", AuthHMACSHA256128: "AUTH_HMAC_SHA2_256_128",
		AuthHMACSHA384192: "AUTH_HMAC_SHA2_384_192", AuthHMACSHA512256: "AUTH_HMAC_SHA2_512_256",
	}), false},
	{"ikev2-parameters-8", 1, ours(map[uint16]string{
		GroupNone: "NONE", GroupMODP768: "768-bit MODP Group", GroupMODP1024: "1024-bit MODP Group", GroupMODP1536: "1536-bit MODP Group",
		GroupMODP2048: "2048-bit MODP Group", GroupMODP3072: "3072-bit MODP Group", GroupMODP4096: "4096-bit MODP Group",
		GroupMODP6144: "6144-bit MODP Group", GroupMODP8192: "8192-bit MODP Group",
		GroupECP256: "256-bit random ECP group", GroupECP384: "384-bit random ECP group", GroupECP521: "521-bit random ECP group",
		GroupMODP1024S160: "1024-bit MODP Group with 160-bit Prime Order Subgroup",
		GroupMODP2048S224: "2048-bit MODP Group with 224-bit Prime Order Subgroup",
		GroupMODP2048S256: "2048-bit MODP Group with 256-bit Prime Order Subgroup",
		GroupECP192:       "192-bit Random ECP Group", GroupECP224: "224-bit Random ECP Group",
		GroupBrainpool224: "brainpoolP224r1", GroupBrainpool256: "brainpoolP256r1",
		GroupBrainpool384: "brainpoolP384r1", GroupBrainpool512: "brainpoolP512r1",
		GroupCurve25519: "Curve25519", GroupCurve448: "Curve448", GroupGOST256: "GOST3410_2012_256", GroupGOST512: "GOST3410_2012_512",
		GroupMLKEM512: "ml-kem-512", GroupMLKEM768: "ml-kem-768", GroupMLKEM1024: "ml-kem-1024",
	}), false},
	{"ikev2-parameters-9", 1, ours(map[uint16]string{
		SequenceNumbers32: "32-bit Sequential Numbers", SequenceNumbers64: "Partially Transmitted 64-bit Sequential Numbers",
		SequenceNumbersUnspecified: "32-bit Unspecified Numbers",
	}), false},
	{"ikev2-parameters-10", 1, named(idNames, func(t IDType) bool { return !slices.Contains(idsOfV1, t) }), false},
	{"ikev2-parameters-12", 1, named(authNames, nil), false},
	{"ikev2-parameters-14", 1, named(notifyNames, NotifyType.IsError), false},
	{"ikev2-parameters-16", 1, named(notifyNames, func(t NotifyType) bool { return !t.IsError() }), false},
	{"ikev2-parameters-18", 1, named(protocolNames, nil), true},
	{"ikev2-parameters-19", 1, ours(map[uint8]string{
		TSIPv4AddrRange: "TS_IPV4_ADDR_RANGE", TSIPv6AddrRange: "TS_IPV6_ADDR_RANGE",
		TSFCAddrRange: "TS_FC_ADDR_RANGE", TSSecurityLabel: "TS_SECLABEL",
	}), false},
	{"ikev2-parameters-20", 1, ours(map[uint8]string{
		ConfigRequest: "CFG_REQUEST", ConfigReply: "CFG_REPLY", ConfigSet: "CFG_SET", ConfigAck: "CFG_ACK",
	}), false},
	{"ikev2-parameters-21", 1, ours(map[uint16]string{
		ConfigInternalIP4Address: "INTERNAL_IP4_ADDRESS", ConfigInternalIP4Netmask: "INTERNAL_IP4_NETMASK",
		ConfigInternalIP4DNS: "INTERNAL_IP4_DNS", ConfigInternalIP4NBNS: "INTERNAL_IP4_NBNS", ConfigInternalIP4DHCP: "INTERNAL_IP4_DHCP",
		ConfigApplicationVersion: "APPLICATION_VERSION", ConfigInternalIP6Address: "INTERNAL_IP6_ADDRESS",
		ConfigInternalIP6DNS: "INTERNAL_IP6_DNS", ConfigInternalIP6DHCP: "INTERNAL_IP6_DHCP",
		ConfigInternalIP4Subnet: "INTERNAL_IP4_SUBNET", ConfigSupportedAttributes: "SUPPORTED_ATTRIBUTES",
		ConfigInternalIP6Subnet: "INTERNAL_IP6_SUBNET", ConfigInternalDNSDomain: "INTERNAL_DNS_DOMAIN",
	}), true},

	{"isakmp-exchange-types", 1, named(exchangeNames, func(t ExchangeType) bool { return t < SAInit && t != TransactionV1 }), false},
	{"isakmp-payload-types", 1, named(payloadNames, func(t PayloadType) bool { return t < PayloadSA }), false},
	{"isakmp-registry-31", 1, named(idNames, func(t IDType) bool { return t < IDFCName }), true},
	{"ipsec-registry-24", 1, named(notifyNamesV1, func(t NotifyTypeV1) bool { return t < 16384 }), false},
	{"isakmp-notify-status", 1, named(notifyNamesV1, func(t NotifyTypeV1) bool { return t >= 16384 && t < 32768 }), false},
	{"ipsec-registry-2", 1, ours(map[uint16]string{
		AttrV1Encryption: "Encryption Algorithm", AttrV1Hash: "Hash Algorithm", AttrV1Auth: "Authentication Method",
		AttrV1Group: "Group Description", AttrV1GroupType: "Group Type", AttrV1LifeType: "Life Type",
		AttrV1LifeDuration: "Life Duration", AttrV1PRF: "PRF", AttrV1KeyLength: "Key Length",
	}), true},
	{"ipsec-registry-4", 1, ours(map[uint16]string{
		EncrV1DES: "DES-CBC", EncrV1IDEA: "IDEA-CBC", EncrV1Blowfish: "Blowfish-CBC", EncrV1RC5: "RC5-R16-B64-CBC",
		EncrV13DES: "3DES-CBC", EncrV1CAST: "CAST-CBC", EncrV1AES: "AES-CBC", EncrV1Camellia: "CAMELLIA-CBC",
	}), false},
	{"ipsec-registry-6", 1, ours(map[uint16]string{
		HashV1MD5: "MD5", HashV1SHA1: "SHA", HashV1Tiger: "Tiger", HashV1SHA256: "SHA2-256", HashV1SHA384: "SHA2-384", HashV1SHA512: "SHA2-512",
	}), false},
	{"ipsec-registry-8", 1, ours(map[uint16]string{
		AuthV1SharedKey: "pre-shared key", AuthV1DSS: "DSS signatures", AuthV1RSA: "RSA signatures",
		AuthV1RSAEncryption: "Encryption with RSA", AuthV1RSARevised: "Revised encryption with RSA",
		AuthV1ECDSA256: "ECDSA with SHA-256 on the P-256 curve", AuthV1ECDSA384: "ECDSA with SHA-384 on the P-384 curve",
		AuthV1ECDSA521: "ECDSA with SHA-512 on the P-521 curve",
	}), false},
	{"ipsec-registry-14", 1, ours(map[uint16]string{LifeV1Seconds: "seconds", LifeV1Kilobytes: "kilobytes"}), false},
}

// idsOfV1 are the types of identities that only IKEv1 has.
var idsOfV1 = []IDType{IDIPv4Subnet, IDIPv6Subnet, IDIPv4Range, IDIPv6Range}

// sameName reports whether our name is the registry's, or its abbreviation in
// brackets.
func sameName(ours, registry string) bool {
	return ours == registry || regexp.MustCompile(`\(`+regexp.QuoteMeta(ours)+`\)$`).MatchString(registry)
}

// exceptions are our names that are not the registry's.
var exceptions = map[string]string{
	"NONCE":          "Ni, Nr",
	"ID_RFC822_ADDR": "ID_USER_FQDN", // IKEv2's name of the same number
}

func TestRegistries(t *testing.T) {
	for _, tt := range registries {
		t.Run(tt.file, func(t *testing.T) {
			want := registry(t, tt.file, tt.column)
			delete(want, 0) // stands for nothing, under several names
			for _, n := range slices.Sorted(maps.Keys(tt.ours)) {
				name := regexp.MustCompile(` \(v1\)$`).ReplaceAllString(tt.ours[n], "")
				if n == 0 {
					continue
				}
				if theirs, ok := want[n]; !ok || !sameName(name, theirs) && exceptions[name] != theirs {
					t.Errorf("%d is %q here and %q in the registry", n, name, want[n])
				}
				delete(want, n)
			}
			if !tt.some && len(want) > 0 {
				t.Errorf("unknown here: %v", want)
			}
		})
	}
}
