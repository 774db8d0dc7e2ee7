package ikecrypto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"vpnprobe/internal/wire/ike"
)

// suites are all kinds of protection, with the lengths in bytes of the IV, the
// block and the ICV.
var suites = []struct {
	keywords       string
	iv, block, icv int
}{
	{"3des-md5-prfmd5-modp1024", 8, 8, 12},
	{"3des-sha1-prfsha1-modp1024", 8, 8, 12},
	{"aes128-sha1-prfsha1-modp1024", 16, 16, 12},
	{"aes192-sha256-prfsha256-modp1536", 16, 16, 16},
	{"aes256-sha256-prfsha256-modp2048", 16, 16, 16},
	{"aes256-sha384-prfsha384-ecp384", 16, 16, 24},
	{"aes256-sha512-prfsha512-ecp521", 16, 16, 32},
	{"aes128gcm8-prfsha256-ecp256", 8, 1, 8},
	{"aes192gcm12-prfsha256-ecp256", 8, 1, 12},
	{"aes256gcm16-prfsha512-curve25519", 8, 1, 16},
	{"chacha20poly1305-prfsha256-curve25519", 8, 1, 16},
	{"chacha20poly1305compat-prfsha256-curve25519", 8, 1, 16},
}

func eachSuite(t *testing.T, test func(t *testing.T, k *Keys)) {
	for _, tt := range suites {
		t.Run(tt.keywords, func(t *testing.T) { test(t, testKeys(t, tt.keywords)) })
	}
}

var header = ike.Header{Exchange: ike.Auth, MessageID: 1}

func seal(t testing.TB, k *Keys, initiator bool, inner ...ike.Payload) []byte {
	t.Helper()
	m, err := k.Seal(initiator, header, inner)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func vendorID(n int) ike.Payload {
	return ike.Payload{Type: ike.PayloadVendorID, Body: bytes.Repeat([]byte{0xab}, n)}
}

// Every content, up to some blocks' length, makes the message that RFC 7296
// section 3.14 describes, and comes out of it again at the other end.
func TestSealOpen(t *testing.T) {
	for _, tt := range suites {
		t.Run(tt.keywords, func(t *testing.T) {
			a, b := testKeys(t, tt.keywords), testKeys(t, tt.keywords)
			for n := range 40 {
				initiator := n%2 == 0
				inner := []ike.Payload{ike.Notify{Type: ike.InitialContact}.Payload(), vendorID(n)}
				if n == 39 {
					inner = nil
				}
				m := seal(t, a, initiator, inner...)
				content := len(ike.AppendPayloads(nil, inner))
				padded := (content + 1 + tt.block - 1) / tt.block * tt.block
				if want := 28 + 4 + tt.iv + padded + tt.icv; len(m) != want {
					t.Errorf("content of %d bytes makes %d, want %d", content, len(m), want)
				}
				whole := bytes.Clone(m)
				got, err := b.Open(m)
				if err != nil {
					t.Fatal(err)
				}
				want := ike.Message{Header: header, Payloads: inner}
				want.SPIi, want.SPIr, want.Version, want.NextPayload, want.Length = testSPIi, testSPIr, ike.V2, ike.PayloadEncrypted, uint32(len(m))
				if initiator {
					want.Flags = ike.FlagInitiator
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
				if !bytes.Equal(m, whole) {
					t.Error("Open changed the message")
				}
			}
		})
	}
}

// A message with any bit changed, or with any number of bytes missing, is
// refused, and so is one turned back to its sender.
func TestOpenRefuses(t *testing.T) {
	eachSuite(t, func(t *testing.T, k *Keys) {
		m := seal(t, k, true, vendorID(21))
		if _, err := k.Open(m); err != nil {
			t.Fatal(err)
		}
		for i := range len(m) * 8 {
			bad := bytes.Clone(m)
			bad[i/8] ^= 1 << (i % 8)
			if msg, err := k.Open(bad); err == nil || len(msg.Payloads) > 0 {
				t.Errorf("with bit %d changed: %+v", i, msg)
			} else if i/8 >= ike.HeaderLen+genericHeaderLen && !errors.Is(err, ErrIntegrity) {
				t.Errorf("with bit %d changed: %v, want %v", i, err, ErrIntegrity)
			}
		}
		for n := range m {
			for _, bad := range [][]byte{m[:n], cut(m, n)} {
				if _, err := k.Open(bad); err == nil {
					t.Errorf("%d bytes were opened", n)
				}
			}
		}
	})
	a, b := testKeys(t, suites[3].keywords), newSuite(t, suites[3].keywords).Keys([]byte("other secret"), nil, nil, testSPIi, testSPIr)
	if _, err := b.Open(seal(t, a, true)); !errors.Is(err, ErrIntegrity) {
		t.Errorf("with other keys: %v", err)
	}
}

// cut returns the first n bytes of a sealed message with lengths that fit.
func cut(m []byte, n int) []byte {
	bad := bytes.Clone(m[:n])
	if n >= ike.HeaderLen {
		binary.BigEndian.PutUint32(bad[24:], uint32(n))
	}
	if n >= ike.HeaderLen+genericHeaderLen {
		binary.BigEndian.PutUint16(bad[30:], uint16(n-ike.HeaderLen))
	}
	return bad
}

func TestOpenOther(t *testing.T) {
	k := testKeys(t, suites[4].keywords)
	m := ike.Message{Header: ike.Header{SPIi: testSPIi, SPIr: testSPIr, Version: ike.V2, Exchange: ike.SAInit}}
	other, v1, sk := m, m, m
	other.SPIr = ike.SPI{}
	v1.Version, v1.Flags = ike.V1, ike.FlagEncryptedV1
	sk.Payloads = []ike.Payload{vendorID(1), {Type: ike.PayloadEncrypted}}
	skf := m
	skf.Payloads = []ike.Payload{{Type: ike.PayloadFragment, Body: make([]byte, 100)}}
	for name, tt := range map[string]struct {
		m    []byte
		want string
	}{
		"garbage":    {[]byte("garbage"), "open: shorter than an IKE header"},
		"in clear":   {m.Append(nil), "open: message without an encrypted payload"},
		"other SA":   {other.Append(nil), "open: message of another IKE SA"},
		"IKEv1":      {v1.Append(nil), "open: message of another IKE SA"},
		"empty":      {sk.Append(nil), "open: encrypted payload of impossible length"},
		"a fragment": {skf.Append(nil), "open: message without an encrypted payload"},
	} {
		if _, err := k.Open(tt.m); err == nil || err.Error() != tt.want {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
	}
}

// Authentic, and still not payloads.
func TestOpenMalformed(t *testing.T) {
	k := testKeys(t, suites[4].keywords)
	h := header
	h.NextPayload = ike.PayloadEncrypted
	m, err := k.seal(true, h, ike.PayloadVendorID, nil, []byte{0, 0, 0, 99})
	if err != nil {
		t.Fatal(err)
	}
	const want = "open: inside the encrypted payload: V payload: length 99 with 4 bytes left"
	if _, err := k.Open(m); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestPadding(t *testing.T) {
	for _, tt := range []struct {
		in, out string
		ok      bool
	}{
		{"content\x00", "content", true},
		{"content\xff\xff\x02", "content", true},
		{"content\x07", "", true},
		{"content\x08", "", false},
		{"\x00", "", true},
		{"\x01", "", false},
		{"", "", false},
	} {
		if out, err := cutPadding([]byte(tt.in)); string(out) != tt.out || (err == nil) != tt.ok {
			t.Errorf("%q: %q, %v", tt.in, out, err)
		}
	}
}

func TestSealTooLong(t *testing.T) {
	eachSuite(t, func(t *testing.T, k *Keys) {
		longest := 0
		for _, n := range []int{65000, 65400, 65450, 65490, 65498, 65535, 70000, 1 << 20} {
			m, err := k.Seal(true, header, []ike.Payload{vendorID(n)})
			if err != nil {
				continue
			}
			longest = n
			if got, err := k.Open(m); err != nil || len(got.Payloads[0].Body) != n {
				t.Errorf("%d bytes: %v", n, err)
			}
		}
		if longest < 65450 || longest > 65498 {
			t.Errorf("the longest that is sealed has %d bytes", longest)
		}
	})
}

// Several goroutines may use the same keys, and no IV comes twice.
func TestKeysConcurrent(t *testing.T) {
	eachSuite(t, func(t *testing.T, k *Keys) {
		var mu sync.Mutex
		seen := map[string]bool{}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 50 {
					m, err := k.Seal(true, header, nil)
					if err == nil {
						_, err = k.Open(m)
					}
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					iv := string(m[32:40])
					if seen[iv] {
						t.Errorf("IV %x again", iv)
					}
					seen[iv] = true
					mu.Unlock()
				}
			})
		}
		wg.Wait()
	})
	a, b := testKeys(t, suites[9].keywords), testKeys(t, suites[9].keywords)
	if bytes.Equal(seal(t, a, true)[32:40], seal(t, b, true)[32:40]) {
		t.Error("the same keys, derived twice, use the same IV")
	}
}

// What opens is what somebody sealed with the keys: one of the seeds.
func FuzzOpen(f *testing.F) {
	var keys []*Keys
	for n, tt := range suites {
		k := testKeys(f, tt.keywords)
		keys = append(keys, k)
		m := seal(f, k, n%2 == 0, vendorID(n))
		f.Add(m)
		f.Add(cut(m, len(m)-1))
		f.Add(fragment(f, k, 1, 1, vendorID(n)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, k := range keys {
			for _, open := range []func() (ike.Message, error){
				func() (ike.Message, error) { return k.Open(b) },
				func() (ike.Message, error) { return k.OpenFragments([][]byte{b, b}) },
			} {
				msg, err := open()
				if err == nil && (len(msg.Payloads) != 1 || !cmp.Equal(msg.Payloads[0], vendorID(len(msg.Payloads[0].Body)))) {
					t.Errorf("opened %+v", msg)
				}
			}
		}
	})
}

// A peer that knows the keys may encrypt anything.
func FuzzOpenContent(f *testing.F) {
	f.Add(uint8(43), []byte{0, 0, 0, 5, 1}, uint16(1), uint16(2))
	f.Add(uint8(0), []byte{}, uint16(1), uint16(1))
	var keys []*Keys
	for _, tt := range suites {
		keys = append(keys, testKeys(f, tt.keywords))
	}
	f.Fuzz(func(t *testing.T, inner uint8, content []byte, number, total uint16) {
		for _, k := range keys {
			h := header
			h.NextPayload = ike.PayloadEncrypted
			m, err := k.seal(false, h, ike.PayloadType(inner), nil, content)
			if err != nil {
				continue
			}
			if _, err := k.Open(m); errors.Is(err, ErrIntegrity) {
				t.Error(err)
			}
			h.NextPayload = ike.PayloadFragment
			part := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, number), total)
			if m, err = k.seal(false, h, ike.PayloadType(inner), part, content); err != nil {
				continue
			}
			if _, err := k.OpenFragments([][]byte{m}); errors.Is(err, ErrIntegrity) {
				t.Error(err)
			}
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	for _, tt := range suites {
		b.Run(tt.keywords, func(b *testing.B) {
			k, inner := testKeys(b, tt.keywords), []ike.Payload{vendorID(1000)}
			b.SetBytes(1000)
			for b.Loop() {
				if _, err := k.Seal(true, header, inner); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, tt := range suites {
		b.Run(tt.keywords, func(b *testing.B) {
			k := testKeys(b, tt.keywords)
			m := seal(b, k, true, vendorID(1000))
			b.SetBytes(1000)
			for b.Loop() {
				if _, err := k.Open(m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func ExampleKeys_String() {
	fmt.Println(&Keys{})
	// Output: ikecrypto.Keys
}
