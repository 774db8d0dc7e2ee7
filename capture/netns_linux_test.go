package capture

import (
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// inNetns runs the calling test again in a process of its own, in a network
// namespace of its own, and reports whether this is that process. A capture
// opens sockets from any thread, so that a namespace for one thread would not
// do.
func inNetns(t *testing.T) bool {
	t.Helper()
	const variable = "VPNPROBE_TEST_NETNS"
	if os.Getenv(variable) == t.Name() {
		ip(t, "link set lo up")
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root, for a network namespace")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs ip of iproute2")
	}
	t.Parallel() // namespaces do not disturb each other
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=2m")
	cmd.Env = append(os.Environ(), variable+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	out, err := cmd.CombinedOutput()
	switch {
	case strings.Contains(string(out), "--- SKIP: "+t.Name()):
		t.Skipf("in a namespace: %s", out)
	case err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()):
		t.Fatalf("in a namespace: %v\n%s", err, out)
	}
	return false
}

// ip runs ip(8) with the words of a command.
func ip(t *testing.T, command string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(command)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", command, err, out)
	}
}

// veth makes a pair of connected interfaces, wan and isp. What is sent on isp
// comes in on wan.
func veth(t *testing.T) {
	t.Helper()
	ip(t, "link add wan type veth peer name isp")
	ip(t, "link set isp up")
	ip(t, "link set wan up")
}

// sender returns a function that sends frames on an interface.
func sender(t *testing.T, iface string) func(frame []byte) {
	t.Helper()
	dev, err := net.InterfaceByName(iface)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	to := &unix.SockaddrLinklayer{Ifindex: dev.Index}
	return func(frame []byte) {
		t.Helper()
		for {
			err := unix.Sendto(fd, frame, 0, to)
			if err == unix.ENOBUFS || err == unix.EINTR {
				continue
			}
			if err != nil {
				t.Fatalf("send on %s: %v", iface, err)
			}
			return
		}
	}
}

// eventually waits until f returns true.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !f(); {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
