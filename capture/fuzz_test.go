package capture

import (
	"encoding/binary"
	"testing"
	"time"

	"vpnprobe/evidence"
)

// FuzzPacket shows one frame after another to an observer. What counts must
// pass the kernel's filter, and nothing may be counted that was not there.
func FuzzPacket(f *testing.F) {
	add := func(ips ...[]byte) {
		for _, link := range []LinkType{LinkEthernet, LinkRaw, LinkSLL2} {
			var data []byte
			for i, ip := range ips {
				frame := ip
				switch link {
				case LinkEthernet:
					frame = eth(ip, []uint16{etherQinQ, etherVLAN}[:i%3]...)
				case LinkSLL2:
					frame = cooked2(ip, sllOutgoing)
				}
				data = binary.BigEndian.AppendUint16(data, uint16(len(frame)))
				data = append(data, frame...)
			}
			f.Add(data, uint32(link), true)
			f.Add(data, uint32(link), false)
		}
	}
	for _, tc := range packetCases {
		add(tc.ip)
	}
	for _, tc := range leakCases {
		add(ip4(host4, peer4, 50, espPacket(1, 1, 72)), ip6(host6, peer6, 50, espPacket(1, 1, 72)), tc.ip)
	}
	add(espIn(1, 1), espIn(1, 2), espIn(1, 9), espIn(1, 5))
	add(ip4(host4, peer4, 17, udp(500, 500, request(300, 1))), ip4(host4, peer4, 17, udp(4500, 4500, marked(request(300, 1)))))
	add(ip4(router4, host4, 1, tooBig(1400, ip4(host4, peer4, 17, udp(4500, 4500, nil)))))
	add(ip6(router6, host6, 58, tooBig6(1280, ip6(host6, peer6, 44, frag6(50, 0, true, espPacket(1, 1, 0))))))

	f.Fuzz(func(t *testing.T, data []byte, link uint32, outgoing bool) {
		o := NewObserver(leakPeers)
		var bytes uint64
		at := epoch
		for len(data) >= 2 && at.Sub(epoch) < 64*time.Second {
			n := min(int(binary.BigEndian.Uint16(data)), len(data)-2)
			frame := data[2 : 2+n]
			data = data[2+n:]
			bytes += uint64(n)
			before := total(o.Counts("p"), outgoing)
			fr := Frame{Data: frame, Link: LinkType(link), Outgoing: outgoing, WireLen: n, Time: at}
			o.Packet(fr)
			at = at.Add(time.Second)
			if total(o.Counts("p"), outgoing) != before && (fr.Link == LinkEthernet || fr.Link == LinkRaw) && run(t, o, fr) == 0 {
				t.Errorf("the filter holds back what counts: %x", frame)
			}
		}
		c := o.Counts("p")
		if n := c.In.ESP.Bytes + c.Out.ESP.Bytes; n > 2*bytes {
			t.Errorf("%d bytes of ESP in frames of %d", n, bytes)
		}
		e := c.Since(Counts{}, evidence.No)
		if len(e.Flows) > evidence.MaxFlows || len(e.ICMP) > evidence.MaxWireICMP {
			t.Errorf("%d flows, %d kinds of ICMP errors", len(e.Flows), len(e.ICMP))
		}
	})
}

// total is a sum of all that a frame can add to. Of leaks it has those that the
// kernel's filter knows by their direction.
func total(c Counts, outgoing bool) uint64 {
	var n uint64
	for _, w := range []evidence.WireTraffic{c.In, c.Out} {
		n += w.ESP.Bytes + w.ESPInUDP.Bytes + w.AH.Bytes + w.NATKeepalives + w.Fragments.Total()
		for _, k := range w.IKE {
			n += k
		}
	}
	for _, l := range c.Leaks {
		if outgoing {
			n += l.Packets
		}
	}
	for _, m := range []map[evidence.ICMPReason]uint64{c.ICMPErrors, away(c)} {
		for _, k := range m {
			n += k
		}
	}
	return n
}
