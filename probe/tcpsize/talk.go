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
	// pollEvery is how often the kernel is asked what was acknowledged.
	pollEvery = 50 * time.Millisecond
	// firstGuess is what the kernel takes the target's segments for before it
	// saw one (TCP_MSS_DEFAULT).
	firstGuess = 536
)

// talk waits for what the target says first, sends what suits it, and reads
// until the answer is whole or too late. It reports whether something that the
// kernels would go on to repeat is left. Its error is about this host; that a
// target resets or closes is a value.
func talk(ctx context.Context, c conn, port uint16, timeout time.Duration, out *evidence.TCPSize) (left bool, err error) {
	t := &talker{ctx: ctx, conn: c, timeout: timeout, out: out}
	if t.began, err = c.state(); err != nil {
		return false, err
	}
	if t.began.segments > 0 { // it spoke before it was asked for its state
		t.began.received, t.began.segments, t.began.receiveMSS = 0, 0, firstGuess
	}
	err = t.converse(port)
	if err == nil {
		err = t.conclude()
	}
	return t.sent > 0 && !t.requestAcked() || t.last.gap, err
}

// talker is the state of one conversation.
type talker struct {
	ctx context.Context
	conn
	timeout  time.Duration
	out      *evidence.TCPSize
	began    state
	before   state  // when the request went
	last     state  // as the kernel said last
	large    int    // bytes of the request's first segment
	sent     int    // bytes of the request
	answer   []byte // all that came
	greeted  int    // how much of it came before the request went
	progress progress
	ended    bool // the target closed its side, so that all it sent has come
	reset    bool
	heard    time.Time // when something came last, or the request went
	gapSince time.Time // zero without a gap
	largest  int       // highest estimate of a segment that came
	trial    trial
}

func (t *talker) converse(port uint16) error {
	if err := t.greeting(port); err != nil {
		return err
	}
	t.out.Service = byGreeting(t.answer)
	if t.out.Service == "" && len(t.answer) == 0 && !t.ended && !t.last.gap {
		t.out.Service = byPort(port)
	}
	if t.out.Service == "" || t.ended {
		return nil
	}
	return t.exchange()
}

// greeting waits for a target that speaks first.
func (t *talker) greeting(port uint16) error {
	// Several round trips: a server may have to start a process. But not long, as
	// a repeated SYN makes the first round trip look.
	wait := min(max(300*time.Millisecond, 4*t.began.rtt), time.Second, t.timeout)
	if port == portSSH {
		wait = t.timeout // some look up the client's name first
	}
	until := time.Now().Add(wait)
	t.heard = time.Now()
	for now := t.heard; !t.ended && len(t.answer) < len(sshPrefix) && t.goesOn(now, until); now = time.Now() {
		if err := t.step(now.Add(pollEvery)); err != nil {
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
	t.last = t.before
	request := requestTo(t.out.Service, t.out.Target.Addr(), t.before.sendMSS)
	// In two pieces: where the service takes less than a segment's worth, too, a
	// small segment follows the large one.
	t.large = max(min(len(request)-surplus, t.before.sendMSS), 1)
	t.trial.begin(t.before, t.large)
	for _, piece := range [][]byte{request[:t.large], request[t.large:]} {
		if err := t.SetDeadline(time.Now().Add(t.timeout)); err != nil {
			return err
		}
		if err := t.ctx.Err(); err != nil {
			return err
		}
		n, err := t.Write(piece)
		t.sent += n
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.ended, t.reset = true, true // by the target
			return nil
		}
	}
	t.heard, t.greeted = time.Now(), len(t.answer)
	until := t.heard.Add(t.timeout)
	for now := t.heard; !t.ended && t.goesOn(now, until); now = time.Now() {
		if t.look(now) >= whole && t.requestAcked() {
			return nil
		}
		if err := t.step(now.Add(pollEvery)); err != nil {
			return err
		}
	}
	return nil
}

// goesOn reports whether there is time, or little more of it makes a verdict:
// what is missing may still come, or be missing for long enough.
func (t *talker) goesOn(now, until time.Time) bool {
	if now.Before(until) {
		return true
	}
	return now.Before(until.Add(patience)) &&
		(progressOf(t.answer) == paused || t.missing() && now.Sub(t.missingSince()) < patience ||
			t.trial.open(t.last) && t.last.acked == t.before.acked)
}

// missing reports whether the answer has a gap, or ends within a part of it.
func (t *talker) missing() bool {
	return !t.gapSince.IsZero() || progressOf(t.answer) == partial
}

func (t *talker) missingSince() time.Time {
	if !t.gapSince.IsZero() {
		return t.gapSince
	}
	return t.heard
}

// look returns how far the answer has come.
func (t *talker) look(now time.Time) progress {
	t.progress = progressOf(t.answer)
	switch {
	case len(t.answer) >= maxAnswer && t.progress < whole:
		t.progress = flowing
	case !t.gapSince.IsZero() && t.progress >= paused:
		t.progress = partial
	// Long enough for the target to repeat what was lost.
	case t.progress == paused && now.Sub(t.heard) >= min(max(time.Second, 4*t.last.rtt), 2*time.Second):
		t.progress = whole
	}
	return t.progress
}

func (t *talker) requestAcked() bool {
	return t.sent > 0 && t.last.acked-t.before.acked >= uint64(t.sent)
}

// step adds what comes until then to the answer, and asks the kernel.
func (t *talker) step(until time.Time) error {
	if err := t.read(until); err != nil {
		return err
	}
	return t.sample()
}

// sample asks the kernel, and keeps the largest segment size that it knew of.
func (t *talker) sample() error {
	s, err := t.state()
	if err != nil {
		return err
	}
	if s.segments > t.began.segments && s.receiveMSS != t.began.receiveMSS {
		t.largest = max(t.largest, s.receiveMSS)
	}
	switch {
	case !s.gap:
		t.gapSince = time.Time{}
	case t.gapSince.IsZero() || s.received != t.last.received:
		t.gapSince = time.Now()
	}
	t.last = s
	if t.sent > 0 {
		t.trial.add(s)
	}
	return nil
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
