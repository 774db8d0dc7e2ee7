package esp

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"time"
)

const (
	// established is how many packets make a flow that is protected against
	// being pushed out by flows with fewer.
	established = 16
	// protected is for how long that holds after its last packet. It is longer
	// than the windows that a tunnel is judged by.
	protected = int64(3 * time.Minute)
	// candidates is among how many of the longest unused flows the one that
	// has to leave is chosen.
	candidates = 32
	// fine is how long a flow may stay where it is in the list though it is
	// used: moving it with every packet would cost a fifth of the time.
	fine = int64(time.Millisecond)
)

// store holds the values of at most limit flows. A flow that finds it full
// pushes out one of those that are not established, or else the longest unused.
// Among the candidates, one of the pair of addresses with the most flows
// leaves, so that forged flows from one peer's address do not push out those of
// another, whatever it takes to seem established.
type store[V any] struct {
	limit  int
	seed   [2]uint64
	index  []uint32 // open addressing: the upper bits of the hash, and slot+1 in the lower 16
	nodes  []node
	keys   []Key
	values []V
	lists  [2]list     // young, established
	shares [256]uint16 // flows by pair of addresses, hashed
}

// node is what the search and the lists need of a flow, apart from the rest so
// that it stays in the processor's cache.
type node struct {
	hash       uint64
	used       int64 // when it was put there for its last use, nanoseconds of Unix time
	next, prev int16 // in the list: towards the longest unused, the most recent
	pair       uint8
	class      uint8
}

// list is a list of nodes by last use; an empty one has -1 twice.
type list struct{ newest, oldest int16 }

// maxFlows is what the 16 bits of a slot allow.
const maxFlows = 1<<15 - 1

func newStore[V any](limit int) *store[V] {
	limit = min(max(limit, 1), maxFlows)
	return &store[V]{
		limit: limit,
		// At most a quarter full, so that searches are short.
		index: make([]uint32, 1<<bits.Len(uint(4*limit-1))),
		seed:  [2]uint64{rand.Uint64(), rand.Uint64()},
		lists: [2]list{{-1, -1}, {-1, -1}},
	}
}

// pairHash returns the hash of the key's pair of addresses. It is seeded: keys
// that fall together cannot be made from outside.
func (s *store[V]) pairHash(k *Key) uint64 {
	src, dst := k.Src.As16(), k.Dst.As16()
	h := mix(binary.LittleEndian.Uint64(src[:])^s.seed[0], binary.LittleEndian.Uint64(src[8:])^s.seed[1])
	return mix(binary.LittleEndian.Uint64(dst[:])^h, binary.LittleEndian.Uint64(dst[8:])^s.seed[0])
}

// hash returns the hash of all of the key.
func (s *store[V]) hash(k *Key) uint64 {
	rest := uint64(k.SPI) | uint64(k.Protocol)<<32
	if k.Encap {
		rest |= 1 << 40
	}
	if k.Outgoing {
		rest |= 1 << 41
	}
	// One multiplication keeps the pattern of SPIs that are close to each other.
	return mix(mix(s.pairHash(k)^rest, s.seed[1])^s.seed[0], 0x9e3779b97f4a7c15)
}

// mix multiplies to 128 bits and folds them.
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

// entry returns what the index holds of a slot.
func entry(hash uint64, slot int16) uint32 { return uint32(hash>>32)&^0xffff | uint32(slot+1) }

// find returns the slot of a key, or -1.
func (s *store[V]) find(k *Key, hash uint64) int16 {
	mask := uint64(len(s.index) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		e := s.index[i]
		if e == 0 {
			return -1
		}
		if slot := int16(e&0xffff) - 1; e == entry(hash, slot) && s.keys[slot] == *k {
			return slot
		}
	}
}

// insert makes room for a key that is not there and returns its slot, with the
// zero value in it. Before a flow has to leave, leave is called.
func (s *store[V]) insert(k *Key, hash uint64, now int64, leave func(slot int16)) int16 {
	var slot int16
	if len(s.nodes) < s.limit {
		slot = int16(len(s.nodes))
		s.nodes = append(s.nodes, node{})
		s.keys = append(s.keys, Key{})
		s.values = append(s.values, *new(V))
	} else {
		slot = s.victim(now)
		leave(slot)
		s.unlink(slot)
		s.unindex(slot)
		s.shares[s.nodes[slot].pair]--
	}
	pair := uint8(s.pairHash(k))
	s.keys[slot], s.values[slot] = *k, *new(V)
	s.nodes[slot] = node{hash: hash, pair: pair, used: now}
	s.shares[pair]++
	s.link(slot)
	mask := uint64(len(s.index) - 1)
	i := hash & mask
	for s.index[i] != 0 {
		i = (i + 1) & mask
	}
	s.index[i] = entry(hash, slot)
	return slot
}

// touch notes that a flow was used, and by how many packets so far.
func (s *store[V]) touch(slot int16, now int64, packets uint64) {
	n := &s.nodes[slot]
	grown := n.class == 0 && packets >= established
	if age := now - n.used; !grown && age >= 0 && age < fine {
		return
	}
	n.used = now
	s.unlink(slot)
	if grown {
		n.class = 1
	}
	s.link(slot)
}

// victim returns the flow that has to leave for a new one.
func (s *store[V]) victim(now int64) int16 {
	young, old := s.lists[0].oldest, s.lists[1].oldest
	switch {
	case young < 0:
		return s.crowded(old)
	case old < 0:
		return s.crowded(young)
	}
	if used := s.nodes[old].used; now-used > protected && used < s.nodes[young].used {
		return old
	}
	young = s.crowded(young)
	if quarter := s.limit / 4; s.share(young) <= quarter {
		if old = s.crowded(old); s.share(old) > quarter {
			return old
		}
	}
	return young
}

// crowded returns which of the longest unused flows of a list, from its oldest
// on, has the pair of addresses with the most flows.
func (s *store[V]) crowded(oldest int16) int16 {
	best := oldest
	for slot, n := oldest, 0; slot >= 0 && n < candidates; slot, n = s.nodes[slot].prev, n+1 {
		if s.share(slot) > s.share(best) {
			best = slot
		}
	}
	return best
}

// share returns how many flows have the same pair of addresses.
func (s *store[V]) share(slot int16) int { return int(s.shares[s.nodes[slot].pair]) }

// unlink takes a flow out of its list.
func (s *store[V]) unlink(slot int16) {
	n := &s.nodes[slot]
	l := &s.lists[n.class]
	if n.prev < 0 {
		l.newest = n.next
	} else {
		s.nodes[n.prev].next = n.next
	}
	if n.next < 0 {
		l.oldest = n.prev
	} else {
		s.nodes[n.next].prev = n.prev
	}
}

// link puts a flow in its list as the most recently used.
func (s *store[V]) link(slot int16) {
	n := &s.nodes[slot]
	l := &s.lists[n.class]
	n.prev, n.next = -1, l.newest
	if l.newest < 0 {
		l.oldest = slot
	} else {
		s.nodes[l.newest].prev = slot
	}
	l.newest = slot
}

// unindex removes a flow from the index, and moves up the entries behind it
// that would no longer be found.
func (s *store[V]) unindex(slot int16) {
	mask := uint64(len(s.index) - 1)
	hole := s.nodes[slot].hash & mask
	for int16(s.index[hole]&0xffff)-1 != slot {
		hole = (hole + 1) & mask
	}
	for i := (hole + 1) & mask; s.index[i] != 0; i = (i + 1) & mask {
		home := s.nodes[int16(s.index[i]&0xffff)-1].hash & mask
		if (i-home)&mask >= (i-hole)&mask {
			s.index[hole] = s.index[i]
			hole = i
		}
	}
	s.index[hole] = 0
}
