package hoststate

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vpnprobe/internal/wire/esp"
)

// algorithmAttribute is an attribute XFRMA_ALG_*, with a key of the length that
// it states.
func algorithmAttribute(kind uint16, name string, key, icv int) []byte {
	value := make([]byte, 64)
	copy(value, name)
	value = binary.NativeEndian.AppendUint32(value, uint32(key))
	if kind == attrAlgAEAD || kind == attrAlgAuthTrunc {
		value = binary.NativeEndian.AppendUint32(value, uint32(icv))
	}
	value = append(value, bytes.Repeat([]byte("K"), key/8)...)
	return appendAttribute(nil, kind, value)
}

func TestSuiteOfSA(t *testing.T) {
	crypt := algorithmAttribute(attrAlgCrypt, "cbc(aes)", 256, 0)
	auth := algorithmAttribute(attrAlgAuth, "hmac(sha256)", 256, 0)
	trunc := algorithmAttribute(attrAlgAuthTrunc, "hmac(sha256)", 256, 128)
	endless := algorithmAttribute(attrAlgCrypt, strings.Repeat("K", 64), 256, 0)
	long := algorithmAttribute(attrAlgCrypt, "cbc(aes)", 256, 0)
	binary.NativeEndian.PutUint32(long[4+64:], 1<<32-1)
	short := appendAttribute(nil, attrAlgAEAD, append([]byte("rfc4106(gcm(aes))"), make([]byte, 54)...))
	for _, tt := range []struct {
		name  string
		proto uint8
		attrs [][]byte
		want  string
	}{
		{"CBC", unix.IPPROTO_ESP, [][]byte{auth, trunc, crypt}, "aes256-sha256"},
		{"truncation first", unix.IPPROTO_ESP, [][]byte{trunc, auth, crypt}, "aes256-sha256"},
		{"of a kernel before 2.6.33", unix.IPPROTO_ESP, [][]byte{auth, crypt}, "aes256-sha256_96"},
		{"AEAD", unix.IPPROTO_ESP, [][]byte{algorithmAttribute(attrAlgAEAD, "rfc4106(gcm(aes))", 160, 128)}, "aes128gcm16"},
		{"ChaCha", unix.IPPROTO_ESP, [][]byte{algorithmAttribute(attrAlgAEAD, "rfc7539esp(chacha20,poly1305)", 288, 128)}, "chacha20poly1305"},
		{"no integrity", unix.IPPROTO_ESP, [][]byte{crypt}, "aes256"},
		{"AH", unix.IPPROTO_AH, [][]byte{trunc}, "sha256"},
		{"unknown cipher", unix.IPPROTO_ESP, [][]byte{trunc, algorithmAttribute(attrAlgCrypt, "cbc(new)", 256, 0)}, ""},
		{"unknown integrity", unix.IPPROTO_ESP, [][]byte{crypt, algorithmAttribute(attrAlgAuthTrunc, "hmac(new)", 256, 128)}, ""},
		{"name without an end", unix.IPPROTO_ESP, [][]byte{trunc, endless}, ""},
		{"absurd key length", unix.IPPROTO_ESP, [][]byte{trunc, long}, ""},
		{"cut short", unix.IPPROTO_ESP, [][]byte{short}, ""},
	} {
		b := stateFixture{proto: tt.proto}.bytes()
		for _, a := range tt.attrs {
			b = append(b, a...)
		}
		sa, ok := parseSA(b)
		if !ok || sa.Suite != tt.want {
			t.Errorf("%s: suite %q, accepted %t, want %q", tt.name, sa.Suite, ok, tt.want)
		}
		// A key is all K here, and a hidden one all zeros.
		if strings.Contains(fmt.Sprintf("%+v", sa), "KK") {
			t.Errorf("%s: the key is in %+v", tt.name, sa)
		}
		hidden, _ := parseSA(bytes.ReplaceAll(b, []byte("K"), []byte{0}))
		if tt.name != "name without an end" && hidden.Suite != tt.want {
			t.Errorf("%s: suite %q with a hidden key, want %q", tt.name, hidden.Suite, tt.want)
		}
	}
}

func FuzzReadAlgorithm(f *testing.F) {
	f.Add(uint16(attrAlgAEAD), algorithmAttribute(attrAlgAEAD, "rfc4106(gcm(aes))", 160, 128)[4:])
	f.Add(uint16(attrAlgCrypt), algorithmAttribute(attrAlgCrypt, "cbc(aes)", 256, 0)[4:])
	f.Add(uint16(attrAlgAuthTrunc), make([]byte, 71))
	f.Fuzz(func(t *testing.T, kind uint16, value []byte) {
		var a algorithms
		a.read(kind, value)
		for _, one := range []esp.Algorithm{a.aead, a.encryption, a.integrity} {
			if len(one.Name) >= algName || one.Key < 0 || one.ICV < 0 {
				t.Errorf("read %+v", one)
			}
		}
		a.suite("esp")
		a.suite("ah")
	})
}
