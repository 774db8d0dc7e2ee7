package bpfcount

import "github.com/cilium/ebpf/asm"

// second is the time that the limit of leaks is for, in nanoseconds.
const second = 1_000_000_000

// leaksOrExit leaves the program if there are no leaks to look for. R0 stays.
func (g *generator) leaksOrExit() {
	g.add(
		asm.LoadMapValue(asm.R1, g.maps.settings.FD(), setLeaks),
		asm.LoadMem(asm.R1, asm.R1, 0, asm.Word),
		asm.JEq.Imm(asm.R1, 0, "exit"),
	)
}

// leak shows packets in clear to a remote subnet, so many per second. The
// key's addresses are set, and the family.
func (g *generator) leak() {
	g.at("clear")
	g.leaksOrExit()
	g.onWire(size, asm.R1)

	g.at("leak")
	g.add(
		asm.LoadMem(asm.R1, asm.RFP, atKey+keyFamily, asm.Byte),
		asm.StoreMem(asm.RFP, atPrefix+4, asm.R1, asm.Word),
		asm.StoreImm(asm.RFP, atPrefix, 8*peerSize, asm.Word),
	)
	for part := int16(0); part < 16; part += 8 {
		g.add(
			asm.LoadMem(asm.R1, asm.RFP, atKey+keyDst+part, asm.DWord),
			asm.StoreMem(asm.RFP, atPrefix+8+part, asm.R1, asm.DWord),
		)
	}
	g.lookUp(g.maps.leaks, atPrefix)
	g.add(asm.JEq.Imm(asm.R0, 0, "exit"))
	g.peers("exit", "leaked") // what goes to a gateway itself is none

	g.at("leaked")
	g.tally("exit")
	g.add(
		asm.Mov.Reg(off, asm.R0),
		asm.FnKtimeGetNs.Call(),
		asm.LoadMem(asm.R1, off, tallySecond, asm.DWord),
		asm.Mov.Reg(asm.R2, asm.R0),
		asm.Sub.Reg(asm.R2, asm.R1),
		asm.JLT.Imm(asm.R2, second, "same_second"),
		asm.StoreMem(off, tallySecond, asm.R0, asm.DWord),
		store64(off, tallyShown, 0),
	)
	g.at("same_second")
	g.add(
		asm.LoadMapValue(asm.R2, g.maps.settings.FD(), setLimit),
		asm.LoadMem(asm.R2, asm.R2, 0, asm.Word),
		asm.LoadMem(asm.R1, off, tallyShown, asm.DWord),
		asm.JGE.Reg(asm.R1, asm.R2, "exit"),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(off, tallyShown, asm.R1, asm.DWord),
		asm.Mov.Imm(num, flagLeak),
	)
	// falls to "show"
}

// show copies the packet to the ring buffer; size is its length and num the
// flags. It is put together in memory of this CPU's own, because a
// reservation's size has to be constant.
func (g *generator) show() {
	g.at("show")
	g.add(asm.StoreImm(asm.RFP, atZero, 0, asm.Word))
	g.lookUp(g.maps.scratch, atZero)
	g.add(
		asm.JEq.Imm(asm.R0, 0, "exit"),
		asm.StoreMem(asm.R0, frameWire, size, asm.Word),
	)
	if g.out {
		g.add(asm.Or.Imm(num, flagOut))
	}
	g.add(
		asm.StoreMem(asm.R0, frameFlags, num, asm.DWord),
		asm.LoadMem(asm.R1, ctx, skbIfindex, asm.Word),
		asm.StoreMem(asm.R0, frameIfindex, asm.R1, asm.Word),
		asm.Mov.Reg(num, asm.R0), // from here on, where the frame is
		asm.FnKtimeGetNs.Call(),
		asm.StoreMem(num, frameTime, asm.R0, asm.DWord),
		asm.LoadMem(off, asm.RFP, atLink, asm.Word),
		asm.LoadMem(size, ctx, skbLen, asm.Word),
		asm.Sub.Reg(size, off),
		asm.LoadMem(asm.R1, num, frameFlags, asm.DWord),
		asm.And.Imm(asm.R1, flagLeak),
		asm.JEq.Imm(asm.R1, 0, "whole"),
		asm.JLE.Imm(size, MaxLeak, "fits"),
		asm.Mov.Imm(size, MaxLeak),
	)
	g.at("whole")
	g.add(
		asm.JLE.Imm(size, MaxFrame, "fits"),
		asm.Mov.Imm(size, MaxFrame),
	)
	g.at("fits")
	g.add(asm.JLT.Imm(size, 1, "exit"))
	g.skbLoad(func() { g.add(asm.Mov.Reg(asm.R3, num), asm.Add.Imm(asm.R3, frameHeader)) }, 0, asm.Mov.Reg(asm.R4, size))
	g.add(
		asm.JNE.Imm(asm.R0, 0, "exit"),
		asm.LoadMapPtr(asm.R1, g.maps.ring.FD()),
		asm.Mov.Reg(asm.R2, num),
		asm.Mov.Reg(asm.R3, size),
		asm.Add.Imm(asm.R3, frameHeader),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnRingbufOutput.Call(),
		asm.JEq.Imm(asm.R0, 0, "exit"),
	)
	g.tally("exit")
	g.increment(asm.R0, tallyDrops, one)
}
