package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The addresses: of the remote gateway behind wan, of one behind lan, and of
// one that the gateway under test drops packets to (RFC 5737).
var (
	peerAddr   = netip.MustParseAddr("198.51.100.1")
	insideAddr = netip.MustParseAddr("203.0.113.1")
	holeAddr   = netip.MustParseAddr("203.0.113.2")
)

// The Ethernet addresses of the gateway's interfaces. A next hop has one that
// no device has, so that what is forwarded is dropped at once where it arrives.
const (
	wanMAC     = "02:00:00:00:01:01"
	lanMAC     = "02:00:00:00:02:01"
	nobodysMAC = "02:00:00:00:09:09"
)

// network is a gateway between two others:
//
//	isp: out --- wan :gateway: lan --- out :site
type network struct {
	isp, gateway, site *namespace
	ispIndex           int // of isp's interface
	siteIndex          int // of site's
}

func newNetwork() (_ *network, err error) {
	n := &network{}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	for _, ns := range []**namespace{&n.isp, &n.gateway, &n.site} {
		if *ns, err = newNamespace(); err != nil {
			return nil, err
		}
		for name, value := range map[string]string{
			"ipv6.conf.all.disable_ipv6":     "1",
			"ipv6.conf.default.disable_ipv6": "1",
			"ipv4.conf.all.rp_filter":        "0",
			"ipv4.conf.default.rp_filter":    "0",
		} {
			if err := (*ns).sysctl(name, value); err != nil && !errors.Is(err, os.ErrNotExist) {
				return nil, err
			}
		}
	}
	if err := n.gateway.ip(
		"link add wan address "+wanMAC+" type veth peer name out netns "+n.isp.path(),
		"link add lan address "+lanMAC+" type veth peer name out netns "+n.site.path(),
		"addr add 192.0.2.1/30 dev wan",
		"addr add 192.0.2.5/30 dev lan",
	); err != nil {
		return nil, err
	}
	// A veth takes XDP frames where the other end is polled, which GRO turns on.
	for _, dev := range []string{"wan", "lan"} {
		if err := n.gateway.do(func() error { return setGRO(dev) }); err != nil {
			return nil, fmt.Errorf("turn on GRO on %s: %w", dev, err)
		}
	}
	if err := errors.Join(n.isp.ip("link set out up"), n.site.ip("link set out up"), n.gateway.ip(
		"link set wan up",
		"link set lan up",
		"neigh add 192.0.2.2 lladdr "+nobodysMAC+" dev wan nud permanent",
		"neigh add 192.0.2.6 lladdr "+nobodysMAC+" dev lan nud permanent",
		"route add "+peerAddr.String()+" via 192.0.2.2",
		"route add "+insideAddr.String()+" via 192.0.2.6",
		"route add blackhole "+holeAddr.String(),
	), n.gateway.sysctl("ipv4.ip_forward", "1")); err != nil {
		return nil, err
	}
	n.ispIndex, err = n.isp.ifindex("out")
	if err == nil {
		n.siteIndex, err = n.site.ifindex("out")
	}
	return n, err
}

func (n *network) close() {
	for _, ns := range []*namespace{n.isp, n.gateway, n.site} {
		if ns != nil {
			ns.close()
		}
	}
}

func (n *namespace) ifindex(name string) (index int, err error) {
	err = n.do(func() error {
		dev, err := net.InterfaceByName(name)
		if err == nil {
			index = dev.Index
		}
		return err
	})
	return index, err
}

// received returns how many packets arrived at an interface so far.
func (n *namespace) received(name string) (packets uint64, err error) {
	err = n.do(func() error {
		b, err := os.ReadFile("/proc/thread-self/net/dev")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			dev, rest, ok := strings.Cut(line, ":")
			if fields := strings.Fields(rest); ok && strings.TrimSpace(dev) == name && len(fields) > 1 {
				packets, err = strconv.ParseUint(fields[1], 10, 64)
				return err
			}
		}
		return fmt.Errorf("interface %s: no counters", name)
	})
	return packets, err
}

// setGRO turns on generic receive offload.
func setGRO(dev string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	value := struct{ command, data uint32 }{unix.ETHTOOL_SGRO, 1} // struct ethtool_value
	request := struct {                                           // struct ifreq
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&value)}
	copy(request.name[:unix.IFNAMSIZ-1], dev)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		return os.NewSyscallError("ioctl SIOCETHTOOL", errno)
	}
	return nil
}
