package capture

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnprobe/evidence"
)

// tooBig is an ICMP error with an MTU.
func tooBig(mtu uint16, quote []byte) []byte {
	b := icmp(3, 4, quote)
	binary.BigEndian.PutUint16(b[6:], mtu)
	return b
}

func tooBig6(mtu uint32, quote []byte) []byte {
	b := icmp(2, 0, quote)
	binary.BigEndian.PutUint32(b[4:], mtu)
	return b
}

func TestWireICMP(t *testing.T) {
	type m = evidence.WireICMP
	mtu := evidence.Some[int]
	none := evidence.Opt[int]{}
	quoteESP := ip4(host4, peer4, 50, espPacket(1, 1, 0))
	for name, tc := range map[string]struct {
		ip   []byte
		want m
	}{
		"too big": {ip4(router4, host4, 1, tooBig(1400, quoteESP)),
			m{Sender: router4, Reason: evidence.FragNeeded, MTU: mtu(1400), About: "esp", Ours: true}},
		"too big, of an old router": {ip4(router4, host4, 1, tooBig(0, quoteESP)),
			m{Sender: router4, Reason: evidence.FragNeeded, MTU: none, About: "esp", Ours: true}},
		"too big, ipv6": {ip6(router6, host6, 58, tooBig6(1280, ip6(host6, peer6, 17, udp(4500, 4500, nil)))),
			m{Sender: router6, Reason: evidence.FragNeeded, MTU: mtu(1280), About: "udp4500", Ours: true}},
		"too big, ipv6, absurd": {ip6(router6, host6, 58, tooBig6(1<<32-1, ip6(host6, peer6, 50, espPacket(1, 1, 0)))),
			m{Sender: router6, Reason: evidence.FragNeeded, MTU: mtu(1<<31 - 1), About: "esp", Ours: true}},
		"an mtu that is none": {ip4(peer4, host4, 1, func() []byte { b := tooBig(1400, quoteESP); b[1] = 3; return b }()),
			m{Sender: peer4, Reason: evidence.PortUnreachable, MTU: none, About: "esp", Ours: true}},
		"ike": {ip4(peer4, host4, 1, icmp(3, 3, ip4(host4, peer4, 17, udp(40000, 500, nil)))),
			m{Sender: peer4, Reason: evidence.PortUnreachable, About: "udp500", Ours: true}},
		"ah": {ip4(peer4, host4, 1, icmp(3, 2, ip4(host4, peer4, 51, ahPacket(1, 1)[:20]))),
			m{Sender: peer4, Reason: evidence.ProtUnreachable, About: "ah", Ours: true}},
		"ping": {ip4(router4, host4, 1, icmp(11, 0, ip4(host4, peer4, 1, make([]byte, 8)))),
			m{Sender: router4, Reason: evidence.TTLExceeded, About: "icmp", Ours: true}},
		"tcp": {ip4(router4, host4, 1, icmp(3, 13, ip4(host4, peer4, 6, make([]byte, 8)))),
			m{Sender: router4, Reason: evidence.AdminProhibited, About: "other", Ours: true}},
		"other udp": {ip4(router4, host4, 1, icmp(3, 13, ip4(host4, peer4, 17, udp(53, 53, nil)))),
			m{Sender: router4, Reason: evidence.AdminProhibited, About: "other", Ours: true}},
		"fragment of udp": {ip4(router4, host4, 1, icmp(11, 1, header4{src: host4, dst: peer4, proto: 17, frag: 100}.with(udp(500, 500, nil)))),
			m{Sender: router4, Reason: evidence.OtherICMP, About: "other", Ours: true}},
		"about the peer's": {ip4(host4, peer4, 1, icmp(3, 3, ip4(peer4, host4, 17, udp(4500, 4500, nil)))),
			m{Sender: host4, Reason: evidence.PortUnreachable, About: "udp4500"}},
	} {
		t.Run(name, func(t *testing.T) {
			o := NewObserver(testPeers)
			f := received(tc.ip)
			o.Packet(f)
			tc.want.Count, tc.want.Last = 1, epoch
			got := o.Counts("p").Since(Counts{}, evidence.No).ICMP
			if diff := cmp.Diff([]m{tc.want}, got, unexported); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if run(t, o, f) == 0 {
				t.Error("the filter holds it back")
			}
		})
	}
}

// Quotes that are not what they seem count as nothing, or as what can be
// read.
func TestHostileQuotes(t *testing.T) {
	good := ip4(host4, peer4, 17, udp(500, 500, nil))
	for name, quote := range map[string][]byte{
		"of a neighbour":  ip4(host4, other4, 17, udp(500, 500, nil)),
		"cut short":       good[:19],
		"header too long": append([]byte{0x4f}, good[1:]...),
		"header of zero":  append([]byte{0x40}, good[1:]...),
		"version 6":       append([]byte{0x65}, good[1:]...),
		"empty":           {},
		"one byte":        {0x45},
	} {
		o := NewObserver(testPeers)
		o.Packet(received(ip4(router4, host4, 1, icmp(3, 3, quote))))
		if got := look(o); !got.zero() {
			t.Errorf("%s: counted %+v", name, got)
		}
	}
	for name, quote := range map[string][]byte{"no ports": good[:20], "half a port": good[:21], "length of zero": append([]byte{0x45, 0, 0, 0}, good[4:]...)} {
		o := NewObserver(testPeers)
		o.Packet(received(ip4(router4, host4, 1, icmp(3, 3, quote))))
		if n := len(o.Counts("p").ICMP); n != 1 {
			t.Errorf("%s: %d kinds of errors", name, n)
		}
	}
}

// Forged errors push out others, and nothing counts below zero or twice then.
func TestICMPLog(t *testing.T) {
	o := NewObserver(testPeers)
	at := epoch
	show := func(sender netip.Addr, mtu uint16) {
		at = at.Add(time.Millisecond)
		f := received(ip4(sender, host4, 1, tooBig(mtu, ip4(host4, peer4, 50, espPacket(1, uint32(mtu), 0)))))
		f.Time = at
		o.Packet(f)
	}
	for range 5 {
		show(router4, 1400)
	}
	earlier := o.Counts("p")
	show(router4, 1400)
	if got := o.Counts("p").Since(earlier, evidence.No).ICMP; len(got) != 1 || got[0].Count != 1 || got[0].MTU.Or(0) != 1400 {
		t.Errorf("window: %+v", got)
	}
	for mtu := range uint16(1000) {
		show(other4, mtu)
	}
	show(router4, 1400)
	c := o.Counts("p")
	got := c.Since(earlier, evidence.No)
	if len(got.ICMP) != evidence.MaxWireICMP || got.ICMP[0].Sender != router4 || got.ICMP[0].Count != 1 || got.ICMP[1].MTU.Or(0) != 999 {
		t.Errorf("after a flood: %+v", got.ICMP)
	}
	if n := got.ICMPErrors[evidence.FragNeeded]; n != 1002 {
		t.Errorf("%d errors in the window, want 1002", n)
	}
}
