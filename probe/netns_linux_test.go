package probe

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"vpnprobe/internal/netnstest"
	"vpnprobe/internal/rawconn"
)

// namespace is a network namespace with what these tests do in one.
type namespace struct {
	*netnstest.NS
	t *testing.T
}

func newNamespace(t *testing.T) *namespace {
	t.Helper()
	return &namespace{netnstest.New(t), t}
}

// filter makes nftables rules in a chain of the namespace, hooked as said, such
// as "output". It skips the test where the kernel has no nftables.
func (ns *namespace) filter(hook string, rules ...string) {
	ns.t.Helper()
	if err := ns.Run("nft add table inet t"); err != nil {
		ns.t.Skipf("this host cannot filter packets: %v", err)
	}
	rules = append([]string{fmt.Sprintf("chain inet t c { type filter hook %s priority 0; }", hook)}, rules...)
	for i, r := range rules {
		if i > 0 {
			r = "rule inet t c " + r
		}
		if err := ns.Run("nft add " + r); err != nil {
			ns.t.Fatal(err)
		}
	}
}

// awaitEcho waits until a new network has settled: a link takes a moment to
// carry packets, and neighbours to find each other.
func (ns *namespace) awaitEcho(target netip.Addr) {
	ns.t.Helper()
	var conn *rawconn.Echo
	var err error
	ns.Do(func() { conn, err = rawconn.OpenEcho(target.Is6(), rawconn.Options{}) })
	if err != nil {
		ns.t.Fatal(err)
	}
	defer conn.Close()
	for try := range 100 {
		_ = conn.Send(target, uint16(try), smallSize) // not before the link is up
		ctx, cancel := context.WithTimeout(ns.t.Context(), 50*time.Millisecond)
		ev, err := conn.Receive(ctx)
		cancel()
		if err == nil && ev.Err == nil {
			return
		}
	}
	ns.t.Fatalf("%v does not answer", target)
}

// The addresses of newRoutedPair: a host each behind the two sides of a
// router. IPv6 has the same last digits.
const (
	hostA4, routerA4 = "192.0.2.1", "192.0.2.254"
	hostB4, routerB4 = "198.51.100.2", "198.51.100.254"
	hostA6, routerA6 = "2001:db8:a::1", "2001:db8:a::254"
	hostB6, routerB6 = "2001:db8:b::2", "2001:db8:b::254"
)

// newRoutedPair makes host a, a router and host b. The link from the router to
// b has the given MTU at both ends.
func newRoutedPair(t *testing.T, mtu int) (a, router, b *namespace) {
	t.Helper()
	a, router, b = newNamespace(t), newNamespace(t), newNamespace(t)
	router.IP(
		fmt.Sprintf("link add ra type veth peer name eth0 netns %d", a.Tid()),
		fmt.Sprintf("link add rb mtu %d type veth peer name eth0 mtu %d netns %d", mtu, mtu, b.Tid()),
		"addr add "+routerA4+"/24 dev ra", "-6 addr add "+routerA6+"/64 dev ra nodad",
		"addr add "+routerB4+"/24 dev rb", "-6 addr add "+routerB6+"/64 dev rb nodad",
		"link set ra up", "link set rb up",
	)
	router.Sysctl("ipv4/ip_forward", "1")
	router.Sysctl("ipv6/conf/all/forwarding", "1")
	a.IP("addr add "+hostA4+"/24 dev eth0", "-6 addr add "+hostA6+"/64 dev eth0 nodad", "link set eth0 up",
		"route add default via "+routerA4, "-6 route add default via "+routerA6)
	b.IP("addr add "+hostB4+"/24 dev eth0", "-6 addr add "+hostB6+"/64 dev eth0 nodad", "link set eth0 up",
		"route add default via "+routerB4, "-6 route add default via "+routerB6)
	for _, target := range []string{hostB4, hostB6} {
		a.awaitEcho(netip.MustParseAddr(target))
	}
	return a, router, b
}
