package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vpnprobe/internal/netnstest"
)

// analyzed is a report on a capture, as far as the tests look at it.
type analyzed struct {
	Peer      string  `json:"peer"`
	Diagnosis string  `json:"diagnosis"`
	Duration  float64 `json:"duration_seconds"`
	Evidence  struct {
		Capture struct {
			Mode string `json:"mode"`
			Drop uint64 `json:"dropped"`
			In   wire   `json:"in"`
			Out  wire   `json:"out"`
		} `json:"capture"`
	} `json:"evidence"`
}

type wire struct {
	ESP struct {
		Packets uint64 `json:"packets"`
		Bytes   uint64 `json:"bytes"`
	} `json:"esp"`
	IKE map[string]uint64 `json:"ike"`
}

func (w wire) ike() (n uint64) {
	for _, x := range w.IKE {
		n += x
	}
	return n
}

func decodeReport(t *testing.T, b []byte) (a analyzed) {
	t.Helper()
	if err := json.Unmarshal(b, &a); err != nil {
		t.Fatalf("%v in %q", err, b)
	}
	return a
}

// Every recording of real daemons is read, and none shows a fault.
func TestAnalyzeRecordings(t *testing.T) {
	files, err := filepath.Glob("../../internal/wire/ike/testdata/*.pcap")
	if err != nil || len(files) < 8 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		code, stdout, stderr := execute(t, "analyze", "--peer", "198.51.100.2", "--format", "json", f)
		a := decodeReport(t, []byte(stdout))
		if code == exitProblem || code == exitUsage || stderr != "" {
			t.Errorf("%s: status %d, diagnosis %s, stderr %q", f, code, a.Diagnosis, stderr)
		}
		if c := a.Evidence.Capture; a.Peer != "198.51.100.2" || c.Mode != "file" || c.In.ike() == 0 || c.Out.ike() == 0 {
			t.Errorf("%s: %+v", f, a)
		}
	}
	code, stdout, _ := execute(t, "analyze", "../../internal/wire/ike/testdata/strongswan-nat.pcap", "--lang", "zh")
	if !strings.HasPrefix(stdout, "198.51.100.2: ") || !strings.Contains(stdout, "依据") || code == exitUsage {
		t.Errorf("status %d, %q", code, stdout)
	}
}

func TestAnalyzeUsage(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("no capture, but a text"), 0o600); err != nil {
		t.Fatal(err)
	}
	capture := "../../internal/wire/ike/testdata/strongswan-v2.pcap"
	for name, tc := range map[string]struct {
		args []string
		code int
		want string // in the last line of stderr
	}{
		"no file":         {[]string{}, exitUsage, "accepts 1 arg"},
		"two files":       {[]string{capture, capture}, exitUsage, "accepts 1 arg"},
		"not there":       {[]string{"/nonexistent/x.pcap"}, exitUsage, "/nonexistent/x.pcap: no such file"},
		"directory":       {[]string{t.TempDir()}, exitUsage, "directory"},
		"no capture":      {[]string{text}, exitUsage, "neither pcap nor pcapng"},
		"which end":       {[]string{capture}, exitUsage, "say --peer with the address of the remote gateway"},
		"bad peer":        {[]string{capture, "--peer", "no such peer!"}, exitUsage, "neither an address nor a DNS name"},
		"bad local":       {[]string{capture, "--local", "x"}, exitUsage, "local"},
		"local elsewhere": {[]string{capture, "--local", "192.0.2.9"}, exitUsage, "198.51.100.2 and 203.0.113.2"},
		"bad format":      {[]string{capture, "--format", "xml"}, exitUsage, "text or json"},
		"bad language":    {[]string{capture, "--lang", "fr"}, exitUsage, "en or zh"},
		"bad last":        {[]string{capture, "--last", "-1s"}, exitUsage, "last"},
		"bad config":      {[]string{capture, "--config", "/nonexistent/agent.yaml"}, exitUsage, "/nonexistent/agent.yaml"},
	} {
		code, stdout, stderr := execute(t, append([]string{"analyze"}, tc.args...)...)
		if code != tc.code || stdout != "" || !strings.Contains(stderr, tc.want) || strings.Count(strings.TrimSpace(stderr), "\n") != 0 {
			t.Errorf("%s: status %d, stdout %q, stderr %q; want status %d and one line with %q", name, code, stdout, stderr, tc.code, tc.want)
		}
	}
}

// reports collects what is written, and calls done with the first line's end.
type reports struct {
	bytes.Buffer
	done func()
}

func (r *reports) Write(b []byte) (int, error) {
	if bytes.ContainsRune(b, '\n') {
		r.done()
	}
	return r.Buffer.Write(b)
}

// With --follow and JSON, each report is a line of its own, and the exit status
// is the last one's. What has been reported is not reported again at the end.
func TestAnalyzeFollow(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	stdout, stderr := reports{done: cancel}, bytes.Buffer{}
	code := run(ctx, []string{"analyze", "--follow", "--format", "json", "--peer", "198.51.100.2", "../../internal/wire/ike/testdata/strongswan-v2.pcap"}, &stdout, &stderr)
	lines := strings.Split(strings.TrimSuffix(stdout.String(), "\n"), "\n")
	if len(lines) != 1 {
		t.Fatalf("%d reports, want 1; stderr %q", len(lines), stderr.String())
	}
	if a := decodeReport(t, []byte(lines[0])); code != exitHealthy || a.Peer != "198.51.100.2" || a.Diagnosis != "ok" || a.Evidence.Capture.Mode != "file" {
		t.Errorf("status %d, report %+v", code, a)
	}
}

// espSender returns a function that sends ESP between two addresses of this
// host, with the next sequence number.
func espSender(t *testing.T, from, to string) func() {
	t.Helper()
	c, err := net.DialIP("ip4:50", &net.IPAddr{IP: net.ParseIP(from)}, &net.IPAddr{IP: net.ParseIP(to)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	b := make([]byte, 100)
	b[3] = 9 // SPI
	return func() {
		b[7]++
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
	}
}

// tcpdump's packets are diagnosed as they come through a pipe.
func TestAnalyzeTcpdump(t *testing.T) {
	if _, err := exec.LookPath("tcpdump"); err != nil {
		t.Skip("needs tcpdump")
	}
	if !netnstest.Child(t) {
		return
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	stdin := os.Stdin
	os.Stdin = r
	defer func() { os.Stdin = stdin }()
	dump := exec.Command("tcpdump", "-Z", "root", "-i", "lo", "-s", "2000", "-B", "8192", "--immediate-mode", "-c", "80", "-w", "-", "ip proto 50")
	dump.Stdout = w
	said, err := dump.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := dump.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close() // tcpdump has its own
	var banner []byte
	for b := make([]byte, 256); !bytes.Contains(banner, []byte("listening on")); {
		n, err := said.Read(b)
		if err != nil {
			t.Fatalf("tcpdump does not listen: %v: %s", err, banner)
		}
		banner = append(banner, b[:n]...)
	}
	there, back := espSender(t, "127.0.0.1", "127.0.0.2"), espSender(t, "127.0.0.2", "127.0.0.1")
	for range 40 {
		there()
		back()
	}
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), []string{"analyze", "-", "--peer", "127.0.0.2", "--format", "json"}, &stdout, &stderr)
	dump.Wait()
	a := decodeReport(t, stdout.Bytes())
	if c := a.Evidence.Capture; code == exitUsage || c.In.ESP.Packets != 40 || c.Out.ESP.Packets != 40 {
		t.Errorf("status %d, %+v, stderr %q", code, a, stderr.String())
	}
}
