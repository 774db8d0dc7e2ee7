package bpfcount

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"vpnprobe/internal/wire/esp"
)

type (
	rawKey  [keySize]byte
	rawKey4 [key4Size]byte
	rawCell [cellSize]byte
	sumKey  [sumKeySize]byte
)

// table is what a reading of the flows needs, and what it leaves to the next.
type table struct {
	cells   []rawCell // of one batch
	list    []flow
	fresh   map[rawKey]int // where in list
	noBatch bool           // the kernel cannot read many entries at once
	sums    map[sumKey]*sum
	drops   uint64
}

type flow struct {
	raw     rawKey
	settled bool // in a map of flows, not of fresh ones
	ifindex int
	key     esp.Key
	sample  esp.Sample
}

// Capacity returns how many flows there can be at most, those that had one
// packet yet included.
func (c *Counter) Capacity() int {
	return int(c.maps.flows4.MaxEntries() + c.maps.flows6.MaxEntries() + c.maps.fresh.MaxEntries())
}

// Samples yields the flows, each once, in no order. When the table is nearly
// full, those that were not used for the longest time leave it; it is to be
// called every few seconds, for until then there is no room for new ones. What
// the kernel counts while it reads may be missing.
func (c *Counter) Samples(yield func(ifindex int, k esp.Key, s esp.Sample) bool) error {
	list, err := c.read()
	if err != nil {
		return fmt.Errorf("read the kernel's flows: %w", err)
	}
	for i := range list {
		if f := &list[i]; !yield(f.ifindex, f.key, f.sample) {
			break
		}
	}
	return nil
}

func (c *Counter) read() ([]flow, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, os.ErrClosed
	}
	if err := c.readTicks(); err != nil {
		return nil, err
	}
	boot, err := bootTime()
	if err != nil {
		return nil, err
	}
	before, err := c.readSums()
	if err != nil {
		return nil, err
	}
	t := &c.table
	t.list, t.fresh = nil, map[rawKey]int{}
	var samples []esp.Sample
	settled := func(raw *rawKey, cells []rawCell) {
		samples = samples[:0]
		for i := range cells {
			if s := parseCell(cells[i][:], boot, &c.ticks); s.Bytes > 0 {
				samples = append(samples, s)
			}
		}
		if s := esp.Merge(samples); s.Bytes > 0 {
			if at, moved := t.fresh[*raw]; moved {
				t.list[at].settled, t.list[at].sample = true, s
				return
			}
			t.add(raw, true, s)
		}
	}
	// A flow that moves meanwhile is found in the second map, if not in both.
	if err := each(c, c.maps.fresh, 1, func(raw *rawKey, cells []rawCell) {
		t.fresh[*raw] = len(t.list)
		t.add(raw, false, parseCell(cells[0][:], boot, &c.ticks))
	}); err != nil {
		return nil, err
	}
	if err := each(c, c.maps.flows4, c.cpus, func(raw *rawKey4, cells []rawCell) {
		long := raw.long()
		settled(&long, cells)
	}); err != nil {
		return nil, err
	}
	if err := each(c, c.maps.flows6, c.cpus, settled); err != nil {
		return nil, err
	}
	after, err := c.readSums()
	if err != nil {
		return nil, err
	}
	c.prune()
	c.sumUp(before, after)
	list := t.list
	t.list, t.fresh = nil, nil
	return list, nil
}

func (t *table) add(raw *rawKey, settled bool, s esp.Sample) {
	if s.Bytes == 0 {
		return // being made
	}
	ifindex, key := parseKey(raw[:])
	t.list = append(t.list, flow{*raw, settled, ifindex, key, s})
}

// prune removes the flows of peers that are no more, and the least recently
// used ones of a table with little room.
func (c *Counter) prune() {
	t := &c.table
	settled := map[*ebpf.Map]int{}
	t.list = slices.DeleteFunc(t.list, func(f flow) bool {
		if c.peers[f.key.Src] || c.peers[f.key.Dst] {
			settled[c.settledIn(&f)]++
			return false
		}
		c.remove(&f)
		return true
	})
	for _, m := range []*ebpf.Map{c.maps.flows4, c.maps.flows6} {
		room := int(m.MaxEntries())
		excess := settled[m] - (room - room/4)
		if excess <= 0 {
			continue
		}
		slices.SortFunc(t.list, func(a, b flow) int { return a.sample.Last.Compare(b.sample.Last) })
		t.list = slices.DeleteFunc(t.list, func(f flow) bool {
			if excess <= 0 || c.settledIn(&f) != m || !c.remove(&f) {
				return false
			}
			excess--
			t.sumOf(&f.raw).remove(&f.sample)
			return true
		})
	}
}

// settledIn returns the map of flows that a flow is in, or nil.
func (c *Counter) settledIn(f *flow) *ebpf.Map {
	switch {
	case !f.settled:
		return nil
	case f.raw[keyFamily] == 4:
		return c.maps.flows4
	}
	return c.maps.flows6
}

// remove reports whether the flow is no longer in the kernel.
func (c *Counter) remove(f *flow) bool {
	switch m := c.settledIn(f); m {
	case nil:
		return c.maps.fresh.Delete(&f.raw) == nil
	case c.maps.flows4:
		short := f.raw.short()
		return m.Delete(&short) == nil
	default:
		return m.Delete(&f.raw) == nil
	}
}

// each calls f for the entries of a map, with the cells of all CPUs.
func each[K comparable](c *Counter, m *ebpf.Map, cpus int, f func(*K, []rawCell)) error {
	t := &c.table
	n := min(512, max(64, 1<<20/(c.cpus*cellSize))) // of a batch
	if t.cells == nil {
		t.cells = make([]rawCell, n*c.cpus)
	}
	if !t.noBatch {
		err := eachBatch(m, make([]K, n), t.cells[:n*cpus], cpus, f)
		if !errors.Is(err, ebpf.ErrNotSupported) {
			return err
		}
		t.noBatch = true
	}
	return eachOne(m, t.cells[:cpus], cpus, f)
}

func eachBatch[K any](m *ebpf.Map, keys []K, cells []rawCell, cpus int, f func(*K, []rawCell)) error {
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, cells, nil)
		if errors.Is(err, unix.ENOSPC) { // the kernel reads whole buckets of its hash table
			keys, cells = make([]K, 2*len(keys)), make([]rawCell, 2*len(cells))
			continue
		}
		last := errors.Is(err, ebpf.ErrKeyNotExist)
		if err != nil && !last {
			return err
		}
		for i := range n {
			f(&keys[i], cells[i*cpus:(i+1)*cpus])
		}
		if last {
			return nil
		}
	}
}

// eachOne reads entry by entry. Those that are removed meanwhile make the
// kernel begin anew, which the number of entries bounds.
func eachOne[K comparable](m *ebpf.Map, cells []rawCell, cpus int, f func(*K, []rawCell)) error {
	seen := map[K]bool{}
	var key K
	err := m.NextKey(nil, &key)
	for range 2 * m.MaxEntries() {
		if err != nil {
			break
		}
		if !seen[key] {
			seen[key] = true
			if m.Type() == ebpf.PerCPUHash {
				err = m.Lookup(&key, &cells)
			} else {
				err = m.Lookup(&key, &cells[0])
			}
			if err == nil {
				f(&key, cells)
			} else if !errors.Is(err, ebpf.ErrKeyNotExist) {
				return err
			}
		}
		err = m.NextKey(&key, &key)
	}
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}

// bootTime returns when CLOCK_MONOTONIC was zero, by the wall clock as it is
// set now. Two clocks are not read at once: of some attempts, the one counts
// that was interrupted for the least time.
func bootTime() (boot time.Time, err error) {
	const enough = 10 * time.Microsecond
	least := time.Duration(math.MaxInt64)
	for range 5 {
		var ts unix.Timespec
		begin := time.Now()
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
			return time.Time{}, os.NewSyscallError("clock_gettime", err)
		}
		if took := time.Since(begin); took < least {
			least = took
			boot = begin.Round(0).Add(took/2 - time.Duration(ts.Nano()))
		}
		if least < enough {
			break
		}
	}
	return boot, nil
}
