package pmtu

import (
	"encoding/binary"
	"net/netip"
)

// fragments cuts a transport's message into IP fragments of at most limit
// bytes each, in order, as this host would: without the DF bit, all but the
// last a multiple of eight bytes long. src may be invalid for IPv4, where the
// kernel fills it in, as it does the checksum. It returns nil when a fragment
// could not hold anything.
func fragments(message []byte, protocol uint8, src, dst netip.Addr, id uint32, limit int) [][]byte {
	headers := headerLen4
	if dst.Is6() {
		headers = headerLen6 + fragmentLen6
	}
	step := (limit - headers) &^ 7
	if step <= 0 {
		return nil
	}
	var list [][]byte
	for at := 0; at < len(message); at += step {
		part := message[at:min(at+step, len(message))]
		more := at+len(part) < len(message)
		if dst.Is6() {
			list = append(list, fragment6(part, protocol, src, dst, id, at, more))
		} else {
			list = append(list, fragment4(part, protocol, src, dst, uint16(id), at, more))
		}
	}
	return list
}

const hops = 64 // IANA's recommended default TTL

// fragment4 builds one fragment (RFC 791 section 3.1).
func fragment4(part []byte, protocol uint8, src, dst netip.Addr, id uint16, at int, more bool) []byte {
	b := make([]byte, headerLen4, headerLen4+len(part))
	b[0] = 4<<4 | headerLen4/4
	binary.BigEndian.PutUint16(b[2:], uint16(headerLen4+len(part)))
	binary.BigEndian.PutUint16(b[4:], id)
	offset := uint16(at / 8)
	if more {
		offset |= 0x2000
	}
	binary.BigEndian.PutUint16(b[6:], offset)
	b[8], b[9] = hops, protocol
	if src.Is4() {
		copy(b[12:], src.AsSlice())
	}
	copy(b[16:], dst.AsSlice())
	return append(b, part...)
}

// fragment6 builds one fragment (RFC 8200 section 4.5).
func fragment6(part []byte, protocol uint8, src, dst netip.Addr, id uint32, at int, more bool) []byte {
	b := make([]byte, headerLen6+fragmentLen6, headerLen6+fragmentLen6+len(part))
	b[0] = 6 << 4
	binary.BigEndian.PutUint16(b[4:], uint16(fragmentLen6+len(part)))
	b[6], b[7] = protoFragment6, hops
	s, d := src.As16(), dst.As16()
	copy(b[8:], s[:])
	copy(b[24:], d[:])
	h := b[headerLen6:]
	h[0] = protocol
	offset := uint16(at) // its low three bits are free, as at is a multiple of 8
	if more {
		offset |= 1
	}
	binary.BigEndian.PutUint16(h[2:], offset)
	binary.BigEndian.PutUint32(h[4:], id)
	return append(b, part...)
}
