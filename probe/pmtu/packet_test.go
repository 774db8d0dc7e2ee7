package pmtu

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"vpnprobe/evidence"
)

var (
	src4, dst4 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2")
	src6, dst6 = netip.MustParseAddr("2001:db8:a::1"), netip.MustParseAddr("2001:db8:b::2")
)

// errorAbout returns an ICMP error of the family, as raw sockets deliver it.
func errorAbout(v6 bool, typ, code uint8, mtu uint32, quoted []byte) []byte {
	h := make([]byte, icmpHeaderLen)
	h[0], h[1] = typ, code
	binary.BigEndian.PutUint32(h[4:], mtu)
	if v6 {
		return append(h, quoted...)
	}
	outer := fragment4(append(h, quoted...), protoICMP, dst4, src4, 1, 0, false)
	return outer
}

func TestParseError(t *testing.T) {
	message := bytes.Repeat([]byte{8, 0, 1, 2, 3, 4, 0, 9}, 200)
	whole4 := fragment4(message, protoICMP, src4, dst4, 7, 0, false)
	df4 := bytes.Clone(whole4)
	df4[6] = 0x40
	first4 := fragments(message, protoICMP, src4, dst4, 7, 1200)
	first6 := fragments(message, protoICMP6, src6, dst6, 7, 1280)
	small4 := fragment4(message[:64], protoICMP, src4, dst4, 7, 0, false)
	small4[6] = 0x40
	tests := []struct {
		name    string
		b       []byte
		v6, ok  bool
		mtu     int
		cleared evidence.Fact
	}{
		{"intact", errorAbout(false, 3, 4, 1400, df4[:28]), false, true, 1400, evidence.No},
		{"DF cleared", errorAbout(false, 11, 0, 0, whole4[:28]), false, true, 0, evidence.Yes},
		{"a fragment", errorAbout(false, 11, 1, 0, first4[0][:60]), false, true, 0, evidence.Yes},
		{"a later fragment", errorAbout(false, 11, 1, 0, first4[1][:60]), false, false, 0, evidence.Unknown},
		{"small", errorAbout(false, 11, 0, 0, small4), false, true, 0, evidence.Unknown},
		{"a fragment of IPv6", errorAbout(true, 3, 1, 0, first6[0]), true, true, 0, evidence.Yes},
		{"a later one", errorAbout(true, 3, 1, 0, first6[1]), true, false, 0, evidence.Unknown},
		{"too large for anything", errorAbout(true, 2, 0, 1<<32-1, append(first6[0][:0:0], first6[0]...)), true, true, 1 << 30, evidence.Yes},
		{"cut", errorAbout(false, 3, 4, 1400, df4[:19]), false, false, 0, evidence.Unknown},
		{"empty", nil, false, false, 0, evidence.Unknown},
	}
	for _, tt := range tests {
		_, _, mtu, q, ok := parseError(tt.b, tt.v6)
		if ok != tt.ok || ok && (mtu != tt.mtu || q.cleared() != tt.cleared) {
			t.Errorf("%s: got %v, MTU %d, cleared %v; want %v, %d, %v", tt.name, ok, mtu, q.cleared(), tt.ok, tt.mtu, tt.cleared)
		}
	}
}

// Fragments put together must be the message, and fit.
func TestFragmentsWhole(t *testing.T) {
	for size := 8; size < 4000; size += 37 {
		message := make([]byte, size)
		for i := range message {
			message[i] = byte(i * 7)
		}
		for _, limit := range []int{68, 576, 1280, 1400, 1437} {
			for _, v6 := range []bool{false, true} {
				src, dst, header := src4, dst4, headerLen4
				if v6 {
					src, dst, header = src6, dst6, headerLen6+fragmentLen6
				}
				var got []byte
				list := fragments(message, protoICMP, src, dst, 0x10001, limit)
				for i, f := range list {
					offset, more := 0, false
					if v6 {
						v := binary.BigEndian.Uint16(f[headerLen6+2:])
						offset, more = int(v&^7), v&1 != 0
					} else {
						v := binary.BigEndian.Uint16(f[6:])
						offset, more = int(v&0x1fff)*8, v&0x2000 != 0
					}
					if len(f) > limit || offset != len(got) || more != (i < len(list)-1) {
						t.Fatalf("%d bytes by %d: fragment %d of %d has %d bytes at %d, more %v", size, limit, i, len(list), len(f), offset, more)
					}
					got = append(got, f[header:]...)
				}
				if !bytes.Equal(got, message) {
					t.Fatalf("%d bytes by %d: put together to %d", size, limit, len(got))
				}
			}
		}
	}
	if fragments(make([]byte, 100), protoICMP, src4, dst4, 1, 27) != nil {
		t.Error("fragments that hold nothing")
	}
}

func FuzzParseError(f *testing.F) {
	message := bytes.Repeat([]byte{8, 0, 1, 2, 3, 4, 0, 9}, 200)
	for _, b := range fragments(message, protoICMP, src4, dst4, 7, 1200) {
		f.Add(errorAbout(false, 3, 4, 1400, b), false)
	}
	for _, b := range fragments(message, protoICMP6, src6, dst6, 7, 1280) {
		f.Add(errorAbout(true, 2, 0, 1400, b), true)
	}
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, b []byte, v6 bool) {
		_, _, mtu, q, ok := parseError(b, v6)
		if !ok {
			return
		}
		if mtu < 0 || q.length <= 0 || !q.dst.IsValid() || len(q.payload) > len(b) {
			t.Errorf("MTU %d, quote %+v", mtu, q)
		}
	})
}
