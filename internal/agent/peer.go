package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"vpnprobe/capture"
	"vpnprobe/config"
	"vpnprobe/diagnosis"
	"vpnprobe/evidence"
	"vpnprobe/hoststate"
	"vpnprobe/internal/budget"
	"vpnprobe/internal/daemon"
	"vpnprobe/probe"
)

// Env is what all peers of one agent share.
type Env struct {
	Host *hoststate.Reader
	Log  *slog.Logger
	// IKEPorts replaces the UDP ports 500 and 4500 of every peer, for a
	// demonstration without privileges. Zero means the real ports.
	IKEPorts map[uint16]uint16
	// Daemons finds the IKE daemons of this host; nil means none to ask.
	Daemons func(context.Context) ([]daemon.Daemon, error)
	// Budget limits what may leave a half-open SA at a peer. Where it is nil,
	// nothing of the kind is sent, and BudgetErr says why.
	Budget    *budget.Budget
	BudgetErr string
	captures  *captures
	sub       Subscriber
}

// daemons returns the IKE daemons of this host, and an error when one may run
// that cannot be asked.
func (e *Env) daemons(ctx context.Context) ([]daemon.Daemon, error) {
	if e.Daemons == nil {
		return nil, nil
	}
	return e.Daemons(ctx)
}

// peer runs every task of one configured peer.
type peer struct {
	env      *Env
	cfg      config.Peer
	siblings []config.Peer // other tunnels to the same site
	pace     pace
	state    *state
	log      *slog.Logger
}

func newPeer(env *Env, cfg config.Peer, siblings []config.Peer, refs []netip.Addr, p pace) *peer {
	return &peer{
		env: env, cfg: cfg, siblings: siblings, pace: p, log: env.Log.With("peer", cfg.Name),
		state: newState(cfg.Name, declared(cfg, refs), p),
	}
}

// declared is what the diagnosis may hold the peer to.
func declared(p config.Peer, refs []netip.Addr) evidence.Declared {
	d := evidence.Declared{
		Gateway: p.Gateway, Interface: p.Interface,
		LocalSubnets: p.LocalSubnets, RemoteSubnets: p.RemoteSubnets, References: refs, IKEVersion: p.IKE.Version,
		IKEMode: p.IKE.Mode, ESPMode: p.ESP.Mode, LocalID: p.IKE.LocalID, RemoteID: p.IKE.RemoteID,
		MaxLoss: p.Thresholds.Loss, MaxRTT: evidence.Seconds(p.Thresholds.RTT),
	}
	for _, q := range p.IKE.Proposals {
		d.IKEProposals = append(d.IKEProposals, q.String())
	}
	for _, q := range p.ESP.Proposals {
		d.ESPProposals = append(d.ESPProposals, q.String())
	}
	for _, in := range p.Inner {
		d.Inner = append(d.Inner, in.Address)
	}
	return d
}

// run probes the peer until ctx ends, and waits for all that it started. When
// the gateway's name gets another address, the tasks that probe it start anew.
func (p *peer) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	p.inner(ctx, &wg)
	if len(p.siblings) > 0 {
		wg.Go(func() { p.supervise(ctx, "siblings", p.watchSiblings) })
	}
	addr := make(chan netip.Addr)
	wg.Go(func() { p.supervise(ctx, "resolve", func(ctx context.Context) error { return p.resolve(ctx, addr) }) })
	cancel := func() {}
	defer func() { cancel() }()
	for {
		select {
		case <-ctx.Done():
			return
		case a := <-addr:
			cancel()
			p.state.probing(a)
			sub, stop := context.WithCancel(ctx)
			cancel = stop
			p.outer(sub, a, &wg)
		}
	}
}

// outer starts what probes the gateway's address. The probes are not bound to
// the declared interface: they must go where the tunnel's own packets go.
func (p *peer) outer(ctx context.Context, a netip.Addr, wg *sync.WaitGroup) {
	wg.Go(func() { p.supervise(ctx, "host", func(ctx context.Context) error { return p.watchHost(ctx, a) }) })
	p.echo(ctx, wg, probe.EchoConfig{
		Target: a, Role: evidence.Gateway, Source: p.cfg.Source,
		Interval: p.pace.echo, Timeout: p.pace.timeout, Size: p.cfg.ICMP.Size,
	})
	for _, port := range []uint16{500, 4500} {
		wg.Go(func() { p.supervise(ctx, "ike", func(ctx context.Context) error { return p.heartbeat(ctx, a, port) }) })
	}
	wg.Go(func() { p.supervise(ctx, "ladder", func(ctx context.Context) error { return p.climb(ctx, a) }) })
	wg.Go(func() { p.supervise(ctx, "path mtu", func(ctx context.Context) error { return p.pathMTU(ctx, a) }) })
}

// inner starts what probes through the tunnel.
func (p *peer) inner(ctx context.Context, wg *sync.WaitGroup) {
	if p.pace.inner <= 0 {
		return
	}
	for _, in := range p.cfg.Inner {
		p.echo(ctx, wg, probe.EchoConfig{
			Target: in.Address, Role: evidence.Inner, Source: in.Source,
			Interval: p.pace.inner, Timeout: p.pace.timeout, Size: p.cfg.ICMP.Size,
		})
		for _, port := range in.TCPPorts {
			wg.Go(func() {
				p.supervise(ctx, "tcp", func(ctx context.Context) error { return p.connect(ctx, in, port) })
			})
		}
	}
	if len(p.cfg.Inner) > 0 {
		wg.Go(func() { p.supervise(ctx, "inner hop", p.innerHop) })
	}
}

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

// resolve sends the gateway's address, and again whenever it changes. A
// gateway that keeps the address it had keeps it, whatever else its name
// resolves to.
func (p *peer) resolve(ctx context.Context, out chan<- netip.Addr) error {
	var current netip.Addr
	said := ""
	for {
		list, err := lookUp(ctx, p.cfg.Gateway, p.cfg.Source)
		if ctx.Err() != nil {
			return nil
		}
		wait := p.pace.resolve
		if err != nil {
			p.state.setAddresses(nil, err.Error())
			if said != err.Error() {
				said = err.Error()
				p.log.Warn("the gateway's name does not resolve", "gateway", p.cfg.Gateway, "err", err)
			}
			wait = min(wait, p.pace.beat)
		} else {
			said = ""
			p.state.setAddresses(list, "")
			if !slices.Contains(list, current) {
				current = list[0]
				select {
				case out <- current:
				case <-ctx.Done():
					return nil
				}
			}
		}
		if _, err := netip.ParseAddr(p.cfg.Gateway); err == nil {
			<-ctx.Done() // an address never changes
			return nil
		}
		if !sleep(ctx, wait) {
			return nil
		}
	}
}

// lookUp resolves a gateway to addresses, those of source's family only.
func lookUp(ctx context.Context, gateway string, source netip.Addr) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(gateway); err == nil {
		return []netip.Addr{a.Unmap()}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	list, err := net.DefaultResolver.LookupNetIP(ctx, "ip", gateway)
	if err != nil {
		var dns *net.DNSError
		if errors.As(err, &dns) {
			return nil, errors.New(dns.Err)
		}
		return nil, err
	}
	var out []netip.Addr
	for _, a := range list {
		if a = a.Unmap(); !source.IsValid() || a.Is4() == source.Unmap().Is4() {
			out = append(out, a)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no address of the family of source %v", source)
	}
	return out, nil
}

// echo starts the pings of one address.
func (p *peer) echo(ctx context.Context, wg *sync.WaitGroup, cfg probe.EchoConfig) {
	p.state.pingsFrom(cfg.Role, cfg.Target, cfg.Source)
	runEcho(ctx, wg, p.log, cfg, &audience{peers: []*peer{p}})
}

// runEcho pings one address on behalf of some peers.
func runEcho(ctx context.Context, wg *sync.WaitGroup, log *slog.Logger, cfg probe.EchoConfig, to *audience) {
	wg.Go(func() {
		supervise(ctx, log.With("task", "ping", "role", cfg.Role), cfg.Interval, func(ctx context.Context) error {
			err := probe.NewEcho(cfg).Run(ctx, 0, func(r evidence.EchoResult) {
				for _, p := range to.get() {
					p.state.addEcho(r)
					p.env.sub.Observe(p.cfg.Name, r)
				}
			})
			if err != nil && ctx.Err() == nil {
				for _, p := range to.get() {
					p.state.cannotEcho(cfg.Role, cfg.Target, err.Error())
				}
			}
			return err
		})
	})
}

// heartbeat asks one IKE port every interval. A first silence is asked again
// at once: two in a row decide.
func (p *peer) heartbeat(ctx context.Context, a netip.Addr, port uint16) error {
	to := port
	if other := p.env.IKEPorts[port]; other != 0 {
		to = other
	}
	k, err := probe.OpenIKE(probe.IKEConfig{
		Target: netip.AddrPortFrom(a, to), Port: port,
		Source: p.cfg.Source, Version: p.cfg.IKE.Version, Timeout: beatTimeout,
	})
	if err != nil {
		p.state.cannotIKE(port, err.Error())
		return err
	}
	defer k.Close()
	// The two ports are asked at different times: a peer that limits what it
	// answers would starve the same one always.
	apart := time.Duration(0)
	if port == 4500 {
		apart = min(p.pace.beat, time.Second) / 2
	}
	if !sleep(ctx, (phase(time.Second, p.cfg.Name)+apart)%time.Second) {
		return nil
	}
	silent := false
	for next := time.Now(); ; {
		r, err := k.Heartbeat(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			p.state.cannotIKE(port, err.Error())
			return err
		}
		p.state.addIKE(r)
		p.env.sub.ObserveIKE(p.cfg.Name, r)
		again := r.Outcome == evidence.IKESilent && !silent
		silent = r.Outcome == evidence.IKESilent
		for !next.After(time.Now()) {
			next = next.Add(p.pace.beat)
		}
		if again {
			continue
		}
		if !p.awaitBeat(ctx, r.Sent, next) {
			return nil
		}
	}
}

// awaitBeat waits for the next heartbeat: until its time, or until an address
// of the peer fell silent or came back since the last one, so that pings and
// heartbeats speak of the same state of the path.
func (p *peer) awaitBeat(ctx context.Context, last, next time.Time) bool {
	earliest := last.Add(min(p.pace.beat, time.Second))
	for {
		flip := p.state.flipped()
		if flip.at.After(last) {
			return sleep(ctx, time.Until(earliest))
		}
		t := time.NewTimer(time.Until(next))
		select {
		case <-ctx.Done():
			t.Stop()
			return false
		case <-t.C:
			return true
		case <-flip.next:
			t.Stop()
		}
	}
}

// pathMTU searches the underlay path MTU now and then.
func (p *peer) pathMTU(ctx context.Context, a netip.Addr) error {
	for {
		m, err := probe.SearchPathMTU(ctx, probe.PathMTUConfig{
			Target: a, Role: evidence.Gateway, Source: p.cfg.Source,
		})
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			m = evidence.PathMTU{Role: evidence.Gateway, Target: a, CannotLook: err.Error()}
		}
		p.state.setMTU(m)
		wait := p.pace.mtu
		if m.State == evidence.MTUUnknown {
			wait = min(wait, time.Minute)
		}
		if !sleep(ctx, wait) {
			return nil
		}
	}
}

// connect opens a TCP connection to one inner port now and then.
func (p *peer) connect(ctx context.Context, in config.Inner, port uint16) error {
	for {
		r := probe.ConnectTCP(ctx, probe.TCPConfig{Target: netip.AddrPortFrom(in.Address, port), Source: in.Source, Timeout: p.pace.timeout})
		if ctx.Err() != nil {
			return nil
		}
		p.state.addTCP(r)
		p.env.sub.ObserveTCP(p.cfg.Name, r)
		if !sleep(ctx, p.pace.tcp) {
			return nil
		}
	}
}

// innerHop asks the remote gateway itself for an answer through the tunnel:
// rarely while all is well, so that its silence later means something, and at
// every turn while an inner host is silent. Only the tunnel's own end can ask,
// because elsewhere the next hop is not the remote gateway.
func (p *peer) innerHop(ctx context.Context) error {
	var last time.Time
	for {
		if !sleep(ctx, p.pace.inner) {
			return nil
		}
		if !p.state.holdsSA() || !p.state.innerSilent() && time.Since(last) < p.pace.hop {
			continue
		}
		last = time.Now()
		in := p.cfg.Inner[0]
		h, err := probe.ProbeHop(ctx, probe.HopConfig{Target: in.Address, Source: in.Source, TTLs: []int{1, 2}, Timeout: beatTimeout})
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		p.state.addHop(h)
	}
}

// holdsSA reports whether this host is the tunnel's end and the tunnel is up.
func (s *state) holdsSA() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.host.Tunnel.SAs) > 0
}

// watchHost reads the host's side of the way to the gateway.
func (p *peer) watchHost(ctx context.Context, a netip.Addr) error {
	use := p.env.captures.join(capture.Peer{
		Name: p.cfg.Name, Addrs: []netip.Addr{a}, Local: p.cfg.LocalSubnets, Remote: p.cfg.RemoteSubnets,
	}, p.pace.tunnelWin)
	defer use.leave()
	for {
		h := p.readHost(a)
		in, out := p.state.setHost(h, time.Now())
		p.env.sub.AddTunnel(p.cfg.Name, in, out)
		iface := p.cfg.Interface
		if iface == "" {
			iface = h.Route.Interface
		}
		window, delta := use.read(use.interfaces(iface, a, p.cfg.Source), h.Tunnel, in)
		if ctx.Err() != nil {
			return nil // the capture may have ended before it was read
		}
		p.state.setCapture(window)
		p.env.sub.AddCapture(p.cfg.Name, delta)
		if !sleep(ctx, p.pace.poll) {
			return nil
		}
	}
}

// readHost reads what the host believes. The route is asked for as the IKE
// daemon would ask: bound to an interface, Linux takes an address that it has
// no route to for one on the link.
func (p *peer) readHost(a netip.Addr) evidence.Host {
	host := p.env.Host
	h := evidence.Host{
		Route:  host.Route(a, p.cfg.Source, ""),
		Tunnel: host.Tunnel([]netip.Addr{a}, p.cfg.Source),
	}
	h.Daemon = host.Daemon()
	name := p.cfg.Interface
	if name == "" {
		name = h.Route.Interface
	}
	if name == "" {
		name = p.state.lastInterface()
	}
	if name != "" {
		h.Underlay = host.Link(name)
	}
	return h
}

// lastInterface is the interface that the gateway was last routed through.
func (s *state) lastInterface() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.host.Underlay.Name
}

// report diagnoses what is known now.
func (p *peer) report() *diagnosis.Report {
	return diagnosis.Evaluate(p.state.snapshot(time.Now()))
}
