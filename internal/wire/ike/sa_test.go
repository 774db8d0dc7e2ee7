package ike

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var saBodies = []struct {
	name string
	hex  string
	want []Proposal
}{
	{
		"two proposals",
		`02 00 001c 01 01 00 02
		   03 00 000c 01 00 000c 800e 0100
		   00 00 0008 04 00 000e
		 00 00 0014 02 03 04 01 01020304
		   00 00 0008 05 00 0000`,
		[]Proposal{
			{Number: 1, Protocol: ProtocolIKE, SPI: []byte{}, Transforms: []Transform{
				{Type: TransformEncryption, ID: EncrAESCBC, KeyLength: 256}, {Type: TransformKeyExchange, ID: GroupMODP2048},
			}},
			{Number: 2, Protocol: ProtocolESP, SPI: []byte{1, 2, 3, 4}, Transforms: []Transform{{Type: TransformSequence}}},
		},
	},
	{
		"unknown values and attributes",
		`00 00 0027 07 c8 00 01
		   00 00 001f fa 00 ffff 800e 0080 8012 0001 0013 0003 616263 800e 00c0 0014 0000`,
		[]Proposal{{Number: 7, Protocol: 200, SPI: []byte{}, Transforms: []Transform{{
			Type: 250, ID: 0xffff, KeyLength: 128,
			Attributes: []Attribute{{Type: 18, Value: 1}, {Type: 19, Data: []byte("abc")}, {Type: 14, Value: 192}, {Type: 20, Data: []byte{}}},
		}}}},
	},
	{"no transforms", "00 00 0008 01 01 00 00", []Proposal{{Number: 1, Protocol: ProtocolIKE, SPI: []byte{}, Transforms: []Transform{}}}},
	{
		"key lengths that KeyLength cannot say",
		`00 00 001c 01 01 00 01
		   00 00 0014 01 00 000c 800e 0000 000e 0000 800e 0080`,
		[]Proposal{{Number: 1, Protocol: ProtocolIKE, SPI: []byte{}, Transforms: []Transform{{
			Type: TransformEncryption, ID: EncrAESCBC,
			Attributes: []Attribute{{Type: 14}, {Type: 14, Data: []byte{}}, {Type: 14, Value: 128}},
		}}}},
	},
}

func TestSA(t *testing.T) {
	for _, tt := range saBodies {
		t.Run(tt.name, func(t *testing.T) {
			b := unhex(t, tt.hex)
			got, err := ParseSA(b)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if p := SA(got...); p.Type != PayloadSA || !bytes.Equal(p.Body, b) {
				t.Errorf("built again % x, want % x", p.Body, b)
			}
		})
	}
}

func TestSANumbers(t *testing.T) {
	p := SA(Proposal{Protocol: ProtocolIKE}, Proposal{Protocol: ProtocolIKE, Number: 9}, Proposal{Protocol: ProtocolIKE})
	list, err := ParseSA(p.Body)
	if err != nil || list[0].Number != 1 || list[1].Number != 9 || list[2].Number != 3 {
		t.Errorf("%+v %v", list, err)
	}
}

func TestSAErrors(t *testing.T) {
	for _, tt := range []struct{ name, hex, want string }{
		{"nothing", "", "SA without a proposal"},
		{"part of a header", "000000", "3 bytes left for the header of a proposal"},
		{"short proposal", "00000007010100", "proposal of length 7 with 7 bytes left"},
		{"long proposal", "0000000901010000", "proposal of length 9 with 8 bytes left"},
		{"a payload's next type", "2200000801010000", "proposal followed by a substructure of type 34"},
		{"last but more bytes", "0000000801010000 00", "bytes behind the last proposal"},
		{"more but no bytes", "0200000801010000", "no proposal where one is said to follow"},
		{"long SPI", "000000090101020001", "proposal 1: SPI of 2 bytes with 1 left"},
		{"fewer transforms", "0000001001010002 0000000801000003", "proposal 1: 1 transforms where it says 2"},
		{"more transforms", "0000001001010000 0000000801000003", "proposal 1: 1 transforms where it says 0"},
		{"short transform", "0000000f01010001 00000007010000", "proposal 1: transform of length 7 with 7 bytes left"},
		{"part of a transform", "0000000a01010001 0000", "proposal 1: 2 bytes left for the header of a transform"},
		{"part of an attribute", "0000001201010001 0000000a01000003 800e", "proposal 1, transform 1: attribute shorter than 4 bytes"},
		{"long attribute", "0000001401010001 0000000c01000003 000e0001", "proposal 1, transform 1: attribute longer than what holds it"},
		{"too many", strings.Repeat("0200000801010000", 255) + "0000000801010000", "more than 255 proposals"},
	} {
		b := unhex(t, tt.hex)
		if _, err := ParseSA(b); err == nil || err.Error() != tt.want {
			t.Errorf("%s: got error %v, want %s", tt.name, err, tt.want)
		}
		if _, err := ParseSAV1(append([]byte{0, 0, 0, 1, 0, 0, 0, 1}, b...)); err == nil || err.Error() != tt.want {
			t.Errorf("%s in IKEv1: got error %v, want %s", tt.name, err, tt.want)
		}
	}
}

var saV1Body = `00000001 00000001
	02 00 0030 01 01 08 01 0102030405060708
	  00 00 0020 01 01 0000 8001 0007 800e 0080 8002 0002 8003 0001 000c 0004 00015180
	00 00 001c 02 03 04 02 0a0b0c0d
	  03 00 0008 01 0c 0000
	  00 00 0008 02 03 0000`

func TestSAV1(t *testing.T) {
	b := unhex(t, saV1Body)
	got, err := ParseSAV1(b)
	if err != nil {
		t.Fatal(err)
	}
	want := SAV1{DOI: DOIIPsec, Situation: SituationIdentity, Proposals: []ProposalV1{
		{1, ProtocolIKE, []byte{1, 2, 3, 4, 5, 6, 7, 8}, []TransformV1{{1, TransformKeyIKE, []Attribute{
			{Type: AttrV1Encryption, Value: EncrV1AES},
			{Type: AttrV1KeyLength, Value: 128},
			{Type: AttrV1Hash, Value: HashV1SHA1},
			{Type: AttrV1Auth, Value: AuthV1SharedKey},
			{Type: AttrV1LifeDuration, Data: []byte{0, 1, 0x51, 0x80}},
		}}}},
		{2, ProtocolESP, []byte{10, 11, 12, 13}, []TransformV1{{1, 12, nil}, {2, 3, nil}}},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for range 2 { // with the numbers as read, and then with those of the positions
		if p := got.Payload(); p.Type != PayloadSAV1 || !bytes.Equal(p.Body, b) {
			t.Errorf("built again % x, want % x", p.Body, b)
		}
		for i := range got.Proposals {
			got.Proposals[i].Number = 0
			for j := range got.Proposals[i].Transforms {
				got.Proposals[i].Transforms[j].Number = 0
			}
		}
	}
	if _, err := ParseSAV1(b[:7]); err == nil || err.Error() != "SA shorter than 8 bytes" {
		t.Errorf("short: %v", err)
	}
	if _, err := ParseSAV1([]byte{0, 0, 0, 1, 0, 0, 0, 3}); err == nil || err.Error() != "SA with labels: situation 0x3" {
		t.Errorf("labelled: %v", err)
	}
}
