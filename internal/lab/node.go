//go:build linux

package lab

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Node is one machine of the lab: a network namespace.
type Node struct {
	Name string
	lab  *Lab
}

// Gateway is a node with an end of the tunnel.
type Gateway struct {
	*Node
	Address string  // its own address in the underlay
	Tunnel  Tunnel  // what its IKE daemon is told
	Second  *Tunnel // another one, to the far site's twin gateway; nil if there is none
	IKE     IKE     // its IKE daemon
}

// Command returns a command, its words separated by blanks, ready to run on
// the node. The process started is the command itself, not a wrapper.
func (n *Node) Command(command string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", n.Name}, strings.Fields(command)...)...)
}

// Try runs a command on the node and returns what it printed.
func (n *Node) Try(command string) (string, error) {
	out, err := n.Command(command).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %s: %w: %s", n.Name, command, err, out)
	}
	return string(out), err
}

// Run runs a command on the node, which must succeed, and returns what it printed.
func (n *Node) Run(command string) string {
	n.lab.t.Helper()
	out, err := n.Try(command)
	if err != nil {
		n.lab.t.Fatal("lab: ", err)
	}
	return out
}

// Count makes the node count the packets of an iptables chain that match, and
// returns a function that tells how many there were.
func (n *Node) Count(chain, match string) func() int {
	n.lab.t.Helper()
	iptables := n.plan().iptables + " -w "
	n.lab.counts++
	name := fmt.Sprintf("count-%d", n.lab.counts)
	counter := regexp.MustCompile(`--comment ` + name + ` -c (\d+) `)
	n.Run(iptables + "-I " + chain + " " + match + " -m comment --comment " + name)
	return func() int {
		n.lab.t.Helper()
		count := counter.FindStringSubmatch(n.Run(iptables + "-S " + chain + " -v"))
		if count == nil {
			n.lab.t.Fatalf("lab: no counter in %s of %s", chain, n.Name)
		}
		packets, _ := strconv.Atoi(count[1])
		return packets
	}
}

var spi = regexp.MustCompile(`spi (0x[0-9a-f]+)`)

// SPIs returns the identifiers of the security associations that the node's
// kernel holds, sorted. They change whenever the tunnel is renewed.
func (n *Node) SPIs() []string {
	n.lab.t.Helper()
	var spis []string
	for _, match := range spi.FindAllStringSubmatch(n.Run("ip xfrm state list"), -1) {
		// 0 stands for a negotiation under way, which is not an association yet.
		if match[1] != "0x00000000" {
			spis = append(spis, match[1])
		}
	}
	slices.Sort(spis)
	return spis
}

// ListenTCP serves a TCP port on the node until the test ends: it accepts
// connections and closes them.
func (n *Node) ListenTCP(address string) {
	n.lab.t.Helper()
	var listener net.Listener
	err := n.inside(func() (err error) {
		listener, err = net.Listen("tcp", address)
		return err
	})
	if err != nil {
		n.lab.t.Fatalf("lab: %s: %v", n.Name, err)
	}
	n.lab.t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // closed
			}
			conn.Close()
		}
	}()
}

// DialUDP returns a UDP socket on the node that talks to an address. It is
// closed when the test ends.
func (n *Node) DialUDP(address string) net.Conn {
	n.lab.t.Helper()
	var conn net.Conn
	err := n.inside(func() (err error) {
		conn, err = net.Dial("udp", address)
		return err
	})
	if err != nil {
		n.lab.t.Fatalf("lab: %s: %v", n.Name, err)
	}
	n.lab.t.Cleanup(func() { conn.Close() })
	return conn
}

// inside calls f with its thread in the node's network namespace: the sockets
// that f creates belong to the node for good.
func (n *Node) inside(f func() error) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	there, err := os.Open("/run/netns/" + n.Name)
	if err != nil {
		return err
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter %s: %w", n.Name, err)
	}
	err = f()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		// The thread stays locked, and so dies with its goroutine.
		return fmt.Errorf("leave %s: %w", n.Name, back)
	}
	runtime.UnlockOSThread()
	return err
}
