package capture

import (
	"testing"

	"vpnprobe/evidence"
)

func TestFragments(t *testing.T) {
	type count = evidence.FragmentCount
	part4 := func(proto uint8, offset uint16, more bool, payload []byte) []byte {
		if more {
			offset |= 0x2000
		}
		return header4{src: host4, dst: peer4, proto: proto, frag: offset}.with(payload)
	}
	part6 := func(proto uint8, offset uint16, more bool, payload []byte) []byte {
		return ip6(host6, peer6, 44, frag6(proto, offset, more, payload))
	}
	rest := make([]byte, 40)
	ikeFirst := udp(500, 500, ikeMsg(0x20, 35))
	nattFirst := udp(4500, 4500, espPacket(1, 1, 72))
	nattIKE := udp(4500, 4500, marked(ikeMsg(0x20, 35)))
	for version, part := range map[string]func(uint8, uint16, bool, []byte) []byte{"4": part4, "6": part6} {
		for name, tc := range map[string]struct {
			packets [][]byte
			want    evidence.Fragments
		}{
			"esp":        {[][]byte{part(50, 0, true, rest), part(50, 5, true, rest), part(50, 10, false, rest)}, evidence.Fragments{ESP: count{First: 1, Middle: 1, Last: 1}}},
			"esp, last":  {[][]byte{part(50, 10, false, rest)}, evidence.Fragments{ESP: count{Last: 1}}},
			"ah":         {[][]byte{part(51, 0, true, rest), part(51, 5, false, rest)}, evidence.Fragments{ESP: count{First: 1, Last: 1}}},
			"ike":        {[][]byte{part(17, 0, true, ikeFirst), part(17, 5, true, rest), part(17, 10, false, rest)}, evidence.Fragments{IKE: count{First: 1, Middle: 1, Last: 1}}},
			"esp in udp": {[][]byte{part(17, 0, true, nattFirst), part(17, 10, false, rest)}, evidence.Fragments{ESPInUDP: count{First: 1, Last: 1}}},
			"by the last first": {[][]byte{part(17, 0, true, nattFirst), part(17, 10, false, rest), part(17, 0, true, nattIKE), part(17, 10, false, rest)},
				evidence.Fragments{ESPInUDP: count{First: 1, Last: 1}, IKE: count{First: 1, Last: 1}}},
			"whole in between": {[][]byte{part(17, 0, true, ikeFirst), part(17, 0, false, nattFirst), part(17, 5, false, rest)}, evidence.Fragments{IKE: count{First: 1, Last: 1}}},
			"without a first":  {[][]byte{part(17, 10, false, rest)}, evidence.Fragments{IKE: count{Last: 1}}},
			"whole":            {[][]byte{part(50, 0, false, rest), part(17, 0, false, ikeFirst)}, evidence.Fragments{}},
			"of other udp":     {[][]byte{part(17, 0, true, udp(53, 53, rest))}, evidence.Fragments{}},
		} {
			o := NewObserver(testPeers)
			for _, ip := range tc.packets {
				o.Packet(received(ip))
			}
			c := o.Counts("p")
			if c.Out.Fragments != tc.want || c.In.Fragments != (evidence.Fragments{}) {
				t.Errorf("IPv%s, %s: %+v, want %+v", version, name, c.Out.Fragments, tc.want)
			}
		}
	}
	n := count{First: 3, Middle: 2, Last: 1}
	got := fragmentsSince(evidence.Fragments{ESP: n, ESPInUDP: n, IKE: n}, evidence.Fragments{ESP: count{First: 1, Middle: 1, Last: 1}, IKE: count{First: 9}})
	want := evidence.Fragments{ESP: count{First: 2, Middle: 1}, ESPInUDP: n, IKE: count{Middle: 2, Last: 1}}
	if got != want {
		t.Errorf("window: %+v, want %+v", got, want)
	}
}
