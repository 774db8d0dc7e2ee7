// Package netnstest gives tests network namespaces of their own, which go with
// the test. Only tests import it.
//
// [Child] is for tests of code that opens sockets on whatever thread its
// goroutines run on, [Thread] for tests of code that stays in the goroutine
// that calls it, and [New] for tests with several hosts. All need root and skip
// the test without.
package netnstest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// inside names the variable that tells a child process which test it is to run.
const inside = "VPNPROBE_TEST_NETNS"

// Child runs the calling test, which is no subtest, once more in a process of
// its own, in a network namespace of its own with its loopback up, and reports
// whether this is that process. When it returns false, the test has passed
// inside and has nothing more to do.
//
// Each change may add to how the process is started, such as its capabilities.
func Child(t *testing.T, change ...func(*syscall.SysProcAttr)) bool {
	t.Helper()
	if os.Getenv(inside) == t.Name() {
		IP(t, "link set lo up")
		return true
	}
	need(t)
	t.Parallel() // namespaces do not disturb each other
	// This file, not its name, which another user may not be able to reach.
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=2m")
	cmd.Env = append(os.Environ(), inside+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	for _, c := range change {
		c(cmd.SysProcAttr)
	}
	// Pdeathsig is about the thread that starts the process. One that another
	// test locks ends with that test.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.Process == nil {
		cannot(t, err)
	}
	skipped, err := verdict(t.Name(), string(out), err)
	if err != nil {
		t.Fatalf("in a namespace: %v\n%s", err, out)
	}
	if skipped {
		t.Skipf("in a namespace: %s", out)
	}
	return false
}

// verdict tells from the output and the end of a child whether its test, or a
// part of it, was skipped, and why it did not pass.
func verdict(name, out string, end error) (skipped bool, err error) {
	switch {
	case end != nil:
		return false, end
	case strings.Contains(out, "--- SKIP: "+name):
		return true, nil
	case !strings.Contains(out, "--- PASS: "+name+" "):
		return false, errors.New("the test did not run")
	}
	return false, nil
}

// Thread moves the calling test into a new network namespace with its loopback
// up: its goroutine and the commands that it starts, but no other goroutine.
// The thread ends with the goroutine, and the namespace with the thread.
func Thread(t *testing.T) {
	t.Helper()
	need(t)
	runtime.LockOSThread() // never unlocked
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		cannot(t, err)
	}
	IP(t, "link set lo up")
}

// need skips a test where namespaces cannot be made and furnished.
func need(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for a network namespace")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs ip of iproute2")
	}
}

// cannot skips a test if the error says that this host permits or knows no
// network namespaces, and otherwise ends it as failed.
func cannot(t *testing.T, err error) {
	t.Helper()
	err = fmt.Errorf("cannot make a network namespace: %w", err)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) {
		t.Skip(err)
	}
	t.Fatal(err)
}
