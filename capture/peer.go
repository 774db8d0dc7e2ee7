package capture

import (
	"net/netip"
	"time"

	"vpnprobe/capture/ikeconv"
	"vpnprobe/evidence"
)

// Peer is whose traffic is counted.
type Peer struct {
	Name  string
	Addrs []netip.Addr // of the remote gateway; empty while it is not resolved
	// Interfaces are those of the underlay, by name; empty means any. Frames
	// of others do not count for the peer.
	Interfaces []string
	// Local and Remote are the subnets that the tunnel connects. Packets in
	// clear to Remote that leave on the underlay are leaks.
	Local, Remote []netip.Prefix
}

// peer is what was counted of one peer. What it holds is bounded, whatever
// frames there are.
type peer struct {
	addrs   []netip.Addr
	scope   *scope
	remote  []netip.Prefix
	remotes subnets
	locals  subnets
	watched bool // leaks to remote are looked for

	in, out traffic
	flows   flows
	uses    []*use
	talk    *ikeconv.Conversation
	talked  time.Time // when the last message passed
	leaks   [len(leakKinds)]leak
	errsIn  [len(reasons)]uint64 // ICMP errors about packets to the peer
	errs    icmpLog              // and those about packets from the peer
}

func newPeer() *peer { return &peer{talk: ikeconv.New()} }

// configure takes over what is said of the peer.
func (p *peer) configure(c Peer, addrs []netip.Addr) {
	p.addrs = addrs
	p.remote = normalizePrefixes(c.Remote)
	p.remotes, p.locals = subnets{}, subnets{}
	for _, r := range p.remote {
		p.remotes.add(r)
	}
	for _, l := range normalizePrefixes(c.Local) {
		p.locals.add(l)
	}
}

// traffic is evidence.WireTraffic in a form that is counted without allocating.
type traffic struct {
	esp, espInUDP, ah volume
	ike               [len(exchanges)]uint64
	keepalives        uint64
	fragments         fragments
}

// volume counts packets and their bytes.
type volume struct{ packets, bytes uint64 }

func (v *volume) add(o volume) {
	v.packets += o.packets
	v.bytes += o.bytes
}

func (v volume) evidence() evidence.Traffic {
	return evidence.Traffic{Packets: v.packets, Bytes: v.bytes}
}

// volume is p's part: the bytes of all fragments, and the packet with the first.
func (p *packet) volume() volume {
	if p.later() {
		return volume{bytes: p.length}
	}
	return volume{1, p.length}
}

// of returns where encrypted packets of a kind are counted; nil for what is
// none.
func (t *traffic) of(k kind) *volume {
	switch k {
	case kindESP:
		return &t.esp
	case kindAH:
		return &t.ah
	case kindESPInUDP:
		return &t.espInUDP
	}
	return nil
}

func (t *traffic) add(p *packet, k kind, x exchange) {
	t.fragments.add(p, k)
	switch k {
	case kindIKE:
		t.ike[x]++
	case kindKeepalive:
		t.keepalives++
	default:
		if v := t.of(k); v != nil {
			v.add(p.volume())
		}
	}
}

func (t *traffic) evidence() evidence.WireTraffic {
	ike := make(map[string]uint64)
	for x, n := range t.ike {
		if n > 0 {
			ike[exchange(x).String()] = n
		}
	}
	return evidence.WireTraffic{
		ESP:           t.esp.evidence(),
		ESPInUDP:      t.espInUDP.evidence(),
		AH:            t.ah.evidence(),
		IKE:           ike,
		NATKeepalives: t.keepalives,
		Fragments:     t.fragments.evidence(),
	}
}
