package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// method is a way to capture.
type method string

// The methods, in the order of the tables.
const (
	nothing method = "nothing"
	inBPF   method = "eBPF"
	inRing  method = "ring"
	byDump  method = "tcpdump"
	byGo    method = "pcapgo"
)

var methods = []method{nothing, inBPF, inRing, byDump, byGo}

// ours reports whether the method is one of this project's, which count every
// packet and every gap.
func (m method) ours() bool { return m == inBPF || m == inRing }

// counted is what a method says of what it saw.
type counted struct {
	Packets uint64 `json:"packets"`
	Drops   uint64 `json:"drops"` // that it knows of
	// Lost counts the sequence numbers that were missing, Expected all;
	// tcpdump looks at none.
	Lost       uint64 `json:"lost"`
	Expected   uint64 `json:"expected"`
	Duplicates uint64 `json:"duplicates"`
	Error      string `json:"error,omitempty"`
}

// The filter and the part of a frame that tcpdump and pcapgo are given. Our
// own methods choose the same packets by themselves.
const filter = "host 198.51.100.1 and (ip proto 50 or ip proto 51 or udp port 500 or udp port 4500)"

const snapLen = 160 // as our ring, which takes less of ESP

// settle is how long a method is given to read what is left: libpcap waits up
// to a second for more.
func (m method) settle() time.Duration {
	if m == byDump {
		return 1200 * time.Millisecond
	}
	return 500 * time.Millisecond
}

// tap is a process that captures on the gateway.
type tap struct {
	method method
	cmd    *exec.Cmd
	stdin  io.Closer
	stdout *bufio.Reader
	stderr *bytes.Buffer
	waited chan struct{} // closed when it has ended
	err    error         // of Wait
}

// childVariable names, in the environment of a process of this command, the
// method that it is to capture with.
const childVariable = "BENCH_CAPTURE_CHILD"

// startTap starts to capture on wan, on a core, and returns when it does.
func startTap(ctx context.Context, n *network, m method, core int, profile string) (*tap, error) {
	t := &tap{method: m, stderr: new(bytes.Buffer), waited: make(chan struct{})}
	if m == byDump {
		t.cmd = exec.Command("tcpdump", "-n", "-p", "-i", "wan", "-s", strconv.Itoa(snapLen), "-B", "4096",
			"-Z", "root", "-w", "/dev/null", filter)
	} else {
		t.cmd = exec.Command("/proc/self/exe")
		t.cmd.Env = append(os.Environ(), childVariable+"="+string(m), profileVariable+"="+profile)
	}
	// In a group of its own, so that an interrupt from the terminal ends it
	// only by way of us.
	t.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL, Setpgid: true}
	var ready *bufio.Reader
	if m == byDump {
		stderr, err := t.cmd.StderrPipe()
		if err != nil {
			return nil, err
		}
		ready = bufio.NewReader(stderr)
		t.stdout = ready
	} else {
		t.cmd.Stderr = t.stderr
		stdout, err := t.cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if t.stdin, err = t.cmd.StdinPipe(); err != nil {
			return nil, err
		}
		ready = bufio.NewReader(stdout)
		t.stdout = ready
	}

	started := make(chan error, 1)
	go func() {
		// The process takes the namespace, the core and the priority from this
		// thread, and ends with it.
		runtime.LockOSThread()
		err := n.gateway.enter()
		if err == nil {
			err = favour(core)
		}
		if err == nil {
			err = t.cmd.Start()
		}
		started <- err
		if err == nil {
			<-t.waited
		}
	}()
	if err := <-started; err != nil {
		close(t.waited)
		return nil, err
	}
	stop := context.AfterFunc(ctx, t.kill)
	defer stop()
	for {
		line, err := ready.ReadString('\n')
		if strings.HasPrefix(line, "ready") || strings.Contains(line, "listening on") {
			return t, nil
		}
		if err != nil {
			t.kill()
			t.wait()
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, fmt.Errorf("did not start: %s", strings.TrimSpace(line+t.stderr.String()))
		}
	}
}

// cpu returns how long the process has used a CPU.
func (t *tap) cpu() time.Duration { return processTime(t.cmd.Process.Pid) }

func (t *tap) kill() { _ = t.cmd.Process.Kill() }

func (t *tap) wait() {
	t.err = t.cmd.Wait()
	close(t.waited)
}

// stop ends the capture and returns what it saw.
func (t *tap) stop() (c counted, err error) {
	late := time.AfterFunc(20*time.Second, t.kill)
	defer late.Stop()
	defer func() {
		t.wait()
		if err == nil && t.err != nil {
			err = t.err
		}
		if err != nil {
			err = fmt.Errorf("%w: %s", err, strings.TrimSpace(t.stderr.String()))
		}
	}()
	if t.method == byDump {
		if err := t.cmd.Process.Signal(unix.SIGINT); err != nil {
			return c, err
		}
		b, err := io.ReadAll(t.stdout)
		if err != nil {
			return c, err
		}
		return parseDump(string(b))
	}
	if err := t.stdin.Close(); err != nil {
		return c, err
	}
	if err := json.NewDecoder(t.stdout).Decode(&c); err != nil {
		return c, err
	}
	if c.Error != "" {
		return c, errors.New(c.Error)
	}
	return c, nil
}

// parseDump reads what tcpdump says at its end.
func parseDump(s string) (c counted, err error) {
	found := 0
	for line := range strings.Lines(s) {
		var n uint64
		if _, err := fmt.Sscanf(line, "%d packet", &n); err != nil {
			continue
		}
		switch {
		case strings.Contains(line, "captured"):
			c.Packets = n
			found++
		case strings.Contains(line, "dropped by kernel"):
			c.Drops = n
			found++
		}
	}
	if found != 2 {
		return c, fmt.Errorf("no statistics in %q", s)
	}
	return c, nil
}
