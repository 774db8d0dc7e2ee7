package probe

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnprobe/evidence"
	"vpnprobe/internal/rawconn"
	"vpnprobe/internal/wire/ike"
)

func beat(t *testing.T, k *IKE) evidence.IKEResult {
	t.Helper()
	res, err := k.Heartbeat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestIKEHeartbeat(t *testing.T) {
	for _, tt := range ikeCases {
		for _, port := range []uint16{500, portNATT} {
			t.Run(tt.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					sim := newSimIKE(t, port)
					sim.respond = tt.respond
					want := tt.want
					want.Port, want.Sent = port, time.Now()
					if want.Outcome == evidence.IKEAnswered {
						want.RTT = evidence.Some(evidence.Seconds(sim.rtt))
					}
					got := beat(t, sim.open())
					if diff := cmp.Diff(want, got, cmpValues); diff != "" {
						t.Errorf("port %d (-want +got):\n%s", port, diff)
					}
				})
			})
		}
	}
}

// cmpValues compares the types whose fields are their own business.
var cmpValues = cmp.Options{
	cmp.Comparer(func(a, b evidence.Opt[evidence.Seconds]) bool { return a == b }),
	cmp.Comparer(func(a, b evidence.Opt[netip.Addr]) bool { return a == b }),
	cmp.Comparer(func(a, b evidence.Opt[int]) bool { return a == b }),
}

// What comes to port 4500 without the marker is ESP.
func TestIKEHeartbeatNoMarker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := newSimIKE(t, portNATT)
		sim.respond = func(req ike.Message) []ikeReply {
			return []ikeReply{{message: versionReply(req).Append(nil), noMarker: true}}
		}
		if got := beat(t, sim.open()); got.Outcome != evidence.IKESilent || got.Unsolicited != 4 {
			t.Errorf("got %+v", got)
		}
	})
}

// A peer's habit is learnt, so that the steady state costs one datagram.
func TestIKEHeartbeatPrefers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := newSimIKE(t, 500)
		k := sim.open()
		steps := []struct {
			respond  ikeResponder
			request  evidence.IKERequest
			requests int
		}{
			{answersAll, evidence.VersionProbe, 1},
			{answersProposal, evidence.ProposalProbe, 3},
			{answersProposal, evidence.ProposalProbe, 1},
			{answersNothing, evidence.ProposalProbeV1, 4},
			{answersProposal, evidence.ProposalProbe, 1},
			{answersAll, evidence.ProposalProbe, 1},
			{func(req ike.Message) []ikeReply {
				if !isVersionProbe(req) {
					return nil
				}
				return replies(versionReply(req))
			}, evidence.VersionProbe, 3},
			{answersAll, evidence.VersionProbe, 1},
			{answersProposalV1, evidence.ProposalProbeV1, 4},
			{answersProposalV1, evidence.ProposalProbeV1, 1},
			{answersProposal, evidence.ProposalProbe, 4},
		}
		for i, s := range steps {
			sim.respond = s.respond
			if got := beat(t, k); got.Request != s.request || got.Requests != s.requests {
				t.Errorf("step %d: got %d requests, last %q: want %d, %q", i, got.Requests, got.Request, s.requests, s.request)
			}
		}
	})
}

// The declared version decides what is asked, and in which order.
func TestIKEHeartbeatVersion(t *testing.T) {
	version, proposal, v1 := evidence.VersionProbe, evidence.ProposalProbe, evidence.ProposalProbeV1
	for declared, want := range map[int][]evidence.IKERequest{
		0: {version, version, proposal, v1},
		1: {v1, v1, version, proposal},
		2: {version, version, proposal},
	} {
		synctest.Test(t, func(t *testing.T) {
			sim := newSimIKE(t, 500)
			sim.version, sim.respond = declared, answersNothing
			beat(t, sim.open())
			var got []evidence.IKERequest
			for _, m := range sim.requests {
				switch {
				case isVersionProbe(m):
					got = append(got, version)
				case m.Version == ike.V1:
					got = append(got, v1)
				default:
					got = append(got, proposal)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("version %d declared (-want +got):\n%s", declared, diff)
			}
		})
	}
}

// An answer that comes after its request was given up is still that request's.
func TestIKEHeartbeatLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := newSimIKE(t, 500)
		sim.respond = func(req ike.Message) []ikeReply {
			if !isVersionProbe(req) {
				return nil
			}
			return []ikeReply{{message: versionReply(req).Append(nil), after: 1500 * time.Millisecond}}
		}
		k := sim.open()
		got := beat(t, k)
		if got.Outcome != evidence.IKEAnswered || got.Request != evidence.VersionProbe || got.Requests != 2 ||
			got.RTT.Or(0).Duration() != 1530*time.Millisecond {
			t.Errorf("got %+v", got)
		}
		// The second request's answer comes during the next heartbeat.
		sim.respond = answersNothing
		if got := beat(t, k); got.Unsolicited != 0 || got.Outcome != evidence.IKESilent {
			t.Errorf("after a late answer: got %+v", got)
		}
	})
}

func TestIKEHeartbeatICMP(t *testing.T) {
	icmp := func(typ, code uint8, offender netip.Addr) *rawconn.Error {
		return &rawconn.Error{Errno: syscall.ECONNREFUSED, Type: typ, Code: code, Offender: offender}
	}
	tests := []struct {
		name     string
		icmp     *rawconn.Error
		outcome  evidence.IKEOutcome
		reason   evidence.ICMPReason
		requests int
	}{
		{"port, peer", icmp(3, 3, simPeer), evidence.IKERefused, evidence.PortUnreachable, 1},
		{"port, a hop", icmp(3, 3, otherHost), evidence.IKEProhibited, evidence.PortUnreachable, 1},
		{"prohibited", icmp(3, 13, otherHost), evidence.IKEProhibited, evidence.AdminProhibited, 1},
		{"host", icmp(3, 1, otherHost), evidence.IKEUnreachable, evidence.HostUnreachable, 1},
		{"net", icmp(3, 0, otherHost), evidence.IKEUnreachable, evidence.NetUnreachable, 1},
		{"loop", icmp(11, 0, otherHost), evidence.IKEUnreachable, evidence.TTLExceeded, 1},
		{"too big means nothing", icmp(3, 4, otherHost), evidence.IKESilent, evidence.FragNeeded, 4},
	}
	for _, tt := range tests {
		for _, quote := range []int{0, 100} {
			t.Run(tt.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					sim := newSimIKE(t, portNATT)
					sim.icmp, sim.quote = tt.icmp, quote
					// One that quotes no SPI may be about an earlier heartbeat,
					// so it does not end this one.
					want := tt.requests
					if quote == 0 {
						want = 4
					}
					got := beat(t, sim.open())
					if got.Outcome != tt.outcome || got.Requests != want {
						t.Errorf("quoting %d bytes: got %q after %d requests, want %q after %d", quote, got.Outcome, got.Requests, tt.outcome, want)
					}
					if got.ICMP == nil || got.ICMP.Reason != tt.reason || got.ICMP.Offender.Or(netip.Addr{}) != tt.icmp.Offender {
						t.Errorf("got ICMP error %+v", got.ICMP)
					}
				})
			})
		}
	}
}

// Errors about others' packets say nothing about ours.
func TestIKEHeartbeatForeignICMP(t *testing.T) {
	refused := &rawconn.Error{Errno: syscall.ECONNREFUSED, Type: 3, Code: 3, Offender: simPeer}
	target := netip.AddrPortFrom(simPeer, 500)
	for name, ev := range map[string]rawconn.Event{
		"another SPI":         {Data: []byte("12345678rest"), From: target, Err: refused},
		"another destination": {From: netip.AddrPortFrom(otherHost, 500), Err: refused},
		"another port":        {From: netip.AddrPortFrom(simPeer, 501), Err: refused},
		"this host's own":     {From: target, Err: &rawconn.Error{Errno: syscall.EMSGSIZE, Local: true}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sim := newSimIKE(t, 500)
				sim.events <- ev
				if got := beat(t, sim.open()); got.Outcome != evidence.IKEAnswered || got.ICMP != nil {
					t.Errorf("got %+v", got)
				}
			})
		})
	}
}

// An ICMP error that is later than its heartbeat, such as that of a neighbour
// that does not resolve, counts in the next unless the peer answers.
func TestIKEHeartbeatLateICMP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := newSimIKE(t, 500)
		sim.rtt = 4500 * time.Millisecond
		sim.icmp = &rawconn.Error{Errno: syscall.EHOSTUNREACH, Type: 3, Code: 1, Offender: otherHost}
		k := sim.open()
		if got := beat(t, k); got.Outcome != evidence.IKESilent {
			t.Fatalf("first: got %+v", got)
		}
		// The errors about this one are not there either when it ends.
		if got := beat(t, k); got.Outcome != evidence.IKEUnreachable || got.ICMP == nil || got.Requests != 4 {
			t.Errorf("second: got %+v", got)
		}
		time.Sleep(10 * time.Second)
		sim.icmp, sim.rtt = nil, 30*time.Millisecond
		if got := beat(t, k); got.Outcome != evidence.IKEAnswered || got.ICMP != nil {
			t.Errorf("recovered: got %+v", got)
		}
	})
}

func TestIKEHeartbeatSendError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := newSimIKE(t, 500)
		k := sim.open()
		sim.refused = syscall.ENETUNREACH
		got := beat(t, k)
		if got.Outcome != evidence.IKESendError || got.Send != evidence.NoRoute || got.Requests != 0 || sim.closed != 0 {
			t.Errorf("got %+v, closed %d times", got, sim.closed)
		}
		// A socket whose interface went away is replaced.
		sim.refused = syscall.ENODEV
		if got := beat(t, k); got.Send != evidence.NoDevice || sim.closed != 1 {
			t.Errorf("got %+v, closed %d times", got, sim.closed)
		}
		k.dial = func() (ikeConn, error) { return nil, syscall.ENODEV }
		if got := beat(t, k); got.Outcome != evidence.IKESendError || got.Send != evidence.NoDevice {
			t.Errorf("got %+v", got)
		}
		k.dial = func() (ikeConn, error) { return sim, nil }
		sim.refused = nil
		if got := beat(t, k); got.Outcome != evidence.IKEAnswered {
			t.Errorf("got %+v", got)
		}
	})
}

func TestIKEHeartbeatCannotLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := newSimIKE(t, 500)
		sim.respond = answersNothing
		k := sim.open()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if res, err := k.Heartbeat(ctx); !errors.Is(err, context.DeadlineExceeded) || res.Outcome != "" {
			t.Errorf("canceled: got %+v, %v", res, err)
		}
		if err := k.Close(); err != nil {
			t.Fatal(err)
		}
		if res, err := k.Heartbeat(t.Context()); err == nil || res.Outcome != "" {
			t.Errorf("closed: got %+v, %v", res, err)
		}
	})
}

// The answers of strongSwan 5.9.8 and libreswan 4.10, as they came.
func TestIKEParseReplyRecorded(t *testing.T) {
	for _, tt := range []struct {
		name, hex, notify string
		port              uint16
		spi               ike.SPI
	}{
		{
			"strongSwan version", "ff8f7125dbc3fa4c 0000000000000000 29202220 00000000 00000024 00000008 00000005",
			"INVALID_MAJOR_VERSION", 500, ike.SPI{0xff, 0x8f, 0x71, 0x25, 0xdb, 0xc3, 0xfa, 0x4c},
		},
		{
			"strongSwan proposal", "00000000 008ddc006c671e2c 0000000000000000 29202220 00000000 00000024 00000008 0000000e",
			"NO_PROPOSAL_CHOSEN", 4500, ike.SPI{0x00, 0x8d, 0xdc, 0x00, 0x6c, 0x67, 0x1e, 0x2c},
		},
		{
			"libreswan version", "00000000 9c8fa2f1a02e0da8 0000000000000000 29202220 00000000 00000024 00000008 00000005",
			"INVALID_MAJOR_VERSION", 4500, ike.SPI{0x9c, 0x8f, 0xa2, 0xf1, 0xa0, 0x2e, 0x0d, 0xa8},
		},
		{
			"libreswan proposal", "9e1c9108bcb665b6 3362db555fe71cef 29202220 00000000 00000024 00000008 0000000e",
			"NO_PROPOSAL_CHOSEN", 500, ike.SPI{0x9e, 0x1c, 0x91, 0x08, 0xbc, 0xb6, 0x65, 0xb6},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := hex.DecodeString(strings.ReplaceAll(tt.hex, " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			k := newIKE(IKEConfig{Target: netip.AddrPortFrom(simPeer, tt.port), Port: tt.port}, nil)
			m, _, ok := k.port().parseReply(rawconn.Event{Data: b, From: k.cfg.Target})
			if !ok || m.SPIi != tt.spi || m.FirstNotify() != tt.notify {
				t.Errorf("got %+v, %v: want %s", m, ok, tt.notify)
			}
		})
	}
}

// The requests are what docs/ike-probing.md says: they must not change
// without thought for what they leave at a peer.
func TestIKERequests(t *testing.T) {
	spi := ike.SPI{1, 2, 3, 4, 5, 6, 7, 8}
	want := []byte{
		1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0,
		0, 0x30, 34, 0x08, 0, 0, 0, 0, 0, 0, 0, 28,
	}
	if got := appendRequest(nil, evidence.VersionProbe, spi, nil); !bytes.Equal(got, want) {
		t.Errorf("version: got % x, want % x", got, want)
	}
	got := appendRequest(nil, evidence.ProposalProbe, spi, nil)
	wantStart := []byte{
		1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0,
		33, 0x20, 34, 0x08, 0, 0, 0, 0, 0, 0, 0x01, 0x74,
		34, 0, 0, 44, // SA
		0, 0, 0, 40, 1, 1, 0, 4, // one proposal, IKE, no SPI, four transforms
		3, 0, 0, 8, 1, 0, 0xff, 0,
		3, 0, 0, 8, 2, 0, 0xff, 0,
		3, 0, 0, 8, 3, 0, 0xff, 0,
		0, 0, 0, 8, 4, 0, 0, 14,
		40, 0, 0x01, 0x08, 0, 14, 0, 0, // KE
	}
	if !bytes.HasPrefix(got, wantStart) || len(got) != 372 {
		t.Errorf("proposal: got %d bytes % x, want 372 starting % x", len(got), got, wantStart)
	}

	wantV1 := []byte{
		1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0,
		1, 0x10, 2, 0, 0, 0, 0, 0, 0, 0, 0, 80,
		0, 0, 0, 52, 0, 0, 0, 1, 0, 0, 0, 1, // SA: IPsec, identity only
		0, 0, 0, 40, 1, 1, 0, 1, // one proposal, IKE, no SPI, one transform
		0, 0, 0, 32, 1, 1, 0, 0,
		0x80, 1, 0xff, 0, 0x80, 2, 0xff, 0, 0x80, 3, 0, 1, 0x80, 4, 0, 14, 0x80, 11, 0, 1, 0x80, 12, 0x70, 0x80,
	}
	if got := appendRequest(nil, evidence.ProposalProbeV1, spi, nil); !bytes.Equal(got, wantV1) {
		t.Errorf("IKEv1 proposal: got % x, want % x", got, wantV1)
	}
}

func TestNewIKERequestPadded(t *testing.T) {
	for _, kind := range []evidence.IKERequest{evidence.VersionProbe, evidence.ProposalProbe, evidence.ProposalProbeV1} {
		for _, size := range []int{0, 373, 600, 1972} {
			b := NewIKERequest(kind, size)
			small := len(appendRequest(nil, kind, ike.SPI{1}, nil))
			h, err := ike.ParseHeader(b)
			if err != nil || int(h.Length) != len(b) || h.SPIi.IsZero() || len(b) < size || len(b) > max(size, small)+vendorHeaderLen+vendorLen {
				t.Errorf("%s of %d bytes: got %d bytes, %+v, %v", kind, size, len(b), h, err)
			}
			if kind == evidence.VersionProbe && len(b) != max(size, small) {
				t.Errorf("version of %d bytes: got %d", size, len(b))
			} else if _, err := ike.Parse(b); err != nil && kind != evidence.VersionProbe {
				t.Errorf("%s of %d bytes: %v", kind, size, err)
			}
		}
	}
}

// A responder that remembers what it refused is to remember two requests of
// every agent, not one of each heartbeat.
func TestIKEHeartbeatProposalSPI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		proposals, others := map[ike.SPI]int{}, map[ike.SPI]int{}
		nonces := map[string]bool{}
		sim := newSimIKE(t, 500)
		sim.respond = func(req ike.Message) []ikeReply {
			if req.Version != ike.V2 {
				others[req.SPIi]++
				return nil
			}
			proposals[req.SPIi]++
			n, _ := req.First(ike.PayloadNonce)
			nonces[string(n.Body)] = true
			return answersProposal(req)
		}
		k := sim.open()
		for range 4 {
			if got := beat(t, k); got.Outcome != evidence.IKEAnswered || !got.RTT.Known() {
				t.Errorf("got %+v", got)
			}
		}
		if len(proposals) != 2 || len(nonces) != 4 {
			t.Errorf("%d SPIs and %d nonces in 4 requests that are refused, want 2 and 4", len(proposals), len(nonces))
		}
		for spi, n := range others {
			if n > 1 {
				t.Errorf("SPI %x was used %d times", spi, n)
			}
		}
	})
}

// An answer that comes twice, the second time late, is no answer to the next
// heartbeat, nor is its round-trip time.
func TestIKEHeartbeatDuplicate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := newSimIKE(t, 500)
		sim.rtt = 100 * time.Millisecond
		sim.respond = func(req ike.Message) []ikeReply {
			list := answersProposal(req)
			for _, r := range list {
				r.after = 700 * time.Millisecond
				list = append(list, r)
			}
			return list
		}
		k := sim.open()
		for i := range 5 {
			got := beat(t, k)
			if rtt, ok := got.RTT.Get(); i > 0 && (!ok || rtt.Duration().Round(time.Millisecond) != sim.rtt) {
				t.Errorf("beat %d: round trip %v, %v, want %v", i, rtt.Duration(), ok, sim.rtt)
			}
		}
	})
}
