package capture

import (
	"context"
	"errors"
	"iter"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"vpnprobe/evidence"
	"vpnprobe/internal/bpfcount"
	"vpnprobe/internal/rawconn"
	"vpnprobe/internal/wire/esp"
)

// How often the kernel's counts are read: pollEvery at least, and for a
// reading of Counts, if what is known is older than freshFor.
const (
	pollEvery = time.Second
	freshFor  = 250 * time.Millisecond
)

// attach counts on a device within the kernel.
func (l *Live) attach(t *tap, dev rawconn.Device) error {
	kernel := l.kernel
	if kernel == nil {
		var err error
		if kernel, err = bpfcount.Open(bpfcount.Config{Peers: l.obs.addresses(), Leaks: l.remotes()}); err != nil {
			return err
		}
	}
	xdp := l.cfg.XDP == XDPAlways || l.cfg.XDP == XDPAuto && t.hidden && dev.Driver == "veth"
	hook, err := kernel.Attach(dev.Index, bpfcount.Options{XDP: xdp})
	t.noXDP = ""
	if err != nil && xdp && !passing(err) {
		t.noXDP = err.Error()
		hook, err = kernel.Attach(dev.Index, bpfcount.Options{})
	}
	if err != nil {
		if l.kernel == nil {
			err = errors.Join(err, kernel.Close())
		}
		return err
	}
	if l.kernel == nil {
		l.kernel, l.drops, l.counted = kernel, 0, map[string]int{}
		l.obs.room = kernel.Capacity()
		l.startKernel()
	}
	if l.counted[t.iface] != dev.Index {
		l.counted[t.iface] = dev.Index
		l.obs.anew(t.iface)
	}
	t.ifindex, t.hook, t.mode = dev.Index, hook, evidence.CaptureBPF
	return nil
}

// detach ends the kernel's counting on an interface, with a last reading. That
// the interface is gone is no error.
func (l *Live) detach(t *tap) error {
	err := errors.Join(l.kernel.Detach(t.ifindex), l.poll())
	t.hook = ""
	return err
}

// closeIdle gives the kernel's counter up if it has no hook any more. What it
// returns is to be called without the lock, for which its reader may be waiting.
func (l *Live) closeIdle() (closing func()) {
	for _, t := range l.taps {
		if t.hook != "" {
			return func() {}
		}
	}
	kernel := l.kernel
	l.kernel = nil
	return func() {
		if kernel != nil {
			kernel.Close() // nothing is attached; the rest ends with its descriptors
		}
	}
}

// remotes returns the remote subnets that leaks are looked for in.
func (l *Live) remotes() []netip.Prefix {
	var all []netip.Prefix
	for _, s := range slices.Concat(l.obs.remotes.four, l.obs.remotes.six) {
		all = append(all, s.prefix)
	}
	return all
}

func (l *Live) setKernelPeers() error {
	return errors.Join(l.kernel.SetPeers(l.obs.addresses()), l.kernel.SetLeaks(l.remotes()))
}

// watchDevice returns when the device that the kernel counts on went down or
// away: no packet tells of it.
func (l *Live) watchDevice(ctx context.Context, t *tap) error {
	for pauseFor(ctx, pollEvery/2) {
		l.mu.Lock()
		ifindex, hook := t.ifindex, t.hook
		l.mu.Unlock()
		dev, err := rawconn.LookUpDevice(t.iface)
		switch {
		case hook == "":
			return os.ErrClosed
		case err != nil:
			return err
		case dev.Index != ifindex:
			return unix.ENODEV
		case !dev.Up:
			return unix.ENETDOWN
		}
	}
	return ctx.Err()
}

// startKernel reads the frames that the kernel picks out, and its counts now
// and then, until Run ends or the counter is closed.
func (l *Live) startKernel() {
	kernel, ctx := l.kernel, l.run
	if kernel == nil || ctx == nil {
		return
	}
	stop := context.AfterFunc(ctx, func() { kernel.SetReadDeadline(time.Unix(1, 0)) })
	l.wg.Go(func() {
		defer stop()
		for ctx.Err() == nil {
			if err := kernel.Read(l.showPicked); err != nil {
				return // ctx ended, or the counter was closed
			}
		}
	})
	l.wg.Go(func() {
		for pauseFor(ctx, pollEvery) {
			l.mu.Lock()
			closed, closing := l.kernel != kernel, func() {}
			if !closed {
				closing = l.pollOrLose()
			}
			l.mu.Unlock()
			if closing(); closed {
				return
			}
		}
	})
}

// maxLeaks is how many leaks may wait for the kernel's counts to be read.
const maxLeaks = 4096

// showPicked counts a frame that the kernel picked out. That a leak is one is
// only known once the peer was sent something by the same interface, which the
// next reading of the kernel's counts tells: leaks wait for it.
func (l *Live) showPicked(picked bpfcount.Frame) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range l.taps {
		if t.hook == "" || t.ifindex != picked.Ifindex {
			continue
		}
		f := Frame{
			Data: picked.Data, Link: LinkRaw, Interface: t.iface, Outgoing: picked.Outgoing, WireLen: picked.WireLen, Time: picked.Time,
		}
		if picked.Leak && len(l.leaks) < maxLeaks {
			f.Data = slices.Clone(f.Data)
			l.leaks = append(l.leaks, f)
		} else {
			l.show(f)
		}
		return
	}
}

// showLeaks counts the leaks that waited.
func (l *Live) showLeaks() {
	for _, f := range l.leaks {
		l.show(f)
	}
	l.leaks = nil
}

// pollOrLose reads the kernel's counts. If that fails, what was counted with
// them is lost. What it returns is to be called without the lock.
func (l *Live) pollOrLose() (closing func()) {
	var all []func()
	if err := l.poll(); err != nil {
		for _, t := range l.taps {
			if t.hook != "" {
				all = append(all, l.lose(t, err))
			}
		}
	}
	return func() {
		for _, f := range all {
			f()
		}
	}
}

// poll reads the kernel's counts.
func (l *Live) poll() error {
	defer l.showLeaks()
	if l.kernel == nil {
		return nil
	}
	type flow struct {
		key    esp.Key
		sample esp.Sample
	}
	flows := map[int][]flow{}
	if err := l.kernel.Samples(func(ifindex int, k esp.Key, s esp.Sample) bool {
		flows[ifindex] = append(flows[ifindex], flow{k, s})
		return true
	}); err != nil {
		return err
	}
	totals := map[int][]kernelTotal{}
	for _, t := range l.kernel.Totals() {
		totals[t.Ifindex] = append(totals[t.Ifindex], kernelTotal{t.Key, volume{t.Packets, t.Bytes}, t.Last, t.Forgotten})
	}
	l.polled = time.Now()
	for _, t := range l.taps {
		if t.hook == "" {
			continue
		}
		list := flows[t.ifindex]
		l.obs.totals(t.iface, totals[t.ifindex])
		l.obs.Samples(t.iface, l.polled, iter.Seq2[esp.Key, esp.Sample](func(yield func(esp.Key, esp.Sample) bool) {
			for _, f := range list {
				if !yield(f.key, f.sample) {
					return
				}
			}
		}))
	}
	return nil
}

func (l *Live) pollIfOld() (closing func()) {
	if l.kernel != nil && l.stopped.IsZero() && time.Since(l.polled) >= l.fresh {
		return l.pollOrLose()
	}
	return func() {}
}

// Uncover says whether ESP offload hides what comes in on an interface from all
// but XDP. It turns to XDP there, if it is needed and may be had, and reports
// whether the capture sees all the same, and if not, why.
func (l *Live) Uncover(iface string, hidden evidence.Fact) (sees bool, why string) {
	closing := func() {}
	defer func() { closing() }()
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.taps[iface]
	if t == nil || hidden == evidence.No {
		return false, ""
	}
	t.hidden = true
	if t.hook == "" {
		return false, "only XDP sees it, for which counting in the kernel has to be possible"
	}
	if !xdp(t.hook) && t.noXDP == "" && l.cfg.XDP != XDPNever {
		closing = l.turn(t)
	}
	switch {
	case xdp(t.hook):
		return true, ""
	case l.cfg.XDP == XDPNever:
		return false, "only XDP sees it, which capture.xdp forbids"
	}
	return false, "only XDP sees it: " + t.noXDP
}

// turn attaches anew, with XDP.
func (l *Live) turn(t *tap) (closing func()) {
	dev, err := rawconn.LookUpDevice(t.iface)
	if err == nil && l.cfg.XDP == XDPAuto && dev.Driver != "veth" {
		t.noXDP = "attaching it may reset the link of " + t.iface + ": capture.xdp: always attaches it all the same; or turn GRO off, at a price in CPU time: ethtool -K " + t.iface + " gro off"
		return func() {}
	}
	if err == nil {
		if err = l.detach(t); err == nil { // else it might count twice
			l.reckonAll(time.Now())
			err = l.attach(t, dev)
		}
		l.obs.Gap(t.iface)
		t.opened = time.Now()
	}
	if err != nil {
		return l.lose(t, err) // Run opens it again
	}
	return func() {}
}

func xdp(hook string) bool { return strings.HasPrefix(hook, "xdp") }
