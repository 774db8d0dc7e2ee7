package ike

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// parseBody reads a payload by its type and builds it again from what was
// read. It returns false of a type that has no parser.
func parseBody(p Payload) (value any, built Payload, known bool, err error) {
	switch p.Type {
	case PayloadSA:
		list, err := ParseSA(p.Body)
		return list, SA(list...), true, err
	case PayloadKE:
		v, err := ParseKE(p.Body)
		return v, v.Payload(), true, err
	case PayloadIDi, PayloadIDr:
		v, err := ParseIdentity(p.Body)
		return v, v.Payload(p.Type), true, err
	case PayloadAuth:
		v, err := ParseAuth(p.Body)
		return v, v.Payload(), true, err
	case PayloadNotify:
		v, err := ParseNotify(p.Body)
		return v, v.Payload(), true, err
	case PayloadDelete:
		v, err := ParseDelete(p.Body)
		return v, v.Payload(), true, err
	case PayloadTSi, PayloadTSr:
		list, err := ParseTS(p.Body)
		return list, TS(p.Type, list), true, err
	case PayloadConfig:
		v, err := ParseConfiguration(p.Body)
		return v, v.Payload(), true, err
	case PayloadFragment:
		v, err := ParseFragment(p.Body)
		return v, v.Payload(p.Inner), true, err
	case PayloadSAV1:
		v, err := ParseSAV1(p.Body)
		return v, v.Payload(), true, err
	case PayloadIDV1:
		v, err := ParseIdentityV1(p.Body)
		return v, v.Payload(), true, err
	case PayloadNotifyV1:
		v, err := ParseNotifyV1(p.Body)
		return v, v.Payload(), true, err
	case PayloadDeleteV1:
		v, err := ParseDeleteV1(p.Body)
		return v, v.Payload(), true, err
	}
	return nil, Payload{}, false, nil
}

// Each body as it is on the wire and as it is read; those of SA payloads are
// in other tests.
var bodies = []struct {
	name  string
	typ   PayloadType
	inner PayloadType
	hex   string
	want  any
}{
	{"KE", PayloadKE, 0, "001f 0000 0102", KeyExchange{Group: GroupCurve25519, Public: []byte{1, 2}}},
	{"IDi", PayloadIDi, 0, "02 000000 6d6f6f6e", Identity{IDFQDN, []byte("moon")}},
	{"IDr of an unknown type", PayloadIDr, 0, "c8 000000 01", Identity{200, []byte{1}}},
	{"AUTH", PayloadAuth, 0, "02 000000 aabb", Authentication{AuthSharedKey, []byte{0xaa, 0xbb}}},
	{"notify", PayloadNotify, 0, "03 04 0027 01020304 64617461", Notify{ProtocolESP, InvalidSelectors, []byte{1, 2, 3, 4}, []byte("data")}},
	{"delete of the IKE SA", PayloadDelete, 0, "01 00 0000", Delete{Protocol: ProtocolIKE}},
	{
		"delete of ESP SAs", PayloadDelete, 0, "03 04 0002 01020304 05060708",
		Delete{ProtocolESP, 4, [][]byte{{1, 2, 3, 4}, {5, 6, 7, 8}}},
	},
	{
		"TSi", PayloadTSi, 0, `02 000000
			07 00 0010 0000 ffff 0a010000 0a01ffff
			08 11 0028 0035 0035 20010db8000000000000000000000001 20010db8000000000000000000000002`,
		[]TrafficSelector{
			{EndPort: 0xffff, Start: netip.MustParseAddr("10.1.0.0"), End: netip.MustParseAddr("10.1.255.255")},
			{Protocol: 17, StartPort: 53, EndPort: 53, Start: netip.MustParseAddr("2001:db8::1"), End: netip.MustParseAddr("2001:db8::2")},
		},
	},
	{
		"TSr with a security label", PayloadTSr, 0, "01 000000 0a 00 0006 6162",
		[]TrafficSelector{{Raw: []byte{10, 0, 0, 6, 'a', 'b'}}},
	},
	{
		"CP", PayloadConfig, 0, "02 000000 0001 0004 c0000201 0003 0000",
		Configuration{ConfigReply, []Attribute{{Type: ConfigInternalIP4Address, Data: []byte{192, 0, 2, 1}}, {Type: ConfigInternalIP4DNS, Data: []byte{}}}},
	},
	{"SKF", PayloadFragment, PayloadIDi, "0001 0003 0a0b", Fragment{1, 3, []byte{10, 11}}},
	{"IKEv1 ID", PayloadIDV1, 0, "01 11 01f4 c6336402", IdentityV1{IDIPv4Addr, 17, 500, []byte{198, 51, 100, 2}}},
	{"IKEv1 notification", PayloadNotifyV1, 0, "00000001 01 01 000e 09 08", NotifyV1{DOIIPsec, ProtocolIKE, 14, []byte{9}, []byte{8}}},
	{
		"IKEv1 delete", PayloadDeleteV1, 0, "00000001 01 10 0001 000102030405060708090a0b0c0d0e0f",
		DeleteV1{DOIIPsec, ProtocolIKE, 16, [][]byte{{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}}},
	},
}

var compareAddr = cmpopts.EquateComparable(netip.Addr{})

func TestBodies(t *testing.T) {
	for _, tt := range bodies {
		t.Run(tt.name, func(t *testing.T) {
			p := Payload{Type: tt.typ, Inner: tt.inner, Body: unhex(t, tt.hex)}
			got, built, _, err := parseBody(p)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, compareAddr); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff(p, built); diff != "" {
				t.Errorf("built again (-want +got):\n%s", diff)
			}
			for n := range 4 {
				if _, _, _, err := parseBody(Payload{Type: tt.typ, Body: p.Body[:n]}); err == nil {
					t.Errorf("%d bytes were accepted", n)
				}
			}
		})
	}
}

func TestBodyErrors(t *testing.T) {
	for _, tt := range []struct {
		typ  PayloadType
		hex  string
		want string
	}{
		{PayloadKE, "001f00", "key exchange shorter than 4 bytes"},
		{PayloadIDi, "020000", "identification shorter than 4 bytes"},
		{PayloadIDV1, "020000", "identification shorter than 4 bytes"},
		{PayloadAuth, "020000", "authentication shorter than 4 bytes"},
		{PayloadDelete, "030400", "delete shorter than 4 bytes"},
		{PayloadDelete, "03040001010203", "delete of 1 SPIs of 4 bytes each, with 3 bytes"},
		{PayloadDelete, "0100000001", "delete of 0 SPIs of 0 bytes each, with 1 bytes"},
		{PayloadDelete, "03ffffff", "delete of 65535 SPIs of 255 bytes each, with 0 bytes"},
		{PayloadDeleteV1, "000000", "delete shorter than 4 bytes"},
		{PayloadDeleteV1, "000000010110", "delete shorter than 4 bytes"},
		{PayloadTSi, "010000", "traffic selectors shorter than 4 bytes"},
		{PayloadTSi, "ff00000007", "255 traffic selectors in 1 bytes"},
		{PayloadTSi, "0200000001000006aabb0708", "traffic selector 2: 2 bytes left"},
		{PayloadTSi, "0100000001000003", "traffic selector 1: length 3 with 4 bytes left"},
		{PayloadTSi, "0100000001000005", "traffic selector 1: length 5 with 4 bytes left"},
		{PayloadTSi, "0100000007000008 00000000", "traffic selector 1: length 8, where its type has 16"},
		{PayloadTSi, "0000000001", "bytes behind the last traffic selector"},
		{PayloadConfig, "010000", "configuration shorter than 4 bytes"},
		{PayloadConfig, "01000000 000100", "configuration: attribute shorter than 4 bytes"},
		{PayloadConfig, "01000000 00010001", "configuration: attribute longer than what holds it"},
		{PayloadFragment, "000100", "fragment shorter than 4 bytes"},
		{PayloadFragment, "00000001", "fragment 0 of 1"},
		{PayloadFragment, "00020001", "fragment 2 of 1"},
	} {
		_, _, _, err := parseBody(Payload{Type: tt.typ, Body: unhex(t, tt.hex)})
		if err == nil || err.Error() != tt.want {
			t.Errorf("%v %s: got error %v, want %s", tt.typ, tt.hex, err, tt.want)
		}
	}
}

// A delete of the IKE SA that counts one SPI of no bytes, as some send it.
func TestDeleteOfNoSPIs(t *testing.T) {
	d, err := ParseDelete([]byte{1, 0, 0, 1})
	if diff := cmp.Diff(Delete{Protocol: ProtocolIKE}, d); err != nil || diff != "" {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
}

func TestPlainBodies(t *testing.T) {
	b := []byte{1, 2}
	for want, p := range map[PayloadType]Payload{
		PayloadNonce: Nonce(b), PayloadVendorID: VendorID(b), PayloadKEV1: KEV1(b), PayloadNonceV1: NonceV1(b),
		PayloadHashV1: HashV1(b), PayloadNATDV1: NATDV1(b), PayloadVendorIDV1: VendorIDV1(b),
	} {
		if diff := cmp.Diff(Payload{Type: want, Body: b}, p); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
}

// What does not fit into its field is a fault of the program.
func TestTooLongToBuild(t *testing.T) {
	for name, build := range map[string]func(){
		"payload":             func() { AppendPayloads(nil, []Payload{{Body: make([]byte, 0xffff-3)}}) },
		"transforms":          func() { SA(Proposal{Transforms: make([]Transform, 256)}) },
		"SPI":                 func() { SA(Proposal{SPI: make([]byte, 256)}) },
		"IKEv1 transforms":    func() { SAV1{Proposals: []ProposalV1{{Transforms: make([]TransformV1, 256)}}}.Payload() },
		"attribute":           func() { Configuration{Attributes: []Attribute{{Data: make([]byte, 1<<16)}}}.Payload() },
		"SPI of a notify":     func() { Notify{SPI: make([]byte, 256)}.Payload() },
		"SPIs":                func() { Delete{SPIs: make([][]byte, 1<<16)}.Payload() },
		"SPI of another size": func() { Delete{SPISize: 4, SPIs: [][]byte{{1}}}.Payload() },
		"selectors":           func() { TS(PayloadTSi, make([]TrafficSelector, 256)) },
		"TCP frame":           func() { AppendTCP(nil, make([]byte, 65530)) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if v := recover(); v == nil || !strings.HasPrefix(fmt.Sprint(v), "ike: ") {
					t.Errorf("recovered %v", v)
				}
			}()
			build()
		})
	}
}

func TestSelectorPrefix(t *testing.T) {
	for _, tt := range []struct{ prefix, end, text string }{
		{"10.1.0.0/16", "10.1.255.255", "10.1.0.0/16"},
		{"10.1.2.3/16", "10.1.255.255", "10.1.0.0/16"},
		{"0.0.0.0/0", "255.255.255.255", "0.0.0.0/0"},
		{"192.0.2.1/32", "192.0.2.1", "192.0.2.1/32"},
		{"192.0.2.128/25", "192.0.2.255", "192.0.2.128/25"},
		{"2001:db8::/33", "2001:db8:7fff:ffff:ffff:ffff:ffff:ffff", "2001:db8::/33"},
		{"::/0", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::/0"},
	} {
		p := netip.MustParsePrefix(tt.prefix)
		s := SelectorOf(p)
		if s.End.String() != tt.end || s.Start != p.Masked().Addr() || s.StartPort != 0 || s.EndPort != 65535 || s.Protocol != 0 {
			t.Errorf("SelectorOf(%v) = %+v", p, s)
		}
		if got, ok := s.Prefix(); !ok || got != p.Masked() {
			t.Errorf("prefix of %v: %v, %v", s, got, ok)
		}
		if s.String() != tt.text {
			t.Errorf("%v is shown as %q", p, s)
		}
	}
	a, b := netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.1.0.9")
	for _, tt := range []struct {
		s    TrafficSelector
		text string
	}{
		{TrafficSelector{EndPort: 0xffff, Start: a, End: b}, "10.1.0.1-10.1.0.9"},
		{TrafficSelector{Protocol: 6, EndPort: 0xffff, Start: a, End: b}, "10.1.0.1-10.1.0.9[6]"},
		{TrafficSelector{EndPort: 0xffff, Start: b, End: a}, "10.1.0.9-10.1.0.1"},
		{TrafficSelector{Raw: []byte{10, 0, 0, 4}}, "TS_10"},
	} {
		if p, ok := tt.s.Prefix(); ok {
			t.Errorf("%v is the prefix %v", tt.s, p)
		}
		if tt.s.String() != tt.text {
			t.Errorf("got %q, want %q", tt.s, tt.text)
		}
	}
	one := TrafficSelector{Protocol: 17, StartPort: 53, EndPort: 53, Start: a, End: a}
	some := TrafficSelector{Protocol: 6, StartPort: 1024, EndPort: 2047, Start: a, End: a}
	if one.String() != "10.1.0.1/32[17/53]" || some.String() != "10.1.0.1/32[6/1024-2047]" {
		t.Errorf("got %q and %q", one, some)
	}
	if p := TS(PayloadTSi, []TrafficSelector{{}}); len(p.Body) != 4+40 {
		t.Errorf("a selector without addresses has %d bytes", len(p.Body))
	}
}

func TestIdentity(t *testing.T) {
	for _, tt := range []struct {
		text string
		want Identity
		back string
	}{
		{"203.0.113.2", Identity{IDIPv4Addr, []byte{203, 0, 113, 2}}, "203.0.113.2"},
		{"2001:db8::1", Identity{IDIPv6Addr, netip.MustParseAddr("2001:db8::1").AsSlice()}, "2001:db8::1"},
		{"moon.example.org", Identity{IDFQDN, []byte("moon.example.org")}, "moon.example.org"},
		{"@moon.example.org", Identity{IDFQDN, []byte("moon.example.org")}, "moon.example.org"},
		{"@198.51.100.2", Identity{IDFQDN, []byte("198.51.100.2")}, "198.51.100.2"},
		{"carol@example.org", Identity{IDUserFQDN, []byte("carol@example.org")}, "carol@example.org"},
		{"@@carol", Identity{IDUserFQDN, []byte("carol")}, "carol"},
		{"@#00ff", Identity{IDKeyID, []byte{0, 255}}, "@#00ff"},
		{"@#office", Identity{IDFQDN, []byte("#office")}, "#office"},
		{"fe80::1%eth0", Identity{IDFQDN, []byte("fe80::1%eth0")}, "fe80::1%eth0"},
	} {
		got := IdentityOf(tt.text)
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("IdentityOf(%q) -want +got:\n%s", tt.text, diff)
		}
		if got.String() != tt.back {
			t.Errorf("%q is shown as %q", tt.text, got)
		}
	}
	// C=CH, O=Test Org, CN=moon, encoded by hand.
	dn := unhex(t, "302f 310b 3009 0603550406 1302 4348 3111 300f 060355040a 0c08 54657374204f7267 310d 300b 0603550403 0c04 6d6f6f6e")
	newline := bytes.Replace(dn, []byte("moon"), []byte("mo\nn"), 1)
	for _, tt := range []struct {
		id   Identity
		want string
	}{
		{Identity{IDDERASN1DN, dn}, "C=CH, O=Test Org, CN=moon"},
		{Identity{IDDERASN1DN, newline}, fmt.Sprintf("ID_DER_ASN1_DN:%x", newline)},
		{Identity{IDDERASN1DN, dn[:10]}, fmt.Sprintf("ID_DER_ASN1_DN:%x", dn[:10])},
		{Identity{IDFQDN, []byte("a\x1b[2J")}, "ID_FQDN:611b5b324a"},
		{Identity{IDUserFQDN, []byte("a\xff")}, "ID_RFC822_ADDR:61ff"},
		{Identity{IDIPv4Addr, make([]byte, 16)}, "ID_IPV4_ADDR:" + strings.Repeat("0", 32)},
		{Identity{IDIPv6Addr, []byte{1, 2, 3}}, "ID_IPV6_ADDR:010203"},
		{Identity{IDNull, nil}, "%null"},
		{Identity{IDNull, []byte{1}}, "ID_NULL:01"},
		{Identity{99, []byte{1, 2}}, "ID_99:0102"},
	} {
		if got := tt.id.String(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}
