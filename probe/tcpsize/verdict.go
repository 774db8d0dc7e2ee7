package tcpsize

import (
	"time"

	"vpnprobe/evidence"
)

const (
	// enoughRepeats is how often the large segment must have been sent again in
	// vain, while the small one behind it came through, for it to be lost by its
	// size. Where 20 % of the segments and of the acknowledgements are lost by
	// chance, one trial of the seven fails with 0.36, unless the last is still
	// underway, and all with 0.36^6: one look in 450; most repeat more often.
	enoughRepeats = 6
	// patience is how long the rest of an answer must be missing. A target that
	// repeats it after 0.2 s, and then after twice as long each time, does so
	// 0.2, 0.6, 1.4 and 3 s after the first time, besides a fast repetition: at
	// 20 % random loss, all six are lost once in 15,000 times.
	patience = 3500 * time.Millisecond
)

// trial follows the large segment of a request as long as the kernel sends it
// in one size.
type trial struct {
	size   int   // bytes of payload
	from   state // when it was sent first in this size
	passed int   // segments that had come through when the request went
	small  bool  // whether the small segment came through before the large one
	lost   int   // size of a segment that was lost by it; 0 without one
}

func (r *trial) begin(s state, size int) {
	*r = trial{size: size, from: s, passed: s.passed}
}

// add takes in what the kernel says. Nothing of the request may be acknowledged
// in order, so that whatever came through is what followed the large segment.
func (r *trial) add(s state) {
	if s.pathMTU < r.from.pathMTU {
		r.lost = 0 // a hop said what is too big, if late
	}
	// The kernel sends smaller segments after such a word, or because it looks
	// for a size that passes by itself (tcp_mtu_probing).
	if s.sendMSS < r.size || s.pathMTU < r.from.pathMTU {
		r.from, r.size = s, min(r.size, s.sendMSS)
	}
	if s.acked != r.from.acked {
		return
	}
	r.small = r.small || s.passed > r.passed
	if r.small && r.repeats(s) >= enoughRepeats {
		r.lost = r.size
	}
}

// repeats is how often the large segment was repeated: bytes tell it from the
// small one, which may be repeated, too.
func (r *trial) repeats(s state) int {
	if r.size <= 0 {
		return 0
	}
	return min(int(s.bytesRepeated-r.from.bytesRepeated)/r.size, s.repeated-r.from.repeated)
}

// open reports whether a verdict needs more repetitions.
func (r *trial) open(s state) bool {
	return r.small && r.lost == 0 && s.repeated > r.from.repeated
}

// conclude fills in what was learned.
func (t *talker) conclude() error {
	if err := t.sample(); err != nil {
		return err
	}
	s := t.last
	t.out.Retransmit = s.repeated
	t.out.Received = s.largestReceived(t.began)
	if _, ok := t.out.Received.Get(); t.largest > 0 && (!ok || s.segments > t.began.segments+1) {
		t.out.Received = evidence.Some(t.largest)
	}
	t.out.Stalled = t.stalled(time.Now())
	if t.sent == 0 {
		return nil
	}
	// A hop's "too big" makes the kernel send smaller segments: then what counts
	// is whether those arrive.
	sent, acked := min(t.large, s.sendMSS), s.acked-t.before.acked
	switch {
	case t.trial.lost > 0 && (acked == 0 || sent < t.trial.lost):
		sent, t.out.Acked = t.trial.lost, evidence.No
		if t.reset {
			t.out.Acked = evidence.Unknown // the target may have refused it
		}
	case acked >= uint64(max(sent, 1)):
		t.out.Acked = evidence.Yes
	}
	t.out.Sent = evidence.Some(sent)
	return nil
}

// stalled tells whether the rest of an answer is missing. That nothing came, or
// nothing more where a server may take its time, says nothing.
func (t *talker) stalled(now time.Time) evidence.Fact {
	switch {
	case t.ended && !t.reset && t.sent > 0 && len(t.answer) > t.greeted:
		return evidence.No // the end came, and nothing that precedes it is missing
	case t.ended:
		return evidence.Unknown
	case t.missing() && now.Sub(t.missingSince()) >= patience:
		return evidence.Yes
	case t.missing() || t.sent == 0:
		return evidence.Unknown
	case t.progress == whole || t.progress == flowing || progressOf(t.answer) == whole:
		return evidence.No
	}
	return evidence.Unknown
}
