package esp

import (
	"iter"
	"time"
)

// racing is how recent a flow's last packet must be for a reading of its
// counters to have been overtaken by packets.
const racing = 10 * time.Millisecond

// Sampled turns the successive [Sample] values of the flows that a kernel
// program counts into [Counts], without bursts. It needs about 450 bytes for a
// flow, and is not safe for concurrent use.
//
// The numbers between the highest of one sample and that of the next are
// expected, so what is lost is delta(Max) less delta(packets), which does not
// depend on the order of the packets nor on the CPU that counted them. What it
// cannot tell: a packet from before the first one seen, or that was duplicated
// on the way to another CPU, hides a loss; a discontinuity hides those of its
// interval.
//
// While packets pass, a reading takes Max and the packets of several CPUs at
// slightly different times, so numbers missing in a reading within 10 ms of the
// flow's last packet are expected only from the next reading on, if they are
// still missing then.
type Sampled struct {
	// Leave, if not nil, is told of a flow that had to leave, so that sums over
	// all flows do not shrink.
	Leave func(Key, Counts)

	flows *store[sampled]
	evict func(int16)
}

// sampled is what is known of one flow.
type sampled struct {
	c    Counts
	last Sample // the newest one
	max  uint32 // the number that Expected is counted up to
	// expected is c.Expected without what waits for the next reading to show,
	// missing how many of them were not seen; below 0 with surplus packets.
	expected uint64
	missing  int64
}

// NewSampled returns an empty table for as many flows as the kernel's holds. It
// has room for twice as many: a flow that the kernel forgot stays, until those
// that the kernel knows need its room. So none that may be seen again, with
// counters that go on, has to leave.
func NewSampled(kernel int) *Sampled {
	s := &Sampled{flows: newStore[sampled](2 * kernel)}
	s.evict = func(slot int16) {
		if s.Leave != nil {
			s.Leave(s.flows.keys[slot], s.flows.values[slot].c)
		}
	}
	return s
}

// Add takes a reading of a flow's counters, all CPUs' together ([Merge]). Every
// reading of the kernel's table is to be shown whole, so that flows which it
// has no more are known from those that are merely quiet.
func (s *Sampled) Add(key Key, now Sample, at time.Time) {
	hash := s.flows.hash(&key)
	slot := s.flows.find(&key, hash)
	if slot < 0 {
		slot = s.flows.insert(&key, hash, at.UnixNano(), s.evict)
		f := &s.flows.values[slot]
		f.c.BurstsUnknown = true
		f.c.First = now.Last
		if at.Before(now.Last) {
			f.c.First = at
		}
	}
	f := &s.flows.values[slot]
	f.add(&key, now, at)
	s.flows.touch(slot, at.UnixNano(), f.c.Packets)
}

// Flows returns all flows, in no order. Of a flow that the kernel does not know
// any more it has what was counted until then. First is the time of the last
// packet in the flow's first sample. The table must not be used until the
// iteration has ended.
func (s *Sampled) Flows() iter.Seq2[Key, Counts] {
	return func(yield func(Key, Counts) bool) {
		for i := range s.flows.values {
			if !yield(s.flows.keys[i], s.flows.values[i].c) {
				return
			}
		}
	}
}

func (f *sampled) add(key *Key, now Sample, at time.Time) {
	if now.renewed(f.last) {
		f.last = Sample{}
	}
	was := f.last
	f.last = now
	c := &f.c
	c.Packets += now.Packets - was.Packets
	c.Bytes += now.Bytes - was.Bytes
	c.Duplicates += now.Duplicates - was.Duplicates
	c.Reordered += now.Reordered - was.Reordered
	c.Depth = max(c.Depth, now.Depth)
	c.Longest = max(c.Longest, now.Longest)
	for i := range c.Fragments {
		c.Fragments[i] += now.Fragments[i] - was.Fragments[i]
	}
	if now.Last.After(c.Last) {
		c.Last = now.Last
	}
	if key.SPI == 0 { // no SA has this SPI: there is no stream of numbers
		c.Strays = c.Packets
		c.Duplicates, c.Reordered, c.Depth = 0, 0, 0
		return
	}
	c.Strays += now.Strays - was.Strays // wraps where a stray was confirmed
	f.expect(now, was)
	f.publish(at.Sub(now.Last) < racing)
}

// expect adds the numbers that the stream advanced by since the sample before.
func (f *sampled) expect(now, was Sample) {
	seen := now.unique() - was.unique()
	var step uint64 // by the numbers
	back := false
	switch {
	case now.Packets == 0:
		return
	case was.Packets == 0:
		d := int32(now.Max - now.First)
		step, back = uint64(d)+1, d < 0
	default:
		d := int32(now.Max - f.max)
		step, back = uint64(max(d, 0)), d < 0
		// A CPU that had not counted before saw the stream begin earlier.
		if d := was.First - now.First; d <= near {
			f.expected += uint64(d)
		}
	}
	jumped := now.Jumps != was.Jumps
	unsure := was.unique() < 2 // one forged packet may be all there was
	switch far := back || int64(step)-int64(seen) > farStep; {
	case far && (jumped || unsure):
		if jumped {
			f.c.Discontinuities++
		}
		f.expected += seen
		f.max = now.Max
	case back:
		// The CPU that saw the highest number is not heard any more.
	default:
		f.expected += step
		f.max = now.Max
	}
}

// publish derives Expected. In a racing reading, more missing than in the one
// before is not believed.
func (f *sampled) publish(racing bool) {
	seen := f.c.unique()
	missing := int64(f.expected - seen)
	if -missing > near {
		// The numbers went on elsewhere, below the highest: begin anew.
		f.expected, f.max, missing = seen, f.last.Max, 0
	}
	show := missing
	if racing {
		show = min(missing, f.missing)
	}
	f.missing = missing
	f.c.Expected = max(f.c.Expected, uint64(max(int64(seen)+show, 0)))
}
