package hoststate

import (
	"bytes"
	"compress/gzip"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vpnprobe/evidence"
	"vpnprobe/internal/netnstest"
)

// root makes a Reader of files below a temporary directory.
func root(t *testing.T, files map[string]string) *Reader {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return &Reader{proc: filepath.Join(dir, "proc"), sys: filepath.Join(dir, "sys"), lib: filepath.Join(dir, "lib")}
}

func gzipped(t *testing.T, s string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write([]byte(s))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestESPOffload(t *testing.T) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	builtin := "lib/modules/" + unix.ByteSliceToString(name.Release[:]) + "/modules.builtin"
	tests := []struct {
		name  string
		files map[string]string
		want  evidence.Fact
	}{
		{"module loaded", map[string]string{"sys/module/esp4_offload/refcnt": "1"}, evidence.Yes},
		{"IPv6 module loaded", map[string]string{"sys/module/esp6_offload/refcnt": "1"}, evidence.Yes},
		{"built in", map[string]string{"sys/module/x/y": "", builtin: "kernel/net/ipv4/esp4_offload.ko\n"}, evidence.Yes},
		{"not built in", map[string]string{"sys/module/x/y": "", builtin: "kernel/net/ipv4/esp4.ko\n"}, evidence.No},
		{"built in by configuration", map[string]string{"sys/module/x/y": "", "proc/config.gz": gzipped(t, "CONFIG_A=y\nCONFIG_INET_ESP_OFFLOAD=y\n")}, evidence.Yes},
		{"module by configuration", map[string]string{"sys/module/x/y": "", "proc/config.gz": gzipped(t, "CONFIG_INET_ESP_OFFLOAD=m\n")}, evidence.No},
		{"damaged configuration", map[string]string{"sys/module/x/y": "", "proc/config.gz": gzipped(t, "CONFIG_A=y\n")[:12]}, evidence.Unknown},
		{"no list", map[string]string{"sys/module/x/y": ""}, evidence.Unknown},
		{"no sysfs", map[string]string{builtin: ""}, evidence.Unknown},
	}
	for _, tt := range tests {
		if got := root(t, tt.files).espOffload(); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestCaptureBlind(t *testing.T) {
	netnstest.Thread(t)
	run(t, underlay...)
	run(t, "ip link add link wan name wan.7 type vlan id 7 2>/dev/null || ip link add wan.7 type bridge")
	setGRO := func(dev, state string) {
		value := &ethtoolValue{command: unix.ETHTOOL_SGRO}
		if state == "on" {
			value.data = 1
		}
		if err := ethtool(dev, value); err != nil {
			t.Fatalf("set GRO %s on %s: %v", state, dev, err)
		}
	}
	loaded := map[string]string{"sys/module/esp4_offload/refcnt": "1"}
	absent := map[string]string{"sys/module/x/y": "", "proc/config.gz": gzipped(t, "")}
	unknown := map[string]string{}
	readable := func(sas ...evidence.SA) evidence.Tunnel { return evidence.Tunnel{Readable: evidence.Yes, SAs: sas} }
	in := evidence.SA{Inbound: true, Protocol: "esp"}
	inUDP := evidence.SA{Inbound: true, Protocol: "esp", Encap: true}
	tests := []struct {
		name  string
		files map[string]string
		dev   string
		gro   string
		t     evidence.Tunnel
		want  evidence.Fact
	}{
		{"all three", loaded, "wan", "on", readable(inUDP, in), evidence.Yes},
		{"no offload code", absent, "wan", "on", readable(in), evidence.No},
		{"offload code unknown", unknown, "wan", "on", readable(in), evidence.Unknown},
		{"GRO off", loaded, "wan", "off", readable(in), evidence.No},
		{"GRO off on a device above another", loaded, "wan.7", "off", readable(in), evidence.Unknown},
		{"GRO unknown", loaded, "nosuch0", "", readable(in), evidence.Unknown},
		{"no interface", loaded, "", "", readable(in), evidence.Unknown},
		{"GRO unknown, no offload code", absent, "nosuch0", "", readable(in), evidence.No},
		{"no SA", loaded, "wan", "on", readable(), evidence.No},
		{"outbound SA", loaded, "wan", "on", readable(evidence.SA{Protocol: "esp"}), evidence.No},
		{"inbound AH", loaded, "wan", "on", readable(evidence.SA{Inbound: true, Protocol: "ah"}), evidence.No},
		{"ESP in UDP", loaded, "wan", "on", readable(inUDP), evidence.Unknown},
		{"SAs unreadable", loaded, "wan", "on", evidence.Tunnel{}, evidence.Unknown},
		{"kernel without IPsec", loaded, "wan", "on", evidence.Tunnel{Readable: evidence.No}, evidence.No},
	}
	for _, tt := range tests {
		if tt.gro != "" {
			setGRO(tt.dev, tt.gro)
		}
		got, reason := root(t, tt.files).CaptureBlind(tt.dev, tt.t)
		if got != tt.want || (reason == "") != (got == evidence.No) {
			t.Errorf("%s: %v, %q, want %v", tt.name, got, reason, tt.want)
		}
	}
}

const udpHeader = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n"

func TestDaemonTables(t *testing.T) {
	line := func(local string) string {
		return udpHeader + "  1: " + local + " 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 0 0\n"
	}
	const udp, udp6 = "proc/thread-self/net/udp", "proc/thread-self/net/udp6"
	tests := []struct {
		name  string
		files map[string]string
		want  evidence.Fact
	}{
		{"500", map[string]string{udp: line("00000000:01F4"), udp6: udpHeader}, evidence.Yes},
		{"4500 over IPv6", map[string]string{udp: udpHeader, udp6: line("00000000000000000000000000000000:1194")}, evidence.Yes},
		{"1194 in decimal is OpenVPN", map[string]string{udp: line("00000000:04AA"), udp6: udpHeader}, evidence.No},
		{"a remote port", map[string]string{udp: udpHeader + "  1: 0100007F:D431 0200007F:01F4 01\n", udp6: udpHeader}, evidence.No},
		{"no IPv6", map[string]string{udp: udpHeader}, evidence.No},
		{"no table", map[string]string{udp6: udpHeader}, evidence.Unknown},
		{"IPv6 table only", map[string]string{udp6: line("00000000000000000000000000000000:01F4")}, evidence.Yes},
		{"damaged", map[string]string{udp: strings.Repeat("x", 1<<17)}, evidence.Unknown},
	}
	for _, tt := range tests {
		if got, _ := root(t, tt.files).Daemon(); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestDaemon(t *testing.T) {
	netnstest.Thread(t)
	for _, listen := range []string{"127.0.0.1:500", "[::]:4500"} {
		if got, _ := New().Daemon(); got != evidence.No {
			t.Fatalf("Daemon() in an empty namespace = %v", got)
		}
		conn, err := net.ListenPacket("udp", listen)
		if err != nil {
			t.Fatal(err)
		}
		got, backlog := New().Daemon()
		if got != evidence.Yes || backlog != evidence.Some(0) {
			t.Errorf("Daemon() with a socket on %s = %v, %v", listen, got, backlog)
		}
		sender, err := net.Dial("udp", conn.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sender.Write([]byte("never read")); err != nil {
			t.Fatal(err)
		}
		sender.Close()
		if _, backlog := New().Daemon(); backlog.Or(0) == 0 {
			t.Errorf("Daemon() with a datagram waiting on %s: backlog %v", listen, backlog)
		}
		conn.Close()
	}
}
