package probe

import (
	"context"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"

	"vpnprobe/evidence"
	"vpnprobe/internal/rawconn"
)

var (
	simTarget = netip.MustParseAddr("198.51.100.2")
	simRouter = netip.MustParseAddr("192.0.2.254")
)

// hopPath is a path that answers only what its test says.
type hopPath struct {
	refused error // what each send is refused for
	events  chan rawconn.EchoEvent
}

func newHopPath(refused error) *hopPath {
	return &hopPath{refused, make(chan rawconn.EchoEvent, 8)}
}

func (p *hopPath) Send(netip.Addr, uint16, int) error { return p.refused }

func (p *hopPath) Receive(ctx context.Context) (rawconn.EchoEvent, error) {
	select {
	case ev := <-p.events:
		return ev, nil
	case <-ctx.Done():
		return rawconn.EchoEvent{}, ctx.Err()
	}
}

func (p *hopPath) SetTTL(int) error { return nil }
func (p *hopPath) Close() error     { return nil }

func TestProbeHop(t *testing.T) {
	expired := func(seq uint16, offender netip.Addr) rawconn.EchoEvent {
		return rawconn.EchoEvent{Seq: seq, Err: &rawconn.Error{Errno: syscall.EHOSTUNREACH, Type: 11, Offender: offender}}
	}
	hop2 := netip.MustParseAddr("10.2.0.254")
	tests := []struct {
		name   string
		ttls   []int
		events []rawconn.EchoEvent
		want   evidence.InnerHop
	}{
		{"silent", nil, nil, evidence.InnerHop{Sent: 1}},
		{"expired", nil, []rawconn.EchoEvent{expired(0, simRouter)},
			evidence.InnerHop{Sent: 1, Answered: 1, Offender: evidence.Some(simRouter), Ever: evidence.Yes}},
		{"the farthest names the offender", []int{1, 2}, []rawconn.EchoEvent{expired(1, hop2), expired(0, simRouter)},
			evidence.InnerHop{Sent: 2, Answered: 2, Offender: evidence.Some(hop2), Ever: evidence.Yes}},
		{"the target itself", []int{1, 2}, []rawconn.EchoEvent{{Seq: 1, From: simTarget}},
			evidence.InnerHop{Sent: 2, Answered: 1, Offender: evidence.Some(simTarget), Ever: evidence.Yes}},
		{"duplicate and unknown", []int{1, 2}, []rawconn.EchoEvent{expired(0, simRouter), expired(0, hop2), expired(7, hop2)},
			evidence.InnerHop{Sent: 2, Answered: 1, Offender: evidence.Some(simRouter), Ever: evidence.Yes}},
		{"another error", nil, []rawconn.EchoEvent{{Err: &rawconn.Error{Errno: syscall.EHOSTUNREACH, Type: 3, Code: 1, Offender: simRouter}}},
			evidence.InnerHop{Sent: 1}},
		{"this host's own error", nil, []rawconn.EchoEvent{{Err: &rawconn.Error{Errno: syscall.EMSGSIZE, Local: true}}},
			evidence.InnerHop{Sent: 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				path := newHopPath(nil)
				for _, ev := range tt.events {
					path.events <- ev
				}
				got, err := probeHop(t.Context(), path, HopConfig{Target: simTarget, TTLs: tt.ttls})
				if err != nil || got != tt.want {
					t.Errorf("got %+v, %v: want %+v", got, err, tt.want)
				}
			})
		})
	}
}

func TestProbeHopErrors(t *testing.T) {
	path := newHopPath(syscall.ENETUNREACH)
	if got, err := probeHop(t.Context(), path, HopConfig{Target: simTarget}); err != nil || got != (evidence.InnerHop{}) {
		t.Errorf("no route: got %+v, %v", got, err)
	}
	for _, ttl := range []int{-1, 0, 256} {
		if _, err := probeHop(t.Context(), path, HopConfig{Target: simTarget, TTLs: []int{ttl}}); err == nil {
			t.Errorf("TTL %d was accepted", ttl)
		}
	}
}
