package bpfcount

import (
	"encoding/binary"

	"github.com/cilium/ebpf/asm"
)

// The registers. Helper calls overwrite R0 to R5.
const (
	ctx  = asm.R6 // struct __sk_buff or xdp_md
	off  = asm.R7 // where a header begins, from the packet's first byte; in counting, the flow's cell
	num  = asm.R8 // length of the IP payload, then the sequence number
	size = asm.R9 // length of the IP packet
)

// builder collects a program's instructions. A label stands for the
// instruction that is added next.
type builder struct {
	ins   asm.Instructions
	label string
}

func (b *builder) add(ins ...asm.Instruction) {
	for _, i := range ins {
		if b.label != "" {
			i = i.WithSymbol(b.label)
			b.label = ""
		}
		b.ins = append(b.ins, i)
	}
}

func (b *builder) at(label string) {
	if b.label != "" {
		b.add(asm.Ja.Label(label)) // two labels for one place
	}
	b.label = label
}

// stack begins the arguments of helpers that take an address on the stack.
func (b *builder) stack(reg asm.Register, offset int16) {
	b.add(asm.Mov.Reg(reg, asm.RFP), asm.Add.Imm(reg, int32(offset)))
}

// lookUp looks a key on the stack up; R0 is the value or 0.
func (b *builder) lookUp(m mapFD, key int16) {
	b.add(asm.LoadMapPtr(asm.R1, m.FD()))
	b.stack(asm.R2, key)
	b.add(asm.FnMapLookupElem.Call())
}

// mapFD is the part of a map that a program needs.
type mapFD interface{ FD() int }

// increment adds a register, or 1, to a number in memory, by way of R1.
func (b *builder) increment(ptr asm.Register, offset int16, by asm.Instruction) {
	b.add(
		asm.LoadMem(asm.R1, ptr, offset, asm.DWord),
		by,
		asm.StoreMem(ptr, offset, asm.R1, asm.DWord),
	)
}

// The operand of increment.
var one = asm.Add.Imm(asm.R1, 1)

func plus(reg asm.Register) asm.Instruction { return asm.Add.Reg(asm.R1, reg) }

// network returns a number of the packet as a program loads it, without
// swapping its bytes.
func network(n uint16) int32 {
	return int32(binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, n)))
}

// store64 stores a small number as 8 bytes.
func store64(ptr asm.Register, offset int16, value int64) asm.Instruction {
	return asm.Instruction{OpCode: asm.StoreImmOp(asm.DWord), Dst: ptr, Offset: offset, Constant: value}
}
