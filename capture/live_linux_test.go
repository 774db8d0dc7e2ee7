package capture

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

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

func TestLiveSetPeers(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	netnstest.Veth(t)
	l := start(t, evidence.CaptureRing, "wan", testPeers)
	send := netnstest.Sender(t, "isp")
	espIn := func(peer string) uint64 { return l.Counts(peer).In.ESP.Packets }
	netnstest.Eventually(t, "Run", func() bool { return !l.Counts("p").Watching.IsZero() })
	first := l.Counts("p")

	send(eth(ip4(peer4, host4, 50, espPacket(1, 1, 72))))
	send(eth(ip4(other4, host4, 50, espPacket(2, 1, 72))))
	netnstest.Eventually(t, "the first packet", func() bool { return espIn("p") == 1 })

	peers := append([]Peer{{Name: "q", Addrs: []netip.Addr{other4}}, {Name: "r", Addrs: nil}}, testPeers...)
	l.SetPeers(on("wan", peers))
	send(eth(ip4(peer4, host4, 50, espPacket(1, 2, 72))))
	send(eth(ip4(other4, host4, 50, espPacket(2, 2, 72))))
	netnstest.Eventually(t, "the second packets", func() bool { return espIn("p") == 2 && espIn("q") == 1 })

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
	if !netnstest.Child(t) {
		return
	}
	netnstest.Veth(t)
	// The memory for filters that kernels before 6.7 have. Where it is not a
	// setting of the namespace, the file is not there.
	const optmem = "/proc/sys/net/core/optmem_max"
	if err := os.WriteFile(optmem, []byte("20480"), 0); err != nil {
		t.Logf("the filter is tested with the memory that there is: %v", err)
	}
	peers := testPeers
	a := netip.MustParseAddr("2001:db8:ffff::1")
	for range maxFilterAddrs - 2 {
		peers = append(peers, Peer{Name: a.String(), Addrs: []netip.Addr{a}})
		a = a.Next()
	}
	l := start(t, evidence.CaptureRing, "wan", peers) // the longest program that there is
	send := netnstest.Sender(t, "isp")
	for _, more := range [][]Peer{nil, {{Name: a.String(), Addrs: []netip.Addr{a}}}} {
		l.SetPeers(on("wan", append(peers, more...)))
		want := l.look()
		for _, f := range caseFrames() {
			send(f)
		}
		once := expect(caseFrames())
		want.In.ESP = want.In.ESP.Add(once.In.ESP)
		netnstest.Eventually(t, "the packets", func() bool { return l.look().In.ESP == want.In.ESP })
	}
}

func TestLiveInterfaceComesAndGoes(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	for _, mode := range modes {
		t.Run(string(mode), func(t *testing.T) { comesAndGoes(t, mode) })
	}
}

func comesAndGoes(t *testing.T, mode evidence.CaptureMode) {
	l := start(t, mode, "wan", testPeers)
	if c := l.Counts("p"); !c.Watching.IsZero() || !strings.Contains(c.Reason, "capture on wan") {
		t.Errorf("an interface that is not there: %+v", c)
	}
	packets := uint64(0)
	works := func(what string) Counts {
		t.Helper()
		netnstest.Eventually(t, what, func() bool { return !l.Counts("p").Watching.IsZero() })
		packets++
		netnstest.Sender(t, "isp")(eth(ip4(peer4, host4, 50, espPacket(1, uint32(packets), 72))))
		netnstest.Eventually(t, what+": a packet", func() bool { return l.look().In.ESP.Packets == packets })
		return l.Counts("p")
	}
	fails := func(what string, before Counts) {
		t.Helper()
		netnstest.Eventually(t, what, func() bool { return l.Counts("p").Watching.IsZero() })
		c := l.Counts("p")
		if c.Reason == "" || c.Since(before, evidence.No).Conclusive() {
			t.Errorf("%s: %+v", what, c)
		}
	}
	netnstest.Veth(t)
	c := works("the interface is made")
	netnstest.IP(t, "link set wan down")
	fails("the interface goes down", c)
	other, err := Open(Config{Mode: mode})
	if err != nil {
		t.Fatal(err)
	}
	other.SetPeers(on("wan", testPeers))
	if got := other.Counts("p").Reason; got != "capture on wan: network is down" {
		t.Errorf("opened while the interface is down: %q", got)
	}
	other.Close()
	netnstest.Up(t, "wan", "isp") // isp had no carrier either
	d := works("the interface comes up")
	if w := d.Since(c, evidence.No); w.Conclusive() || w.In.ESP.Packets != 1 {
		t.Errorf("a window with a break in it: %+v", w)
	}
	netnstest.IP(t, "link delete wan")
	fails("the interface is deleted", d)
	netnstest.Veth(t)
	e := works("the interface is made again")
	if w := l.Counts("p").Since(e, evidence.No); !w.Conclusive() {
		t.Errorf("a window after the break: %+v", w)
	}
	netnstest.IP(t, "link delete wan")
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

// Nothing is left behind: no descriptor, no goroutine (TestMain sees to that),
// and no program on the interface.
func TestLiveClose(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	netnstest.Veth(t)
	before := descriptors(t)
	for _, mode := range modes {
		l, err := Open(Config{Mode: mode})
		if err != nil {
			t.Fatal(err)
		}
		l.SetPeers(on("wan", testPeers))
		ended := make(chan error)
		go func() { ended <- l.Run(context.Background()) }()
		netnstest.Eventually(t, "Run", func() bool { return !l.Counts("p").Watching.IsZero() })
		l.Close()
		if err := <-ended; !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s: Run: %v, want os.ErrClosed", mode, err)
		}
		l.Close()
		l.SetPeers(on("lo", testPeers))
		if err := l.Run(context.Background()); !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s: Run when closed: %v, want os.ErrClosed", mode, err)
		}
		if c := l.Counts("p"); !c.Watching.IsZero() || c.Reason == "" {
			t.Errorf("%s: closed and watching: %+v", mode, c)
		}
		if s := l.State("p"); s.Mode != evidence.CaptureOff || s.Reason == "" {
			t.Errorf("%s: closed and captured: %+v", mode, s)
		}
		if got := attachments(t, "wan"); got != "" {
			t.Errorf("%s: left on the interface: %s", mode, got)
		}
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors are open, %d were before", after, before)
	}
}

// descriptors counts the open descriptors of this process.
func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// attachments tells of the traffic control and XDP of an interface.
func attachments(t *testing.T, iface string) string {
	t.Helper()
	var found []string
	link, err := exec.Command("ip", "-details", "link", "show", iface).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, link)
	}
	if strings.Contains(string(link), "xdp") {
		found = append(found, string(link))
	}
	qdisc, err := exec.Command("tc", "qdisc", "show", "dev", iface).CombinedOutput()
	if err == nil && strings.Contains(string(qdisc), "clsact") {
		found = append(found, string(qdisc))
	}
	return strings.Join(found, "; ")
}

func TestOpenErrors(t *testing.T) {
	const want = `capture: "sa" is not a way to capture live: bpf or ring`
	if _, err := Open(Config{Mode: evidence.CaptureSA}); err == nil || err.Error() != want {
		t.Errorf("no way to capture live: %v", err)
	}
	l, err := Open(Config{Mode: evidence.CaptureRing})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	long := strings.Repeat("x", 16)
	l.SetPeers(on(long, testPeers))
	if c := l.Counts("p"); !strings.Contains(c.Reason, "not a possible name") || !c.Watching.IsZero() {
		t.Errorf("an impossible name: %+v", c)
	}
	l.SetPeers(testPeers)
	if c, s := l.Counts("p"), l.State("p"); c.Reason == "" || s.Mode != evidence.CaptureOff || s.Why != evidence.CaptureNoInterface {
		t.Errorf("no interface: %+v, %+v", c, s)
	}
	if c, s := l.Counts("q"), l.State("q"); c.Reason == "" || s.Reason == "" {
		t.Errorf("no peer: %+v, %+v", c, s)
	}
}

func TestOpenWithoutCapability(t *testing.T) {
	withoutCapabilities(t, keepNothing)
	l, err := Open(Config{Mode: evidence.CaptureRing})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.SetPeers(on("lo", testPeers))
	want := State{evidence.CaptureOff, evidence.CaptureNoPermission,
		"capture on lo: packet socket: operation not permitted: needs CAP_NET_RAW: sudo setcap cap_net_raw+ep agent"}
	if diff := cmp.Diff(want, l.State("p")); diff != "" {
		t.Errorf("State (-want +got):\n%s", diff)
	}
	if got := l.Counts("p").Reason; got != want.Reason {
		t.Errorf("the reading says %q", got)
	}
}

// What withoutCapabilities leaves.
const (
	keepNothing = 0
	keepNetRaw  = 1 << unix.CAP_NET_RAW
)

// withoutCapabilities takes all capabilities but some from this test's thread,
// and lets the thread end with the test.
func withoutCapabilities(t *testing.T, keep uint32) {
	t.Helper()
	runtime.LockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&header, unsafe.SliceData(caps[:])); err != nil {
		t.Fatal(err)
	}
	caps[0].Effective &= keep
	caps[1].Effective = 0
	if err := unix.Capset(&header, unsafe.SliceData(caps[:])); err != nil {
		t.Fatal(err)
	}
}
