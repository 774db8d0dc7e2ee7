package capture

import (
	"encoding/binary"
	"time"
)

// twins recognizes a packet that is shown again. The loopback interface shows
// each packet as it leaves and as it comes back, a one-armed router as it comes
// and as it goes on, a bond once on itself and once on its member. A packet that
// is shown again the same way, on the same interface in the same direction, is
// no twin, so duplicates of the network's making and retransmissions still
// count.
//
// It is a small cache: a twin that follows after many other packets counts
// again.
type twins struct {
	slots [512]sight
}

// sight is a packet, and which ways it was shown.
type sight struct {
	key  uint64
	at   int64  // nanoseconds since 1970, of the first sight
	ways uint64 // a bit for each; 0 in an empty slot
}

// twinWithin is how long a packet may take to come by again.
const twinWithin = time.Second

// twin reports whether p was just shown another way.
func (s *twins) twin(p *packet, way uint8, now int64) bool {
	return s.shown(p.key(), way, now)
}

// shown is twin for the packet with a key.
func (s *twins) shown(key uint64, way uint8, now int64) bool {
	slot := &s.slots[key%uint64(len(s.slots))]
	bit := uint64(1) << (way % 64)
	age := now - slot.at // below 0 where two sources are not shown in order
	if slot.key == key && slot.ways != 0 && slot.ways&bit == 0 && age < int64(twinWithin) && age > -int64(twinWithin) {
		slot.ways |= bit
		return true
	}
	*slot = sight{key: key, at: now, ways: bit}
	return false
}

// key is a hash of what stays the same when a router forwards a packet: the
// addresses, the fragment, and the beginning of the payload, which has the
// sequence number of ESP and the checksum of UDP.
func (p *packet) key() uint64 {
	ident := uint64(p.ident)<<32 | uint64(p.offset)<<16 | uint64(p.proto)<<8
	payload := p.payload
	if p.proto == protoESP && !p.later() {
		// The rest of the frame is another line of the processor's cache.
		payload = payload[:min(espHeader, len(payload))]
	}
	return sightKey(tail(p.src), tail(p.dst), ident, p.length, payload)
}

func sightKey(src, dst, ident, length uint64, payload []byte) uint64 {
	h := mix(src, dst)
	h = mix(h, ident)
	h = mix(h, length)
	if len(payload) >= 8 {
		h = mix(h, binary.BigEndian.Uint64(payload))
	}
	if len(payload) >= 16 {
		h = mix(h, binary.BigEndian.Uint64(payload[8:]))
	}
	return h
}

// tail returns the last bytes of an address, those that differ.
func tail(addr []byte) uint64 {
	if len(addr) == 4 {
		return uint64(binary.BigEndian.Uint32(addr))
	}
	return binary.BigEndian.Uint64(addr[8:])
}

// mix is one step of a multiplicative hash; the constant is 2^64 over the
// golden ratio. The order of its arguments matters.
func mix(h, v uint64) uint64 {
	h = (h ^ v) * 0x9e3779b97f4a7c15
	return h ^ h>>29
}
