package capture

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"vpnprobe/evidence"
	"vpnprobe/internal/netnstest"
)

// tcpdump records what the ring sees; the recording must count the same, and
// so must tcpdump's own filters.
func TestLiveAgainstTcpdump(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	if _, err := exec.LookPath("tcpdump"); err != nil {
		t.Skip("needs tcpdump")
	}
	netnstest.Veth(t)
	file := filepath.Join(t.TempDir(), "wan.pcap")
	stop := tcpdump(t, file)
	l := start(t, evidence.CaptureRing, "wan", testPeers)
	send := netnstest.Sender(t, "isp")
	for _, tags := range [][]uint16{nil, {etherVLAN}} {
		for _, f := range caseFrames(tags...) {
			send(f)
		}
	}
	want := expect(append(caseFrames(), caseFrames()...))
	netnstest.Eventually(t, "the last packet", func() bool { return cmp.Equal(l.look(), want, equateEmpty) })
	// tcpdump ends with frames unread if it is told to too soon.
	var got seen
	netnstest.Eventually(t, "tcpdump's last packet", func() bool {
		got = seen{}
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		o := NewObserver(testPeers)
		if err := readPcap(f, o.Packet); err != nil {
			return false // a frame is being written
		}
		got = look(o)
		return got.In.AH.Bytes == want.In.AH.Bytes
	})
	stop()
	if diff := cmp.Diff(want, got, equateEmpty); diff != "" {
		t.Errorf("recording (-want +got):\n%s", diff)
	}
	for expression, n := range map[string]uint64{
		// not ip6, whose extension headers tcpdump does not follow
		"src host 198.51.100.2 and ip proto 50 and ip[6:2] & 0x1fff = 0": 3,
		"dst host 198.51.100.2 and ip proto 50":                          1,
	} {
		if got := countLines(t, "tcpdump", "-nr", file, expression); got != n {
			t.Errorf("tcpdump %q counts %d, want %d", expression, got, n)
		}
	}
}

// tcpdump records the frames of wan until the function that it returns is
// called.
func tcpdump(t *testing.T, file string) (stop func()) {
	t.Helper()
	// A snapshot length, for the ring to have room for more than a few frames.
	cmd := exec.Command("tcpdump", "-Z", "root", "-i", "wan", "-s", "2000", "-B", "8192", "-U", "--immediate-mode", "-w", file)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	for listening := false; !listening; listening = strings.Contains(lines.Text(), "listening on") {
		if !lines.Scan() {
			t.Fatal("tcpdump does not listen")
		}
	}
	return func() {
		t.Helper()
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() {
			if s, ok := strings.CutSuffix(lines.Text(), " packets dropped by kernel"); ok && s != "0" {
				t.Errorf("tcpdump dropped %s packets", s)
			}
		}
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
	}
}

func countLines(t *testing.T, name string, args ...string) uint64 {
	t.Helper()
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return uint64(strings.Count(string(out), "\n"))
}
