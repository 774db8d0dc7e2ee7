package capture

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"vpnprobe/evidence"
	"vpnprobe/internal/bpfcount"
	"vpnprobe/internal/rawconn"
)

// tap is the capture on one interface. Its Live's lock guards it.
type tap struct {
	iface  string
	cancel context.CancelFunc // ends its goroutine; nil while it has none

	mode   evidence.CaptureMode // off while there is neither ring nor hook
	why    evidence.CaptureWhy
	reason string
	opened time.Time // since when frames are looked at, but for the pauses

	ring   *rawconn.Ring
	link   LinkType // of ring
	drops  uint64   // of ring, since its reader last asked
	paused bool     // the ring is closed for now, to spare the host
	normal *State   // during the duty cycle, the state without it

	ifindex int    // of the device that hook is on
	hook    string // of the kernel's counting, "" without
	hidden  bool   // ESP offload hides what comes in from all but XDP
	noXDP   string // why XDP cannot be had
}

// open reports whether frames are looked at, or would be but for a pause.
func (t *tap) open() bool { return t.ring != nil || t.hook != "" || t.paused }

// add opens the capture on an interface, if it can be now.
func (l *Live) add(iface string) {
	t := &tap{iface: iface, mode: evidence.CaptureOff}
	l.taps[iface] = t
	_ = l.open(t) // a failure is told by Counts, and mended by Run
	if l.run != nil {
		l.start(t)
	}
}

// drop ends the capture on an interface. What it returns is to be called
// without the lock.
func (l *Live) drop(t *tap) (closing func()) {
	if t.cancel != nil {
		t.cancel()
	}
	closing = l.lose(t, os.ErrClosed)
	delete(l.taps, t.iface) // it had a last reading
	return closing
}

// open opens the best capture that there is, on whatever device has the
// interface's name now.
func (l *Live) open(t *tap) error {
	if l.isClosed() || !l.stopped.IsZero() {
		return os.ErrClosed
	}
	l.reckonAll(time.Now())
	err := l.openBest(t)
	if err != nil {
		t.mode, t.reason = evidence.CaptureOff, fmt.Sprintf("capture on %s: %v", t.iface, err)
		t.why = whyNot(err)
		return err
	}
	l.obs.Gap(t.iface) // what passed before was not looked at, or not by this
	t.opened = time.Now()
	return nil
}

func (l *Live) openBest(t *tap) error {
	dev, err := rawconn.LookUpDevice(t.iface)
	if err != nil {
		return err
	}
	if !dev.Up {
		return unix.ENETDOWN
	}
	t.why, t.reason = evidence.CaptureBest, ""
	if l.cfg.Mode != evidence.CaptureRing {
		err := l.attach(t, dev)
		if err == nil || l.cfg.Mode == evidence.CaptureBPF || passing(err) {
			return err
		}
		t.why = whyNot(err)
		t.reason = fmt.Sprintf("capture on %s: not counted in the kernel: %v", t.iface, err)
	} else {
		t.why = evidence.CaptureConfigured
	}
	return l.openRing(t, dev)
}

// passing reports whether an error goes away when the interface comes back.
func passing(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENETDOWN) || errors.Is(err, unix.ENXIO)
}

// whyNot is an error in one word.
func whyNot(err error) evidence.CaptureWhy {
	switch {
	case errors.Is(err, os.ErrPermission):
		return evidence.CaptureNoPermission
	case errors.Is(err, bpfcount.ErrUnsupported), errors.Is(err, unix.EAFNOSUPPORT):
		return evidence.CaptureNoKernel
	case passing(err):
		return evidence.CaptureNoInterface
	}
	return evidence.CaptureFailed
}

// lose gives up what an interface was captured with. The counts say so from
// then on. What it returns is to be called without the lock, for which a
// reader of the ring may be waiting.
func (l *Live) lose(t *tap, why error) (closing func()) {
	closing = func() {}
	l.countDrops()
	l.reckonAll(time.Now())
	if ring := t.ring; ring != nil {
		t.ring = nil
		closing = func() { ring.Close() }
	}
	t.mode, t.why = evidence.CaptureOff, whyNot(why)
	t.reason = fmt.Sprintf("capture on %s: %v", t.iface, why)
	if t.hook != "" {
		if err := l.detach(t); err != nil {
			t.reason += fmt.Sprintf("; the kernel's counting did not end in good order: %v", err)
		}
	}
	ring, idle := closing, l.closeIdle()
	closing = func() { ring(); idle() }
	t.paused, t.normal = false, nil
	return closing
}

// The pause between attempts to open an interface again doubles from the first
// to the last of these, where it is only a matter of the interface coming back.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 2 * time.Second
	otherPause = 10 * time.Second // after any other failure
)

// start begins to read from an interface, until ctx ends or the tap is dropped.
func (l *Live) start(t *tap) {
	ctx, cancel := context.WithCancel(l.run)
	t.cancel = cancel
	l.wg.Go(func() {
		defer cancel()
		l.tend(ctx, t)
	})
}

// tend reads from an interface, and opens it again when it was lost.
func (l *Live) tend(ctx context.Context, t *tap) {
	pause := firstPause
	for {
		l.mu.Lock()
		ring, hook := t.ring, t.hook
		l.mu.Unlock()
		var err error
		switch {
		case ring != nil:
			err = l.readRing(ctx, t, ring)
		case hook != "":
			err = l.watchDevice(ctx, t)
		}
		if ctx.Err() != nil {
			return // the ring stays open for a last reading
		}
		if err != nil {
			pause = firstPause
			l.mu.Lock()
			closing := func() {}
			if t.open() { // or it was lost already, and has its reason
				closing = l.lose(t, err)
			}
			l.mu.Unlock()
			closing()
		}
		if !pauseFor(ctx, pause) {
			return
		}
		l.mu.Lock()
		if l.taps[t.iface] == t && !t.open() && ctx.Err() == nil {
			err = l.open(t)
		}
		l.mu.Unlock()
		if pause = min(2*pause, lastPause); err != nil && !passing(err) {
			pause = otherPause
		}
	}
}

// pauseFor waits, and reports whether ctx let it.
func pauseFor(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// refilter gives every ring the filter of the peers, and the kernel's counter
// their addresses. An interface where that fails is opened anew by Run.
func (l *Live) refilter() (closing []func()) {
	if l.kernel != nil {
		if err := l.setKernelPeers(); err != nil {
			for _, t := range l.taps {
				if t.hook != "" {
					closing = append(closing, l.lose(t, err))
				}
			}
		}
	}
	for _, t := range l.taps {
		if t.ring == nil || t.paused { // one that is about to be closed is not opened again
			continue
		}
		prog, err := l.obs.filter(t.link)
		if err == nil {
			err = t.ring.SetFilter(prog)
		}
		if err != nil {
			closing = append(closing, l.lose(t, err))
		}
	}
	return closing
}

// countDrops attributes the frames that found no room to the peers that were
// captured with what had none: of which of them they were is not known.
func (l *Live) countDrops() {
	for _, t := range l.taps {
		if t.ring == nil {
			continue
		}
		// The kernel counts from zero again after each reading.
		if n, err := t.ring.Drops(); err == nil && n > 0 {
			t.drops += n
			l.addDrops(n, func(other *tap) bool { return other == t })
		}
	}
	if l.kernel != nil {
		n := l.kernel.Drops()
		if more := n - min(l.drops, n); more > 0 {
			l.addDrops(more, func(t *tap) bool { return t.hook != "" })
		}
		l.drops = n
	}
}

func (l *Live) addDrops(n uint64, affected func(*tap) bool) {
	for _, w := range l.peers {
		for _, iface := range w.peer.Interfaces {
			if t := l.taps[iface]; t != nil && affected(t) {
				w.dropped += n
				break
			}
		}
	}
}
