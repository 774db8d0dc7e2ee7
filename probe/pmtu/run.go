package pmtu

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/probe"
)

// pacing is the time between two packets of one round.
const pacing = 2 * time.Millisecond

// maxPackets is how many packets a search or a confirmation may send.
const maxPackets = 60

// run is one run of a search, a confirmation or a sweep.
type run struct {
	cfg    Config
	conn   conn
	h      *history
	res    *evidence.PathMTU
	budget int // of packets
	pacing time.Duration
	round  int
	rtt    time.Duration // longest seen
	begun  time.Time
	limit  time.Duration // of the whole run
	look   bool          // at the DF bit, even where nothing hints at it
}

func newRun(cfg Config, c conn, res *evidence.PathMTU) *run {
	r := &run{cfg: cfg, conn: c, res: res, budget: maxPackets, pacing: pacing}
	r.h = newHistory(max(smallSize, c.Smallest()), cfg.minMTU(), cfg.Loss)
	if cfg.ike() {
		r.budget, r.pacing, r.h.singly = maxIKEPackets, ikePacing, true
	}
	return r
}

// linkMTU asks the kernel for the MTU of the interface that the probes leave
// by, by sending one that is too large for any: it refuses it, and says why.
// Unlike a look at the routes, this cannot be about another interface.
func (r *run) linkMTU(ctx context.Context) (int, error) {
	err := r.conn.Send(packet{seq: ^uint16(0), size: maxPacket})
	switch {
	case err == nil:
		return maxPacket, nil // a loopback interface
	case !errors.Is(err, syscall.EMSGSIZE):
		return 0, err
	}
	for {
		ev, err := r.conn.Receive(ctx)
		if err != nil {
			return 0, err
		}
		if ev.news == localLimit && ev.mtu > 0 {
			return ev.mtu, nil
		}
	}
}

// sizes sends whole packets of the sizes that next returns, until it returns
// none, or none that can be sent.
func (r *run) sizes(ctx context.Context, next func() []int) error {
	for {
		sizes := next()
		if len(sizes) == 0 {
			return nil
		}
		list := make([]packet, len(sizes))
		for i, n := range sizes {
			list[i].size = n
		}
		sent, refused := len(r.h.list), len(r.h.local)
		if err := r.send(ctx, list); err != nil {
			return err
		}
		if len(r.h.list) == sent && len(r.h.local) == refused {
			return ctx.Err() // nothing new will come of asking again
		}
	}
}

// patience is how many of the longest round trips a search may take, where that
// is more than its time: on a path so slow, that is some six rounds.
const patience = 12

// errLate ends a search whose time does not suffice for another round.
var errLate = errors.New("out of time")

// send sends one round of packets and waits for what comes back, until all are
// decided or the time is over. Packets that the budget has no room for are left
// out.
func (r *run) send(ctx context.Context, list []packet) error {
	wait := max(r.cfg.Timeout, min(2*r.rtt, r.rtt+DefaultTimeout))
	if time.Since(r.begun)+wait > max(r.limit, patience*r.rtt) {
		return errLate
	}
	r.round++
	first := len(r.h.list)
	for i, p := range list {
		if r.h.packets+cost(p) > r.budget {
			break
		}
		before := len(r.h.list)
		if err := r.sendOne(p); err != nil {
			return err
		}
		if i == len(list)-1 && !r.h.singly && len(r.h.list) > before {
			break // the wait follows; after a refusal, what this host says of it
		}
		if err := r.collect(ctx, time.Now().Add(r.pacing), nil); err != nil {
			return err
		}
	}
	open := func() bool {
		return slices.ContainsFunc(r.h.list[first:], func(a *attempt) bool { return !a.decided() })
	}
	err := r.collect(ctx, time.Now().Add(wait), open)
	for _, a := range r.h.list[first:] {
		a.settled = true
	}
	return err
}

// cost is how many IP packets a probe takes.
func cost(p packet) int {
	if p.form == whole || p.fragment <= 0 {
		return 1
	}
	return (p.size + p.fragment - 1) / p.fragment
}

// sendOne sends one packet. Any refusal of a small one ends the run; a larger
// one that this host drops is lost as at any other hop.
func (r *run) sendOne(p packet) error {
	p.seq = uint16(len(r.h.list))
	a := &attempt{packet: p, at: time.Now(), round: r.round}
	switch err := r.conn.Send(p); {
	case errors.Is(err, syscall.EMSGSIZE) && p.form == whole:
		if p.ttl == 0 {
			r.h.local[p.size] = true
		}
		return nil
	case err != nil && p.size == r.h.small:
		return err
	case err != nil && len(r.h.list) == 0:
		return err // nothing says that it is for the size
	}
	r.h.list = append(r.h.list, a)
	r.h.packets += cost(p)
	return nil
}

// collect handles what is received until a time, or while something is open.
func (r *run) collect(ctx context.Context, until time.Time, open func() bool) error {
	wctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	for open == nil || open() {
		ev, err := r.conn.Receive(wctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, context.DeadlineExceeded):
			return nil
		case err != nil:
			return err
		}
		r.receive(ev)
	}
	return nil
}

func (r *run) receive(ev event) {
	if ev.news == localLimit {
		if link := r.res.LinkMTU.Or(maxPacket); ev.mtu > 0 && ev.mtu < link && len(r.h.limits) < maxSaid && !slices.Contains(r.h.limits, ev.mtu) {
			r.h.limits = append(r.h.limits, ev.mtu)
		}
		return
	}
	if int(ev.seq) >= len(r.h.list) {
		return // not ours
	}
	a := r.h.list[ev.seq]
	if a.form == whole {
		r.clear(ev.quote.cleared())
	}
	if ev.news == icmpError {
		if len(a.said) < maxSaid && !slices.Contains(a.said, ev.icmp) {
			a.said = append(a.said, ev.icmp)
		}
		return
	}
	if a.answered || ev.from.WithZone("") != r.cfg.Target.WithZone("") {
		return
	}
	a.answered = true
	r.rtt = max(r.rtt, ev.at.Sub(a.at))
	if ev.fragment > r.res.ReplyFragment.Or(0) && a.form == whole {
		r.res.ReplyFragment = evidence.Some(ev.fragment)
	}
}

// clear notes what a quote said of the DF bit: a packet that lost it counts
// for more than any that did not, as it may have met fewer hops.
func (r *run) clear(f evidence.Fact) {
	if f == evidence.Yes || r.res.Cleared == evidence.Unknown {
		r.res.Cleared = f
	}
}

// finish fills in what the history tells.
func (r *run) finish(s *search) {
	res := r.res
	res.State = s.state()
	res.MTU = evidence.Opt[int]{}
	if n := s.largest(); n > 0 {
		res.MTU = evidence.Some(n)
	}
	res.Holes = s.holes()
	res.Sizes = r.h.results()
	res.Packets = r.h.packets
	res.Small = r.h.tried(func(a *attempt) bool { return a.counts() && a.size == r.h.small })
	res.Fragmented.Tried = r.h.tried(func(a *attempt) bool { return a.form == fragmented })
	res.Fragmented.Reversed = r.h.tried(func(a *attempt) bool { return a.form == reversed })
	res.Fragmented.Expired = r.h.expired(r.cfg.v6())
	res.TooBig, res.Bogus = r.h.tooBig()
}

// explain turns a failure to send, which is about this host, into what the
// result says of it.
func (r *run) explain(err error) error {
	if reason := probe.SendReason(err); err != nil && reason != evidence.OtherSend {
		r.res.CannotLook = fmt.Sprintf("%s: %v", reason, err)
		return nil
	}
	return err
}
