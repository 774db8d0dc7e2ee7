package capture

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Pipe reads a pipe, such as standard input, until its writer closes it or a
// context ends. A plain read could not be interrupted, and to make the file
// non-blocking would do the same to every process that shares it.
type Pipe struct {
	ctx   context.Context
	file  *os.File
	quiet func()
	grace time.Duration
	until time.Time // once the context has ended
}

// pipeGrace is how long what the writer still has is waited for after the
// context ended: an interrupt from the terminal ends tcpdump as well, which
// then writes what it has kept.
const pipeGrace = 2 * time.Second

// NewPipe returns a reader of the file, which stays its owner's to close.
// quiet, unless it is nil, is called again and again while nothing comes; the
// file is not read meanwhile.
func NewPipe(ctx context.Context, f *os.File, quiet func()) *Pipe {
	return &Pipe{ctx: ctx, file: f, quiet: quiet, grace: pipeGrace}
}

// Read reads what there is, or waits for it. When the context has ended, it
// returns its error as soon as nothing more comes, and no later than some
// seconds after.
func (p *Pipe) Read(b []byte) (int, error) {
	for {
		ended := p.ctx.Err()
		if ended != nil && p.until.IsZero() {
			p.until = time.Now().Add(p.grace)
		}
		if ended != nil && time.Now().After(p.until) {
			return 0, ended
		}
		fds := []unix.PollFd{{Fd: int32(p.file.Fd()), Events: unix.POLLIN}}
		switch n, err := unix.Poll(fds, int(tailPause/time.Millisecond)); {
		case err == unix.EINTR:
		case err != nil:
			return 0, fmt.Errorf("poll: %w", err)
		case n > 0:
			return p.file.Read(b)
		case ended != nil:
			return 0, ended
		case p.quiet != nil:
			p.quiet()
		}
	}
}
