package probe

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/rawconn"
)

var (
	simTarget = netip.MustParseAddr("198.51.100.2")
	simRouter = netip.MustParseAddr("192.0.2.254")
)

// simPath is a network path in virtual time, with this host's end of it.
type simPath struct {
	link, mtu int // of the first link, and of the narrowest
	rtt       time.Duration
	loss      float64 // of requests with their replies
	// claim is what a router says that fits where a packet does not; 0 if it
	// says nothing.
	claim   int
	dead    func(sent int) bool // whether the nth packet meets a dead path
	refused error               // what each send is refused for
	random  *rand.Rand

	sent   int
	events chan rawconn.EchoEvent
}

func newSimPath(p simPath, seed uint64) *simPath {
	p.random = rand.New(rand.NewPCG(seed, 0))
	p.events = make(chan rawconn.EchoEvent, 256)
	return &p
}

func (p *simPath) Send(to netip.Addr, seq uint16, size int) error {
	if p.refused != nil {
		return p.refused
	}
	if size > p.link {
		p.events <- rawconn.EchoEvent{Time: time.Now(), Err: &rawconn.Error{Errno: syscall.EMSGSIZE, Local: true, MTU: p.link}}
		return syscall.EMSGSIZE
	}
	p.sent++
	ev := rawconn.EchoEvent{Seq: seq, From: to, Size: size}
	if size > p.mtu {
		ev.Err = &rawconn.Error{Errno: syscall.EMSGSIZE, Type: 3, Code: 4, MTU: p.claim, Offender: simRouter}
	}
	switch {
	case p.dead != nil && p.dead(p.sent), p.random.Float64() < p.loss, size > p.mtu && p.claim == 0:
		return nil
	}
	time.AfterFunc(p.rtt, func() {
		ev.Time = time.Now()
		p.events <- ev
	})
	return nil
}

func (p *simPath) Receive(ctx context.Context) (rawconn.EchoEvent, error) {
	select {
	case ev := <-p.events:
		return ev, nil
	case <-ctx.Done():
		return rawconn.EchoEvent{}, ctx.Err()
	}
}

func (p *simPath) SetTTL(int) error { return nil }
func (p *simPath) Close() error     { return nil }

// search runs a search over a path, in a bubble.
func (p *simPath) search(t *testing.T, cfg PathMTUConfig) (res evidence.PathMTU, took time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg.Target = simTarget
		cfg.Timeout = DefaultPathMTUTimeout
		p.events = make(chan rawconn.EchoEvent, 256) // of this bubble
		start := time.Now()
		probe := &mtuProbe{cfg: cfg, conn: p, seqs: map[uint16]mtuPacket{}, res: &res}
		if err := probe.run(t.Context()); err != nil {
			t.Error(err)
		}
		took = time.Since(start)
		time.Sleep(time.Minute) // so that no event is under way
	})
	if res.Packets > maxMTUPackets || took > maxMTUTime {
		t.Errorf("%d packets in %v: want at most %d in %v", res.Packets, took, maxMTUPackets, maxMTUTime)
	}
	return res, took
}

func TestSearchPathMTU(t *testing.T) {
	const ms = time.Millisecond
	tests := []struct {
		name   string
		path   simPath
		max    int
		state  evidence.MTUState
		mtu    int
		tooBig bool // some came
	}{
		{name: "full", path: simPath{link: 1500, mtu: 1500, rtt: 20 * ms}, state: evidence.MTUFull, mtu: 1500},
		{name: "full of an odd link", path: simPath{link: 1492, mtu: 1492, rtt: 20 * ms}, state: evidence.MTUFull, mtu: 1492},
		{name: "full of a jumbo link", path: simPath{link: 9000, mtu: 9000, rtt: 20 * ms}, state: evidence.MTUFull, mtu: 9000},
		{name: "full up to the limit", path: simPath{link: 9000, mtu: 1500, rtt: 20 * ms}, max: 1500, state: evidence.MTUFull, mtu: 1500},
		{name: "reduced", path: simPath{link: 1500, mtu: 1400, claim: 1400, rtt: 20 * ms}, state: evidence.MTUReduced, mtu: 1400, tooBig: true},
		{name: "reduced to no rung", path: simPath{link: 1500, mtu: 1391, claim: 1391, rtt: 20 * ms}, state: evidence.MTUReduced, mtu: 1391, tooBig: true},
		{name: "reduced by much", path: simPath{link: 9000, mtu: 2222, claim: 2222, rtt: 20 * ms}, state: evidence.MTUReduced, mtu: 2222, tooBig: true},
		{name: "black hole", path: simPath{link: 1500, mtu: 1437, rtt: 20 * ms}, state: evidence.MTUBlackHole, mtu: 1437},
		{name: "black hole at a rung", path: simPath{link: 1500, mtu: 1400, rtt: 20 * ms}, state: evidence.MTUBlackHole, mtu: 1400},
		{name: "black hole at the top", path: simPath{link: 1500, mtu: 1499, rtt: 20 * ms}, state: evidence.MTUBlackHole, mtu: 1499},
		{name: "black hole below the ladder", path: simPath{link: 1500, mtu: 500, rtt: 20 * ms}, state: evidence.MTUBlackHole, mtu: 500},
		{name: "black hole far away", path: simPath{link: 1500, mtu: 1437, rtt: 280 * ms}, state: evidence.MTUBlackHole, mtu: 1437},
		{name: "full, farther than a round", path: simPath{link: 1500, mtu: 1500, rtt: 700 * ms}, state: evidence.MTUFull, mtu: 1500},
		{name: "lie: fits what did not", path: simPath{link: 1500, mtu: 1437, claim: 1600, rtt: 20 * ms}, state: evidence.MTUBlackHole, mtu: 1437, tooBig: true},
		{name: "lie: below any MTU", path: simPath{link: 1500, mtu: 1437, claim: 68, rtt: 20 * ms}, state: evidence.MTUBlackHole, mtu: 1437, tooBig: true},
		{name: "lie: none", path: simPath{link: 1500, mtu: 1437, claim: -1, rtt: 20 * ms}, state: evidence.MTUBlackHole, mtu: 1437, tooBig: true},
		{name: "claim that a second hop breaks", path: simPath{link: 1500, mtu: 1390, claim: 1450, rtt: 20 * ms}, state: evidence.MTUBlackHole, mtu: 1390, tooBig: true},
		{name: "claim that is too modest", path: simPath{link: 1500, mtu: 1437, claim: 1300, rtt: 20 * ms}, state: evidence.MTUReduced, mtu: 1437, tooBig: true},
		{name: "dies during the search", path: simPath{link: 1500, mtu: 1500, rtt: 20 * ms, dead: func(n int) bool { return n > 8 }}, state: evidence.MTUUnknown, mtu: 1400},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, took := newSimPath(tt.path, 1).search(t, PathMTUConfig{Max: tt.max})
			t.Logf("%d packets in %v", got.Packets, took)
			if got.State != tt.state || got.MTU.Or(0) != tt.mtu {
				t.Errorf("got %q with %d bytes, want %q with %d: %+v", got.State, got.MTU.Or(0), tt.state, tt.mtu, got.Sizes)
			}
			if got.LinkMTU.Or(0) != tt.path.link {
				t.Errorf("link MTU %d, want %d", got.LinkMTU.Or(0), tt.path.link)
			}
			if (len(got.TooBig) > 0) != tt.tooBig {
				t.Errorf("too big: %+v", got.TooBig)
			}
			for i := 1; i < len(got.Sizes); i++ {
				if got.Sizes[i-1].Size >= got.Sizes[i].Size {
					t.Errorf("sizes not ascending: %+v", got.Sizes)
				}
			}
		})
	}
}

// Random loss must not be taken for a size that does not pass. The search may
// give up, but rarely.
func TestSearchPathMTULossy(t *testing.T) {
	const runs = 200
	for _, tt := range []struct {
		name  string
		path  simPath
		state evidence.MTUState
		slack int // bytes by which a budget that runs out may miss the MTU
	}{
		{"full", simPath{link: 1500, mtu: 1500}, evidence.MTUFull, 0},
		{"reduced", simPath{link: 1500, mtu: 1400, claim: 1400}, evidence.MTUReduced, 0},
		{"black hole", simPath{link: 1500, mtu: 1437}, evidence.MTUBlackHole, 16},
	} {
		t.Run(tt.name, func(t *testing.T) {
			right, wrong := 0, 0
			for seed := range uint64(runs) {
				p := tt.path
				p.rtt, p.loss = 20*time.Millisecond, 0.2
				switch got, _ := newSimPath(p, seed).search(t, PathMTUConfig{}); {
				case got.State == tt.state && got.MTU.Or(0) <= p.mtu && got.MTU.Or(0) >= p.mtu-tt.slack:
					right++
				case got.State != evidence.MTUUnknown:
					wrong++
				}
			}
			t.Logf("%d right, %d wrong, %d undecided", right, wrong, runs-right-wrong)
			if wrong > runs/50 || right < runs*8/10 {
				t.Errorf("%d right and %d wrong of %d", right, wrong, runs)
			}
		})
	}
}

func TestSearchPathMTUSilent(t *testing.T) {
	p := newSimPath(simPath{link: 1500, mtu: 1500, loss: 1}, 1)
	got, _ := p.search(t, PathMTUConfig{})
	if got.State != evidence.MTUUnknown || got.MTU.Known() || got.Packets != 3 {
		t.Errorf("got %+v, want nothing known after 3 packets", got)
	}
}

func TestSearchPathMTURefused(t *testing.T) {
	p := newSimPath(simPath{refused: syscall.EPERM}, 1)
	got, _ := p.search(t, PathMTUConfig{})
	if want := "local_firewall: operation not permitted"; got.CannotLook != want || got.State != evidence.MTUUnknown {
		t.Errorf("got %+v, want %q", got, want)
	}
}

func TestSearchPathMTUCanceled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var res evidence.PathMTU
		p := &mtuProbe{
			cfg: PathMTUConfig{Target: simTarget, Timeout: 10 * time.Second}, res: &res, seqs: map[uint16]mtuPacket{},
			conn: newSimPath(simPath{link: 1500, mtu: 1500, loss: 1}, 1),
		}
		if err := p.run(ctx); err != context.DeadlineExceeded {
			t.Errorf("got error %v, want the context's", err)
		}
	})
}

func TestSearchPathMTUConfig(t *testing.T) {
	for _, limit := range []int{-1, 575, 65536} {
		if _, err := SearchPathMTU(t.Context(), PathMTUConfig{Target: simTarget, Max: limit}); err == nil {
			t.Errorf("a maximum of %d bytes was accepted", limit)
		}
	}
}
