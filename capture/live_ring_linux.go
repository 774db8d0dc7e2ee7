package capture

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"runtime"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"vpnprobe/evidence"
	"vpnprobe/internal/rawconn"
)

// openRing captures on a device with a packet ring.
func (l *Live) openRing(t *tap, dev rawconn.Device) error {
	link := LinkRaw
	if dev.Ethernet {
		link = LinkEthernet
	}
	prog, err := l.obs.filter(link)
	if err != nil {
		return err
	}
	ring, err := rawconn.OpenRing(dev, rawconn.RingOptions{Filter: prog})
	if err != nil {
		return err
	}
	t.ring, t.link, t.mode = ring, link, evidence.CaptureRing
	return nil
}

// readRing counts what the ring delivers until ctx ends or the ring fails. When
// it costs more than the host can afford, the ring is closed most of the time.
func (l *Live) readRing(ctx context.Context, t *tap, ring *rawconn.Ring) error {
	runtime.LockOSThread() // for the thread's CPU time to be the reader's
	defer runtime.UnlockOSThread()
	d := duty{budget: l.afford}
	m := meter{iface: t.iface}
	m.lap(0)
	for listen := true; ; {
		if listen {
			if err := l.listen(ctx, t, ring, time.Now().Add(d.budget.turn)); err != nil {
				return err
			}
		} else if !pauseFor(ctx, d.budget.turn) {
			return ctx.Err()
		}
		was := listen
		listen = d.next(m.lap(l.takeDrops(t)))
		var err error
		switch {
		case was && !listen:
			err = l.pause(ctx, t)
		case !was && listen:
			ring, err = l.resume(ctx, t)
		}
		if err != nil {
			return err
		}
		l.explain(t, d.cycling)
	}
}

// listen counts frames until a time.
func (l *Live) listen(ctx context.Context, t *tap, ring *rawconn.Ring, until time.Time) error {
	if err := ring.SetReadDeadline(until); err != nil {
		return err
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		_ = ring.SetReadDeadline(time.Unix(1, 0))
	})
	defer func() {
		if !stop() {
			<-interrupted
		}
	}()
	count := func(frames iter.Seq[rawconn.Frame]) { l.count(t, frames) }
	for {
		err := ring.Read(count)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return err
		case time.Now().After(until):
			return nil // under a flood, Read never gets to wait
		}
	}
}

func (l *Live) count(t *tap, frames iter.Seq[rawconn.Frame]) {
	l.mu.Lock()
	defer l.mu.Unlock()
	shown := Frame{Link: t.link, Interface: t.iface}
	for f := range frames {
		shown.Data, shown.Outgoing, shown.WireLen, shown.Time = f.Data, f.Outgoing, f.WireLen, f.Time
		l.take(&shown)
	}
}

// show counts one frame.
func (l *Live) show(f Frame) { l.take(&f) }

// take is show without a copy of the frame.
func (l *Live) take(f *Frame) {
	if l.cfg.Tee != nil {
		l.cfg.Tee(*f)
	}
	l.obs.packet(f)
}

// takeDrops counts the drops of a ring and returns how many are new to its
// reader. Others may have counted some before.
func (l *Live) takeDrops(t *tap) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.countDrops()
	n := t.drops
	t.drops = 0
	return n
}

// pause closes the ring for a while: one whose filter rejects everything would
// still cost the kernel a copy of each packet that is sent. What the ring has
// accepted is still counted.
func (l *Live) pause(ctx context.Context, t *tap) error {
	nothing, err := bpf.Assemble([]bpf.Instruction{bpf.RetConstant{Val: 0}})
	if err != nil {
		return err
	}
	l.mu.Lock()
	ring := t.ring
	if ring == nil {
		l.mu.Unlock()
		return os.ErrClosed
	}
	l.reckonAll(time.Now())
	t.paused = true
	err = ring.SetFilter(nothing)
	l.mu.Unlock()
	if err == nil {
		err = l.listen(ctx, t, ring, time.Now().Add(rawconn.RingDelay))
	}
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.countDrops()
	if t.ring == ring {
		t.ring = nil
	}
	l.mu.Unlock()
	return ring.Close()
}

// resume opens the ring again.
func (l *Live) resume(ctx context.Context, t *tap) (*rawconn.Ring, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ctx.Err() != nil || !t.paused {
		return nil, os.ErrClosed
	}
	dev, err := rawconn.LookUpDevice(t.iface)
	if err == nil {
		err = l.openRing(t, dev)
	}
	if err != nil {
		return nil, err
	}
	l.obs.Gap(t.iface)
	l.reckonAll(time.Now())
	t.paused = false
	return t.ring, nil
}

// explain puts the duty cycle into the words of the tap.
func (l *Live) explain(t *tap, cycling bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if cycling == (t.normal != nil) || !t.open() {
		return
	}
	if !cycling {
		t.why, t.reason, t.normal = t.normal.Why, t.normal.Reason, nil
		return
	}
	t.normal = &State{t.mode, t.why, t.reason}
	t.why = evidence.CaptureRate
	t.reason = fmt.Sprintf("capture on %s: listens %d s in %d, as more would cost this host too much: over %.0f packets/s, %.0f %% of a core, or frames dropped",
		t.iface, listenTurns, cycleTurns, l.afford.packets, 100*l.afford.cpu)
}

// meter measures what a ring costs.
type meter struct {
	iface   string
	at      time.Time
	packets uint64
	cpu     time.Duration
}

// lap returns the load since the last lap.
func (m *meter) lap(drops uint64) load {
	now := meter{iface: m.iface, at: time.Now(), cpu: threadCPU()}
	now.packets, _ = rawconn.DevicePackets(m.iface) // 0 without an answer: then the CPU time decides
	l := load{
		over:    now.at.Sub(m.at),
		packets: now.packets - min(m.packets, now.packets),
		cpu:     now.cpu - m.cpu,
		drops:   drops,
	}
	if m.packets == 0 {
		l.packets = 0 // the counter's beginning is not known
	}
	*m = now
	return l
}

// threadCPU returns how long the calling thread has used a CPU.
func threadCPU() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
