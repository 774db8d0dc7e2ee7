package capture

import (
	"encoding/binary"
	"fmt"
	"testing"
)

// BenchmarkObserverESP is the path that nearly all frames take: ESP of a peer
// with many SAs, in order.
func BenchmarkObserverESP(b *testing.B) {
	const spis = 64
	for _, peers := range []int{1, 50} {
		b.Run(fmt.Sprintf("%d peers", peers), func(b *testing.B) {
			list := testPeers
			for i := range peers - 1 {
				list = append(list, Peer{Name: fmt.Sprint(i), Addrs: addrsFrom(byte(i))})
			}
			o := NewObserver(list)
			f := frameOf(eth(ip4(peer4, host4, 50, espPacket(1, 1, 1400))))
			f.Data = f.Data[:snapLen]
			const ident, header = 14 + 4, 14 + 20
			n := uint32(0)
			b.ReportAllocs()
			for b.Loop() {
				binary.BigEndian.PutUint16(f.Data[ident:], uint16(n))
				binary.BigEndian.PutUint32(f.Data[header:], 256+n%spis)
				binary.BigEndian.PutUint32(f.Data[header+4:], n/spis)
				n++
				o.Packet(f)
			}
			if lost := o.Counts("p").In.Sequence.Lost; lost != 0 {
				b.Errorf("%d lost", lost)
			}
		})
	}
}

// BenchmarkObserverOther is a frame of nobody, with subnets watched for leaks.
func BenchmarkObserverOther(b *testing.B) {
	peers := []Peer{{Name: "p", Addrs: testPeers[0].Addrs}}
	for i := range maxWatched {
		peers[0].Remote = append(peers[0].Remote, prefix(fmt.Sprintf("10.%d.0.0/16", i)))
	}
	o := NewObserver(peers)
	f := frameOf(eth(ip4(host4, other4, 6, make([]byte, 100))))
	f.Outgoing = true
	b.ReportAllocs()
	for b.Loop() {
		o.Packet(f)
	}
}
