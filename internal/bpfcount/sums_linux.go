package bpfcount

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/cilium/ebpf"

	"vpnprobe/internal/wire/esp"
)

// Total is all that was counted of one peer on one interface in one direction
// by one protocol, of flows that the kernel has forgotten too. Its numbers only
// grow while the peer stays.
type Total struct {
	Ifindex int
	// Key has no SPI, and only the address of the peer.
	Key            esp.Key
	Packets, Bytes uint64    // as in [esp.Sample]
	Last           time.Time // of those of its flows that are still there
	Forgotten      uint64    // flows that had to leave, or found no room
}

// sum is what a total is made of.
type sum struct {
	told    Total
	removed volume // of flows that had settled, and left

	// Of the present reading:
	settled volume // of the flows that are there
	present uint64 // flows
}

type volume struct{ packets, bytes uint64 }

// sumOf returns the sum that a flow belongs to.
func (t *table) sumOf(raw *rawKey) *sum { return t.sumAt(raw.sumOf()) }

func (t *table) sumAt(k sumKey) *sum {
	s := t.sums[k]
	if s == nil {
		s = &sum{}
		s.told.Ifindex, s.told.Key = k.parse()
		if t.sums == nil {
			t.sums = map[sumKey]*sum{}
		}
		t.sums[k] = s
	}
	return s
}

func (s *sum) remove(f *esp.Sample) {
	s.removed.packets += f.Packets
	s.removed.bytes += f.Bytes
}

// Totals returns the totals at the last call of Samples.
func (c *Counter) Totals() []Total {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]Total, 0, len(c.table.sums))
	for _, s := range c.table.sums {
		list = append(list, s.told)
	}
	return list
}

// rawSum is what the kernel adds up.
type rawSum [sumSize]byte

func (r *rawSum) at(offset int) uint64 { return binary.NativeEndian.Uint64(r[offset:]) }

// readSums returns the kernel's totals, and removes those of peers that are no
// more.
func (c *Counter) readSums() (map[sumKey]rawSum, error) {
	sums := map[sumKey]rawSum{}
	var key sumKey
	var cells []rawSum
	it := c.maps.sums.Iterate()
	for it.Next(&key, &cells) {
		var all rawSum
		for i := range cells {
			for at := 0; at < sumSize; at += 8 {
				binary.NativeEndian.PutUint64(all[at:], all.at(at)+cells[i].at(at))
			}
		}
		sums[key] = all
	}
	// Entries that come and go meanwhile are read next time.
	if err := it.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return nil, err
	}
	for key := range sums {
		if !c.isPeers(key) {
			delete(sums, key)
			if key != (sumKey{}) {
				_ = c.maps.sums.Delete(&key) // by nobody else
			}
		}
	}
	return sums, nil
}

// isPeers reports whether a total is a present peer's.
func (c *Counter) isPeers(k sumKey) bool {
	return c.peers[addrOf(k[sumAddr:sumProto], k[sumProto+keyFamily-keyProto])]
}

// sumUp makes the totals of what was read of the kernel's before the flows and
// after them. So a packet that is counted meanwhile may miss, and none is there
// twice: one that was in a fresh flow before is in one that has settled only if
// it is among those that moved after.
func (c *Counter) sumUp(before, after map[sumKey]rawSum) {
	t := &c.table
	for k, s := range t.sums {
		if !c.isPeers(k) {
			delete(t.sums, k)
		}
		s.settled, s.present = volume{}, 0
	}
	for i := range t.list {
		f := &t.list[i]
		k := f.raw.sumOf()
		if !c.isPeers(k) || f.key.Outgoing && f.key.Src == f.key.Dst {
			continue // passes through, or goes to ourselves
		}
		s := t.sumAt(k)
		s.present++
		if f.settled {
			s.settled.packets += f.sample.Packets
			s.settled.bytes += f.sample.Bytes
		}
		if f.sample.Last.After(s.told.Last) {
			s.told.Last = f.sample.Last
		}
	}
	for k := range before {
		t.sumAt(k)
	}
	for k, s := range t.sums {
		was, now := before[k], after[k]
		grow := func(to *uint64, plus, minus uint64) { *to = max(*to, plus-min(plus, minus)) }
		grow(&s.told.Packets, was.at(sumPackets)+s.settled.packets+s.removed.packets, now.at(sumMovedPackets))
		grow(&s.told.Bytes, was.at(sumBytes)+s.settled.bytes+s.removed.bytes, now.at(sumMovedBytes))
		grow(&s.told.Forgotten, was.at(sumCreated), s.present)
	}
}

// tally returns the sum of a tally over all CPUs.
func (c *Counter) tally(offset int) (uint64, error) {
	var values [][tallySize]byte
	if err := c.maps.tallies.Lookup(uint32(0), &values); err != nil {
		return 0, err
	}
	var sum uint64
	for i := range values {
		sum += binary.NativeEndian.Uint64(values[i][offset:])
	}
	return sum, nil
}
