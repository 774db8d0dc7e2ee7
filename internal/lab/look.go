//go:build linux

package lab

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	// lookReading is more than the time between two readings of the agent's
	// capture: what comes sooner after the first one may be before it.
	lookReading = time.Second
	// lookStart is as long as the agent takes to begin on a busy machine.
	lookStart = 4 * time.Second
)

// Look starts agent probe for the peer on gateway a, and waits until it
// listens on the underlay, for about so long from then on. The function
// returned waits for the report.
func (l *Lab) Look(d time.Duration) (report func() *Report) {
	l.t.Helper()
	l.runs++
	run := l.runs
	config := l.writeAgentConfig(filepath.Join(guestResults, fmt.Sprintf("probe-%d.yaml", run)), "")
	before := l.A.packetSockets()
	cmd := l.probeCommand(config, []string{"--duration", (lookStart + d).String()})
	stdout, stderr := new(bytes.Buffer), new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err := cmd.Start(); err != nil {
		l.t.Fatal("lab: run the agent: ", err)
	}
	if mode := l.Declared.Capture; mode != "sa" && mode != "off" {
		listens := func() bool { return l.A.packetSockets() > before || l.A.countsInKernel("wan") }
		if !eventually(daemonPatience, listens) {
			cmd.Process.Kill()
			cmd.Wait()
			l.t.Fatalf("lab: the agent does not listen: %s%s", stdout, stderr)
		}
	}
	time.Sleep(lookReading)
	return func() *Report {
		l.t.Helper()
		r, err := l.await(cmd, run, stdout, stderr)
		if err != nil {
			l.t.Fatal("lab: ", err)
		}
		return r
	}
}

// packetSockets returns how many packet sockets there are on the node.
func (n *Node) packetSockets() int {
	n.lab.t.Helper()
	var list []byte
	err := n.inside(func() (err error) {
		list, err = os.ReadFile("/proc/thread-self/net/packet")
		return err
	})
	if err != nil {
		n.lab.t.Fatalf("lab: %s: %v", n.Name, err)
	}
	return bytes.Count(list, []byte("\n"))
}

// countsInKernel reports whether a BPF program looks at what leaves by a
// device of the node.
func (n *Node) countsInKernel(dev string) bool {
	out, err := n.Try("tc filter show dev " + dev + " egress")
	return err == nil && strings.Contains(out, "bpf")
}

// Analyze runs agent analyze on a recording, with the declaration of gateway
// a, on the host behind it: what that gateway believes must not help.
func (l *Lab) Analyze(r *Recording, flags ...string) *Report {
	l.t.Helper()
	l.runs++
	config := l.writeAgentConfig(filepath.Join(guestResults, fmt.Sprintf("probe-%d.yaml", l.runs)), "")
	cmd := l.LanA.Command(fmt.Sprintf("%s analyze --config %s --peer %s --format json", agentPath(), config, PeerName))
	cmd.Args = append(append(cmd.Args, flags...), r.Path)
	report, err := l.report(cmd, l.runs)
	if err != nil {
		l.t.Fatal("lab: ", err)
	}
	return report
}
