package agent

import (
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"vpnprobe/evidence"
)

// state is what is known about one peer. Its methods are safe for concurrent
// use; a snapshot shares nothing with it that changes.
type state struct {
	mu        sync.Mutex
	started   time.Time
	pace      pace
	declared  evidence.Declared
	name      string
	addresses []netip.Addr
	gateway   netip.Addr // the address that is probed
	resolve   string     // why the gateway's name does not resolve
	echoes    map[echoKey]*echoWindow
	ike       map[uint16]*evidence.IKEPort
	tcp       map[netip.AddrPort]evidence.TCPResult
	mtus      map[mtuKey]evidence.PathMTU
	lastMTU   map[mtuKey]int       // that was found
	changes   []evidence.MTUChange // of path MTUs, oldest first
	tcpSizes  map[netip.AddrPort]evidence.TCPSize
	clamps    evidence.MSSClamps
	hop       evidence.InnerHop
	host      evidence.Host
	carried   carrier
	siblings  []evidence.Sibling
	flip      flip
	lastIn    evidence.Opt[time.Time]
	capture   evidence.Capture
	ladder    evidence.Ladder
	climbed   time.Time // when the ladder was last run
	auth      evidence.IKEAuth
}

// maxResults bounds what a peer can make a window hold with duplicates.
const maxResults = 16384

type echoKey struct {
	role   evidence.Role
	target netip.Addr
}

// mtuKey is what a search is about.
type mtuKey struct {
	echoKey
	probe evidence.MTUProbe
}

type echoWindow struct {
	results    []evidence.EchoResult
	unanswered int // at the end
	source     evidence.Opt[netip.Addr]
	cannotLook string
}

// flip tells when an address of the peer last fell silent or came back.
type flip struct {
	at   time.Time
	next chan struct{} // closed at the next flip
}

func newState(name string, d evidence.Declared, p pace) *state {
	return &state{
		started: time.Now(), pace: p, declared: d, name: name,
		echoes: map[echoKey]*echoWindow{}, ike: map[uint16]*evidence.IKEPort{},
		flip: flip{next: make(chan struct{})},
		tcp:  map[netip.AddrPort]evidence.TCPResult{}, mtus: map[mtuKey]evidence.PathMTU{}, lastMTU: map[mtuKey]int{},
		tcpSizes: map[netip.AddrPort]evidence.TCPSize{},
	}
}

func (s *state) window(k echoKey) *echoWindow {
	w := s.echoes[k]
	if w == nil {
		w = &echoWindow{}
		s.echoes[k] = w
	}
	return w
}

// addEcho keeps one result and forgets those that no snapshot will look at.
func (s *state) addEcho(r evidence.EchoResult) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Role == evidence.Gateway && s.gateway.IsValid() && r.Target != s.gateway {
		return // a ping of the address before
	}
	w := s.window(echoKey{r.Role, r.Target})
	if r.Outcome == "" && len(w.results) >= maxResults {
		return // a flood of duplicates: counted by the subscribers, not kept
	}
	w.cannotLook = ""
	w.results = append(w.results, r)
	s.noteFlip(w, r)
	horizon := r.Sent.Add(-2 * s.pace.window)
	if n := len(w.results); n > 64 && w.results[0].Sent.Before(horizon) {
		w.results = slices.DeleteFunc(w.results, func(r evidence.EchoResult) bool { return r.Sent.Before(horizon.Add(s.pace.window)) })
	}
}

// pingsFrom notes the source address that the pings of a target are to carry;
// the zero Addr leaves it to routing.
func (s *state) pingsFrom(role evidence.Role, target, source netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.window(echoKey{role, target})
	if w.source = (evidence.Opt[netip.Addr]{}); source.IsValid() {
		w.source = evidence.Some(source)
	}
}

// flipRun is the number of unanswered pings that make an address look silent
// enough to ask IKE as well.
const flipRun = 2

func (s *state) noteFlip(w *echoWindow, r evidence.EchoResult) {
	was := w.unanswered >= flipRun
	switch r.Outcome {
	case evidence.EchoReply:
		w.unanswered = 0
	case evidence.EchoLost:
		w.unanswered++
	}
	if r.Role != evidence.Reference && was != (w.unanswered >= flipRun) {
		close(s.flip.next)
		s.flip = flip{at: time.Now(), next: make(chan struct{})}
	}
}

func (s *state) flipped() flip {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flip
}

// cannotEcho notes why an address cannot be pinged at all.
func (s *state) cannotEcho(role evidence.Role, target netip.Addr, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.window(echoKey{role, target}).cannotLook = why
}

func (s *state) ikePort(port uint16) *evidence.IKEPort {
	p := s.ike[port]
	if p == nil {
		p = &evidence.IKEPort{Port: port}
		s.ike[port] = p
	}
	return p
}

func (s *state) addIKE(r evidence.IKEResult) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.ikePort(r.Port)
	p.CannotLook = ""
	if r.Outcome == evidence.IKEAnswered {
		p.Ever = evidence.Yes
	}
	p.Results = append(p.Results, r)
	p.Results = slices.DeleteFunc(p.Results, func(o evidence.IKEResult) bool { return o.Sent.Before(r.Sent.Add(-max(s.pace.window, 4*s.pace.beat))) })
}

func (s *state) cannotIKE(port uint16, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ikePort(port).CannotLook = why
}

func (s *state) addTCP(r evidence.TCPResult) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tcp[r.Target] = r
}

// maxChanges bounds what a path that changes all the time makes a snapshot hold.
const maxChanges = 16

// setMTU keeps the newest result of a search, and notes and returns what changed
// since the one before that found a path MTU.
func (s *state) setMTU(m evidence.PathMTU) (changed evidence.Opt[evidence.MTUChange]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := mtuKey{echoKey{m.Role, m.Target}, m.Probe}
	if to, ok := m.MTU.Get(); ok {
		if from := s.lastMTU[k]; from > 0 && from != to {
			c := evidence.MTUChange{Role: m.Role, Target: m.Target, Time: time.Now(), From: from, To: to}
			changed = evidence.Some(c)
			s.changes = append(s.changes, c)
			s.changes = s.changes[max(0, len(s.changes)-maxChanges):]
		}
		s.lastMTU[k] = to
	}
	s.mtus[k] = m
	return changed
}

// pathMTU returns the newest result of a search of a kind.
func (s *state) pathMTU(role evidence.Role, target netip.Addr, probe evidence.MTUProbe) evidence.PathMTU {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mtus[mtuKey{echoKey{role, target}, probe}]
}

// forgetMTU drops a result that no longer says anything.
func (s *state) forgetMTU(role evidence.Role, target netip.Addr, probe evidence.MTUProbe) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mtus, mtuKey{echoKey{role, target}, probe})
}

// connects reports whether a TCP connection to a target was made lately.
func (s *state) connects(target netip.AddrPort) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tcp[target].Connected == evidence.Yes
}

func (s *state) setTCPSize(t evidence.TCPSize) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tcpSizes[t.Target] = t
}

func (s *state) setClamps(c evidence.MSSClamps) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clamps = c
}

// addHop keeps the newest inner hop probe; in an on-demand run, whose window
// is all there is, the counts add up.
func (s *state) addHop(h evidence.InnerHop) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.Answered > 0 {
		h.Ever = evidence.Yes
	} else {
		h.Ever = s.hop.Ever
		h.Sent += s.hop.Sent
		if s.hop.Answered > 0 {
			h.Sent -= s.hop.Sent
		}
	}
	s.hop = h
}

func (s *state) setAddresses(list []netip.Addr, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if why == "" || len(list) > 0 {
		s.addresses = list
	}
	s.resolve = why
}

// probing says which address of the gateway is probed from now on, and
// forgets what was seen of others.
func (s *state) probing(a netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := func(k echoKey) bool { return k.role == evidence.Gateway && k.target != a }
	maps.DeleteFunc(s.echoes, func(k echoKey, _ *echoWindow) bool { return old(k) })
	maps.DeleteFunc(s.mtus, func(k mtuKey, _ evidence.PathMTU) bool { return old(k.echoKey) })
	maps.DeleteFunc(s.lastMTU, func(k mtuKey, _ int) bool { return old(k.echoKey) })
	s.ike, s.hop, s.ladder = map[uint16]*evidence.IKEPort{}, evidence.InnerHop{}, evidence.Ladder{}
	s.gateway = a
}

// setHost keeps one reading of the host and returns what the SAs carried
// since the reading before.
func (s *state) setHost(h evidence.Host, at time.Time) (in, out evidence.Traffic) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.host = h
	in, out = s.carried.add(h.Tunnel, at, s.pace.tunnelWin)
	if in.Packets > 0 {
		s.lastIn = evidence.Some(at)
	}
	return in, out
}

// holdsSA reports whether this host is the tunnel's end and the tunnel is up.
func (s *state) holdsSA() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.host.Tunnel.SAs) > 0
}

// lastInterface is the interface that the gateway was last routed through.
func (s *state) lastInterface() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.host.Underlay.Name
}

func (s *state) setSiblings(list []evidence.Sibling) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.siblings = list
}

func (s *state) setLadder(l evidence.Ladder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ladder = l
}

// ladderDue reports whether the ladder may run again, and notes that it does.
func (s *state) ladderDue(every time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.climbed) < every {
		return false
	}
	s.climbed = time.Now()
	return true
}

func (s *state) setAuth(a evidence.IKEAuth) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.auth = a
}

func (s *state) setCapture(c evidence.Capture) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.capture = c
}

// innerSilent reports whether any inner address has just failed to answer.
func (s *state) innerSilent() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, w := range s.echoes {
		if n := len(w.results); k.role == evidence.Inner && n > 0 && w.results[n-1].Outcome == evidence.EchoLost {
			return true
		}
	}
	return false
}
