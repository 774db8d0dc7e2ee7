package bpfcount

import "github.com/cilium/ebpf/asm"

// near and far are those of esp.Cell.
const (
	near = 1024
	far  = 1 << 16
)

// flow counts a packet by the rule of esp.Cell. There is one cell per CPU, and
// no packet on it interrupts another's, so that no access needs to be atomic.
func (g *generator) flow() {
	g.at("count")
	if !g.xdp {
		g.add(
			asm.StoreImm(asm.RFP, atMore, 0, asm.Word),
			asm.LoadMem(asm.R1, ctx, skbGSOSegs, asm.Word),
			asm.JGT.Imm(asm.R1, 1, "aggregate"),
		)
	}
	g.at("known")
	g.shortKey()
	g.cellOf("known")
	g.add(asm.JEq.Imm(asm.R0, 0, "new"))

	g.at("cell")
	g.add(asm.Mov.Reg(off, asm.R0), asm.FnJiffies64.Call(), asm.StoreMem(off, cellLast, asm.R0, asm.DWord))
	g.increment(off, cellBytes, plus(size))
	g.add(
		asm.LoadMem(asm.R1, off, cellLongest, asm.Word),
		asm.JGE.Reg(asm.R1, size, "shorter"),
		asm.StoreMem(off, cellLongest, size, asm.Word),
	)
	g.at("shorter")
	g.add(
		asm.LoadMem(asm.R2, asm.RFP, atPart, asm.Word),
		asm.JEq.Imm(asm.R2, 0, "packet"),
		asm.JEq.Imm(asm.R2, 1, "part1"),
		asm.JEq.Imm(asm.R2, 2, "part2"),
	)
	g.increment(off, cellFragments+16, one)
	g.add(asm.Ja.Label("counted"))
	g.at("part2")
	g.increment(off, cellFragments+8, one)
	g.add(asm.Ja.Label("counted"))
	g.at("part1")
	g.increment(off, cellFragments, one)

	g.at("packet")
	g.increment(off, cellPackets, one)
	g.add(
		asm.JNE.Imm(asm.R1, 1, "second"),
		asm.StoreMem(off, cellFirst, num, asm.Word),
		asm.StoreMem(off, cellMax, num, asm.Word),
		store64(off, cellWindow, 1),
		asm.Ja.Label("counted"),
	)

	g.at("second")
	g.add(
		asm.LoadMem(asm.R1, off, cellMax, asm.Word),
		asm.Mov.Reg(asm.R2, num),
		asm.Sub.Reg32(asm.R2, asm.R1), // forward
		asm.Mov.Reg(asm.R3, asm.R2),
		asm.Sub.Imm32(asm.R3, 1),
		asm.JGE.Imm(asm.R3, near, "not_forward"),
		asm.StoreMem(off, cellMax, num, asm.Word),
		asm.StoreImm(off, cellStray, 0, asm.Word),
		asm.Mov.Imm(asm.R0, 0),
		asm.JGT.Imm(asm.R2, 63, "shifted"),
		asm.LoadMem(asm.R0, off, cellWindow, asm.DWord),
		asm.LSh.Reg(asm.R0, asm.R2),
	)
	g.at("shifted")
	g.add(
		asm.Or.Imm(asm.R0, 1),
		asm.StoreMem(off, cellWindow, asm.R0, asm.DWord),
		asm.Ja.Label("counted"),
	)
	g.back()
	g.stray()

	g.at("counted")
	if !g.xdp {
		g.add(
			asm.LoadMem(asm.R3, asm.RFP, atMore, asm.Word),
			asm.JNE.Imm(asm.R3, 0, "more"),
		)
	}
	g.add(asm.Ja.Label("exit"))
}

// back takes a number at most near below the highest: a duplicate, or late.
func (g *generator) back() {
	g.at("not_forward")
	g.add(
		asm.Mov.Reg(asm.R2, asm.R1),
		asm.Sub.Reg32(asm.R2, num),
		asm.JGT.Imm(asm.R2, near, "not_back"),
		asm.StoreImm(off, cellStray, 0, asm.Word),
		asm.JGT.Imm(asm.R2, 63, "late"),
		asm.Mov.Imm(asm.R3, 1),
		asm.LSh.Reg(asm.R3, asm.R2),
		asm.LoadMem(asm.R4, off, cellWindow, asm.DWord),
		asm.Mov.Reg(asm.R0, asm.R4),
		asm.And.Reg(asm.R0, asm.R3),
		asm.Or.Reg(asm.R4, asm.R3),
		asm.StoreMem(off, cellWindow, asm.R4, asm.DWord),
		asm.JEq.Imm(asm.R0, 0, "late"),
	)
	g.increment(off, cellDuplicates, one)
	g.add(asm.Ja.Label("counted"))
	g.at("late")
	g.increment(off, cellReordered, one)
	g.add(
		asm.LoadMem(asm.R1, off, cellDepth, asm.Word),
		asm.JGE.Reg(asm.R1, asm.R2, "counted"),
		asm.StoreMem(off, cellDepth, asm.R2, asm.Word),
		asm.Ja.Label("counted"),
	)
}

// stray takes a number far from the highest, in R1, which is believed if it
// follows another that is far.
func (g *generator) stray() {
	g.at("not_back")
	g.add(
		asm.LoadMem(asm.R2, off, cellStray, asm.Word),
		asm.JEq.Imm(asm.R2, 0, "stray"),
		asm.LoadMem(asm.R3, off, cellPending, asm.Word),
		asm.Mov.Reg(asm.R2, num),
		asm.Sub.Reg32(asm.R2, asm.R3),
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Sub.Imm32(asm.R4, 1),
		asm.JGE.Imm(asm.R4, near, "stray"),

		asm.StoreMem(off, cellMax, num, asm.Word),
		asm.StoreImm(off, cellStray, 0, asm.Word),
		asm.Sub.Reg32(asm.R3, asm.R1), // from the highest to the pending one
	)
	g.increment(off, cellStrays, asm.Sub.Imm(asm.R1, 1))
	g.add(asm.JLE.Imm(asm.R3, far, "no_jump"))
	g.increment(off, cellJumps, one)
	g.at("no_jump")
	g.add(
		asm.Mov.Imm(asm.R0, 0),
		asm.JGT.Imm(asm.R2, 63, "restarted"),
		asm.Mov.Imm(asm.R0, 1),
		asm.LSh.Reg(asm.R0, asm.R2),
	)
	g.at("restarted")
	g.add(
		asm.Or.Imm(asm.R0, 1),
		asm.StoreMem(off, cellWindow, asm.R0, asm.DWord),
		asm.Ja.Label("counted"),
	)

	g.at("stray")
	g.increment(off, cellStrays, one)
	g.add(
		asm.StoreMem(off, cellPending, num, asm.Word),
		asm.StoreImm(off, cellStray, 1, asm.Word),
	)
}

// noExist makes an update fail if the key is there (BPF_NOEXIST).
const noExist = 1

// missing finds a cell for a flow that is not in the table of flows. The first
// packets of new flows of the peers go to another table, which forgets the
// least recently used. A flow moves with its second packet, so that a flood of
// forged SPIs pushes out none that is in use. What the kernel forgets stays in
// the totals.
func (g *generator) missing() {
	g.at("new")
	foreign := "exit"
	if g.frames && g.out {
		foreign = "foreign"
	}
	far, near := int16(atKey+keySrc), int16(atKey+keyDst)
	if g.out {
		far, near = near, far
	}
	g.peerFamily()
	g.peer(far, "peer")
	g.peer(near, "through")
	g.add(asm.Ja.Label(foreign))
	if foreign != "exit" {
		g.at("foreign") // ESP and AH are not clear, UDP may be
		g.add(
			asm.LoadMem(asm.R0, asm.RFP, atKey+keyProto, asm.Byte),
			asm.LoadMem(asm.R1, asm.RFP, atKey+keyEncap, asm.Byte),
			asm.JEq.Imm(asm.R0, protoUDP, "clear"),
			asm.JEq.Imm(asm.R1, 1, "clear"),
			asm.Ja.Label("exit"),
		)
	}

	g.at("through")
	g.add(store64(asm.RFP, atSum, 0), store64(asm.RFP, atSum+8, 0), store64(asm.RFP, atSum+sumProto, 0), asm.Ja.Label("find"))
	g.at("peer")
	if g.out { // to itself: it counts as it comes in
		g.add(asm.Mov.Imm(asm.R0, 0))
		for part := int16(0); part < 16; part += 8 {
			g.add(
				asm.LoadMem(asm.R1, asm.RFP, far+part, asm.DWord),
				asm.LoadMem(asm.R2, asm.RFP, near+part, asm.DWord),
				asm.Xor.Reg(asm.R1, asm.R2),
				asm.Or.Reg(asm.R0, asm.R1),
			)
		}
		g.add(asm.JEq.Imm(asm.R0, 0, "through"))
	}
	for part := int16(0); part < 16; part += 8 {
		g.add(
			asm.LoadMem(asm.R1, asm.RFP, far+part, asm.DWord),
			asm.StoreMem(asm.RFP, atSum+part, asm.R1, asm.DWord),
		)
	}
	g.add(
		asm.LoadMem(asm.R1, asm.RFP, atKey+keyIfindex, asm.Word),
		asm.StoreMem(asm.RFP, atSum+sumIfindex, asm.R1, asm.Word),
		asm.LoadMem(asm.R1, asm.RFP, atKey+keyProto, asm.Word),
		asm.StoreMem(asm.RFP, atSum+sumProto, asm.R1, asm.Word),
	)

	g.at("find")
	g.lookUp(g.maps.fresh, atKey)
	g.add(asm.JNE.Imm(asm.R0, 0, "move"), asm.Mov.Imm(off, 1)) // a flow is created
	g.add(
		asm.LoadMapPtr(asm.R1, g.maps.fresh.FD()),
		asm.LoadMapValue(asm.R3, g.maps.settings.FD(), setZero),
		asm.Mov.Imm(asm.R4, noExist),
	)
	g.stack(asm.R2, atKey)
	g.add(asm.FnMapUpdateElem.Call(), asm.JEq.Imm(asm.R0, 0, "sum"))
	g.add(asm.Mov.Imm(off, 0), asm.Ja.Label("sum")) // by another CPU

	g.at("move")
	g.add(
		asm.Mov.Reg(off, asm.R0),
		asm.Mov.Reg(asm.R3, off),
		asm.Mov.Imm(asm.R4, noExist),
		asm.LoadMem(asm.R1, asm.RFP, atKey+keyFamily, asm.Byte),
		asm.JEq.Imm(asm.R1, 4, "move4"),
		asm.LoadMapPtr(asm.R1, g.maps.flows6.FD()),
	)
	g.stack(asm.R2, atKey)
	g.add(asm.FnMapUpdateElem.Call(), asm.Ja.Label("move_done"))
	g.at("move4")
	g.add(asm.LoadMapPtr(asm.R1, g.maps.flows4.FD()))
	g.stack(asm.R2, atKey4)
	g.add(asm.FnMapUpdateElem.Call())
	g.at("move_done")
	g.add(asm.JNE.Imm(asm.R0, 0, "moved"))
	g.lookUp(g.maps.sums, atSum)
	g.add(
		asm.JEq.Imm(asm.R0, 0, "unsummed"),
		asm.LoadMem(asm.R2, off, cellPackets, asm.DWord),
		asm.LoadMem(asm.R3, off, cellBytes, asm.DWord),
	)
	g.increment(asm.R0, sumMovedPackets, plus(asm.R2))
	g.increment(asm.R0, sumMovedBytes, plus(asm.R3))
	g.at("unsummed")
	g.add(asm.LoadMapPtr(asm.R1, g.maps.fresh.FD()))
	g.stack(asm.R2, atKey)
	g.add(asm.FnMapDeleteElem.Call())
	g.at("moved") // by us, by another CPU, or the table is full
	g.cellOf("moved")
	g.add(
		asm.JNE.Imm(asm.R0, 0, "cell"),
		asm.Mov.Imm(off, 0),
	)
	g.sum()
}

// sum adds a packet to the totals of fresh flows, off of which it created, and
// has it counted in its own.
func (g *generator) sum() {
	g.at("sum")
	g.lookUp(g.maps.sums, atSum)
	g.add(
		asm.JNE.Imm(asm.R0, 0, "summed"),
		asm.LoadMapPtr(asm.R1, g.maps.sums.FD()),
		asm.LoadMapValue(asm.R3, g.maps.settings.FD(), setZero),
		asm.Mov.Imm(asm.R4, noExist),
	)
	g.stack(asm.R2, atSum)
	g.add(asm.FnMapUpdateElem.Call())
	g.lookUp(g.maps.sums, atSum)
	g.add(asm.JEq.Imm(asm.R0, 0, "fresh"))

	g.at("summed")
	g.increment(asm.R0, sumCreated, plus(off))
	g.add(
		asm.Mov.Imm(asm.R2, 0), // packets
		asm.Mov.Reg(asm.R3, size),
		asm.LoadMem(asm.R4, asm.RFP, atPart, asm.Word),
		asm.JGT.Imm(asm.R4, 1, "weighed"), // a fragment without the beginning
		asm.Mov.Imm(asm.R2, 1),
	)
	if !g.xdp {
		g.add(
			asm.LoadMem(asm.R4, asm.RFP, atMore, asm.Word),
			asm.JEq.Imm(asm.R4, 0, "weighed"),
			asm.Add.Reg(asm.R2, asm.R4),
			asm.LoadMem(asm.R4, asm.RFP, atRest, asm.Word),
			asm.Add.Reg(asm.R3, asm.R4),
		)
	}
	g.at("weighed")
	g.increment(asm.R0, sumPackets, plus(asm.R2))
	g.increment(asm.R0, sumBytes, plus(asm.R3))

	g.at("fresh")
	g.lookUp(g.maps.fresh, atKey)
	g.add(asm.JNE.Imm(asm.R0, 0, "cell"), asm.Ja.Label("exit"))
}

// tally makes R0 the address of this CPU's tallies.
func (g *generator) tally(fail string) {
	g.add(asm.StoreImm(asm.RFP, atZero, 0, asm.Word))
	g.lookUp(g.maps.tallies, atZero)
	g.add(asm.JEq.Imm(asm.R0, 0, fail))
}
