package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// scene is what a method is measured at.
type scene struct {
	name     string
	rate     float64 // packets per second; 0: as fast as it goes
	way      way
	duration time.Duration
	// inside has the kernel measure the eBPF programs, which makes them slower.
	inside bool
}

// way is how packets pass the gateway.
type way int

const (
	dropped way = iota // in by wan, dropped by IP
	inward             // in by wan, out by lan
	outward            // in by lan, out by wan
)

// result is one measurement.
type result struct {
	sent    sent
	arrived uint64 // behind the gateway, or on wan where it drops
	counted counted
	cpu     time.Duration // of the process that captures
	others  float64       // of all cores, by processes of others
	inside  float64       // of one run of the eBPF program, in ns, if that was measured
}

// starved reports whether the sender had less than half of its core: others
// were allowed to go first.
func (r result) starved(s scene) bool { return s.rate == 0 && r.sent.cpu < r.sent.wall/2 }

// missed is how many packets the method did not see.
func (r result) missed() uint64 {
	return r.sent.packets - min(r.counted.Packets, r.sent.packets)
}

func (r result) rate() float64 { return float64(r.sent.packets) / r.sent.wall.Seconds() }

// perPacket is the CPU time of the process per packet that it saw, in ns.
func (r result) perPacket() float64 { return float64(r.cpu) / float64(max(r.counted.Packets, 1)) }

// core is the CPU time of the generator's core per packet, in ns.
func (r result) core() float64 { return float64(r.sent.cpu) / float64(max(r.sent.packets, 1)) }

// wrong says what a method of ours counted that was not so.
func (r result) wrong(m method) error {
	c, s := r.counted, r.sent
	switch {
	case r.arrived != s.packets:
		return fmt.Errorf("%d of %d packets arrived where they were sent to", r.arrived, s.packets)
	case m == nothing:
		return nil
	case c.Packets > s.packets:
		return fmt.Errorf("saw %d of %d packets", c.Packets, s.packets)
	case m == byDump:
		return nil // it tells no more
	case r.missed() == 0 && c.Lost != s.gaps:
		return fmt.Errorf("saw every packet, and %d missing numbers of %d", c.Lost, s.gaps)
	case m.ours() && c.Duplicates != 0:
		return fmt.Errorf("saw %d duplicates", c.Duplicates)
	case m.ours() && r.missed() > 0 && c.Drops == 0:
		return fmt.Errorf("missed %d packets without a word", r.missed())
	}
	return nil
}

// bench measures.
type bench struct {
	net              *network
	generators       [3]*generator // by way
	sender, capturer int           // cores
	patience         time.Duration // to wait for a quiet machine, per measurement
	profiles         string        // directory
	log              func(format string, args ...any)
	ran              int
}

func newBench() (b *bench, err error) {
	b = &bench{log: func(string, ...any) {}}
	if b.sender, b.capturer, err = cores(); err != nil {
		return nil, err
	}
	if b.net, err = newNetwork(); err != nil {
		return nil, err
	}
	n := b.net
	for w, r := range []route{
		dropped: {n.isp, n.ispIndex, wanMAC, peerAddr, holeAddr},
		inward:  {n.isp, n.ispIndex, wanMAC, peerAddr, insideAddr},
		outward: {n.site, n.siteIndex, lanMAC, insideAddr, peerAddr},
	} {
		if b.generators[w], err = newGenerator(r); err != nil {
			b.close()
			return nil, err
		}
	}
	return b, nil
}

func (b *bench) close() {
	for _, g := range b.generators {
		if g != nil {
			g.close()
		}
	}
	b.net.close()
}

// cores returns two that this process may run on.
func cores() (sender, capturer int, err error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return 0, 0, os.NewSyscallError("sched_getaffinity", err)
	}
	if set.Count() < 2 {
		return 0, 0, errors.New("two cores are needed: one that sends and forwards, one that captures")
	}
	var found []int
	for core := 0; len(found) < 2; core++ {
		if set.IsSet(core) {
			found = append(found, core)
		}
	}
	return found[0], found[1], nil
}

// arrivals returns how many packets arrived where those of a way are to arrive.
func (b *bench) arrivals(w way) (uint64, error) {
	switch w {
	case inward:
		return b.net.site.received("out")
	case outward:
		return b.net.isp.received("out")
	}
	return b.net.gateway.received("wan")
}

// measure has a method capture while packets pass.
func (b *bench) measure(ctx context.Context, m method, s scene) (r result, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s, %s: %w", s.name, m, err)
		}
	}()
	b.waitForQuiet(ctx)
	var t *tap
	if m != nothing {
		b.ran++
		profile := ""
		if b.profiles != "" {
			profile = filepath.Join(b.profiles, fmt.Sprintf("%03d-%s-%s.pprof", b.ran, m, strings.ReplaceAll(s.name, " ", "-")))
		}
		if t, err = startTap(ctx, b.net, m, b.capturer, profile); err != nil {
			return r, err
		}
		defer func() {
			if t != nil {
				t.kill()
				t.wait()
			}
		}()
	}
	if s.inside {
		stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
		if err != nil {
			return r, err
		}
		defer stats.Close()
	}
	before, err := b.arrivals(s.way)
	if err != nil {
		return r, err
	}
	machine, began := busy(), time.Now()
	if t != nil {
		r.cpu = -t.cpu()
	}
	r.sent, err = b.generators[s.way].send(ctx, b.sender, s.rate, s.duration, math.MaxUint64)
	if err != nil {
		return r, err
	}
	if t != nil {
		pause(ctx, m.settle())
		r.cpu += t.cpu()
	}
	used := busy() - machine - r.sent.cpu - r.cpu
	r.others = max(0, used.Seconds()/time.Since(began).Seconds()/float64(machineCores()))
	after, err := b.arrivals(s.way)
	if err != nil {
		return r, err
	}
	r.arrived = after - before
	if s.inside {
		if r.inside, err = b.inside(s.way); err != nil {
			return r, err
		}
	}
	if t != nil {
		r.counted, err = t.stop()
		t = nil
		if err != nil {
			return r, err
		}
	}
	b.log("%-16s %-8s %7.0f kpps, sender %5.0f ns, capturer %6.1f ns, missed %d, others %.0f %%",
		s.name, m, r.rate()/1000, r.core(), r.perPacket(), r.missedBy(m), 100*r.others)
	return r, nil
}

// inside returns how long a run of the eBPF program took that packets of a way
// pass on wan.
func (b *bench) inside(w way) (ns float64, err error) {
	hook := ebpf.AttachTCXIngress
	if w == outward {
		hook = ebpf.AttachTCXEgress
	}
	var runs, took float64
	err = b.net.gateway.do(func() error {
		dev, err := net.InterfaceByName("wan")
		if err != nil {
			return err
		}
		list, err := link.QueryPrograms(link.QueryOptions{Target: dev.Index, Attach: hook})
		if err != nil {
			return err
		}
		for _, attached := range list.Programs {
			p, err := ebpf.NewProgramFromID(attached.ID)
			if err != nil {
				return err
			}
			stats, err := p.Stats()
			p.Close()
			if err != nil {
				return err
			}
			runs += float64(stats.RunCount)
			took += float64(stats.Runtime)
		}
		return nil
	})
	return took / max(runs, 1), err
}

func (r result) missedBy(m method) uint64 {
	if m == nothing {
		return 0
	}
	return r.missed()
}

// pause waits, and reports whether ctx let it.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
