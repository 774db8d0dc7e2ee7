package bpfcount

import "github.com/cilium/ebpf/asm"

// transport tells by the protocol where a packet goes on: "count" for ESP and
// AH, with the key complete and the sequence number in num; "pick" for what is
// shown if it is a peer's; "icmp4" and "icmp6" for what may be about a peer.
func (g *generator) transport() {
	g.at("transport")
	g.add(
		asm.LoadMem(asm.R0, asm.RFP, atKey+keyProto, asm.Byte),
		asm.LoadMem(asm.R1, asm.RFP, atPart, asm.Word),
		asm.JGT.Imm(asm.R1, 1, "later"),
	)
	if g.count {
		g.add(asm.JEq.Imm(asm.R0, protoESP, "esp"), asm.JEq.Imm(asm.R0, protoAH, "ah"))
	}
	g.add(asm.JEq.Imm(asm.R0, protoUDP, "udp"))
	if g.frames {
		g.add(asm.JEq.Imm(asm.R0, protoICMP, "icmp4"), asm.JEq.Imm(asm.R0, protoICMPv6, "icmp6"))
	}
	g.add(asm.Ja.Label(g.done()))

	// A fragment without the beginning counts under SPI 0.
	g.at("later")
	if g.count {
		g.add(
			asm.Mov.Imm(num, 0),
			asm.StoreMem(asm.RFP, atKey+keySPI, num, asm.Word),
			asm.JEq.Imm(asm.R0, protoESP, "count"),
			asm.JEq.Imm(asm.R0, protoAH, "count"),
			asm.JEq.Imm(asm.R0, protoUDP, "count"),
		)
	}
	g.add(asm.Ja.Label(g.done()))

	g.udp()
	if !g.count {
		return
	}

	g.at("ah") // RFC 4302, section 2: the SPI is at 4, the number at 8
	g.add(
		asm.JSLT.Imm(num, 12, "exit"),
		asm.LoadMem(asm.R1, asm.RFP, atTop+1, asm.Byte),
		asm.JEq.Imm(asm.R1, 0, "exit"), // says that it ends before the number
	)
	g.load(atTop, 4, 8, "exit")
	g.at("esp") // RFC 4303, section 2: the SPI is at 0, the number at 4
	g.add(asm.JSLT.Imm(num, 8, "exit"))
	g.number("exit")
	// falls to "count"
}

// number reads the SPI and the sequence number at atTop. An SPI of 0 goes to
// none.
func (g *generator) number(none string) {
	g.add(
		asm.LoadMem(asm.R1, asm.RFP, atTop, asm.Word),
		asm.JEq.Imm(asm.R1, 0, none),
		asm.StoreMem(asm.RFP, atKey+keySPI, asm.R1, asm.Word),
		asm.LoadMem(num, asm.RFP, atTop+4, asm.Word),
		asm.HostTo(asm.BE, num, asm.Word),
	)
}

// udp tells IKE from ESP in UDP (RFC 3948, section 2).
func (g *generator) udp() {
	pick := "exit"
	if g.frames {
		pick = "pick"
	}
	g.at("udp")
	g.add(
		asm.JSLT.Imm(num, 8, g.done()),
		asm.LoadMem(asm.R2, asm.RFP, atTop, asm.Half),   // source port
		asm.LoadMem(asm.R3, asm.RFP, atTop+2, asm.Half), // destination port
		asm.JEq.Imm(asm.R3, network(portNATT), "natt"),
		asm.JEq.Imm(asm.R3, network(portIKE), pick),
		asm.JEq.Imm(asm.R2, network(portIKE), pick),
		asm.JNE.Imm(asm.R2, network(portNATT), g.done()),
	)
	g.at("natt")
	g.add(asm.JSLT.Imm(num, 16, pick)) // maybe a keepalive
	g.load(atTop, 8, 8, "exit")
	if !g.count {
		g.add(
			asm.LoadMem(asm.R1, asm.RFP, atTop, asm.Word),
			asm.JEq.Imm(asm.R1, 0, pick),
			asm.Ja.Label("exit"),
		)
		return
	}
	g.add(
		asm.StoreImm(asm.RFP, atKey+keyProto, protoESP, asm.Byte),
		asm.StoreImm(asm.RFP, atKey+keyEncap, 1, asm.Byte),
	)
	g.number(pick)
	g.add(asm.Ja.Label("count"))
}

// peers looks the key's addresses up among the peers, and goes on at found or
// at none.
func (g *generator) peers(found, none string) {
	first, second := int16(atKey+keySrc), int16(atKey+keyDst)
	if g.out {
		first, second = second, first
	}
	g.peerFamily()
	for _, at := range []int16{first, second} {
		g.peer(at, found)
	}
	g.add(asm.Ja.Label(none))
}

// peerFamily sets the family for peer from the key's.
func (g *generator) peerFamily() {
	g.add(
		asm.LoadMem(asm.R1, asm.RFP, atKey+keyFamily, asm.Byte),
		asm.StoreMem(asm.RFP, atPeer, asm.R1, asm.Word),
	)
}

// peer looks an address on the stack up; the family is set.
func (g *generator) peer(at int16, found string) {
	for part := int16(0); part < 16; part += 8 {
		g.add(
			asm.LoadMem(asm.R1, asm.RFP, at+part, asm.DWord),
			asm.StoreMem(asm.RFP, atPeer+4+part, asm.R1, asm.DWord),
		)
	}
	g.lookUp(g.maps.peers, atPeer)
	g.add(asm.JNE.Imm(asm.R0, 0, found))
}

// pick shows what is a peer's, and ICMP errors that quote what is.
func (g *generator) pick() {
	g.at("icmp4") // RFC 792
	g.add(
		asm.JSLT.Imm(num, 8+20, g.done()),
		asm.LoadMem(asm.R0, asm.RFP, atTop, asm.Byte),
	)
	for _, typ := range []int32{3, 4, 11, 12} {
		g.add(asm.JEq.Imm(asm.R0, typ, "quote4"))
	}
	g.add(asm.Ja.Label(g.done()))
	g.at("quote4")
	g.load(atQuote, 8+12, 8, g.done())
	g.add(
		asm.StoreImm(asm.RFP, atPeer, 4, asm.Word),
		store64(asm.RFP, atPeer+12, 0),
	)
	for at := int16(0); at < 8; at += 4 {
		g.add(
			asm.LoadMem(asm.R1, asm.RFP, atQuote+at, asm.Word),
			asm.StoreMem(asm.RFP, atPeer+4, asm.R1, asm.DWord),
		)
		g.lookUp(g.maps.peers, atPeer)
		g.add(asm.JNE.Imm(asm.R0, 0, "picked"))
	}
	g.add(asm.Ja.Label(g.done()))

	g.at("icmp6") // RFC 4443
	g.add(
		asm.JSLT.Imm(num, 8+40, g.done()),
		asm.LoadMem(asm.R0, asm.RFP, atTop, asm.Byte),
		asm.JEq.Imm(asm.R0, 0, g.done()),
		asm.JGT.Imm(asm.R0, 4, g.done()),
	)
	g.load(atQuote, 8+8, 32, g.done())
	g.add(asm.StoreImm(asm.RFP, atPeer, 6, asm.Word))
	g.peer(atQuote, "picked")
	g.peer(atQuote+16, "picked")
	g.add(asm.Ja.Label(g.done()))

	g.at("pick")
	g.peers("picked", g.done())
	g.at("picked")
	g.add(asm.Mov.Imm(num, 0), asm.Ja.Label("show"))
}
