package capture

import (
	"slices"
	"time"

	"vpnprobe/internal/wire/esp"
)

// scope is a set of interfaces and the flows that pass any of them: a flow may
// take several, so its sequence numbers are followed over all of them. Peers
// with the same interfaces share one.
type scope struct {
	interfaces []string // sorted; empty means any
	number     int      // for sorting
	shown      *esp.Table
	counted    map[*device]*esp.Sampled
	peers      []*peer
}

func newScope(interfaces []string, number int) *scope {
	s := &scope{interfaces: interfaces, number: number, shown: esp.NewTable(), counted: map[*device]*esp.Sampled{}}
	s.shown.Leave = s.leave
	return s
}

// on reports whether an interface belongs to the scope. Of frames that come
// without its name nobody can say that they are of another.
func (s *scope) on(d *device) bool {
	return len(s.interfaces) == 0 || !d.id.named() || slices.Contains(s.interfaces, d.name)
}

// kernel returns what the kernel counts on an interface. Its table has room for
// so many flows, of all interfaces.
func (s *scope) kernel(d *device, room int) *esp.Sampled {
	c := s.counted[d]
	if c == nil {
		c = esp.NewSampled(room)
		c.Leave = s.leave
		s.counted[d] = c
	}
	return c
}

// add follows an encrypted packet, in the direction that its addresses tell.
func (s *scope) add(p *packet, k kind, out bool, t time.Time) {
	key := esp.Key{Protocol: esp.ESP, Encap: k == kindESPInUDP, Outgoing: out}
	if k == kindAH {
		key.Protocol = esp.AH
	}
	seq := uint32(0)
	if !p.later() {
		ok := false
		switch k {
		case kindESP:
			key.SPI, seq, ok = esp.ParseESP(p.payload)
		case kindESPInUDP:
			key.SPI, seq, ok = esp.ParseESP(p.payload[8:])
		case kindAH:
			key.SPI, seq, ok = esp.ParseAH(p.payload)
		}
		if !ok {
			return // no packet of an SA
		}
	}
	key.Src, key.Dst = addr(p.src), addr(p.dst)
	s.shown.Add(key, seq, int(p.length), p.part(), t)
}

// part is p's place among the fragments of a packet.
func (p *packet) part() esp.Fragment {
	switch {
	case !p.fragment():
		return esp.Whole
	case !p.later():
		return esp.FirstFragment
	case p.more:
		return esp.MiddleFragment
	}
	return esp.LastFragment
}

// forgotten returns how many SPIs were forgotten of those shown. The kernel
// tells of its own.
func (s *scope) forgotten() uint64 { return s.shown.Forgotten() }

// leave is told of a flow that had to leave: its peers' totals stay.
func (s *scope) leave(k esp.Key, c esp.Counts) {
	for _, p := range s.peers {
		if p.owns(&k) {
			p.flows.left(k, c)
		}
	}
}

// owns reports whether a flow is one from or to the peer.
func (p *peer) owns(k *esp.Key) bool {
	far := k.Src
	if k.Outgoing {
		far = k.Dst
	}
	return slices.Contains(p.addrs, far)
}

// flowsOf returns the flows of a peer, from all that tells of them.
func (s *scope) flowsOf(p *peer, at time.Time) map[esp.Key]joined {
	all := map[esp.Key]joined{}
	take := func(k esp.Key, c esp.Counts) bool {
		if p.owns(&k) {
			all[k] = all[k].join(c)
		}
		return true
	}
	s.shown.Flows(at)(take)
	for _, c := range s.counted {
		c.Flows()(take)
	}
	return all
}

// joined is a flow as it was counted in one place, or in several: on some
// interfaces in the kernel, on others here.
type joined struct {
	esp.Counts
	several bool
	most    uint64 // greatest Expected of one place
}

// join adds what was counted in one more place. Each saw only some of the
// numbers, and took all others for lost. So what was expected in all is what
// any of them expected at most, or else what was seen: too little, if
// anything, where the flow moved from one place to another.
func (j joined) join(c esp.Counts) joined {
	if j.Packets+j.Bytes == 0 {
		return joined{Counts: c, most: c.Expected}
	}
	j.several = true
	j.most = max(j.most, c.Expected)
	j.Counts = j.Counts.Plus(c)
	seen := less(j.Packets, j.Duplicates+j.Strays)
	j.Expected = max(j.most, seen)
	j.Bursts, j.BurstsUnknown = [len(j.Bursts)]uint64{}, true
	return j
}

// scopeOf returns the scope of a set of interfaces, which may be one of old.
func (o *Observer) scopeOf(interfaces []string, old []*scope) *scope {
	interfaces = slices.Compact(slices.Sorted(slices.Values(interfaces)))
	same := func(s *scope) bool { return slices.Equal(s.interfaces, interfaces) }
	if i := slices.IndexFunc(o.scopes, same); i >= 0 {
		return o.scopes[i]
	}
	var s *scope
	if i := slices.IndexFunc(old, same); i >= 0 {
		s = old[i]
		s.peers = nil
	} else {
		o.numbers++
		s = newScope(interfaces, o.numbers)
		for d, r := range o.kernel { // what was counted before is not new
			if s.on(d) {
				c := s.kernel(d, o.room)
				for k, f := range r.flows {
					c.Add(k, f.told, o.last)
				}
			}
		}
	}
	o.scopes = append(o.scopes, s)
	return s
}
