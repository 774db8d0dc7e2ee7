package esp

import "time"

// Sample is a reading of a flow that the kernel counts by the rule of [Cell].
// Packets, Bytes, Duplicates, Reordered, Jumps, Depth, Longest and Fragments
// only grow while the flow is in the kernel's table.
type Sample struct {
	Packets, Bytes uint64 // whole IP packets; of a fragmented one, all fragments' bytes and the first as packet
	First, Max     uint32 // sequence numbers: of the first packet seen, and the highest (RFC 1982)
	Strays         uint64 // packets with a number far off that the next ones did not confirm
	Duplicates     uint64 // within 64 numbers below the highest
	Reordered      uint64
	Jumps          uint64 // confirmed steps forward of more than 2^16, or back
	Depth          uint32 // greatest distance of a reordered packet, in numbers
	Longest        uint32 // IP packet, in bytes
	// Fragments: first, middle, last.
	Fragments [3]uint64
	Last      time.Time
}

// stale is how long before the newest packet a CPU must have seen its last one
// for the others to be past its highest number.
const stale = time.Minute

// Merge returns the sum of the samples of one flow on several CPUs, or on
// several interfaces. First is the lowest and Max the highest of theirs, by
// serial arithmetic (RFC 1982). Max leaves out who cannot tell: one with a single
// packet far ahead may have seen nothing but a forged number, and what a CPU saw last a
// minute before the others is old, but once the stream has gone on by 2^31 it
// would seem to be ahead.
func Merge(list []Sample) Sample {
	var sum Sample
	first := false
	for i := range list {
		v := &list[i]
		sum.Packets += v.Packets
		sum.Bytes += v.Bytes
		sum.Strays += v.Strays
		sum.Duplicates += v.Duplicates
		sum.Reordered += v.Reordered
		sum.Jumps += v.Jumps
		sum.Depth = max(sum.Depth, v.Depth)
		sum.Longest = max(sum.Longest, v.Longest)
		for j := range sum.Fragments {
			sum.Fragments[j] += v.Fragments[j]
		}
		if v.Last.After(sum.Last) {
			sum.Last = v.Last
		}
		if v.Packets > 0 && (!first || int32(v.First-sum.First) < 0) {
			sum.First, first = v.First, true
		}
	}
	for _, least := range []uint64{2, 1, 0} {
		found := false
		for i := range list {
			v := &list[i]
			if v.Packets == 0 || v.unique() < least || sum.Last.Sub(v.Last) > stale {
				continue
			}
			if !found || int32(v.Max-sum.Max) > 0 {
				sum.Max, found = v.Max, true
			}
		}
		if found {
			break
		}
	}
	// A stream that moves to another CPU begins there with a single packet.
	for i := 0; i < len(list); i++ {
		if d := int32(list[i].Max - sum.Max); list[i].Packets > 0 && d > 0 && d <= near && sum.Last.Sub(list[i].Last) <= stale {
			sum.Max = list[i].Max
			i = -1
		}
	}
	return sum
}

// unique returns the number of packets that belong to the stream, each counted
// once.
func (s *Sample) unique() uint64 { return less(less(s.Packets, s.Duplicates), s.Strays) }

// renewed reports whether the kernel forgot the flow after the earlier sample
// and counts it anew.
func (s *Sample) renewed(earlier Sample) bool {
	if s.Packets < earlier.Packets || s.Bytes < earlier.Bytes {
		return true
	}
	// It may have counted more than before already. Then it began above the
	// highest number there was, which tells nothing if the numbers jumped, or
	// if there were so many that they may have come half way around. Nor can so
	// many be overtaken between two readings.
	return earlier.Packets > 0 && earlier.Packets < 1<<20 && earlier.Jumps == 0 &&
		s.First != earlier.First && int32(s.First-earlier.Max) > 0
}
