package ikecrypto

import (
	"bytes"
	"fmt"
	"testing"

	"vpnprobe/internal/wire/ike"
)

// RFC 2202 and RFC 4231, test case 2, of which the integrity algorithms give
// the first bytes.
func TestHMAC(t *testing.T) {
	key, data := []byte("Jefe"), []byte("what do ya want for nothing?")
	for _, tt := range []struct {
		prf, integ uint16
		icv        int
		want       string
	}{
		{1, 1, 12, "750c783e6ab0b503eaa86e310a5db738"},
		{2, 2, 12, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"},
		{5, 12, 16, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
		{6, 13, 24, "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649"},
		{7, 14, 32, "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"},
	} {
		t.Run(fmt.Sprint(tt.prf), func(t *testing.T) {
			want := unhex(t, tt.want)
			p, ok := prfOf(tt.prf)
			if !ok || !bytes.Equal(p.sum(key, data[:4], nil, data[4:]), want) || p.size() != len(want) {
				t.Errorf("PRF %d: %x", tt.prf, p.sum(key, data))
			}
			i, ok := integrityOf(tt.integ)
			mac := &cbcProtection{integ: i, macKey: key}
			if !ok || !bytes.Equal(mac.mac(data), want[:tt.icv]) || i.keyLen() != len(want) {
				t.Errorf("INTEG %d: %x, key of %d bytes", tt.integ, mac.mac(data), i.keyLen())
			}
		})
	}
}

// RFC 7296 section 2.13, written out.
func TestExpand(t *testing.T) {
	p, _ := prfOf(ike.PRFHMACSHA256)
	key, seed := []byte("key"), []byte("seed")
	t1 := p.sum(key, []byte("seed\x01"))
	t2 := p.sum(key, t1, []byte("seed\x02"))
	t3 := p.sum(key, t2, []byte("seed\x03"))
	all := bytes.Join([][]byte{t1, t2, t3}, nil)
	for n := range len(all) + 1 {
		if got := p.expand(key, seed, n); !bytes.Equal(got, all[:n]) {
			t.Errorf("%d bytes: %x", n, got)
		}
	}
}
