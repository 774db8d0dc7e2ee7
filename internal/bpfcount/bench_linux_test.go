package bpfcount

import (
	"bytes"
	"math"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// BenchmarkProgram measures what the programs cost per packet, without the
// network around them: the least of many runs, which other processes disturb
// least. What is the same for all of them, and not the programs' own, is the
// figure for nothing.
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
			p := counting(b, c, bb.v, bytes.Index(bb.frame, espData(1, 1, 0))+4)
			const repeat = 1000
			least := time.Duration(math.MaxInt64)
			for b.Loop() {
				_, took, err := p.Benchmark(bb.frame, repeat, nil)
				if err != nil {
					b.Fatal(err)
				}
				least = min(least, took) // the first run also makes the flow known
			}
			b.ReportMetric(float64(least.Nanoseconds()), "ns/packet")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// counting returns a program that counts the packets of a flow in order, in
// which each has a number of its own: before anything else, it counts up the
// one at an offset of the frame.
func counting(b *testing.B, c *Counter, v variant, at int) *ebpf.Program {
	b.Helper()
	v.loads, v.direct = c.loads, c.direct
	spec := v.program(c.maps)
	data, end := int16(skbData), int16(skbDataEnd)
	if v.xdp {
		data, end = xdpData, xdpDataEnd
	}
	first := spec.Instructions[0]
	spec.Instructions[0] = first.WithSymbol("begin")
	spec.Instructions = append(asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, data, asm.Word),
		asm.LoadMem(asm.R3, asm.R1, end, asm.Word),
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, int32(at)+4),
		asm.JGT.Reg(asm.R4, asm.R3, "begin"),
		asm.LoadMem(asm.R4, asm.R2, int16(at), asm.Word),
		asm.HostTo(asm.BE, asm.R4, asm.Word),
		asm.Add.Imm(asm.R4, 1),
		asm.HostTo(asm.BE, asm.R4, asm.Word),
		asm.StoreMem(asm.R2, int16(at), asm.R4, asm.Word),
	}, spec.Instructions...)
	p, err := ebpf.NewProgram(spec)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { p.Close() })
	return p
}
