package capture

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/gopacket/layers"

	"vpnprobe/evidence"
)

// newRecording returns a recorder and the path of its file.
func newRecording(t testing.TB, size int64) (*Recorder, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "wan.pcapng")
	r, err := NewRecorder(RecordConfig{Path: path, MaxSize: size, App: "vpnprobe test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Finish(said(""), 0) })
	return r, path
}

func said(s string) func(Recorded) string { return func(Recorded) string { return s } }

func recorded(t testing.TB, path string) []Frame {
	t.Helper()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	frames, err := readAll(file)
	if err != nil {
		t.Fatal(err)
	}
	return frames
}

// What a recording keeps of each kind of packet: no payload, but IKE.
func TestRecordCut(t *testing.T) {
	ipESP := builtIP(t, fileHost, filePeer, layers.IPProtocolESP, builtESP(7, 1, 1000))
	message := builtUDP(500, 500, builtIKE(35, 8, 1, 1400))
	tcp := append([]byte{1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 7 << 4, 0, 0, 0, 0, 0, 0, 0, 2, 4, 5, 6, 0, 0, 0, 0}, secret(500)...)
	icmpError := func(quote []byte) []byte { return append([]byte{3, 4, 0, 0, 0, 0, 5, 0x78}, quote...) }
	var c cutter
	for _, tc := range []struct {
		name string
		ip   []byte
		keep int // of the IP packet
	}{
		{"ESP", ipESP, 20 + 8},
		{"ESP in IPv6", builtIP(t, fileHost6, filePeer6, layers.IPProtocolESP, builtESP(7, 1, 1000)), 40 + 8},
		{"ESP in UDP", builtIP(t, fileHost, filePeer, layers.IPProtocolUDP, builtUDP(4500, 4500, builtESP(7, 1, 1000))), 20 + 8 + 8},
		{"AH", builtIP(t, fileHost, filePeer, layers.IPProtocolAH, append([]byte{4, 4, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1}, secret(100)...)), 20 + 12},
		{"IKE", builtIP(t, fileHost, filePeer, layers.IPProtocolUDP, message), 20 + len(message)},
		{"IKE on 4500", builtIP(t, fileHost, filePeer, layers.IPProtocolUDP, builtUDP(4500, 4500, append(make([]byte, 4), builtIKE(35, 8, 1, 300)...))), 20 + 8 + 4 + 328},
		{"not quite IKE", builtIP(t, fileHost, filePeer, layers.IPProtocolUDP, builtUDP(40000, 500, []byte("odd"))), 20 + 8 + 3},
		{"keepalive", builtIP(t, fileHost, filePeer, layers.IPProtocolUDP, builtUDP(4500, 4500, []byte{0xff})), 20 + 8 + 1},
		{"short on 4500", builtIP(t, fileHost, filePeer, layers.IPProtocolUDP, builtUDP(4500, 4500, secret(6))), 20 + 8 + 6},
		{"in clear, UDP", builtIP(t, fileHost, filePeer, layers.IPProtocolUDP, builtUDP(53, 53, secret(100))), 20 + 8},
		{"in clear, TCP", builtIP(t, fileHost, filePeer, layers.IPProtocolTCP, tcp), 20 + 28},
		{"in clear, ping", builtIP(t, fileHost, filePeer, layers.IPProtocolICMPv4, append([]byte{8, 0, 0, 0, 0, 1, 0, 1}, secret(56)...)), 20 + 8},
		{"in clear, GRE", builtIP(t, fileHost, filePeer, layers.IPProtocolGRE, secret(100)), 20},
		{"error about ESP", builtIP(t, fileRouter, fileHost, layers.IPProtocolICMPv4, icmpError(ipESP[:540])), 20 + 8 + 20 + 8},
		{"error about IKE", builtIP(t, fileRouter, fileHost, layers.IPProtocolICMPv4, icmpError(builtIP(t, fileHost, filePeer, layers.IPProtocolUDP, message)[:540])), 20 + 8 + 540},
		{"error about TCP", builtIP(t, fileRouter, fileHost, layers.IPProtocolICMPv4, icmpError(builtIP(t, fileHost, filePeer, layers.IPProtocolTCP, tcp))), 20 + 8 + 20 + 28},
		{"fragment of nothing known", builtFragment(t, fileHost, filePeer, layers.IPProtocolUDP, 8, 1200, false, secret(100)), 20},
		{"first fragment of IKE", builtFragment(t, fileHost, filePeer, layers.IPProtocolUDP, 9, 0, true, message[:1200]), 20 + 1200},
		{"last fragment of IKE", builtFragment(t, fileHost, filePeer, layers.IPProtocolUDP, 9, 1200, false, message[1200:]), 20 + len(message) - 1200},
		{"of another packet", builtFragment(t, fileHost, filePeer, layers.IPProtocolUDP, 10, 1200, false, secret(100)), 20},
		{"later fragment of ESP", builtFragment(t, fileHost, filePeer, layers.IPProtocolESP, 11, 1200, false, secret(100)), 20},
		{"later fragment of TCP", builtFragment(t, fileHost, filePeer, layers.IPProtocolTCP, 12, 1200, false, secret(100)), 20},
	} {
		frame := builtEther(tc.ip)
		if n := c.keep(Frame{Data: frame, Link: LinkEthernet, WireLen: len(frame)}); n != 14+tc.keep {
			t.Errorf("%s: keeps %d bytes of the packet, want %d", tc.name, n-14, tc.keep)
		}
		for size := range frame { // however short the capture cut it
			if n := c.keep(Frame{Data: frame[:size:size], Link: LinkEthernet, WireLen: len(frame)}); n > size || n > 14+tc.keep {
				t.Errorf("%s: keeps %d of %d bytes", tc.name, n, size)
			}
		}
	}
	if n := c.keep(Frame{Data: []byte("no IP here, and nothing to tell"), Link: LinkEthernet, WireLen: 31}); n != 0 {
		t.Errorf("keeps %d bytes of what is not IP", n)
	}
}

// What was recorded reads as it was shown, but for what was cut.
func TestRecordRoundTrip(t *testing.T) {
	r, path := newRecording(t, 1<<20)
	shown := builtFrames(t)
	for i := range shown {
		shown[i].Interface = "wan"
		if i%2 == 1 {
			shown[i].Interface = "lte"
		}
		shown[i].Time = shown[i].Time.Add(123456789)
		r.Frame(shown[i])
	}
	r.Frame(Frame{Data: []byte("not IP"), Link: LinkEthernet, WireLen: 6})
	got := r.Finish(said("all is well"), 7)
	r.Frame(shown[0]) // too late
	if got.Err != nil || got.Frames != 4 || got.Full || !got.Until.Equal(shown[3].Time) {
		t.Errorf("%+v", got)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 || info.Size() != got.Bytes {
		t.Errorf("%v, %v, want mode 0600 and %d bytes", info, err, got.Bytes)
	}
	file := recorded(t, path)
	if len(file) != len(shown) {
		t.Fatalf("%d frames, want %d", len(file), len(shown))
	}
	for i, f := range file {
		w := shown[i]
		if f.Interface != w.Interface || f.Outgoing != w.Outgoing || f.WireLen != w.WireLen || !f.Time.Equal(w.Time) || !bytes.HasPrefix(w.Data, f.Data) || bytes.Contains(f.Data, []byte("secret")) {
			t.Errorf("frame %d: got %+v, want %+v", i, f, w)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p := NewPcapReader(bytes.NewReader(b))
	for err == nil {
		_, err = p.Next()
	}
	if p.Dropped() != 7 {
		t.Errorf("%d dropped, want 7", p.Dropped())
	}
	if again := r.Finish(said("again"), 0); again != got {
		t.Errorf("finished again: %+v", again)
	}
}

// An observer counts of the recording what it counts of the frames themselves.
func TestRecordCounts(t *testing.T) {
	peers := []Peer{{Name: "p", Addrs: append(normalize(nil), filePeer, filePeer6)}}
	live := NewObserver(peers)
	r, path := newRecording(t, 1<<20)
	show := func(f Frame) {
		live.Packet(f)
		r.Frame(f)
	}
	at := fileEpoch
	add := func(outgoing bool, ip []byte) {
		at = at.Add(10 * time.Millisecond)
		f := builtEther(ip)
		show(Frame{Data: f, Link: LinkEthernet, Interface: "wan", Outgoing: outgoing, WireLen: len(f), Time: at})
	}
	for seq := range uint32(500) {
		if seq%50 == 7 {
			continue // lost
		}
		add(true, builtIP(t, fileHost, filePeer, layers.IPProtocolESP, builtESP(0xaaaa, seq+1, int(seq))))
		add(false, builtIP(t, filePeer6, fileHost6, layers.IPProtocolUDP, builtUDP(4500, 4500, builtESP(0xbbbb, seq+1, 1300))))
	}
	add(true, builtIP(t, fileHost, filePeer, layers.IPProtocolUDP, builtUDP(500, 500, builtIKE(34, 8, 0, 400))))
	add(false, builtIP(t, filePeer, fileHost, layers.IPProtocolUDP, builtUDP(500, 500, builtIKE(34, 0x20, 0, 400))))
	add(false, builtIP(t, fileRouter, fileHost, layers.IPProtocolICMPv4,
		append([]byte{3, 4, 0, 0, 0, 0, 5, 0x78}, builtIP(t, fileHost, filePeer, layers.IPProtocolESP, builtESP(0xaaaa, 9, 500))...)))
	if done := r.Finish(said(""), 0); done.Err != nil || done.Frames != 983 {
		t.Fatalf("%+v", done)
	}
	again := NewObserver(peers)
	for _, f := range recorded(t, path) {
		again.Packet(f)
	}
	want, err := json.MarshalIndent(live.Counts("p").Since(Counts{}, evidence.No), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.MarshalIndent(again.Counts("p").Since(Counts{}, evidence.No), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, got) {
		t.Errorf("recorded:\n%s\nlive:\n%s", got, want)
	}
}

func TestRecordFull(t *testing.T) {
	const size = 64 << 10
	r, path := newRecording(t, size)
	f := builtFrames(t)[2] // IKE, kept whole
	for range 1000 {
		f.Time = f.Time.Add(time.Millisecond)
		r.Frame(f)
	}
	small := builtFrames(t)[0]
	r.Frame(small) // would fit, but the recording has ended
	var told Recorded
	done := r.Finish(func(so Recorded) string { told = so; return strings.Repeat("long ", 10000) }, 0)
	if !done.Full || !told.Full || done.Err != nil || done.Bytes > size || done.Bytes < size-recordEnd-1000 {
		t.Errorf("%+v, told %+v", done, told)
	}
	frames := recorded(t, path)
	if uint64(len(frames)) != done.Frames || !frames[len(frames)-1].Time.Equal(done.Until) {
		t.Errorf("%d frames until %v, want %d until %v", len(frames), frames[len(frames)-1].Time, done.Frames, done.Until)
	}
}

// An existing file stays as it is; a directory that is not there is told of.
func TestRecordRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "old")
	if err := os.WriteFile(path, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := NewRecorder(RecordConfig{Path: path, MaxSize: 1 << 20})
	if err == nil || !strings.Contains(err.Error(), "exists") {
		t.Errorf("existing file: %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "precious" {
		t.Errorf("now it holds %q", b)
	}
	if _, err := NewRecorder(RecordConfig{Path: filepath.Join(path, "x"), MaxSize: 1 << 20}); err == nil {
		t.Error("no error below a file")
	}
	if _, err := NewRecorder(RecordConfig{Path: path + "2", MaxSize: 1000}); err == nil {
		t.Error("no error of a size that is too small")
	}
}

// A disk that is full ends the recording between two packets; what is before
// stays, with the comment.
func TestRecordDiskFull(t *testing.T) {
	r, path := newRecording(t, 1<<20)
	f := builtFrames(t)[2]
	written := 0
	r.write = func(b []byte) (int, error) {
		n := min(len(b), 100_000-written)
		written += n
		n, err := r.file.Write(b[:n])
		if err == nil && n < len(b) {
			err = errors.New("no space left on device")
		}
		return n, err
	}
	for range 1000 {
		f.Time = f.Time.Add(time.Millisecond)
		r.Frame(f)
	}
	done := r.Finish(said("so far"), 0)
	if done.Err == nil || !strings.Contains(done.Err.Error(), "no space") {
		t.Errorf("%+v", done)
	}
	frames := recorded(t, path)
	if info, err := os.Stat(path); err != nil || info.Size() != done.Bytes || info.Size() > ngHead+100_000 {
		t.Errorf("%d bytes, %v; want %d", info.Size(), err, done.Bytes)
	}
	if len(frames) < 100 || uint64(len(frames)) != done.Frames || frames[len(frames)-1].Time.Before(done.Until) {
		t.Errorf("%d frames in the file, %+v", len(frames), done)
	}
}

// A recorder that is killed leaves a file that reads up to its last packets,
// and says so.
func TestRecordKilled(t *testing.T) {
	r, path := newRecording(t, 1<<20)
	for _, f := range builtFrames(t) { // seconds apart, so that they are written
		r.Frame(f)
	}
	if n := len(recorded(t, path)); n < 3 {
		t.Errorf("%d frames before the end", n)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(file[:200], []byte("not finished")) || !unfinished(file) {
		t.Errorf("the file does not say that it is not finished: %q", file[:200])
	}
	r.Finish(func(Recorded) string { return "all of it" }, 0)
	if file, err = os.ReadFile(path); err != nil || unfinished(file) {
		t.Errorf("once finished, the file says that it is not: %v", err)
	}
}

// unfinished reports whether a reader says so of a file.
func unfinished(file []byte) bool {
	r := NewPcapReader(bytes.NewReader(file))
	for {
		if _, err := r.Next(); err != nil {
			return r.Unfinished()
		}
	}
}

func TestAppendHead(t *testing.T) {
	for _, comment := range []string{"", "a", "ab", "abc", "abcd", strings.Repeat("x", ngHead), strings.Repeat("网", ngHead/2)} {
		for _, app := range []string{"", "vpnprobe 1.0"} {
			b := appendHead(nil, app, comment)
			if len(b) != ngHead || wholeBlocks(b) != ngHead {
				t.Errorf("comment of %d bytes: head of %d, whole %d", len(comment), len(b), wholeBlocks(b))
			}
			// The comment is the first option: code, length, value.
			got := string(b[28 : 28+binary.LittleEndian.Uint16(b[26:])])
			if start, long := strings.CutSuffix(got, " ..."); !utf8.ValidString(got) || !strings.HasPrefix(comment, start) || long != (len(comment) >= ngHead) {
				t.Errorf("comment of %d bytes: %d are kept", len(comment), len(got))
			}
			if _, err := readAll(b); err != nil {
				t.Errorf("comment of %d bytes: %v", len(comment), err)
			}
		}
	}
	if s := cut("网网网", 8); s != "网 ..." || cut("abc", 3) != "abc" {
		t.Errorf("cut to %q", s)
	}
}

// Wireshark's tools read the recording: its comment, its packets with their
// directions, and the counts.
func TestRecordWireshark(t *testing.T) {
	for _, tool := range []string{"capinfos", "tshark"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs", tool)
		}
	}
	r, path := newRecording(t, 1<<20)
	for _, f := range builtFrames(t) {
		f.Interface = "wan"
		r.Frame(f)
	}
	const comment = "down: esp_blocked\n- 12 packets out, 0 in 10 s"
	if done := r.Finish(said(comment), 3); done.Err != nil {
		t.Fatal(done.Err)
	}
	output := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v: %s", name, err, stderr.String())
		}
		return string(out)
	}
	info := output("capinfos", path)
	for _, want := range []string{"pcapng", "vpnprobe test", "esp_blocked", "12 packets out", "Name = wan", "Number of packets:   4"} {
		if !strings.Contains(info, want) {
			t.Errorf("capinfos does not say %q:\n%s", want, info)
		}
	}
	got := strings.Fields(output("tshark", "-r", path, "-T", "fields", "-E", "separator=,", "-E", "occurrence=f", "-e", "frame.packet_flags_direction", "-e", "frame.len", "-e", "esp.spi", "-e", "esp.sequence", "-e", "isakmp.exchangetype"))
	want := []string{"0x00000002,114,0x0000aaaa,1,", "0x00000001,114,0x0000bbbb,1,", "0x00000001,270,,,34", "0x00000002,101,0x0000cccc,7,"}
	if !slices.Equal(got, want) {
		t.Errorf("tshark shows\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Whatever is shown, the file is bounded and reads back.
func FuzzRecord(f *testing.F) {
	for _, b := range builtFrames(f) {
		f.Add(b.Data, uint32(b.Link), 1500, true)
	}
	f.Add([]byte{}, uint32(LinkRaw), -1, false)
	f.Fuzz(func(t *testing.T, data []byte, link uint32, wire int, outgoing bool) {
		r, path := newRecording(t, MinRecording)
		for i := range 3 {
			r.Frame(Frame{Data: data, Link: LinkType(link), Interface: fmt.Sprint(i), Outgoing: outgoing, WireLen: wire, Time: fileEpoch})
		}
		done := r.Finish(said("x"), 1)
		if done.Err != nil || done.Bytes > MinRecording {
			t.Fatalf("%+v", done)
		}
		if n := len(recorded(t, path)); uint64(n) != done.Frames {
			t.Errorf("%d frames, want %d", n, done.Frames)
		}
	})
}
