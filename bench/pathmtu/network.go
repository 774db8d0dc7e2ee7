package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The addresses (RFC 5737), each with a prefix of 30 bits, and of Ethernet.
const (
	clientAddr = "192.0.2.2"
	nearAddr   = "192.0.2.1" // of the router
	farAddr    = "198.51.100.1"
	serverAddr = "198.51.100.2"

	clientMAC = "02:00:00:00:00:01"
	nearMAC   = "02:00:00:00:00:02"
	farMAC    = "02:00:00:00:00:03"
	serverMAC = "02:00:00:00:00:04"
)

// A path is what lies between client and server.
type path struct {
	name string
	mtu  int      // that passes
	link int      // MTU of the link from router to server
	lock bool     // the router's route has the MTU, not its link
	drop []string // what the router drops without a word, in either direction
}

const tooLarge = "ip length > 1437"

var paths = []path{
	{name: "full", mtu: 1500, link: 1500},
	{name: "1400, a route's, router says so", mtu: 1400, link: 1500, lock: true},
	{name: "1280, a link's, router says so", mtu: 1280, link: 1280},
	{name: "black hole above 1437", mtu: 1437, link: 1500, drop: []string{tooLarge}},
	{name: "the same, 10 % loss each way", mtu: 1437, link: 1500, drop: []string{tooLarge, "numgen random mod 10 == 0"}},
}

// silent reports whether something is lost on the path without a word.
func (p path) silent() bool { return len(p.drop) > 0 }

// network is a path that is built. Client and server have an interface "eth0".
type network struct{ client, router, server *namespace }

func newNetwork(ctx context.Context, p path) (_ *network, err error) {
	n := &network{}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	for _, ns := range []**namespace{&n.client, &n.router, &n.server} {
		if *ns, err = newNamespace(); err != nil {
			return nil, err
		}
		// Whose neighbour discovery would be counted.
		if err := (*ns).sysctl("ipv6/conf/default/disable_ipv6", "1"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	if err := n.join(ctx, p.link); err != nil {
		return nil, err
	}
	if err := n.bend(ctx, p); err != nil {
		return nil, err
	}
	return n, n.settle(ctx)
}

// join makes the links. One segment per frame, or the router would see packets
// that the sender has not yet cut.
func (n *network) join(ctx context.Context, far int) error {
	if err := n.router.configure(ctx,
		"ip link add near address "+nearMAC+" type veth peer name eth0 address "+clientMAC+" netns "+n.client.path(),
		fmt.Sprintf("ip link add far mtu %d address %s type veth peer name eth0 mtu %d address %s netns %s",
			far, farMAC, far, serverMAC, n.server.path()),
		"ip addr add "+nearAddr+"/30 dev near", "ip addr add "+farAddr+"/30 dev far",
		"ip link set near gso_max_segs 1 up", "ip link set far gso_max_segs 1 up",
		"ip neigh add "+clientAddr+" lladdr "+clientMAC+" dev near nud permanent",
		"ip neigh add "+serverAddr+" lladdr "+serverMAC+" dev far nud permanent",
	); err != nil {
		return err
	}
	host := func(ns *namespace, addr, router, mac string) error {
		return ns.configure(ctx,
			"ip link set lo up", "ip addr add "+addr+"/30 dev eth0", "ip link set eth0 gso_max_segs 1 up",
			"ip neigh add "+router+" lladdr "+mac+" dev eth0 nud permanent", "ip route add default via "+router)
	}
	return errors.Join(
		host(n.client, clientAddr, nearAddr, nearMAC),
		host(n.server, serverAddr, farAddr, farMAC),
		n.router.sysctl("ipv4/ip_forward", "1"),
	)
}

// bend gives the router what is special about the path.
func (n *network) bend(ctx context.Context, p path) error {
	var commands []string
	if p.lock {
		commands = append(commands, fmt.Sprintf("ip route add %s/32 dev far mtu lock %d", serverAddr, p.mtu))
	}
	if p.silent() {
		commands = append(commands, "nft add table ip f",
			"nft add chain ip f c { type filter hook forward priority 0 ; }")
	}
	for _, match := range p.drop {
		commands = append(commands, "nft add rule ip f c "+match+" drop")
	}
	return n.router.configure(ctx, commands...)
}

// settle waits until the server refuses a connection: links drop what is sent
// for a while after they are up.
func (n *network) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return n.client.do(func() error {
		for {
			d := net.Dialer{Timeout: 200 * time.Millisecond}
			conn, err := d.DialContext(ctx, "tcp4", net.JoinHostPort(serverAddr, "9"))
			switch {
			case err == nil:
				conn.Close()
				return nil
			case errors.Is(err, unix.ECONNREFUSED):
				return nil
			case ctx.Err() != nil:
				return fmt.Errorf("the server does not answer: %w", err)
			}
		}
	})
}

func (n *network) close() {
	for _, ns := range []*namespace{n.client, n.router, n.server} {
		if ns != nil {
			ns.close()
		}
	}
}

// sent counts the packets that the client's link took so far.
func (n *network) sent() (count uint64, err error) {
	err = n.client.do(func() error {
		table, err := os.ReadFile("/proc/thread-self/net/dev")
		if err == nil {
			count, err = transmitted(string(table), "eth0")
		}
		return err
	})
	return count, err
}

// transmitted reads the count of an interface from /proc/net/dev: after its
// name come 8 numbers of what it received, and then bytes and packets that it
// sent.
func transmitted(table, device string) (uint64, error) {
	for line := range strings.Lines(table) {
		name, numbers, _ := strings.Cut(line, ":")
		if fields := strings.Fields(numbers); strings.TrimSpace(name) == device && len(fields) > 9 {
			return strconv.ParseUint(fields[9], 10, 64)
		}
	}
	return 0, fmt.Errorf("/proc/net/dev: no interface %s", device)
}
