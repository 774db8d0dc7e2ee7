package capture

import (
	"encoding/binary"
	"time"
)

// twins recognizes the second sight of a packet that passes the interface
// both ways: the loopback interface shows each packet as it leaves and as it
// comes back, a one-armed router as it comes and as it goes on. Two packets
// with the same flag are never twins, so duplicates of the network's making and
// retransmissions still count.
//
// It is a small cache: a twin that follows after many other packets counts
// again.
type twins struct {
	slots [512]sight
}

// sight is a packet that was seen one way so far.
type sight struct {
	key      uint64
	at       int64 // nanoseconds since 1970; 0 in an empty slot
	outgoing bool
}

// twinWithin is how long a packet may take to come by again.
const twinWithin = time.Second

// twin reports whether p was just seen the other way.
func (s *twins) twin(p *packet, outgoing bool, t time.Time) bool {
	key := p.key()
	slot := &s.slots[key%uint64(len(s.slots))]
	now := t.UnixNano()
	if slot.at != 0 && slot.key == key && slot.outgoing != outgoing && now-slot.at < int64(twinWithin) {
		*slot = sight{} // a pair is complete: the next one may be alike
		return true
	}
	*slot = sight{key: key, at: now, outgoing: outgoing}
	return false
}

// key is a hash of what stays the same when a router forwards a packet: the
// addresses, the fragment, and the beginning of the payload, which has the
// sequence number of ESP and the checksum of UDP.
func (p *packet) key() uint64 {
	h := mix(tail(p.src), tail(p.dst))
	h = mix(h, uint64(p.ident)<<32|uint64(p.offset)<<16|uint64(p.proto)<<8)
	h = mix(h, p.length)
	if len(p.payload) >= 8 {
		h = mix(h, binary.BigEndian.Uint64(p.payload))
	}
	if len(p.payload) >= 16 {
		h = mix(h, binary.BigEndian.Uint64(p.payload[8:]))
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
