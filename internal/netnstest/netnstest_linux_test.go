package netnstest

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// of names the network namespace of a process or thread.
func of(t *testing.T, task string) string {
	t.Helper()
	name, err := os.Readlink(filepath.Join("/proc", task, "ns/net"))
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// Every thread of a child is in its namespace, none is in the parent's.
func TestChild(t *testing.T) {
	if !Child(t) {
		return
	}
	parent := of(t, strconv.Itoa(os.Getppid()))
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		if of(t, thread.Name()) == parent {
			t.Errorf("thread %s is in the parent's namespace", thread.Name())
		}
	}
	Veth(t)
	got := make(chan byte, 1)
	go func() {
		defer close(got)
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0xb588) // 0x88b5, for experiments
		if err != nil {
			return
		}
		defer unix.Close(fd)
		_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20})
		got <- 0 // listens
		b := make([]byte, 100)
		if n, _, err := unix.Recvfrom(fd, b, 0); err == nil && n > 0 {
			got <- b[0]
		}
	}()
	<-got
	Sender(t, "isp")([]byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5, 7})
	if b := <-got; b != 7 {
		t.Errorf("received %d on another goroutine", b)
	}
}

func TestChildChange(t *testing.T) {
	if !Child(t, func(a *syscall.SysProcAttr) {
		a.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
		a.AmbientCaps = []uintptr{unix.CAP_NET_ADMIN}
	}) {
		return
	}
	if os.Geteuid() != 65534 {
		t.Errorf("runs as %d", os.Geteuid())
	}
}

func TestThread(t *testing.T) {
	host := of(t, "thread-self")
	Thread(t)
	inner := of(t, "thread-self")
	other := make(chan string)
	go func() {
		name, _ := os.Readlink("/proc/thread-self/ns/net")
		other <- name
	}()
	if got := <-other; inner == host || got != host {
		t.Errorf("in %s from %s, another goroutine in %s", inner, host, got)
	}
	Veth(t)
	if err := Run("ip link show wan"); err != nil {
		t.Error(err)
	}
}

func TestNew(t *testing.T) {
	a, b := New(t), New(t)
	host := of(t, "thread-self")
	inA, inB := of(t, strconv.Itoa(a.Tid())), of(t, strconv.Itoa(b.Tid()))
	if inA == host || inB == host || inA == inB {
		t.Errorf("in %s and %s from %s", inA, inB, host)
	}
	a.IP("link add wan type veth peer name isp netns " + strconv.Itoa(b.Tid()))
	if err := b.Run("ip link show isp"); err != nil {
		t.Error(err)
	}
	if err := a.Run("ip link show isp"); err == nil {
		t.Error("what was moved is still there")
	}
	a.Sysctl("ipv4/ip_forward", "1")
	for ns, want := range map[*NS]string{a: "1\n", b: "0\n"} {
		ns.Do(func() {
			if got, err := os.ReadFile("/proc/thread-self/root/proc/sys/net/ipv4/ip_forward"); string(got) != want {
				t.Errorf("ip_forward is %q, %v; want %q", got, err, want)
			}
		})
	}
}

// A failure is one whatever else was skipped, and a test that did not run has
// not passed.
func TestVerdict(t *testing.T) {
	died := errors.New("exit status 1")
	for _, tc := range []struct {
		name, out   string
		end         error
		skipped, ok bool
	}{
		{"passed", "=== RUN TestX\n--- PASS: TestX (0.00s)\nPASS\n", nil, false, true},
		{"skipped", "--- SKIP: TestX (0.00s)\nPASS\n", nil, true, true},
		{"a part skipped", "--- PASS: TestX (0.00s)\n    --- SKIP: TestX/a (0.00s)\nPASS\n", nil, true, true},
		{"a part failed, a part skipped", "--- FAIL: TestX (0.00s)\n    --- SKIP: TestX/a (0.00s)\n    --- FAIL: TestX/b (0.00s)\n", died, false, false},
		{"passed and then died", "--- PASS: TestX (0.00s)\nDATA RACE\n", died, false, false},
		{"not there", "testing: warning: no tests to run\nPASS\n", nil, false, false},
		{"another", "--- PASS: TestXY (0.00s)\nPASS\n", nil, false, false},
	} {
		skipped, err := verdict("TestX", tc.out, tc.end)
		if skipped != tc.skipped || (err == nil) != tc.ok {
			t.Errorf("%s: skipped %v, %v", tc.name, skipped, err)
		}
	}
}
