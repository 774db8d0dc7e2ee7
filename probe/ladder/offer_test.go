package ladder

import (
	"net/netip"
	"testing"
)

func TestOffer(t *testing.T) {
	for _, tt := range []struct {
		text, again string
		proposals   int
	}{
		{"aes256-sha256-modp2048", "aes256-sha256-modp2048", 1},
		{"AES256-sha256-modp2048!", "aes256-sha256-modp2048", 1},
		{"aes256-sha256-prfsha256-modp2048", "aes256-sha256-modp2048", 1},
		{"aes256-sha256-prfsha1-modp2048", "aes256-sha256-prfsha1-modp2048", 1},
		{"aes256gcm16-prfsha384-ecp384", "aes256gcm16-prfsha384-ecp384", 1},
		{"aes256-aes256gcm16-sha256-modp2048", "aes256-aes256gcm16-sha256-modp2048", 2},
		{"aes256-sha1_160-modp2048", "aes256-sha1_160-modp2048", 1},
		{"aes256-sha256", "", 0},
		{"aes256-modp2048-prfsha1", "", 0},
		{"aes256-sha256-modp2048-ke1_mlkem768", "", 0},
		{"aes256-sha256-modp2048-esn", "", 0},
		{"", "", 0},
	} {
		o, ok := parseOffer(tt.text)
		if ok != (tt.proposals > 0) || ok && (o.String() != tt.again || len(o.proposals()) != tt.proposals) {
			t.Errorf("%q: got %q with %d proposals, %v", tt.text, o, len(o.proposals()), ok)
		}
	}
	if n := len(wide.proposals()); n != 2 {
		t.Errorf("the wide offer has %d proposals", n)
	}
}

func TestRedirectTo(t *testing.T) {
	for want, data := range map[string][]byte{
		"192.0.2.9":   {1, 4, 192, 0, 2, 9},
		"2001:db8::1": append([]byte{2, 16}, netip.MustParseAddr("2001:db8::1").AsSlice()...),
		"gw.example":  append([]byte{3, 10}, "gw.example"...),
		"":            {3, 2, 'a', '\n'},
	} {
		if got := redirectTo(data); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	for _, data := range [][]byte{nil, {1}, {1, 4, 1}, {1, 16, 1, 2, 3, 4}, {2, 4, 192, 0, 2, 9}, {9, 1, 1}} {
		if got := redirectTo(data); got != "" {
			t.Errorf("%x: got %q", data, got)
		}
	}
}
