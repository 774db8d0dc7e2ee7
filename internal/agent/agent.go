package agent

import (
	"context"
	"net/netip"
	"reflect"
	"sync"
	"time"

	"vpnprobe/config"
	"vpnprobe/diagnosis"
	"vpnprobe/evidence"
	"vpnprobe/probe"
)

// evaluateEvery is how often each peer is diagnosed; the observations come at
// their own pace.
const evaluateEvery = time.Second

// Agent is the daemon: it probes every configured peer until it is stopped.
type Agent struct {
	env  *Env
	wake chan struct{} // a reload changed what should run

	mu   sync.Mutex
	want *config.Config
}

// New returns an agent that has started nothing yet.
func New(cfg *config.Config, env Env, sub Subscriber) *Agent {
	return &Agent{env: share(env, sub), wake: make(chan struct{}, 1), want: cfg}
}

func share(env Env, sub Subscriber) *Env {
	env.sub = sub
	if sub == nil {
		env.sub = Nobody{}
	}
	env.captures = newCaptures(env.Host, env.Log)
	return &env
}

// Reload replaces the configuration. Peers that do not differ go on
// undisturbed: their sockets, phase and counts stay.
func (a *Agent) Reload(cfg *config.Config) {
	a.mu.Lock()
	a.want = cfg
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default: // a change is pending already; it will see this one
	}
}

func (a *Agent) wanted() *config.Config {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.want
}

// running is a task group that can be ended on its own.
type running struct {
	key      any // what it was started with, compared by value
	peer     *peer
	audience *audience
	cancel   context.CancelFunc
}

// Run probes until ctx ends, and returns when everything it started has ended.
func (a *Agent) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { a.env.captures.run(ctx) })
	peers := map[string]*running{}
	var refs *running
	tick := time.NewTicker(evaluateEvery)
	defer tick.Stop()
	for {
		a.reconcile(ctx, &wg, peers)
		refs = a.references(ctx, &wg, refs, peers)
		for wait := true; wait; {
			select {
			case <-ctx.Done():
				return nil
			case <-a.wake:
				wait = false
			case <-tick.C:
				for _, r := range peers {
					a.env.sub.Publish(r.peer.report())
				}
			}
		}
	}
}

// peerKey is everything that a peer's tasks depend on.
type peerKey struct {
	Peer     config.Peer
	Siblings []config.Peer
	Refs     []netip.Addr
	Pace     pace
}

// reconcile starts and stops peers until those that run are those wanted.
func (a *Agent) reconcile(ctx context.Context, wg *sync.WaitGroup, peers map[string]*running) {
	cfg := a.wanted()
	a.env.captures.configure(cfg.Capture)
	want := map[string]peerKey{}
	for _, p := range cfg.Peers {
		want[p.Name] = peerKey{p, siblings(p, cfg.Peers), cfg.References, daemonPace(cfg, p)}
	}
	for name, r := range peers {
		if k, ok := want[name]; !ok || !reflect.DeepEqual(r.key, k) {
			r.cancel()
			delete(peers, name)
		}
	}
	for name, k := range want {
		if peers[name] != nil {
			continue
		}
		sub, cancel := context.WithCancel(ctx)
		p := newPeer(a.env, k.Peer, k.Siblings, k.Refs, k.Pace)
		peers[name] = &running{key: k, peer: p, cancel: cancel}
		wg.Go(func() { p.run(sub) })
	}
}

// refKey is everything that the pings of the references depend on.
type refKey struct {
	Refs []netip.Addr
	ICMP config.ICMP
}

// references pings each reference once for all peers. Pings that run already
// with the same settings only get the new list of peers to report to.
func (a *Agent) references(ctx context.Context, wg *sync.WaitGroup, old *running, peers map[string]*running) *running {
	cfg := a.wanted()
	var all []*peer
	for _, r := range peers {
		all = append(all, r.peer)
	}
	key := refKey{cfg.References, cfg.ICMP}
	if old != nil && reflect.DeepEqual(old.key, key) {
		old.audience.set(all)
		return old
	}
	if old != nil {
		old.cancel()
	}
	sub, cancel := context.WithCancel(ctx)
	r := &running{key: key, cancel: cancel, audience: &audience{peers: all}}
	for _, ref := range cfg.References {
		runEcho(sub, wg, a.env.Log, probe.EchoConfig{
			Target: ref, Role: evidence.Reference, Interval: cfg.ICMP.Interval, Timeout: cfg.ICMP.Timeout, Size: cfg.ICMP.Size,
		}, r.audience)
	}
	return r
}

// audience are the peers that the pings of one address are reported to.
type audience struct {
	mu    sync.Mutex
	peers []*peer
}

func (a *audience) set(peers []*peer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.peers = peers
}

func (a *audience) get() []*peer {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.peers
}

// Probe looks at one peer for the duration, as the daemon would but faster,
// and returns its diagnosis. It ends early when ctx does. With a pre-shared
// key it first negotiates with the peer for real, which takes longer.
func Probe(ctx context.Context, cfg *config.Config, p config.Peer, d time.Duration, psk []byte, env Env, sub Subscriber) *diagnosis.Report {
	shared := share(env, sub)
	shared.captures.configure(cfg.Capture)
	one := newPeer(shared, p, siblings(p, cfg.Peers), cfg.References, oncePace(d))
	if len(psk) > 0 {
		one.authenticateFirst(ctx, psk)
	}
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var wg sync.WaitGroup
	// The capture outlives what reads it.
	capturing, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	wg.Go(func() { shared.captures.run(capturing) })
	for _, ref := range cfg.References {
		runEcho(ctx, &wg, one.log, probe.EchoConfig{
			Target: ref, Role: evidence.Reference, Interval: one.pace.echo, Timeout: one.pace.timeout, Size: p.ICMP.Size,
		}, &audience{peers: []*peer{one}})
	}
	one.run(ctx)
	stop()
	wg.Wait()
	r := one.report()
	shared.sub.Publish(r)
	return r
}

// authenticateFirst negotiates before anything else is sent: the pings of
// inner addresses would have the local daemon negotiate by itself.
func (p *peer) authenticateFirst(ctx context.Context, psk []byte) {
	list, err := lookUp(ctx, p.cfg.Gateway, p.cfg.Source)
	if err != nil {
		return // as the run itself will find
	}
	var a evidence.IKEAuth
	if err := recovered(ctx, func(ctx context.Context) error {
		a = p.authenticate(ctx, list, psk)
		return nil
	}); err != nil {
		a = evidence.IKEAuth{CannotLook: "a bug of vpnprobe's ended the negotiation"}
		p.log.Error("authenticate", "err", err)
	}
	p.state.setAuth(a)
	p.env.sub.ObserveAuth(p.cfg.Name, a)
}
