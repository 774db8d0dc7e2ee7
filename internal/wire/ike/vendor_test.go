package ike

import (
	"crypto/md5"
	"strings"
	"testing"
)

func TestVendorNameOfHashes(t *testing.T) {
	for text, want := range map[string]string{
		"strongSwan":                                "strongSwan",
		"KAME/racoon":                               "racoon",
		"MS NT5 ISAKMPOAKLEY":                       "Microsoft Windows",
		"FRAGMENTATION":                             "IKE fragmentation",
		"CISCO-UNITY":                               "Cisco Unity",
		"RFC 3947":                                  "RFC 3947",
		"draft-ietf-ipsec-nat-t-ike":                "draft-ietf-ipsec-nat-t-ike",
		"draft-ietf-ipsec-nat-t-ike-00":             "draft-ietf-ipsec-nat-t-ike-00",
		"draft-ietf-ipsec-nat-t-ike-01":             "draft-ietf-ipsec-nat-t-ike-01",
		"draft-ietf-ipsec-nat-t-ike-02":             "draft-ietf-ipsec-nat-t-ike-02",
		"draft-ietf-ipsec-nat-t-ike-02\n":           "draft-ietf-ipsec-nat-t-ike-02",
		"draft-ietf-ipsec-nat-t-ike-03":             "draft-ietf-ipsec-nat-t-ike-03",
		"draft-ietf-ipsec-nat-t-ike-04":             "draft-ietf-ipsec-nat-t-ike-04",
		"draft-ietf-ipsec-nat-t-ike-05":             "draft-ietf-ipsec-nat-t-ike-05",
		"draft-ietf-ipsec-nat-t-ike-06":             "draft-ietf-ipsec-nat-t-ike-06",
		"draft-ietf-ipsec-nat-t-ike-07":             "draft-ietf-ipsec-nat-t-ike-07",
		"draft-ietf-ipsec-nat-t-ike-08":             "draft-ietf-ipsec-nat-t-ike-08",
		"draft-stenberg-ipsec-nat-traversal-01":     "draft-stenberg-ipsec-nat-traversal-01",
		"draft-stenberg-ipsec-nat-traversal-02":     "draft-stenberg-ipsec-nat-traversal-02",
		"draft-huttunen-ipsec-esp-in-udp-00.txt":    "draft-huttunen-ipsec-esp-in-udp-00.txt",
		"draft-ietf-ipsra-isakmp-xauth-06.txt":      "XAUTH",
		"GSSAPI":                                    "GSSAPI",
		"A GSS-API Authentication Method for IKE":   "A GSS-API Authentication Method for IKE",
		"A GSS-API Authentication Method for IKE\n": "A GSS-API Authentication Method for IKE",
		"MS-Negotiation Discovery Capable":          "MS-Negotiation Discovery Capable",
		"Vid-Initial-Contact":                       "Vid-Initial-Contact",
		"IKE CGA version 1":                         "IKE CGA version 1",
		"MS-MamieExists":                            "MS-MamieExists",
	} {
		id := md5.Sum([]byte(text))
		if got := VendorName(id[:]); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}

// The IDs are as daemons and appliances sent them.
func TestVendorName(t *testing.T) {
	for _, tt := range []struct{ hex, want string }{
		{"afcad71368a1f1c96b8696fc77570100", "DPD"},
		{"09002689dfd6b712", "XAUTH"},
		{"09002689dfd6b713", ""},
		{"12f5f28c457168a9702d9fe274cc0204", "Cisco Unity"},
		{"4048b7d56ebce88525e7de7f00d6c2d380000000", "IKE fragmentation"},
		{"1e2b516905991c7d7c96fcbfb587e46100000009", "Microsoft Windows"},
		{"882fe56d6fd20dbc2251613b2ebe5beb00", ""},
		{"f4ed19e0c114eb516faaac0ee37daf2807b4381f000000010000138d" + strings.Repeat("00", 12), "Check Point"},
		{"8299031757a36082c6a621de0005024d", "Fortinet FortiGate"},
		{"699369228741c6d4ca094c93e242c9de19e7b7c60000000500000500", "Juniper NetScreen"},
		{"4f70656e494b45442d372e32", "OpenIKED 7.2"},
		{"4f45" + "40414243444546474849", "Openswan"},
		{"4f45" + "40414243444546474819", ""},
		{"4f45" + "404142434445464748", ""},
		{"", ""},
		{"00", ""},
	} {
		if got := VendorName(unhex(t, tt.hex)); got != tt.want {
			t.Errorf("%s is %q, want %q", tt.hex, got, tt.want)
		}
	}
	for text, want := range map[string]string{
		"OE-Libreswan-4.10":                   "libreswan 4.10",
		"OpenIKED-\x1b[2J":                    "OpenIKED",
		"OpenIKED-" + strings.Repeat("1", 99): "OpenIKED",
		"HeartBeat_Notify8k\x01\x00":          "HeartBeat_Notify",
		"FLEXVPN-SUPPORTED":                   "FLEXVPN-SUPPORTED",
		"OpenIKE":                             "",
	} {
		if got := VendorName([]byte(text)); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}

func TestVendorsOnce(t *testing.T) {
	for i, v := range vendors {
		if len(unhex(t, v.id)) < 8 || v.name == "" {
			t.Errorf("%+v", v)
		}
		for _, other := range vendors[:i] {
			if strings.HasPrefix(v.id, other.id) && other.prefix || other.id == v.id {
				t.Errorf("%s hides %s", other.name, v.name)
			}
		}
	}
}
