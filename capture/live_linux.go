package capture

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/bpfcount"
)

// XDPPolicy says where XDP may count what comes in. It sees the packets that
// ESP offload hides from everything above it, but with some drivers attaching
// it resets the link.
type XDPPolicy string

// The policies.
const (
	XDPAuto   XDPPolicy = ""       // where it is needed and cannot reset a link: on veth
	XDPAlways XDPPolicy = "always" // on every interface whose driver has it
	XDPNever  XDPPolicy = "never"
)

// Config says how to capture.
type Config struct {
	// Mode is [evidence.CaptureBPF] or [evidence.CaptureRing] for that one
	// only; "" chooses the first of the two that works, for each interface.
	Mode evidence.CaptureMode
	XDP  XDPPolicy
	// Tee, if set, is shown every frame before it is counted. It must not keep
	// the frame's data nor call back. ESP that the kernel counts does not come
	// by: use Mode ring to see all.
	Tee func(Frame)
}

// Live captures on the interfaces of its peers. All its methods may be called
// at the same time, except that it has one Run.
type Live struct {
	cfg    Config
	afford budget
	fresh  time.Duration // how old what is known of the kernel's counts may be in a reading
	done   chan struct{} // closed by Close

	mu      sync.Mutex // guards what follows
	obs     *Observer
	peers   map[string]*watch
	taps    map[string]*tap // by interface
	kernel  *bpfcount.Counter
	drops   uint64          // of kernel, when last asked
	polled  time.Time       // when kernel was last asked for its flows
	counted map[string]int  // the devices that kernel was last attached to, by interface
	leaks   []Frame         // that wait for the next reading of kernel
	run     context.Context // nil while Run is not at work
	ran     bool            // Run was called
	stopped time.Time       // when Run ended; zero before
	wg      sync.WaitGroup  // what Run waits for
}

// watch is what a Live knows of one peer.
type watch struct {
	peer     Peer
	since    time.Time // when it got its addresses
	at       time.Time // until when listened is reckoned
	listened time.Duration
	dropped  uint64
}

// Open prepares a capture without peers.
func Open(cfg Config) (*Live, error) {
	switch cfg.Mode {
	case "", evidence.CaptureBPF, evidence.CaptureRing:
	default:
		return nil, fmt.Errorf("capture: %q is not a way to capture live: bpf or ring", cfg.Mode)
	}
	return &Live{
		cfg:    cfg,
		afford: affordable,
		fresh:  freshFor,
		done:   make(chan struct{}),
		obs:    NewObserver(nil),
		peers:  map[string]*watch{},
		taps:   map[string]*tap{},
	}, nil
}

// SetPeers replaces the peers, and opens and closes interfaces as their
// [Peer.Interfaces] say; frames wait for Run. The capture of what stays goes on
// without a break, and peers that stay, by name, keep their counts. A peer that
// is new or has other addresses than before is watched from now on. An
// interface that cannot be captured on is tried again by Run, and told of by
// [Counts.Reason].
func (l *Live) SetPeers(peers []Peer) {
	for _, f := range l.setPeers(peers) {
		f()
	}
}

func (l *Live) setPeers(peers []Peer) (closing []func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.countDrops()
	l.reckonAll(now)
	changed := l.obs.SetPeers(peers)
	old := l.peers
	l.peers = make(map[string]*watch, len(peers))
	wanted := map[string]bool{}
	for _, p := range peers {
		w := old[p.Name]
		if w == nil {
			w = &watch{since: now, at: now}
		}
		w.peer = p
		l.peers[p.Name] = w
		for _, iface := range p.Interfaces {
			wanted[iface] = true
		}
	}
	for iface, t := range l.taps {
		if !wanted[iface] {
			closing = append(closing, l.drop(t))
		}
	}
	closing = append(closing, l.refilter()...)
	for iface := range wanted {
		if l.taps[iface] == nil && !l.isClosed() {
			l.add(iface)
		}
	}
	// What changed counts from when the filters are in place.
	now = time.Now()
	for _, name := range changed {
		if w := l.peers[name]; w != nil {
			w.since = now
		}
	}
	return closing
}

// errRun is the error of a second Run.
var errRun = errors.New("capture: it runs already, or did")

// Run counts until ctx ends, which is no error, or until Close. Interfaces that
// go away are waited for. A second Run is an error.
func (l *Live) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	err := l.begin(ctx)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-l.done:
		err = os.ErrClosed
	}

	cancel()
	l.mu.Lock()
	l.run = nil
	l.mu.Unlock()
	l.wg.Wait()
	l.end()()
	return err
}

// begin starts what Run does.
func (l *Live) begin(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.isClosed():
		return os.ErrClosed
	case l.ran:
		return errRun
	}
	l.reckonAll(time.Now())
	l.run, l.ran = ctx, true
	for _, t := range l.taps {
		l.start(t)
	}
	l.startKernel()
	return nil
}

// end takes the last reading.
func (l *Live) end() (closing func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	closing = l.pollOrLose()
	now := time.Now()
	l.reckonAll(now)
	l.stopped = now
	return closing
}

// Close ends the capture, and Run with it, and leaves nothing behind in the
// kernel. Counts may still be read, and say that nothing is watched any more.
func (l *Live) Close() {
	l.mu.Lock()
	if !l.isClosed() {
		close(l.done)
	}
	l.reckonAll(time.Now())
	var closing []func()
	for _, t := range l.taps {
		if t.cancel != nil {
			t.cancel()
		}
		closing = append(closing, l.lose(t, os.ErrClosed))
	}
	l.mu.Unlock()
	for _, f := range closing {
		f()
	}
}

func (l *Live) isClosed() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// Counts returns a reading of what was counted of one peer. What arrived in the
// last quarter of a second may still be missing. While Run is not at work,
// nothing is counted, and the reading is of the time when Run ended.
func (l *Live) Counts(name string) Counts {
	closing := func() {}
	defer func() { closing() }()
	l.mu.Lock()
	defer l.mu.Unlock()
	closing = l.pollIfOld()
	l.countDrops()
	now := time.Now()
	if !l.stopped.IsZero() {
		now = l.stopped
	}
	c := l.obs.CountsAt(name, now)
	c.Mode, c.Time, c.Watching = evidence.CaptureOff, now, time.Time{}
	w := l.peers[name]
	if w == nil {
		return c
	}
	l.reckon(w, now)
	c.Dropped, c.Listened = w.dropped, w.listened
	state, watching := l.state(w)
	c.Mode = state.Mode
	switch {
	case c.Reason != "": // without an address
	case !watching.IsZero() && l.run == nil && l.stopped.IsZero():
		c.Reason = "capture on " + w.peer.Interfaces[0] + ": not reading yet"
	case watching.IsZero():
		c.Reason = state.Reason
	default:
		c.Watching = watching
	}
	return c
}
