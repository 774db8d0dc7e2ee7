package evidence

import (
	"cmp"
	"slices"
	"time"
)

// SummarizeEcho sums up the results of one target's echo requests. Results
// whose request was sent before since are left out; late and duplicate events
// count where their request does. The results may be in any order.
func SummarizeEcho(results []EchoResult, since time.Time) EchoSeries {
	s := EchoSeries{SendErrors: map[SendReason]int{}, ICMPErrors: []CountedICMPError{}}
	sorted := make([]EchoResult, 0, len(results))
	for _, r := range results {
		if !r.Sent.Before(since) {
			sorted = append(sorted, r)
		}
	}
	slices.SortStableFunc(sorted, func(a, b EchoResult) int { return a.Sent.Compare(b.Sent) })

	run := 0 // consecutive losses up to here
	endRun := func() {
		if run >= OutageRun {
			s.InOutages += run
		}
		run = 0
	}
	answered := func(r EchoResult) {
		if s.Trailing >= SilentRun || !s.AnsweringSince.Known() {
			s.AnsweringSince = Some(r.Sent)
		}
		s.Trailing, s.TrailingUnsent = 0, 0
		s.LastReply = Some(r.Sent.Add(r.RTT))
		endRun()
	}
	var rtts []time.Duration
	for _, r := range sorted {
		s.Role, s.Target = r.Role, r.Target
		if r.ICMP != nil {
			s.ICMPErrors = countICMP(s.ICMPErrors, *r.ICMP)
		}
		if r.Late {
			s.Late++
			answered(r) // slow is not silent
		}
		if r.Duplicate {
			s.Duplicates++
		}
		if r.Reordered {
			s.Reordered++
		}
		switch r.Outcome {
		case EchoReply:
			s.Sent++
			s.Replies++
			answered(r)
			rtts = append(rtts, r.RTT)
		case EchoLost:
			s.Sent++
			s.Lost++
			s.Trailing++
			run++
			s.LongestRun = max(s.LongestRun, run)
		case EchoSendError:
			s.Sent++
			s.SendErrors[r.Send]++
			endRun()
			s.Trailing++
			s.TrailingUnsent++
		}
	}
	endRun()
	if s.Trailing >= SilentRun {
		s.AnsweringSince = Opt[time.Time]{}
	}
	s.RTT = describeRTT(rtts)
	return s
}

func countICMP(list []CountedICMPError, e ICMPError) []CountedICMPError {
	for i := range list {
		if list[i].ICMPError == e {
			list[i].Count++
			return list
		}
	}
	return append(list, CountedICMPError{e, 1})
}

// describeRTT wants the round-trip times in the order of sending, which is
// what jitter is defined on.
func describeRTT(rtts []time.Duration) Opt[RTT] {
	if len(rtts) == 0 {
		return Opt[RTT]{}
	}
	var jitter time.Duration
	for i := 1; i < len(rtts); i++ {
		jitter += max(rtts[i]-rtts[i-1], rtts[i-1]-rtts[i])
	}
	if len(rtts) > 1 {
		jitter /= time.Duration(len(rtts) - 1)
	}
	slices.SortFunc(rtts, cmp.Compare)
	at := func(q float64) Seconds { return Seconds(rtts[int(q*float64(len(rtts)-1)+0.5)]) }
	return Some(RTT{Min: at(0), Median: at(0.5), P90: at(0.9), Max: at(1), Jitter: Seconds(jitter)})
}

// SADelta returns what the SAs carried between two readings, in and out. An SA
// that appeared since the first reading counts in full, one that is gone
// counts no further. So two readings of all SAs are wanted: against none, the
// whole history counts.
func SADelta(before, after []SA) (in, out Traffic) {
	type key struct {
		spi      uint32
		inbound  bool
		protocol string
		created  int64
	}
	keyOf := func(sa SA) key { return key{sa.SPI, sa.Inbound, sa.Protocol, sa.Created.UnixNano()} }
	old := make(map[key]Traffic, len(before))
	for _, sa := range before {
		old[keyOf(sa)] = Traffic{sa.Packets, sa.Bytes}
	}
	for _, sa := range after {
		now := Traffic{sa.Packets, sa.Bytes}
		was := old[keyOf(sa)]
		if was.Packets > now.Packets || was.Bytes > now.Bytes {
			was = Traffic{} // the counters began anew
		}
		if sa.Inbound {
			in = in.Add(now.Sub(was))
		} else {
			out = out.Add(now.Sub(was))
		}
	}
	return in, out
}
