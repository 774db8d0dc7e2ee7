package capture

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"time"

	"vpnprobe/evidence"
)

const (
	// maxWatched is how many remote subnets leaks are looked for in, all peers
	// together: each costs the kernel's filter up to nine instructions.
	maxWatched = 32

	// A subnet with fewer bits is a good part of the Internet: all that passes
	// to it would have to be looked at.
	minBits4 = 8
	minBits6 = 16
)

// watchable reports whether leaks to a subnet can be looked for.
func watchable(p netip.Prefix) bool {
	if p.Addr().Is4() {
		return p.Bits() >= minBits4
	}
	return p.Bits() >= minBits6
}

// behind reports whether an address is behind the peer: one subnet may be part
// of another, and the longer prefix is right.
func (p *peer) behind(addr []byte) bool {
	bits := p.remotes.match(addr)
	return bits >= 0 && bits >= p.locals.match(addr)
}

// watchLeaks decides which remote subnets leaks are looked for in: those of all
// peers, if they are not too many for the kernel's filter.
func (o *Observer) watchLeaks() {
	o.remotes = subnets{}
	distinct := map[netip.Prefix]bool{}
	for _, p := range o.peers {
		p.watched = len(p.remote) > 0
		for _, r := range p.remote {
			p.watched = p.watched && watchable(r)
			if watchable(r) {
				distinct[r] = true
			}
		}
	}
	for _, p := range o.peers {
		if len(distinct) > maxWatched {
			p.watched = false
			continue
		}
		for _, r := range p.remote {
			if watchable(r) {
				s := o.remotes.add(r)
				s.peers = append(s.peers, p)
			}
		}
	}
}

// The kinds of a leak, as indexes.
const (
	leakRewritten = iota
	leakOwn
	leakDeclared
	leakOther
)

var leakKinds = [...]evidence.LeakKind{
	evidence.LeakRewritten,
	evidence.LeakOwn,
	evidence.LeakDeclared,
	evidence.LeakOther,
}

// leak counts the packets of one kind, and keeps the newest.
type leak struct {
	packets  uint64
	src, dst netip.Addr
	proto    uint8
	last     int64
}

// leak counts a packet in clear that left this host on the way to a peer's
// gateway though it is for a subnet behind it. What neither comes from a
// gateway nor goes to one is shown to it.
func (o *Observer) leak(p *packet, d *device, h *framing, outgoing bool, t time.Time) {
	list := o.remotes.of(p.dst)
	if len(list) == 0 || !outgoing && (d.directed || h.source == nil) || h.group || !p.leakable() {
		return
	}
	hi, lo := halves(p.dst)
	now := t.UnixNano()
	first := true
	for i := range list {
		s := &list[i]
		if !s.contains(hi, lo) || s.last != 0 && uint32(lo) == s.last {
			continue
		}
		for _, peer := range s.peers {
			u := peer.use(d)
			if !u.counts || !u.sent || !outgoing && !(u.hasMAC && bytes.Equal(u.mac[:], h.source)) {
				continue // not by the way that leads to the peer, or not from here
			}
			if peer.behind(p.src) && !u.own(p.src) || !peer.behind(p.dst) {
				continue // it is not from this side, or not to the other
			}
			if first && o.seen.twin(p, d.way(outgoing), now) {
				return
			}
			first = false
			peer.leaked(p, u, now)
		}
	}
}

// leakable reports whether a packet is of a kind that belongs into the tunnel
// if its addresses do. Those with IPv6 extension headers are too rare for the
// kernel's filter to follow.
func (p *packet) leakable() bool {
	if p.later() || p.extended {
		return false
	}
	if len(p.dst) == 4 && p.dst[0] >= 224 || p.dst[0] == 0xff || p.dst[0] == 0xfe && p.dst[1]&0xc0 == 0x80 && len(p.dst) == 16 {
		return false // multicast, broadcast, link-local
	}
	switch p.proto {
	case protoESP, protoAH:
		return false
	case protoUDP:
		if len(p.payload) < 8 {
			return false
		}
		src, dst := binary.BigEndian.Uint16(p.payload), binary.BigEndian.Uint16(p.payload[2:])
		return !ikePort(src) && !ikePort(dst)
	case protoICMP, protoICMPv6:
		return len(p.payload) > 0 && !p.icmpErrorType()
	}
	return true
}

// leaked counts a leak. The same packet may be one for several peers.
func (p *peer) leaked(pkt *packet, u *use, now int64) {
	kind := leakOther
	switch {
	case u.own(pkt.src) && forwarded(pkt.ttl):
		kind = leakRewritten
	case u.own(pkt.src):
		kind = leakOwn
	case p.locals.match(pkt.src) >= 0:
		kind = leakDeclared
	}
	l := &p.leaks[kind]
	l.packets++
	if now >= l.last {
		l.src, l.dst = addr(pkt.src), addr(pkt.dst)
		l.proto, l.last = pkt.proto, now
	}
}

// own reports whether an address is the one that this side's packets to the
// peer come from.
func (u *use) own(src []byte) bool {
	if len(src) == 4 {
		return u.has4 && u.own4 == [4]byte(src)
	}
	return u.has6 && u.own6 == [16]byte(src)
}

// forwarded judges by a packet's time to live whether a router has passed it
// on: senders begin with 64, 128 or 255, or with little on purpose, and hardly
// any way to a gateway is longer than 31 hops.
func forwarded(ttl uint8) bool {
	for _, initial := range []uint8{64, 128, 255} {
		if ttl < initial && ttl >= initial-31 {
			return true
		}
	}
	return false
}

// addr is an address of a packet. It does not refer to the frame.
func addr(b []byte) netip.Addr {
	if len(b) == 4 {
		return netip.AddrFrom4([4]byte(b))
	}
	return netip.AddrFrom16([16]byte(b))
}

func (p *peer) leakCounts() []evidence.Leak {
	var list []evidence.Leak
	for kind := range p.leaks {
		if l := &p.leaks[kind]; l.packets > 0 {
			list = append(list, evidence.Leak{
				Kind:        leakKinds[kind],
				Packets:     l.packets,
				Source:      l.src,
				Destination: l.dst,
				Protocol:    int(l.proto),
				Last:        time.Unix(0, l.last).UTC(),
			})
		}
	}
	return list
}

// leaksWatched says whether leaks of the peer would have been seen: not
// before it is known by which interface the peer is sent something, and not
// where that does not tell which frames this host sent.
func (p *peer) leaksWatched() evidence.Fact {
	if !p.watched {
		return evidence.No
	}
	for _, u := range p.uses {
		if u.counts && u.sent && (u.device.directed || u.hasMAC) {
			return evidence.Yes
		}
	}
	return evidence.Unknown
}

// leaksSince returns the leaks between two readings.
func leaksSince(now, earlier []evidence.Leak) []evidence.Leak {
	var list []evidence.Leak
	for _, l := range now {
		for _, e := range earlier {
			if e.Kind == l.Kind {
				l.Packets -= min(e.Packets, l.Packets)
			}
		}
		if l.Packets > 0 {
			list = append(list, l)
		}
	}
	return list
}
