package pmtu

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"vpnprobe/evidence"
)

var (
	simTarget = netip.MustParseAddr("198.51.100.2")
	simRouter = netip.MustParseAddr("192.0.2.254")
)

const ms = time.Millisecond

// simPath is a network path in virtual time, with this host's end of it.
type simPath struct {
	link, mtu int // of the first link, and of the narrowest
	rtt       time.Duration
	loss      float64 // of requests with their replies
	// burst, if not 0, makes losses come in times of this length, each of
	// which loses all.
	burst time.Duration
	// claim is what a router says that fits where a packet does not; 0 if it
	// says nothing.
	claim    int
	claims   int // how many times it says so; 0 is always
	hole     evidence.SizeRange
	limit    int // of what this host itself refuses to send
	noFrag   bool
	noRevers bool
	hops     int                 // routers on the way; the narrow link is behind the last but one
	dead     func(sent int) bool // whether the nth packet meets a dead path
	refused  error               // what each send is refused for
	random   *rand.Rand

	sent, said int
	badUntil   time.Time
	goodUntil  time.Time
	events     chan event
	kinds      []form
	searches   int
	changeAt   time.Time
	change     func()
}

func (p simPath) with(seed uint64) *simPath {
	p.random = rand.New(rand.NewPCG(seed, 7))
	return &p
}

func (p *simPath) lost() bool {
	if p.loss == 0 {
		return false
	}
	if p.burst == 0 {
		return p.random.Float64() < p.loss
	}
	// Times of losing all and nothing, exponentially distributed, of which the
	// former make up the loss.
	now := time.Now()
	for !now.Before(p.goodUntil) {
		begin := p.goodUntil
		if begin.IsZero() {
			begin = now.Add(-time.Second)
		}
		bad := time.Duration(p.random.ExpFloat64() * float64(p.burst))
		good := time.Duration(p.random.ExpFloat64() * float64(p.burst) * (1 - p.loss) / p.loss)
		p.badUntil = begin.Add(bad)
		p.goodUntil = p.badUntil.Add(good)
	}
	return now.Before(p.badUntil)
}

func (p *simPath) Send(k packet) error {
	if p.change != nil && !time.Now().Before(p.changeAt) {
		p.change()
		p.change = nil
	}
	switch {
	case p.refused != nil:
		return p.refused
	case k.form == whole && k.size > p.link:
		p.events <- event{news: localLimit, mtu: p.link}
		return syscall.EMSGSIZE
	case k.form == whole && p.limit > 0 && k.size > p.limit:
		p.events <- event{news: localLimit, mtu: p.limit}
		return syscall.EMSGSIZE
	}
	p.sent++
	p.kinds = append(p.kinds, k.form)
	ev := event{news: answer, seq: k.seq, from: simTarget}
	said := evidence.ICMPError{Reason: evidence.FragNeeded, Type: 3, Code: 4, MTU: evidence.Some(p.claim), Offender: evidence.Some(simRouter)}
	size := k.size
	if k.form != whole {
		size = k.fragment
		if p.noFrag || p.noRevers && k.form == reversed {
			return nil
		}
	}
	if p.dead != nil && p.dead(p.sent) || p.lost() {
		return nil
	}
	narrow := max(p.hops, 1) // the last hop before the narrow link
	switch {
	case k.ttl > 0 && k.ttl <= p.hops && (size <= p.mtu || k.ttl <= narrow-1):
		ev.news = icmpError
		ev.icmp = evidence.ICMPError{Reason: evidence.TTLExceeded, Type: 11, Offender: evidence.Some(netip.AddrFrom4([4]byte{192, 0, 2, byte(k.ttl)}))}
		ev.quote = quote{length: size, df: true}
	case size > p.mtu:
		if p.claim == 0 || p.claims > 0 && p.said >= p.claims {
			return nil
		}
		p.said++
		ev.news, ev.icmp = icmpError, said
	case p.hole.From > 0 && size >= p.hole.From && size <= p.hole.To:
		return nil
	}
	time.AfterFunc(p.rtt, func() {
		ev.at = time.Now()
		p.events <- ev
	})
	return nil
}

func (p *simPath) Receive(ctx context.Context) (event, error) {
	select {
	case ev := <-p.events:
		return ev, nil
	case <-ctx.Done():
		return event{}, ctx.Err()
	}
}

func (p *simPath) Fragments() bool { return true }
func (p *simPath) Smallest() int   { return 36 }
func (p *simPath) Close() error    { return nil }

// engine returns one whose only path this is.
func (p *simPath) engine() engine {
	return engine{
		open: func(Config) (conn, error) {
			p.searches++
			return p, nil
		},
		path: func(Config) (int, error) { return p.link, nil },
	}
}

// in runs f in a bubble, with the path's events of that bubble.
func (p *simPath) in(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p.events = make(chan event, 1024)
		f(t)
		time.Sleep(time.Minute) // so that no event is under way
	})
}

// search runs a search over a path, in a bubble.
func (p *simPath) search(t *testing.T, cfg Config) (res evidence.PathMTU) {
	t.Helper()
	if !cfg.Target.IsValid() {
		cfg.Target = simTarget
	}
	p.in(t, func(t *testing.T) {
		var err error
		if res, err = p.engine().search(t.Context(), cfg, nil); err != nil {
			t.Error(err)
		}
	})
	limit, long := maxPackets, maxTime
	if cfg.ike() {
		limit, long = maxIKEPackets, maxIKETime
	}
	if res.Packets > limit || time.Duration(res.Took) > long+ms {
		t.Errorf("%d packets in %v: want at most %d in %v", res.Packets, res.Took, limit, long)
	}
	return res
}

func describe(m evidence.PathMTU) string {
	return fmt.Sprintf("%q with %d bytes, %d packets in %v, holes %v, too big %v, bogus %v, small %v, fragments %v, lost %+v, sizes %+v",
		m.State, m.MTU.Or(0), m.Packets, time.Duration(m.Took), m.Holes, m.TooBig, m.Bogus, m.Small, m.Fragmented, m.Lost, m.Sizes)
}
