package ike

import (
	"encoding/hex"
	"strings"
)

// vendor is a well-known vendor ID, of either version.
type vendor struct {
	id     string // in hexadecimal
	prefix bool   // a version, or capabilities, may follow
	name   string
}

// vendors are the well-known IDs, each once. Where the ID is the MD5 hash of a
// text, and the text is not the name, it stands beside it.
var vendors = []vendor{
	// Implementations.
	{"882fe56d6fd20dbc2251613b2ebe5beb", false, "strongSwan"},
	{"7003cbc1097dbe9c2600ba6983bc8b35", false, "racoon"}, // "KAME/racoon"
	{"f14b94b7bff1fef02773b8c49feded26", false, "Shrew Soft"},
	{"1e2b516905991c7d7c96fcbfb587e461", true, "Microsoft Windows"}, // "MS NT5 ISAKMPOAKLEY"
	{"1f07f70eaa6514d3b0fa96542a50", true, "Cisco VPN Concentrator"},
	{"f4ed19e0c114eb516faaac0ee37daf2807b4381f", true, "Check Point"},
	{"8299031757a36082c6a621de", true, "Fortinet FortiGate"},
	{"1d6e178f6c2c0be284985465450fe9d4", true, "Fortinet FortiGate"},
	{"404bf439522ca3f6", true, "SonicWall"},
	{"b858d1addd08c1e8adafea150608aa4497aa6cc8", false, "ZyXEL ZyWALL"},
	{"625027749d5ab97f5616c1602765cf480a3b7d0b", false, "ZyXEL ZyWALL"},

	// Juniper's, behind which follow numbers of the product and the version.
	{"166f932d55eb64d8e4df4fd37e2313f0d0fd8451", true, "Juniper NetScreen"},
	{"299ee8289f40a8973bc78687e2e7226b532c3b76", true, "Juniper NetScreen"},
	{"2a2bcac19b8e91b426107807e02e7249569d6fd3", true, "Juniper NetScreen"},
	{"3a15e1f3cf2a63582e3ac82d1c64cbe3b6d779e7", true, "Juniper NetScreen"},
	{"47d2b126bfcd83489760e2cf8c5d4d5a03497c15", true, "Juniper NetScreen"},
	{"4a4340b543e02b84c88a8b96a8af9ebe77d9accc", true, "Juniper NetScreen"},
	{"64405f46f03b7660a23be116a1975058e69e8387", true, "Juniper NetScreen"},
	{"699369228741c6d4ca094c93e242c9de19e7b7c6", true, "Juniper NetScreen"},
	{"8c0dc6cf62a0ef1b5c6eabd1b67ba69866adf16a", true, "Juniper NetScreen"},
	{"92d27a9ecb31d99246986d3453d0c3d57a222a61", true, "Juniper NetScreen"},
	{"9b096d9ac3275a7d6fe8b91c583111b09efed1a0", true, "Juniper NetScreen"},
	{"a35bfd05ca1ac0b3d2f24e9e82bfcbff9c9e52b5", true, "Juniper NetScreen"},
	{"bf03746108d746c904f1f3547de24f78479fed12", true, "Juniper NetScreen"},
	{"c2e80500f4cc5fbf5daaeed3bb59abaeee56c652", true, "Juniper NetScreen"},
	{"c8660a62b03b1b6130bf781608d32a6a8d0fb89f", true, "Juniper NetScreen"},
	{"f885da40b1e7a9abd17655ec5bbec0f21f0ed52e", true, "Juniper NetScreen"},

	// Extensions.
	{"4a131c81070358455c5728f20e95452f", true, "RFC 3947"}, // NAT traversal
	{"4485152d18b6bbcd0be8a8469579ddcc", false, "draft-ietf-ipsec-nat-t-ike-00"},
	{"16f6ca16e4a4066d83821a0f0aeaa862", false, "draft-ietf-ipsec-nat-t-ike-01"},
	{"cd60464335df21f87cfdb2fc68b6a448", false, "draft-ietf-ipsec-nat-t-ike-02"},
	{"90cb80913ebb696e086381b5ec427b1f", false, "draft-ietf-ipsec-nat-t-ike-02"}, // with a newline
	{"7d9419a65310ca6f2c179d9215529d56", false, "draft-ietf-ipsec-nat-t-ike-03"},
	{"9909b64eed937c6573de52ace952fa6b", false, "draft-ietf-ipsec-nat-t-ike-04"},
	{"80d0bb3def54565ee84645d4c85ce3ee", false, "draft-ietf-ipsec-nat-t-ike-05"},
	{"4d1e0e136deafa34c4f3ea9f02ec7285", false, "draft-ietf-ipsec-nat-t-ike-06"},
	{"439b59f8ba676c4c7737ae22eab8f582", false, "draft-ietf-ipsec-nat-t-ike-07"},
	{"8f8d83826d246b6fc7a8a6a428c11de8", false, "draft-ietf-ipsec-nat-t-ike-08"},
	{"4df37928e9fc4fd1b3262170d515c662", false, "draft-ietf-ipsec-nat-t-ike"}, // Apple's
	{"27bab5dc01ea0760ea4e3190ac27c0d0", false, "draft-stenberg-ipsec-nat-traversal-01"},
	{"6105c422e76847e43f9684801292aecd", false, "draft-stenberg-ipsec-nat-traversal-02"},
	{"6a7434c19d7e36348090a02334c9c805", false, "draft-huttunen-ipsec-esp-in-udp-00.txt"},
	{"afcad71368a1f1c96b8696fc7757", true, "DPD"}, // RFC 3706; the version follows
	// The first half, or all, of "draft-ietf-ipsra-isakmp-xauth-06.txt".
	{"09002689dfd6b712", false, "XAUTH"},
	{"09002689dfd6b71280a224dec33b81e5", false, "XAUTH"},
	{"12f5f28c457168a9702d9fe274cc", true, "Cisco Unity"},           // "CISCO-UNITY", its last bytes replaced by the version
	{"4048b7d56ebce88525e7de7f00d6c2d3", true, "IKE fragmentation"}, // "FRAGMENTATION"; capabilities follow
	{"621b04bb09882ac1e15935fefa24aeee", false, "GSSAPI"},
	{"ad2c0dd0b9c32083ccba25b8861ec455", false, "A GSS-API Authentication Method for IKE"},
	{"b46d8914f3aaa3f2fedeb7c7db2943ca", false, "A GSS-API Authentication Method for IKE"}, // with a newline
	{"fb1de3cdf341b7ea16b7e5be0855f120", false, "MS-Negotiation Discovery Capable"},
	{"26244d38eddb61b3172a36e3d0cfb819", false, "Vid-Initial-Contact"},
	{"e3a5966a76379fe707228231e5ce8652", false, "IKE CGA version 1"},
	{"214ca4faffa7f32d6748e5303395ae83", false, "MS-MamieExists"},
}

// textVendors are the IDs that are text, up to the version that follows.
var textVendors = []struct{ prefix, name string }{
	{"OpenIKED-", "OpenIKED"},
	{"OE-Libreswan-", "libreswan"},
	{"HeartBeat_Notify", "HeartBeat_Notify"}, // Juniper's
	{"CISCO-DELETE-REASON", "CISCO-DELETE-REASON"},
	{"CISCO(COPYRIGHT)", "Cisco"},
	{"CISCO-DYNAMIC-ROUTE", "CISCO-DYNAMIC-ROUTE"},
	{"FLEXVPN-SUPPORTED", "FLEXVPN-SUPPORTED"},
}

// VendorName returns the name that a well-known vendor ID goes by, such as
// "strongSwan", "OpenIKED 7.2" or "RFC 3947", and "" of all others. Anybody
// can send any ID.
func VendorName(id []byte) string {
	for _, v := range textVendors {
		version, ok := strings.CutPrefix(string(id), v.prefix)
		if !ok {
			continue
		}
		if strings.HasSuffix(v.prefix, "-") && len(version) < 32 && printable(version) {
			return v.name + " " + version
		}
		return v.name
	}
	if isFreeSWAN(id) {
		return "Openswan"
	}
	text := hex.EncodeToString(id)
	for _, v := range vendors {
		if text == v.id || v.prefix && strings.HasPrefix(text, v.id) {
			return v.name
		}
	}
	return ""
}

// isFreeSWAN reports whether id is of the FreeS/WAN family, Openswan being the
// last that is in use: "OE" and ten characters that encode a hash of the
// version.
func isFreeSWAN(id []byte) bool {
	const length = 12
	if len(id) != length || string(id[:2]) != "OE" {
		return false
	}
	for _, c := range id {
		if c < '@' || c > 0x7f {
			return false
		}
	}
	return true
}
