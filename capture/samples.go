package capture

import (
	"iter"
	"maps"
	"time"

	"vpnprobe/internal/wire/esp"
)

// readings is what the kernel said last of the flows on one interface.
type readings struct {
	flows  map[esp.Key]*reading
	totals map[esp.Key]kernelTotal
	number uint64 // of the readings so far
	gap    bool   // packets passed uncounted since the last one
}

type reading struct {
	raw, told esp.Sample // as the kernel said, and as it was passed on
	shift     uint32     // the difference of their sequence numbers
	number    uint64
	gap       bool // packets passed uncounted since the last one that was counted
}

// forgetAfter is how many readings have to be without a flow before it is
// taken for one that the kernel has forgotten: one reading may leave it out.
const forgetAfter = 8

// kernelTotal is all that the kernel counted on an interface of one peer, in one
// direction by one protocol: also of flows that it has no more. The key has no
// SPI, and only the peer's address.
type kernelTotal struct {
	key       esp.Key
	volume    volume
	last      time.Time
	forgotten uint64 // flows
}

// readings returns what the kernel said last of an interface.
func (o *Observer) readings(iface string) (*device, *readings) {
	d := o.device(&Frame{Interface: iface}, &framing{})
	d.directed = true
	r := o.kernel[d]
	if r == nil {
		r = &readings{flows: map[esp.Key]*reading{}}
		o.kernel[d] = r
	}
	return d, r
}

// anew says that the kernel begins to count on an interface from 0.
func (o *Observer) anew(iface string) {
	d, _ := o.readings(iface)
	delete(o.kernel, d)
}

// totals takes a reading of what the kernel counts on an interface besides the
// flows, whose packets and bytes it then has: Samples does not count them.
func (o *Observer) totals(iface string, list []kernelTotal) {
	d, r := o.readings(iface)
	was := r.totals
	r.totals = make(map[esp.Key]kernelTotal, len(list))
	for _, t := range list {
		r.totals[t.key] = t
		e := was[t.key]
		if t.volume.packets < e.volume.packets || t.volume.bytes < e.volume.bytes {
			e = kernelTotal{} // counted anew
		}
		v := volume{t.volume.packets - e.volume.packets, t.volume.bytes - e.volume.bytes}
		forgotten := less(t.forgotten, e.forgotten)
		k, ok := kindOf(&t.key)
		if !ok || v == (volume{}) && forgotten == 0 {
			continue
		}
		far := t.key.Src
		if t.key.Outgoing {
			far = t.key.Dst
		}
		for _, p := range o.peersAt(far) {
			if u := p.use(d); u.counts {
				p.countVolume(k, v, t.key.Outgoing, u, t.last)
				p.flows.forgotten += forgotten
			}
		}
	}
}

// Samples takes a reading of the flows that the kernel counts on an interface.
// They are cumulative since the counting there began; at is when they were read.
func (o *Observer) Samples(iface string, at time.Time, list iter.Seq2[esp.Key, esp.Sample]) {
	o.reach(at)
	d, r := o.readings(iface)
	r.number++
	if r.gap {
		for _, f := range r.flows {
			f.gap = true
		}
		r.gap = false
	}
	var rest []laterFragments
	for key, sample := range list {
		delta, told := r.take(key, sample) // also of those whose peer may come back
		from, to := o.peersAt(key.Src), o.peersAt(key.Dst)
		// What comes from a peer and leaves this host again, and the reverse, was
		// counted before, or will be: a one-armed router's.
		peers := from
		if key.Outgoing {
			peers = to
		}
		if peers == nil || key.Src == key.Dst && key.Outgoing {
			continue
		}
		var done *scope
		for _, p := range peers {
			u := p.use(d)
			if !u.counts {
				continue
			}
			if p.scope != done {
				done = p.scope
				done.kernel(d, o.room).Add(key, told, at)
			}
			p.countSample(&key, &delta, u, r.totals == nil)
			if key.Protocol == esp.UDP {
				rest = append(rest, laterFragments{&p.direction(key.Outgoing).fragments, delta.Fragments})
			}
		}
	}
	for _, l := range rest { // now that the first ones were seen
		l.of.addSample(kindUDPFragment, l.count)
	}
	maps.DeleteFunc(r.flows, func(_ esp.Key, f *reading) bool { return r.number-f.number > forgetAfter })
}

// laterFragments are fragments of UDP without ports.
type laterFragments struct {
	of    *fragments
	count [3]uint64
}

// take returns what a sample adds to the one before, and the sample with its
// sequence numbers shifted so that what passed uncounted is not missing.
func (r *readings) take(key esp.Key, now esp.Sample) (delta, told esp.Sample) {
	f := r.flows[key]
	if f == nil {
		f = &reading{}
		r.flows[key] = f
	}
	f.number = r.number
	was := f.raw
	if now.Packets < was.Packets || now.Bytes < was.Bytes { // counted anew
		*f = reading{number: r.number}
		was = esp.Sample{}
	}
	if now.Packets > was.Packets {
		if f.gap && was.Packets > 0 {
			seen := uint32(unique(&now) - unique(&was))
			f.shift += now.Max - was.Max - seen
		}
		f.gap = false
	}
	told = now
	told.Max -= f.shift
	if now.First == was.First && was.Packets > 0 {
		told.First = f.told.First
	} else {
		told.First -= f.shift
	}
	f.raw, f.told = now, told
	delta = now
	delta.Packets -= was.Packets
	delta.Bytes -= was.Bytes
	for i := range delta.Fragments {
		delta.Fragments[i] = less(now.Fragments[i], was.Fragments[i])
	}
	return delta, told
}

func unique(s *esp.Sample) uint64 { return less(s.Packets, s.Duplicates+s.Strays) }

// direction returns what was counted one way.
func (p *peer) direction(out bool) *traffic {
	if out {
		return &p.out
	}
	return &p.in
}

// kindOf tells the kind of a flow's packets; of fragments of UDP without ports
// nobody knows.
func kindOf(key *esp.Key) (k kind, ok bool) {
	switch {
	case key.Protocol == esp.UDP:
		return kindNone, false
	case key.Protocol == esp.AH:
		return kindAH, true
	case key.Encap:
		return kindESPInUDP, true
	}
	return kindESP, true
}

// countSample counts what a flow that the kernel counts has grown by, packets
// and bytes if they are not counted apart.
func (p *peer) countSample(key *esp.Key, delta *esp.Sample, u *use, volumes bool) {
	v := volume{delta.Packets, delta.Bytes}
	if v == (volume{}) {
		return
	}
	if key.Outgoing {
		u.sentFrom(key.Src.AsSlice())
	}
	k, ok := kindOf(key)
	if !ok {
		return
	}
	p.direction(key.Outgoing).fragments.addSample(k, delta.Fragments)
	if volumes {
		p.countVolume(k, v, key.Outgoing, u, delta.Last)
	}
}

// countVolume counts encrypted packets, of which the last passed at a time.
func (p *peer) countVolume(k kind, v volume, out bool, u *use, last time.Time) {
	p.direction(out).of(k).add(v)
	u.passed(v, out, last.UnixNano())
}
