package agent

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnprobe/capture"
	"vpnprobe/config"
	"vpnprobe/diagnosis"
)

// The hosts of the captures.
const (
	tapeHost  = "203.0.113.2"
	tapePeer  = "198.51.100.2"
	tapeOther = "192.0.2.9"
	tapeLocal = "10.9.0.1"
)

var tapeBegin = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// rawESP is an ESP packet of IPv4.
func rawESP(src, dst string, spi, seq uint32) []byte {
	b := make([]byte, 20+8+64)
	b[0], b[8], b[9] = 0x45, 64, 50
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	copy(b[12:], netip.MustParseAddr(src).AsSlice())
	copy(b[16:], netip.MustParseAddr(dst).AsSlice())
	binary.BigEndian.PutUint32(b[20:], spi)
	binary.BigEndian.PutUint32(b[24:], seq)
	return b
}

// classicFile is a file of raw IP packets in the pcap format, without its
// frames if there are none.
func classicFile(frames ...capture.Frame) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 0xa1b2c3d4)
	b = append(b, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, 65535)
	b = binary.LittleEndian.AppendUint32(b, uint32(capture.LinkRaw))
	return append(b, classicFrames(frames...)...)
}

func classicFrames(frames ...capture.Frame) (b []byte) {
	for _, f := range frames {
		b = binary.LittleEndian.AppendUint32(b, uint32(f.Time.Unix()))
		b = binary.LittleEndian.AppendUint32(b, uint32(f.Time.Nanosecond()/1000))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(f.Data)))
		b = binary.LittleEndian.AppendUint32(b, uint32(f.WireLen))
		b = append(b, f.Data...)
	}
	return b
}

// espFrames are n packets of ESP, a tenth of a second apart.
func espFrames(src, dst string, spi uint32, n int, at time.Time) (out []capture.Frame) {
	for seq := range n {
		b := rawESP(src, dst, spi, uint32(seq)+1)
		out = append(out, capture.Frame{Data: b, Link: capture.LinkRaw, WireLen: len(b), Time: at.Add(time.Duration(seq) * 100 * time.Millisecond)})
	}
	return out
}

// bothWays are n packets of ESP each way.
func bothWays(a, b string, n int, at time.Time) []capture.Frame {
	var out []capture.Frame
	there, back := espFrames(a, b, 0x1111, n, at), espFrames(b, a, 0x2222, n, at.Add(50*time.Millisecond))
	for i := range n {
		out = append(out, there[i], back[i])
	}
	return out
}

// heard is what an analysis said.
type heard struct {
	Reports []*diagnosis.Report
	Notes   []string
}

// analyze runs an analysis of a file's content.
func (h *heard) analyze(t *testing.T, o Offline, cfg *config.Config, file []byte) error {
	t.Helper()
	if o.Path == "" && o.Stdin == nil {
		o.Path = filepath.Join(t.TempDir(), "wan.pcap")
		if err := os.WriteFile(o.Path, file, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if cfg == nil {
		cfg = config.Default()
	}
	return h.run(t.Context(), o, cfg)
}

func (h *heard) run(ctx context.Context, o Offline, cfg *config.Config) error {
	o.Note = func(s string) { h.Notes = append(h.Notes, s) }
	o.Report = func(r *diagnosis.Report) error {
		h.Reports = append(h.Reports, r)
		return nil
	}
	return o.Run(ctx, cfg)
}

// piped returns the end of a pipe through which the file comes.
func piped(t *testing.T, file []byte) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Write(file)
		w.Close()
	}()
	t.Cleanup(func() {
		r.Close() // which ends a writer
		<-done
	})
	return r
}

func configWith(peers ...string) *config.Config {
	cfg := config.Default()
	for i := 0; i+1 < len(peers); i += 2 {
		cfg.Peers = append(cfg.Peers, cfg.NewPeer(peers[i], peers[i+1]))
	}
	return cfg
}

// Which peer a capture is looked at for, and what is said where that is not
// clear. Through a pipe the same is found as in a file.
func TestOfflinePeer(t *testing.T) {
	tunnel := bothWays(tapeHost, tapePeer, 5, tapeBegin)
	other := bothWays(tapeHost, tapeOther, 3, tapeBegin)
	nat := bothWays(tapeLocal, tapePeer, 5, tapeBegin)
	ours := func(frames []capture.Frame, host string) []byte {
		r, err := capture.NewRecorder(capture.RecordConfig{Path: filepath.Join(t.TempDir(), "f"), MaxSize: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range frames {
			f.Outgoing = netip.AddrFrom4([4]byte(f.Data[12:16])).String() == host
			r.Frame(f)
		}
		if done := r.Finish(func(capture.Recorded) string { return "" }, 0); done.Err != nil {
			t.Fatal(done.Err)
		}
		b, err := os.ReadFile(r.Path())
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	here := func(s string) func(netip.Addr) bool {
		return func(a netip.Addr) bool { return a.String() == s }
	}
	for name, tc := range map[string]struct {
		file []byte
		o    Offline
		cfg  *config.Config
		want string // the peer, or what the error says
		note string
	}{
		"not clear":        {classicFile(tunnel...), Offline{}, nil, "198.51.100.2 and 203.0.113.2 speak IPsec, and nothing tells which of them is this side: say --peer with the address of the remote gateway", ""},
		"local":            {classicFile(tunnel...), Offline{Local: netip.MustParseAddr(tapeHost)}, nil, tapePeer, ""},
		"local, other end": {classicFile(tunnel...), Offline{Local: netip.MustParseAddr(tapePeer)}, nil, tapeHost, ""},
		"local, not there": {classicFile(tunnel...), Offline{Local: netip.MustParseAddr(tapeOther)}, nil, "no IPsec with --local 192.0.2.9", ""},
		"local among others": {classicFile(append(tunnel, bothWays(tapeOther, tapeLocal, 2, tapeBegin)...)...),
			Offline{Local: netip.MustParseAddr(tapeHost)}, nil, tapePeer, ""},
		"by address":    {classicFile(tunnel...), Offline{Peer: tapePeer}, nil, tapePeer, ""},
		"private":       {classicFile(nat...), Offline{}, nil, tapePeer, "10.9.0.1 is taken for this side"},
		"this host":     {classicFile(tunnel...), Offline{Here: here(tapeHost)}, nil, tapePeer, "an address of this host"},
		"directions":    {ours(tunnel, tapeHost), Offline{}, nil, tapePeer, "which packets went out"},
		"the far side":  {ours(tunnel, tapePeer), Offline{}, nil, tapeHost, "which packets went out"},
		"two peers":     {ours(append(tunnel, other...), tapeHost), Offline{}, nil, "several pairs of hosts speak IPsec: say --peer with the address of the remote gateway: 198.51.100.2 and 203.0.113.2 (10 packets), 192.0.2.9 and 203.0.113.2 (6 packets)", ""},
		"two of ours":   {classicFile(append(nat, bothWays("10.9.0.2", tapePeer, 5, tapeBegin)...)...), Offline{}, nil, tapePeer, ""},
		"configured":    {classicFile(append(tunnel, other...)...), Offline{}, configWith("cloud", tapePeer, "away", "192.0.2.77"), "cloud", ""},
		"both are":      {classicFile(append(tunnel, other...)...), Offline{}, configWith("cloud", tapePeer, "branch", tapeOther), "several configured peers are in it: say --peer with one of cloud, branch", ""},
		"by name":       {classicFile(append(tunnel, other...)...), Offline{Peer: "branch"}, configWith("cloud", tapePeer, "branch", tapeOther), "branch", ""},
		"none are":      {classicFile(nat...), Offline{}, configWith("away", "192.0.2.77"), tapePeer, "taken for"},
		"not there":     {classicFile(tunnel...), Offline{Peer: tapeOther}, nil, tapeOther, "no IPsec with peer 192.0.2.9 (192.0.2.9) in it, but of 198.51.100.2 and 203.0.113.2 (10 packets)"},
		"nothing there": {classicFile(), Offline{}, nil, ErrNoTraffic.Error(), ""},
		"no file":       {nil, Offline{Path: "/nonexistent/x.pcap"}, nil, "no such file", ""},
		"empty":         {nil, Offline{}, nil, "empty, or cut within the header of a capture", ""},
		"one, and cut":  {classicFile(tunnel[:1]...)[:100], Offline{}, nil, "cut before the end of its first packet", ""},
		"peer is local": {classicFile(tunnel...), Offline{Peer: tapePeer, Local: netip.MustParseAddr(tapePeer)}, nil, "--local 198.51.100.2 is the address of peer 198.51.100.2 too", ""},
		"text":          {[]byte("#!/bin/sh\nexit 1\n# more\n"), Offline{}, nil, "neither pcap nor pcapng", ""},
	} {
		for _, pipe := range []bool{false, true} {
			var h heard
			o := tc.o
			if pipe {
				name += ", pipe"
				if o.Path == "" {
					o.Stdin = piped(t, tc.file)
				}
			}
			got := ""
			if err := h.analyze(t, o, tc.cfg, tc.file); err != nil {
				got = err.Error()
				if errors.Is(err, ErrNoTraffic) != (tc.want == ErrNoTraffic.Error()) {
					t.Errorf("%s: %v", name, err)
				}
			}
			if len(h.Reports) == 1 {
				got = h.Reports[0].Peer
			}
			if got != tc.want && !strings.Contains(got, tc.want) {
				t.Errorf("%s: %q, want %q", name, got, tc.want)
			}
			notes := strings.Join(h.Notes, "\n")
			if !strings.Contains(notes, tc.note) || tc.note == "" && notes != "" {
				t.Errorf("%s: noted %q, want %q", name, notes, tc.note)
			}
		}
	}
}

// A pipe tells as much as a file: what waited until the peer was known counts.
func TestOfflinePipe(t *testing.T) {
	file := classicFile(bothWays(tapeLocal, tapePeer, 500, tapeBegin)...)
	var whole, through heard
	if err := whole.analyze(t, Offline{}, nil, file); err != nil {
		t.Fatal(err)
	}
	if err := through.analyze(t, Offline{Stdin: piped(t, file)}, nil, file); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(asJSON(t, whole.Reports[0].Snapshot), asJSON(t, through.Reports[0].Snapshot)); diff != "" {
		t.Errorf("(-file +pipe):\n%s", diff)
	}
	c := whole.Reports[0].Snapshot.Capture
	if c.In.ESP.Packets != 500 || c.Out.ESP.Packets != 500 {
		t.Errorf("%d packets in, %d out", c.In.ESP.Packets, c.Out.ESP.Packets)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A file that is broken somewhere is reported on up to there.
func TestOfflineBroken(t *testing.T) {
	whole := classicFile(bothWays(tapeHost, tapePeer, 5, tapeBegin)...)
	torn := append(classicFile(bothWays(tapeHost, tapePeer, 5, tapeBegin)...), make([]byte, 16)...)
	copy(torn[len(whole)+8:], []byte{255, 255, 255, 255, 255, 255, 255, 255})
	for name, tc := range map[string]struct {
		file []byte
		in   uint64
		note string
	}{
		"whole": {whole, 5, ""},
		"cut":   {whole[:len(whole)-1], 4, "ends within a packet, as when its writer was killed: the report is on the 9 before"},
		"torn":  {torn, 5, "broken after 10 packets, which the report is on: packet of 4294967295 bytes"},
		"own":   {unfinished(t, bothWays(tapeHost, tapePeer, 11, tapeBegin)), 10, "agent record was killed, or is still at work"},
	} {
		for by, o := range map[string]Offline{"peer": {Peer: tapePeer}, "local": {Local: netip.MustParseAddr(tapeHost)}} {
			var h heard
			if err := h.analyze(t, o, nil, tc.file); err != nil {
				t.Errorf("%s, by %s: %v", name, by, err)
				continue
			}
			if got := h.Reports[0].Snapshot.Capture.In.ESP.Packets; got != tc.in {
				t.Errorf("%s, by %s: %d packets in, want %d", name, by, got, tc.in)
			}
			if len(h.Notes) > 1 || !strings.Contains(strings.Join(h.Notes, ""), tc.note) || tc.note == "" && len(h.Notes) > 0 {
				t.Errorf("%s, by %s: noted %q, want one line with %q", name, by, h.Notes, tc.note)
			}
		}
	}
}

// unfinished is what a killed recorder leaves.
func unfinished(t *testing.T, frames []capture.Frame) []byte {
	t.Helper()
	r, err := capture.NewRecorder(capture.RecordConfig{Path: filepath.Join(t.TempDir(), "f"), MaxSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Finish(func(capture.Recorded) string { return "" }, 0)
	for _, f := range frames {
		r.Frame(f)
	}
	b, err := os.ReadFile(r.Path())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Only the end of a capture is looked at where that is asked for.
func TestOfflineLast(t *testing.T) {
	// Twenty seconds of traffic both ways, then ten of one way only.
	frames := bothWays(tapeHost, tapePeer, 200, tapeBegin)
	frames = append(frames, espFrames(tapeHost, tapePeer, 0x3333, 100, tapeBegin.Add(20*time.Second))...)
	for last, want := range map[time.Duration][2]uint64{
		time.Hour:        {200, 300},
		8 * time.Second:  {0, 80},
		20 * time.Second: {100, 200},
	} {
		var h heard
		if err := h.analyze(t, Offline{Peer: tapePeer, Last: last}, nil, classicFile(frames...)); err != nil {
			t.Fatal(err)
		}
		c := h.Reports[0].Snapshot.Capture
		in, out := c.In.ESP.Packets, c.Out.ESP.Packets
		slack := uint64(last/markParts/(100*time.Millisecond)) + 1
		if last == time.Hour {
			slack = 0
		}
		if in < want[0] || in > want[0]+slack || out < want[1] || out > want[1]+slack {
			t.Errorf("last %v: %d in, %d out; want %v, at most %d more", last, in, out, want, slack)
		}
		if h.Reports[0].Duration < last && last < time.Hour {
			t.Errorf("last %v: the report is on %v", last, h.Reports[0].Duration)
		}
	}
}

// An interrupted analysis of a pipe is reported on as far as it came.
func TestOfflineInterrupted(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if _, err := w.Write(classicFile(bothWays(tapeHost, tapePeer, 20, tapeBegin)...)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var h heard
	if err := h.run(ctx, Offline{Stdin: r, Peer: tapePeer}, config.Default()); err != nil {
		t.Fatal(err)
	}
	if len(h.Reports) != 1 || h.Reports[0].Snapshot.Capture.In.ESP.Packets != 20 || len(h.Notes) != 1 || !strings.Contains(h.Notes[0], "interrupted: the report is on the first 40 packets") {
		t.Errorf("%d reports, noted %q", len(h.Reports), h.Notes)
	}
}

// The other tunnels to the same site are counted too.
func TestOfflineSiblings(t *testing.T) {
	cfg := configWith("one", tapePeer, "two", tapeOther)
	site := []netip.Prefix{netip.MustParsePrefix("10.2.0.0/16")}
	cfg.Peers[0].RemoteSubnets, cfg.Peers[1].RemoteSubnets = site, site
	frames := append(espFrames(tapeHost, tapePeer, 1, 30, tapeBegin), espFrames(tapeOther, tapeHost, 2, 20, tapeBegin)...)
	var h heard
	if err := h.analyze(t, Offline{Peer: "one"}, cfg, classicFile(frames...)); err != nil {
		t.Fatal(err)
	}
	s := h.Reports[0].Snapshot.Siblings
	if len(s) != 1 || s[0].Peer != "two" || s[0].In.Packets != 20 || s[0].Out.Packets != 0 {
		t.Errorf("siblings %+v", s)
	}
}
