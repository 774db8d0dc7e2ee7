package probe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/rawconn"
)

// DefaultPathMTUTimeout is how long a round of a path MTU search waits for
// answers, unless configured otherwise. RFC 8899 section 5.1.1 wants more
// patience of a sender that probes for ever; a search has a budget instead
// ([SearchPathMTU]) and repeats itself before it believes in a loss.
const DefaultPathMTUTimeout = 300 * time.Millisecond

const (
	// maxMTUTime is how long one search may take.
	maxMTUTime = 5 * time.Second
	// mtuPacing is the time between two packets of one round.
	mtuPacing = 2 * time.Millisecond
	// maxPacket is the largest IP packet, in bytes.
	maxPacket = 65535
)

// PathMTUConfig says between which addresses to search, and how far.
type PathMTUConfig struct {
	Target netip.Addr
	// Role decides whether this host's IPsec policies apply to the probes:
	// only to those of [evidence.Inner], which are to go through the tunnel.
	Role evidence.Role
	// Source is the address to send from; the zero Addr leaves it to routing.
	Source netip.Addr
	// Interface binds the probes to an interface; "" does not.
	Interface string
	// Timeout is how long each round waits; 0 means [DefaultPathMTUTimeout].
	// A round waits for at least two round-trip times.
	Timeout time.Duration
	// Max is the largest packet to try, in bytes with the IP header; 0 means
	// the MTU of the outgoing interface. A path that passes Max counts as full.
	Max int
}

// icmpConn is the socket of a search or a hop probe.
type icmpConn interface {
	Send(to netip.Addr, seq uint16, size int) error
	Receive(ctx context.Context) (rawconn.EchoEvent, error)
	SetTTL(ttl int) error
	Close() error
}

// SearchPathMTU searches for the largest packet that the target answers, with
// ICMP echo requests that must not be fragmented, regardless of what the kernel
// has learnt about the path. It sends at most 60 packets in at most 5 s, and
// only 3 to a target that does not answer. "Too big" messages that come are
// learnt by the kernel too, as with any packet.
//
// As a reply is as large as its request, what it finds holds for both
// directions unless routers may fragment the reply.
//
// The error is not nil when it was not possible to look.
func SearchPathMTU(ctx context.Context, cfg PathMTUConfig) (evidence.PathMTU, error) {
	cfg.Target = cfg.Target.Unmap()
	res := evidence.PathMTU{Role: cfg.Role, Target: cfg.Target, Time: evidence.Some(time.Now())}
	fail := func(err error) (evidence.PathMTU, error) {
		return res, fmt.Errorf("search path MTU to %v: %w", cfg.Target, err)
	}
	least := minMTU4
	if cfg.Target.Is6() {
		least = minMTU6
	}
	if cfg.Max != 0 && (cfg.Max < least || cfg.Max > maxPacket) {
		return fail(fmt.Errorf("maximum of %d bytes: want %d to %d, or 0", cfg.Max, least, maxPacket))
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = DefaultPathMTUTimeout
	}
	opts := rawconn.Options{
		Source: cfg.Source, Interface: cfg.Interface,
		BypassIPsec: cfg.Role != evidence.Inner, ProbeMTU: true,
	}
	conn, err := rawconn.OpenEcho(cfg.Target.Is6(), opts)
	if err != nil {
		return fail(err)
	}
	defer conn.Close()
	p := &mtuProbe{cfg: cfg, conn: conn, seqs: map[uint16]mtuPacket{}, res: &res}
	if err := p.run(ctx); err != nil {
		return fail(err)
	}
	// Only now: what the kernel believes after all that came is what its own
	// packets are cut to.
	if path, err := rawconn.LookUpPath(cfg.Target, opts); err == nil {
		res.Cached = evidence.Some(path.MTU)
	}
	return res, nil
}

// mtuProbe carries an mtuSearch out.
type mtuProbe struct {
	cfg    PathMTUConfig
	conn   icmpConn
	search *mtuSearch
	seq    uint16
	seqs   map[uint16]mtuPacket // what was sent
	open   int                  // how many of this round are undecided
	round  int
	rtt    time.Duration // longest seen
	res    *evidence.PathMTU
}

type mtuPacket struct {
	size    int
	round   int
	at      time.Time
	decided bool
}

// run fills in p.res. It returns an error when it cannot look, and leaves what
// a lack of time or budget left open.
func (p *mtuProbe) run(parent context.Context) error {
	ctx, cancel := context.WithTimeout(parent, maxMTUTime)
	defer cancel()
	link, err := p.linkMTU(ctx)
	if err == nil {
		p.res.LinkMTU = evidence.Some(link)
		top := link
		if p.cfg.Max != 0 {
			top = min(top, p.cfg.Max)
		}
		p.search = newMTUSearch(p.cfg.Target.Is6(), top)
		err = p.rounds(ctx)
		p.finish()
	}
	switch reason := sendReason(err); {
	case err == nil:
		return nil
	case parent.Err() != nil:
		return parent.Err()
	case ctx.Err() != nil:
		return nil
	case reason != evidence.OtherSend:
		p.res.CannotLook = fmt.Sprintf("%s: %v", reason, err)
		return nil
	}
	return err
}

func (p *mtuProbe) finish() {
	p.res.State = p.search.state()
	p.res.Sizes = p.search.results()
	p.res.Packets = p.search.packets
	if n := p.search.largest(); n > 0 {
		p.res.MTU = evidence.Some(n)
	}
}

// linkMTU asks the kernel for the MTU of the interface that the probes leave
// by, by sending one that is too large for any: it refuses it, and says why.
// Unlike a look at the routes, this cannot be about another interface.
func (p *mtuProbe) linkMTU(ctx context.Context) (int, error) {
	err := p.conn.Send(p.cfg.Target, p.seq, maxPacket)
	p.seq++
	switch {
	case err == nil:
		return maxPacket, nil // a loopback interface
	case !errors.Is(err, syscall.EMSGSIZE):
		return 0, err
	}
	for {
		ev, err := p.conn.Receive(ctx)
		if err != nil {
			return 0, err
		}
		if ev.Err != nil && ev.Err.Local && ev.Err.MTU > 0 {
			return ev.Err.MTU, nil
		}
	}
}

func (p *mtuProbe) rounds(ctx context.Context) error {
	for {
		sizes := p.search.next()
		if len(sizes) == 0 {
			return nil
		}
		p.round++
		p.open = 0
		for _, size := range sizes {
			if err := p.send(size); err != nil {
				return err
			}
			if err := p.collect(ctx, time.Now().Add(mtuPacing), false); err != nil {
				return err
			}
		}
		wait := max(p.cfg.Timeout, 2*p.rtt)
		if err := p.collect(ctx, time.Now().Add(wait), true); err != nil {
			return err
		}
	}
}

// send sends one packet. Any refusal of a small one ends the search; a larger
// one that this host drops is lost as at any other hop.
func (p *mtuProbe) send(size int) error {
	seq := p.seq
	p.seq++
	at := time.Now()
	switch err := p.conn.Send(p.cfg.Target, seq, size); {
	case err == nil:
		p.open++
		p.seqs[seq] = mtuPacket{size: size, round: p.round, at: at}
	case errors.Is(err, syscall.EMSGSIZE):
		p.search.refused(size)
		return nil
	case size == smallSize:
		return err
	}
	p.search.sent(size)
	return nil
}

// collect handles what is received until a time, or, if early, until every
// packet of the round is decided.
func (p *mtuProbe) collect(ctx context.Context, until time.Time, early bool) error {
	wctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	for !early || p.open > 0 {
		ev, err := p.conn.Receive(wctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, context.DeadlineExceeded):
			return nil
		case err != nil:
			return err
		}
		p.receive(ev)
	}
	return nil
}

func (p *mtuProbe) receive(ev rawconn.EchoEvent) {
	if ev.Err != nil && ev.Err.Local {
		if ev.Err.MTU > 0 {
			p.search.refusedAbove(ev.Err.MTU)
		}
		return
	}
	pkt, ok := p.seqs[ev.Seq]
	if !ok || pkt.decided {
		return // not ours, or a duplicate
	}
	if ev.Err == nil {
		if ev.From.WithZone("") != p.cfg.Target.WithZone("") {
			return
		}
		p.search.answered(pkt.size)
		p.rtt = max(p.rtt, ev.Time.Sub(pkt.at))
	} else {
		e := icmpError(p.cfg.Target.Is6(), ev.Err)
		if e.Reason != evidence.FragNeeded {
			return // the next attempt tells
		}
		p.search.tooBig(pkt.size, e.MTU.Or(0))
		p.res.TooBig = countICMP(p.res.TooBig, e)
	}
	if pkt.round == p.round {
		p.open--
	}
	pkt.decided = true
	p.seqs[ev.Seq] = pkt
}

func countICMP(list []evidence.CountedICMPError, e evidence.ICMPError) []evidence.CountedICMPError {
	for i := range list {
		if list[i].ICMPError == e {
			list[i].Count++
			return list
		}
	}
	return append(list, evidence.CountedICMPError{ICMPError: e, Count: 1})
}
