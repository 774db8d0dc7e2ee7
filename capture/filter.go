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

	// maxFilterAddrs is how many addresses a filter compares. A comparison
	// costs the kernel about a nanosecond per packet of IPsec and address, and
	// an IPv6 address takes 36 of the 4096 instructions that a program may
	// have. For more addresses the filter goes by protocol alone, and the
	// observer's map does the rest.
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
	if len(addrs) <= maxFilterAddrs {
		a.addrs = addrs
	} else {
		a.any = true
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
	addrs  []netip.Addr
	any    bool // addresses do not matter
	code   []bpf.Instruction
	labels map[string]int
	jumps  map[int]string // by the index of a bpf.Jump in code
}

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

// match jumps to one label for each of the values that A may have, and to
// reject otherwise.
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
	a.anyAddr(icmpHeader+12, 4)
	a.anyAddr(icmpHeader+16, 4)
	a.jump("reject")

	a.label("addrs4")
	a.emit(bpf.LoadScratch{Dst: bpf.RegX, N: 0})
	a.anyAddr(12, 4)
	a.anyAddr(16, 4)
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
	a.emit(loadX(6, 1))
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
	a.anyAddr(header+icmpHeader+8, 16)
	a.anyAddr(header+icmpHeader+24, 16)
	a.jump("reject")

	a.label("addrs6")
	a.anyAddr(8, 16)
	a.anyAddr(24, 16)
	a.jump("reject")
}

// anyAddr accepts when the address of size bytes at X+off is one of the
// filter's.
func (a *assembler) anyAddr(off uint32, size int) {
	if a.any {
		a.jump("accept")
		return
	}
	for _, addr := range a.addrs {
		b := addr.AsSlice()
		if len(b) != size {
			continue
		}
		// The last word first: it differs the most. Each comparison that fails
		// skips the rest of this address: two instructions for each word yet to
		// be compared, and the jump.
		for i := size - 4; i >= 0; i -= 4 {
			a.emit(loadX(off+uint32(i), 4), bpf.JumpIf{
				Cond:      bpf.JumpEqual,
				Val:       binary.BigEndian.Uint32(b[i:]),
				SkipFalse: uint8(i/4*2 + 1),
			})
		}
		a.jump("accept")
	}
}
