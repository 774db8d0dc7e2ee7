package probe

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnprobe/internal/rawconn"
)

// namespace is a network namespace that a thread of its own holds. It goes
// with the thread when the test ends.
type namespace struct {
	t    *testing.T
	tid  int
	work chan func()
}

// newNamespace makes a namespace with its loopback up. It skips the test
// without root.
func newNamespace(t *testing.T) *namespace {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root: cannot make a network namespace")
	}
	ns := &namespace{t: t, work: make(chan func())}
	ready, ended := make(chan error), make(chan struct{})
	go func() {
		defer close(ended)
		// Never unlocked, so that the thread ends with the goroutine.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		ns.tid = unix.Gettid()
		ready <- err
		if err != nil {
			return
		}
		for f := range ns.work {
			f()
		}
	}()
	if err := <-ready; err != nil {
		t.Skipf("cannot make a network namespace: %v", err)
	}
	t.Cleanup(func() { close(ns.work); <-ended })
	// New addresses are usable at once.
	ns.sysctl("ipv6/conf/default/accept_dad", "0")
	ns.ip("link set lo up")
	return ns
}

// do runs f in the namespace. f must not end the test.
func (ns *namespace) do(f func()) {
	done := make(chan struct{})
	ns.work <- func() { defer close(done); f() }
	<-done
}

// run runs a command in the namespace and returns its error.
func (ns *namespace) run(command string) error {
	var err error
	ns.do(func() {
		args := strings.Fields(command)
		out, xerr := exec.Command(args[0], args[1:]...).CombinedOutput()
		if xerr != nil {
			err = fmt.Errorf("%s: %w: %s", command, xerr, out)
		}
	})
	return err
}

// ip runs ip(8) commands in the namespace.
func (ns *namespace) ip(commands ...string) {
	ns.t.Helper()
	for _, c := range commands {
		if err := ns.run("ip " + c); err != nil {
			ns.t.Fatal(err)
		}
	}
}

// sysctl sets a value under /proc/sys/net of the namespace.
func (ns *namespace) sysctl(name, value string) {
	ns.t.Helper()
	var err error
	ns.do(func() {
		// "net" of the calling thread's namespace, not of the process'.
		err = os.WriteFile("/proc/thread-self/root/proc/sys/net/"+name, []byte(value), 0)
	})
	if err != nil {
		ns.t.Fatal(err)
	}
}

// filter makes nftables rules in a chain of the namespace, hooked as said, such
// as "output". It skips the test where the kernel has no nftables.
func (ns *namespace) filter(hook string, rules ...string) {
	ns.t.Helper()
	if err := ns.run("nft add table inet t"); err != nil {
		ns.t.Skipf("this host cannot filter packets: %v", err)
	}
	rules = append([]string{fmt.Sprintf("chain inet t c { type filter hook %s priority 0; }", hook)}, rules...)
	for i, r := range rules {
		if i > 0 {
			r = "rule inet t c " + r
		}
		if err := ns.run("nft add " + r); err != nil {
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
	ns.do(func() { conn, err = rawconn.OpenEcho(target.Is6(), rawconn.Options{}) })
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
	router.ip(
		fmt.Sprintf("link add ra type veth peer name eth0 netns %d", a.tid),
		fmt.Sprintf("link add rb mtu %d type veth peer name eth0 mtu %d netns %d", mtu, mtu, b.tid),
		"addr add "+routerA4+"/24 dev ra", "-6 addr add "+routerA6+"/64 dev ra nodad",
		"addr add "+routerB4+"/24 dev rb", "-6 addr add "+routerB6+"/64 dev rb nodad",
		"link set ra up", "link set rb up",
	)
	router.sysctl("ipv4/ip_forward", "1")
	router.sysctl("ipv6/conf/all/forwarding", "1")
	a.ip("addr add "+hostA4+"/24 dev eth0", "-6 addr add "+hostA6+"/64 dev eth0 nodad", "link set eth0 up",
		"route add default via "+routerA4, "-6 route add default via "+routerA6)
	b.ip("addr add "+hostB4+"/24 dev eth0", "-6 addr add "+hostB6+"/64 dev eth0 nodad", "link set eth0 up",
		"route add default via "+routerB4, "-6 route add default via "+routerB6)
	for _, target := range []string{hostB4, hostB6} {
		a.awaitEcho(netip.MustParseAddr(target))
	}
	return a, router, b
}
