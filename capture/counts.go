package capture

import (
	"fmt"
	"time"

	"vpnprobe/capture/ikeconv"
	"vpnprobe/evidence"
)

// Counts is one reading of what was counted of one peer since the capture was
// opened. Its values only ever grow. Two readings make a window: [Counts.Since].
type Counts struct {
	Mode evidence.CaptureMode
	Time time.Time // of the reading; in a file, of the last frame

	// Watching is since when every packet of the peer's was looked at without
	// a break: zero when none is now, and then Reason says why.
	Watching time.Time
	Reason   string

	// Listened is for how long frames were looked at since the capture was
	// opened: all the time that passed, but for the pauses of a source that this
	// host cannot afford to look at without a break. Zero means without pauses.
	Listened time.Duration

	// In is from the peer, Out is to it. Bytes are those of IP packets, header
	// included. A packet in fragments counts once, with the bytes of all of
	// them if its ports are not needed to know it (ESP, AH), else of the first.
	// Any later fragment of UDP counts as one of IKE or ESP: it has no ports.
	// Lost in Sequence may shrink by packets that came late.
	In, Out evidence.WireTraffic
	// Forgotten counts SPIs, of all peers with the same interfaces, that found
	// no room among the flows or had to leave. The kernel's counting tells them
	// by peer.
	Forgotten  uint64
	Interfaces []InterfaceCounts
	// ICMPErrors are those about packets to the peer, whoever sent them. ICMP
	// has also those about packets from the peer, as this host sends them when
	// it refuses one, as far as there is room.
	ICMPErrors map[evidence.ICMPReason]uint64
	ICMP       []ICMPCount

	// Leaks are packets in clear to the peer's remote subnets. LeaksWatched is
	// No when there is none that they could be looked for in: none declared, one
	// as wide as a good part of the Internet, or too many for the kernel's
	// filter. It is Unknown while it is not known by which interface the peer is
	// sent something, or which frames this host sent.
	Leaks        []evidence.Leak
	LeaksWatched evidence.Fact

	// Dropped frames found no room in the ring; of which peer is not known.
	Dropped uint64

	flows []flowCounts
	talk  ikeconv.Reading
}

// Since returns what passed between an earlier reading of the same peer and
// this one; an earlier reading of zero stands for the beginning of the watch.
// blind says whether ESP may bypass packet sockets on this host. It is Unknown
// in the result unless the window was watched from end to end, so that the
// result proves no absence.
//
// Where Dropped is not zero, Lost of the sequences counts packets too that
// passed the network and found no room here: it is no loss of the network's.
func (c Counts) Since(earlier Counts, blind evidence.Fact) evidence.Capture {
	begin := earlier.Time
	if begin.IsZero() {
		begin = c.Watching
	}
	e := evidence.Capture{
		Mode:         c.Mode,
		Blind:        blind,
		Dropped:      c.Dropped - min(earlier.Dropped, c.Dropped),
		In:           subtract(c.In, earlier.In),
		Out:          subtract(c.Out, earlier.Out),
		Flows:        flowsSince(c.flows, earlier.flows, earlier.Time),
		Forgotten:    less(c.Forgotten, earlier.Forgotten),
		Interfaces:   interfacesSince(c.Interfaces, earlier.Interfaces),
		Talk:         c.talk.Since(earlier.talk),
		Leaks:        leaksSince(c.Leaks, earlier.Leaks),
		LeaksWatched: c.LeaksWatched,
		ICMPErrors:   subtractCounts(c.ICMPErrors, earlier.ICMPErrors),
		ICMP:         icmpSince(c.ICMP, earlier.ICMP),
	}
	if !begin.IsZero() {
		e.Over = evidence.Seconds(max(c.Time.Sub(begin), 0))
		e.Watched = e.Over
		switch {
		case c.Watching.IsZero():
			e.Watched = 0
		case c.Watching.After(begin):
			e.Watched = evidence.Seconds(max(c.Time.Sub(c.Watching), 0))
		}
		if c.Listened > 0 {
			e.Watched = min(e.Over, evidence.Seconds(max(c.Listened-earlier.Listened, 0)))
		}
	}
	e.Talk.Over, e.Talk.Whole = e.Over, e.Whole()
	switch {
	case c.Watching.IsZero():
		e.Blind, e.Reason = evidence.Unknown, c.Reason
	case c.Watching.After(begin):
		e.Blind = evidence.Unknown
		e.Reason = fmt.Sprintf("watched only the last %v", c.Time.Sub(c.Watching).Round(time.Millisecond))
	case blind == evidence.Yes:
		e.Reason = "ESP offload with GRO hides inbound ESP from packet sockets"
	case blind == evidence.Unknown:
		e.Reason = "not known whether ESP offload hides inbound ESP"
	case e.Dropped > 0:
		e.Reason = fmt.Sprintf("the kernel dropped %d frames for want of room", e.Dropped)
	}
	return e
}

func subtract(now, was evidence.WireTraffic) evidence.WireTraffic {
	return evidence.WireTraffic{
		ESP:           since(now.ESP, was.ESP),
		ESPInUDP:      since(now.ESPInUDP, was.ESPInUDP),
		AH:            since(now.AH, was.AH),
		IKE:           subtractCounts(now.IKE, was.IKE),
		Sequence:      sequenceSince(now.Sequence, was.Sequence),
		NATKeepalives: less(now.NATKeepalives, was.NATKeepalives),
		Fragments:     fragmentsSince(now.Fragments, was.Fragments),
	}
}

func since(now, was evidence.Traffic) evidence.Traffic {
	return evidence.Traffic{Packets: less(now.Packets, was.Packets), Bytes: less(now.Bytes, was.Bytes)}
}

// less returns a - b, at least 0.
func less(a, b uint64) uint64 { return a - min(a, b) }

func subtractCounts[K comparable](now, was map[K]uint64) map[K]uint64 {
	out := make(map[K]uint64, len(now))
	for k, n := range now {
		if n > was[k] {
			out[k] = n - was[k]
		}
	}
	return out
}

// Counts returns what was counted of one peer so far. The watch began with the
// first frame and ends with the last: an observer knows no other time.
func (o *Observer) Counts(name string) Counts { return o.CountsAt(name, o.last) }

// CountsAt is [Observer.Counts] for a reading at a time when a request may have
// been without an answer for long though no frame has come since.
func (o *Observer) CountsAt(name string, now time.Time) Counts {
	c := Counts{Mode: evidence.CaptureFile, Time: now}
	p := o.peers[name]
	switch {
	case p == nil:
		c.Reason = fmt.Sprintf("%q is not a peer that is watched", name)
		return c
	case len(p.addrs) == 0:
		c.Reason = "the peer has no address yet"
	default:
		c.Watching = o.first
	}
	c.In, c.Out = p.in.evidence(), p.out.evidence()
	c.In.Sequence, c.Out.Sequence, c.flows, c.Forgotten = p.flowCounts(now)
	c.Interfaces = p.interfaceCounts()
	c.Leaks, c.LeaksWatched = p.leakCounts(), p.leaksWatched()
	c.ICMP = p.errs.counts()
	if p.talked.After(now) {
		now = p.talked
	}
	c.talk = p.talk.Snapshot(now)
	c.ICMPErrors = byReason(&p.errsIn)
	return c
}

func byReason(counts *[len(reasons)]uint64) map[evidence.ICMPReason]uint64 {
	out := make(map[evidence.ICMPReason]uint64)
	for r, n := range counts {
		if n > 0 {
			out[reasons[r]] = n
		}
	}
	return out
}
