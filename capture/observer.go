package capture

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"
)

// Frame is one frame as it was captured.
type Frame struct {
	Data      []byte // may be cut off; it is not kept
	Link      LinkType
	Interface string    // by name, "" where it is not known
	Outgoing  bool      // this host sent it, as far as the source of the frames knows
	WireLen   int       // how long it was on the wire, in bytes
	Time      time.Time // of the capture
}

// Observer counts, per peer, the frames that it is shown, and the flows that
// the kernel counts. Its methods must not be called at the same time.
type Observer struct {
	peers   map[string]*peer
	v4      map[[4]byte][]*peer
	v6      map[[16]byte][]*peer
	pairs   [16]pair // the last ones
	remotes subnets  // in which leaks are looked for
	scopes  []*scope
	numbers int // of scopes there were
	kernel  map[*device]*readings
	room    int // for flows in the kernel's table
	devices map[deviceID]*device
	recent  *device // of the last frame
	seen    twins
	short   shortcuts
	first   time.Time // of the frames shown
	last    time.Time
	lastAt  int64 // last in nanoseconds of Unix time
}

// defaultRoom is for how many flows a kernel's table has room that does not say.
const defaultRoom = 4096

// NewObserver returns an observer of the given peers.
func NewObserver(peers []Peer) *Observer {
	o := &Observer{
		peers:   map[string]*peer{},
		devices: map[deviceID]*device{},
		kernel:  map[*device]*readings{},
		room:    defaultRoom,
	}
	o.SetPeers(peers)
	return o
}

// SetPeers replaces the peers. One that stays, by name, keeps its counts, even
// under other addresses. An address that belongs to several peers counts for
// each of them. The names of the peers that are new, or have other addresses
// than before, are returned.
func (o *Observer) SetPeers(peers []Peer) (changed []string) {
	old, oldScopes := o.peers, o.scopes
	o.peers, o.scopes = make(map[string]*peer, len(peers)), nil
	o.v4 = map[[4]byte][]*peer{}
	o.v6 = map[[16]byte][]*peer{}
	clear(o.pairs[:])
	clear(o.short[:])
	for _, p := range peers {
		addrs := normalize(p.Addrs)
		state := old[p.Name]
		moved := state == nil || !slices.Equal(state.addrs, addrs)
		if moved {
			changed = append(changed, p.Name)
		}
		if state == nil {
			state = newPeer()
		}
		s := o.scopeOf(p.Interfaces, oldScopes)
		if moved = moved || s != state.scope; moved {
			state.leaveScope(o.last)
		}
		state.configure(p, addrs)
		if moved {
			state.enterScope(s, o.last)
		}
		s.peers = append(s.peers, state)
		o.peers[p.Name] = state
		for _, a := range addrs {
			if a.Is4() {
				o.v4[a.As4()] = append(o.v4[a.As4()], state)
			} else {
				o.v6[a.As16()] = append(o.v6[a.As16()], state)
			}
		}
	}
	for _, list := range o.v4 {
		byScope(list)
	}
	for _, list := range o.v6 {
		byScope(list)
	}
	o.watchLeaks()
	return changed
}

// byScope brings peers with the same scope together.
func byScope(peers []*peer) {
	slices.SortStableFunc(peers, func(a, b *peer) int { return cmp.Compare(a.scope.number, b.scope.number) })
}

// normalize returns the valid addresses in the form that they have on the
// wire, sorted and without duplicates.
func normalize(addrs []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, a := range addrs {
		if a.IsValid() {
			out = append(out, a.Unmap().WithZone(""))
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// addresses returns the addresses of all peers, each once.
func (o *Observer) addresses() []netip.Addr {
	var all []netip.Addr
	for _, p := range o.peers {
		all = append(all, p.addrs...)
	}
	return normalize(all)
}

// Packet counts one frame. Frames that mean nothing to a peer, or nothing at
// all, are passed over.
func (o *Observer) Packet(f Frame) { o.packet(&f) }

func (o *Observer) packet(f *Frame) {
	if o.shortly(f) {
		return
	}
	o.reach(f.Time)
	var h framing
	if !h.read(f.Link, f.Data) {
		return
	}
	var p packet
	if !p.parse(f.Data[h.offset:], max(f.WireLen, len(f.Data))-h.offset) {
		return
	}
	d := o.device(f, &h)
	outgoing := f.Outgoing || h.outgoing
	if outgoing {
		d.directed = true
	}
	k, x := p.classify()
	from, to := o.lookUpBoth(&p)
	switch {
	case (p.proto == protoICMP || p.proto == protoICMPv6) && o.icmp(&p, d, outgoing, f.Time):
	case from != nil || to != nil:
		o.traffic(&p, k, x, from, to, d, &h, outgoing, f.Time)
		o.shorten(f, &p, k, from, to, d)
	default:
		o.leak(&p, d, &h, outgoing, f.Time)
	}
}

// clockStep is how far a time must lie before the last one for the clock to have
// been set back, rather than frames to have been written out of order.
const clockStep = time.Minute

// reach notes that a frame was shown, or a reading taken.
func (o *Observer) reach(t time.Time) {
	back := o.last.Sub(t) > clockStep
	if o.first.IsZero() || back && o.first.After(t) {
		o.first = t
	}
	if back || t.After(o.last) {
		o.last, o.lastAt = t, t.UnixNano()
	}
}

// reachNext is reach for a frame, which is as a rule later than all before; now
// is t in nanoseconds of Unix time.
func (o *Observer) reachNext(t time.Time, now int64) {
	if ahead := now - o.lastAt; ahead <= 0 || o.last.IsZero() {
		o.reach(t)
		return
	}
	o.last, o.lastAt = t, now
}

// Gap says that frames of an interface were not shown, on purpose, since the
// last one that was, or that the kernel did not count there: nothing counts as
// lost or unanswered because of it. It is to be called where such a time ends.
func (o *Observer) Gap(iface string) {
	d := o.device(&Frame{Interface: iface}, &framing{})
	if r := o.kernel[d]; r != nil {
		r.gap = true
	}
	for _, s := range o.scopes {
		if !s.on(d) {
			continue
		}
		s.shown.Gap()
		for _, p := range s.peers {
			p.talk.Gap()
		}
	}
}

// traffic counts a packet from or to a peer's gateway.
func (o *Observer) traffic(p *packet, k kind, x exchange, from, to []*peer, d *device, h *framing, outgoing bool, t time.Time) {
	now := t.UnixNano()
	if k == kindNone || o.seen.twin(p, d.way(outgoing), now) {
		return
	}
	same := to != nil && from != nil && bytes.Equal(p.src, p.dst)
	var done *scope
	for _, peer := range from {
		if u := peer.use(d); u.counts {
			peer.in.add(p, k, x)
			peer.count(p, k, u, false, t, now, &done)
			if k == kindIKE && !same {
				peer.hear(p, false, t)
			}
		}
	}
	if same {
		return // both ends are the peer's one address: in, once
	}
	done = nil
	for _, peer := range to {
		if u := peer.use(d); u.counts {
			peer.out.add(p, k, x)
			peer.count(p, k, u, true, t, now, &done)
			u.sentBy(p.src, h.source)
			if k == kindIKE {
				peer.hear(p, true, t)
			}
		}
	}
}

// count counts an encrypted packet on its interface, and follows its flow, once
// for all peers of a scope.
func (p *peer) count(pkt *packet, k kind, u *use, out bool, t time.Time, now int64, done **scope) {
	switch k {
	case kindESP, kindESPInUDP, kindAH:
		u.passed(pkt.volume(), out, now)
		if p.scope != *done {
			*done = p.scope
			p.scope.add(pkt, k, out, t)
		}
	}
}

// icmp counts an ICMP error by the packet that it quotes: the error itself may
// come from any router on the way. It reports whether the packet is one.
func (o *Observer) icmp(p *packet, d *device, outgoing bool, t time.Time) bool {
	quoted, why, ok := p.icmpError()
	if !ok {
		return false
	}
	from, to := o.lookUp(quoted.src), o.lookUp(quoted.dst)
	now := t.UnixNano()
	if from == nil && to == nil || o.seen.twin(p, d.way(outgoing), now) {
		return true
	}
	k := icmpKind{sender: addr(p.src), about: quoted.about(), mtu: p.statedMTU(why), why: why}
	for _, peer := range from {
		if peer.use(d).counts {
			peer.errs.add(k, now)
		}
	}
	k.ours = true
	for _, peer := range to {
		if peer.use(d).counts {
			peer.errsIn[why]++
			peer.errs.add(k, now)
		}
	}
	return true
}

// pair is who two IPv4 addresses belong to: most packets are between few.
type pair struct {
	addrs    uint64
	from, to []*peer
}

// lookUpBoth returns the peers that a packet is from, and those it is to.
func (o *Observer) lookUpBoth(p *packet) (from, to []*peer) {
	if len(p.src) != 4 {
		return o.lookUp(p.src), o.lookUp(p.dst)
	}
	src, dst := binary.BigEndian.Uint32(p.src), binary.BigEndian.Uint32(p.dst)
	addrs := uint64(src)<<32 | uint64(dst)
	c := &o.pairs[(src-dst>>2)%uint32(len(o.pairs))]
	if c.addrs != addrs {
		*c = pair{addrs, o.v4[[4]byte(p.src)], o.v4[[4]byte(p.dst)]}
	}
	return c.from, c.to
}

func (o *Observer) lookUp(addr []byte) []*peer {
	if len(addr) == 4 {
		return o.v4[[4]byte(addr)]
	}
	return o.v6[[16]byte(addr)]
}

func (o *Observer) peersAt(a netip.Addr) []*peer {
	if a.Is4() {
		return o.v4[a.As4()]
	}
	return o.v6[a.As16()]
}
