package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
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
	// capture's own time, and up to an eighth more. 0 is all of it; but where
	// all of it looks healthy and its end alone does not, the report is on the
	// end, and a note says so.
	Last   time.Duration
	Follow bool // go on reading as the capture grows, until the context ends

	// Note is told, in one line each, what the reader of the report should
	// know of the capture.
	Note func(string)
	// Report is given the report; with Follow, one whenever the diagnosis
	// has changed, and one at the end if nothing was reported before.
	Report func(*diagnosis.Report) error
}

// ErrNoTraffic means that a capture holds nothing that a diagnosis could be
// made of.
var ErrNoTraffic = errors.New("no packet of IPsec in it: neither ESP nor AH nor IKE")

// Run reads the capture. It returns ErrNoTraffic, wrapped, when there is nothing
// in it to tell the peer by, and other errors when it cannot be read at all or
// the peer cannot be told. A capture that ends in the middle, or that ctx ends,
// is reported on as far as it was read.
func (o Offline) Run(ctx context.Context, cfg *config.Config) error {
	a := &analysis{Offline: o, cfg: cfg, span: cmp.Or(o.Last, endSpan)}
	if err := a.known(ctx); err != nil {
		return err
	}
	if a.target == nil && !o.Follow && a.seekable() {
		if err := a.pass(ctx, func(capture.Frame) error { return nil }); err != nil {
			return err
		}
		if err := a.decide(); err != nil {
			return err
		}
		a.survey = capture.Survey{}
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

// analysis is one reading of a capture.
type analysis struct {
	Offline
	cfg    *config.Config
	span   time.Duration // how far back readings are kept
	among  []target      // configured peers, while none is chosen
	survey capture.Survey

	target  *target // nil until the peer is known
	waiting []capture.Frame
	held    int // bytes in waiting

	obs     *capture.Observer
	drops   func() uint64 // of the file that is being read
	dropped uint64        // of the files before it
	ifaces  map[string]bool
	marks   []mark
	looked  time.Time // capture time of the last look
	fresh   bool      // frames came since then
	said    string    // the diagnosis that was reported last
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

// pass shows every frame of the capture, and of the files that take its place
// while it is followed.
func (a *analysis) pass(ctx context.Context, show func(capture.Frame) error) error {
	for {
		again, err := a.readOne(ctx, show)
		if err != nil || !again {
			return err
		}
	}
}

// readOne reads one file to its end, and reports whether another one takes its
// place.
func (a *analysis) readOne(ctx context.Context, show func(capture.Frame) error) (again bool, err error) {
	var wrong error // what quiet came upon: it has no other way out
	quiet := func() { wrong = errors.Join(wrong, a.quiet()) }
	r, closing, err := a.open(ctx, quiet)
	if err != nil {
		return false, err
	}
	defer closing()
	p := capture.NewPcapReader(r)
	a.drops = p.Dropped
	defer func() {
		a.dropped += p.Dropped()
		a.drops = nil
	}()
	for n := 0; ; n++ {
		f, err := p.Next()
		if wrong != nil {
			return false, wrong
		}
		if err != nil {
			return a.ended(ctx, err, n)
		}
		a.survey.Packet(f)
		if err := show(f); err != nil {
			return false, err
		}
	}
}

func (a *analysis) open(ctx context.Context, quiet func()) (r io.Reader, closing func(), err error) {
	switch {
	case a.Path == "":
		return capture.NewPipe(ctx, a.Stdin, quiet), func() {}, nil
	case a.Follow:
		t, err := capture.OpenTail(ctx, a.Path, quiet)
		if err != nil {
			return nil, nil, err
		}
		return t, func() { t.Close() }, nil
	}
	f, err := os.Open(a.Path)
	if err != nil {
		return nil, nil, err
	}
	if info, err := f.Stat(); err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		return capture.NewPipe(ctx, f, quiet), func() { f.Close() }, nil // a named pipe
	}
	return whileAlive{ctx, f}, func() { f.Close() }, nil
}

// whileAlive reads until a context ends.
type whileAlive struct {
	ctx context.Context
	r   io.Reader
}

func (w whileAlive) Read(b []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.r.Read(b)
}

// ended says what the end of a file after some frames means.
func (a *analysis) ended(ctx context.Context, err error, frames int) (again bool, _ error) {
	switch {
	case err == io.EOF:
		return false, nil
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		if !a.Follow {
			a.Note(fmt.Sprintf("%s: interrupted: the report is on the first %d packets", a.name(), frames))
		}
		return false, nil
	case errors.Is(err, capture.ErrReplaced) || errors.Is(err, capture.ErrTruncated):
		a.Note(fmt.Sprintf("%s: %v: reading it from its beginning", a.name(), err))
		if a.obs != nil {
			for iface := range a.ifaces {
				a.obs.Gap(iface)
			}
		}
		return true, nil
	case frames == 0 && errors.Is(err, io.ErrUnexpectedEOF):
		return false, fmt.Errorf("%s: empty, or shorter than the header of a capture", a.name())
	case frames == 0:
		return false, fmt.Errorf("%s: %w", a.name(), err)
	case errors.Is(err, io.ErrUnexpectedEOF):
		a.Note(fmt.Sprintf("%s: ends within a packet, as when its writer was killed: the report is on the %d before", a.name(), frames))
	default:
		a.Note(fmt.Sprintf("%s: broken after %d packets, which the report is on: %v", a.name(), frames, err))
	}
	return false, nil
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
	a.fresh = true
	a.mark(f.Time)
	if a.Follow && f.Time.Sub(a.looked).Abs() >= evaluateEvery {
		a.looked = f.Time
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
