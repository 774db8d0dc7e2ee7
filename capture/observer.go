package capture

import (
	"bytes"
	"net/netip"
	"slices"
	"time"
)

// Peer is whose traffic is counted.
type Peer struct {
	Name  string
	Addrs []netip.Addr // of the remote gateway; empty while it is not resolved
}

// Observer counts, per peer, the frames that it is shown. Its methods must not
// be called at the same time.
type Observer struct {
	peers map[string]*peer
	v4    map[[4]byte][]*peer
	v6    map[[16]byte][]*peer
	seen  twins
	first time.Time // of the frames shown
	last  time.Time
}

// peer is what was counted of one peer.
type peer struct {
	addrs    []netip.Addr
	in, out  traffic
	errsIn   [len(reasons)]uint64 // ICMP errors about packets to the peer
	errsAway [len(reasons)]uint64 // ICMP errors about packets from the peer
}

// NewObserver returns an observer of the given peers.
func NewObserver(peers []Peer) *Observer {
	o := &Observer{peers: map[string]*peer{}}
	o.SetPeers(peers)
	return o
}

// SetPeers replaces the peers. One that stays, by name, keeps its counts, even
// under other addresses. An address that belongs to several peers counts for
// each of them. The names of the peers that are new, or have other addresses
// than before, are returned.
func (o *Observer) SetPeers(peers []Peer) (changed []string) {
	old := o.peers
	o.peers = make(map[string]*peer, len(peers))
	o.v4 = map[[4]byte][]*peer{}
	o.v6 = map[[16]byte][]*peer{}
	for _, p := range peers {
		addrs := normalize(p.Addrs)
		state := old[p.Name]
		if state == nil || !slices.Equal(state.addrs, addrs) {
			changed = append(changed, p.Name)
		}
		if state == nil {
			state = &peer{}
		}
		state.addrs = addrs
		o.peers[p.Name] = state
		for _, a := range addrs {
			if a.Is4() {
				o.v4[a.As4()] = append(o.v4[a.As4()], state)
			} else {
				o.v6[a.As16()] = append(o.v6[a.As16()], state)
			}
		}
	}
	return changed
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

// Packet counts one frame. The frame may be cut off; wireLen is how long it
// was on the wire, in bytes. outgoing says that this host sent it, as far as
// the source of the frames knows. The time is the capture's. Frames that mean
// nothing to a peer, or nothing at all, are passed over.
func (o *Observer) Packet(frame []byte, link LinkType, outgoing bool, wireLen int, t time.Time) {
	if o.first.IsZero() {
		o.first = t
	}
	o.last = t
	off, out, ok := link.strip(frame)
	if !ok {
		return
	}
	var p packet
	if !p.parse(frame[off:], max(wireLen, len(frame))-off) {
		return
	}
	outgoing = outgoing || out
	switch p.proto {
	case protoICMP, protoICMPv6:
		o.icmp(&p, outgoing, t)
	default:
		o.traffic(&p, outgoing, t)
	}
}

func (o *Observer) traffic(p *packet, outgoing bool, t time.Time) {
	from, to := o.lookUp(p.src), o.lookUp(p.dst)
	if from == nil && to == nil {
		return
	}
	k, x := p.classify()
	if k == kindNone || o.seen.twin(p, outgoing, t) {
		return
	}
	for _, peer := range from {
		peer.in.add(p, k, x)
	}
	if bytes.Equal(p.src, p.dst) {
		return // both ends are the peer's one address: in, once
	}
	for _, peer := range to {
		peer.out.add(p, k, x)
	}
}

// icmp counts an ICMP error by the packet that it quotes: the error itself may
// come from any router on the way.
func (o *Observer) icmp(p *packet, outgoing bool, t time.Time) {
	quoted, why, ok := p.icmpError()
	if !ok {
		return
	}
	from, to := o.lookUp(quoted.src), o.lookUp(quoted.dst)
	if from == nil && to == nil || o.seen.twin(p, outgoing, t) {
		return
	}
	for _, peer := range to {
		peer.errsIn[why]++
	}
	for _, peer := range from {
		peer.errsAway[why]++
	}
}

func (o *Observer) lookUp(addr []byte) []*peer {
	if len(addr) == 4 {
		return o.v4[[4]byte(addr)]
	}
	return o.v6[[16]byte(addr)]
}

// traffic is evidence.WireTraffic in a form that is counted without allocating.
type traffic struct {
	esp, espInUDP, ah volume
	ike               [len(exchanges)]uint64
	keepalives        uint64
	fragments         uint64
}

type volume struct{ packets, bytes uint64 }

// add counts the bytes of all fragments, and the packet with the first.
func (v *volume) add(p *packet) {
	if !p.later() {
		v.packets++
	}
	v.bytes += p.length
}

func (t *traffic) add(p *packet, k kind, x exchange) {
	if p.fragment() {
		t.fragments++
	}
	switch k {
	case kindESP:
		t.esp.add(p)
	case kindAH:
		t.ah.add(p)
	case kindESPInUDP:
		t.espInUDP.add(p)
	case kindIKE:
		t.ike[x]++
	case kindKeepalive:
		t.keepalives++
	}
}
