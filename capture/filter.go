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

	// espSnapLen is the same for encrypted packets, of which the longest is
	// IPv4 with all options, and behind it the headers of UDP and ESP, or the
	// beginning of AH. They are nearly all: the less is copied of each, the more
	// seldom the reader wakes.
	espSnapLen = 22 + 60 + 16

	// ikeSnapLen is the same for IKE, whose messages are read whole. They are
	// few; longer ones, with many certificates, come in fragments.
	ikeSnapLen = 4096

	// maxFilterAddrs is how many addresses a filter compares. What bounds it is
	// net.core.optmem_max, 20 KiB before Linux 6.7, into which the old and the
	// new filter must fit while one replaces the other; the kernel's own form
	// of an instruction takes 8 bytes, and of a load, ten of those. For more
	// addresses the filter goes by protocol alone, and the observer's map does
	// the rest.
	maxFilterAddrs = 60
)

// filter returns the kernel's part of the selection for one link type, which is
// LinkEthernet or LinkRaw. It never holds back what the observer would count;
// the observer passes over the little that is let through in excess.
func (o *Observer) filter(link LinkType) ([]bpf.RawInstruction, error) {
	addrs := o.addresses()
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
	a.leak4(o.remotes.four)
	a.ipv6()
	a.leak6(o.remotes.six)
	a.label("accept")
	a.accepted()
	a.label("reject")
	a.emit(bpf.RetConstant{Val: 0})
	return a.assemble()
}

// assembler collects a program whose jumps go forward to named labels. In the
// program, register X holds the offset of the IP header, or of what follows
// it where a comment says so; scratch word atIP always has the former.
type assembler struct {
	select4, select6 []uint32 // the addresses, as keys
	any              bool     // addresses do not matter
	code             []bpf.Instruction
	labels           map[string]int
	jumps            map[int]string // by the index of a bpf.Jump in code
}

// Scratch words.
const (
	atIP          = 0 // offset of the IP header
	atWord        = 1 // four words of an address
	atSnap        = 5 // how much to copy if the frame is accepted
	atSource      = 6 // keys of the addresses
	atDestination = 7
)

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
