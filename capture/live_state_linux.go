package capture

import (
	"fmt"
	"os"
	"slices"
	"time"

	"vpnprobe/evidence"
)

// State is how a peer is captured, and why not better.
type State struct {
	Mode   evidence.CaptureMode
	Why    evidence.CaptureWhy
	Reason string // one line; "" where there is nothing better
}

// State returns how a peer is captured: of several interfaces, the one where
// least is seen.
func (l *Live) State(name string) State {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w := l.peers[name]; w != nil {
		s, _ := l.state(w)
		return s
	}
	return State{evidence.CaptureOff, evidence.CaptureFailed, fmt.Sprintf("capture: %q is not a peer that is watched", name)}
}

// state also returns since when all interfaces of the peer are watched; zero if
// one is not.
func (l *Live) state(w *watch) (s State, watching time.Time) {
	if len(w.peer.Interfaces) == 0 {
		return State{evidence.CaptureOff, evidence.CaptureNoInterface, "capture: the underlay interface is not known"}, watching
	}
	worst := -1
	watching = w.since
	for _, iface := range w.peer.Interfaces {
		t := l.taps[iface]
		if t == nil { // closed
			t = &tap{mode: evidence.CaptureOff, why: evidence.CaptureFailed, reason: fmt.Sprintf("capture on %s: %v", iface, os.ErrClosed)}
		}
		if rank := slices.Index(tiers, t.mode); rank > worst {
			worst, s = rank, State{t.mode, t.why, t.reason}
		}
		switch {
		case !t.open():
			watching = time.Time{}
		case !watching.IsZero() && t.opened.After(watching):
			watching = t.opened
		}
	}
	return s, watching
}

// tiers are the modes of an interface, the best first.
var tiers = []evidence.CaptureMode{evidence.CaptureBPF, evidence.CaptureRing, evidence.CaptureOff}

// reckon adds up how long a peer was listened to. It has to be called before
// anything changes that decides it.
func (l *Live) reckon(w *watch, now time.Time) {
	if l.stopped.IsZero() && len(w.peer.Interfaces) > 0 && l.listening(w) {
		w.listened += max(now.Sub(w.at), 0)
	}
	w.at = now
}

func (l *Live) listening(w *watch) bool {
	for _, iface := range w.peer.Interfaces {
		if t := l.taps[iface]; t == nil || !t.open() || t.paused {
			return false
		}
	}
	return true
}

func (l *Live) reckonAll(now time.Time) {
	for _, w := range l.peers {
		l.reckon(w, now)
	}
}
