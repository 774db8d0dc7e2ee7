package ikecrypto

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"vpnprobe/internal/wire/ike"
)

// groups are the supported ones and the lengths of their public values: RFC
// 2409 and RFC 3526 in the length of the prime, RFC 5903 two coordinates, RFC
// 8031 one.
var groups = []struct {
	group     uint16
	publicLen int
}{
	{2, 128}, {5, 192}, {14, 256}, {15, 384}, {16, 512}, {17, 768}, {18, 1024},
	{19, 64}, {20, 96}, {21, 132}, {31, 32},
}

func TestKeyExchange(t *testing.T) {
	for _, tt := range groups {
		t.Run(fmt.Sprint(tt.group), func(t *testing.T) {
			a, b := newKeyExchange(t, tt.group), newKeyExchange(t, tt.group)
			if n, ok := PublicLen(tt.group); n != tt.publicLen || !ok || len(a.Public()) != n || a.Group() != tt.group {
				t.Errorf("public value of %d bytes in group %d, PublicLen %d, want %d", len(a.Public()), a.Group(), n, tt.publicLen)
			}
			if bytes.Equal(a.Public(), b.Public()) {
				t.Error("the same secret twice")
			}
			ab, err := a.Shared(b.Public())
			if err != nil {
				t.Fatal(err)
			}
			ba, err := b.Shared(a.Public())
			if err != nil || !bytes.Equal(ab, ba) {
				t.Errorf("%x and %x (%v) are not a shared secret", ab, ba, err)
			}
			for _, bad := range [][]byte{nil, a.Public()[1:], append([]byte{0}, b.Public()...), make([]byte, tt.publicLen), bytes.Repeat([]byte{0xff}, tt.publicLen)} {
				// Curve25519 takes any point but those of low order.
				if tt.group == ike.GroupCurve25519 && len(bad) == tt.publicLen && bad[0] == 0xff {
					continue
				}
				if s, err := a.Shared(bad); err == nil {
					t.Errorf("public value %x gave the secret %x", bad, s)
				}
			}
		})
	}
	for _, group := range []uint16{0, 1, 3, 22, 25, 32, 65535} {
		if _, ok := PublicLen(group); ok {
			t.Errorf("group %d has a length", group)
		}
		if x, err := NewKeyExchange(group); err == nil || x != nil {
			t.Errorf("group %d: %v, %v", group, x, err)
		}
	}
}

func newKeyExchange(t testing.TB, group uint16) KeyExchange {
	t.Helper()
	x, err := NewKeyExchange(group)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// Values with which everybody knows the secret.
func TestMODPRefuses(t *testing.T) {
	x := newKeyExchange(t, ike.GroupMODP2048).(*modpExchange)
	for _, tt := range []struct {
		add int64 // to the prime, or from zero
		ok  bool
	}{{0, false}, {1, false}, {2, true}, {-3, true}, {-2, true}, {-1, false}} {
		y := big.NewInt(tt.add)
		if tt.add < 0 {
			y.Add(y, x.prime)
		}
		s, err := x.Shared(y.FillBytes(make([]byte, 256)))
		if (err == nil) != tt.ok {
			t.Errorf("public value %d: %v", tt.add, err)
		}
		if tt.ok && len(s) != 256 {
			t.Errorf("secret of %d bytes", len(s))
		}
	}
	for _, y := range []*big.Int{x.prime, new(big.Int).Add(x.prime, big.NewInt(2))} {
		if _, err := x.Shared(y.Bytes()); err == nil {
			t.Errorf("public value p+%v was accepted", new(big.Int).Sub(y, x.prime))
		}
	}
}

// The exponents 2 and 3 give a secret that needs many zeros in front.
func TestMODPPadding(t *testing.T) {
	x := &modpExchange{group: 14, prime: modpPrime(t, 14), secret: big.NewInt(3), public: make([]byte, 256)}
	s, err := x.Shared(big.NewInt(5).FillBytes(make([]byte, 256)))
	if err != nil {
		t.Fatal(err)
	}
	if want := big.NewInt(125).FillBytes(make([]byte, 256)); !bytes.Equal(s, want) {
		t.Errorf("got %x", s)
	}
}

func modpPrime(t *testing.T, group uint16) *big.Int {
	t.Helper()
	g, ok := modpGroupOf(group)
	if !ok {
		t.Fatalf("no group %d", group)
	}
	return g.prime()
}

// The primes, by what RFC 2409 section 6.2 and RFC 3526 say of them, by the
// ends that are printed there, and by pi.
func TestPrimes(t *testing.T) {
	for _, tt := range []struct {
		group uint16
		tail  string // what precedes the 64 ones at the end
	}{
		{2, "AE9F24117C4B1FE649286651ECE65381"},
		{5, "670C354E4ABC9804F1746C08CA237327"},
		{14, "15D2261898FA051015728E5A8AACAA68"},
		{15, "43DB5BFCE0FD108E4B82D120A93AD2CA"},
		{16, "86FFB7DC90A6C08F4DF435C934063199"},
		{17, "12BF2D5B0B7474D6E694F91E6DCC4024"},
		{18, "60C980DD98EDD3DF"},
	} {
		t.Run(fmt.Sprint(tt.group), func(t *testing.T) {
			t.Parallel()
			p := modpPrime(t, tt.group)
			n, _ := PublicLen(tt.group)
			const ones = "FFFFFFFFFFFFFFFF"
			s := fmt.Sprintf("%X", p)
			if len(s) != 2*n || !strings.HasPrefix(s, ones+"C90FDAA22168C234C4C6628B80DC1CD1") || !strings.HasSuffix(s, tt.tail+ones) {
				t.Fatalf("prime of %d digits, %s...%s", len(s), s[:48], s[len(s)-48:])
			}
			// With both, 2 generates a group of a prime order.
			q := new(big.Int).Rsh(p, 1)
			if !p.ProbablyPrime(0) || !q.ProbablyPrime(0) || big.Jacobi(big.NewInt(2), p) != 1 {
				t.Error("not a safe prime with 2 as a square")
			}
		})
	}
}

// pi = 16 arctan(1/5) - 4 arctan(1/239), with some digits to spare.
func TestPiDigits(t *testing.T) {
	const spare = 64
	unit := power(piBits + spare)
	pi := new(big.Int).Mul(arctan(5, unit), big.NewInt(16))
	pi.Sub(pi, new(big.Int).Mul(arctan(239, unit), big.NewInt(4)))
	if got := fmt.Sprintf("%X", pi.Rsh(pi, spare)); got != piDigits {
		t.Errorf("pi is %s", got)
	}
}

// arctan returns unit * arctan(1/x).
func arctan(x int64, unit *big.Int) *big.Int {
	sum, term := new(big.Int), new(big.Int).Div(unit, big.NewInt(x))
	for n := int64(1); term.Sign() != 0; n += 2 {
		part := new(big.Int).Div(term, big.NewInt(n))
		if n%4 == 3 {
			part.Neg(part)
		}
		sum.Add(sum, part)
		term.Div(term, big.NewInt(x*x))
	}
	return sum
}

// RFC 5903 section 8 and RFC 7748 section 6.1.
func TestCurveVectors(t *testing.T) {
	for _, tt := range []struct {
		group                        uint16
		secret, public, peer, shared string
	}{
		{
			19,
			"C88F01F510D9AC3F70A292DAA2316DE544E9AAB8AFE84049C62A9C57862D1433",
			"DAD0B65394221CF9B051E1FECA5787D098DFE637FC90B9EF945D0C37725811805271A0461CDB8252D61F1C456FA3E59AB1F45B33ACCF5F58389E0577B8990BB3",
			"D12DFB5289C8D4F81208B70270398C342296970A0BCCB74C736FC7554494BF6356FBF3CA366CC23E8157854C13C58D6AAC23F046ADA30F8353E74F33039872AB",
			"D6840F6B42F6EDAFD13116E0E12565202FEF8E9ECE7DCE03812464D04B9442DE",
		},
		{
			20,
			"099F3C7034D4A2C699884D73A375A67F7624EF7C6B3C0F160647B67414DCE655E35B538041E649EE3FAEF896783AB194",
			"667842D7D180AC2CDE6F74F37551F55755C7645C20EF73E31634FE72B4C55EE6DE3AC808ACB4BDB4C88732AEE95F41AA" +
				"9482ED1FC0EEB9CAFC4984625CCFC23F65032149E0E144ADA024181535A0F38EEB9FCFF3C2C947DAE69B4C634573A81C",
			"E558DBEF53EECDE3D3FCCFC1AEA08A89A987475D12FD950D83CFA41732BC509D0D1AC43A0336DEF96FDA41D0774A3571" +
				"DCFBEC7AACF3196472169E838430367F66EEBE3C6E70C416DD5F0C68759DD1FFF83FA40142209DFF5EAAD96DB9E6386C",
			"11187331C279962D93D604243FD592CB9D0A926F422E47187521287E7156C5C4D603135569B9E9D09CF5D4A270F59746",
		},
		{
			21,
			"0037ADE9319A89F4DABDB3EF411AACCCA5123C61ACAB57B5393DCE47608172A095AA85A30FE1C2952C6771D937BA9777F5957B2639BAB072462F68C27A57382D4A52",
			"",
			// The peer's public value follows from its secret.
			"secret 0145BA99A847AF43793FDD0E872E7CDFA16BE30FDC780F97BCCC3F078380201E9C677D600B343757A3BDBF2A3163E4C2F869CCA7458AA4A4EFFC311F5CB151685EB9",
			"01144C7D79AE6956BC8EDB8E7C787C4521CB086FA64407F97894E5E6B2D79B04D1427E73CA4BAA240A34786859810C06B3C715A3A8CC3151F2BEE417996D19F3DDEA",
		},
		{
			31,
			"77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
			"8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
			"de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
			"4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
		},
	} {
		t.Run(fmt.Sprint(tt.group), func(t *testing.T) {
			x := curveWith(t, tt.group, tt.secret)
			if tt.public != "" && !bytes.Equal(x.Public(), unhex(t, tt.public)) {
				t.Errorf("public value %X", x.Public())
			}
			var peer []byte
			if secret, ok := strings.CutPrefix(tt.peer, "secret "); ok {
				peer = curveWith(t, tt.group, secret).Public()
			} else {
				peer = unhex(t, tt.peer)
			}
			shared, err := x.Shared(peer)
			if err != nil || !bytes.Equal(shared, unhex(t, tt.shared)) {
				t.Errorf("shared secret %X, %v", shared, err)
			}
		})
	}
}

func curveWith(t *testing.T, group uint16, secret string) *curveExchange {
	t.Helper()
	c, ok := curveOf(group)
	if !ok {
		t.Fatalf("no group %d", group)
	}
	key, err := c.NewPrivateKey(unhex(t, secret))
	if err != nil {
		t.Fatal(err)
	}
	return &curveExchange{group, c, key}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func BenchmarkKeyExchange(b *testing.B) {
	for _, g := range groups {
		b.Run(fmt.Sprintf("generate/%d", g.group), func(b *testing.B) {
			for b.Loop() {
				newKeyExchange(b, g.group)
			}
		})
	}
	for _, g := range groups {
		b.Run(fmt.Sprintf("shared/%d", g.group), func(b *testing.B) {
			x, peer := newKeyExchange(b, g.group), newKeyExchange(b, g.group).Public()
			for b.Loop() {
				if _, err := x.Shared(peer); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
