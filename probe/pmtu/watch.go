package pmtu

import (
	"context"
	"time"

	"vpnprobe/evidence"
)

// Pace says how often [Watch] does what. A zero stands for the default.
type Pace struct {
	// Confirm is the time from one confirmation to the next; by default a
	// minute.
	Confirm time.Duration
	// Raise is the time from one search to the next, which sees what a
	// confirmation does not: by default the 10 minutes of RFC 8899 section
	// 5.1.1 (PMTU_RAISE_TIMER).
	Raise time.Duration
	// Sweep is the time from one sweep to the next, the first of which comes
	// after that time; by default a day, and negative for never. An IKE port is
	// never swept.
	Sweep time.Duration
}

// The default [Pace].
const (
	DefaultConfirm = time.Minute
	DefaultRaise   = 10 * time.Minute
	DefaultSweep   = 24 * time.Hour
)

func (p Pace) complete() Pace {
	if p.Confirm <= 0 {
		p.Confirm = DefaultConfirm
	}
	if p.Raise <= 0 {
		p.Raise = DefaultRaise
	}
	if p.Sweep == 0 {
		p.Sweep = DefaultSweep
	}
	return p
}

// complaintTime is how long a host may take to say that fragments are missing.
const complaintTime = 65 * time.Second

// Watch searches for the path MTU to a target until ctx ends, and calls report
// with the result of every search and sweep; one that lost fragments is
// reported again when the target complained of that, or had the time to. It
// confirms the result in between, and searches again at once when it does not
// hold; that a connection is lost is no reason. A search that finds nothing is
// repeated after the time for a confirmation, and then after ever longer ones.
// What could not be done is reported as a result that says so.
func Watch(ctx context.Context, cfg Config, pace Pace, report func(evidence.PathMTU)) {
	system.watch(ctx, cfg, pace.complete(), report)
}

func (e engine) watch(ctx context.Context, cfg Config, pace Pace, report func(evidence.PathMTU)) {
	if cfg.Await == 0 {
		cfg.Await = complaintTime
	}
	sweepAt := time.Now().Add(pace.Sweep)
	retry := pace.Confirm
	for ctx.Err() == nil {
		var m evidence.PathMTU
		var err error
		begun := time.Now()
		if pace.Sweep > 0 && !cfg.ike() && !begun.Before(sweepAt) {
			sweepAt = begun.Add(pace.Sweep)
			m, err = e.sweep(ctx, cfg)
		} else {
			m, err = e.search(ctx, cfg, report)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			m.CannotLook = err.Error()
		}
		report(m)
		if m.State == evidence.MTUUnknown {
			sleep(ctx, retry)
			retry = min(2*retry, max(pace.Raise, pace.Confirm))
			continue
		}
		retry = pace.Confirm
		raiseAt := begun.Add(pace.Raise)
		if len(m.Bogus) > 0 {
			// Each packet that is too large draws the lie again, and the kernel
			// would never forget it.
			raiseAt = begun.Add(max(pace.Raise, DefaultSweep))
		}
		if pace.Sweep > 0 && sweepAt.Before(raiseAt) {
			raiseAt = sweepAt
		}
		e.hold(ctx, cfg, pace, m, raiseAt)
	}
}

// hold confirms a result until it no longer holds, or until a time.
func (e engine) hold(ctx context.Context, cfg Config, pace Pace, m evidence.PathMTU, until time.Time) {
	for {
		left := time.Until(until)
		if left <= pace.Confirm {
			sleep(ctx, left)
			return
		}
		sleep(ctx, pace.Confirm)
		if ctx.Err() != nil {
			return
		}
		// An error is that of a moment, or the next search says it too.
		if _, holds, err := e.confirm(ctx, cfg, m); err == nil && holds == evidence.No {
			return
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
