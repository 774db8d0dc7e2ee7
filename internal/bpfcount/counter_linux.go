package bpfcount

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// ErrUnsupported is wrapped by errors that tell that this kernel cannot: no
// BPF, no ring buffer (before Linux 5.8), neither tcx nor clsact, or no XDP in
// the device's driver.
var ErrUnsupported = errors.New("not supported by this kernel")

// Config says what to count. The zero value counts nothing.
type Config struct {
	// Peers are the remote gateways' addresses, 4096 at most. Only packets to
	// or from them are counted.
	Peers []netip.Addr
	// Leaks are the remote subnets, 16384 at most, those of IPv4 not in the form
	// of IPv6: a packet to them that leaves in clear, and not to a peer's address, is a leak.
	Leaks []netip.Prefix
	// FlowEntries bounds the flows kept (SPI, direction, addresses, interface) of
	// IPv4, and those of IPv6.
	// 0 is 4096, or less on a host of so many CPUs that they would need more
	// than 16 MiB. There is room for 2048 to 8192 more that had one packet yet.
	FlowEntries int
	// RingBytes is the size of the ring buffer, rounded up to a power of two of
	// pages. 0 is 1 MiB.
	RingBytes int
	// LeaksPerSecond bounds how many leaks per second and CPU are shown as
	// frames, which costs the reader about a microsecond each; more pass
	// unseen. 0 is 1024.
	LeaksPerSecond int
}

// Counter is the programs and maps. Its methods may be called at the same
// time; Read by one goroutine at a time.
type Counter struct {
	maps   *tables
	cpus   int  // possible ones: what a per-CPU map has values for
	loads  bool // the kernel has bpf_xdp_load_bytes
	direct bool // programs need no speculation barriers
	ticker *ebpf.Program
	reader *ringbuf.Reader
	limit  uint32
	noTCX  bool // for tests: do as a kernel without tcx does

	deadline deadline

	mu       sync.Mutex // guards what follows
	closed   bool
	programs map[variant]*ebpf.Program
	attached map[int]*attachment // by interface
	owner    *owner              // of clsact filters; nil before the first
	peers    map[netip.Addr]bool
	table    table
	ticks    ticks
}

// Open loads the programs and maps; nothing is counted before Attach. The error
// wraps os.ErrPermission or ErrUnsupported, or is a failure of another kind.
func Open(cfg Config) (*Counter, error) {
	c, err := open(cfg)
	if err != nil {
		return nil, fmt.Errorf("count in the kernel: %w", explain(err))
	}
	return c, nil
}

func open(cfg Config) (*Counter, error) {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, err
	}
	c := &Counter{
		cpus:     cpus,
		programs: map[variant]*ebpf.Program{},
		attached: map[int]*attachment{},
		limit:    uint32(max(cfg.LeaksPerSecond, 0)),
	}
	if c.limit == 0 {
		c.limit = 1024
	}
	if c.maps, err = newMaps(cfg, cpus); err != nil {
		return nil, err
	}
	c.direct = mayReadAnything()
	c.loads = features.HaveProgramHelper(ebpf.XDP, asm.FnXdpLoadBytes) == nil
	for _, out := range []bool{false, true} { // those for Ethernet, so that failures show now
		if _, err = c.program(variant{out: out, count: true, frames: true}); err != nil {
			break
		}
	}
	if err == nil {
		c.ticker, err = ebpf.NewProgram(ticker(c.maps))
	}
	if err == nil {
		c.reader, err = ringbuf.NewReader(c.maps.ring)
	}
	if err == nil {
		err = errors.Join(c.SetPeers(cfg.Peers), c.SetLeaks(cfg.Leaks))
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// program returns a program, loading it if it is the first use.
func (c *Counter) program(v variant) (*ebpf.Program, error) {
	if !v.fixed {
		v.loads, v.direct = c.loads, c.direct
	}
	if p := c.programs[v]; p != nil {
		return p, nil
	}
	spec := v.program(c.maps)
	p, err := ebpf.NewProgram(spec)
	if err != nil {
		return nil, fmt.Errorf("BPF program %s: %w", spec.Name, err)
	}
	c.programs[v] = p
	return p, nil
}

// mayReadAnything reports whether the kernel trusts our programs not to leak
// its memory by speculation.
func mayReadAnything() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	has := func(capability uint) bool { return data[capability/32].Effective&(1<<(capability%32)) != 0 }
	return has(unix.CAP_PERFMON) || has(unix.CAP_SYS_ADMIN)
}

// explain says of an error of BPF's what is to be done about it.
func explain(err error) error {
	var verifier *ebpf.VerifierError
	switch {
	case errors.As(err, &verifier) && errors.Is(err, unix.EACCES):
		// A program that does what it must not, unless it is trusted.
		return fmt.Errorf("%w: this kernel wants CAP_PERFMON too: sudo setcap cap_bpf,cap_perfmon,cap_net_admin,cap_net_raw+ep agent", err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: needs CAP_BPF and CAP_NET_ADMIN: sudo setcap cap_bpf,cap_net_admin,cap_net_raw+ep agent (before Linux 5.8: run as root)", err)
	case errors.Is(err, ErrUnsupported):
		return err
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	if features.HaveMapType(ebpf.RingBuf) != nil && !errors.Is(err, unix.ENOMEM) {
		return fmt.Errorf("%w: Linux 5.8 or newer is needed: %w", ErrUnsupported, err)
	}
	return err
}

// Close detaches from all interfaces, ends a Read and frees everything.
func (c *Counter) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	var errs []error
	for ifindex, a := range maps.Clone(c.attached) {
		errs = append(errs, a.detach())
		delete(c.attached, ifindex)
	}
	if c.owner != nil {
		c.owner.close()
	}
	if c.reader != nil {
		errs = append(errs, c.reader.Close())
	}
	if c.ticker != nil {
		c.ticker.Close()
	}
	for _, p := range c.programs {
		p.Close()
	}
	c.maps.close()
	return errors.Join(errs...)
}

// SetPeers replaces the peers. The counts of those that stay are kept.
func (c *Counter) SetPeers(peers []netip.Addr) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return os.ErrClosed
	}
	set := map[netip.Addr]bool{}
	var keys [][]byte
	for _, a := range peers {
		if a = a.Unmap().WithZone(""); a.IsValid() && !set[a] {
			set[a] = true
			keys = append(keys, appendPeer(nil, a))
		}
	}
	if len(keys) > maxPeers {
		return fmt.Errorf("count in the kernel: %d peer addresses, at most %d are possible", len(keys), maxPeers)
	}
	c.peers = set // before the map: Samples forgets what is not in the set
	if err := replace(c.maps.peers, keys); err != nil {
		return fmt.Errorf("count in the kernel: set the peers: %w", err)
	}
	return nil
}

// SetLeaks replaces the remote subnets.
func (c *Counter) SetLeaks(leaks []netip.Prefix) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return os.ErrClosed
	}
	var keys [][]byte
	for _, p := range leaks {
		if p.IsValid() {
			keys = append(keys, appendPrefix(nil, p))
		}
	}
	if len(keys) > maxLeaks {
		return fmt.Errorf("count in the kernel: %d remote subnets, at most %d are possible", len(keys), maxLeaks)
	}
	settings := make([]byte, setSize)
	if len(keys) > 0 {
		binary.NativeEndian.PutUint32(settings[setLeaks:], 1)
	}
	binary.NativeEndian.PutUint32(settings[setLimit:], c.limit)
	err := replace(c.maps.leaks, keys)
	if err == nil {
		err = c.maps.settings.Put(uint32(0), settings)
	}
	if err != nil {
		return fmt.Errorf("count in the kernel: set the remote subnets: %w", err)
	}
	return nil
}
