package bpfcount

import "github.com/cilium/ebpf/asm"

// peek lets most packets pass at the least cost: TCP, and UDP of other ports,
// right behind an Ethernet header. It looks at the packet where it is, if it
// lies there in one piece, and sends to "ipv4" and "ipv6" what it is not sure
// of.
//
// Of others it copies the header itself if stores to the stack are cheap:
// calling a helper for that takes some 30 ns.
func (g *generator) peek() {
	data, end := int16(skbData), int16(skbDataEnd)
	if g.xdp {
		data, end = xdpData, xdpDataEnd
	}
	boring := "exit"
	if g.frames && g.out {
		boring = "boring"
	}
	for _, h := range []struct {
		label, full  string
		at           int16 // on the stack
		length, next int16 // of the header, and where it tells what follows
		kinds        []int32
	}{
		{"peek4", "ipv4", atIPv4, 20, 9, []int32{protoESP, protoAH, protoICMP}},
		{"peek6", "ipv6", atIPv6, 40, 6, []int32{protoESP, protoAH, protoICMPv6, 0, 43, 44, 60}},
	} {
		g.at(h.label)
		g.add(
			asm.LoadMem(asm.R1, ctx, data, asm.Word),
			asm.LoadMem(asm.R2, ctx, end, asm.Word),
			asm.Mov.Reg(asm.R3, asm.R1),
			asm.Add.Imm(asm.R3, etherHeader+int32(h.length)+8),
			asm.JGT.Reg(asm.R3, asm.R2, h.full),
			asm.LoadMem(asm.R0, asm.R1, etherHeader+h.next, asm.Byte),
		)
		known := h.full
		if g.direct {
			known = h.label + "_copy"
		}
		for _, kind := range h.kinds {
			g.add(asm.JEq.Imm(asm.R0, kind, known))
		}
		g.add(asm.JNE.Imm(asm.R0, protoUDP, boring))
		if h.length == 20 {
			g.add(
				asm.LoadMem(asm.R0, asm.R1, etherHeader, asm.Byte),
				asm.JNE.Imm(asm.R0, 0x45, h.full), // options
				asm.LoadMem(asm.R0, asm.R1, etherHeader+6, asm.Half),
				asm.And.Imm(asm.R0, network(0x1fff)),
				asm.JNE.Imm(asm.R0, 0, h.full), // a fragment without ports
			)
		}
		for _, port := range []int16{0, 2} {
			g.add(
				asm.LoadMem(asm.R0, asm.R1, etherHeader+h.length+port, asm.Half),
				asm.JEq.Imm(asm.R0, network(portNATT), known),
				asm.JEq.Imm(asm.R0, network(portIKE), known),
			)
		}
		g.add(asm.Ja.Label(boring))
		if g.direct {
			g.at(known)
			for at := int16(0); at < h.length+8; at += 4 {
				g.add(
					asm.LoadMem(asm.R2, asm.R1, etherHeader+at, asm.Word),
					asm.StoreMem(asm.RFP, h.at+at, asm.R2, asm.Word),
				)
			}
			g.add(asm.Ja.Label(h.full + "_loaded"))
		}
	}
	if boring != "exit" {
		g.at("boring") // but it may be a leak
		g.leaksOrExit()
		g.add(
			asm.LoadMem(asm.R0, ctx, skbProtocol, asm.Word),
			asm.JEq.Imm(asm.R0, network(0x86dd), "ipv6"),
		)
	} // falls to "ipv4"
}
