package bpfcount

import "github.com/cilium/ebpf/asm"

// aggregate finds out what is in a packet that offload made of several, or has
// yet to cut into several. The first of them is counted as any other packet;
// atMore is how many more there are, atRest their bytes and atHighest the
// number of the last.
//
// Of ESP, that is what is about to be encrypted by an SA with offload: the
// numbers follow one another, and the lengths are what they are before the
// padding and the ICV of each packet. Of ESP in UDP, the payloads follow one
// another (GRO on its way in, UDP_SEGMENT on its way out), each of gso_size
// bytes but the last. Its number shows which there are. If it is no
// continuation of the first's, the others could not be looked at: drops.
func (g *generator) aggregate() {
	g.at("aggregate") // R1 is how many they are
	g.add(
		asm.LoadMem(asm.R2, asm.RFP, atPart, asm.Word),
		asm.JNE.Imm(asm.R2, 0, "known"),
		asm.LoadMem(asm.R2, asm.RFP, atKey+keyEncap, asm.Byte),
		asm.JEq.Imm(asm.R2, 1, "aggregate_udp"),

		asm.LoadMem(asm.R2, ctx, skbWireLen, asm.Word), // with the headers of each packet
		asm.LoadMem(asm.R3, asm.RFP, atLink, asm.Word),
		asm.Sub.Reg(asm.R2, asm.R3),
		asm.JLE.Reg(asm.R2, size, "aggregate_size"),
		asm.Mov.Reg(size, asm.R2),
	)
	g.at("aggregate_size")
	g.add(
		asm.Mov.Reg(asm.R0, asm.R1),
		asm.Sub.Imm(asm.R0, 1),
		asm.Mov.Reg(asm.R2, size),
		asm.Add.Reg(size, asm.R0), // the first is not the shortest
		asm.Div.Reg(size, asm.R1),
		asm.Sub.Reg(asm.R2, size),
		asm.Mov.Reg(asm.R1, asm.R0),
		asm.Add.Reg32(asm.R1, num),
		asm.Ja.Label("aggregate_known"),
	)

	g.at("aggregate_udp") // off is where UDP begins
	g.add(
		asm.LoadMem(asm.R2, ctx, skbGSOSize, asm.Word),
		asm.Sub.Imm(asm.R1, 1),
		asm.Mul.Reg(asm.R1, asm.R2),
		asm.Add.Reg(off, asm.R1),
	)
	g.load(atTop, 8, 8, "unlike")
	g.add(
		asm.LoadMem(asm.R1, asm.RFP, atTop, asm.Word),
		asm.LoadMem(asm.R2, asm.RFP, atKey+keySPI, asm.Word),
		asm.JNE.Reg(asm.R1, asm.R2, "unlike"),
		asm.LoadMem(asm.R1, asm.RFP, atTop+4, asm.Word),
		asm.HostTo(asm.BE, asm.R1, asm.Word),
		asm.Mov.Reg(asm.R2, asm.R1),
		asm.Sub.Reg32(asm.R2, num),
		asm.Sub.Imm32(asm.R2, 1),
		asm.JGE.Imm(asm.R2, near, "unlike"),
	)
	g.firstOfUDP()
	g.add(
		asm.Mov.Reg(asm.R2, asm.R3), // headers of the others
		asm.Mul.Reg(asm.R2, asm.R0),
		asm.Add.Reg(asm.R2, size),
		asm.Sub.Reg(asm.R2, asm.R4),
		asm.Mov.Reg(size, asm.R4),
	)
	g.at("aggregate_known") // R0 of them but the first have R2 bytes, the last the number R1
	g.add(
		asm.StoreMem(asm.RFP, atMore, asm.R0, asm.Word),
		asm.StoreMem(asm.RFP, atRest, asm.R2, asm.Word),
		asm.StoreMem(asm.RFP, atHighest, asm.R1, asm.Word),
		asm.Ja.Label("known"),
	)

	g.at("unlike")
	g.firstOfUDP()
	g.add(asm.Mov.Reg(size, asm.R4), asm.Mov.Reg(off, asm.R0))
	g.tally("exit")
	g.increment(asm.R0, tallyDrops, plus(off))
	g.add(asm.Ja.Label("known"))
}

// firstOfUDP sets R0 to the number of packets but the first, R3 to the length
// of a packet's headers, and R4 to the length of the first. off is where UDP
// begins, and further by the payloads but the last. R1 stays.
func (g *generator) firstOfUDP() {
	g.add(
		asm.LoadMem(asm.R0, ctx, skbGSOSegs, asm.Word),
		asm.Sub.Imm(asm.R0, 1),
		asm.LoadMem(asm.R4, ctx, skbGSOSize, asm.Word),
		asm.Mov.Reg(asm.R2, asm.R4),
		asm.Mul.Reg(asm.R2, asm.R0),
		asm.Mov.Reg(asm.R3, off),
		asm.Sub.Reg(asm.R3, asm.R2),
		asm.LoadMem(asm.R2, asm.RFP, atLink, asm.Word),
		asm.Sub.Reg(asm.R3, asm.R2),
		asm.Add.Imm(asm.R3, 8),
		asm.Add.Reg(asm.R4, asm.R3),
	)
}

// more counts the other packets of an aggregate, R3 in number, in the cell at
// off. The first, which num is the number of, was counted.
func (g *generator) more() {
	g.at("more")
	g.add(asm.LoadMem(asm.R2, asm.RFP, atRest, asm.Word))
	g.increment(off, cellPackets, plus(asm.R3))
	g.increment(off, cellBytes, plus(asm.R2))
	g.add(
		asm.LoadMem(asm.R4, asm.RFP, atHighest, asm.Word),
		asm.Mov.Reg(asm.R5, asm.R4),
		asm.Sub.Reg32(asm.R5, num), // from the first to the last
		asm.LoadMem(asm.R1, off, cellMax, asm.Word),
		asm.JEq.Reg(asm.R1, num, "run"),
		asm.LoadMem(asm.R2, off, cellStray, asm.Word),
		asm.JEq.Imm(asm.R2, 0, "run_old"),

		// A stray before the run: that is its first packet.
		asm.StoreImm(off, cellStray, 0, asm.Word),
		asm.Mov.Reg(asm.R2, num),
		asm.Sub.Reg32(asm.R2, asm.R1),
	)
	g.increment(off, cellStrays, asm.Sub.Imm(asm.R1, 1))
	g.add(store64(off, cellWindow, 1), asm.JLE.Imm(asm.R2, far, "run"))
	g.increment(off, cellJumps, one)

	g.at("run") // the first is the highest, and bit 0 of the window
	g.add(
		asm.StoreMem(off, cellMax, asm.R4, asm.Word),
		asm.Mov.Imm(asm.R2, 0),
		asm.JGT.Imm(asm.R5, 63, "run_moved"),
		asm.LoadMem(asm.R2, off, cellWindow, asm.DWord),
		asm.LSh.Reg(asm.R2, asm.R5),
	)
	g.at("run_moved")
	g.add(
		asm.Mov.Imm(asm.R0, 1),
		asm.JNE.Reg(asm.R5, asm.R3, "run_seen"), // not all of the numbers between are there
		asm.Mov.Imm(asm.R0, -1),
		asm.JGT.Imm(asm.R5, 63, "run_seen"),
		asm.Mov.Imm(asm.R0, 1),
		asm.LSh.Reg(asm.R0, asm.R5),
		asm.Sub.Imm(asm.R0, 1),
	)
	g.at("run_seen")
	g.add(
		asm.Or.Reg(asm.R2, asm.R0),
		asm.StoreMem(off, cellWindow, asm.R2, asm.DWord),
		asm.Ja.Label("exit"),
	)

	g.at("run_old") // the first was seen before, or late: so are the others, up to the highest
	g.add(
		asm.Mov.Reg(asm.R2, asm.R1),
		asm.Sub.Reg32(asm.R2, num), // how far the first is back
		asm.JLT.Reg(asm.R2, asm.R5, "run_over"),
		asm.Sub.Reg(asm.R2, asm.R5), // how far the last is
		asm.JGT.Imm(asm.R2, 63, "run_late"),
		asm.Mov.Imm(asm.R0, 1),
		asm.LSh.Reg(asm.R0, asm.R2),
		asm.LoadMem(asm.R4, off, cellWindow, asm.DWord),
		asm.Mov.Reg(asm.R5, asm.R4),
		asm.And.Reg(asm.R5, asm.R0),
		asm.Or.Reg(asm.R4, asm.R0),
		asm.StoreMem(off, cellWindow, asm.R4, asm.DWord),
		asm.JEq.Imm(asm.R5, 0, "run_late"),
	)
	g.increment(off, cellDuplicates, plus(asm.R3))
	g.add(asm.Ja.Label("exit"))
	g.at("run_late")
	g.increment(off, cellReordered, plus(asm.R3))
	g.add(asm.Ja.Label("exit"))

	g.at("run_over") // R2 of the others were expected up to the highest
	g.increment(off, cellDuplicates, plus(asm.R2))
	g.add(
		asm.StoreMem(off, cellMax, asm.R4, asm.Word),
		store64(off, cellWindow, 1),
		asm.Ja.Label("exit"),
	)
}
