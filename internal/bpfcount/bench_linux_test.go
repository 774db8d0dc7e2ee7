package bpfcount

import (
	"testing"
)

// BenchmarkProgram measures what the programs cost per packet, without the
// network around them.
func BenchmarkProgram(b *testing.B) {
	esp4 := ether(ipPacket{src: peer4, dst: host4, proto: 50, payload: espData(1, 1, 1372)}.bytes())
	esp6 := ether(ipPacket{src: peer6, dst: host6, proto: 50, payload: espData(1, 1, 1372)}.bytes())
	natt := ether(ipPacket{src: peer4, dst: host4, proto: 17, payload: udpData(4500, 4500, espData(1, 1, 1364))}.bytes())
	foreign := ether(ipPacket{src: other4, dst: host4, proto: 50, payload: espData(1, 1, 1372)}.bytes())
	tcp := ether(ipPacket{src: host4, dst: other4, proto: 6, payload: make([]byte, 1400)}.bytes())
	quic := ether(ipPacket{src: host4, dst: other4, proto: 17, payload: udpData(443, 50000, make([]byte, 1300))}.bytes())
	noLeaks := bothPeers
	noLeaks.Leaks = nil
	for _, bb := range []struct {
		name  string
		cfg   Config
		v     variant
		frame []byte
	}{
		{"tc/nothing", bothPeers, tcIn, make([]byte, 60)},
		{"tc/esp", bothPeers, tcIn, esp4},
		{"tc/esp6", bothPeers, tcIn, esp6},
		{"tc/esp in udp", bothPeers, tcIn, natt},
		{"tc/esp of others", bothPeers, tcIn, foreign},
		{"tc/tcp in", bothPeers, tcIn, tcp},
		{"tc/tcp out", noLeaks, tcOut, tcp},
		{"tc/tcp out, with leaks to look for", bothPeers, tcOut, tcp},
		{"tc/udp in", bothPeers, tcIn, quic},
		{"xdp/esp", bothPeers, xdpIn, esp4},
		{"xdp/esp in udp", bothPeers, xdpIn, natt},
		{"xdp/tcp", bothPeers, xdpIn, tcp},
	} {
		b.Run(bb.name, func(b *testing.B) {
			c := openTest(b, bb.cfg)
			p := c.get(b, bb.v)
			feed(b, p, bb.frame, bb.frame) // a flow is known from its second packet on
			b.ResetTimer()
			_, took, err := p.Benchmark(bb.frame, max(b.N, 1), nil)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(took.Nanoseconds()), "ns/packet")
		})
	}
}
