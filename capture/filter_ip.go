package capture

import "golang.org/x/net/bpf"

func (a *assembler) ipv4() {
	const laterFragment = 0x1fff
	a.label("ipv4")
	a.snap(snapLen)
	a.emit(bpf.StoreScratch{Src: bpf.RegX, N: atIP}, loadX(9, 1))
	a.match("esp4", protoESP, protoAH)
	a.match("udp4", protoUDP)
	a.match("icmp4", protoICMP)
	a.jump("leak4")

	a.label("udp4")
	a.emit(loadX(6, 2))
	a.when(bpf.JumpBitsSet, laterFragment, "esp4") // no ports: by address
	a.skipHeader4()
	a.ports(0, "natt4", "ike4", "leak4")
	a.label("natt4")
	a.marked(0, "ike4", "esp4")

	a.label("icmp4")
	a.emit(loadX(6, 2))
	a.when(bpf.JumpBitsSet, laterFragment, "reject")
	a.skipHeader4()
	a.emit(loadX(0, 1))
	a.match("quote4", icmpUnreachable, icmpSourceQuench, icmpTimeExceeded, icmpParameter)
	a.jump("leak4")
	a.label("quote4") // X: the ICMP header
	a.addrs4(icmpHeader)
	a.jump("compare4")

	a.label("esp4")
	a.snap(espSnapLen)
	a.jump("addrs4")

	a.label("ike4")
	a.snap(ikeSnapLen)
	a.label("addrs4")
	a.emit(bpf.LoadScratch{Dst: bpf.RegX, N: atIP})
	a.addrs4(0)
	a.label("compare4")
	a.compare(a.select4)
}

// skipHeader4 moves X behind the IPv4 header and its options.
func (a *assembler) skipHeader4() {
	a.emit(loadX(0, 1),
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0x0f},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftLeft, Val: 2},
		bpf.ALUOpX{Op: bpf.ALUOpAdd},
		bpf.TAX{})
}

// ports goes by the ports of the UDP header at X+off, as viaNATT does: to
// natt, where ESP or IKE may follow, to ike, or to other.
func (a *assembler) ports(off uint32, natt, ike, other string) {
	a.emit(loadX(off+2, 2))
	a.match(ike, portIKE)
	a.match(natt, portNATT)
	a.emit(loadX(off, 2))
	a.match(ike, portIKE)
	a.match(natt, portNATT)
	a.jump(other)
}

// marked goes to ike if the UDP header at X+off has a non-ESP marker behind it,
// and to other if not, or if there is no room for one.
func (a *assembler) marked(off uint32, ike, other string) {
	const header, marker = 8, 4
	a.emit(bpf.LoadExtension{Num: bpf.ExtLen}, bpf.ALUOpX{Op: bpf.ALUOpSub})
	a.when(bpf.JumpLessThan, off+header+marker, other)
	a.emit(loadX(off+header, marker))
	a.match(ike, 0)
	a.jump(other)
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
	a.snap(snapLen)
	a.emit(bpf.StoreScratch{Src: bpf.RegX, N: atIP}, loadX(6, 1))
	a.match("esp6", protoESP, protoAH)
	a.match("udp6", protoUDP)
	a.match("icmp6", protoICMPv6)
	a.match("fragment6", protoFragment)
	a.match("ike6", extensions...)
	a.jump("leak6")

	a.label("udp6")
	a.ports(header, "natt6", "ike6", "leak6")
	a.label("natt6")
	a.marked(header, "ike6", "esp6")

	a.label("fragment6")
	a.emit(loadX(header, 1))
	a.match("esp6", protoESP, protoAH)
	a.match("ike6", extensions...)
	a.match("fragmentUDP6", protoUDP)
	a.jump("reject")
	a.label("fragmentUDP6")
	a.emit(loadX(header+2, 2))
	a.when(bpf.JumpBitsSet, laterFragment, "esp6")
	a.ports(header+fragment, "fragmentNATT6", "ike6", "reject")
	a.label("fragmentNATT6")
	a.marked(header+fragment, "ike6", "esp6")

	a.label("icmp6")
	a.emit(loadX(header, 1))
	a.match("quote6", icmp6Unreachable, icmp6TooBig, icmp6TimeExceeded, icmp6Parameter)
	a.jump("leak6")
	a.label("quote6")
	a.addrs6(header + icmpHeader)
	a.jump("compare6")

	a.label("esp6")
	a.snap(espSnapLen)
	a.jump("addrs6")

	a.label("ike6")
	a.snap(ikeSnapLen)
	a.label("addrs6")
	a.addrs6(0)
	a.label("compare6")
	a.compare(a.select6)
}

// addrs4 loads the keys of the addresses of the IPv4 header at X+off.
func (a *assembler) addrs4(off uint32) {
	if a.any {
		return
	}
	a.emit(loadX(off+12, 4), bpf.StoreScratch{Src: bpf.RegA, N: atSource},
		loadX(off+16, 4), bpf.StoreScratch{Src: bpf.RegA, N: atDestination})
}

// addrs6 loads the keys of the addresses of the IPv6 header at X+off, where X is
// the offset of the IP header of the packet.
func (a *assembler) addrs6(off uint32) {
	if a.any {
		return
	}
	for _, at := range [2]struct {
		addr uint32
		to   int
	}{{8, atSource}, {24, atDestination}} {
		for word := range uint32(3) {
			a.emit(loadX(off+at.addr+4*word, 4), bpf.StoreScratch{Src: bpf.RegA, N: atWord + int(word)})
		}
		a.emit(loadX(off+at.addr+12, 4))
		for word := range 3 { // see keys
			a.emit(bpf.ALUOpConstant{Op: bpf.ALUOpMul, Val: hashFactor},
				bpf.LoadScratch{Dst: bpf.RegX, N: atWord + word},
				bpf.ALUOpX{Op: bpf.ALUOpXor})
		}
		a.emit(bpf.StoreScratch{Src: bpf.RegA, N: at.to}, bpf.LoadScratch{Dst: bpf.RegX, N: atIP})
	}
}

// compare accepts when the key of either address is one of the filter's, or
// whenever addresses do not matter. Its jumps are short, for there are no more
// than maxFilterAddrs.
func (a *assembler) compare(keys []uint32) {
	if a.any {
		a.jump("accept")
		return
	}
	for _, word := range []int{atSource, atDestination} {
		a.emit(bpf.LoadScratch{Dst: bpf.RegA, N: word})
		for i, key := range keys {
			a.emit(bpf.JumpIf{Cond: bpf.JumpEqual, Val: key, SkipTrue: uint8(len(keys) - i)})
		}
		a.emit(bpf.Jump{Skip: 2})
		a.accepted()
	}
	a.jump("reject")
}

// snap sets how much is copied of a frame that is accepted. It changes A.
func (a *assembler) snap(n uint32) {
	a.emit(bpf.LoadConstant{Dst: bpf.RegA, Val: n}, bpf.StoreScratch{Src: bpf.RegA, N: atSnap})
}

// accepted ends the program in two instructions.
func (a *assembler) accepted() {
	a.emit(bpf.LoadScratch{Dst: bpf.RegA, N: atSnap}, bpf.RetA{})
}
