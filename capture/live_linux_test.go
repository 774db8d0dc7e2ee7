package capture

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"vpnprobe/evidence"
	"vpnprobe/internal/netnstest"
)

// modes are the ways to capture that must count the same.
var modes = []evidence.CaptureMode{evidence.CaptureRing, evidence.CaptureBPF}

// on returns the peers with the interface that they are watched on.
func on(iface string, peers []Peer) []Peer {
	out := slices.Clone(peers)
	for i := range out {
		out[i].Interfaces = []string{iface}
	}
	return out
}

// start captures on an interface until the test ends.
func start(t *testing.T, mode evidence.CaptureMode, iface string, peers []Peer) *Live {
	t.Helper()
	return open(t, Config{Mode: mode}, iface, peers)
}

func open(t *testing.T, cfg Config, iface string, peers []Peer) *Live {
	t.Helper()
	l, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l.SetPeers(on(iface, peers))
	runLive(t, l)
	return l
}

// runLive has a capture count until the test ends.
func runLive(t *testing.T, l *Live) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, os.ErrClosed) {
			t.Errorf("Run: %v", err)
		}
		l.Close()
	})
}

func (l *Live) look() seen {
	c := l.Counts("p")
	return seen{In: c.In, Out: c.Out, ICMP: c.ICMPErrors, Away: away(c)}
}

// marker is counted after all that was sent before it.
var marker = ip4(peer4, host4, 51, make([]byte, 20))

func (s seen) hasMarker() bool { return s.In.AH.Bytes%100 == 40 }

// expect is what an observer counts of the same frames.
func expect(frames [][]byte) seen {
	o := NewObserver(testPeers)
	for _, f := range frames {
		o.Packet(Frame{Data: f, Link: LinkEthernet, WireLen: len(f), Time: epoch})
	}
	return look(o)
}

func caseFrames(tags ...uint16) [][]byte {
	var frames [][]byte
	for _, tc := range packetCases {
		frames = append(frames, eth(tc.ip, tags...))
	}
	return append(frames, eth(marker))
}

// Every packet of the table must count on a real interface as it does in the
// observer, from both directions and behind the VLAN tags that the kernel
// takes out of the frame.
func TestLive(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	netnstest.Veth(t)
	for name, tc := range map[string]struct {
		via  string
		tags []uint16
	}{
		"in":       {"isp", nil},
		"out":      {"wan", nil},
		"vlan in":  {"isp", []uint16{etherVLAN}},
		"vlan out": {"wan", []uint16{etherVLAN}},
		"qinq in":  {"isp", []uint16{etherQinQ, etherVLAN}},
	} {
		t.Run(name, func(t *testing.T) {
			l := start(t, evidence.CaptureRing, "wan", testPeers)
			before := l.Counts("p")
			send := netnstest.Sender(t, tc.via)
			frames := caseFrames(tc.tags...)
			for _, f := range frames {
				send(f)
			}
			netnstest.Eventually(t, "the last packet", func() bool { return l.look().hasMarker() })
			if diff := cmp.Diff(expect(frames), l.look(), equateEmpty); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			window := l.Counts("p").Since(before, evidence.No)
			if !window.Conclusive() || window.In.AH.Packets == 0 {
				t.Errorf("the window is not conclusive: %+v", window)
			}
		})
	}
}

// What the kernel itself sends has been fragmented, and not by us.
func TestLiveKernelFragments(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	netnstest.Veth(t)
	netnstest.IP(t, "address add 203.0.113.2/24 dev wan")
	netnstest.IP(t, "route add 198.51.100.0/24 via 203.0.113.1")
	netnstest.IP(t, "neighbour add 203.0.113.1 lladdr 02:00:00:00:00:01 dev wan")
	l := start(t, evidence.CaptureRing, "wan", testPeers)
	// 20 + 3000 bytes of ESP: three fragments of at most 1500.
	sendRaw(t, peer4, unix.IPPROTO_ESP, espPacket(1, 1, 2992))
	netnstest.Eventually(t, "three fragments", func() bool { return l.look().Out.Fragments.Total() == 3 })
	want := evidence.Traffic{Packets: 1, Bytes: 3*20 + 3000}
	if got := l.look().Out.ESP; got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
}

// sendRaw sends one packet by way of this host's own IP.
func sendRaw(t *testing.T, to netip.Addr, proto int, payload []byte) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, payload, 0, &unix.SockaddrInet4{Addr: to.As4()}); err != nil {
		t.Fatal(err)
	}
}

func TestLiveLoopback(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	peer := netip.MustParseAddr("127.0.0.2")
	l := start(t, evidence.CaptureRing, "lo", []Peer{{Name: "p", Addrs: []netip.Addr{peer}}})
	for seq := range uint32(10) {
		sendRaw(t, peer, unix.IPPROTO_ESP, espPacket(1, seq, 72))
	}
	sendRaw(t, peer, unix.IPPROTO_AH, make([]byte, 20))
	netnstest.Eventually(t, "the last packet", func() bool { return l.look().Out.AH.Packets > 0 })
	want := evidence.Traffic{Packets: 10, Bytes: 1000}
	if got := l.look().Out.ESP; got != want {
		t.Errorf("counted %+v, want %+v: each packet passes twice", got, want)
	}
}

// A tun device has no link header.
func TestLiveTun(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("/dev/net/tun: %v", err)
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("wan")
	if err != nil {
		t.Fatal(err)
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		t.Fatal(err)
	}
	netnstest.IP(t, "link set wan up")
	// Not the address of the packets, which the kernel would answer.
	netnstest.IP(t, "address add 203.0.113.9/32 dev wan")
	netnstest.IP(t, "route add 198.51.100.0/24 dev wan")

	l := start(t, evidence.CaptureRing, "wan", testPeers)
	var frames [][]byte
	for _, tc := range packetCases {
		if _, err := unix.Write(fd, tc.ip); err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		frames = append(frames, eth(tc.ip))
	}
	if _, err := unix.Write(fd, marker); err != nil {
		t.Fatal(err)
	}
	netnstest.Eventually(t, "the last packet in", func() bool { return l.look().hasMarker() })
	want := expect(append(frames, eth(marker)))
	if diff := cmp.Diff(want, l.look(), equateEmpty); diff != "" {
		t.Errorf("in (-want +got):\n%s", diff)
	}
	sendRaw(t, peer4, unix.IPPROTO_ESP, espPacket(9, 9, 72))
	want.Out.ESP = want.Out.ESP.Add(one(100))
	netnstest.Eventually(t, "the packet out", func() bool { return l.look().Out.ESP == want.Out.ESP })
}

// What does not fit into the ring is counted to the last frame.
func TestLiveDrops(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	netnstest.Veth(t)
	const sent = 40_000 // of about 240 bytes each in a ring of 4 MiB
	l, err := Open(Config{Mode: evidence.CaptureRing})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.SetPeers(on("wan", testPeers))
	first := l.Counts("p")
	send := netnstest.Sender(t, "wan")
	frame := eth(ip4(host4, peer4, 50, espPacket(1, 1, 100)))
	for range sent {
		send(frame)
	}
	if c := l.Counts("p"); c.Dropped == 0 {
		t.Fatalf("nothing dropped: %+v", c)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error)
	go func() { ended <- l.Run(ctx) }()
	netnstest.Eventually(t, "all frames accounted for", func() bool {
		c := l.Counts("p")
		return c.Out.ESP.Packets+c.Dropped == sent
	})
	c := l.Counts("p")
	if w := c.Since(first, evidence.No); w.Conclusive() || w.Dropped == 0 || w.Reason == "" {
		t.Errorf("a window with drops: %+v", w)
	}
	send(frame)
	netnstest.Eventually(t, "a packet after the drops", func() bool {
		return l.Counts("p").Out.ESP.Packets+c.Dropped == sent+1
	})
	if w := l.Counts("p").Since(c, evidence.No); !w.Conclusive() || w.Out.ESP.Packets != 1 {
		t.Errorf("the window after the drops: %+v", w)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	// Frames now wait in the ring, unseen: the reading must not be of later.
	last := l.Counts("p")
	send(frame)
	if again := l.Counts("p"); again.Time != last.Time {
		t.Errorf("a reading at %v, but Run ended at %v", again.Time, last.Time)
	}
}
