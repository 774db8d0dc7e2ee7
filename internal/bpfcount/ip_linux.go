package bpfcount

import "github.com/cilium/ebpf/asm"

// ipv4 reads an IPv4 header (RFC 791, section 3.1): it ends at "transport" with
// size, num, off and the key's addresses set.
func (g *generator) ipv4() {
	g.header("ipv4", atIPv4, 20)
	g.add(
		asm.LoadMem(asm.R0, asm.RFP, atIPv4, asm.Byte),
		asm.Mov.Reg(asm.R1, asm.R0),
		asm.RSh.Imm(asm.R1, 4),
		asm.JNE.Imm(asm.R1, 4, "exit"),
		asm.And.Imm(asm.R0, 15),
		asm.JLT.Imm(asm.R0, 5, "exit"),
		asm.LSh.Imm(asm.R0, 2),
		asm.Mov.Reg(num, asm.R0), // length of the header
		asm.LoadMem(asm.R0, asm.RFP, atIPv4+9, asm.Byte),
		asm.JEq.Imm(asm.R0, protoESP, "ipv4_known"),
		asm.JEq.Imm(asm.R0, protoUDP, "ipv4_known"),
		asm.JEq.Imm(asm.R0, protoAH, "ipv4_known"),
	)
	if g.frames {
		g.add(asm.JEq.Imm(asm.R0, protoICMP, "ipv4_known"))
	}
	if g.frames && g.out {
		g.leaksOrExit()
		g.key4()
		g.onWire(size, asm.R1)
		g.add(asm.Ja.Label("leak"))
	} else {
		g.add(asm.Ja.Label("exit"))
	}

	g.at("ipv4_known")
	g.key4()
	g.add(asm.LoadMem(asm.R0, asm.RFP, atIPv4+2, asm.Half))
	g.state(num, "ipv4_length")
	g.add(
		asm.Add.Reg(off, num),              // the transport header
		asm.JEq.Imm(num, 20, "ipv4_plain"), // else there are options at atTop
	)
	g.load(atTop, 0, 8, "ipv4_cut")
	g.add(asm.Ja.Label("ipv4_plain"))
	g.at("ipv4_cut")
	g.add(asm.LoadMem(asm.R1, asm.RFP, atIPv4+6, asm.Half), asm.And.Imm(asm.R1, network(0x1fff)))
	g.cut(asm.JEq.Imm(asm.R1, 0, "exit"))
	g.at("ipv4_plain")
	g.add(
		asm.Mov.Reg(asm.R0, size),
		asm.Sub.Reg(asm.R0, num),
		asm.Mov.Reg(num, asm.R0), // length of the payload
		asm.LoadMem(asm.R0, asm.RFP, atIPv4+6, asm.Half),
		asm.HostTo(asm.BE, asm.R0, asm.Half),
		asm.Mov.Reg(asm.R1, asm.R0),
		asm.And.Imm(asm.R1, 0x1fff), // offset
		asm.And.Imm(asm.R0, 0x2000), // more fragments
	)
	g.part("transport")
}

// part notes what part of a packet this is, from the offset in R1 and whether
// more follow in R0, and goes on at next.
func (g *generator) part(next string) {
	prefix := next + "_part"
	g.add(
		asm.JNE.Imm(asm.R1, 0, prefix+"_later"),
		asm.StoreImm(asm.RFP, atPart, 0, asm.Word),
		asm.JEq.Imm(asm.R0, 0, next),
		asm.StoreImm(asm.RFP, atPart, 1, asm.Word),
		asm.Ja.Label(next),
	)
	g.at(prefix + "_later")
	g.add(
		asm.StoreImm(asm.RFP, atPart, 2, asm.Word),
		asm.JNE.Imm(asm.R0, 0, next),
		asm.StoreImm(asm.RFP, atPart, 3, asm.Word),
		asm.Ja.Label(next),
	)
}

// key4 and key6 set all of the flow's key but the SPI and whether it is in
// UDP. R0 is the protocol.
func (g *generator) key4() {
	g.add(
		asm.LoadMem(asm.R1, asm.RFP, atIPv4+12, asm.Word),
		asm.LoadMem(asm.R2, asm.RFP, atIPv4+16, asm.Word),
		asm.StoreMem(asm.RFP, atKey+keySrc, asm.R1, asm.DWord),
		store64(asm.RFP, atKey+keySrc+8, 0),
		asm.StoreMem(asm.RFP, atKey+keyDst, asm.R2, asm.DWord),
		store64(asm.RFP, atKey+keyDst+8, 0),
	)
	g.keyRest(4)
}

func (g *generator) key6() {
	for at := int16(0); at < 32; at += 8 {
		g.add(
			asm.LoadMem(asm.R1, asm.RFP, atIPv6+8+at, asm.DWord),
			asm.StoreMem(asm.RFP, atKey+keySrc+at, asm.R1, asm.DWord),
		)
	}
	g.keyRest(6)
}

func (g *generator) keyRest(family byte) {
	g.add(
		asm.LoadMem(asm.R1, ctx, g.ifindex(), asm.Word),
		asm.StoreMem(asm.RFP, atKey+keyIfindex, asm.R1, asm.Word),
		asm.StoreImm(asm.RFP, atKey+keyProto, g.keyProto(0, 0, family), asm.Word),
		asm.StoreMem(asm.RFP, atKey+keyProto, asm.R0, asm.Byte),
	)
}

// extensions is how many IPv6 extension headers are followed. RFC 8200, section
// 4.1 allows each once, destination options twice.
const extensions = 5

// ipv6 reads the headers of RFC 8200, sections 3 and 4, and ends as ipv4 does.
func (g *generator) ipv6() {
	g.header("ipv6", atIPv6, 40)
	g.add(
		asm.LoadMem(asm.R0, asm.RFP, atIPv6, asm.Byte),
		asm.RSh.Imm(asm.R0, 4),
		asm.JNE.Imm(asm.R0, 6, "exit"),
		asm.LoadMem(asm.R0, asm.RFP, atIPv6+6, asm.Byte),
	)
	for _, next := range []int32{protoESP, protoUDP, protoAH, 0, 43, 44, 60} {
		g.add(asm.JEq.Imm(asm.R0, next, "ipv6_known"))
	}
	if g.frames {
		g.add(asm.JEq.Imm(asm.R0, protoICMPv6, "ipv6_known"))
	}
	if g.frames && g.out {
		g.leaksOrExit()
		g.key6()
		g.onWire(size, asm.R1)
		g.add(asm.Ja.Label("leak"))
	} else {
		g.add(asm.Ja.Label("exit"))
	}

	g.at("ipv6_known")
	g.key6()
	g.add(
		asm.LoadMem(asm.R0, asm.RFP, atIPv6+4, asm.Half),
		asm.HostTo(asm.BE, asm.R0, asm.Half),
		asm.Add.Imm(asm.R0, 40),
		asm.Mov.Reg(size, asm.R0),
	)
	if !g.xdp {
		g.onWire(asm.R1, asm.R2)
		g.add(
			asm.JEq.Imm(size, 40, "ipv6_length"),
			asm.JLE.Reg(size, asm.R1, "ipv6_length_ok"),
		)
		g.at("ipv6_length")
		g.add(asm.Mov.Reg(size, asm.R1))
		g.at("ipv6_length_ok")
	} else {
		g.add(asm.JEq.Imm(size, 40, "exit"))
	}
	g.add(
		asm.Mov.Reg(num, size),
		asm.Sub.Imm(num, 40),
		asm.Add.Imm(off, 40),
		asm.StoreImm(asm.RFP, atPart, 0, asm.Word),
		asm.LoadMem(asm.R0, asm.RFP, atIPv6+6, asm.Byte),
	)
	for i := range extensions {
		g.extension(i)
	}
	g.add(asm.StoreMem(asm.RFP, atKey+keyProto, asm.R0, asm.Byte)) // falls to "transport"
}

// extension skips the extension header at off, of the type in R0, and sets R0
// to the next header's. Anything else goes to "transport". The first 8 bytes of
// the header are at atTop.
func (g *generator) extension(i int) {
	name := func(s string) string { return "ipv6_" + s + string(rune('0'+i)) }
	g.add(
		asm.JEq.Imm(asm.R0, 44, name("fragment")),
		asm.JEq.Imm(asm.R0, 0, name("skip")),
		asm.JEq.Imm(asm.R0, 43, name("skip")),
		asm.JEq.Imm(asm.R0, 60, name("skip")),
		asm.StoreMem(asm.RFP, atKey+keyProto, asm.R0, asm.Byte),
		asm.Ja.Label("transport"),
	)

	g.at(name("fragment"))
	g.add(
		asm.LoadMem(asm.R1, asm.RFP, atPart, asm.Word),
		asm.JNE.Imm(asm.R1, 0, "exit"), // only one
		asm.LoadMem(asm.R0, asm.RFP, atTop+2, asm.Half),
		asm.HostTo(asm.BE, asm.R0, asm.Half),
		asm.Mov.Reg(asm.R1, asm.R0),
		asm.RSh.Imm(asm.R1, 3),
		asm.And.Imm(asm.R0, 1),
	)
	g.part(name("whole"))
	g.at(name("whole"))
	g.add(asm.Mov.Imm(asm.R1, 8), asm.Ja.Label(name("next")))

	g.at(name("skip"))
	g.add(
		asm.LoadMem(asm.R1, asm.RFP, atPart, asm.Word),
		asm.JGT.Imm(asm.R1, 1, "exit"), // no header is behind the first fragment
		asm.LoadMem(asm.R1, asm.RFP, atTop+1, asm.Byte),
		asm.LSh.Imm(asm.R1, 3),
		asm.Add.Imm(asm.R1, 8),
	)

	g.at(name("next"))
	g.add(
		asm.Add.Reg(off, asm.R1),
		asm.Sub.Reg(num, asm.R1),
		asm.LoadMem(asm.R0, asm.RFP, atTop, asm.Byte),
		asm.StoreMem(asm.RFP, atKey+keyProto, asm.R0, asm.Byte),
	)
	g.load(atTop, 0, 8, name("cut"))
	g.add(asm.Ja.Label(name("end")))
	g.at(name("cut"))
	g.add(asm.LoadMem(asm.R1, asm.RFP, atPart, asm.Word))
	g.cut(asm.JLT.Imm(asm.R1, 2, "exit"))
	g.at(name("end"))
	g.add(asm.LoadMem(asm.R0, asm.RFP, atKey+keyProto, asm.Byte))
}
