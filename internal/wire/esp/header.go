package esp

import "encoding/binary"

// ParseESP reads the header of an ESP packet (RFC 4303, section 2), which b
// begins with. It fails if b is too short, or the SPI is 0, which no packet on
// the wire has (section 2.1): in UDP it is the mark of an IKE message (RFC
// 3948, section 2.2).
func ParseESP(b []byte) (spi, seq uint32, ok bool) {
	if len(b) < 8 {
		return 0, 0, false
	}
	spi, seq = binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	return spi, seq, spi != 0
}

// ParseAH reads the header of an AH packet (RFC 4302, section 2), which b
// begins with. It fails if b is too short, the header by its own length has no
// room for a sequence number, or the SPI is 0 (section 2.4).
func ParseAH(b []byte) (spi, seq uint32, ok bool) {
	// The length field is in words of 4 bytes, less 2 (section 2.2).
	if len(b) < 12 || b[1] < 1 {
		return 0, 0, false
	}
	spi, seq = binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])
	return spi, seq, spi != 0
}
