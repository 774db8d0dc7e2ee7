package capture

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"vpnprobe/evidence"
	"vpnprobe/internal/netnstest"
	"vpnprobe/internal/rawconn"
)

// Nothing is left behind: no descriptor, no goroutine (TestMain sees to that),
// and no program on the interface.
func TestLiveClose(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	netnstest.Veth(t)
	before := descriptors(t)
	for _, mode := range modes {
		l, err := Open(Config{Mode: mode})
		if err != nil {
			t.Fatal(err)
		}
		l.SetPeers(on("wan", testPeers))
		ended := make(chan error)
		go func() { ended <- l.Run(context.Background()) }()
		netnstest.Eventually(t, "Run", func() bool { return !l.Counts("p").Watching.IsZero() })
		l.Close()
		if err := <-ended; !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s: Run: %v, want os.ErrClosed", mode, err)
		}
		l.Close()
		l.SetPeers(on("lo", testPeers))
		if err := l.Run(context.Background()); !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s: Run when closed: %v, want os.ErrClosed", mode, err)
		}
		if c := l.Counts("p"); !c.Watching.IsZero() || c.Reason == "" {
			t.Errorf("%s: closed and watching: %+v", mode, c)
		}
		if s := l.State("p"); s.Mode != evidence.CaptureOff || s.Reason == "" {
			t.Errorf("%s: closed and captured: %+v", mode, s)
		}
		if got := attachments(t, "wan"); got != "" {
			t.Errorf("%s: left on the interface: %s", mode, got)
		}
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors are open, %d were before", after, before)
	}
}

// descriptors counts the open descriptors of this process.
func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// attachments tells of the traffic control and XDP of an interface.
func attachments(t *testing.T, iface string) string {
	t.Helper()
	var found []string
	link, err := exec.Command("ip", "-details", "link", "show", iface).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, link)
	}
	if strings.Contains(string(link), "xdp") {
		found = append(found, string(link))
	}
	qdisc, err := exec.Command("tc", "qdisc", "show", "dev", iface).CombinedOutput()
	if err == nil && strings.Contains(string(qdisc), "clsact") {
		found = append(found, string(qdisc))
	}
	return strings.Join(found, "; ")
}

func TestOpenErrors(t *testing.T) {
	const want = `capture: "sa" is not a way to capture live: bpf or ring`
	if _, err := Open(Config{Mode: evidence.CaptureSA}); err == nil || err.Error() != want {
		t.Errorf("no way to capture live: %v", err)
	}
	l, err := Open(Config{Mode: evidence.CaptureRing})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	long := strings.Repeat("x", 16)
	l.SetPeers(on(long, testPeers))
	if c := l.Counts("p"); !strings.Contains(c.Reason, "not a possible name") || !c.Watching.IsZero() {
		t.Errorf("an impossible name: %+v", c)
	}
	l.SetPeers(testPeers)
	if c, s := l.Counts("p"), l.State("p"); c.Reason == "" || s.Mode != evidence.CaptureOff || s.Why != evidence.CaptureNoInterface {
		t.Errorf("no interface: %+v, %+v", c, s)
	}
	if c, s := l.Counts("q"), l.State("q"); c.Reason == "" || s.Reason == "" {
		t.Errorf("no peer: %+v, %+v", c, s)
	}
}

func TestOpenWithoutCapability(t *testing.T) {
	withoutCapabilities(t, keepNothing)
	l, err := Open(Config{Mode: evidence.CaptureRing})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.SetPeers(on("lo", testPeers))
	want := State{evidence.CaptureOff, evidence.CaptureNoPermission,
		"capture on lo: packet socket: operation not permitted: needs CAP_NET_RAW: " + rawconn.Setcap}
	if diff := cmp.Diff(want, l.State("p")); diff != "" {
		t.Errorf("State (-want +got):\n%s", diff)
	}
	if got := l.Counts("p").Reason; got != want.Reason {
		t.Errorf("the reading says %q", got)
	}
}

// What withoutCapabilities leaves.
const (
	keepNothing = 0
	keepNetRaw  = 1 << unix.CAP_NET_RAW
)

// withoutCapabilities takes all capabilities but some from this test's thread,
// and lets the thread end with the test.
func withoutCapabilities(t *testing.T, keep uint32) {
	t.Helper()
	runtime.LockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&header, unsafe.SliceData(caps[:])); err != nil {
		t.Fatal(err)
	}
	caps[0].Effective &= keep
	caps[1].Effective = 0
	if err := unix.Capset(&header, unsafe.SliceData(caps[:])); err != nil {
		t.Fatal(err)
	}
}
