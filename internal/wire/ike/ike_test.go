package ike

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The bytes were sent by strongSwan 5.9.8 and libreswan 4.10, unless built by
// hand.
var messages = []struct {
	name   string
	hex    string
	want   Message
	notify string
}{
	{
		"strongSwan INVALID_MAJOR_VERSION",
		"ff8f7125dbc3fa4c 0000000000000000 29202220 00000000 00000024 00000008 00000005",
		Message{
			Header: Header{
				SPIi: SPI{0xff, 0x8f, 0x71, 0x25, 0xdb, 0xc3, 0xfa, 0x4c}, NextPayload: PayloadNotify,
				Version: V2, Exchange: SAInit, Flags: FlagResponse, Length: 36,
			},
			Payloads: []Payload{{Type: PayloadNotify, Body: []byte{0, 0, 0, 5}}},
		},
		"INVALID_MAJOR_VERSION",
	},
	{
		"libreswan NO_PROPOSAL_CHOSEN",
		"9e1c9108bcb665b6 3362db555fe71cef 29202220 00000000 00000024 00000008 0000000e",
		Message{
			Header: Header{
				SPIi: SPI{0x9e, 0x1c, 0x91, 0x08, 0xbc, 0xb6, 0x65, 0xb6}, SPIr: SPI{0x33, 0x62, 0xdb, 0x55, 0x5f, 0xe7, 0x1c, 0xef},
				NextPayload: PayloadNotify, Version: V2, Exchange: SAInit, Flags: FlagResponse, Length: 36,
			},
			Payloads: []Payload{{Type: PayloadNotify, Body: []byte{0, 0, 0, 14}}},
		},
		"NO_PROPOSAL_CHOSEN",
	},
	{
		"bare header of an unknown version",
		"0102030405060708 0000000000000000 00302208 00000000 0000001c",
		Message{Header: Header{SPIi: SPI{1, 2, 3, 4, 5, 6, 7, 8}, Version: 0x30, Exchange: SAInit, Flags: FlagInitiator, Length: 28}},
		"",
	},
	{
		"IKEv1 notification",
		"0102030405060708 1112131415161718 0b100500 89abcdef 00000028 0000000c 00000001 01000005",
		Message{
			Header: Header{
				SPIi: SPI{1, 2, 3, 4, 5, 6, 7, 8}, SPIr: SPI{0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18},
				NextPayload: PayloadNotifyV1, Version: V1, Exchange: InformationalV1, MessageID: 0x89abcdef, Length: 40,
			},
			Payloads: []Payload{{Type: PayloadNotifyV1, Body: []byte{0, 0, 0, 1, 1, 0, 0, 5}}},
		},
		"INVALID-MAJOR-VERSION",
	},
	{
		"IKEv1 encrypted",
		"0102030405060708 1112131415161718 05100201 00000000 00000024 ffffffffffffffff",
		Message{Header: Header{
			SPIi: SPI{1, 2, 3, 4, 5, 6, 7, 8}, SPIr: SPI{0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18},
			NextPayload: PayloadIDV1, Version: V1, Exchange: IdentityProtectionV1, Flags: FlagEncryptedV1, Length: 36,
		}, Ciphertext: bytes.Repeat([]byte{0xff}, 8)},
		"",
	},
	{
		"encrypted payload behind a critical one",
		"0102030405060708 1112131415161718 2b202308 00000001 0000002c 2e800006 abcd 2300000a 010203040506",
		Message{
			Header: Header{
				SPIi: SPI{1, 2, 3, 4, 5, 6, 7, 8}, SPIr: SPI{0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18},
				NextPayload: PayloadVendorID, Version: V2, Exchange: Auth, Flags: FlagInitiator, MessageID: 1, Length: 44,
			},
			Payloads: []Payload{
				{Type: PayloadVendorID, Critical: true, Body: []byte{0xab, 0xcd}},
				{Type: PayloadEncrypted, Inner: PayloadIDi, Body: []byte{1, 2, 3, 4, 5, 6}},
			},
		},
		"",
	},
}

func TestParse(t *testing.T) {
	for _, tt := range messages {
		t.Run(tt.name, func(t *testing.T) {
			b := unhex(t, tt.hex)
			got, err := Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if got.FirstNotify() != tt.notify {
				t.Errorf("first notify %q, want %q", got.FirstNotify(), tt.notify)
			}
			if again := got.Append([]byte("x")); !bytes.Equal(again, append([]byte("x"), b...)) {
				t.Errorf("appended % x", again)
			}
		})
	}
}

func TestParseErrors(t *testing.T) {
	header := func(next PayloadType, payloads string) []byte {
		b := Header{NextPayload: next, Version: V2, Length: uint32(HeaderLen + len(payloads))}.Append(nil)
		return append(b, payloads...)
	}
	many := strings.Repeat("\x2b\x00\x00\x04", maxPayloads)
	for _, tt := range []struct {
		name string
		b    []byte
		want string
	}{
		{"nothing", nil, "shorter than an IKE header"},
		{"almost a header", make([]byte, HeaderLen-1), "shorter than an IKE header"},
		{"length too small", Header{Version: V2, Length: 27}.Append(nil), "28 bytes where the IKE header says 27"},
		{"length too large", Header{Version: V2, Length: 1 << 31}.Append(nil), "28 bytes where the IKE header says 2147483648"},
		{"no payload where one is named", header(PayloadNotify, ""), "N payload: 0 bytes left for its header"},
		{"part of a payload header", header(PayloadNotify, "\x00\x00\x00"), "N payload: 3 bytes left for its header"},
		{"payload of length 0", header(PayloadSA, "\x21\x00\x00\x00"), "SA payload: length 0 with 4 bytes left"},
		{"payload too long", header(200, "\x00\x00\x00\x05"), "PAYLOAD_200 payload: length 5 with 4 bytes left"},
		{"bytes behind", header(NoNextPayload, "x"), "bytes behind the last payload"},
		{"bytes behind an encrypted payload", header(PayloadEncrypted, "\x23\x00\x00\x04x"), "bytes behind the last payload"},
		{"too many", header(PayloadVendorID, many), "more than 128 payloads"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse(tt.b)
			if err == nil || err.Error() != tt.want {
				t.Errorf("got error %v, want %s", err, tt.want)
			}
		})
	}
}

// libreswan fills IKEv1 messages with zero bytes to a multiple of 4.
func TestPaddingV1(t *testing.T) {
	message := func(v Version, behind string) []byte {
		body := "\x00\x00\x00\x05x" + behind
		h := Header{NextPayload: PayloadVendorIDV1, Version: v, Exchange: AggressiveV1, Length: uint32(HeaderLen + len(body))}
		return append(h.Append(nil), body...)
	}
	for _, tt := range []struct {
		version Version
		behind  string
		ok      bool
	}{
		{V1, "", true},
		{V1, "\x00\x00\x00", true},
		{V1, "\x00", true},
		{V1, "\x00\x00\x00\x00", false},
		{V1, "\x00\x01", false},
		{V2, "\x00", false},
	} {
		m, err := Parse(message(tt.version, tt.behind))
		if (err == nil) != tt.ok {
			t.Errorf("IKE %v with %q behind the payloads: %v", tt.version, tt.behind, err)
		}
		if err == nil && (len(m.Payloads) != 1 || string(m.Payloads[0].Body) != "x") {
			t.Errorf("%q behind the payloads: %+v", tt.behind, m.Payloads)
		}
	}
	list, rest, err := CutPayloads(PayloadHashV1, []byte("\x08\x00\x00\x05a\x00\x00\x00\x05bpadding"))
	if err != nil || len(list) != 2 || string(list[1].Body) != "b" || string(rest) != "padding" {
		t.Errorf("CutPayloads: %v %q %v", list, rest, err)
	}
	chain := AppendPayloads(nil, list)
	if again, err := ParsePayloads(PayloadHashV1, chain); err != nil || len(again) != 2 {
		t.Errorf("ParsePayloads: %v %v", again, err)
	}
	if _, err := ParsePayloads(PayloadHashV1, append(chain, 0)); err == nil {
		t.Error("ParsePayloads took padding")
	}
	if list, rest, err := CutPayloads(NoNextPayload, []byte("x")); err != nil || list != nil || string(rest) != "x" {
		t.Errorf("CutPayloads of none: %v %q %v", list, rest, err)
	}
}

func TestNotify(t *testing.T) {
	want := Notify{Protocol: ProtocolESP, Type: InvalidSelectors, SPI: []byte{1, 2, 3, 4}, Data: []byte("data")}
	p := want.Payload()
	if wire := unhex(t, "03 04 0027 01020304 64617461"); p.Type != PayloadNotify || !bytes.Equal(p.Body, wire) {
		t.Errorf("payload %+v, want body % x", p, wire)
	}
	got, err := ParseNotify(p.Body)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for n := range 8 {
		if _, err := ParseNotify(p.Body[:n]); err == nil {
			t.Errorf("%d bytes were accepted", n)
		}
	}
	v1 := NotifyV1{DOI: 1, Protocol: ProtocolIKE, Type: 14, SPI: []byte{9}, Data: []byte{8}}
	p = v1.Payload()
	gotV1, err := ParseNotifyV1(p.Body)
	if diff := cmp.Diff(v1, gotV1); err != nil || diff != "" || p.Type != PayloadNotifyV1 {
		t.Errorf("IKEv1: %v, -want +got:\n%s", err, diff)
	}
	for n := range 9 {
		if _, err := ParseNotifyV1(p.Body[:n]); err == nil {
			t.Errorf("IKEv1: %d bytes were accepted", n)
		}
	}
}

// A message with an unreadable notify before a readable one.
func TestFirstNotify(t *testing.T) {
	m := Message{Payloads: []Payload{
		{Type: PayloadVendorID}, {Type: PayloadNotify, Body: []byte{0, 9, 0, 1}}, Notify{Type: Cookie}.Payload(), Notify{Type: Redirect}.Payload(),
	}}
	if got := m.FirstNotify(); got != "COOKIE" {
		t.Errorf("got %q", got)
	}
	if got := (Message{}).FirstNotify(); got != "" {
		t.Errorf("of none: got %q", got)
	}
	if _, ok := m.First(PayloadKE); ok {
		t.Error("found a payload that is not there")
	}
	if p, ok := m.First(PayloadNotify); !ok || p.Body[1] != 9 {
		t.Errorf("first notify payload: %+v", p)
	}
}

func TestNonESPMarker(t *testing.T) {
	for _, tt := range []struct {
		in, out string
		ok      bool
	}{
		{"\x00\x00\x00\x00ike", "ike", true},
		{"\x00\x00\x00\x00", "", true},
		{"\x00\x00\x00\x01esp", "\x00\x00\x00\x01esp", false},
		{"\x00\x00\x00", "\x00\x00\x00", false},
		{"\xff", "\xff", false},
		{"", "", false},
	} {
		if out, ok := CutNonESPMarker([]byte(tt.in)); string(out) != tt.out || ok != tt.ok {
			t.Errorf("CutNonESPMarker(%q) = %q, %v", tt.in, out, ok)
		}
	}
	if got := AppendNonESPMarker([]byte("x")); string(got) != "x\x00\x00\x00\x00" {
		t.Errorf("AppendNonESPMarker: %q", got)
	}
}
