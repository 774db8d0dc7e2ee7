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
	if l.kernel == nil {
		kernel, err := bpfcount.Open(bpfcount.Config{Peers: l.obs.addresses(), Leaks: l.remotes()})
		if err != nil {
			return err
		}
		l.kernel, l.drops = kernel, 0
		if l.run != nil {
			l.startKernel()
		}
	}
	xdp := l.cfg.XDP == XDPAlways || l.cfg.XDP == XDPAuto && t.hidden && dev.Driver == "veth"
	hook, err := l.kernel.Attach(dev.Index, bpfcount.Options{XDP: xdp})
	t.noXDP = ""
	if err != nil && xdp && !passing(err) {
		t.noXDP = err.Error()
		hook, err = l.kernel.Attach(dev.Index, bpfcount.Options{})
	}
	if err != nil {
		return err
	}
	t.ifindex, t.hook, t.mode = dev.Index, hook, evidence.CaptureBPF
	return nil
}

// detach ends the kernel's counting on an interface, with a last reading.
func (l *Live) detach(t *tap) {
	if l.kernel != nil {
		_ = l.kernel.Detach(t.ifindex) // it is gone with its device, or with the counter
		l.poll()
	}
	t.hook = ""
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
// and then, until Run ends.
func (l *Live) startKernel() {
	kernel, ctx := l.kernel, l.run
	if kernel == nil {
		return
	}
	kernel.SetReadDeadline(time.Time{})
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
			l.poll()
			l.mu.Unlock()
		}
	})
}

// showPicked counts a frame that the kernel picked out.
func (l *Live) showPicked(f bpfcount.Frame) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range l.taps {
		if t.hook != "" && t.ifindex == f.Ifindex {
			l.show(Frame{
				Data: f.Data, Link: LinkRaw, Interface: t.iface, Outgoing: f.Outgoing, WireLen: f.WireLen, Time: f.Time,
			})
			return
		}
	}
}

// poll reads the kernel's counts.
func (l *Live) poll() {
	if l.kernel == nil {
		return
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
		return // the next reading has it
	}
	l.polled = time.Now()
	for _, t := range l.taps {
		if t.hook == "" {
			continue
		}
		list := flows[t.ifindex]
		l.obs.Samples(t.iface, l.polled, iter.Seq2[esp.Key, esp.Sample](func(yield func(esp.Key, esp.Sample) bool) {
			for _, f := range list {
				if !yield(f.key, f.sample) {
					return
				}
			}
		}))
	}
}

func (l *Live) pollIfOld() {
	if l.kernel != nil && l.stopped.IsZero() && time.Since(l.polled) >= l.fresh {
		l.poll()
	}
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
		l.detach(t)
		l.reckonAll(time.Now())
		err = l.attach(t, dev)
		l.obs.Gap(t.iface)
		t.opened = time.Now()
	}
	if err != nil {
		return l.lose(t, err) // Run opens it again
	}
	return func() {}
}

func xdp(hook string) bool { return strings.HasPrefix(hook, "xdp") }
