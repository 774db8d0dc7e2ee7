package agent

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"os"
	"time"

	"vpnprobe/capture"
	"vpnprobe/config"
	"vpnprobe/diagnosis"
)

// Offline says how to diagnose from a recorded capture.
type Offline struct {
	Path  string   // of the capture; "" reads Stdin
	Stdin *os.File // a pipe that a capture comes through

	// Peer is a configured peer's name, or the remote gateway's address or DNS
	// name; "" finds it out.
	Peer  string
	Local netip.Addr            // an address of this side, for finding the peer out; optional
	Here  func(netip.Addr) bool // whether an address is one of this host's

	// Last is how far back from its end the capture is looked at, in the
	// capture's own time, and up to an eighth more. 0 is all of it. Where that
	// looks healthy and the end of it alone does not, the report is on the end,
	// and a note says so; without Follow, only if Last is 0.
	Last   time.Duration
	Follow bool // go on reading as the capture grows, until the context ends

	// Note is told, in one line each, what the reader of the report should
	// know of the capture.
	Note func(string)
	// Report is given the report; with Follow, one whenever the diagnosis
	// has changed, and one at the end if packets came after the last one.
	Report func(*diagnosis.Report) error
	// Status, unless it is nil, is told now and then, with Follow, how it
	// stands, in one line.
	Status func(string)
}

// ErrNoTraffic means that a capture holds nothing that a diagnosis could be
// made of.
var ErrNoTraffic = errors.New("no packet of IPsec in it: neither ESP nor AH nor IKE")

// Run reads the capture. It returns ErrNoTraffic, wrapped, when there is nothing
// in it to tell the peer by, and other errors when it cannot be read at all or
// the peer cannot be told. A capture that ends in the middle, or that ctx ends,
// is reported on as far as it was read.
func (o Offline) Run(ctx context.Context, cfg *config.Config) error {
	a := &analysis{Offline: o, cfg: cfg, window: newMarks(o.Last), end: newMarks(endSpan), looks: interval{every: evaluateEvery}, told: time.Now()}
	if err := a.known(ctx); err != nil {
		return err
	}
	if a.target == nil && !o.Follow && a.seekable() {
		if err := a.explore(ctx); err != nil {
			return err
		}
	}
	err := a.pass(ctx, a.show)
	if err == nil && a.target == nil {
		err = a.decide()
	}
	if err != nil {
		return err
	}
	return a.finish()
}

// explore reads the capture once to find the peer out. What there is to note of
// it, the second reading notes too.
func (a *analysis) explore(ctx context.Context) error {
	note := a.Note
	var noted []string
	a.Note = func(line string) { noted = append(noted, line) }
	err := a.pass(ctx, func(capture.Frame) error { return nil })
	a.Note = note
	if err == nil {
		err = a.decide()
	}
	if err != nil {
		for _, line := range noted {
			note(line)
		}
	}
	a.survey, a.dropped = capture.Survey{}, 0
	return err
}

// analysis is one reading of a capture.
type analysis struct {
	Offline
	cfg    *config.Config
	among  []target // configured peers, while none is chosen
	survey capture.Survey

	target  *target // nil until the peer is known
	waiting []capture.Frame
	held    int // bytes in waiting

	obs     *capture.Observer
	drops   func() uint64 // of the file that is being read
	dropped uint64        // of the files before it
	ifaces  map[string]bool
	window  marks // of Last
	end     marks
	shown   uint64   // frames
	looks   interval // in follow mode
	fresh   bool     // frames came since then

	said     string // the gist of the last report
	label    diagnosis.Label
	reported uint64    // shown at that time
	came     time.Time // when the last frame was read
	told     time.Time // when the status was told last
}

// maxHeld bounds the frames that wait until the peer is known, in bytes.
const maxHeld = 8 << 20

// name is how messages call the capture.
func (a *analysis) name() string { return cmp.Or(a.Path, "standard input") }

// seekable reports whether the capture can be read twice.
func (a *analysis) seekable() bool {
	info, err := os.Stat(a.Path)
	return err == nil && info.Mode().IsRegular()
}

// show counts a frame, or lets it wait until the peer is known.
func (a *analysis) show(f capture.Frame) error {
	if a.target == nil {
		return a.hold(f)
	}
	if len(a.ifaces) < 64 {
		a.ifaces[f.Interface] = true
	}
	a.obs.Packet(f)
	a.shown++
	a.fresh = true
	a.mark(f.Time)
	if a.Follow {
		a.came = time.Now()
		a.tell(a.came)
	}
	if a.Follow && a.looks.due(f.Time) {
		return a.look(f.Time.Sub(a.survey.Began()) < patience)
	}
	return nil
}

// hold keeps a frame of a capture that cannot be read twice.
func (a *analysis) hold(f capture.Frame) error {
	f.Data = append([]byte(nil), f.Data...)
	a.waiting = append(a.waiting, f)
	a.held += len(f.Data) + 96
	full := a.held > maxHeld
	if len(a.survey.Pairs()) == 0 {
		if full {
			a.waiting, a.held = nil, 0 // nothing of IPsec among them
		}
		return nil
	}
	if full || a.Follow && f.Time.Sub(a.waiting[0].Time) >= evaluateEvery {
		return a.decide()
	}
	return nil
}

// quiet looks at what there is when nothing more comes for now.
func (a *analysis) quiet() error {
	if !a.Follow {
		return nil
	}
	if a.target == nil {
		if len(a.survey.Pairs()) == 0 {
			return nil
		}
		if err := a.decide(); err != nil {
			return err
		}
	}
	if a.survey.Frames() == 0 {
		return nil // it has only just begun
	}
	a.tell(time.Now())
	return a.look(false)
}

// begin counts for the peer from now on, and what has waited first.
func (a *analysis) begin(t target) error {
	a.target = &t
	a.ifaces = map[string]bool{}
	peers := []capture.Peer{{Name: t.Name, Addrs: t.addrs, Local: t.LocalSubnets, Remote: t.RemoteSubnets}}
	for _, s := range t.siblings {
		peers = append(peers, capture.Peer{Name: s.Name, Addrs: s.addrs})
	}
	a.obs = capture.NewObserver(peers)
	waiting := a.waiting
	a.waiting, a.held = nil, 0
	for _, f := range waiting {
		if err := a.show(f); err != nil {
			return err
		}
	}
	return nil
}
