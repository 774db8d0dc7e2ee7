package capture

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vpnprobe/evidence"
	"vpnprobe/internal/rawconn"
)

// Config says what to capture.
type Config struct {
	Interface string // the underlay interface, by name
	Peers     []Peer
}

// Live captures on one interface. All its methods may be called at the same
// time, except that it has one Run.
type Live struct {
	iface string

	mu      sync.Mutex // guards what follows
	obs     *Observer
	ring    *rawconn.Ring // nil while the interface cannot be captured on
	link    LinkType      // of ring
	opened  time.Time     // when ring was
	reason  error         // why ring is nil
	watched map[string]time.Time
	dropped uint64
	running bool
	stopped time.Time // when Run ended

	done chan struct{} // closed by Close
}

// Open begins to capture; frames wait for Run. An interface that is down or not
// there is no error, but something that Run waits for, and that
// [Counts.Reason] tells of. Without CAP_NET_RAW the error wraps
// os.ErrPermission.
func Open(cfg Config) (*Live, error) {
	if cfg.Interface == "" {
		return nil, errors.New("capture: no interface named")
	}
	l := &Live{
		iface:   cfg.Interface,
		obs:     NewObserver(nil),
		watched: map[string]time.Time{},
		done:    make(chan struct{}),
	}
	if err := l.SetPeers(cfg.Peers); err != nil {
		return nil, err
	}
	if err := l.open(); err != nil && !passing(err) {
		return nil, err
	}
	return l, nil
}

// passing reports whether an error goes away when the interface comes back.
func passing(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENETDOWN) || errors.Is(err, unix.ENXIO)
}

// open opens the ring, on whatever device has the interface's name now.
func (l *Live) open() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isClosed() {
		return os.ErrClosed
	}
	ring, link, err := openRing(l.iface, l.obs)
	if err != nil {
		l.reason = fmt.Errorf("capture on %s: %w", l.iface, err)
		return l.reason
	}
	l.ring, l.link, l.opened, l.reason = ring, link, time.Now(), nil
	return nil
}

func openRing(iface string, obs *Observer) (*rawconn.Ring, LinkType, error) {
	dev, err := rawconn.LookUpDevice(iface)
	if err != nil {
		return nil, 0, err
	}
	link := LinkRaw
	if dev.Ethernet {
		link = LinkEthernet
	}
	prog, err := filter(link, obs.addresses())
	if err != nil {
		return nil, 0, err
	}
	ring, err := rawconn.OpenRing(dev, prog)
	return ring, link, err
}

// lose closes a ring that is of no more use. The counts say so from then on.
func (l *Live) lose(ring *rawconn.Ring, why error) {
	l.mu.Lock()
	if l.ring == ring {
		l.countDrops()
		l.ring = nil
		l.reason = fmt.Errorf("capture on %s: %w", l.iface, why)
	}
	l.mu.Unlock()
	ring.Close() // not under l.mu: it waits for a block that is being counted
}

// The pause between attempts to open the interface again doubles from the
// first to the last of these.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 2 * time.Second
)

// Run counts until ctx ends, which is no error, or until Close. When the
// interface goes away, it waits for one of the same name.
func (l *Live) Run(ctx context.Context) error {
	l.setRunning(true)
	defer l.setRunning(false)
	pause := firstPause
	for {
		if ring := l.current(); ring != nil {
			err := l.read(ctx, ring)
			if ctx.Err() != nil {
				return nil // the ring stays open for a last reading
			}
			l.lose(ring, err)
			pause = firstPause
		}
		select {
		case <-ctx.Done():
			return nil
		case <-l.done:
			return os.ErrClosed
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
		// A failure is told by Counts. Permission may be one: an agent may
		// give it up after Open.
		_ = l.open()
	}
}

func (l *Live) setRunning(running bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running, l.stopped = running, time.Now()
}

func (l *Live) current() *rawconn.Ring {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ring
}

func (l *Live) isClosed() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// read counts what the ring delivers until ctx ends or the ring fails.
func (l *Live) read(ctx context.Context, ring *rawconn.Ring) error {
	if err := ring.SetReadDeadline(time.Time{}); err != nil {
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
	for {
		if err := ring.Read(l.count); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err // under a flood, Read never gets to wait
		}
	}
}

func (l *Live) count(frames iter.Seq[rawconn.Frame]) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for f := range frames {
		l.obs.Packet(f.Data, l.link, f.Outgoing, f.WireLen, f.Time)
	}
}

// SetPeers replaces the peers. The capture goes on without a break, and peers
// that stay, by name, keep their counts. A peer that is new or has other
// addresses than before is watched from now on. On error the capture is opened
// anew by Run.
func (l *Live) SetPeers(peers []Peer) error {
	l.mu.Lock()
	changed := l.obs.SetPeers(peers)
	ring := l.ring
	var err error
	if ring != nil {
		err = setFilter(ring, l.link, l.obs)
	}
	watched := make(map[string]time.Time, len(peers))
	for _, p := range peers {
		watched[p.Name] = l.watched[p.Name]
	}
	now := time.Now()
	for _, name := range changed {
		watched[name] = now
	}
	l.watched = watched
	l.mu.Unlock()
	if err != nil {
		l.lose(ring, err)
		return fmt.Errorf("capture on %s: %w", l.iface, err)
	}
	return nil
}

func setFilter(ring *rawconn.Ring, link LinkType, obs *Observer) error {
	prog, err := filter(link, obs.addresses())
	if err != nil {
		return err
	}
	return ring.SetFilter(prog)
}

// Counts returns a reading of what was counted of one peer. What arrived in the
// last 64 ms may still be missing. While Run is not at work, nothing is
// counted, and the reading is of the time when Run ended.
func (l *Live) Counts(name string) Counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.countDrops()
	c := l.obs.Counts(name)
	c.Mode = evidence.CaptureRing
	c.Time = time.Now()
	c.Dropped = l.dropped
	c.Watching = time.Time{}
	if !l.running && !l.stopped.IsZero() {
		c.Time = l.stopped
	}
	switch {
	case c.Reason != "": // not a peer, or without an address
	case l.ring == nil:
		c.Reason = l.reason.Error()
	case !l.running && l.stopped.IsZero():
		c.Reason = "capture on " + l.iface + ": not reading yet"
	default:
		c.Watching = l.watched[name]
		if l.opened.After(c.Watching) {
			c.Watching = l.opened
		}
	}
	return c
}

// countDrops adds up the kernel's count of drops, which begins anew with each
// reading.
func (l *Live) countDrops() {
	if l.ring == nil {
		return
	}
	if n, err := l.ring.Drops(); err == nil {
		l.dropped += n
	}
}

// Close ends the capture, and Run with it. Counts may still be read, and say
// that nothing is watched any more.
func (l *Live) Close() {
	l.mu.Lock()
	if !l.isClosed() {
		close(l.done)
	}
	ring := l.ring
	if ring == nil {
		l.reason = fmt.Errorf("capture on %s: %w", l.iface, os.ErrClosed)
	}
	l.mu.Unlock()
	if ring != nil {
		l.lose(ring, os.ErrClosed)
	}
}
