package capture

import (
	"net/netip"
	"slices"
	"time"

	"vpnprobe/evidence"
)

// icmpKind is what ICMP errors have in common that are counted as one.
type icmpKind struct {
	sender netip.Addr
	about  string
	mtu    int // 0: not stated
	why    reason
	ours   bool
}

// icmpEntry counts the ICMP errors of one kind.
type icmpEntry struct {
	kind        icmpKind
	count       uint64
	first, last int64 // nanoseconds since 1970
}

// icmpLog holds the ICMP errors that were seen last. Forged ones can push others
// out, but not make it grow.
type icmpLog struct {
	entries []icmpEntry // at most evidence.MaxWireICMP
}

func (l *icmpLog) add(k icmpKind, now int64) {
	oldest := 0
	for i := range l.entries {
		e := &l.entries[i]
		if e.kind == k {
			e.count++
			e.last = max(e.last, now)
			return
		}
		if e.last < l.entries[oldest].last {
			oldest = i
		}
	}
	e := icmpEntry{kind: k, count: 1, first: now, last: now}
	if len(l.entries) < evidence.MaxWireICMP {
		l.entries = append(l.entries, e)
	} else {
		l.entries[oldest] = e
	}
}

// ICMPCount is a kind of ICMP errors. Those seen least recently are forgotten;
// one that comes again then counts from 1, with another First.
type ICMPCount struct {
	evidence.WireICMP
	First time.Time
}

func (l *icmpLog) counts() []ICMPCount {
	list := make([]ICMPCount, len(l.entries))
	for i, e := range l.entries {
		list[i] = ICMPCount{
			WireICMP: evidence.WireICMP{
				Sender: e.kind.sender,
				Reason: reasons[e.kind.why],
				About:  e.kind.about,
				Ours:   e.kind.ours,
				Count:  e.count,
				Last:   time.Unix(0, e.last).UTC(),
			},
			First: time.Unix(0, e.first).UTC(),
		}
		if e.kind.mtu > 0 {
			list[i].MTU = evidence.Some(e.kind.mtu)
		}
	}
	return list
}

// icmpSince returns the ICMP errors between two readings, the newest kind
// first.
func icmpSince(now, earlier []ICMPCount) []evidence.WireICMP {
	var list []evidence.WireICMP
	for _, c := range now {
		for _, e := range earlier {
			if same := e.WireICMP; e.First.Equal(c.First) {
				same.Count, same.Last = c.Count, c.Last
				if same == c.WireICMP {
					c.Count -= min(e.Count, c.Count)
				}
			}
		}
		if c.Count > 0 {
			list = append(list, c.WireICMP)
		}
	}
	slices.SortStableFunc(list, func(a, b evidence.WireICMP) int { return b.Last.Compare(a.Last) })
	return list
}
