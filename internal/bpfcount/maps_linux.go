package bpfcount

import (
	"errors"
	"fmt"
	"math"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// tables are what the programs share with each other and with user space.
type tables struct {
	peers    *ebpf.Map // addresses of the remote gateways
	leaks    *ebpf.Map // remote subnets
	flows4   *ebpf.Map // cells of the flows of IPv4, per CPU
	flows6   *ebpf.Map // and those of IPv6
	fresh    *ebpf.Map // cells of the flows that had one packet so far
	sums     *ebpf.Map // totals of those
	settings *ebpf.Map
	tallies  *ebpf.Map
	scratch  *ebpf.Map // where a frame is put together
	ring     *ebpf.Map
}

// What the maps hold at most.
const (
	maxPeers = 4096
	maxLeaks = 16384
	maxSums  = 16384 // by peer, protocol, direction and interface
)

// flowMemory bounds the memory of the flows, which grows with the CPUs, in
// bytes.
const flowMemory = 16 << 20

// flowEntries returns the sizes of the tables of flows: of those of IPv4 and of
// IPv6, each, and of fresh ones. That has one cell per flow, but its CPUs set up
// to 128 entries aside each.
func flowEntries(asked, cpus int) (flows, fresh int) {
	if asked <= 0 {
		asked = min(4096, max(512, flowMemory/(2*cpus*cellSize)))
	}
	return asked, min(8192, max(2048, 256*cpus))
}

func newMaps(cfg Config, cpus int) (*tables, error) {
	flows, fresh := flowEntries(cfg.FlowEntries, cpus)
	var m tables
	for _, s := range []struct {
		into *(*ebpf.Map)
		spec ebpf.MapSpec
	}{
		{&m.peers, ebpf.MapSpec{Name: "vpnprobe_peers", Type: ebpf.Hash, KeySize: peerSize, ValueSize: 1, MaxEntries: maxPeers}},
		{&m.leaks, ebpf.MapSpec{Name: "vpnprobe_leaks", Type: ebpf.LPMTrie, KeySize: prefixSize, ValueSize: 1, MaxEntries: maxLeaks, Flags: unix.BPF_F_NO_PREALLOC}},
		{&m.flows4, ebpf.MapSpec{Name: "vpnprobe_flows4", Type: ebpf.PerCPUHash, KeySize: key4Size, ValueSize: cellSize, MaxEntries: uint32(flows)}},
		{&m.flows6, ebpf.MapSpec{Name: "vpnprobe_flows6", Type: ebpf.PerCPUHash, KeySize: keySize, ValueSize: cellSize, MaxEntries: uint32(flows)}},
		{&m.fresh, ebpf.MapSpec{Name: "vpnprobe_fresh", Type: ebpf.LRUHash, KeySize: keySize, ValueSize: cellSize, MaxEntries: uint32(fresh)}},
		{&m.sums, ebpf.MapSpec{Name: "vpnprobe_sums", Type: ebpf.PerCPUHash, KeySize: sumKeySize, ValueSize: sumSize, MaxEntries: maxSums, Flags: unix.BPF_F_NO_PREALLOC}},
		{&m.settings, ebpf.MapSpec{Name: "vpnprobe_set", Type: ebpf.Array, KeySize: 4, ValueSize: setSize, MaxEntries: 1}},
		{&m.tallies, ebpf.MapSpec{Name: "vpnprobe_tally", Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: tallySize, MaxEntries: 1}},
		{&m.scratch, ebpf.MapSpec{Name: "vpnprobe_frame", Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: frameHeader + MaxFrame, MaxEntries: 1}},
		{&m.ring, ebpf.MapSpec{Name: "vpnprobe_ring", Type: ebpf.RingBuf, MaxEntries: ringBytes(cfg.RingBytes)}},
	} {
		var err error
		if *s.into, err = newMap(&s.spec); err != nil {
			m.close()
			return nil, fmt.Errorf("BPF map %s: %w", s.spec.Name, err)
		}
	}
	return &m, nil
}

// newMap makes a map. Kernels before 5.11 charge it to RLIMIT_MEMLOCK.
func newMap(spec *ebpf.MapSpec) (*ebpf.Map, error) {
	m, err := ebpf.NewMap(spec)
	if errors.Is(err, unix.EPERM) {
		limit := unix.Rlimit{Cur: math.MaxUint64, Max: math.MaxUint64} // RLIM_INFINITY
		if unix.Setrlimit(unix.RLIMIT_MEMLOCK, &limit) == nil {
			m, err = ebpf.NewMap(spec)
		}
	}
	return m, err
}

// ringBytes rounds the size of the ring buffer to what the kernel takes.
func ringBytes(asked int) uint32 {
	if asked <= 0 {
		asked = 1 << 20
	}
	n := uint32(unix.Getpagesize())
	for int64(n) < int64(asked) && n < 1<<28 {
		n *= 2
	}
	return n
}

func (m *tables) close() {
	for _, m := range []*ebpf.Map{m.peers, m.leaks, m.flows4, m.flows6, m.fresh, m.sums, m.settings, m.tallies, m.scratch, m.ring} {
		if m != nil {
			m.Close()
		}
	}
}

// replace makes the keys of a map those given. All that are to stay are in it
// at any time.
func replace(m *ebpf.Map, keys [][]byte) error {
	wanted := make(map[string]bool, len(keys))
	for _, k := range keys {
		wanted[string(k)] = true
	}
	var gone [][]byte
	var key, value []byte
	it := m.Iterate()
	for it.Next(&key, &value) {
		if !wanted[string(key)] {
			gone = append(gone, append([]byte(nil), key...))
		}
	}
	if err := it.Err(); err != nil {
		return err
	}
	remove := func() error {
		for _, k := range gone {
			if err := m.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return err
			}
		}
		return nil
	}
	if uint32(len(keys)+len(gone)) > m.MaxEntries() {
		if err := remove(); err != nil { // there is no room for both
			return err
		}
		gone = nil
	}
	for k := range wanted {
		if err := m.Put([]byte(k), []byte{1}); err != nil {
			return err
		}
	}
	return remove()
}
