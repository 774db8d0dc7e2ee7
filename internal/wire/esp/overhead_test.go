package esp_test

import (
	"math/rand/v2"
	"testing"

	"vpnprobe/internal/wire/esp"
)

// forms are the eight forms of the packets that carry ESP.
func forms() []esp.Outer {
	var out []esp.Outer
	for i := range 8 {
		out = append(out, esp.Outer{V6: i&1 != 0, NATT: i&2 != 0, Transport: i&4 != 0})
	}
	return out
}

// suites are one of every shape that packets have, by IV, block and ICV.
func suites(t *testing.T) []esp.Suite {
	t.Helper()
	var out []esp.Suite
	for _, p := range []string{
		"null-md5", "null-sha256", "des-md5", "3des-md5", "3des-sha1", "3des-sha512", "cast128-sha256_96",
		"aes128-sha1", "aes128-sha1_160", "aes192-sha256", "aes256-sha256_96", "aes256-sha384", "aes256-sha512",
		"aes256-md5", "aes128-aesxcbc", "aes128-aescmac", "camellia256-sha384", "sm4-sm3", "aes256",
		"aes128ctr-sha1", "aes256ctr-sha512", "camellia128ctr-sha256",
		"aes128gcm8", "aes128gcm12", "aes256gcm16", "aes128ccm8", "aes128ccm12", "aes256ccm16", "camellia128ccm8",
		"aes128gmac", "chacha20poly1305", "aes256gcm16iiv", "aes128ccm16iiv", "chacha20poly1305iiv",
	} {
		s, err := esp.ParseSuite(p)
		if err != nil {
			t.Fatalf("ParseSuite(%q): %v", p, err)
		}
		out = append(out, s)
	}
	return out
}

func TestInnerOfKnownSuites(t *testing.T) {
	v4, v6 := esp.Outer{}, esp.Outer{V6: true}
	v4udp, v6udp := esp.Outer{NATT: true}, esp.Outer{V6: true, NATT: true}
	for _, tt := range []struct {
		proposal string
		mtu      int
		inner    map[esp.Outer]int
	}{
		{"aes128gcm16", 1500, map[esp.Outer]int{v4: 1446, v4udp: 1438, v6: 1426, v6udp: 1418}},
		{"chacha20poly1305", 1500, map[esp.Outer]int{v4: 1446, v4udp: 1438, v6: 1426, v6udp: 1418}},
		{"aes256-sha1", 1500, map[esp.Outer]int{v4: 1438, v4udp: 1422, v6: 1422, v6udp: 1406}},
		{"aes256-sha256", 1500, map[esp.Outer]int{v4: 1438, v4udp: 1422, v6: 1406, v6udp: 1406}},
		{"aes256-sha384", 1500, map[esp.Outer]int{v4: 1422, v4udp: 1422, v6: 1406, v6udp: 1390}},
		{"aes256-sha512", 1500, map[esp.Outer]int{v4: 1422, v4udp: 1406, v6: 1390, v6udp: 1390}},
		{"3des-sha1", 1500, map[esp.Outer]int{v4: 1446, v4udp: 1438, v6: 1430, v6udp: 1422}},
		// Google's gateways have an MTU of 1460, and publish these.
		{"aes128gcm16", 1460, map[esp.Outer]int{v4: 1406, v6: 1386}},
		// 1500 - 20 - 8 - 0 - 12 = 1460, less the trailer.
		{"null-md5", 1500, map[esp.Outer]int{v4: 1458}},
		// 1500 - 20 - 8 - 8 - 12 = 1452 is a multiple of 4, but no block is padded.
		{"aes128ctr-sha1", 1500, map[esp.Outer]int{v4: 1450}},
		{"aes128gcm8", 1500, map[esp.Outer]int{v4: 1454}},
		{"aes128gcm12", 1500, map[esp.Outer]int{v4: 1450}},
		{"aes256gcm16iiv", 1500, map[esp.Outer]int{v4: 1454}},
		// In transport mode the IP header stays in clear: 1500 - 20 - 8 - 16 - 16 =
		// 1440, less the trailer, with the header.
		{"aes256-sha256", 1500, map[esp.Outer]int{{Transport: true}: 1458}},
	} {
		s, err := esp.ParseSuite(tt.proposal)
		if err != nil {
			t.Fatal(err)
		}
		for o, want := range tt.inner {
			if got := s.Inner(tt.mtu, o).Inner; got != want {
				t.Errorf("%s in %d bytes, %+v: inner MTU %d, want %d", s.Name, tt.mtu, o, got, want)
			}
		}
	}
}

// encode builds a packet as RFC 4303 lays it out, byte by byte, around a packet
// in clear of size bytes, and returns its length.
func encode(s esp.Suite, size int, o esp.Outer) int {
	b := make([]byte, 0, 1<<14)
	grow := func(n int) { b = b[:len(b)+n] }
	ip := 20
	if o.V6 {
		ip = 40
	}
	grow(ip)
	if o.NATT {
		grow(2 + 2 + 2 + 2) // ports, length, checksum
	}
	grow(4) // SPI
	grow(4) // sequence number
	grow(s.IV)
	begin := len(b)
	if o.Transport {
		grow(size - ip)
	} else {
		grow(size)
	}
	for (len(b)-begin+2)%s.Block != 0 || (len(b)-begin+2)%4 != 0 {
		grow(1) // padding
	}
	grow(1) // pad length
	grow(1) // next header
	grow(s.ICV)
	return len(b)
}

func TestInnerIsTheLargestThatFits(t *testing.T) {
	for _, s := range suites(t) {
		for _, o := range forms() {
			least := 0 // the smallest packet in clear
			if o.Transport {
				least = 20
				if o.V6 {
					least = 40
				}
			}
			for _, mtu := range []int{60, 68, 96, 128, 576, 1280, 1281, 1399, 1400, 1438, 1460, 1472, 1480, 1491, 1492, 1499, 1500, 1501, 8999, 9000} {
				sum := s.Inner(mtu, o)
				if sum.Inner == 0 {
					if n := encode(s, least, o); n <= mtu {
						t.Errorf("%s %+v: nothing fits into %d, but %d bytes need %d", s.Name, o, mtu, least, n)
					}
					continue
				}
				if n := encode(s, sum.Inner, o); n > mtu || n != s.Outer(sum.Inner, o) {
					t.Errorf("%s %+v: %d bytes need %d, Outer says %d, of %d", s.Name, o, sum.Inner, n, s.Outer(sum.Inner, o), mtu)
				}
				if n := encode(s, sum.Inner+1, o); n <= mtu || n != s.Outer(sum.Inner+1, o) {
					t.Errorf("%s %+v: %d bytes more than Inner need %d, Outer says %d, of %d", s.Name, o, sum.Inner+1, n, s.Outer(sum.Inner+1, o), mtu)
				}
			}
			for range 10 {
				if size := least + rand.IntN(1600); encode(s, size, o) != s.Outer(size, o) {
					t.Errorf("%s %+v: Outer(%d) = %d, want %d", s.Name, o, size, s.Outer(size, o), encode(s, size, o))
				}
			}
		}
	}
}

// linuxMTU computes as net/ipv4/esp4.c (esp_init_state), net/ipv6/esp6.c and
// net/xfrm/xfrm_state.c (xfrm_state_mtu) do.
func linuxMTU(s esp.Suite, mtu int, o esp.Outer) int {
	ip, headerLen, adjust := 20, 8+s.IV, 0
	if o.V6 {
		ip = 40
	}
	if o.Transport {
		adjust = ip
	} else {
		headerLen += ip
	}
	if o.NATT {
		headerLen += 8
	}
	blockSize := (s.Block + 3) &^ 3
	return (mtu-headerLen-s.ICV-adjust)&^(blockSize-1) + adjust - 2
}

func TestInnerIsWhatLinuxComputes(t *testing.T) {
	for _, s := range suites(t) {
		for _, o := range forms() {
			for mtu := 1280; mtu <= 1540; mtu++ {
				if got, want := s.Inner(mtu, o).Inner, linuxMTU(s, mtu, o); got != want {
					t.Fatalf("%s %+v: Inner(%d) = %d, Linux has %d", s.Name, o, mtu, got, want)
				}
			}
		}
	}
}

func TestTermsAddUp(t *testing.T) {
	for _, s := range suites(t) {
		for _, o := range forms() {
			for mtu := range 200 {
				mtu *= 9
				sum := s.Inner(mtu, o)
				if sum.MTU != mtu || sum.Align < 4 || sum.Align%s.Block != 0 {
					t.Fatalf("%s %+v: %+v", s.Name, o, sum)
				}
				if sum.Inner == 0 {
					if sum.MSS4 != 0 || sum.MSS6 != 0 {
						t.Fatalf("%s %+v: an MSS where nothing fits: %+v", s.Name, o, sum)
					}
					continue
				}
				clear := sum.Inner
				if o.Transport {
					clear -= sum.OuterIP
				}
				rest := mtu - (sum.OuterIP + sum.UDP + sum.Header + sum.IV + clear + sum.Trailer + sum.ICV)
				if rest < 0 || rest >= sum.Align {
					t.Fatalf("%s %+v: %d bytes are left of %+v", s.Name, o, rest, sum)
				}
				mss4, mss6 := max(sum.Inner-40, 0), max(sum.Inner-60, 0)
				if o.Transport && o.V6 {
					mss4 = 0
				} else if o.Transport {
					mss6 = 0
				}
				if sum.MSS4 != mss4 || sum.MSS6 != mss6 {
					t.Fatalf("%s %+v: MSS %d, %d, want %d, %d", s.Name, o, sum.MSS4, sum.MSS6, mss4, mss6)
				}
			}
		}
	}
}

func TestNothingFits(t *testing.T) {
	s, err := esp.ParseSuite("aes256-sha256")
	if err != nil {
		t.Fatal(err)
	}
	// 20 + 8 + 16 + 16 + 16: one block, which holds 14 bytes.
	for mtu, want := range map[int]int{-1500: 0, 0: 0, 59: 0, 75: 0, 76: 14} {
		if got := s.Inner(mtu, esp.Outer{}).Inner; got != want {
			t.Errorf("Inner(%d) = %d, want %d", mtu, got, want)
		}
	}
}
