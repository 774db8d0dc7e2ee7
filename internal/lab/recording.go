//go:build linux

package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// Recording is a tcpdump at work.
type Recording struct {
	Path string // of the file that it writes
	node *Node
	cmd  *exec.Cmd
}

// Record begins to capture what passes a device of the node into a file of
// the results.
func (n *Node) Record(dev, name string) *Recording {
	n.lab.t.Helper()
	r := &Recording{Path: filepath.Join(guestResults, name), node: n}
	r.cmd = n.Command("tcpdump -Z root -U -n -i " + dev + " -w " + r.Path)
	log := name + ".log"
	n.lab.start(r.cmd, log)
	n.lab.t.Cleanup(r.Stop)
	listening := func() bool {
		said, _ := os.ReadFile(filepath.Join(guestResults, log))
		return strings.Contains(string(said), "listening on")
	}
	if !eventually(daemonPatience, listening) {
		n.lab.t.Fatalf("lab: tcpdump on %s does not listen", n.Name)
	}
	return r
}

// Stop ends the recording; the file is complete then. Stopping twice is
// stopping once.
func (r *Recording) Stop() {
	r.node.lab.t.Helper()
	if r.cmd == nil {
		return
	}
	cmd := r.cmd
	r.cmd = nil
	if err := terminate(cmd); err != nil {
		r.node.lab.t.Errorf("lab: stop tcpdump: %v", err)
	}
}

var espNumber = regexp.MustCompile(`ESP\(spi=(0x[0-9a-f]+),seq=0x([0-9a-f]+)\)`)

// Numbers returns the sequence numbers of the ESP packets from an address in
// the recording, by SPI, as they passed. IPv4 only.
func (r *Recording) Numbers(source string) map[string][]uint32 {
	r.node.lab.t.Helper()
	out, err := r.node.Command("tcpdump -n -r " + r.Path + " ip proto 50 and src " + source).Output()
	if err != nil {
		r.node.lab.t.Fatalf("lab: read %s: %v", r.Path, err)
	}
	numbers := map[string][]uint32{}
	for _, match := range espNumber.FindAllStringSubmatch(string(out), -1) {
		n, _ := strconv.ParseUint(match[2], 16, 32)
		numbers[match[1]] = append(numbers[match[1]], uint32(n))
	}
	return numbers
}

// Count returns how many packets of the recording match a filter of tcpdump's.
func (r *Recording) Count(filter string) int {
	r.node.lab.t.Helper()
	cmd := r.node.Command("tcpdump --count -r " + r.Path + " " + filter)
	out, err := cmd.Output() // on standard error it says what it reads
	words := strings.Fields(string(out))
	if err != nil || len(words) == 0 {
		r.node.lab.t.Fatalf("lab: count packets in %s: %v: %s", r.Path, err, out)
	}
	packets, err := strconv.Atoi(words[0])
	if err != nil {
		r.node.lab.t.Fatalf("lab: tcpdump counted %q", out)
	}
	return packets
}
