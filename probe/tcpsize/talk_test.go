package tcpsize

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"vpnprobe/evidence"
)

// flight is a server's answer of TLS 1.3 with a large certificate.
var flight = record(22, "\x02\x00\x00\x04abcd") + record(23, strings.Repeat("x", 4200)) + record(23, "finished")

// answerOnce answers, after some time, when the whole request has come.
func answerOnce(after time.Duration, answers ...string) func(*sim, int) {
	done := false
	return func(s *sim, come int) {
		if done || come < simMSS+surplus {
			return
		}
		done = true
		for i, a := range answers {
			s.after(after*time.Duration(i+1), func() { s.reply.send([]byte(a)) })
		}
	}
}

func talkTo(t *testing.T, s *sim, port uint16, timeout time.Duration) (out evidence.TCPSize, left bool) {
	t.Helper()
	left, err := talk(t.Context(), s, port, timeout, &out)
	if err != nil {
		t.Error(err)
	}
	return out, left
}

// What is lost by chance, however often, is never taken for lost by its size.
func TestRandomLoss(t *testing.T) {
	for loss, looks := range map[float64]int{0: 20, 0.1: 100, 0.2: 300} {
		known := 0
		for seed := range uint64(looks) {
			synctest.Test(t, func(t *testing.T) {
				s := newSim(seed, loss)
				s.answer = answerOnce(time.Millisecond, flight)
				timeout := defaultTimeout
				if seed%2 == 1 {
					timeout = 300 * time.Millisecond // too short for many a verdict, but not for wrong ones
				}
				out, left := talkTo(t, s, 443, timeout)
				if out.Acked == evidence.No || out.Stalled == evidence.Yes {
					t.Errorf("%v lost, seed %d: %+v", loss, seed, out)
				}
				if left && out.Acked == evidence.Yes && out.Stalled == evidence.No {
					t.Errorf("%v lost, seed %d: done, and yet something is left", loss, seed)
				}
				if out.Acked == evidence.Yes && out.Stalled == evidence.No {
					known++
				}
			})
		}
		if known < looks/2 || loss == 0 && known != looks {
			t.Errorf("%v lost: only %d of %d looks came to an end", loss, known, looks)
		}
	}
}

// A black hole is found through random loss, too, or not at all, but never
// taken for a healthy path.
func TestBlackHole(t *testing.T) {
	large := func(n int) bool { return n > 1350 }
	for _, loss := range []float64{0, 0.1, 0.2} {
		there, back := 0, 0
		for seed := range uint64(50) {
			synctest.Test(t, func(t *testing.T) {
				s := newSim(seed, loss)
				s.up = large
				out, left := talkTo(t, s, 443, defaultTimeout)
				if out.Acked == evidence.Yes || out.Stalled != evidence.Unknown || !left {
					t.Errorf("there, %v lost, seed %d: %+v, %v", loss, seed, out, left)
				}
				if out.Acked == evidence.No {
					there++
				}
			})
			synctest.Test(t, func(t *testing.T) {
				s := newSim(seed, loss)
				s.down, s.answer = large, answerOnce(time.Millisecond, flight)
				out, left := talkTo(t, s, 443, defaultTimeout)
				if out.Acked == evidence.No || out.Stalled == evidence.No || out.Stalled == evidence.Yes && !left {
					t.Errorf("back, %v lost, seed %d: %+v, %v", loss, seed, out, left)
				}
				if out.Stalled == evidence.Yes {
					back++
				}
			})
		}
		// Without a word of the small segment behind, or a late one, there is none.
		if min(there, back) < 25 || loss == 0 && min(there, back) < 50 {
			t.Errorf("%v lost: found %d of 50 there, %d back", loss, there, back)
		}
	}
}

// Slowness is no loss.
func TestSlowServer(t *testing.T) {
	version, offer := "SSH-2.0-slow\r\n", string(sshPacket(sshOffers))
	large := func(n int) bool { return n > 1350 }
	for name, tc := range map[string]struct {
		port     uint16
		greeting string
		greets   time.Duration
		after    time.Duration // before and between the answers
		answers  []string
		up, down func(int) bool
		refuse   bool
		service  string
		acked    evidence.Fact
		stalled  evidence.Fact
	}{
		"tls, no answer":         {port: 443, service: "tls", acked: evidence.Yes},
		"tls, too late":          {port: 443, after: 6 * time.Second, answers: []string{flight}, service: "tls", acked: evidence.Yes},
		"tls, just in time":      {port: 443, after: 4900 * time.Millisecond, answers: []string{flight}, service: "tls", acked: evidence.Yes, stalled: evidence.No},
		"tls, hello and no more": {port: 443, after: time.Second, answers: []string{record(22, "\x02\x00\x00\x04abcd")}, service: "tls", acked: evidence.Yes},
		"tls, part of a record":  {port: 443, after: time.Second, answers: []string{flight[:1000]}, service: "tls", acked: evidence.Yes, stalled: evidence.Yes},
		"tls, part, and late":    {port: 443, after: 3 * time.Second, answers: []string{flight[:1000], flight[1000:]}, service: "tls", acked: evidence.Yes, stalled: evidence.No},
		"tls, refused":           {port: 443, refuse: true, service: "tls"},
		"ssh, version only":      {port: 22, greeting: version, service: "ssh", acked: evidence.Yes},
		"ssh, late version":      {port: 22, greeting: version, greets: 4 * time.Second, after: 4 * time.Second, answers: []string{offer}, service: "ssh", acked: evidence.Yes, stalled: evidence.No},
		"ssh, part of the offer": {port: 22, greeting: version + offer[:60], service: "ssh", acked: evidence.Yes, stalled: evidence.Yes},
		"ssh, lost offer":        {port: 22, greeting: version + strings.Repeat("x", 2000), down: large, stalled: evidence.Yes},
		"ssh, silent":            {port: 22},
		"http, lines in pieces":  {port: 80, after: time.Second, answers: []string{"HTTP/1.1 200 OK\r\n"}, service: "http", acked: evidence.Yes},
		"http, half a body":      {port: 80, after: time.Second, answers: []string{"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"}, service: "http", acked: evidence.Yes},
		"http, lost body":        {port: 80, after: time.Second, answers: []string{"HTTP/1.1 200 OK\r\n\r\n" + strings.Repeat("x", 2000)}, down: large, service: "http", acked: evidence.Yes, stalled: evidence.Yes},
		"everything lost":        {port: 443, up: func(int) bool { return true }, service: "tls"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSim(1, 0)
				s.up, s.down, s.refuse, s.answer = tc.up, tc.down, tc.refuse, answerOnce(tc.after, tc.answers...)
				if tc.greeting != "" {
					s.after(tc.greets, func() { s.reply.send([]byte(tc.greeting)) })
				}
				began := time.Now()
				out, _ := talkTo(t, s, tc.port, defaultTimeout)
				if out.Service != tc.service || out.Acked != tc.acked || out.Stalled != tc.stalled {
					t.Errorf("%+v, want %+v", out, tc)
				}
				if d := time.Since(began); d > 2*defaultTimeout+2*patience+time.Second {
					t.Errorf("took %v", d)
				}
				if n := len(s.request.segments); n > 3 {
					t.Errorf("sent %d segments", n)
				}
			})
		})
	}
}

// A look ends with its context, wherever it is.
func TestCancelled(t *testing.T) {
	for d := time.Duration(0); d < 6*time.Second; d += 170 * time.Millisecond {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			s := newSim(1, 0)
			s.up = func(n int) bool { return n > 1350 }
			began := time.Now()
			var out evidence.TCPSize
			left, err := talk(ctx, s, 443, defaultTimeout, &out)
			if !errors.Is(err, context.DeadlineExceeded) && d < defaultTimeout || time.Since(began) > d+2*pollEvery {
				t.Errorf("%v: %v after %v", d, err, time.Since(began))
			}
			if out.Acked == evidence.Yes || err != nil && out.Acked != evidence.Unknown {
				t.Errorf("%v: %+v", d, out)
			}
			if len(s.request.segments) > 0 && !left {
				t.Errorf("%v: the kernel would go on to repeat", d)
			}
		})
	}
}
