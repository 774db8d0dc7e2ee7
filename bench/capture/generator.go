package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// What the generator sends.
const (
	frameBytes = 1400 // Ethernet
	spis       = 64
	firstSPI   = 0x1000 // they are counted up from here
	burst      = 64     // packets at once
	gapEvery   = 1000   // packets from one missing number to the next
)

// route is the way that the packets of a generator take.
type route struct {
	from     *namespace
	ifindex  int // in from, where they leave
	mac      string
	src, dst netip.Addr
}

// generator makes the packets of one route.
type generator struct {
	route
	program *ebpf.Program
	state   *ebpf.Map
	frame   []byte
}

// state is what the program keeps, and what it is told: in its one map value.
// Times are those of CLOCK_MONOTONIC, in nanoseconds.
type state struct {
	Due      uint64 // when the next burst is to begin
	Interval uint64 // between bursts; 0: as fast as it goes
	End      uint64 // when to send no more
	Limit    uint64 // packets
	Left     uint64 // of the burst
	Sent     uint64
	Gaps     uint64 // sequence numbers left out
	_        uint64
	Numbers  [spis]uint32 // the last ones used
}

// Offsets in state.
const (
	stateDue = 8 * iota
	stateInterval
	stateEnd
	stateLimit
	stateLeft
	stateSent
	stateGaps
	_
	stateNumbers
	stateSize = stateNumbers + 4*spis
)

// Offsets in the frame.
const (
	atIP  = 14
	atTTL = atIP + 8 // with the protocol and the checksum
	atSPI = atIP + 20
	atSeq = atSPI + 4
)

func newGenerator(r route) (*generator, error) {
	mac, err := net.ParseMAC(r.mac)
	if err != nil {
		return nil, err
	}
	g := &generator{route: r, frame: newFrame(mac, r.src, r.dst)}
	g.state, err = ebpf.NewMap(&ebpf.MapSpec{Name: "bench_state", Type: ebpf.Array, KeySize: 4, ValueSize: stateSize, MaxEntries: 1})
	if err == nil {
		g.program, err = ebpf.NewProgram(&ebpf.ProgramSpec{
			Name: "bench_sender", Type: ebpf.XDP, License: "GPL", Instructions: g.instructions(),
		})
	}
	if err != nil {
		g.close()
		return nil, fmt.Errorf("packet generator: %w", err)
	}
	return g, nil
}

func (g *generator) close() {
	if g.program != nil {
		g.program.Close()
	}
	if g.state != nil {
		g.state.Close()
	}
}

func newFrame(dst net.HardwareAddr, from, to netip.Addr) []byte {
	b := make([]byte, frameBytes)
	copy(b, dst)
	copy(b[6:], []byte{2, 0, 0, 0, 7, 7})
	b[12], b[13] = 8, 0
	h := b[atIP:]
	h[0], h[6], h[8], h[9] = 0x45, 0x40, 64, 50 // DF, ESP
	binary.BigEndian.PutUint16(h[2:], frameBytes-atIP)
	copy(h[12:], from.AsSlice())
	copy(h[16:], to.AsSlice())
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(h[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(h[10:], ^uint16(sum))
	return b
}

// instructions makes the next packet of the frame, or drops it when none is due
// within some microseconds. The frames come back from where they were sent: all that a gateway
// changes is set anew.
func (g *generator) instructions() asm.Instructions {
	word := func(at int) int64 { return int64(int32(binary.NativeEndian.Uint32(g.frame[at:]))) }
	const data, state = asm.R6, asm.R7
	const late = int32(50 * time.Millisecond)
	const patience = 256 // looks at the clock
	return asm.Instructions{
		asm.LoadMem(data, asm.R1, 0, asm.Word),
		asm.LoadMem(asm.R2, asm.R1, 4, asm.Word), // data_end
		asm.Mov.Reg(asm.R3, data),
		asm.Add.Imm(asm.R3, atSeq+4),
		asm.JGT.Reg(asm.R3, asm.R2, "drop"),
		asm.LoadMapValue(state, g.state.FD(), 0),

		asm.LoadMem(asm.R9, state, stateLeft, asm.DWord),
		asm.JNE.Imm(asm.R9, 0, "send"),
		asm.Mov.Imm(asm.R8, patience),
		asm.FnKtimeGetNs.Call().WithSymbol("wait"),
		asm.LoadMem(asm.R1, state, stateEnd, asm.DWord),
		asm.JGE.Reg(asm.R0, asm.R1, "drop"),
		asm.LoadMem(asm.R1, state, stateDue, asm.DWord),
		asm.JGE.Reg(asm.R0, asm.R1, "due"),
		asm.Sub.Imm(asm.R8, 1),
		asm.JNE.Imm(asm.R8, 0, "wait"),
		asm.Ja.Label("drop"),
		// What was missed for longer is not caught up with.
		asm.Sub.Imm(asm.R0, late).WithSymbol("due"),
		asm.JGE.Reg(asm.R1, asm.R0, "on_time"),
		asm.Mov.Reg(asm.R1, asm.R0),
		asm.LoadMem(asm.R2, state, stateInterval, asm.DWord).WithSymbol("on_time"),
		asm.Add.Reg(asm.R1, asm.R2),
		asm.StoreMem(state, stateDue, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R9, burst),

		asm.LoadMem(asm.R1, state, stateSent, asm.DWord).WithSymbol("send"),
		asm.LoadMem(asm.R2, state, stateLimit, asm.DWord),
		asm.JGE.Reg(asm.R1, asm.R2, "drop"),
		asm.Sub.Imm(asm.R9, 1),
		asm.StoreMem(state, stateLeft, asm.R9, asm.DWord),
		asm.Mov.Reg(asm.R2, asm.R1),
		asm.Add.Imm(asm.R2, 1),
		asm.StoreMem(state, stateSent, asm.R2, asm.DWord),

		asm.Mov.Reg(asm.R5, asm.R1), // which SPI
		asm.And.Imm(asm.R5, spis-1),
		asm.Mov.Reg(asm.R8, asm.R5),
		asm.LSh.Imm(asm.R8, 2),
		asm.Add.Reg(asm.R8, state),
		asm.LoadMem(asm.R9, asm.R8, stateNumbers, asm.Word),
		asm.Add.Imm(asm.R9, 1),
		asm.Mod.Imm(asm.R1, gapEvery),
		asm.JNE.Imm(asm.R1, gapEvery-1, "no_gap"),
		asm.Add.Imm(asm.R9, 1),
		asm.LoadMem(asm.R1, state, stateGaps, asm.DWord),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(state, stateGaps, asm.R1, asm.DWord),
		asm.StoreMem(asm.R8, stateNumbers, asm.R9, asm.Word).WithSymbol("no_gap"),

		asm.StoreImm(data, 0, word(0), asm.Word),
		asm.StoreImm(data, 4, word(4), asm.Word),
		asm.StoreImm(data, 8, word(8), asm.Word),
		asm.StoreImm(data, atTTL, word(atTTL), asm.Word),
		asm.Add.Imm(asm.R5, firstSPI),
		asm.HostTo(asm.BE, asm.R5, asm.Word),
		asm.StoreMem(data, atSPI, asm.R5, asm.Word),
		asm.HostTo(asm.BE, asm.R9, asm.Word),
		asm.StoreMem(data, atSeq, asm.R9, asm.Word),
		asm.Mov.Imm(asm.R1, int32(g.ifindex)),
		asm.Mov.Imm(asm.R2, 0),
		asm.FnRedirect.Call(),
		asm.Return(),

		asm.Mov.Imm(asm.R0, 1).WithSymbol("drop"), // XDP_DROP
		asm.Return(),
	}
}

// sent is what a generator sent.
type sent struct {
	packets, gaps uint64
	wall          time.Duration
	// cpu is what sending, and all that the kernel did with the packets in
	// softirqs, took on the generator's core.
	cpu time.Duration
}

// perRun is how many frames one call of the kernel's is for, sent or dropped.
// Each call begins with some milliseconds of preparations.
const perRun = 1 << 18

// send sends for a time at a rate in packets per second, or as fast as it goes
// if that is 0, at most limit packets, from a core.
func (g *generator) send(ctx context.Context, core int, rate float64, d time.Duration, limit uint64) (s sent, err error) {
	err = g.from.do(func() error {
		if err := favour(core); err != nil {
			return err
		}
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
			return err
		}
		st := state{End: uint64(now.Nano() + int64(d)), Limit: limit}
		if rate > 0 {
			st.Interval = uint64(burst / rate * 1e9)
		}
		if err := g.state.Put(uint32(0), &st); err != nil {
			return err
		}
		const liveFrames = 1 << 1 // BPF_F_TEST_XDP_LIVE_FRAMES
		ksoftirqd := softirqThread(core)
		softirqs, began, cpu := processTime(ksoftirqd), time.Now(), threadTime()
		for ctx.Err() == nil && time.Since(began) < d && st.Sent < limit {
			if _, err := g.program.Run(&ebpf.RunOptions{Data: g.frame, Repeat: perRun, BatchSize: burst, Flags: liveFrames}); err != nil {
				if errors.Is(err, unix.EINVAL) {
					err = fmt.Errorf("%w: needs Linux 5.18 or newer", err)
				}
				return fmt.Errorf("packet generator: %w", err)
			}
			if err := g.state.Lookup(uint32(0), &st); err != nil {
				return err
			}
		}
		s = sent{
			packets: st.Sent, gaps: st.Gaps, wall: min(time.Since(began), d),
			cpu: threadTime() - cpu + processTime(ksoftirqd) - softirqs,
		}
		return ctx.Err()
	})
	return s, err
}
