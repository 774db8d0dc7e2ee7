package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// quiet is the share of the machine that others may use for it to be quiet.
const quiet = 0.10

// waitForQuiet waits for the machine to have little else to do.
func (b *bench) waitForQuiet(ctx context.Context) {
	const look = 200 * time.Millisecond
	for deadline := time.Now().Add(b.patience); time.Now().Before(deadline); {
		was := busy()
		if !pause(ctx, look) {
			return
		}
		if (busy()-was).Seconds()/look.Seconds()/float64(machineCores()) <= quiet {
			return
		}
	}
}

// busy returns how long all cores together were not idle since they started.
// The kernel counts in ticks of 10 ms.
func busy() (sum time.Duration) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	const idle, wait, guest = 4, 5, 9 // fields of "cpu"; guests are in user, too
	for i, f := range strings.Fields(line) {
		if n, err := strconv.ParseInt(f, 10, 64); err == nil && i != idle && i != wait && i < guest {
			sum += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return sum
}

func machineCores() int {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 1
	}
	return max(1, strings.Count(string(b), "\ncpu"))
}

// machine describes where it was measured.
func machine() string {
	var u unix.Utsname
	_ = unix.Uname(&u)
	model := runtime.GOARCH
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				model = strings.TrimSpace(v)
				break
			}
		}
	}
	spectre := "unknown"
	if b, err := os.ReadFile("/sys/devices/system/cpu/vulnerabilities/spectre_v2"); err == nil {
		spectre, _, _ = strings.Cut(strings.TrimSpace(string(b)), ";")
	}
	return fmt.Sprintf("Linux %s, %d cores of %s, Spectre v2: %s, %s",
		unix.ByteSliceToString(u.Release[:]), machineCores(), model, spectre, runtime.Version())
}

// favour moves the calling thread to a core, and before all others there.
func favour(core int) error {
	var set unix.CPUSet
	set.Set(core)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return os.NewSyscallError("sched_setaffinity", err)
	}
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}
	if unix.SchedSetAttr(0, &attr, 0) == nil {
		return nil
	}
	// Containers may not be allowed to.
	return os.NewSyscallError("setpriority", unix.Setpriority(unix.PRIO_PROCESS, 0, -20))
}

func threadTime() time.Duration { return clock(unix.CLOCK_THREAD_CPUTIME_ID) }

// processTime returns how long a process has used a CPU.
func processTime(pid int) time.Duration {
	if pid == 0 {
		return 0
	}
	const sched = 2                      // CPUCLOCK_SCHED
	return clock(int32(^pid)<<3 | sched) // as clock_getcpuclockid(3) does
}

func clock(id int32) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// softirqThread returns the thread that a core's softirqs are left to when they
// are many; 0 if it is not to be seen from here.
func softirqThread(core int) (pid int) {
	name := "ksoftirqd/" + strconv.Itoa(core)
	for pid := range 10_000 { // it is of the first
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil && strings.TrimSpace(string(b)) == name {
			return pid
		}
	}
	return 0
}
