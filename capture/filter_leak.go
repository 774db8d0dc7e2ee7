package capture

import "golang.org/x/net/bpf"

// packetOutgoing is the kernel's PACKET_OUTGOING.
const packetOutgoing = 4

// leak4 accepts what this host sends to the remote subnets.
func (a *assembler) leak4(list []subnet) {
	a.label("leak4")
	if len(list) > 0 {
		a.outgoing()
		a.emit(loadX(16, 4), bpf.StoreScratch{Src: bpf.RegA, N: atWord})
	}
	for _, s := range list {
		a.within([]uint32{uint32(s.lo)}, []uint32{uint32(s.mlo)})
	}
	a.jump("reject")
}

func (a *assembler) leak6(list []subnet) {
	a.label("leak6")
	if len(list) > 0 {
		a.outgoing()
	}
	for word := range min(len(list), 1) * 4 {
		a.emit(loadX(24+4*uint32(word), 4), bpf.StoreScratch{Src: bpf.RegA, N: atWord + word})
	}
	for _, s := range list {
		a.within(words(s.hi, s.lo), words(s.mhi, s.mlo))
	}
	a.jump("reject")
}

func words(hi, lo uint64) []uint32 {
	return []uint32{uint32(hi >> 32), uint32(hi), uint32(lo >> 32), uint32(lo)}
}

// outgoing rejects what this host did not send, and lets X be the offset of the
// IP header.
func (a *assembler) outgoing() {
	a.emit(bpf.LoadExtension{Num: bpf.ExtType})
	a.when(bpf.JumpNotEqual, packetOutgoing, "reject")
	a.emit(bpf.LoadScratch{Dst: bpf.RegX, N: atIP})
}

// within accepts when the address in the scratch words is in a subnet.
func (a *assembler) within(net, mask []uint32) {
	var code []bpf.Instruction
	for i, m := range mask {
		if m == 0 {
			break
		}
		code = append(code, bpf.LoadScratch{Dst: bpf.RegA, N: atWord + i})
		if m != 0xffffffff {
			code = append(code, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: m})
		}
		code = append(code, bpf.JumpIf{Cond: bpf.JumpEqual, Val: net[i]})
	}
	for i, ins := range code {
		if jump, ok := ins.(bpf.JumpIf); ok {
			jump.SkipFalse = uint8(len(code) - i) // to the next subnet
			code[i] = jump
		}
	}
	a.emit(code...)
	a.jump("accept")
}
