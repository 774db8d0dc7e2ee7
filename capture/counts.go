package capture

import (
	"fmt"
	"time"

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

	// In is from the peer, Out is to it. Bytes are those of IP packets, header
	// included. A packet in fragments counts once, with the bytes of all of
	// them if its ports are not needed to know it (ESP, AH), else of the first.
	// Any later fragment of UDP counts as one of IKE or ESP: it has no ports.
	In, Out evidence.WireTraffic
	// ICMPErrors are those about packets to the peer, whoever sent them;
	// ICMPErrorsAway those about packets from the peer, as this host sends
	// them when it refuses one.
	ICMPErrors     map[evidence.ICMPReason]uint64
	ICMPErrorsAway map[evidence.ICMPReason]uint64

	// Dropped frames found no room in the ring; of which peer is not known.
	Dropped uint64
}

// Since returns what passed between an earlier reading of the same peer and
// this one; an earlier reading of zero stands for the beginning of the watch.
// blind says whether ESP may bypass packet sockets on this host. It is Unknown
// in the result unless the window was watched from end to end, so that the
// result proves no absence.
func (c Counts) Since(earlier Counts, blind evidence.Fact) evidence.Capture {
	begin := earlier.Time
	if begin.IsZero() {
		begin = c.Watching
	}
	e := evidence.Capture{
		Mode:       c.Mode,
		Blind:      blind,
		Dropped:    c.Dropped - min(earlier.Dropped, c.Dropped),
		In:         subtract(c.In, earlier.In),
		Out:        subtract(c.Out, earlier.Out),
		ICMPErrors: subtractCounts(c.ICMPErrors, earlier.ICMPErrors),
	}
	if !begin.IsZero() {
		e.Over = evidence.Seconds(max(c.Time.Sub(begin), 0))
	}
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
		ESP:           now.ESP.Sub(was.ESP),
		ESPInUDP:      now.ESPInUDP.Sub(was.ESPInUDP),
		AH:            now.AH.Sub(was.AH),
		IKE:           subtractCounts(now.IKE, was.IKE),
		NATKeepalives: now.NATKeepalives - was.NATKeepalives,
		Fragments:     now.Fragments - was.Fragments,
	}
}

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
func (o *Observer) Counts(name string) Counts {
	c := Counts{Mode: evidence.CaptureFile, Time: o.last}
	p := o.peers[name]
	switch {
	case p == nil:
		c.Reason = fmt.Sprintf("%q is not a peer that is watched", name)
		p = &peer{}
	case len(p.addrs) == 0:
		c.Reason = "the peer has no address yet"
	default:
		c.Watching = o.first
	}
	c.In, c.Out = p.in.evidence(), p.out.evidence()
	c.ICMPErrors, c.ICMPErrorsAway = byReason(&p.errsIn), byReason(&p.errsAway)
	return c
}

func (t *traffic) evidence() evidence.WireTraffic {
	ike := make(map[string]uint64)
	for x, n := range t.ike {
		if n > 0 {
			ike[exchange(x).String()] = n
		}
	}
	return evidence.WireTraffic{
		ESP:           evidence.Traffic{Packets: t.esp.packets, Bytes: t.esp.bytes},
		ESPInUDP:      evidence.Traffic{Packets: t.espInUDP.packets, Bytes: t.espInUDP.bytes},
		AH:            evidence.Traffic{Packets: t.ah.packets, Bytes: t.ah.bytes},
		IKE:           ike,
		NATKeepalives: t.keepalives,
		Fragments:     t.fragments,
	}
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
