package probe

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnprobe/evidence"
)

// fakePinger is a network and its host. Request n meets path(n).
type fakePinger struct {
	path func(n int) fakePath

	mu    sync.Mutex
	began []time.Time // of each request
}

// fakePath is what one request meets: the time that sending takes, then
// either an error or replies, each some time after the request was sent.
type fakePath struct {
	sending time.Duration
	err     error
	replies []time.Duration
}

func (f *fakePinger) ping(ctx context.Context, sent func(), reply func(time.Duration)) error {
	f.mu.Lock()
	n := len(f.began)
	f.began = append(f.began, time.Now())
	f.mu.Unlock()
	p := f.path(n)
	time.Sleep(p.sending)
	if p.err != nil {
		return p.err
	}
	left := time.Now()
	sent()
	for _, after := range p.replies {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(after - time.Since(left)):
			reply(after)
		}
	}
	<-ctx.Done()
	return nil
}

// fakeWatch hears the errors that are put into it.
type fakeWatch struct{ errs chan echoError }

func (w *fakeWatch) receive() (echoError, error) {
	e, ok := <-w.errs
	if !ok {
		return e, os.ErrClosed
	}
	return e, nil
}

func (w *fakeWatch) close() { close(w.errs) }

// newFakeEcho probes over f, without ICMP errors.
func newFakeEcho(f *fakePinger, cfg EchoConfig) *Echo {
	cfg.Target, cfg.Role = netip.MustParseAddr("192.0.2.1"), evidence.Gateway
	e := NewEcho(cfg)
	e.open = func(EchoConfig) (pinger, error) { return f, nil }
	e.watch = func(EchoConfig) (errorWatch, error) { return nil, errors.New("no watch") }
	return e
}

// tally counts results by what they say.
func tally(results []evidence.EchoResult) map[string]int {
	m := map[string]int{}
	for _, r := range results {
		switch {
		case r.Outcome == evidence.EchoSendError:
			m[string(r.Send)]++
		case r.Outcome != "":
			m[string(r.Outcome)]++
		}
		if r.Late {
			m["late"]++
		}
		if r.Duplicate {
			m["duplicate"]++
		}
		if r.Reordered {
			m["reordered"]++
		}
	}
	return m
}

func TestEchoPaths(t *testing.T) {
	const ms = time.Millisecond
	replies := func(after ...time.Duration) fakePath { return fakePath{replies: after} }
	for _, tt := range []struct {
		name  string
		paths []fakePath
		want  map[string]int
	}{
		{"answered", []fakePath{replies(ms), replies(20 * ms)}, map[string]int{"reply": 2}},
		{"lost", []fakePath{replies(), replies(ms)}, map[string]int{"lost": 1, "reply": 1}},
		{"late", []fakePath{replies(1800 * ms), replies(ms), replies(ms), replies(ms), replies(ms)},
			map[string]int{"lost": 1, "reply": 4, "late": 1, "reordered": 1}},
		{"too late to be seen", []fakePath{replies(2100 * ms), replies(ms), replies(ms), replies(ms), replies(ms)},
			map[string]int{"lost": 1, "reply": 4}},
		{"duplicated", []fakePath{replies(ms, 2*ms, 3*ms), replies(ms)},
			map[string]int{"reply": 2, "duplicate": 2}},
		{"overtaken", []fakePath{replies(700 * ms), replies(ms)},
			map[string]int{"reply": 2, "reordered": 1}},
		{"no route", []fakePath{{err: syscall.ENETUNREACH}, {err: syscall.ENETUNREACH}, replies(ms)},
			map[string]int{"no_route": 2, "reply": 1}},
		{"firewall", []fakePath{{err: syscall.EPERM}}, map[string]int{"local_firewall": 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakePinger{path: func(n int) fakePath { return tt.paths[n] }}
				e := newFakeEcho(f, EchoConfig{Interval: 500 * ms, Timeout: time.Second})
				var got []evidence.EchoResult
				if err := e.Run(t.Context(), len(tt.paths), func(r evidence.EchoResult) { got = append(got, r) }); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tt.want, tally(got)); diff != "" {
					t.Errorf("results (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// The cadence is neither what requests take nor what became of them.
func TestEchoCadence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakePinger{path: func(n int) fakePath {
			switch n % 3 {
			case 0:
				return fakePath{sending: 30 * time.Millisecond, replies: []time.Duration{40 * time.Millisecond}}
			case 1:
				return fakePath{sending: 70 * time.Millisecond, err: syscall.EACCES}
			}
			return fakePath{}
		}}
		e := newFakeEcho(f, EchoConfig{Interval: 50 * time.Millisecond, Timeout: time.Second})
		began := time.Now()
		if err := e.Run(t.Context(), 100, func(evidence.EchoResult) {}); err != nil {
			t.Fatal(err)
		}
		for n, at := range f.began {
			if got, want := at.Sub(began), time.Duration(n)*50*time.Millisecond; got != want {
				t.Fatalf("request %d was sent after %v, want %v", n, got, want)
			}
		}
		if len(f.began) != 100 {
			t.Errorf("%d requests, want 100", len(f.began))
		}
	})
}

func TestNextDue(t *testing.T) {
	t0 := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tt := range []struct{ late, want time.Duration }{
		{0, time.Second},
		{-time.Millisecond, time.Second},
		{999 * time.Millisecond, time.Second},
		{time.Second, 2 * time.Second},
		{time.Hour + time.Millisecond, time.Hour + time.Second},
	} {
		if got := nextDue(t0, t0.Add(tt.late), time.Second).Sub(t0); got != tt.want {
			t.Errorf("%v late: next after %v, want %v", tt.late, got, tt.want)
		}
	}
}

// Every request is counted once, none for having been stopped, wherever the
// stop falls.
func TestEchoStop(t *testing.T) {
	for stop := time.Duration(0); stop < 3*time.Second; stop += 70 * time.Millisecond {
		synctest.Test(t, func(t *testing.T) {
			f := &fakePinger{path: func(n int) fakePath {
				return fakePath{sending: 20 * time.Millisecond, replies: []time.Duration{130 * time.Millisecond}}
			}}
			e := newFakeEcho(f, EchoConfig{Interval: 100 * time.Millisecond, Timeout: time.Second})
			ctx, cancel := context.WithTimeout(t.Context(), stop)
			defer cancel()
			var got []evidence.EchoResult
			if err := e.Run(ctx, 0, func(r evidence.EchoResult) { got = append(got, r) }); err != nil {
				t.Fatal(err)
			}
			// The reply to request n comes 150 ms after its start.
			want := max(0, int((stop-150*time.Millisecond+100*time.Millisecond-1)/(100*time.Millisecond)))
			if stop <= 150*time.Millisecond {
				want = 0
			}
			for _, r := range got {
				if r.Outcome != evidence.EchoReply {
					t.Errorf("stopped after %v: %+v, want replies alone", stop, r)
				}
			}
			// A reply at the very moment of the stop may be counted or not.
			if len(got) != want && len(got) != want+1 {
				t.Errorf("stopped after %v: %d replies, want %d", stop, len(got), want)
			}
		})
	}
}

func TestEchoWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Request 1 is lost, the rest is answered.
		f := &fakePinger{path: func(n int) fakePath {
			if n == 1 {
				return fakePath{}
			}
			return fakePath{replies: []time.Duration{time.Millisecond}}
		}}
		e := newFakeEcho(f, EchoConfig{})
		var watches []*fakeWatch
		e.watch = func(EchoConfig) (errorWatch, error) {
			watches = append(watches, &fakeWatch{make(chan echoError, 1)})
			return watches[len(watches)-1], nil
		}
		rejected := evidence.ICMPError{Reason: evidence.HostUnreachable, Type: 3, Code: 1}
		time.AfterFunc(1500*time.Millisecond, func() { watches[0].errs <- echoError{icmp: rejected} })
		var got []*evidence.ICMPError
		if err := e.Run(t.Context(), 6, func(r evidence.EchoResult) { got = append(got, r.ICMP) }); err != nil {
			t.Fatal(err)
		}
		// The loss of request 1 is known after request 2 was answered.
		want := []*evidence.ICMPError{nil, nil, &rejected, nil, nil, nil}
		if diff := cmp.Diff(want, got, compareValues...); diff != "" {
			t.Errorf("ICMP errors (-want +got):\n%s", diff)
		}
		if len(watches) != 2 {
			t.Errorf("%d watches, want one at the start and one after the loss", len(watches))
		}
	})
}

func TestEchoCannotLook(t *testing.T) {
	denied := errors.New("denied")
	e := NewEcho(EchoConfig{Target: netip.MustParseAddr("192.0.2.1")})
	e.open = func(EchoConfig) (pinger, error) { return nil, denied }
	err := e.Run(t.Context(), 0, func(r evidence.EchoResult) { t.Errorf("emitted %+v", r) })
	if !errors.Is(err, denied) {
		t.Errorf("got %v, want %v", err, denied)
	}
	if err := NewEcho(EchoConfig{}).Run(t.Context(), 1, nil); err == nil {
		t.Error("no error without a target")
	}
}

func TestEchoDefaults(t *testing.T) {
	got := NewEcho(EchoConfig{Target: netip.MustParseAddr("::ffff:192.0.2.1"), Size: 1}).cfg
	want := EchoConfig{Target: netip.MustParseAddr("192.0.2.1"), Interval: time.Second, Timeout: time.Second, Size: 24}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestPlausibleRTT(t *testing.T) {
	const ms = time.Millisecond
	for _, tt := range []struct{ measured, sinceStart, sinceSend, want time.Duration }{
		{5 * ms, 6 * ms, 4 * ms, 5 * ms},
		{-time.Hour, 6 * ms, 4 * ms, 4 * ms},
		{time.Hour, 6 * ms, 4 * ms, 4 * ms},
	} {
		if got := plausibleRTT(tt.measured, tt.sinceStart, tt.sinceSend); got != tt.want {
			t.Errorf("plausibleRTT(%v, %v, %v) = %v, want %v", tt.measured, tt.sinceStart, tt.sinceSend, got, tt.want)
		}
	}
}

func TestParseQuote(t *testing.T) {
	stamp := time.Unix(0, 0x1122334455667788)
	v4 := []byte{8, 0, 1, 2, 3, 4, 0, 0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 9, 9}
	v6 := slices.Concat([]byte{128}, v4[1:])
	for _, tt := range []struct {
		name  string
		quote []byte
		v6    bool
		want  time.Time
		ok    bool
	}{
		{"IPv4", v4, false, stamp, true},
		{"IPv6", v6, true, stamp, true},
		{"header alone", v4[:8], false, time.Time{}, true},
		{"cut in the stamp", v4[:15], false, time.Time{}, true},
		{"cut in the header", v4[:7], false, time.Time{}, false},
		{"nothing", nil, false, time.Time{}, false},
		{"an echo reply", []byte{0, 0, 0, 0, 0, 0, 0, 0}, false, time.Time{}, false},
		{"of the other family", v6, false, time.Time{}, false},
	} {
		got, ok := parseQuote(tt.quote, tt.v6)
		if ok != tt.ok || !got.stamp.Equal(tt.want) {
			t.Errorf("%s: %v, %v, want %v, %v", tt.name, got.stamp, ok, tt.want, tt.ok)
		}
	}
}
