package agent

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"vpnprobe/capture"
	"vpnprobe/evidence"
)

// tapUse is one peer's use of the capture. Its methods are for one goroutine.
type tapUse struct {
	all     *captures
	peer    capture.Peer
	window  time.Duration
	live    *capture.Live // that history is of
	history []reading
	talks   []capture.Counts // some older ones, for the conversation
	lost    [2]uint64        // in and out, as told by the deltas
	state   capture.State    // of the last reading
	said    capture.State    // of the last line in the log
	egress  egresses
}

// reading is one reading of the capture, and what the SAs with the peer had
// received by then since the first one.
type reading struct {
	capture.Counts
	received evidence.Traffic
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
	u.state = state
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

// tell logs when the way to capture has changed.
func (u *tapUse) tell() {
	s := u.state
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
