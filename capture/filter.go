package capture

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/net/bpf"
)

const (
	// snapLen is how much of a frame the kernel copies. The longest that is
	// read is the quote in an ICMP error: Ethernet with two tags inside (22),
	// IPv4 with all options (60), ICMP (8), IPv4 with all options (60).
	snapLen = 160

	// maxFilterAddrs is how many addresses a filter compares. What bounds it is
	// net.core.optmem_max, 20 KiB before Linux 6.7, into which the old and the
	// new filter must fit while one replaces the other; the kernel's own form
	// of an instruction takes 8 bytes, and of a load, ten of those. For more
	// addresses the filter goes by protocol alone, and the observer's map does
	// the rest.
	maxFilterAddrs = 64
)

// filter returns the kernel's part of the selection for one link type, which is
// LinkEthernet or LinkRaw: what an [Observer] of these addresses may count. It
// never holds back what the observer would count; the observer passes over the
// little that is let through in excess.
func filter(link LinkType, addrs []netip.Addr) ([]bpf.RawInstruction, error) {
	if len(addrs) == 0 {
		return bpf.Assemble([]bpf.Instruction{bpf.RetConstant{Val: 0}})
	}
	a := &assembler{labels: map[string]int{}, jumps: map[int]string{}}
	if len(addrs) > maxFilterAddrs {
		a.any = true
	} else {
		a.select4, a.select6 = keys(addrs)
	}
	a.link(link)
	a.ipv4()
	a.ipv6()
	a.label("accept")
	a.emit(bpf.RetConstant{Val: snapLen})
	a.label("reject")
	a.emit(bpf.RetConstant{Val: 0})
	return a.assemble()
}

// assembler collects a program whose jumps go forward to named labels. In the
// program, register X holds the offset of the IP header, or of what follows
// it where a comment says so; the first scratch word always has the former.
type assembler struct {
	select4, select6 []uint32 // the addresses, as keys
	any              bool     // addresses do not matter
	code             []bpf.Instruction
	labels           map[string]int
	jumps            map[int]string // by the index of a bpf.Jump in code
}

// keys returns what the program compares of addresses: all of an IPv4 address,
// a hash of an IPv6 address.
func keys(addrs []netip.Addr) (four, six []uint32) {
	for _, addr := range addrs {
		if addr.Is4() {
			b := addr.As4()
			four = append(four, binary.BigEndian.Uint32(b[:]))
			continue
		}
		b := addr.As16()
		h := binary.BigEndian.Uint32(b[12:])
		for i := 0; i < 12; i += 4 {
			h = h*hashFactor ^ binary.BigEndian.Uint32(b[i:])
		}
		six = append(six, h)
	}
	return four, six
}

// hashFactor is 2^32 over the golden ratio.
const hashFactor = 0x9e3779b1

func (a *assembler) emit(ins ...bpf.Instruction) { a.code = append(a.code, ins...) }
func (a *assembler) label(name string)           { a.labels[name] = len(a.code) }

func (a *assembler) jump(to string) {
	a.jumps[len(a.code)] = to
	a.emit(bpf.Jump{})
}

// when jumps if A compares to val. Conditional jumps reach only 255
// instructions far, so this one goes around an unconditional one.
func (a *assembler) when(cond bpf.JumpTest, val uint32, to string) {
	a.emit(bpf.JumpIf{Cond: cond, Val: val, SkipFalse: 1})
	a.jump(to)
}

// match jumps if A is one of the values.
func (a *assembler) match(to string, vals ...uint32) {
	for _, v := range vals {
		a.when(bpf.JumpEqual, v, to)
	}
}

func (a *assembler) assemble() ([]bpf.RawInstruction, error) {
	for at, to := range a.jumps {
		target, ok := a.labels[to]
		if !ok || target <= at {
			return nil, fmt.Errorf("packet filter: no label %q after instruction %d", to, at)
		}
		a.code[at] = bpf.Jump{Skip: uint32(target - at - 1)}
	}
	return bpf.Assemble(a.code)
}

// loadX loads from X on.
func loadX(off, size uint32) bpf.Instruction { return bpf.LoadIndirect{Off: off, Size: int(size)} }

// link finds the IP header behind the link header, as [LinkType.strip] does.
func (a *assembler) link(link LinkType) {
	if link != LinkEthernet {
		a.emit(bpf.LoadConstant{Dst: bpf.RegX, Val: 0},
			bpf.LoadAbsolute{Off: 0, Size: 1},
			bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 4})
		a.match("ipv4", 4)
		a.match("ipv6", 6)
		a.jump("reject")
		return
	}
	for tag := range uint32(maxTags + 1) {
		off := 12 + 4*tag
		next := fmt.Sprintf("tag%d", tag+1)
		a.emit(bpf.LoadConstant{Dst: bpf.RegX, Val: off + 2},
			bpf.LoadAbsolute{Off: off, Size: 2})
		a.match("ipv4", etherIPv4)
		a.match("ipv6", etherIPv6)
		if tag < maxTags {
			a.match(next, etherVLAN, etherQinQ, etherQinQ2)
		}
		a.jump("reject")
		a.label(next)
	}
}

func (a *assembler) ipv4() {
	const laterFragment = 0x1fff
	a.label("ipv4")
	a.emit(bpf.StoreScratch{Src: bpf.RegX, N: 0}, loadX(9, 1))
	a.match("addrs4", protoESP, protoAH)
	a.match("udp4", protoUDP)
	a.match("icmp4", protoICMP)
	a.jump("reject")

	a.label("udp4")
	a.emit(loadX(6, 2))
	a.when(bpf.JumpBitsSet, laterFragment, "addrs4") // no ports: by address
	a.skipHeader4()
	a.ports(0, "addrs4")

	a.label("icmp4")
	a.emit(loadX(6, 2))
	a.when(bpf.JumpBitsSet, laterFragment, "reject")
	a.skipHeader4()
	a.emit(loadX(0, 1))
	a.match("quote4", icmpUnreachable, icmpSourceQuench, icmpTimeExceeded, icmpParameter)
	a.jump("reject")
	a.label("quote4") // X: the ICMP header
	a.addr4(icmpHeader + 12)
	a.addr4(icmpHeader + 16)
	a.jump("reject")

	a.label("addrs4")
	a.emit(bpf.LoadScratch{Dst: bpf.RegX, N: 0})
	a.addr4(12)
	a.addr4(16)
	a.jump("reject")
}

// skipHeader4 moves X behind the IPv4 header and its options.
func (a *assembler) skipHeader4() {
	a.emit(loadX(0, 1),
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0x0f},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftLeft, Val: 2},
		bpf.ALUOpX{Op: bpf.ALUOpAdd},
		bpf.TAX{})
}

// ports jumps when the UDP header at X+off has a port of IKE, and rejects
// otherwise.
func (a *assembler) ports(off uint32, to string) {
	a.emit(loadX(off, 2))
	a.match(to, portIKE, portNATT)
	a.emit(loadX(off+2, 2))
	a.match(to, portIKE, portNATT)
	a.jump("reject")
}

func (a *assembler) ipv6() {
	const (
		header        = 40
		fragment      = 8
		laterFragment = 0xfff8
	)
	// A program has no loops to follow extension headers with. They are rare:
	// let the observer do it.
	extensions := []uint32{protoHopByHop, protoRouting, protoDestOpts}

	a.label("ipv6")
	a.emit(bpf.StoreScratch{Src: bpf.RegX, N: 0}, loadX(6, 1))
	a.match("addrs6", protoESP, protoAH)
	a.match("udp6", protoUDP)
	a.match("icmp6", protoICMPv6)
	a.match("fragment6", protoFragment)
	a.match("addrs6", extensions...)
	a.jump("reject")

	a.label("udp6")
	a.ports(header, "addrs6")

	a.label("fragment6")
	a.emit(loadX(header, 1))
	a.match("addrs6", protoESP, protoAH)
	a.match("addrs6", extensions...)
	a.match("fragmentUDP6", protoUDP)
	a.jump("reject")
	a.label("fragmentUDP6")
	a.emit(loadX(header+2, 2))
	a.when(bpf.JumpBitsSet, laterFragment, "addrs6")
	a.ports(header+fragment, "addrs6")

	a.label("icmp6")
	a.emit(loadX(header, 1))
	a.match("quote6", icmp6Unreachable, icmp6TooBig, icmp6TimeExceeded, icmp6Parameter)
	a.jump("reject")
	a.label("quote6")
	a.addr6(header + icmpHeader + 8)
	a.addr6(header + icmpHeader + 24)
	a.jump("reject")

	a.label("addrs6")
	a.addr6(8)
	a.addr6(24)
	a.jump("reject")
}

// addr4 accepts when the IPv4 address at X+off is one of the filter's.
func (a *assembler) addr4(off uint32) {
	a.emit(loadX(off, 4))
	a.accept(a.select4)
}

// addr6 accepts when the IPv6 address at X+off has the hash of one of the
// filter's. See keys.
func (a *assembler) addr6(off uint32) {
	for word := range uint32(3) {
		a.emit(loadX(off+4*word, 4), bpf.StoreScratch{Src: bpf.RegA, N: 1 + int(word)})
	}
	a.emit(loadX(off+12, 4))
	for word := range 3 {
		a.emit(bpf.ALUOpConstant{Op: bpf.ALUOpMul, Val: hashFactor},
			bpf.LoadScratch{Dst: bpf.RegX, N: 1 + word},
			bpf.ALUOpX{Op: bpf.ALUOpXor})
	}
	a.emit(bpf.LoadScratch{Dst: bpf.RegX, N: 0})
	a.accept(a.select6)
}

// accept ends the program when A is one of the keys, or whenever addresses do
// not matter. Its jumps are short, for there are no more than maxFilterAddrs.
func (a *assembler) accept(keys []uint32) {
	if a.any {
		a.jump("accept")
		return
	}
	for i, key := range keys {
		a.emit(bpf.JumpIf{Cond: bpf.JumpEqual, Val: key, SkipTrue: uint8(len(keys) - i)})
	}
	a.emit(bpf.Jump{Skip: 1}, bpf.RetConstant{Val: snapLen})
}
