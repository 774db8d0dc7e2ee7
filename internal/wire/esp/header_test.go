package esp

import "testing"

func TestParse(t *testing.T) {
	type result struct {
		spi, seq uint32
		ok       bool
	}
	for _, tc := range []struct {
		name    string
		in      string
		esp, ah result
	}{
		{"nothing", "", result{}, result{}},
		{"ESP, truncated", "\x00\x00\x01\x00\x00\x00\x00", result{}, result{}},
		{"ESP, header alone", "\xc0\xff\xee\x01\xff\xff\xff\xfe", result{0xc0ffee01, 1<<32 - 2, true}, result{}},
		{"not an SPI", "\x00\x00\x00\x00\x00\x00\x00\x05", result{0, 5, false}, result{}},
		{"AH", "\x04\x04\x00\x00\x00\x00\x10\x01\x00\x00\x00\x02", result{0x04040000, 0x1001, true}, result{0x1001, 2, true}},
		{"AH, truncated", "\x04\x04\x00\x00\x00\x00\x10\x01\x00\x00\x00", result{0x04040000, 0x1001, true}, result{}},
		{"AH, too short by its own length", "\x04\x00\x00\x00\x00\x00\x10\x01\x00\x00\x00\x02", result{0x04000000, 0x1001, true}, result{}},
		{"AH, not an SPI", "\x04\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02", result{0x04040000, 0, true}, result{0, 2, false}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var e, a result
			e.spi, e.seq, e.ok = ParseESP([]byte(tc.in))
			a.spi, a.seq, a.ok = ParseAH([]byte(tc.in))
			if e != tc.esp || a != tc.ah {
				t.Errorf("ESP %+v, want %+v; AH %+v, want %+v", e, tc.esp, a, tc.ah)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("\x04\x04\x00\x00\x00\x00\x10\x01\x00\x00\x00\x02"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if spi, _, ok := ParseESP(b); ok && (spi == 0 || len(b) < 8) {
			t.Errorf("ESP with SPI %d in %d bytes", spi, len(b))
		}
		if spi, _, ok := ParseAH(b); ok && (spi == 0 || len(b) < 12) {
			t.Errorf("AH with SPI %d in %d bytes", spi, len(b))
		}
	})
}
