package bpfcount

import (
	"encoding/binary"

	"github.com/cilium/ebpf/asm"
)

// known4 begins a program. It counts what a busy gateway has most of at the
// least cost: whole packets of IPv4 without options, of ESP or ESP in UDP, right
// behind an Ethernet header, of a flow in the table. It looks at the packet
// where it is, if it lies there in one piece. All others go on at "link", as if
// nothing had been done.
//
// What costs time here is calls, for returns are slow on processors that need
// protection from speculation, and code that is not in the processor's cache:
// there is one call, and the way of a packet with the next number is a straight
// one.
func (g *generator) known4() {
	data, end := int16(skbData), int16(skbDataEnd)
	if g.xdp {
		data, end = xdpData, xdpDataEnd
	}
	g.add(
		asm.LoadMem(asm.R1, ctx, data, asm.Word),
		asm.LoadMem(asm.R2, ctx, end, asm.Word),
		asm.Mov.Reg(asm.R3, asm.R1),
		asm.Add.Imm(asm.R3, etherHeader+20+8),
		asm.JGT.Reg(asm.R3, asm.R2, "link"),
	)
	if g.xdp {
		g.add(asm.LoadMem(asm.R0, asm.R1, etherHeader-2, asm.Half))
	} else {
		g.add(asm.LoadMem(asm.R0, ctx, skbProtocol, asm.Word))
	}
	g.add(
		asm.JNE.Imm(asm.R0, network(0x0800), "link"),
		asm.LoadMem(asm.R0, asm.R1, etherHeader, asm.Byte),
		asm.JNE.Imm(asm.R0, 0x45, "link"),
		asm.LoadMem(asm.R0, asm.R1, etherHeader+6, asm.Half),
		asm.And.Imm(asm.R0, network(0x3fff)),
		asm.JNE.Imm(asm.R0, 0, "link"),
		asm.LoadMem(size, asm.R1, etherHeader+2, asm.Half),
		asm.HostTo(asm.BE, size, asm.Half),
		asm.LoadMem(asm.R0, asm.R1, etherHeader+9, asm.Byte),
		asm.JEq.Imm(asm.R0, protoUDP, "known4_udp"),
		asm.JNE.Imm(asm.R0, protoESP, "link"),
	)
	g.known4By(0)

	g.at("known4_key") // R3 is the SPI
	if !g.xdp {
		g.add(
			asm.LoadMem(asm.R0, ctx, skbLen, asm.Word),
			asm.Sub.Imm(asm.R0, etherHeader),
			asm.JGT.Reg(size, asm.R0, "link"),
			asm.LoadMem(asm.R0, ctx, skbGSOSegs, asm.Word),
			asm.JGT.Imm(asm.R0, 1, "link"),
		)
	}
	g.add(
		asm.LoadMem(asm.R0, ctx, g.ifindex(), asm.Word),
		asm.LSh.Imm(asm.R0, 32),
		asm.Or.Reg(asm.R0, asm.R3),
		asm.StoreMem(asm.RFP, atKey4+key4SPI, asm.R0, asm.DWord),
		asm.LoadMem(asm.R0, asm.R1, etherHeader+12, asm.Word),
		asm.LoadMem(asm.R2, asm.R1, etherHeader+16, asm.Word),
		asm.LSh.Imm(asm.R2, 32),
		asm.Or.Reg(asm.R0, asm.R2),
		asm.StoreMem(asm.RFP, atKey4+key4Addrs, asm.R0, asm.DWord),
	)
	g.lookUp(g.maps.flows4, atKey4)
	g.add(
		asm.JEq.Imm(asm.R0, 0, "link"),

		// As flow does, which takes what is not the next number.
		asm.Mov.Reg(off, asm.R0),
		asm.LoadMem(asm.R1, off, cellPackets, asm.DWord),
		asm.JEq.Imm(asm.R1, 0, "known4_other"),
		asm.LoadMem(asm.R2, off, cellMax, asm.Word),
		asm.Add.Imm32(asm.R2, 1),
		asm.JNE.Reg(asm.R2, num, "known4_other"),
		asm.LoadMem(asm.R2, off, cellLongest, asm.Word),
		asm.JLT.Reg(asm.R2, size, "known4_other"),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(off, cellPackets, asm.R1, asm.DWord),
		asm.StoreMem(off, cellMax, num, asm.Word),
		asm.StoreImm(off, cellStray, 0, asm.Word),
		asm.FnJiffies64.Call(),
		asm.StoreMem(off, cellLast, asm.R0, asm.DWord),
	)
	g.increment(off, cellBytes, plus(size))
	g.add(
		asm.LoadMem(asm.R1, off, cellWindow, asm.DWord),
		asm.LSh.Imm(asm.R1, 1),
		asm.Or.Imm(asm.R1, 1),
		asm.StoreMem(off, cellWindow, asm.R1, asm.DWord),
	)
	g.leave()

	g.at("known4_other")
	g.add(asm.StoreImm(asm.RFP, atPart, 0, asm.Word))
	if !g.xdp {
		g.add(asm.StoreImm(asm.RFP, atMore, 0, asm.Word))
	}
	g.add(asm.Mov.Reg(asm.R0, off), asm.Ja.Label("cell"))

	g.at("known4_udp")
	g.add(
		asm.LoadMem(asm.R0, asm.R1, etherHeader+20, asm.Half),
		asm.LoadMem(asm.R3, asm.R1, etherHeader+20+2, asm.Half),
		asm.JEq.Imm(asm.R3, network(portNATT), "known4_natt"),
		asm.JNE.Imm(asm.R0, network(portNATT), "link"),
		asm.JEq.Imm(asm.R3, network(portIKE), "link"),
	)
	g.at("known4_natt")
	g.add(
		asm.Mov.Reg(asm.R3, asm.R1),
		asm.Add.Imm(asm.R3, etherHeader+20+8+8),
		asm.JGT.Reg(asm.R3, asm.R2, "link"),
	)
	g.known4By(1)
	g.add(asm.Ja.Label("known4_key"))
}

// known4By reads what depends on whether ESP is in UDP: R3 becomes the SPI, num
// the number. size is the length of the packet.
func (g *generator) known4By(encap byte) {
	at := int32(20 + 8*int32(encap))
	g.add(
		asm.JLT.Imm(size, at+8, "link"),
		asm.LoadMem(asm.R3, asm.R1, etherHeader+int16(at), asm.Word),
		asm.JEq.Imm(asm.R3, 0, "link"),
		asm.LoadMem(num, asm.R1, etherHeader+int16(at)+4, asm.Word),
		asm.HostTo(asm.BE, num, asm.Word),
		store64(asm.RFP, atKey4+key4Proto, g.keyProto(protoESP, encap, 4)),
	)
}

// keyProto returns the number that stands in keys for a protocol and what
// follows it.
func (g *generator) keyProto(proto, encap, family byte) int64 {
	out := byte(0)
	if g.out {
		out = 1
	}
	return int64(binary.NativeEndian.Uint32([]byte{proto, encap, out, family}))
}

// ifindex is where the program is told the interface.
func (g *generator) ifindex() int16 {
	if g.xdp {
		return xdpIfindex
	}
	return skbIfindex
}

// shortKey makes the key of the flows of IPv4 from the longer one, which is
// complete. For IPv6, it makes nothing of use.
func (g *generator) shortKey() {
	for _, half := range []struct{ at, lower, upper int16 }{{key4Addrs, keySrc, keyDst}, {key4SPI, keySPI, keyIfindex}} {
		g.add(
			asm.LoadMem(asm.R1, asm.RFP, atKey+half.lower, asm.Word),
			asm.LoadMem(asm.R2, asm.RFP, atKey+half.upper, asm.Word),
			asm.LSh.Imm(asm.R2, 32),
			asm.Or.Reg(asm.R1, asm.R2),
			asm.StoreMem(asm.RFP, atKey4+half.at, asm.R1, asm.DWord),
		)
	}
	g.add(
		asm.LoadMem(asm.R1, asm.RFP, atKey+keyProto, asm.Word),
		asm.StoreMem(asm.RFP, atKey4+key4Proto, asm.R1, asm.DWord),
	)
}

// cellOf makes R0 the cell of the key's flow, or 0. The labels begin with a
// prefix.
func (g *generator) cellOf(prefix string) {
	g.add(
		asm.LoadMem(asm.R1, asm.RFP, atKey+keyFamily, asm.Byte),
		asm.JEq.Imm(asm.R1, 4, prefix+"_in4"),
	)
	g.lookUp(g.maps.flows6, atKey)
	g.add(asm.Ja.Label(prefix + "_looked"))
	g.at(prefix + "_in4")
	g.lookUp(g.maps.flows4, atKey4)
	g.at(prefix + "_looked")
}
