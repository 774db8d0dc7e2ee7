package agent

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"
)

// supervise runs a task until ctx ends. A task that fails or panics is told
// of once and tried again: no task ever ends another.
func (p *peer) supervise(ctx context.Context, name string, task func(context.Context) error) {
	supervise(ctx, p.log.With("task", name), p.pace.beat, task)
}

func supervise(ctx context.Context, log *slog.Logger, pause time.Duration, task func(context.Context) error) {
	said := ""
	for ctx.Err() == nil {
		err := recovered(ctx, task)
		if err != nil && ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			log.Warn("cannot look", "err", err)
		}
		if !sleep(ctx, pause) {
			return
		}
	}
}

// recovered turns a panic of one task into its error.
func recovered(ctx context.Context, task func(context.Context) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	return task(ctx)
}

// sleep waits, and reports whether ctx let it.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
