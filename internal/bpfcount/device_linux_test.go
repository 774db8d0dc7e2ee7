package bpfcount

import (
	"errors"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"vpnprobe/internal/netnstest"
	"vpnprobe/internal/wire/esp"
)

// TestBare counts on a device without link headers.
func TestBare(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	fd, dev := tun(t)
	for _, noTCX := range []bool{false, true} {
		c := openTest(t, bothPeers)
		c.noTCX = noTCX
		if _, err := c.Attach(dev, Options{XDP: true}); !errors.Is(err, ErrUnsupported) {
			t.Errorf("XDP: %v", err)
		}
		if _, err := c.Attach(dev, Options{}); err != nil {
			t.Fatal(err)
		}
		ip := ipPacket{src: peer4, dst: host4, proto: 50, payload: espData(1, 1, 20)}.bytes()
		ip6 := ipPacket{src: peer6, dst: host6, proto: 17, payload: udpData(4500, 4500, espData(2, 1, 20))}.bytes()
		ike := ipPacket{src: peer4, dst: host4, proto: 17, payload: udpData(500, 500, ikeData(300, false))}.bytes()
		for _, p := range [][]byte{ip, ip6, ike} {
			if _, err := unix.Write(fd, p); err != nil {
				t.Fatal(err)
			}
		}
		// Out, by way of the kernel's own stack.
		conn, err := net.Dial("udp4", "198.51.100.2:4500")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(espData(3, 9, 30)); err != nil {
			t.Fatal(err)
		}
		local := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
		conn.Close()
		want := map[esp.Key]esp.Sample{
			{Src: peer4, Dst: host4, SPI: 1, Protocol: esp.ESP}:                              {Packets: 1, Bytes: 48, First: 1, Max: 1, Longest: 48},
			{Src: peer6, Dst: host6, SPI: 2, Protocol: esp.ESP, Encap: true}:                 {Packets: 1, Bytes: 76, First: 1, Max: 1, Longest: 76},
			{Src: local, Dst: peer4, SPI: 3, Protocol: esp.ESP, Encap: true, Outgoing: true}: {Packets: 1, Bytes: 66, First: 9, Max: 9, Longest: 66},
		}
		if diff := cmp.Diff(want, samples(t, c), ignoreTime); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		frames := slices.DeleteFunc(drain(t, c), func(f Frame) bool { return f.Outgoing }) // the kernel's own ICMP errors
		if diff := cmp.Diff([]Frame{{Ifindex: dev, WireLen: len(ike), Data: ike}}, frames); diff != "" {
			t.Errorf("frames (-want +got):\n%s", diff)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// tun opens a tun device with a route to the peers.
func tun(t *testing.T) (fd, ifindex int) {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("needs /dev/net/tun: %v", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	req, err := unix.NewIfreq("tun0")
	if err != nil {
		t.Fatal(err)
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		t.Fatal(err)
	}
	netnstest.Sysctl(t, "ipv6/conf/tun0/disable_ipv6", "1")
	netnstest.IP(t, "addr add 192.0.2.1/24 dev tun0", "link set tun0 up", "route add 198.51.100.0/24 dev tun0")
	return fd, index(t, "tun0")
}

// TestSegmentation sends ESP in UDP by a socket that leaves cutting it up to the
// device (UDP_SEGMENT).
func TestSegmentation(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	wan := veth(t)
	netnstest.IP(t, "addr add 192.0.2.1/24 dev wan", "route add 198.51.100.0/24 dev wan",
		"neigh add 198.51.100.2 lladdr 02:00:00:00:00:01 dev wan")
	c := openTest(t, bothPeers)
	if _, err := c.Attach(wan, Options{}); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT, 200); err != nil {
		t.Skipf("needs UDP_SEGMENT: %v", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: 4500, Addr: host4.As4()}); err != nil {
		t.Fatal(err)
	}
	const per, rounds = 20, 30
	seq := uint32(0)
	var bytes uint64
	for range rounds {
		var b []byte
		for i := range per {
			seq++
			n := 192
			if i == per-1 {
				n = 50
			}
			b = append(b, espData(5, seq, n)...)
			bytes += uint64(28 + 8 + n)
		}
		if err := unix.Sendto(fd, b, 0, &unix.SockaddrInet4{Port: 4500, Addr: peer4.As4()}); err != nil {
			t.Fatal(err)
		}
	}
	want := map[esp.Key]esp.Sample{{Src: host4, Dst: peer4, SPI: 5, Protocol: esp.ESP, Encap: true, Outgoing: true}: {
		Packets: per * rounds, Bytes: bytes, First: 1, Max: per * rounds, Longest: 228,
	}}
	if diff := cmp.Diff(want, samples(t, c), ignoreTime); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestCapabilities counts with the capabilities that the package asks for, and
// tells of them without.
func TestCapabilities(t *testing.T) {
	if !netnstest.Child(t, func(attr *syscall.SysProcAttr) {
		attr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
		attr.AmbientCaps = []uintptr{unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_NET_RAW}
	}) {
		return
	}
	wan := veth(t)
	fromISP := netnstest.Sender(t, "isp")
	for _, h := range hooks {
		c, err := Open(bothPeers)
		if err != nil {
			t.Fatal(err)
		}
		if c.direct {
			t.Fatal("there is CAP_PERFMON")
		}
		c.noTCX = h.noTCX
		hook, err := c.Attach(wan, Options{XDP: h.xdp})
		if err != nil || hook != h.name && !withoutTCX(h.name, hook) {
			t.Fatalf("attached by %q: %v", hook, err)
		}
		for n := range uint32(10) {
			fromISP(ether(ipPacket{src: peer4, dst: host4, proto: 50, payload: espData(1, n, 20)}.bytes()))
			fromISP(ether(ipPacket{src: peer6, dst: host6, proto: 17, headers: []byte{0}, payload: udpData(4500, 4500, espData(1, n, 20))}.bytes()))
		}
		netnstest.Eventually(t, "packets arrive", func() bool {
			var n uint64
			for _, s := range samples(t, c) {
				n += s.Packets
			}
			return n == 20
		})
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, capability := range []uint{unix.CAP_NET_ADMIN, unix.CAP_BPF} {
		drop(t, capability)
		c, err := Open(bothPeers)
		if err == nil {
			_, err = c.Attach(wan, Options{})
			c.Close()
		}
		if !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "cap_bpf,cap_net_admin") {
			t.Errorf("without capability %d: %v", capability, err)
		}
	}
}

// drop gives up a capability, in the calling thread, which is kept.
func drop(t *testing.T, capability uint) {
	t.Helper()
	runtime.LockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	data[capability/32].Effective &^= 1 << (capability % 32)
	if err := unix.Capset(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
}

// TestSpread sends the packets of a flow on several CPUs: what merging makes of
// their cells has no loss.
func TestSpread(t *testing.T) {
	c := openTest(t, bothPeers)
	if runtime.NumCPU() < 2 {
		t.Skip("needs two CPUs")
	}
	p := c.get(t, tcIn)
	n := uint32(0)
	counts := esp.NewSampled(c.Capacity())
	for range 10 {
		for cpu := range 2 {
			onCPU(t, cpu, func() {
				for range 500 {
					n++
					feed(t, p, ether(ipPacket{src: peer4, dst: host4, proto: 50, payload: espData(1, n, 20)}.bytes()))
				}
			})
			for k, s := range samples(t, c) {
				counts.Add(k, s, time.Now().Add(time.Second))
			}
		}
	}
	for k, got := range counts.Flows() {
		if got.Packets != uint64(n) || got.Expected != uint64(n) || got.Lost() != 0 || got.Discontinuities != 0 {
			t.Errorf("%v: %+v, want %d packets and no loss", k, got, n)
		}
	}
}
