package capture

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/gopacket/layers"
)

func TestSurvey(t *testing.T) {
	from := func(src, dst netip.Addr, payload []byte, proto layers.IPProtocol, outgoing bool) Frame {
		b := builtIP(t, src, dst, proto, payload)
		return Frame{Data: b, Link: LinkRaw, Outgoing: outgoing, WireLen: len(b)}
	}
	esp := builtESP(7, 1, 8)
	ike := builtUDP(33000, 500, builtIKE(34, 8, 0, 100))
	natt := builtUDP(4500, 4500, builtESP(7, 1, 8))
	out := func(outgoing bool) Frame { return from(fileHost, filePeer, esp, layers.IPProtocolESP, outgoing) }
	in := func(outgoing bool) Frame { return from(filePeer, fileHost, esp, layers.IPProtocolESP, outgoing) }
	type sides struct {
		Peer, Host   uint64 // packets that each sent
		Ours         netip.Addr
		Told         bool
		PairsOfOther int
	}
	for name, tc := range map[string]struct {
		frames []Frame
		want   sides
	}{
		"no directions": {[]Frame{out(false), in(false), in(false)}, sides{2, 1, netip.Addr{}, false, 0}},
		"directions":    {[]Frame{out(true), in(false)}, sides{1, 1, fileHost, true, 0}},
		"only in": {[]Frame{in(false), from(fileHost, fileRouter, builtUDP(53, 53, esp), layers.IPProtocolUDP, true)},
			sides{1, 0, fileHost, true, 0}},
		"router between": {[]Frame{out(false), out(true), in(false), in(true)}, sides{2, 2, netip.Addr{}, false, 0}},
		"IKE, NAT-T": {[]Frame{from(fileHost, filePeer, ike, layers.IPProtocolUDP, false), from(filePeer, fileHost, natt, layers.IPProtocolUDP, false)},
			sides{1, 1, netip.Addr{}, false, 0}},
		"another": {[]Frame{out(true), in(false), from(fileRouter, fileHost, esp, layers.IPProtocolESP, false)}, sides{1, 1, fileHost, true, 1}},
		"other traffic": {[]Frame{out(true), from(fileRouter, fileHost, builtUDP(53, 53, esp), layers.IPProtocolUDP, false)},
			sides{0, 1, fileHost, true, 0}},
	} {
		var s Survey
		for _, f := range tc.frames {
			s.Packet(f)
		}
		var got sides
		for _, p := range s.Pairs() {
			if p.A.Addr != filePeer || p.B.Addr != fileHost {
				got.PairsOfOther++
				continue
			}
			got.Peer, got.Host = p.A.Sent, p.B.Sent
			got.Ours, got.Told = s.Ours(p)
		}
		if diff := cmp.Diff(tc.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if s.Frames() != uint64(len(tc.frames)) {
			t.Errorf("%s: %d frames", name, s.Frames())
		}
	}
}

// A flood of forged sources takes no memory, and does not displace the tunnel.
func TestSurveyFlood(t *testing.T) {
	var s Survey
	show := func(b []byte) { s.Packet(Frame{Data: b, Link: LinkRaw, WireLen: len(b)}) }
	in := builtIP(t, filePeer, fileHost, layers.IPProtocolESP, builtESP(7, 1, 8))
	out := builtIP(t, fileHost, filePeer, layers.IPProtocolESP, builtESP(8, 1, 8))
	forged := builtIP(t, fileRouter, fileHost, layers.IPProtocolESP, builtESP(7, 1, 8))
	for i := range uint32(100_000) {
		binary.BigEndian.PutUint32(forged[12:], 0x0a000000+i)
		show(forged)
		if i%100 == 0 {
			show(in)
			show(out)
		}
	}
	pairs := s.Pairs()
	if len(pairs) != maxPairs || pairs[0].A.Addr != filePeer || pairs[0].Packets() != 2000 {
		t.Errorf("%d pairs, the first is %+v", len(pairs), pairs[0])
	}
	if want := uint64(100_001 - maxPairs); s.Left() < want {
		t.Errorf("%d left, want %d at least", s.Left(), want)
	}
}
