package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"vpnprobe/capture"
	"vpnprobe/evidence"
	"vpnprobe/hoststate"
)

// captures runs one capture per underlay interface for all peers that use it.
type captures struct {
	host *hoststate.Reader
	log  *slog.Logger

	mu   sync.Mutex
	ctx  context.Context // nil until run; captures live no longer
	wg   sync.WaitGroup
	taps map[string]*tap // by interface
	seq  int
}

// tap is the capture on one interface.
type tap struct {
	live    *capture.Live
	err     error // why there is none
	retry   time.Time
	cancel  context.CancelFunc
	members map[*tapUse]bool
}

// tapUse is one peer's use of the captures. Its methods are for one goroutine.
type tapUse struct {
	all     *captures
	peer    capture.Peer
	window  time.Duration
	on      string // interface
	history []capture.Counts
}

// captureRetry is the time between attempts to open a capture that could not
// be opened.
const captureRetry = 10 * time.Second

func newCaptures(host *hoststate.Reader, log *slog.Logger) *captures {
	return &captures{host: host, log: log, taps: map[string]*tap{}}
}

// run lets captures be opened until ctx ends, and waits for them to end.
func (c *captures) run(ctx context.Context) {
	c.mu.Lock()
	c.ctx = ctx
	c.mu.Unlock()
	<-ctx.Done()
	c.mu.Lock()
	c.ctx = nil
	c.mu.Unlock()
	c.wg.Wait()
}

// join announces a peer, which is captured once it says on which interface.
func (c *captures) join(name string, addrs []netip.Addr, window time.Duration) *tapUse {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++ // a peer that is reconfigured overlaps with its successor
	return &tapUse{all: c, window: window, peer: capture.Peer{Name: fmt.Sprintf("%s#%d", name, c.seq), Addrs: addrs}}
}

// leave ends the peer's use.
func (u *tapUse) leave() {
	u.all.mu.Lock()
	defer u.all.mu.Unlock()
	u.all.detach(u)
}

// read returns what passed on iface within the window, and since the last read.
func (u *tapUse) read(iface string, t evidence.Tunnel) (window, delta evidence.Capture) {
	live, err := u.all.on(u, iface)
	if err != nil {
		u.history = nil
		off := evidence.Capture{Mode: evidence.CaptureOff, Reason: err.Error()}
		return off, off
	}
	now := live.Counts(u.peer.Name)
	blind, why := u.all.host.CaptureBlind(iface, t)
	if n := len(u.history); n > 0 {
		delta = now.Since(u.history[n-1], blind)
	} else {
		delta = now.Since(capture.Counts{}, blind)
	}
	u.history = append(u.history, now)
	for len(u.history) > 2 && u.history[1].Time.Before(now.Time.Add(-u.window)) {
		u.history = u.history[1:]
	}
	window = now.Since(u.history[0], blind)
	if why != "" {
		window.Reason, delta.Reason = why, why
	}
	return window, delta
}

// on returns the capture of an interface, with the peer among those it
// watches.
func (c *captures) on(u *tapUse, iface string) (*capture.Live, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if u.on != iface {
		c.detach(u)
		u.history = nil
	}
	switch {
	case iface == "":
		return nil, fmt.Errorf("the underlay interface is not known: there is no route to the gateway")
	case c.ctx == nil:
		return nil, fmt.Errorf("not started")
	}
	t := c.taps[iface]
	if t == nil {
		t = &tap{members: map[*tapUse]bool{}}
		c.taps[iface] = t
	}
	u.on = iface
	if t.live == nil {
		t.members[u] = true
		return c.open(t, iface)
	}
	if !t.members[u] {
		t.members[u] = true
		t.live.SetPeers(t.peers()) // an error shows in the counts
	}
	return t.live, nil
}

// open starts the capture of one interface, unless it has just failed.
func (c *captures) open(t *tap, iface string) (*capture.Live, error) {
	if time.Now().Before(t.retry) {
		return nil, t.err
	}
	live, err := capture.Open(capture.Config{Interface: iface, Peers: t.peers()})
	if err != nil {
		if t.err == nil {
			c.log.Warn("no capture", "interface", iface, "err", err)
		}
		t.err, t.retry = err, time.Now().Add(captureRetry)
		return nil, err
	}
	ctx, cancel := context.WithCancel(c.ctx)
	t.live, t.err, t.cancel = live, nil, cancel
	c.wg.Go(func() {
		defer live.Close()
		live.Run(ctx) // it ends with ctx; what goes wrong before shows in the counts
	})
	return live, nil
}

func (t *tap) peers() []capture.Peer {
	var out []capture.Peer
	for u := range t.members {
		out = append(out, u.peer)
	}
	return out
}

// detach takes a peer off its interface, and ends a capture that nobody uses.
func (c *captures) detach(u *tapUse) {
	t := c.taps[u.on]
	if t == nil || !t.members[u] {
		return
	}
	delete(t.members, u)
	switch {
	case len(t.members) == 0:
		if t.cancel != nil {
			t.cancel()
		}
		delete(c.taps, u.on)
	case t.live != nil:
		t.live.SetPeers(t.peers())
	}
	u.on = ""
}
