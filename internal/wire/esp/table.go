package esp

import (
	"iter"
	"time"
)

const (
	// MaxFlows is how many flows a [Table] holds.
	MaxFlows = 2048
	// newcomers is how many SPIs may wait for their second packet at a time, in
	// rows by their hash: ways is how many that have the same row may.
	newcomers = 4096
	ways      = 4
	// hold is for how long one may wait undisturbed.
	hold = int64(500 * time.Millisecond)
	// settleAfter is longer than a packet can be delayed against others.
	settleAfter = int64(2 * time.Second)
)

// Table keeps the [Counts] of the flows that packets belong to, in 2 MiB at
// most, whatever the packets are: 620 bytes for each of [MaxFlows] flows, 56 for
// each of 4096 SPIs that wait, and an index. What flows need is allocated with
// their number, and nothing with that of the packets.
//
// Anyone can send packets with SPIs of their own making. So a new SPI waits in
// a table of its own, hashed, until a second packet has a number within 1024 of
// the first: then it becomes a flow, and both packets count. Until then it is
// none, and its packet is nowhere in [Table.Flows]: who needs the number of all
// packets counts them apart. Whoever waits for 500 ms makes room for the next
// SPI that needs its place; one that finds all of its places taken for less is
// not noted. Of the flows, those with fewer than 16 packets leave first, then those
// unused for the longest time; and of two peers those of the one with more.
//
// Times are those of the packets: a Table has no clock. It is not safe for
// concurrent use.
type Table struct {
	// Leave, if not nil, is told of a flow that had to leave, so that sums over
	// all flows do not shrink.
	Leave func(Key, Counts)

	flows     *store[flow]
	waiting   [][ways]newcomer
	forgotten uint64
	left      uint64 // flows that had to leave
	evict     func(int16)
}

// flow is one in the table.
type flow struct {
	Sequence
	settled int64 // when that was done last, nanoseconds of Unix time
}

// newcomer is an SPI that waits for its second packet. It is known by its hash
// alone: that two have the same 64 bits is out of the question.
type newcomer struct {
	hash      uint64
	bytes     uint64
	since     int64 // nanoseconds of Unix time
	packets   uint32
	seq       uint32 // of the last packet
	longest   uint32
	fragments [3]uint32
}

// NewTable returns an empty table.
func NewTable() *Table { return newTable(MaxFlows, newcomers) }

// newTable is NewTable of any size; slots is ways times a power of two.
func newTable(flows, slots int) *Table {
	t := &Table{flows: newStore[flow](flows), waiting: make([][ways]newcomer, slots/ways)}
	t.evict = func(slot int16) {
		t.left++
		t.forgotten++
		if t.Leave != nil {
			t.Leave(t.flows.keys[slot], t.flows.values[slot].c)
		}
	}
	return t
}

// Forgotten returns how many SPIs were forgotten: they had to leave, or found
// no room, or had no second packet when another needed the room. One that comes
// back counts again. It grows with forged SPIs as a rule.
func (t *Table) Forgotten() uint64 { return t.forgotten }

// Add counts an IP packet, or a fragment of one, of length bytes with number
// seq that was seen at a time. A middle or last fragment has neither a number
// nor an SPI: it counts with its key's SPI taken as 0.
func (t *Table) Add(key Key, seq uint32, length int, part Fragment, at time.Time) {
	if part.later() {
		key.SPI = 0
	}
	now := at.UnixNano()
	hash := t.flows.hash(&key)
	slot := t.flows.find(&key, hash)
	if slot < 0 {
		w := t.wait(&key, hash, seq, length, part, now)
		if w == nil {
			return
		}
		slot = t.flows.insert(&key, hash, now, t.evict)
		t.flows.values[slot].admit(&key, w, at, now)
		*w = newcomer{}
	}
	f := &t.flows.values[slot]
	f.add(&key, seq, length, part, at)
	t.flows.touch(slot, now, f.c.Packets)
}

// Place is where a flow is in a Table, until any flow has to leave.
type Place struct {
	left uint64
	slot int16
}

// Find returns the place of a flow of an SPI, which is not 0.
func (t *Table) Find(key Key) (p Place, ok bool) {
	slot := t.flows.find(&key, t.flows.hash(&key))
	return Place{t.left, slot}, slot >= 0 && key.SPI != 0
}

// AddAt is Add for a whole packet of a flow whose place is known. now is at in
// nanoseconds of Unix time. It reports whether the flow still has its place;
// otherwise nothing is counted.
func (t *Table) AddAt(p Place, seq uint32, length int, at time.Time, now int64) bool {
	if p.left != t.left {
		return false
	}
	f := &t.flows.values[p.slot]
	f.add(&t.flows.keys[p.slot], seq, length, Whole, at)
	t.flows.touch(p.slot, now, f.c.Packets)
	return true
}

// wait notes a packet of an SPI that is no flow, and returns what was noted
// before if this packet makes it one.
func (t *Table) wait(key *Key, hash uint64, seq uint32, length int, part Fragment, now int64) *newcomer {
	w, known := t.place(hash, now)
	switch {
	case w == nil:
		t.forgotten++
		return nil
	case known && (key.SPI == 0 || seq-w.seq+near <= 2*near):
		return w
	case !known:
		if w.packets > 0 {
			t.forgotten++
		}
		*w = newcomer{hash: hash, since: now}
	}
	w.seq = seq
	w.packets++
	w.bytes += uint64(length)
	w.longest = max(w.longest, uint32(length))
	if part != Whole {
		w.fragments[part-FirstFragment]++
	}
	return nil
}

// place returns where the SPI waits, or else may wait: a free place, or one
// whose SPI has waited for too long, or nil. A time before that of the other's
// packet tells nothing, so it is too long.
func (t *Table) place(hash uint64, now int64) (w *newcomer, known bool) {
	// The index uses the lowest bits: take others.
	row := &t.waiting[hash>>40&uint64(len(t.waiting)-1)]
	for i := range row {
		n := &row[i]
		if n.packets == 0 {
			w = n
			continue
		}
		if n.hash == hash {
			return n, true
		}
		if age := now - n.since; w == nil && (age < 0 || age >= hold) {
			w = n
		}
	}
	return w, false
}

// admit begins a flow with what was noted of it while it waited. All packets
// but the last one had numbers far from each other.
func (f *flow) admit(key *Key, w *newcomer, at time.Time, now int64) {
	f.c.Bytes, f.c.Longest = w.bytes, w.longest
	for i, n := range w.fragments {
		f.c.Fragments[i] = uint64(n)
	}
	f.c.First = at.Add(time.Duration(w.since - now))
	f.settled = now
	if key.SPI != 0 {
		f.c.Packets, f.c.Strays = uint64(w.packets)-1, uint64(w.packets)-1
		f.Sequence.Add(w.seq)
		return
	}
	later := w.fragments[MiddleFragment-FirstFragment] + w.fragments[LastFragment-FirstFragment]
	f.c.Packets = uint64(w.packets - later)
	f.c.Strays = f.c.Packets
}

// add counts a packet of the flow.
func (f *flow) add(key *Key, seq uint32, length int, part Fragment, at time.Time) {
	f.c.Bytes += uint64(length)
	f.c.Longest = max(f.c.Longest, uint32(length))
	f.c.Last = at
	if part != Whole {
		f.c.Fragments[part-FirstFragment]++
	}
	switch {
	case key.SPI != 0:
		f.Sequence.Add(seq)
	case !part.later(): // no SA has this SPI: there is no stream of numbers
		f.c.Packets++
		f.c.Strays++
	}
}

// Gap says that packets passed unseen: the numbers of every flow begin anew
// with its next packet.
func (t *Table) Gap() {
	for i := range t.flows.values {
		t.flows.values[i].Gap()
	}
}

// Flows returns a reading of all flows, in no order. at is the time by the
// packets' clock: runs of lost numbers that were there at a reading two seconds
// ago or earlier are settled. The table must not be used until the iteration has
// ended.
func (t *Table) Flows(at time.Time) iter.Seq2[Key, Counts] {
	return func(yield func(Key, Counts) bool) {
		now := at.UnixNano()
		for i := range t.flows.values {
			f := &t.flows.values[i]
			if now-f.settled >= settleAfter {
				f.Settle()
				f.settled = now
			}
			if !yield(t.flows.keys[i], f.c) {
				return
			}
		}
	}
}
