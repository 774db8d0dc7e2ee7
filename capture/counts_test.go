package capture

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnprobe/evidence"
)

func TestSince(t *testing.T) {
	at := func(s int) time.Time { return epoch.Add(time.Duration(s) * time.Second) }
	reading := func(read, watching int, esp, dropped uint64) Counts {
		return Counts{
			Mode:     evidence.CaptureRing,
			Time:     at(read),
			Watching: at(watching),
			In: evidence.WireTraffic{
				ESP: evidence.Traffic{Packets: esp, Bytes: 100 * esp},
				IKE: map[string]uint64{"INFORMATIONAL": esp, "IKE_AUTH": 1},
			},
			ICMPErrors:   map[evidence.ICMPReason]uint64{evidence.FragNeeded: esp},
			LeaksWatched: evidence.Yes,
			Dropped:      dropped,
		}
	}
	notWatching := reading(70, 0, 5, 0)
	notWatching.Watching, notWatching.Reason = time.Time{}, "capture on wan: network is down"
	type result struct {
		Conclusive bool
		Blind      evidence.Fact
		Reason     string
		Over       time.Duration
		Packets    uint64
		Dropped    uint64
	}
	for name, tc := range map[string]struct {
		earlier, now Counts
		blind        evidence.Fact
		want         result
	}{
		"whole": {reading(10, 0, 3, 7), reading(70, 0, 5, 7), evidence.No,
			result{true, evidence.No, "", time.Minute, 2, 0}},
		"from the beginning": {Counts{}, reading(70, 60, 5, 0), evidence.No,
			result{true, evidence.No, "", 10 * time.Second, 5, 0}},
		"watched from the first reading on": {reading(10, 0, 3, 0), reading(70, 10, 5, 0), evidence.No,
			result{true, evidence.No, "", time.Minute, 2, 0}},
		"break": {reading(10, 0, 3, 0), reading(70, 11, 5, 0), evidence.No,
			result{false, evidence.Unknown, "watched only the last 59s", time.Minute, 2, 0}},
		"not watching": {reading(10, 0, 3, 0), notWatching, evidence.No,
			result{false, evidence.Unknown, "capture on wan: network is down", time.Minute, 2, 0}},
		"never watching": {Counts{}, notWatching, evidence.No,
			result{false, evidence.Unknown, "capture on wan: network is down", 0, 5, 0}},
		"blind": {reading(10, 0, 3, 0), reading(70, 0, 5, 0), evidence.Yes,
			result{false, evidence.Yes, "ESP offload with GRO hides inbound ESP from packet sockets", time.Minute, 2, 0}},
		"blind perhaps": {reading(10, 0, 3, 0), reading(70, 0, 5, 0), evidence.Unknown,
			result{false, evidence.Unknown, "not known whether ESP offload hides inbound ESP", time.Minute, 2, 0}},
		"dropped": {reading(10, 0, 3, 7), reading(70, 0, 5, 8), evidence.No,
			result{false, evidence.No, "the kernel dropped 1 frames for want of room", time.Minute, 2, 1}},
		"no time": {reading(70, 0, 5, 0), reading(70, 0, 5, 0), evidence.No,
			result{false, evidence.No, "", 0, 0, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			e := tc.now.Since(tc.earlier, tc.blind)
			got := result{e.Conclusive(), e.Blind, e.Reason, e.Over.Duration(), e.In.ESP.Packets, e.Dropped}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}

	e := reading(70, 0, 5, 0).Since(reading(10, 0, 3, 0), evidence.No)
	want := evidence.Capture{
		Mode:    evidence.CaptureRing,
		Blind:   evidence.No,
		Over:    evidence.Seconds(time.Minute),
		Watched: evidence.Seconds(time.Minute),
		In: evidence.WireTraffic{
			ESP: evidence.Traffic{Packets: 2, Bytes: 200},
			IKE: map[string]uint64{"INFORMATIONAL": 2},
		},
		Talk:         evidence.IKETalk{Over: evidence.Seconds(time.Minute), Whole: true},
		LeaksWatched: evidence.Yes,
		ICMPErrors:   map[evidence.ICMPReason]uint64{evidence.FragNeeded: 2},
	}
	if diff := cmp.Diff(want, e, equateEmpty, unexported); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// How much of a window was listened to.
func TestSinceWatched(t *testing.T) {
	at := func(s int) time.Time { return epoch.Add(time.Duration(s) * time.Second) }
	const s = time.Second
	for name, tc := range map[string]struct {
		earlier, now Counts
		want         time.Duration
	}{
		"file":                {Counts{}, Counts{Time: at(70), Watching: at(10)}, 60 * s},
		"no pauses":           {Counts{Time: at(10), Listened: 5 * s}, Counts{Time: at(70), Watching: at(5), Listened: 65 * s}, 60 * s},
		"one second in ten":   {Counts{Time: at(10), Listened: 10 * s}, Counts{Time: at(70), Watching: at(0), Listened: 16 * s}, 6 * s},
		"from the beginning":  {Counts{}, Counts{Time: at(70), Watching: at(60), Listened: 70 * s}, 10 * s},
		"a break":             {Counts{Time: at(10)}, Counts{Time: at(70), Watching: at(60)}, 10 * s},
		"a break, listened":   {Counts{Time: at(10), Listened: 10 * s}, Counts{Time: at(70), Watching: at(60), Listened: 50 * s}, 40 * s},
		"not watching":        {Counts{Time: at(10)}, Counts{Time: at(70)}, 0},
		"no longer watching":  {Counts{Time: at(10), Listened: 10 * s}, Counts{Time: at(70), Listened: 40 * s}, 30 * s},
		"a clock that is off": {Counts{Time: at(70)}, Counts{Time: at(10), Watching: at(0)}, 0},
	} {
		tc.now.Mode = evidence.CaptureRing
		e := tc.now.Since(tc.earlier, evidence.No)
		if e.Watched.Duration() != tc.want {
			t.Errorf("%s: %v watched, want %v", name, e.Watched.Duration(), tc.want)
		}
		if whole := e.Over > 0 && e.Watched == e.Over; e.Conclusive() && !whole || e.Talk.Whole != whole {
			t.Errorf("%s: conclusive %t, talk whole %t", name, e.Conclusive(), e.Talk.Whole)
		}
	}
}
