package pmtu

import (
	"context"
	"errors"
	"fmt"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/rawconn"
)

// maxTime is how long a search by ICMP may take, and maxIKETime one of an IKE
// port, unless it awaits complaints.
const (
	maxTime    = 5 * time.Second
	maxIKETime = 12 * time.Second
)

// Search searches for the largest packet that the target answers, regardless of
// what the kernel has learnt about the path. By ICMP it sends at most 60
// packets in at most 5 s (12 round trips, where these take more than 0.4 s),
// fragments counted singly: 3 for the size where the link's own MTU passes or a
// hop tells what fits, and 4 to a target that does not answer. With a size found, it sends a packet in fragments that fit, in
// both orders, as a path may lose these alone; and it looks, by limiting the
// time to live, for where a size that is too large without a word is lost.
//
// As a reply is as large as its request, what it finds holds for both
// directions unless routers may fragment the reply.
//
// The error is not nil when it was not possible to look.
func Search(ctx context.Context, cfg Config) (evidence.PathMTU, error) {
	return system.search(ctx, cfg, nil)
}

// system opens real sockets.
var system = engine{open: openConn, path: lookUpPath}

// engine is where sockets come from.
type engine struct {
	open func(Config) (conn, error)
	path func(Config) (mtu int, err error)
}

func lookUpPath(cfg Config) (int, error) {
	path, err := rawconn.LookUpPath(cfg.Target, cfg.options())
	return path.MTU, err
}

func (c *Config) options() rawconn.Options {
	return rawconn.Options{
		Source: c.Source, Interface: c.Interface,
		BypassIPsec: c.Role != evidence.Inner, ProbeMTU: true, FragmentSizes: true,
	}
}

// search runs a search. early, unless nil, gets the result before what
// [Config.Await] waits for.
func (e engine) search(ctx context.Context, cfg Config, early func(evidence.PathMTU)) (evidence.PathMTU, error) {
	return e.run(ctx, cfg, "search path MTU to", func(ctx context.Context, r *run, s *search) error {
		if cfg.ike() {
			return r.sizes(ctx, (&bisection{search: s}).next)
		}
		if err := r.sizes(ctx, s.next); err != nil {
			return err
		}
		return r.details(ctx, s)
	}, func(ctx context.Context, r *run, s *search) {
		if cfg.Await > 0 && r.h.fragmentsLost() {
			if early != nil {
				early(*r.res)
			}
			r.await(ctx, cfg.Await)
		}
	})
}

var errSweepIKE = errors.New("sweep path MTU: an IKE port would take it for an attack: sweep by ICMP")

// run opens a socket and does work with it within the time that a search has,
// and after that, without a limit, last.
func (e engine) run(ctx context.Context, cfg Config, what string, work func(context.Context, *run, *search) error, last func(context.Context, *run, *search)) (evidence.PathMTU, error) {
	limit := maxTime
	if cfg.ike() {
		limit = maxIKETime
	}
	return e.runFor(ctx, cfg, limit, what, work, last)
}

func (e engine) runFor(ctx context.Context, cfg Config, limit time.Duration, what string, work func(context.Context, *run, *search) error, last func(context.Context, *run, *search)) (evidence.PathMTU, error) {
	start := time.Now()
	res := evidence.PathMTU{Role: cfg.Role, Target: cfg.Target.Unmap(), Source: cfg.Source, Time: evidence.Some(start)}
	fail := func(err error) (evidence.PathMTU, error) {
		res.Took = evidence.Seconds(time.Since(start))
		return res, fmt.Errorf("%s %v: %w", what, res.Target, err)
	}
	if err := cfg.complete(); err != nil {
		return fail(err)
	}
	res.Probe = cfg.Probe
	c, err := e.open(cfg)
	if err != nil {
		return fail(err)
	}
	defer c.Close()
	r := newRun(cfg, c, &res)
	s, err := r.work(ctx, limit, work)
	if err := r.explain(err); err != nil {
		return fail(err)
	}
	res.Took = evidence.Seconds(time.Since(start))
	// Only now: what the kernel believes after all that came is what its own
	// packets are cut to.
	if mtu, err := e.path(cfg); err == nil {
		res.Cached = evidence.Some(mtu)
	}
	if s != nil && last != nil {
		last(ctx, r, s)
		r.finish(s)
	}
	return res, nil
}

// work does work within a limit of time, and fills in what it found. That the
// time is over leaves open what is not known yet, and is no error.
func (r *run) work(parent context.Context, limit time.Duration, work func(context.Context, *run, *search) error) (*search, error) {
	ctx, cancel := context.WithTimeout(parent, 4*limit)
	defer cancel()
	r.begun, r.limit = time.Now(), limit
	link, err := r.linkMTU(ctx)
	if err != nil {
		return nil, r.outcome(parent, ctx, err)
	}
	r.res.LinkMTU = evidence.Some(link)
	top := link
	if r.cfg.Max != 0 {
		top = min(top, r.cfg.Max)
	}
	s := newSearch(r.h, top)
	err = work(ctx, r, s)
	r.finish(s)
	return s, r.outcome(parent, ctx, err)
}

func (r *run) outcome(parent, ctx context.Context, err error) error {
	switch {
	case err == nil, errors.Is(err, errLate):
		return nil
	case parent.Err() != nil:
		return parent.Err()
	case ctx.Err() != nil:
		return nil
	}
	return err
}
