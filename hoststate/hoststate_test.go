package hoststate

import (
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"vpnprobe/evidence"
)

// compareOpts compare the types with unexported fields by value.
var compareOpts = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b evidence.Opt[netip.Addr]) bool { return a == b }),
	cmp.Comparer(func(a, b evidence.Opt[int]) bool { return a == b }),
	cmp.Comparer(func(a, b evidence.Opt[time.Time]) bool {
		at, aKnown := a.Get()
		bt, bKnown := b.Get()
		return aKnown == bKnown && at.Equal(bt)
	}),
}

// enterNamespace moves the test into a new, empty network namespace. The
// thread that is in it ends with the test's goroutine, and the namespace
// with the thread.
func enterNamespace(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes a network namespace")
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("cannot make a network namespace: %v", err)
	}
	run(t, "ip link set lo up")
}

func run(t *testing.T, commands ...string) {
	t.Helper()
	for _, c := range commands {
		if out, err := exec.Command("sh", "-c", c).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", c, err, out)
		}
	}
}

// skipUnless skips the test when the kernel lacks what the command needs.
func skipUnless(t *testing.T, command string) {
	t.Helper()
	if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
		t.Skipf("this kernel cannot: %s: %v: %s", command, err, strings.TrimSpace(string(out)))
	}
}

// eventually polls until the condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting until %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }
