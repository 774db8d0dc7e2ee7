package capture

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"vpnprobe/evidence"
)

// start captures on an interface until the test ends.
func start(t *testing.T, iface string, peers []Peer) *Live {
	t.Helper()
	l, err := Open(Config{Interface: iface, Peers: peers})
	if err != nil {
		t.Fatal(err)
	}
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
	return l
}

func (l *Live) look() seen {
	c := l.Counts("p")
	return seen{In: c.In, Out: c.Out, ICMP: c.ICMPErrors, Away: c.ICMPErrorsAway}
}

// marker is counted after all that was sent before it.
var marker = ip4(peer4, host4, 51, make([]byte, 20))

func (s seen) hasMarker() bool { return s.In.AH.Bytes%100 == 40 }

// expect is what an observer counts of the same frames.
func expect(frames [][]byte) seen {
	o := NewObserver(testPeers)
	for _, f := range frames {
		o.Packet(f, LinkEthernet, false, len(f), epoch)
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
	if !inNetns(t) {
		return
	}
	veth(t)
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
			l := start(t, "wan", testPeers)
			before := l.Counts("p")
			send := sender(t, tc.via)
			frames := caseFrames(tc.tags...)
			for _, f := range frames {
				send(f)
			}
			eventually(t, "the last packet", func() bool { return l.look().hasMarker() })
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
	if !inNetns(t) {
		return
	}
	veth(t)
	ip(t, "address add 203.0.113.2/24 dev wan")
	ip(t, "route add 198.51.100.0/24 via 203.0.113.1")
	ip(t, "neighbour add 203.0.113.1 lladdr 02:00:00:00:00:01 dev wan")
	l := start(t, "wan", testPeers)
	// 20 + 3000 bytes of ESP: three fragments of at most 1500.
	sendRaw(t, peer4, unix.IPPROTO_ESP, esp(1, 1, 2992))
	eventually(t, "three fragments", func() bool { return l.look().Out.Fragments == 3 })
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
	if !inNetns(t) {
		return
	}
	peer := netip.MustParseAddr("127.0.0.2")
	l := start(t, "lo", []Peer{{"p", []netip.Addr{peer}}})
	for seq := range uint32(10) {
		sendRaw(t, peer, unix.IPPROTO_ESP, esp(1, seq, 72))
	}
	sendRaw(t, peer, unix.IPPROTO_AH, make([]byte, 20))
	eventually(t, "the last packet", func() bool { return l.look().Out.AH.Packets > 0 })
	want := evidence.Traffic{Packets: 10, Bytes: 1000}
	if got := l.look().Out.ESP; got != want {
		t.Errorf("counted %+v, want %+v: each packet passes twice", got, want)
	}
}

// A tun device has no link header.
func TestLiveTun(t *testing.T) {
	if !inNetns(t) {
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
	ip(t, "link set wan up")
	// Not the address of the packets, which the kernel would answer.
	ip(t, "address add 203.0.113.9/32 dev wan")
	ip(t, "route add 198.51.100.0/24 dev wan")

	l := start(t, "wan", testPeers)
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
	eventually(t, "the last packet in", func() bool { return l.look().hasMarker() })
	want := expect(append(frames, eth(marker)))
	if diff := cmp.Diff(want, l.look(), equateEmpty); diff != "" {
		t.Errorf("in (-want +got):\n%s", diff)
	}
	sendRaw(t, peer4, unix.IPPROTO_ESP, esp(9, 9, 72))
	want.Out.ESP = want.Out.ESP.Add(one(100))
	eventually(t, "the packet out", func() bool { return l.look().Out.ESP == want.Out.ESP })
}

func TestLiveSetPeers(t *testing.T) {
	if !inNetns(t) {
		return
	}
	veth(t)
	l := start(t, "wan", testPeers)
	send := sender(t, "isp")
	espIn := func(peer string) uint64 { return l.Counts(peer).In.ESP.Packets }
	eventually(t, "Run", func() bool { return !l.Counts("p").Watching.IsZero() })
	first := l.Counts("p")

	send(eth(ip4(peer4, host4, 50, esp(1, 1, 72))))
	send(eth(ip4(other4, host4, 50, esp(2, 1, 72))))
	eventually(t, "the first packet", func() bool { return espIn("p") == 1 })

	peers := append([]Peer{{"q", []netip.Addr{other4}}, {"r", nil}}, testPeers...)
	if err := l.SetPeers(peers); err != nil {
		t.Fatal(err)
	}
	send(eth(ip4(peer4, host4, 50, esp(1, 2, 72))))
	send(eth(ip4(other4, host4, 50, esp(2, 2, 72))))
	eventually(t, "the second packets", func() bool { return espIn("p") == 2 && espIn("q") == 1 })

	if w := l.Counts("p").Since(first, evidence.No); !w.Conclusive() || w.In.ESP.Packets != 2 {
		t.Errorf("the peer that stayed was not watched without a break: %+v", w)
	}
	if w := l.Counts("q").Since(first, evidence.No); w.Conclusive() {
		t.Errorf("the new peer was not watched all the time: %+v", w)
	}
	if w := l.Counts("r").Since(Counts{}, evidence.No); w.Conclusive() || !strings.Contains(w.Reason, "no address") {
		t.Errorf("a peer without an address is watched: %+v", w)
	}
}

// A filter by protocol, for more peers than the kernel is to compare, counts
// only the peers all the same.
func TestLiveManyPeers(t *testing.T) {
	if !inNetns(t) {
		return
	}
	veth(t)
	// The memory for filters that kernels before 6.7 have. Where it is not a
	// setting of the namespace, the file is not there.
	const optmem = "/proc/sys/net/core/optmem_max"
	if err := os.WriteFile(optmem, []byte("20480"), 0); err != nil {
		t.Logf("the filter is tested with the memory that there is: %v", err)
	}
	peers := testPeers
	a := netip.MustParseAddr("2001:db8:ffff::1")
	for range maxFilterAddrs - 2 {
		peers = append(peers, Peer{a.String(), []netip.Addr{a}})
		a = a.Next()
	}
	l := start(t, "wan", peers) // the longest program that there is
	send := sender(t, "isp")
	for _, more := range [][]Peer{nil, {{a.String(), []netip.Addr{a}}}} {
		if err := l.SetPeers(append(peers, more...)); err != nil {
			t.Fatal(err)
		}
		want := l.look()
		for _, f := range caseFrames() {
			send(f)
		}
		once := expect(caseFrames())
		want.In.ESP = want.In.ESP.Add(once.In.ESP)
		eventually(t, "the packets", func() bool { return l.look().In.ESP == want.In.ESP })
	}
}

func TestLiveInterfaceComesAndGoes(t *testing.T) {
	if !inNetns(t) {
		return
	}
	l := start(t, "wan", testPeers)
	if c := l.Counts("p"); !c.Watching.IsZero() || !strings.Contains(c.Reason, "capture on wan") {
		t.Errorf("an interface that is not there: %+v", c)
	}
	packets := uint64(0)
	works := func(what string) Counts {
		t.Helper()
		eventually(t, what, func() bool { return !l.Counts("p").Watching.IsZero() })
		packets++
		sender(t, "isp")(eth(ip4(peer4, host4, 50, esp(1, uint32(packets), 72))))
		eventually(t, what+": a packet", func() bool { return l.look().In.ESP.Packets == packets })
		return l.Counts("p")
	}
	fails := func(what string, before Counts) {
		t.Helper()
		eventually(t, what, func() bool { return l.Counts("p").Watching.IsZero() })
		c := l.Counts("p")
		if c.Reason == "" || c.Since(before, evidence.No).Conclusive() {
			t.Errorf("%s: %+v", what, c)
		}
	}
	veth(t)
	c := works("the interface is made")
	ip(t, "link set wan down")
	fails("the interface goes down", c)
	other, err := Open(Config{Interface: "wan", Peers: testPeers})
	if err != nil {
		t.Fatal(err)
	}
	if got := other.Counts("p").Reason; got != "capture on wan: network is down" {
		t.Errorf("opened while the interface is down: %q", got)
	}
	other.Close()
	ip(t, "link set wan up")
	d := works("the interface comes up")
	if w := d.Since(c, evidence.No); w.Conclusive() || w.In.ESP.Packets != 1 {
		t.Errorf("a window with a break in it: %+v", w)
	}
	ip(t, "link delete wan")
	fails("the interface is deleted", d)
	veth(t)
	e := works("the interface is made again")
	if w := l.Counts("p").Since(e, evidence.No); !w.Conclusive() {
		t.Errorf("a window after the break: %+v", w)
	}
}

// What does not fit into the ring is counted to the last frame.
func TestLiveDrops(t *testing.T) {
	if !inNetns(t) {
		return
	}
	veth(t)
	const sent = 40_000 // of about 240 bytes each in a ring of 4 MiB
	l, err := Open(Config{Interface: "wan", Peers: testPeers})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	first := l.Counts("p")
	send := sender(t, "wan")
	frame := eth(ip4(host4, peer4, 50, esp(1, 1, 100)))
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
	eventually(t, "all frames accounted for", func() bool {
		c := l.Counts("p")
		return c.Out.ESP.Packets+c.Dropped == sent
	})
	c := l.Counts("p")
	if w := c.Since(first, evidence.No); w.Conclusive() || w.Dropped == 0 || w.Reason == "" {
		t.Errorf("a window with drops: %+v", w)
	}
	send(frame)
	eventually(t, "a packet after the drops", func() bool {
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

func TestLiveClose(t *testing.T) {
	if !inNetns(t) {
		return
	}
	l, err := Open(Config{Interface: "lo", Peers: testPeers})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- l.Run(context.Background()) }()
	eventually(t, "Run", func() bool { return !l.Counts("p").Watching.IsZero() })
	l.Close()
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Errorf("Run: %v, want os.ErrClosed", err)
	}
	l.Close()
	if err := l.SetPeers(nil); err != nil {
		t.Errorf("SetPeers when closed: %v", err)
	}
	if err := l.Run(context.Background()); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Run when closed: %v, want os.ErrClosed", err)
	}
	if c := l.Counts("p"); !c.Watching.IsZero() || c.Reason == "" {
		t.Errorf("closed and watching: %+v", c)
	}
}

func TestOpenErrors(t *testing.T) {
	if _, err := Open(Config{}); err == nil || err.Error() != "capture: no interface named" {
		t.Errorf("no interface: %v", err)
	}
	if _, err := Open(Config{Interface: strings.Repeat("x", 16)}); err == nil || !strings.Contains(err.Error(), "not a possible name") {
		t.Errorf("an impossible name: %v", err)
	}
}

func TestOpenWithoutCapability(t *testing.T) {
	withoutNetRaw(t)
	_, err := Open(Config{Interface: "lo"})
	want := "capture on lo: packet socket: operation not permitted: needs CAP_NET_RAW: sudo setcap cap_net_raw+ep agent"
	if err == nil || err.Error() != want || !errors.Is(err, os.ErrPermission) {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// withoutNetRaw takes CAP_NET_RAW from this test's thread, if it has it, and
// lets the thread end with the test.
func withoutNetRaw(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&header, unsafe.SliceData(caps[:])); err != nil {
		t.Fatal(err)
	}
	caps[0].Effective &^= 1 << unix.CAP_NET_RAW
	if err := unix.Capset(&header, unsafe.SliceData(caps[:])); err != nil {
		t.Fatal(err)
	}
}
