package capture

import (
	"context"
	"errors"
	"io"
	"os"
	"time"
)

// The ways in which a file that is followed stops being the one that was
// opened. What it held up to then was read.
var (
	ErrReplaced  = errors.New("the file was replaced by another")
	ErrTruncated = errors.New("the file was cut and begins anew")
)

// tailPause is the time between looks at a file that has not grown.
const tailPause = 200 * time.Millisecond

// Tail reads a file that is still being written. At its end it waits for more,
// until its context ends.
type Tail struct {
	ctx    context.Context
	path   string
	file   *os.File
	offset int64
	quiet  func()
	pause  time.Duration
}

// OpenTail opens a file to follow. quiet, unless it is nil, is called when all
// that was written has been read, and again and again while nothing more comes;
// the file is not read meanwhile.
func OpenTail(ctx context.Context, path string, quiet func()) (*Tail, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return &Tail{ctx: ctx, path: path, file: f, quiet: quiet, pause: tailPause}, nil
}

// Read reads what there is, or waits for it. It returns the context's error
// when that ends, and [ErrReplaced] or [ErrTruncated] when the file will not
// grow any more. A file whose name was only removed may still grow.
func (t *Tail) Read(b []byte) (int, error) {
	for {
		if err := t.ctx.Err(); err != nil {
			return 0, err
		}
		n, err := t.file.Read(b)
		t.offset += int64(n)
		if n > 0 || err != nil && err != io.EOF {
			return n, err
		}
		if why := t.ended(); why != nil {
			// The writer may have finished the file between our reading and
			// its being replaced.
			if n, err := t.file.Read(b); n > 0 {
				t.offset += int64(n)
				return n, err
			}
			return 0, why
		}
		if t.quiet != nil {
			t.quiet()
		}
		select {
		case <-t.ctx.Done():
		case <-time.After(t.pause):
		}
	}
}

// ended says why the file will not grow, or nil if it may.
func (t *Tail) ended() error {
	mine, err := t.file.Stat()
	if err != nil {
		return err
	}
	if mine.Size() < t.offset {
		return ErrTruncated
	}
	// A name that leads nowhere may come back as another file.
	if named, err := os.Stat(t.path); err == nil && !os.SameFile(mine, named) {
		return ErrReplaced
	}
	return nil
}

// Close closes the file.
func (t *Tail) Close() error { return t.file.Close() }
