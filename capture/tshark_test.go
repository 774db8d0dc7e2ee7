package capture

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"vpnprobe/evidence"
	"vpnprobe/internal/wire/ike"
)

// tshark runs tshark, or skips the test where there is none.
func tshark(t *testing.T, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("no tshark to compare with: install the package tshark")
	}
	var stderr bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, stderr.Bytes())
	}
	return string(out)
}

// wire is what tshark and an observer must agree on, of one direction.
type wire struct {
	ESP, ESPInUDP, AH uint64
	IKE               map[string]uint64
	Expected, Lost    uint64
}

// dissect counts by tshark what each address has sent and received.
func dissect(t *testing.T, file string) (sent, received map[netip.Addr]*wire) {
	t.Helper()
	sent, received = map[netip.Addr]*wire{}, map[netip.Addr]*wire{}
	type numbers struct{ first, last, count uint64 }
	flows := map[[3]string]*numbers{}
	fields := []string{"ip.src", "ipv6.src", "ip.dst", "ipv6.dst", "udp.port", "esp.spi", "esp.sequence", "ah.spi", "ah.sequence", "isakmp.version", "isakmp.exchangetype"}
	args := []string{"-n", "-r", file, "-Y", "(esp or ah or isakmp) and not icmp and not icmpv6", "-T", "fields", "-E", "separator=|", "-E", "occurrence=f"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	for line := range strings.Lines(tshark(t, args...)) {
		c := strings.Split(strings.TrimSuffix(line, "\n"), "|")
		if len(c) != len(fields) {
			t.Fatalf("tshark wrote %q", line)
		}
		src, dst := netip.MustParseAddr(c[0]+c[1]), netip.MustParseAddr(c[2]+c[3])
		spi, seq := c[5]+c[7], c[6]+c[8]
		for m, a := range map[*map[netip.Addr]*wire]netip.Addr{&sent: src, &received: dst} {
			w := (*m)[a]
			if w == nil {
				w = &wire{IKE: map[string]uint64{}}
				(*m)[a] = w
			}
			switch {
			case c[9] != "":
				version, err := strconv.ParseUint(c[9], 0, 8)
				if err != nil {
					t.Fatalf("version %q: %v", c[9], err)
				}
				typ, err := strconv.Atoi(c[10])
				if err != nil && version>>4 <= 2 { // of others it reads no type
					t.Fatal(err)
				}
				w.IKE[exchangeOf(uint8(version>>4), ike.ExchangeType(typ)).String()]++
			case c[7] != "":
				w.AH++
			case c[4] != "":
				w.ESPInUDP++
			default:
				w.ESP++
			}
		}
		if spi != "" {
			n, err := strconv.ParseUint(seq, 0, 32)
			if err != nil {
				t.Fatal(err)
			}
			key := [3]string{src.String(), dst.String(), spi}
			f := flows[key]
			if f == nil {
				f = &numbers{first: n}
				flows[key] = f
			}
			f.last = max(f.last, n)
			f.count++
		}
	}
	for key, f := range flows {
		if f.count == 1 {
			continue // one packet makes no flow
		}
		for _, w := range []*wire{sent[netip.MustParseAddr(key[0])], received[netip.MustParseAddr(key[1])]} {
			w.Expected += f.last - f.first + 1
			w.Lost += f.last - f.first + 1 - f.count
		}
	}
	return sent, received
}

// tshark and an observer count the same in real captures of IKE, and in ESP
// with losses.
func TestSameAsTshark(t *testing.T) {
	file := mixedCapture(t)
	sent, received := dissect(t, file)
	for a := range maps.Keys(sent) {
		o := NewObserver([]Peer{{Name: "p", Addrs: []netip.Addr{a}}})
		show(t, file, o.Packet)
		c := o.Counts("p")
		for _, way := range []struct {
			name   string
			theirs *wire
			ours   evidence.WireTraffic
		}{{"in", sent[a], c.In}, {"out", received[a], c.Out}} {
			theirs := way.theirs
			if theirs == nil {
				theirs = &wire{}
			}
			ours := wire{
				way.ours.ESP.Packets, way.ours.ESPInUDP.Packets, way.ours.AH.Packets, way.ours.IKE,
				way.ours.Sequence.Expected, way.ours.Sequence.Lost,
			}
			if diff := cmp.Diff(*theirs, ours, equateEmpty); diff != "" {
				t.Errorf("%v %s (-tshark +here):\n%s", a, way.name, diff)
			}
		}
	}
}

// show shows the frames of a file.
func show(t *testing.T, file string, f func(Frame)) {
	t.Helper()
	r, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := readPcap(r, f); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

// mixedCapture writes a capture of all captures of IKE, and then of ESP, ESP in
// UDP and AH over both versions of IP, with and without VLAN tags, of which some
// are missing.
func mixedCapture(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "mixed.pcap")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := pcapgo.NewWriter(f)
	if err := w.WriteFileHeader(65536, layers.LinkTypeEthernet); err != nil {
		t.Fatal(err)
	}
	write := func(frame []byte, at time.Time) {
		info := gopacket.CaptureInfo{Timestamp: at, CaptureLength: len(frame), Length: len(frame)}
		if err := w.WritePacket(info, frame); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob("../internal/wire/ike/testdata/*.pcap")
	if err != nil || len(files) < 8 {
		t.Fatalf("%d captures: %v", len(files), err)
	}
	for _, file := range files {
		show(t, file, func(f Frame) {
			if f.Link == LinkRaw || f.Link == LinkIPv4 {
				f.Data = eth(f.Data)
			}
			write(f.Data, f.Time)
		})
	}
	rnd := rand.New(rand.NewPCG(5, 6))
	packs := []func(seq uint32) []byte{
		func(seq uint32) []byte { return ip4(peer4, host4, 50, espPacket(0x1001, seq, 72)) },
		func(seq uint32) []byte { return ip4(host4, peer4, 50, espPacket(0x1002, seq, 72)) },
		func(seq uint32) []byte { return ip6(peer6, host6, 50, espPacket(0x1003, seq, 72)) },
		func(seq uint32) []byte { return ip4(peer4, host4, 51, ahPacket(0x1004, seq)) },
		func(seq uint32) []byte { return ip4(host4, peer4, 17, udp(4500, 4500, espPacket(0x1005, seq, 72))) },
		func(seq uint32) []byte { return ip6(host6, peer6, 17, udp(4500, 4500, espPacket(0x1006, seq, 72))) },
		func(seq uint32) []byte { return ip4(peer4, host4, 50, espPacket(0x2000+(seq-1)/100, seq, 72)) }, // rekeys
		func(uint32) []byte { return ip4(host4, peer4, 17, udp(4500, 4500, []byte{0xff})) },
	}
	for seq := range uint32(1000) {
		order := rnd.Perm(len(packs))
		for _, i := range order {
			if seq%100 > 5 && seq%100 < 95 && rnd.IntN(10) == 0 {
				continue
			}
			frame := eth(packs[i](seq+1), [][]uint16{nil, {etherVLAN}, {etherQinQ, etherVLAN}}[i%3]...)
			write(frame, epoch.Add(time.Duration(seq)*time.Millisecond))
		}
	}
	return file
}
