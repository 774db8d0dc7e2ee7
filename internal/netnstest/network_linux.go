package netnstest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Run runs a command, given as words with single spaces or more between them,
// in the namespace of the calling thread. Its error holds what the command
// said.
func Run(command string) error {
	words := strings.Fields(command)
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", command, err, out)
	}
	return nil
}

// IP runs ip(8) commands in the namespace of the calling thread.
func IP(t testing.TB, commands ...string) {
	t.Helper()
	for _, c := range commands {
		if err := Run("ip " + c); err != nil {
			t.Fatal(err)
		}
	}
}

// Sysctl sets a value under /proc/sys/net of the namespace of the calling
// thread, such as ipv4/ip_forward.
func Sysctl(t testing.TB, name, value string) {
	t.Helper()
	if err := sysctl(name, value); err != nil {
		t.Fatal(err)
	}
}

func sysctl(name, value string) error {
	// "net" of the calling thread's namespace, not of the process'.
	return os.WriteFile("/proc/thread-self/root/proc/sys/net/"+name, []byte(value), 0)
}

// Veth makes a pair of connected interfaces, wan and isp. What is sent on isp
// comes in on wan, and the reverse.
func Veth(t testing.TB) {
	t.Helper()
	IP(t, "link add wan type veth peer name isp")
	Up(t, "isp", "wan")
}

// Up brings interfaces up and waits until they carry packets. The kernel
// notices some time later that there is a carrier, and until then silently
// drops what is sent.
func Up(t testing.TB, ifaces ...string) {
	t.Helper()
	for _, name := range ifaces {
		IP(t, "link set "+name+" up")
	}
	for _, name := range ifaces {
		Eventually(t, name+" is up", func() bool {
			out, err := exec.Command("ip", "link", "show", "dev", name).CombinedOutput()
			if err != nil {
				t.Fatalf("%s: %v: %s", name, err, out)
			}
			return strings.Contains(string(out), "state UP")
		})
	}
}

// Sender returns a function that sends frames on an interface, and which any
// goroutine may call.
func Sender(t testing.TB, iface string) func(frames ...[]byte) {
	t.Helper()
	dev, err := net.InterfaceByName(iface)
	if err != nil {
		t.Fatalf("%s: %v", iface, err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	to := &unix.SockaddrLinklayer{Ifindex: dev.Index}
	return func(frames ...[]byte) {
		t.Helper()
		for _, f := range frames {
			err := unix.Sendto(fd, f, 0, to)
			for err == unix.ENOBUFS || err == unix.EINTR {
				err = unix.Sendto(fd, f, 0, to)
			}
			if err != nil {
				t.Errorf("send on %s: %v", iface, err)
				return
			}
		}
	}
}

// Eventually waits until f returns true, and ends the test if it does not.
func Eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
	}
}
