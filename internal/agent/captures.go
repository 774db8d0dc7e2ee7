package agent

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"vpnprobe/capture"
	"vpnprobe/config"
	"vpnprobe/evidence"
	"vpnprobe/hoststate"
)

// captures runs one capture for all peers.
type captures struct {
	host *hoststate.Reader
	log  *slog.Logger

	// changing is held while the capture begins or ends, and taken before mu:
	// an interface may have room for the XDP program of one capture only.
	changing sync.Mutex

	mu    sync.Mutex      // guards what follows
	ctx   context.Context // nil until run, and after it
	cfg   config.Capture
	live  *capture.Live // nil while nothing is captured
	stop  context.CancelFunc
	ended chan struct{}      // closed when live has left nothing behind in the kernel
	uses  map[string]*tapUse // by the peer's name
}

func newCaptures(host *hoststate.Reader, log *slog.Logger) *captures {
	return &captures{host: host, log: log, uses: map[string]*tapUse{}}
}

// run lets the capture work until ctx ends, and waits for it to end.
func (c *captures) run(ctx context.Context) {
	c.change(func() { c.ctx = ctx })
	<-ctx.Done()
	c.change(func() { c.ctx = nil })
}

// configure says how to capture. A capture that works as is said goes on.
func (c *captures) configure(cfg config.Capture) {
	c.mu.Lock()
	same := cfg == c.cfg
	c.mu.Unlock()
	if !same {
		c.change(func() { c.cfg = cfg })
	}
}

// change ends the capture that there is, and begins the one that is to be after
// set. Meanwhile there is none, and mu is free.
func (c *captures) change(set func()) {
	c.changing.Lock()
	defer c.changing.Unlock()
	c.mu.Lock()
	set()
	ended := c.ended
	if c.live != nil {
		c.stop()
		c.live = nil
	}
	c.mu.Unlock()
	if ended != nil {
		<-ended
	}
	c.mu.Lock()
	c.begin()
	c.mu.Unlock()
}

// begin starts the capture, if there is to be one.
func (c *captures) begin() {
	if c.ctx == nil || c.cfg.Mode == "sa" || c.cfg.Mode == "off" {
		return
	}
	cfg := capture.Config{Mode: evidence.CaptureMode(c.cfg.Mode), XDP: capture.XDPPolicy(c.cfg.XDP)}
	if cfg.Mode == "auto" {
		cfg.Mode = ""
	}
	if cfg.XDP == "auto" {
		cfg.XDP = capture.XDPAuto
	}
	live, err := capture.Open(cfg)
	if err != nil {
		c.log.Error("no capture", "err", err) // a bug: the configuration has no such mode
		return
	}
	ctx, cancel := context.WithCancel(c.ctx)
	ended := make(chan struct{})
	c.live, c.stop, c.ended = live, cancel, ended
	live.SetPeers(c.peers())
	go func() {
		defer close(ended)
		defer live.Close()
		live.Run(ctx) // it ends with ctx; what goes wrong before shows in the counts
	}()
}

// peers are those that are captured: who said on which interfaces.
func (c *captures) peers() []capture.Peer {
	var out []capture.Peer
	for _, u := range c.uses {
		if len(u.peer.Interfaces) > 0 {
			out = append(out, u.peer)
		}
	}
	return out
}

// show has the capture watch the peers as they are now.
func (c *captures) show() {
	if c.live != nil {
		c.live.SetPeers(c.peers())
	}
}

// join announces a peer, which is captured once it says on which interfaces. It
// takes the place of one of the same name, which was reconfigured and is about
// to leave: nothing that was counted for that one counts for this one.
func (c *captures) join(p capture.Peer, window time.Duration) *tapUse {
	c.mu.Lock()
	defer c.mu.Unlock()
	u := &tapUse{all: c, window: window, peer: p}
	before := c.uses[p.Name]
	c.uses[p.Name] = u
	if before != nil {
		c.show()
	}
	return u
}

// leave ends the peer's use.
func (u *tapUse) leave() {
	c := u.all
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.uses[u.peer.Name] == u {
		delete(c.uses, u.peer.Name)
		c.show()
	}
}

// on returns the capture, with the peer among those that it watches; nil when
// there is none, and why.
func (c *captures) on(u *tapUse, ifaces []string) (*capture.Live, capture.State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	none := func(why evidence.CaptureWhy, reason string) (*capture.Live, capture.State) {
		return nil, capture.State{Mode: evidence.CaptureOff, Why: why, Reason: reason}
	}
	switch {
	case c.uses[u.peer.Name] != u:
		return none(evidence.CaptureConfigured, "the peer was configured anew")
	case c.cfg.Mode == "sa" || c.cfg.Mode == "off":
		return none(evidence.CaptureConfigured, "capture.mode is "+c.cfg.Mode)
	case c.live == nil:
		return none(evidence.CaptureFailed, "not started")
	case len(ifaces) == 0 && len(u.peer.Interfaces) == 0:
		return none(evidence.CaptureNoInterface, "the underlay interface is not known: there is no route to the gateway")
	case len(ifaces) == 0:
		return c.live, capture.State{} // where it was last: the route may be gone, and packets still come
	}
	if !slices.Equal(ifaces, u.peer.Interfaces) {
		u.peer.Interfaces = ifaces
		c.show()
	}
	return c.live, capture.State{}
}
