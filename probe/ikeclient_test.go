package probe

import (
	"bytes"
	"context"
	"errors"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/rawconn"
	"vpnprobe/internal/wire/ike"
)

// client returns a client whose socket has a peer behind it.
func (s *simIKE) client() *IKEClient {
	return &IKEClient{cfg: IKEClientConfig{Target: simPeer}, conn: s, asked: make(map[ike.SPI]bool)}
}

var clientWaits = []time.Duration{500 * time.Millisecond, 500 * time.Millisecond, time.Second}

func TestIKEClientAsk(t *testing.T) {
	icmp := func(code uint8) *rawconn.Error {
		return &rawconn.Error{Errno: syscall.ECONNREFUSED, Type: 3, Code: code, Offender: simPeer}
	}
	late := func(after time.Duration) ikeResponder {
		return func(req ike.Message) []ikeReply {
			return []ikeReply{{message: versionReply(req).Append(nil), after: after}}
		}
	}
	for _, tt := range []struct {
		name     string
		change   func(*simIKE)
		outcome  evidence.IKEOutcome
		requests int
		rtt      bool
		took     time.Duration
	}{
		{"answers", func(*simIKE) {}, evidence.IKEAnswered, 1, true, 30 * time.Millisecond},
		{"answers twice", func(s *simIKE) {
			s.respond = func(req ike.Message) []ikeReply { return replies(versionReply(req), versionReply(req)) }
		}, evidence.IKEAnswered, 1, true, 30*time.Millisecond - time.Microsecond},
		{"answers late", func(s *simIKE) { s.respond = late(600 * time.Millisecond) }, evidence.IKEAnswered, 2, false, 630 * time.Millisecond},
		{"silent", func(s *simIKE) { s.respond = answersNothing }, evidence.IKESilent, 3, false, 2 * time.Second},
		{"reflects", func(s *simIKE) {
			s.respond = func(req ike.Message) []ikeReply { return replies(req) }
		}, evidence.IKESilent, 3, false, 2 * time.Second},
		{"another SPI", func(s *simIKE) { s.respond = answersWith(func(m *ike.Message) { m.SPIi[0]++ }) }, evidence.IKESilent, 3, false, 2 * time.Second},
		{"refused", func(s *simIKE) { s.icmp = icmp(3) }, evidence.IKERefused, 1, false, 30 * time.Millisecond},
		{"refused, without a quotation", func(s *simIKE) { s.icmp, s.quote = icmp(3), 0 }, evidence.IKERefused, 3, false, 2 * time.Second},
		{"too big means nothing", func(s *simIKE) { s.icmp = icmp(4) }, evidence.IKESilent, 3, false, 2 * time.Second},
		{"no route", func(s *simIKE) { s.refused = syscall.ENETUNREACH }, evidence.IKESendError, 0, false, 0},
	} {
		for _, port := range []uint16{500, portNATT} {
			t.Run(tt.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newSimIKE(t, port)
					tt.change(s)
					request, began := NewIKERequest(evidence.ProposalProbe, 0), time.Now()
					ex, answer, err := s.client().Ask(t.Context(), port, request, clientWaits...)
					_, rtt := ex.RTT.Get()
					if err != nil || ex.Outcome != tt.outcome || ex.Requests != tt.requests || rtt != tt.rtt || time.Since(began) != tt.took {
						t.Errorf("port %d: got %+v after %v, %v", port, ex, time.Since(began), err)
					}
					if ex.Port != port || ex.Bytes != len(request) || (ex.ICMP != nil) != (s.icmp != nil) || (ex.Send != "") != (s.refused != nil) {
						t.Errorf("port %d: got %+v", port, ex)
					}
					if m, err := ike.Parse(answer); (err == nil) != (tt.outcome == evidence.IKEAnswered) || err == nil && m.SPIi != ike.SPI(request[:8]) {
						t.Errorf("port %d: answer % x", port, answer)
					}
					for _, m := range s.requests {
						if !bytes.Equal(m.Append(nil), request) {
							t.Errorf("port %d: a request was not repeated as it was", port)
						}
					}
				})
			})
		}
	}
}

// Datagrams from the peer's port that are no answer are counted, but for late
// ones.
func TestIKEClientUnsolicited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimIKE(t, 500)
		c := s.client()
		var first ike.Message
		s.respond = func(req ike.Message) []ikeReply {
			first = req
			return nil
		}
		ask := func() evidence.IKEExchange {
			ex, _, err := c.Ask(t.Context(), 500, NewIKERequest(evidence.VersionProbe, 0), clientWaits...)
			if err != nil {
				t.Fatal(err)
			}
			return ex
		}
		if ex := ask(); ex.Outcome != evidence.IKESilent || ex.Unsolicited != 0 {
			t.Errorf("silent: got %+v", ex)
		}
		s.respond = func(req ike.Message) []ikeReply {
			forged := versionReply(req)
			forged.SPIi[0]++
			list := []ikeReply{{message: []byte("no IKE"), after: time.Millisecond}}
			for i, m := range []ike.Message{req, forged, versionReply(first), versionReply(req), forged} {
				list = append(list, ikeReply{message: m.Append(nil), after: time.Duration(i+2) * time.Millisecond})
			}
			return list
		}
		if ex := ask(); ex.Outcome != evidence.IKEAnswered || ex.Unsolicited != 3 {
			t.Errorf("got %+v", ex)
		}
	})
}

// What is left of one exchange does not disturb the next.
func TestIKEClientAskAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimIKE(t, 500)
		c := s.client()
		s.rtt = 3 * time.Second
		for range 2 {
			if ex, _, err := c.Ask(t.Context(), 500, NewIKERequest(evidence.VersionProbe, 0), clientWaits...); err != nil || ex.Outcome != evidence.IKESilent {
				t.Errorf("got %+v, %v", ex, err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if ex, _, err := c.Ask(ctx, 500, NewIKERequest(evidence.VersionProbe, 0), clientWaits...); !errors.Is(err, context.DeadlineExceeded) || ex.Outcome != "" {
			t.Errorf("canceled: got %+v, %v", ex, err)
		}
		time.Sleep(10 * time.Second)
		s.rtt = time.Millisecond
		if ex, _, err := c.Ask(t.Context(), 500, NewIKERequest(evidence.VersionProbe, 0), clientWaits...); err != nil || ex.Outcome != evidence.IKEAnswered {
			t.Errorf("got %+v, %v", ex, err)
		}
	})
}

func TestIKEClientRemote(t *testing.T) {
	c := &IKEClient{cfg: IKEClientConfig{Target: simPeer, Ports: map[uint16]uint16{500: 10500}}}
	if a, b := c.Remote(500), c.Remote(4500); a.Port() != 10500 || b.Port() != 4500 || a.Addr() != simPeer {
		t.Errorf("got %v and %v", a, b)
	}
	if _, err := OpenIKEClient(IKEClientConfig{}); err == nil {
		t.Error("opened without a target")
	}
}
