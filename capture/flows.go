package capture

import (
	"cmp"
	"slices"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/wire/esp"
)

// flows is what of a scope's flows is one peer's.
type flows struct {
	// gone is what was counted of flows that are no more, or no more the
	// peer's: in, out.
	gone [2]sequence
	// before is what was counted of flows before they were the peer's.
	before map[esp.Key]esp.Counts
	// forgotten counts SPIs that the kernel forgot, and those of scopes that the
	// peer had before, less those that its scope forgot before it was the peer's.
	forgotten uint64
}

// sequence is evidence.Sequence as a sum over flows, each of which counts its
// losses for itself.
type sequence struct {
	expected, lost, duplicates, reordered, discontinuities uint64

	depth         uint32
	bursts        [len(esp.Counts{}.Bursts)]uint64
	burstsUnknown bool
}

func (s *sequence) add(c *esp.Counts) {
	s.expected += c.Expected
	s.lost += c.Lost()
	s.duplicates += c.Duplicates
	s.reordered += c.Reordered
	s.discontinuities += c.Discontinuities
	s.depth = max(s.depth, c.Depth)
	for i, n := range c.Bursts {
		s.bursts[i] += n
	}
	s.burstsUnknown = s.burstsUnknown || c.BurstsUnknown
}

func (s *sequence) evidence() evidence.Sequence {
	e := evidence.Sequence{
		Expected:        s.expected,
		Lost:            s.lost,
		Duplicates:      s.duplicates,
		Reordered:       s.reordered,
		Depth:           s.depth,
		Discontinuities: s.discontinuities,
	}
	if !s.burstsUnknown && s.expected > 0 {
		e.Bursts = slices.Clone(s.bursts[:])
	}
	return e
}

func sequenceSince(now, was evidence.Sequence) evidence.Sequence {
	e := evidence.Sequence{
		Expected:        less(now.Expected, was.Expected),
		Lost:            less(now.Lost, was.Lost), // what came late was lost before
		Duplicates:      less(now.Duplicates, was.Duplicates),
		Reordered:       less(now.Reordered, was.Reordered),
		Discontinuities: less(now.Discontinuities, was.Discontinuities),
	}
	if e.Reordered > 0 {
		e.Depth = now.Depth
	}
	for i, n := range now.Bursts {
		if i < len(was.Bursts) {
			n = less(n, was.Bursts[i])
		}
		e.Bursts = append(e.Bursts, n)
	}
	return e
}

// since returns what a flow has counted since it is the peer's.
func (f *flows) since(k esp.Key, c esp.Counts) esp.Counts {
	if was, ok := f.before[k]; ok {
		return c.Sub(was)
	}
	return c
}

// left is told of a flow that is no more.
func (f *flows) left(k esp.Key, c esp.Counts) {
	c = f.since(k, c)
	f.gone[index(k.Outgoing)].add(&c)
	delete(f.before, k)
}

func index(out bool) int {
	if out {
		return 1
	}
	return 0
}

// leaveScope keeps what was counted of the peer's flows in its scope, before it
// gets another one, or other addresses.
func (p *peer) leaveScope(at time.Time) {
	if p.scope == nil {
		return
	}
	for k, j := range p.scope.flowsOf(p, at) {
		p.flows.left(k, j.Counts)
	}
	p.flows.forgotten += p.scope.forgotten()
}

// enterScope lets the peer's flows begin with what they are now.
func (p *peer) enterScope(s *scope, at time.Time) {
	p.scope = s
	p.flows.before = map[esp.Key]esp.Counts{}
	for k, j := range s.flowsOf(p, at) {
		p.flows.before[k] = j.Counts
	}
	p.flows.forgotten -= s.forgotten()
	for _, u := range p.uses {
		u.counts = s.on(u.device)
	}
}

// maxFlowCounts bounds the flows in a reading, of which many are kept: some
// more than a window shows.
const maxFlowCounts = 4 * evidence.MaxFlows

// flowCounts is a reading of one flow.
type flowCounts struct {
	key esp.Key
	esp.Counts
}

// flowCounts returns the peer's totals, in and out, and its flows with the most
// packets.
func (p *peer) flowCounts(at time.Time) (in, out evidence.Sequence, list []flowCounts, forgotten uint64) {
	sum := p.flows.gone
	if p.scope == nil {
		return sum[0].evidence(), sum[1].evidence(), nil, 0
	}
	for k, j := range p.scope.flowsOf(p, at) {
		c := p.flows.since(k, j.Counts)
		sum[index(k.Outgoing)].add(&c)
		if k.SPI != 0 && c.Packets+c.Bytes > 0 {
			list = append(list, flowCounts{k, c})
		}
	}
	slices.SortFunc(list, func(a, b flowCounts) int {
		return cmp.Or(cmp.Compare(b.Packets, a.Packets), b.Last.Compare(a.Last), cmp.Compare(a.key.SPI, b.key.SPI))
	})
	if len(list) > maxFlowCounts {
		list = slices.Clone(list[:maxFlowCounts])
	}
	return sum[0].evidence(), sum[1].evidence(), list, p.flows.forgotten + p.scope.forgotten()
}

// flowsSince returns the flows that were in use between two readings, the
// busiest first. begin is the time of the earlier one.
func flowsSince(now, earlier []flowCounts, begin time.Time) []evidence.ESPFlow {
	was := make(map[esp.Key]esp.Counts, len(earlier))
	for _, f := range earlier {
		was[f.key] = f.Counts
	}
	var list []evidence.ESPFlow
	for _, f := range now {
		c := f.Counts
		if e, ok := was[f.key]; ok && e.First.Equal(c.First) {
			c = c.Sub(e)
		} else if len(earlier) == maxFlowCounts && !c.First.After(begin) {
			continue // the earlier reading had no room for it
		}
		if c.Packets+c.Bytes > 0 {
			list = append(list, flow(f.key, c))
		}
	}
	slices.SortStableFunc(list, func(a, b evidence.ESPFlow) int {
		return cmp.Compare(b.Traffic.Packets, a.Traffic.Packets)
	})
	return list[:min(len(list), evidence.MaxFlows)]
}

func flow(k esp.Key, c esp.Counts) evidence.ESPFlow {
	var s sequence
	s.add(&c)
	protocol := "esp"
	if k.Protocol == esp.AH {
		protocol = "ah"
	}
	return evidence.ESPFlow{
		SPI:      k.SPI,
		Inbound:  !k.Outgoing,
		Protocol: protocol,
		Encap:    k.Encap,
		Traffic:  evidence.Traffic{Packets: c.Packets, Bytes: c.Bytes},
		Sequence: s.evidence(),
		Longest:  int(c.Longest),
		First:    c.First,
		Last:     c.Last,
	}
}
