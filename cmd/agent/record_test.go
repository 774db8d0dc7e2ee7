package main

import (
	"encoding/binary"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vpnprobe/internal/netnstest"
)

func TestRecordUsage(t *testing.T) {
	old := filepath.Join(t.TempDir(), "old")
	if err := os.WriteFile(old, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	fresh := filepath.Join(t.TempDir(), "new.pcapng")
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"no peer":         {[]string{fresh}, "--peer"},
		"no file":         {[]string{"--peer", "127.0.0.1"}, "accepts 1 arg"},
		"standard output": {[]string{"--peer", "127.0.0.1", "-"}, "standard output"},
		"exists":          {[]string{"--peer", "127.0.0.1", old}, "exists"},
		"no directory":    {[]string{"--peer", "127.0.0.1", "/nonexistent/x.pcapng"}, "no such file or directory"},
		"too small":       {[]string{"--peer", "127.0.0.1", "--max-size", "1kB", fresh}, "max-size"},
		"no size":         {[]string{"--peer", "127.0.0.1", "--max-size", "big", fresh}, "max-size"},
		"too short":       {[]string{"--peer", "127.0.0.1", "--duration", "1ms", fresh}, "duration"},
		"bad format":      {[]string{"--peer", "127.0.0.1", "--format", "xml", fresh}, "text or json"},
		"bad language":    {[]string{"--peer", "127.0.0.1", "--lang", "fr", fresh}, "en or zh"},
		"bad peer":        {[]string{"--peer", "no such peer!", fresh}, "neither an address nor a DNS name"},
	} {
		code, stdout, stderr := execute(t, append([]string{"record"}, tc.args...)...)
		if code != exitUsage || stdout != "" || !strings.Contains(stderr, tc.want) || strings.Count(strings.TrimSpace(stderr), "\n") != 0 {
			t.Errorf("%s: status %d, stdout %q, stderr %q; want one line with %q", name, code, stdout, stderr, tc.want)
		}
	}
	if b, _ := os.ReadFile(old); string(b) != "precious" {
		t.Errorf("the existing file now holds %q", b)
	}
	if _, err := os.Stat(fresh); err == nil {
		t.Error("a file was left behind")
	}
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{
		"0": 0, "500000": 500000, "64MB": 64e6, "64MiB": 64 << 20, "1kB": 1000, "2KiB": 2048, "3GB": 3e9, "4GiB": 4 << 30, "7B": 7,
		"": -1, "MB": -1, "-1MB": -1, "1.5MB": -1, "64 MB": -1, "9223372036854775807GB": -1, "1TB": -1,
	} {
		got, err := parseSize(s)
		if want < 0 && err == nil || want >= 0 && (err != nil || got != want) {
			t.Errorf("%q: %d, %v; want %d", s, got, err, want)
		}
	}
}

// gateway makes an interface wan with a route to a peer that nothing answers
// for, and returns a function that has the peer send.
func gateway(t *testing.T) (send func(payload []byte, proto byte)) {
	t.Helper()
	netnstest.Veth(t)
	netnstest.IP(t, "address add 203.0.113.2/24 dev wan",
		"neighbor add 203.0.113.1 lladdr 02:00:00:00:00:01 dev wan nud permanent",
		"route add 198.51.100.2 via 203.0.113.1")
	put := netnstest.Sender(t, "isp")
	wan, err := net.InterfaceByName("wan")
	if err != nil {
		t.Fatal(err)
	}
	return func(payload []byte, proto byte) {
		b := append([]byte{}, wan.HardwareAddr...)
		b = append(b, 2, 0, 0, 0, 0, 1, 8, 0)
		header := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, proto, 0, 0, 198, 51, 100, 2, 203, 0, 113, 2}
		binary.BigEndian.PutUint16(header[2:], uint16(20+len(payload)))
		put(append(append(b, header...), payload...))
	}
}

// A recording made while the agent probes is diagnosed again from the file, and
// shows what passed.
func TestRecord(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	send := gateway(t)
	path := filepath.Join(t.TempDir(), "ticket.pcapng")
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		b := make([]byte, 8+120)
		b[3] = 7
		copy(b[8:], strings.Repeat("secret", 20))
		time.Sleep(2 * time.Second)
		for seq := range byte(50) {
			b[7] = seq + 1
			send(b, 50)
		}
	}()
	code, stdout, stderr := execute(t, "record", "--peer", "198.51.100.2", "--duration", "5s", "--format", "json", path)
	<-sent
	live := decodeReport(t, []byte(stdout))
	if code == exitUsage || !strings.Contains(stderr, path+": ") {
		t.Fatalf("status %d, stderr %q", code, stderr)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(file), "secret") {
		t.Error("the file holds payload")
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if !strings.Contains(string(file[:4096]), live.Diagnosis) || !strings.Contains(string(file[:4096]), "peer 198.51.100.2") {
		t.Errorf("the comment does not tell the diagnosis %s: %q", live.Diagnosis, file[:600])
	}
	code, stdout, stderr = execute(t, "analyze", "--format", "json", path)
	again := decodeReport(t, []byte(stdout))
	if code == exitUsage || again.Peer != "198.51.100.2" {
		t.Errorf("analyze: status %d, %+v, stderr %q", code, again, stderr)
	}
	l, a := live.Evidence.Capture, again.Evidence.Capture
	if a.In.ESP != l.In.ESP || a.In.ESP.Packets != 50 || a.In.ESP.Bytes != 50*148 || a.Out.ESP.Packets != 0 {
		t.Errorf("ESP live %+v, again %+v", l.In.ESP, a.In.ESP)
	}
	if a.Out.ike() == 0 || a.Out.ike() < l.Out.ike() {
		t.Errorf("IKE out live %v, again %v", l.Out.IKE, a.Out.IKE)
	}
	if _, err := exec.LookPath("capinfos"); err != nil {
		return // what Wireshark makes of a recording is tested with the recorder
	}
	out, err := exec.Command("capinfos", path).CombinedOutput()
	if err != nil || !strings.Contains(string(out), live.Diagnosis) {
		t.Errorf("capinfos: %v\n%s", err, out)
	}
}

// Where nothing can be captured, no file is left.
func TestRecordNothing(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	path := filepath.Join(t.TempDir(), "ticket.pcapng")
	code, _, stderr := execute(t, "record", "--peer", "198.51.100.2", "--duration", "2s", path) // without a route
	if _, err := os.Stat(path); code != exitUsage || err == nil || !strings.Contains(stderr, "no packet could be captured") {
		t.Errorf("status %d, stderr %q, file %v", code, stderr, err)
	}
}
