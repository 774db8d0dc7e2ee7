package bpfcount

import (
	"encoding/binary"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// ticks tells the time of a packet from the kernel's count of timer ticks
// (jiffies). Programs read it at no cost: on 64-bit machines the kernel puts
// that in their place, while any clock is a call. The count is one of whole
// ticks of CLOCK_MONOTONIC (kernel/time/tick-sched.c, tick_do_update_jiffies64).
type ticks struct {
	tick  time.Duration // length of one: 1 to 10 ms
	phase time.Duration // when the count was zero, by CLOCK_MONOTONIC
	read  bool          // phase is known
}

// at returns the time of a tick, by CLOCK_MONOTONIC.
func (t *ticks) at(count uint64) time.Duration { return t.phase + time.Duration(count)*t.tick }

// now learns from the present count and time. The least difference is that of a
// reading right behind a tick; a greater one by far means that ticks were left
// out, as on a virtual machine that stood still.
func (t *ticks) now(count uint64, monotonic time.Duration) {
	phase := monotonic - time.Duration(count)*t.tick
	if !t.read || phase < t.phase || phase-t.phase > 2*t.tick {
		t.phase, t.read = phase, true
	}
}

// readTicks learns what the present tick is.
func (c *Counter) readTicks() error {
	if c.ticks.tick == 0 {
		var ts unix.Timespec // the coarse clock is that of the last tick
		if err := unix.ClockGetres(unix.CLOCK_MONOTONIC_COARSE, &ts); err != nil {
			return os.NewSyscallError("clock_getres", err)
		}
		c.ticks.tick = time.Duration(ts.Nano())
	}
	if _, err := c.ticker.Run(&ebpf.RunOptions{Data: make([]byte, etherHeader)}); err != nil {
		return err
	}
	var settings [setSize]byte
	if err := c.maps.settings.Lookup(uint32(0), &settings); err != nil {
		return err
	}
	c.ticks.now(binary.NativeEndian.Uint64(settings[setTicks:]), time.Duration(binary.NativeEndian.Uint64(settings[setTime:])))
	return nil
}

// ticker returns the program that reads the count of ticks and the clock.
func ticker(m *tables) *ebpf.ProgramSpec {
	return &ebpf.ProgramSpec{Name: "vpnprobe_ticks", Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.LoadMapValue(asm.R6, m.settings.FD(), 0),
		asm.FnJiffies64.Call(),
		asm.StoreMem(asm.R6, setTicks, asm.R0, asm.DWord),
		asm.FnKtimeGetNs.Call(),
		asm.StoreMem(asm.R6, setTime, asm.R0, asm.DWord),
		asm.Mov.Imm(asm.R0, 0),
		asm.Return(),
	}}
}
