package tcpsize

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"time"

	"vpnprobe/evidence"
)

// conn is a connection and what the kernel knows of it.
type conn interface {
	io.ReadWriter
	SetDeadline(time.Time) error
	state() (state, error)
}

const (
	// maxAnswer is how much of an answer is read, in bytes: more than any
	// certificate chain that clients accept.
	maxAnswer = 128 << 10
	// enoughRepeats is how often a segment must have been sent again in vain
	// for it to be lost by its size and not by chance: at 20 % random loss, four
	// packets in a row are lost once in 625 looks, and the early repeat that
	// follows the first (RFC 8985 section 7) makes it a fifth.
	enoughRepeats = 4
	// pollEvery is how often the kernel is asked what was acknowledged.
	pollEvery = 50 * time.Millisecond
	// firstGuess is what the kernel takes the target's segments for before it
	// saw one (TCP_MSS_DEFAULT).
	firstGuess = 536
)

// talk waits for what the target says first, sends what suits it, and reads
// until the answer is whole or the deadline has passed. Its error is about this
// host; that a target resets or closes is a value.
func talk(ctx context.Context, c conn, port uint16, deadline time.Time, out *evidence.TCPSize) error {
	t := &talker{ctx: ctx, conn: c, deadline: deadline, out: out}
	var err error
	if t.began, err = c.state(); err != nil {
		return err
	}
	if t.began.segments > 0 { // it spoke before it was asked for its state
		t.began.received, t.began.segments, t.began.receiveMSS = 0, 0, firstGuess
	}
	if err := t.greeting(port); err != nil {
		return err
	}
	out.Service = byGreeting(t.answer)
	if out.Service == "" && len(t.answer) == 0 && !t.ended {
		out.Service = byPort(port)
	}
	if out.Service != "" && !t.ended {
		if err := t.exchange(); err != nil {
			return err
		}
	}
	return t.conclude()
}

// talker is the state of one conversation.
type talker struct {
	ctx context.Context
	conn
	deadline time.Time
	out      *evidence.TCPSize
	began    state
	request  []byte
	before   state  // when the request went
	answer   []byte // all that came
	greeted  int    // how much of it came before the request went
	progress progress
	ended    bool // the target closed its side, so that all it sent has come
	reset    bool
	heard    time.Time // when something came last
	largest  int       // highest estimate of a segment that came
}

// greeting waits for a target that speaks first.
func (t *talker) greeting(port uint16) error {
	// Several round trips: a server may have to start a process. But not long, as
	// a repeated SYN makes the first round trip look.
	until := time.Now().Add(min(max(300*time.Millisecond, 4*t.began.rtt), time.Second))
	if port == portSSH || until.After(t.deadline) {
		until = t.deadline // some look up the client's name first
	}
	for !t.ended && time.Now().Before(until) && len(t.answer) < len(sshPrefix) {
		if err := t.read(until); err != nil {
			return err
		}
	}
	return nil
}

// exchange sends the request and awaits the answer.
func (t *talker) exchange() (err error) {
	if t.before, err = t.state(); err != nil {
		return err
	}
	t.request = requestTo(t.out.Service, t.out.Target.Addr(), t.before.sendMSS)
	if err := t.SetDeadline(t.deadline); err != nil {
		return err
	}
	if _, err := t.Write(t.request); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.ended, t.reset = true, true // by the target
		return nil
	}
	t.heard, t.greeted = time.Now(), len(t.answer)
	for now := time.Now(); now.Before(t.deadline) && !t.ended; now = time.Now() {
		s, err := t.sample()
		if err != nil {
			return err
		}
		if t.look(now, s) != partial && t.requestAcked(s) {
			return nil
		}
		wake := now.Add(pollEvery)
		if wake.After(t.deadline) {
			wake = t.deadline
		}
		if err := t.read(wake); err != nil {
			return err
		}
	}
	return nil
}

// look returns how far the answer has come.
func (t *talker) look(now time.Time, s state) progress {
	t.progress = progressOf(t.answer)
	// Long enough for the target to repeat what was lost.
	if t.progress == paused && now.Sub(t.heard) >= min(max(time.Second, 4*s.rtt), 2*time.Second) {
		t.progress = whole
	}
	if t.progress == partial && len(t.answer) >= maxAnswer {
		t.progress = flowing
	}
	if t.progress == paused {
		return partial
	}
	return t.progress
}

func (t *talker) requestAcked(s state) bool {
	return len(t.request) > 0 && s.acked-t.before.acked >= uint64(len(t.request))
}

// sample asks the kernel, and keeps the largest segment size that it knew of.
func (t *talker) sample() (state, error) {
	s, err := t.state()
	if err == nil && s.segments > t.began.segments && s.receiveMSS != t.began.receiveMSS {
		t.largest = max(t.largest, s.receiveMSS)
	}
	return s, err
}

// read adds what comes until then to the answer. What this host itself cannot
// do is the only error.
func (t *talker) read(until time.Time) error {
	if err := t.SetDeadline(until); err != nil {
		return err
	}
	if err := t.ctx.Err(); err != nil {
		return err // its end may have set another deadline before
	}
	room := maxAnswer - len(t.answer)
	if room == 0 {
		// The answer is long enough; only what we sent is still waited for.
		time.Sleep(time.Until(until))
		return nil
	}
	t.answer = slices.Grow(t.answer, min(room, 4096))
	n, err := t.Read(t.answer[len(t.answer):min(cap(t.answer), maxAnswer)])
	t.answer = t.answer[:len(t.answer)+n]
	if n > 0 {
		t.heard = time.Now()
	}
	switch {
	case err == nil || errors.Is(err, os.ErrDeadlineExceeded):
	case errors.Is(err, io.EOF):
		t.ended = true
	default: // such as a reset
		t.ended, t.reset = true, true
	}
	return nil
}

// conclude fills in what was learned.
func (t *talker) conclude() error {
	s, err := t.sample()
	if err != nil {
		return err
	}
	t.out.Retransmit = s.repeated
	t.out.Received = s.largestReceived(t.began)
	if _, ok := t.out.Received.Get(); t.largest > 0 && (!ok || s.segments > t.began.segments+1) {
		t.out.Received = evidence.Some(t.largest)
	}
	if len(t.request) == 0 {
		return nil
	}
	// A hop's "too big" makes the kernel send smaller segments: then what counts
	// is whether those arrive.
	t.out.Sent = evidence.Some(min(len(t.request), t.before.sendMSS, s.sendMSS))
	acked := int(s.acked - t.before.acked)
	switch {
	case acked >= t.out.Sent.Or(0):
		t.out.Acked = evidence.Yes
	case acked == 0 && !t.reset && s.repeated-t.before.repeated >= enoughRepeats:
		t.out.Acked = evidence.No
	}
	t.out.Stalled = t.stalled(s)
	return nil
}

// stalled tells whether the rest of an answer is missing.
func (t *talker) stalled(s state) evidence.Fact {
	switch p := progressOf(t.answer); {
	case t.progress == whole || t.progress == flowing || p == whole:
		return evidence.No
	case t.ended && !t.reset && len(t.answer) > t.greeted:
		return evidence.No // the end came, and nothing that precedes it is missing
	case t.ended || p != partial:
		return evidence.Unknown
	case len(t.answer) > t.greeted:
		return evidence.Yes // it promised more
	case s.outOfOrder > t.before.outOfOrder:
		return evidence.Yes // a later part came, and this one did not
	case t.requestAcked(s) && t.out.Service != serviceHTTP:
		return evidence.Yes // servers of TLS and SSH answer at once, if only to refuse
	}
	return evidence.Unknown
}
