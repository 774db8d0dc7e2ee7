package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"vpnprobe/capture"
)

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
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var wrong error // what quiet came upon: it has no other way out
	quiet := func() {
		if wrong == nil {
			wrong = a.quiet()
		}
		if wrong != nil {
			stop()
		}
	}
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
			return a.ended(ctx, p, err, n)
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
func (a *analysis) ended(ctx context.Context, p *capture.PcapReader, err error, frames int) (again bool, _ error) {
	if p.Unfinished() && !a.Follow {
		a.Note(fmt.Sprintf("%s: a recording that is not finished: agent record was killed, or is still at work", a.name()))
	}
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
	case frames == 0 && errors.Is(err, io.ErrUnexpectedEOF) && !p.Begun():
		return false, fmt.Errorf("%s: empty, or cut within the header of a capture", a.name())
	case frames == 0 && errors.Is(err, io.ErrUnexpectedEOF):
		return false, fmt.Errorf("%s: cut before the end of its first packet", a.name())
	case frames == 0:
		return false, fmt.Errorf("%s: %w", a.name(), err)
	case errors.Is(err, io.ErrUnexpectedEOF):
		a.Note(fmt.Sprintf("%s: ends within a packet, as when its writer was killed: the report is on the %d before", a.name(), frames))
	default:
		a.Note(fmt.Sprintf("%s: broken after %d packets, which the report is on: %v", a.name(), frames, err))
	}
	return false, nil
}
