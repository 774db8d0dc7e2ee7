package bpfcount

import (
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// variant is one of the programs.
type variant struct {
	xdp    bool
	out    bool // the hook for what this host sends
	bare   bool // tc on a device whose packets have no link header
	count  bool // count flows
	frames bool // show frames, and leaks if out
	loads  bool // the kernel has bpf_xdp_load_bytes (5.18)
	direct bool // CAP_PERFMON is there: stores to the stack are cheap
	fixed  bool // for tests: the last two are as they are set here
}

func (v variant) name() string {
	switch {
	case v.xdp:
		return "vpnprobe_xdp"
	case v.out:
		return "vpnprobe_out"
	}
	return "vpnprobe_in"
}

// program returns the specification of a program.
func (v variant) program(m *tables) *ebpf.ProgramSpec {
	typ := ebpf.SchedCLS
	if v.xdp {
		typ = ebpf.XDP
	}
	return &ebpf.ProgramSpec{Name: v.name(), Type: typ, License: "GPL", Instructions: v.instructions(m)}
}

// The stack. Areas that are read as words are aligned to them.
//
// The header of IPv4 or IPv6 ends at atTop, and it is loaded together with what
// follows up to the frame pointer, though nobody reads that. The reason is
// Spectre, variant 4: a program that was loaded without CAP_PERFMON gets a
// speculation barrier for the first store to each word of the stack, but one
// only for all that a helper writes at once. Ten barriers cost as much as all
// the rest.
//
// Nor may such a program, by the verifiers of some kernels (6.1 is one), store
// less than 8 bytes in one of these words once a number was stored at its
// beginning. So what is stored more than once has its place in the second half
// of a word, and the first half, if any, comes last.
const (
	atLink    = -4 // length of the link header
	atKey     = -48
	atPart    = -52 // esp.Fragment of the packet
	atHighest = -56 // number of the last packet of an aggregate
	atMore    = -60 // packets in it but the first
	atRest    = -64 // their bytes
	atTop     = -72 // 8 bytes from where the transport header begins
	atIPv4    = atTop - 20
	atIPv6    = atTop - 40

	atPrefix = -136 // key of the leaks
	atPeer   = -164 // key of the peers
	atQuote  = -200 // addresses in an ICMP error's quotation
	atZero   = -204 // key of maps with one entry
	atSum    = -232 // key of the totals
	atKey4   = -256 // key of the flows of IPv4
)

// Fields of struct __sk_buff and struct xdp_md.
const (
	skbLen      = 0
	skbProtocol = 16
	skbIfindex  = 40
	skbData     = 76
	skbDataEnd  = 80
	skbWireLen  = 160
	skbGSOSegs  = 164
	skbGSOSize  = 176

	xdpData    = 0
	xdpDataEnd = 4
	xdpIfindex = 12
)

const (
	etherHeader = 14
	startNet    = 1 // BPF_HDR_START_NET

	protoICMP   = 1
	protoUDP    = 17
	protoESP    = 50
	protoAH     = 51
	protoICMPv6 = 58

	portIKE  = 500
	portNATT = 4500
)

// generator builds one program.
type generator struct {
	builder
	variant
	maps *tables
}

func (v variant) instructions(m *tables) asm.Instructions {
	g := &generator{variant: v, maps: m}
	g.add(asm.Mov.Reg(ctx, asm.R1))
	if v.count && !v.bare {
		g.known4()
	}
	g.link()
	g.ipv4()
	g.ipv6()
	g.transport()
	if v.count {
		g.flow()
		g.missing()
		if !v.xdp {
			g.aggregate()
			g.more()
		}
	}
	if v.frames {
		g.pick()
		if v.out {
			g.leak()
		}
		g.show()
	}
	g.at("exit")
	g.leave()
	return g.ins
}

// leave ends the program: the packet goes on to the next one, or to the network.
func (g *generator) leave() {
	pass := int32(-1) // TC_ACT_UNSPEC, TCX_NEXT
	if g.xdp {
		pass = 2 // XDP_PASS
	}
	g.add(asm.Mov.Imm(asm.R0, pass), asm.Return())
}

// done is where a packet goes that is of no interest to counting.
func (g *generator) done() string {
	if g.frames && g.out {
		return "clear"
	}
	return "exit"
}

// load copies n bytes of the packet, from off + plus on, to the stack. It
// goes to fail if the packet has not so many.
func (g *generator) load(to int16, plus, n int32, fail string) {
	if g.xdp && !g.loads {
		g.loadDirect(to, plus, n, fail)
		return
	}
	g.skbLoad(func() { g.stack(asm.R3, to) }, plus, asm.Mov.Imm(asm.R4, n))
	g.add(asm.JNE.Imm(asm.R0, 0, fail))
}

// loadDirect is load for XDP before Linux 5.18. It adds a register to a pointer
// into the packet, which takes CAP_PERFMON.
func (g *generator) loadDirect(to int16, plus, n int32, fail string) {
	g.add(
		asm.LoadMem(asm.R1, ctx, xdpData, asm.Word),
		asm.LoadMem(asm.R2, ctx, xdpDataEnd, asm.Word),
		asm.Add.Reg(asm.R1, off),
		asm.Add.Imm(asm.R1, plus),
		asm.Mov.Reg(asm.R3, asm.R1),
		asm.Add.Imm(asm.R3, n),
		asm.JGT.Reg(asm.R3, asm.R2, fail),
	)
	// IP headers are not aligned in Ethernet frames, but the machines that run
	// XDP do not mind.
	for at := int32(0); at < n; {
		w, bytes := asm.Half, int32(2)
		if n-at >= 4 {
			w, bytes = asm.Word, 4
		}
		g.add(asm.LoadMem(asm.R2, asm.R1, int16(at), w), asm.StoreMem(asm.RFP, to+int16(at), asm.R2, w))
		at += bytes
	}
}

// header loads an IP header of n bytes, 8 bytes more, and what makes the
// stack above them known, or less if there is less; and notes where it begins.
func (g *generator) header(version string, at int16, n int32) {
	g.at(version)
	if !g.xdp || g.loads {
		g.load(at, 0, int32(-at), version+"_shorter")
		g.add(asm.Ja.Label(version + "_loaded"))
		g.at(version + "_shorter")
	}
	g.load(at, 0, n+8, version+"_short")
	g.add(asm.Ja.Label(version + "_loaded"))
	g.at(version + "_short") // the end of a fragmented packet may have less than 8 bytes
	g.load(at, 0, n, "exit")
	if version == "ipv4" {
		g.add(asm.LoadMem(asm.R1, asm.RFP, atIPv4+6, asm.Half), asm.And.Imm(asm.R1, network(0x1fff)))
	} else {
		g.add(asm.Mov.Imm(asm.R1, 0)) // there is no room for a fragment header
	}
	g.cut(asm.JEq.Imm(asm.R1, 0, "exit"))
	g.at(version + "_loaded")
	if !g.xdp {
		g.add(asm.StoreMem(asm.RFP, atLink, off, asm.Word))
	}
}

// cut leaves the program where 8 bytes of payload were not to be had though no
// fragment came before: XDP does not know that the length which the IP header
// states is wrong, and what is at atTop is not of this packet. If it stays, the
// place is made known to the verifier, which a helper does itself.
func (g *generator) cut(leave asm.Instruction) {
	if !g.xdp {
		return
	}
	g.add(leave)
	if !g.loads {
		g.add(store64(asm.RFP, atTop, 0))
	}
}

// skbLoad calls the helper that copies from a packet wherever its parts are;
// R0 is 0 if it could.
func (g *generator) skbLoad(to func(), plus int32, n asm.Instruction) {
	g.add(n)
	to()
	g.add(asm.Mov.Reg(asm.R2, off))
	if plus != 0 {
		g.add(asm.Add.Imm(asm.R2, plus))
	}
	g.add(asm.Mov.Reg(asm.R1, ctx))
	if g.bare {
		g.add(asm.Mov.Imm(asm.R5, startNet), asm.FnSkbLoadBytesRelative.Call())
		return
	}
	if g.xdp {
		g.add(asm.FnXdpLoadBytes.Call())
		return
	}
	g.add(asm.FnSkbLoadBytes.Call())
}

// link finds the IP header: off is where it begins.
//
// On a device with Ethernet headers, tc sees the packet from there on; the
// tag of a VLAN is usually taken out of it, and in struct sk_buff. On others,
// the kernel knows where the network header is.
func (g *generator) link() {
	g.at("link")
	if g.bare {
		g.add(asm.Mov.Imm(off, 0), asm.LoadMem(asm.R0, ctx, skbProtocol, asm.Word))
		g.add(
			asm.JEq.Imm(asm.R0, network(0x0800), "ipv4"),
			asm.JEq.Imm(asm.R0, network(0x86dd), "ipv6"),
			asm.Ja.Label("exit"),
		)
		return
	}
	g.add(asm.Mov.Imm(off, etherHeader))
	if g.xdp {
		g.add(
			asm.LoadMem(asm.R1, ctx, xdpData, asm.Word),
			asm.LoadMem(asm.R2, ctx, xdpDataEnd, asm.Word),
			asm.Mov.Reg(asm.R3, asm.R1),
			asm.Add.Imm(asm.R3, etherHeader),
			asm.JGT.Reg(asm.R3, asm.R2, "exit"),
			asm.LoadMem(asm.R0, asm.R1, etherHeader-2, asm.Half),
		)
	} else {
		g.add(asm.LoadMem(asm.R0, ctx, skbProtocol, asm.Word))
	}
	for tags := range 3 {
		v4, v6 := "ipv4", "ipv6"
		if tags == 0 {
			v4, v6 = "peek4", "peek6"
		}
		g.add(
			asm.JEq.Imm(asm.R0, network(0x0800), v4),
			asm.JEq.Imm(asm.R0, network(0x86dd), v6),
		)
		if tags == 2 {
			break
		}
		label := []string{"tag", "tag2"}[tags]
		for _, t := range []uint16{0x8100, 0x88a8, 0x9100} {
			g.add(asm.JEq.Imm(asm.R0, network(t), label))
		}
		g.add(asm.Ja.Label("exit"))
		g.at(label)
		g.load(atTop, 2, 2, "exit")
		g.add(asm.Add.Imm(off, 4), asm.LoadMem(asm.R0, asm.RFP, atTop, asm.Half))
	}
	g.add(asm.Ja.Label("exit"))
	g.peek()
}

// onWire makes reg the packet's length from the IP header on, as the link has
// it, padding included. tc only.
func (g *generator) onWire(reg, scratch asm.Register) {
	g.add(
		asm.LoadMem(reg, ctx, skbLen, asm.Word),
		asm.LoadMem(scratch, asm.RFP, atLink, asm.Word),
		asm.Sub.Reg(reg, scratch),
	)
}

// state makes size the length that the IP header states, or the link's where it
// cannot be right: 0 in packets that segmentation offload has yet to cut. R0
// is the stated length, header that of the IP header.
func (g *generator) state(header asm.Register, label string) {
	g.add(asm.HostTo(asm.BE, asm.R0, asm.Half), asm.Mov.Reg(size, asm.R0))
	if g.xdp {
		g.add(asm.JLE.Reg(size, header, "exit"))
		return
	}
	g.onWire(asm.R1, asm.R2)
	g.add(
		asm.JLE.Reg(size, header, label),
		asm.JLE.Reg(size, asm.R1, label+"_ok"),
	)
	g.at(label)
	g.add(asm.Mov.Reg(size, asm.R1))
	g.at(label + "_ok")
}
