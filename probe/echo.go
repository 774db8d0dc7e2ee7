package probe

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"vpnprobe/evidence"
)

// EchoConfig describes the echo requests to one address.
type EchoConfig struct {
	Target netip.Addr
	Role   evidence.Role
	// Source is the address to send from; the zero Addr lets the kernel choose.
	Source netip.Addr
	// Interface is the one to send on; "" leaves it to the routes. Replies are
	// accepted from any.
	Interface string
	// Interval is the time between requests; 1 s if zero.
	Interval time.Duration
	// Timeout is how long after a request a reply counts as one; 1 s if zero.
	// A reply within twice that is still seen, as late.
	Timeout time.Duration
	// Size is the payload of a request in bytes; 56, ping's own, if zero, and
	// never less than the 24 that pro-bing needs.
	Size int
}

// The sizes of an echo request's payload in bytes: ping's own, and a
// timestamp and an identifier, which pro-bing puts into each.
const (
	defaultEchoSize = 56
	minEchoSize     = 24
)

func (c EchoConfig) withDefaults() EchoConfig {
	c.Target, c.Source = c.Target.Unmap(), c.Source.Unmap()
	if c.Interval <= 0 {
		c.Interval = time.Second
	}
	if c.Timeout <= 0 {
		c.Timeout = time.Second
	}
	if c.Size == 0 {
		c.Size = defaultEchoSize
	}
	c.Size = max(c.Size, minEchoSize)
	return c
}

// pinger sends echo requests to one address.
type pinger interface {
	// ping sends one echo request and returns when ctx ends. It calls sent
	// when the request has left this host, then reply with the round-trip
	// time of every reply to it. An error says why the request could not be
	// sent or, after sent, why it can no longer be heard of.
	ping(ctx context.Context, sent func(), reply func(rtt time.Duration)) error
}

// errorWatch hears the ICMP errors about the echo requests to one address.
type errorWatch interface {
	// receive returns the next one. It fails when the watch is closed.
	receive() (echoError, error)
	close()
}

// Echo probes one address with echo requests.
//
// Each request is a cycle of pro-bing of its own, with a socket of its own,
// started by Echo's clock. That bounds everything that a cycle can do wrong:
// what stops or fails one request does not touch those in flight; a target
// without a route is tried again with the next request; and the cadence is
// Echo's, not the sum of what cycles take. The cost is about that of a socket
// that stays open, which pro-bing polls about 20 times a second: an answered
// request's socket is closed soon after the answer.
//
// pro-bing discards ICMP errors. A socket beside it hears those about its
// requests, where this process has CAP_NET_RAW; without, they go unseen.
type Echo struct {
	cfg   EchoConfig
	open  func(EchoConfig) (pinger, error)
	watch func(EchoConfig) (errorWatch, error)
}

// NewEcho returns a prober that has sent nothing and holds nothing.
func NewEcho(cfg EchoConfig) *Echo {
	return &Echo{cfg: cfg.withDefaults(), open: openProBing, watch: watchEchoErrors}
}

const (
	// echoSlack is what the scheduling of this process may account for: by so
	// much longer than its timeout a request stays unresolved, so that a reply
	// that arrived in time is not a loss for having been read late.
	echoSlack = 20 * time.Millisecond
	// duplicateWait is how long after an answer a request's socket stays open
	// for duplicates. They come from the network's doubled paths, so soon.
	duplicateWait = 100 * time.Millisecond
)

// Run sends one request at once and then one every Interval, until ctx ends or,
// if count is positive, until count requests are resolved. It calls emit, from
// one goroutine at a time, with each resolved request and each later event
// about one. Requests in flight when ctx ends are not counted at all.
//
// An error means that no echo request can be sent whatever the network does,
// and names the permission that is missing. ctx ending is not an error.
func (e *Echo) Run(ctx context.Context, count int, emit func(evidence.EchoResult)) error {
	p, err := e.open(e.cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &echoSession{
		cfg:     e.cfg,
		pinger:  p,
		openErr: e.watch,
		events:  make(chan func()),
		stale:   true,
	}
	s.ledger = newEchoLedger(e.cfg, func(r evidence.EchoResult) {
		// Without an answer the way to the target may have changed, and with
		// it the source address that the watch is about.
		s.stale = s.stale || r.Outcome == evidence.EchoLost || r.Outcome == evidence.EchoSendError
		emit(r)
	})
	// In this order: every goroutine gives up on its event when ctx ends.
	defer s.running.Wait()
	defer s.unwatch()
	defer cancel()
	s.run(ctx, count)
	return nil
}

// echoSession is one Run. Its methods are called by the goroutine of Run; the
// others hand it what they have by do.
type echoSession struct {
	cfg     EchoConfig
	pinger  pinger
	openErr func(EchoConfig) (errorWatch, error)
	ledger  *echoLedger
	events  chan func()
	running sync.WaitGroup

	watching errorWatch // nil if there is none
	stale    bool       // watching may be about another source address
}

func (s *echoSession) run(ctx context.Context, count int) {
	due := time.Now()
	send := time.NewTimer(0)
	defer send.Stop()
	expire := time.NewTimer(s.cfg.Timeout)
	defer expire.Stop()

	for started := 0; count <= 0 || started < count || s.ledger.unresolved() > 0; {
		select {
		case <-ctx.Done():
			return
		case f := <-s.events:
			f()
		case <-send.C:
			if ctx.Err() != nil || count > 0 && started >= count {
				continue
			}
			s.start(ctx, started)
			started++
			due = nextDue(due, time.Now(), s.cfg.Interval)
			send.Reset(time.Until(due))
		case <-expire.C:
			s.drain() // an answer that waits for its turn is not a loss
			s.ledger.expire(time.Now())
		}
		if at, ok := s.ledger.nextExpiry(); ok {
			expire.Reset(time.Until(at))
		}
	}
}

// nextDue returns when to send next. The schedule is absolute, so that what a
// request takes does not shift those that follow. What was missed by a whole
// interval, such as when this host slept, is not made up for.
func nextDue(due, now time.Time, interval time.Duration) time.Time {
	missed := max(0, now.Sub(due)/interval)
	return due.Add((missed + 1) * interval)
}

func (s *echoSession) drain() {
	for {
		select {
		case f := <-s.events:
			f()
		default:
			return
		}
	}
}

// do has f called by the goroutine of Run, unless ctx ends first.
func (s *echoSession) do(ctx context.Context, f func()) {
	select {
	case s.events <- f:
	case <-ctx.Done():
	}
}

// start sends request n and follows it until no reply to it is awaited.
func (s *echoSession) start(ctx context.Context, n int) {
	if s.stale {
		s.rewatch(ctx)
	}
	s.ledger.start(n, time.Now())
	s.running.Go(func() {
		life, cancel := context.WithTimeout(ctx, 2*s.cfg.Timeout+2*echoSlack)
		defer cancel()
		answered := false
		err := s.pinger.ping(life,
			func() {
				at := time.Now()
				s.do(ctx, func() { s.ledger.sent(n, at) })
			},
			func(rtt time.Duration) {
				if !answered {
					answered = true
					time.AfterFunc(duplicateWait, cancel)
				}
				s.do(ctx, func() { s.ledger.reply(n, rtt) })
			})
		at := time.Now()
		s.do(ctx, func() { s.ledger.end(n, at, err) })
	})
}

// rewatch opens the watch, or opens it anew. Without one, which needs
// CAP_NET_RAW and a route, requests are sent all the same.
func (s *echoSession) rewatch(ctx context.Context) {
	w, err := s.openErr(s.cfg)
	s.unwatch() // after the new one is open, so that nothing passes unseen
	s.stale = err != nil
	if err != nil {
		return
	}
	s.watching = w
	s.running.Go(func() {
		for {
			e, err := w.receive()
			if err != nil {
				return
			}
			s.do(ctx, func() { s.ledger.icmp(e) })
		}
	})
}

func (s *echoSession) unwatch() {
	if s.watching != nil {
		s.watching.close()
		s.watching = nil
	}
}
