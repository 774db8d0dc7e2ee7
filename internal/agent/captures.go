package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
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

	mu   sync.Mutex
	ctx  context.Context // nil until run, and after it
	wg   sync.WaitGroup
	cfg  config.Capture
	live *capture.Live // nil while nothing is to be captured
	stop context.CancelFunc
	uses map[*tapUse]bool
	seq  int
}

// tapUse is one peer's use of the capture. Its methods are for one goroutine.
type tapUse struct {
	all     *captures
	peer    capture.Peer
	window  time.Duration
	live    *capture.Live // that history is of
	history []reading
	talks   []capture.Counts // some older ones, for the conversation
	lost    [2]uint64        // in and out, as told by the deltas
	said    capture.State
	egress  egresses
}

// reading is one reading of the capture, and what the SAs with the peer had
// received by then since the first one.
type reading struct {
	capture.Counts
	received evidence.Traffic
}

func newCaptures(host *hoststate.Reader, log *slog.Logger) *captures {
	return &captures{host: host, log: log, uses: map[*tapUse]bool{}}
}

// run lets the capture work until ctx ends, and waits for it to end.
func (c *captures) run(ctx context.Context) {
	c.mu.Lock()
	c.ctx = ctx
	c.begin()
	c.mu.Unlock()
	<-ctx.Done()
	c.mu.Lock()
	c.end()
	c.ctx = nil
	c.mu.Unlock()
	c.wg.Wait()
}

// configure says how to capture. A capture that works as is said goes on.
func (c *captures) configure(cfg config.Capture) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cfg == c.cfg {
		return
	}
	c.end()
	c.cfg = cfg
	c.begin()
}

// begin starts the capture, if there is to be one.
func (c *captures) begin() {
	if c.ctx == nil || c.live != nil || c.cfg.Mode == "sa" || c.cfg.Mode == "off" {
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
	c.live, c.stop = live, cancel
	live.SetPeers(c.peers())
	c.wg.Go(func() {
		defer live.Close()
		live.Run(ctx) // it ends with ctx; what goes wrong before shows in the counts
	})
}

func (c *captures) end() {
	if c.live != nil {
		c.stop()
		c.live = nil
	}
}

func (c *captures) peers() []capture.Peer {
	var out []capture.Peer
	for u := range c.uses {
		out = append(out, u.peer)
	}
	return out
}

// join announces a peer, which is captured once it says on which interfaces.
func (c *captures) join(p capture.Peer, window time.Duration) *tapUse {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++ // a peer that is reconfigured overlaps with its successor
	p.Name = fmt.Sprintf("%s#%d", p.Name, c.seq)
	return &tapUse{all: c, window: window, peer: p}
}

// leave ends the peer's use.
func (u *tapUse) leave() {
	c := u.all
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.uses[u] {
		delete(c.uses, u)
		if c.live != nil {
			c.live.SetPeers(c.peers())
		}
	}
}

// on returns the capture, with the peer among those that it watches; nil when
// there is none, and why.
func (c *captures) on(u *tapUse, ifaces []string) (*capture.Live, capture.State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.cfg.Mode == "sa" || c.cfg.Mode == "off":
		return nil, capture.State{Mode: evidence.CaptureOff, Why: evidence.CaptureConfigured, Reason: "capture.mode is " + c.cfg.Mode}
	case c.live == nil:
		return nil, capture.State{Mode: evidence.CaptureOff, Why: evidence.CaptureFailed, Reason: "not started"}
	case len(ifaces) == 0 && !c.uses[u]:
		return nil, capture.State{Mode: evidence.CaptureOff, Why: evidence.CaptureNoInterface,
			Reason: "the underlay interface is not known: there is no route to the gateway"}
	case len(ifaces) == 0:
		return c.live, capture.State{} // where it was last: the route may be gone, and packets still come
	}
	if !c.uses[u] || !slices.Equal(ifaces, u.peer.Interfaces) {
		u.peer.Interfaces = ifaces
		c.uses[u] = true
		c.live.SetPeers(c.peers())
	}
	return c.live, capture.State{}
}

// read returns what passed on the interfaces within the window, and since the
// last read. in is what the SAs with the peer, of which t is a reading, received
// since the last read.
func (u *tapUse) read(ifaces []string, t evidence.Tunnel, in evidence.Traffic) (window, delta evidence.Capture) {
	live, state := u.all.on(u, ifaces)
	if live == nil {
		off := evidence.Capture{}
		u.describe(&off, state, t)
		return off, off
	}
	if live != u.live {
		u.live, u.history, u.talks, u.lost = live, nil, nil, [2]uint64{}
	}
	blind, why := u.blind(live, t)
	now := reading{Counts: live.Counts(u.peer.Name)}
	if n := len(u.history); n > 0 {
		now.received = u.history[n-1].received.Add(in)
		delta = now.Since(u.history[n-1].Counts, blind)
	} else {
		delta = now.Since(capture.Counts{}, blind)
	}
	u.history = append(u.history, now)
	for len(u.history) > 2 && u.history[1].Time.Before(now.Time.Add(-u.window)) {
		u.history = u.history[1:]
	}
	window = now.Since(u.history[0].Counts, blind)
	window.Talk = now.Since(u.talkSince(now.Counts), blind).Talk
	delta.In.Sequence.Lost = grown(&u.lost[0], now.In.Sequence.Lost)
	delta.Out.Sequence.Lost = grown(&u.lost[1], now.Out.Sequence.Lost)
	if missed := u.missed(); missed > 0 {
		why = fmt.Sprintf("the kernel's SAs received %d packets that the capture did not see", missed)
		window.Blind, delta.Blind = evidence.Yes, evidence.Yes
	}
	state = live.State(u.peer.Name)
	for _, c := range []*evidence.Capture{&window, &delta} {
		u.describe(c, state, t)
		if why != "" && c.Blind != evidence.No {
			c.Reason = why
			if c.Why == evidence.CaptureBest {
				c.Why = evidence.CaptureHidden
			}
		}
	}
	u.tell(state)
	return window, delta
}

// talkWindow is how far back the conversation of the IKE daemons is told, which
// repeat a request for minutes before they give it up; talkEvery is how exactly.
const (
	talkWindow = 2 * time.Minute
	talkEvery  = 10 * time.Second
)

// talkSince returns the reading that the conversation is told from, and keeps
// the present one for later.
func (u *tapUse) talkSince(now capture.Counts) capture.Counts {
	if n := len(u.talks); n == 0 || now.Time.Sub(u.talks[n-1].Time) >= talkEvery {
		u.talks = append(u.talks, now)
	}
	for len(u.talks) > 1 && u.talks[1].Time.Before(now.Time.Add(-talkWindow)) {
		u.talks = u.talks[1:]
	}
	return u.talks[0]
}

// grown returns by how much a count exceeds all that was told of it before. A
// packet that comes late takes its loss back: it may not be told twice.
func grown(told *uint64, now uint64) uint64 {
	n := now - min(now, *told)
	*told += n
	return n
}

// describe says how a window was captured, and that the kernel's SAs are all
// there is where they are.
func (u *tapUse) describe(c *evidence.Capture, s capture.State, t evidence.Tunnel) {
	c.Mode, c.Why = s.Mode, s.Why
	if s.Mode == evidence.CaptureOff {
		u.all.mu.Lock()
		if t.Readable == evidence.Yes && u.all.cfg.Mode != "off" {
			c.Mode = evidence.CaptureSA
		}
		u.all.mu.Unlock()
	}
	if c.Reason == "" {
		c.Reason = s.Reason
	}
}

// tell logs when the way to capture changes.
func (u *tapUse) tell(s capture.State) {
	if s == u.said {
		return
	}
	level := slog.LevelInfo
	if s.Mode == evidence.CaptureOff {
		level = slog.LevelWarn
	}
	u.all.log.Log(context.Background(), level, "capture", "peer", u.peer.Name, "mode", s.Mode, "reason", s.Reason)
	u.said = s
}

// blind reports whether the capture misses inbound ESP on one of the
// interfaces, and why. The modules, GRO and the SAs may change at any time, so
// this is asked at each reading.
func (u *tapUse) blind(live *capture.Live, t evidence.Tunnel) (evidence.Fact, string) {
	worst, reason := evidence.No, ""
	for _, iface := range u.peer.Interfaces {
		hidden, why := u.all.host.CaptureBlind(iface, t)
		sees, remedy := live.Uncover(iface, hidden)
		if hidden == evidence.No || sees {
			continue
		}
		if remedy != "" {
			why += ": " + remedy
		}
		if worst == evidence.No || hidden == evidence.Yes {
			worst, reason = hidden, why
		}
	}
	return worst, reason
}

// missed returns how many packets the kernel's SAs received of which the
// capture saw none at all. A packet that comes about the time of a reading may
// be on either side of it in the two counts: so the SAs' count leaves out a
// reading at both ends.
func (u *tapUse) missed() uint64 {
	n := len(u.history)
	if n < 4 {
		return 0
	}
	first, last := u.history[0], u.history[n-1]
	if seen(last.Counts) > seen(first.Counts) {
		return 0
	}
	return u.history[n-2].received.Sub(u.history[1].received).Packets
}

// seen counts the packets of SAs that came in.
func seen(c capture.Counts) uint64 {
	return c.In.ESP.Packets + c.In.ESPInUDP.Packets + c.In.AH.Packets
}

// egresses remembers by which interfaces the kernel could send to a gateway.
type egresses struct {
	at   time.Time
	list []string
}

// The interfaces that a peer may use are asked for again after egressEvery,
// since that reads the routing table; maxEgresses of them are watched.
const (
	egressEvery = 10 * time.Second
	maxEgresses = 4
)

// interfaces returns the underlay interfaces of a peer: the declared one, or
// the route's, and the others by which the kernel could send to the gateway.
func (u *tapUse) interfaces(first string, gateway, source netip.Addr) []string {
	if now := time.Now(); u.egress.at.IsZero() || now.Sub(u.egress.at) >= egressEvery || first != "" && !slices.Contains(u.egress.list, first) {
		list, err := u.all.host.Egresses(gateway, source)
		if err != nil {
			list = nil // without a route there is none, and the rest is told by the route
		}
		u.egress = egresses{now, list}
	}
	var out []string
	if first != "" {
		out = append(out, first)
	}
	for _, name := range u.egress.list {
		if !slices.Contains(out, name) && len(out) < maxEgresses {
			out = append(out, name)
		}
	}
	return out
}
