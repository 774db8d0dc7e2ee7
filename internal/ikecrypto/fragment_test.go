package ikecrypto

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"vpnprobe/internal/wire/ike"
)

// fragment returns one fragment of a message from the responder.
func fragment(t testing.TB, k *Keys, number, total uint16, inner ...ike.Payload) []byte {
	t.Helper()
	return fragments(t, k, ike.AppendPayloads(nil, inner), total)[number-1]
}

// fragments cuts a chain of vendor IDs into fragments of about the same size.
func fragments(t testing.TB, k *Keys, content []byte, total uint16) [][]byte {
	t.Helper()
	h := header
	h.NextPayload, h.Flags = ike.PayloadFragment, ike.FlagResponse
	var list [][]byte
	for n := range total {
		inner := ike.NoNextPayload
		if n == 0 {
			inner = ike.PayloadVendorID
		}
		part := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, n+1), total)
		from, to := len(content)*int(n)/int(total), len(content)*int(n+1)/int(total)
		m, err := k.seal(false, h, inner, part, content[from:to])
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, m)
	}
	return list
}

func TestOpenFragments(t *testing.T) {
	want := []ike.Payload{vendorID(300), vendorID(1), vendorID(0)}
	content := ike.AppendPayloads(nil, want)
	eachSuite(t, func(t *testing.T, k *Keys) {
		for _, total := range []uint16{1, 2, 5, 300} {
			list := fragments(t, k, content, total)
			rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
			for n := range list {
				if _, err := k.OpenFragments(list[:n]); !errors.Is(err, ErrIncomplete) {
					t.Fatalf("%d of %d fragments: %v", n, total, err)
				}
			}
			list = append(list, list[0]) // a repetition
			msg, err := k.OpenFragments(list)
			if err != nil {
				t.Fatalf("%d fragments: %v", total, err)
			}
			if diff := cmp.Diff(want, msg.Payloads); diff != "" || msg.MessageID != 1 || msg.Flags != ike.FlagResponse {
				t.Errorf("%d fragments: %+v, -want +got:\n%s", total, msg.Header, diff)
			}
		}
	})
}

// What anybody can send does not keep a message from being opened.
func TestOpenFragmentsAmongOthers(t *testing.T) {
	k := testKeys(t, suites[4].keywords)
	other := newSuite(t, suites[4].keywords).Keys([]byte("other secret"), nil, nil, testSPIi, testSPIr)
	want := []ike.Payload{vendorID(300)}
	content := ike.AppendPayloads(nil, want)
	list := fragments(t, k, content, 3)
	forged := append(fragments(t, other, content, 7), nil, []byte("garbage"), seal(t, k, false, vendorID(1)))
	for i, f := range list {
		bad := append([]byte{}, f...)
		bad[len(bad)-1] ^= 1
		forged = append(forged, bad, cut(list[i], 40))
	}
	later := header
	later.MessageID, later.NextPayload = 2, ike.PayloadFragment
	m, err := k.seal(false, later, ike.PayloadVendorID, []byte{0, 1, 0, 9}, content)
	if err != nil {
		t.Fatal(err)
	}
	msg, err := k.OpenFragments(append(append(forged, list...), m))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, msg.Payloads); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if _, err := k.OpenFragments(forged); err == nil || errors.Is(err, ErrIncomplete) {
		t.Errorf("of forgeries: %v", err)
	}
	if _, err := k.OpenFragments(forged[:1]); !errors.Is(err, ErrIntegrity) {
		t.Errorf("of a forgery: %v", err)
	}
	if _, err := k.OpenFragments(nil); !errors.Is(err, ErrIncomplete) {
		t.Errorf("of nothing: %v", err)
	}
	// Cut anew: the smaller pieces count, in whichever order they come.
	smaller := fragments(t, k, content, 5)
	for _, mixed := range [][][]byte{append(list[:2:2], smaller...), append(smaller[:5:5], list...), append(append([][]byte{smaller[0]}, list...), smaller[1:]...)} {
		if msg, err := k.OpenFragments(mixed); err != nil || len(msg.Payloads) != 1 {
			t.Errorf("cut anew: %+v, %v", msg, err)
		}
	}
	if _, err := k.OpenFragments(append(list, smaller[1])); !errors.Is(err, ErrIncomplete) {
		t.Errorf("cut anew, one piece: %v", err)
	}
}

func TestOpenFragmentsImpossible(t *testing.T) {
	k := testKeys(t, suites[4].keywords)
	h := header
	h.NextPayload = ike.PayloadFragment
	for _, part := range [][]byte{{0, 0, 0, 1}, {0, 2, 0, 1}, {0, 0, 0, 0}} {
		m, err := k.seal(false, h, 0, part, nil)
		if err != nil {
			t.Fatal(err)
		}
		if msg, err := k.OpenFragments([][]byte{m}); err == nil {
			t.Errorf("fragment % x: %+v", part, msg)
		}
	}
}
