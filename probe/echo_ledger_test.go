package probe

import (
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"vpnprobe/evidence"
)

// compareValues lets cmp look into the types that compare with ==.
var compareValues = []cmp.Option{cmpopts.EquateComparable(netip.Addr{}, evidence.Opt[int]{}, evidence.Opt[netip.Addr]{})}

func TestEchoLedger(t *testing.T) {
	const ms = time.Millisecond
	epoch := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(d time.Duration) time.Time { return epoch.Add(d) }
	target := netip.MustParseAddr("192.0.2.1")
	// Request n is started at n * 100 ms and has left 1 ms later.
	send := func(l *echoLedger, n int) {
		l.start(n, at(time.Duration(n)*100*ms))
		l.sent(n, at(time.Duration(n)*100*ms+ms))
	}
	result := func(n int, r evidence.EchoResult) evidence.EchoResult {
		r.Target, r.Role, r.Sent = target, evidence.Gateway, at(time.Duration(n)*100*ms+ms)
		return r
	}
	rejected := evidence.ICMPError{Reason: evidence.AdminProhibited, Type: 3, Code: 13, Offender: evidence.Some(netip.MustParseAddr("192.0.2.254"))}
	expired := evidence.ICMPError{Reason: evidence.TTLExceeded, Type: 11}

	for _, tt := range []struct {
		name string
		do   func(l *echoLedger)
		want []evidence.EchoResult
		open int // unresolved in the end
	}{{
		name: "answered",
		do: func(l *echoLedger) {
			send(l, 0)
			l.reply(0, 7*ms)
			l.expire(at(time.Hour))
			l.end(0, at(time.Hour), nil)
		},
		want: []evidence.EchoResult{result(0, evidence.EchoResult{Outcome: evidence.EchoReply, RTT: 7 * ms})},
	}, {
		name: "answered with the timeout to the nanosecond",
		do:   func(l *echoLedger) { send(l, 0); l.reply(0, time.Second); l.expire(at(time.Hour)) },
		want: []evidence.EchoResult{result(0, evidence.EchoResult{Outcome: evidence.EchoReply, RTT: time.Second})},
	}, {
		name: "in flight",
		do:   func(l *echoLedger) { send(l, 0); l.expire(at(time.Second + ms)) },
		open: 1,
	}, {
		name: "lost once",
		do: func(l *echoLedger) {
			send(l, 0)
			l.expire(at(time.Second + ms + echoSlack))
			l.expire(at(time.Hour))
			l.end(0, at(time.Hour), nil)
		},
		want: []evidence.EchoResult{result(0, evidence.EchoResult{Outcome: evidence.EchoLost})},
	}, {
		name: "late, then duplicate",
		do: func(l *echoLedger) {
			send(l, 0)
			l.expire(at(time.Hour))
			l.reply(0, 1500*ms)
			l.reply(0, 1600*ms)
		},
		want: []evidence.EchoResult{
			result(0, evidence.EchoResult{Outcome: evidence.EchoLost}),
			result(0, evidence.EchoResult{Late: true, RTT: 1500 * ms}),
			result(0, evidence.EchoResult{Duplicate: true, RTT: 1600 * ms}),
		},
	}, {
		name: "late, and heard of before it expired",
		do:   func(l *echoLedger) { send(l, 0); l.reply(0, time.Second+1); l.expire(at(time.Hour)) },
		want: []evidence.EchoResult{
			result(0, evidence.EchoResult{Outcome: evidence.EchoLost}),
			result(0, evidence.EchoResult{Late: true, RTT: time.Second + 1}),
		},
	}, {
		name: "duplicate",
		do:   func(l *echoLedger) { send(l, 0); l.reply(0, 7*ms); l.reply(0, 8*ms) },
		want: []evidence.EchoResult{
			result(0, evidence.EchoResult{Outcome: evidence.EchoReply, RTT: 7 * ms}),
			result(0, evidence.EchoResult{Duplicate: true, RTT: 8 * ms}),
		},
	}, {
		name: "reordered is the one that was overtaken",
		do: func(l *echoLedger) {
			send(l, 0)
			send(l, 1)
			l.reply(1, 7*ms)
			l.reply(0, 150*ms)
			l.reply(1, 160*ms)
		},
		want: []evidence.EchoResult{
			result(1, evidence.EchoResult{Outcome: evidence.EchoReply, RTT: 7 * ms}),
			result(0, evidence.EchoResult{Outcome: evidence.EchoReply, RTT: 150 * ms, Reordered: true}),
			result(1, evidence.EchoResult{Duplicate: true, RTT: 160 * ms}),
		},
	}, {
		name: "read in the wrong order",
		do: func(l *echoLedger) {
			send(l, 0)
			send(l, 1)
			l.reply(1, 7*ms)
			l.reply(0, 127*ms)
		},
		want: []evidence.EchoResult{
			result(1, evidence.EchoResult{Outcome: evidence.EchoReply, RTT: 7 * ms}),
			result(0, evidence.EchoResult{Outcome: evidence.EchoReply, RTT: 127 * ms}),
		},
	}, {
		name: "not sent",
		do:   func(l *echoLedger) { l.start(0, at(0)); l.end(0, at(ms), syscall.ENETUNREACH) },
		want: []evidence.EchoResult{result(0, evidence.EchoResult{Outcome: evidence.EchoSendError, Send: evidence.NoRoute})},
	}, {
		name: "stopped before it was sent",
		do:   func(l *echoLedger) { l.start(0, at(0)); l.end(0, at(ms), nil); l.expire(at(time.Hour)) },
	}, {
		name: "stopped in flight",
		do:   func(l *echoLedger) { send(l, 0); l.end(0, at(5*ms), nil); l.expire(at(time.Hour)) },
	}, {
		name: "sent, and then the socket failed",
		do:   func(l *echoLedger) { send(l, 0); l.end(0, at(5*ms), syscall.EIO); l.expire(at(time.Hour)) },
	}, {
		name: "slow to be sent",
		do:   func(l *echoLedger) { l.start(0, at(0)); l.expire(at(time.Hour)) },
		open: 1,
	}, {
		name: "ICMP error about the request that it quotes",
		do: func(l *echoLedger) {
			send(l, 0)
			send(l, 1)
			l.icmp(echoError{rejected, at(100*ms + 500*time.Microsecond)})
			l.expire(at(time.Hour))
		},
		want: []evidence.EchoResult{
			result(0, evidence.EchoResult{Outcome: evidence.EchoLost}),
			result(1, evidence.EchoResult{Outcome: evidence.EchoLost, ICMP: &rejected}),
		},
	}, {
		name: "ICMP error read before the send returned",
		do: func(l *echoLedger) {
			l.start(0, at(0))
			l.icmp(echoError{rejected, at(ms / 2)})
			l.sent(0, at(ms))
			l.expire(at(time.Hour))
		},
		want: []evidence.EchoResult{result(0, evidence.EchoResult{Outcome: evidence.EchoLost, ICMP: &rejected})},
	}, {
		name: "ICMP errors that quote too little go to the newest",
		do: func(l *echoLedger) {
			send(l, 0)
			send(l, 1)
			l.icmp(echoError{icmp: rejected})
			l.icmp(echoError{icmp: expired})
			l.icmp(echoError{icmp: expired})
			l.expire(at(time.Hour))
		},
		want: []evidence.EchoResult{
			result(0, evidence.EchoResult{Outcome: evidence.EchoLost, ICMP: &expired}),
			result(1, evidence.EchoResult{Outcome: evidence.EchoLost, ICMP: &rejected}),
		},
	}, {
		name: "ICMP error about a lost request",
		do: func(l *echoLedger) {
			send(l, 0)
			l.expire(at(time.Hour))
			l.icmp(echoError{rejected, at(ms / 2)})
			l.icmp(echoError{rejected, at(ms / 2)})
		},
		want: []evidence.EchoResult{
			result(0, evidence.EchoResult{Outcome: evidence.EchoLost}),
			result(0, evidence.EchoResult{ICMP: &rejected}),
		},
	}, {
		name: "ICMP error about another program's request",
		do: func(l *echoLedger) {
			send(l, 0)
			l.icmp(echoError{rejected, at(50 * ms)})
			l.icmp(echoError{rejected, at(-time.Nanosecond)})
			l.reply(0, 60*ms)
		},
		want: []evidence.EchoResult{result(0, evidence.EchoResult{Outcome: evidence.EchoReply, RTT: 60 * ms})},
	}, {
		name: "news of requests that are over",
		do: func(l *echoLedger) {
			send(l, 0)
			l.reply(0, ms)
			l.end(0, at(time.Second), nil)
			l.reply(0, ms)
			l.sent(0, at(0))
			l.icmp(echoError{rejected, at(ms / 2)})
			l.end(0, at(time.Second), syscall.EIO)
		},
		want: []evidence.EchoResult{result(0, evidence.EchoResult{Outcome: evidence.EchoReply, RTT: ms})},
	}} {
		t.Run(tt.name, func(t *testing.T) {
			var got []evidence.EchoResult
			l := newEchoLedger(EchoConfig{Target: target, Role: evidence.Gateway, Timeout: time.Second},
				func(r evidence.EchoResult) { got = append(got, r) })
			tt.do(l)
			if diff := cmp.Diff(tt.want, got, compareValues...); diff != "" {
				t.Errorf("results (-want +got):\n%s", diff)
			}
			if got := l.unresolved(); got != tt.open {
				t.Errorf("%d requests unresolved, want %d", got, tt.open)
			}
		})
	}
}
