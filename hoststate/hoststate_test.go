package hoststate

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

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

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }
