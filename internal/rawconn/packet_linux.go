package rawconn

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Device is a network device as packet(7) sockets see it.
type Device struct {
	Index int
	// Ethernet reports whether frames begin with an Ethernet header, as they
	// do on the loopback device too. A [Ring] on any other device delivers
	// packets from their IP header on, whatever the device puts before it.
	Ethernet bool
	Up       bool   // set up by the administrator
	Driver   string // as the driver calls itself, "" if it does not
}

// LookUpDevice finds a device by name. The error wraps unix.ENODEV when there
// is none.
func LookUpDevice(name string) (Device, error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return Device{}, fmt.Errorf("interface %q: not a possible name", name)
	}
	// Any socket answers questions about devices; this one needs neither
	// privileges nor an address family that may be missing.
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return Device{}, fmt.Errorf("interface %s: %w", name, os.NewSyscallError("socket", err))
	}
	defer unix.Close(fd)
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr); err != nil {
		return Device{}, fmt.Errorf("interface %s: %w", name, err)
	}
	dev := Device{Index: int(ifr.Uint32())}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFHWADDR, ifr); err != nil {
		return Device{}, fmt.Errorf("interface %s: %w", name, err)
	}
	// The first field of the answer, a sockaddr, is the ARPHRD_ type.
	switch ifr.Uint16() {
	case unix.ARPHRD_ETHER, unix.ARPHRD_LOOPBACK:
		dev.Ethernet = true
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, ifr); err != nil {
		return Device{}, fmt.Errorf("interface %s: %w", name, err)
	}
	dev.Up = ifr.Uint16()&unix.IFF_UP != 0
	if info, err := unix.IoctlGetEthtoolDrvinfo(fd, name); err == nil {
		dev.Driver = unix.ByteSliceToString(info.Driver[:])
	}
	return dev, nil
}

// DevicePackets returns how many packets passed a device so far, both ways, by
// its own count. The kernel may have put several of them together, or not yet
// apart, where a tap sees them. Devices of the calling thread's network
// namespace count.
func DevicePackets(name string) (uint64, error) {
	f, err := os.Open("/proc/thread-self/net/dev")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// "name: " and 8 counters of what was received, then 8 of what was
		// sent, of both bytes and packets first (net/core/net-procfs.c).
		dev, counters, ok := strings.Cut(strings.TrimSpace(lines.Text()), ":")
		if !ok || dev != name {
			continue
		}
		var sum uint64
		fields := strings.Fields(counters)
		for _, i := range []int{1, 9} {
			if i >= len(fields) {
				return 0, fmt.Errorf("interface %s: /proc/net/dev has %d counters", name, len(fields))
			}
			n, err := strconv.ParseUint(fields[i], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("interface %s: /proc/net/dev: %w", name, err)
			}
			sum += n
		}
		return sum, nil
	}
	return 0, fmt.Errorf("interface %s: %w", name, unix.ENODEV)
}

// openPacket returns a packet socket that is not bound yet and receives
// nothing: protocol 0 keeps out every frame until the filter is in place.
func openPacket(dev Device) (int, error) {
	// A cooked socket (SOCK_DGRAM) has the kernel strip the link header, or
	// what a tunnel device puts in its place. Ethernet keeps it, for the VLAN
	// tags that are in line.
	typ := unix.SOCK_DGRAM
	if dev.Ethernet {
		typ = unix.SOCK_RAW
	}
	fd, err := unix.Socket(unix.AF_PACKET, typ|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.EPERM):
		return -1, fmt.Errorf("packet socket: %w: needs CAP_NET_RAW: "+Setcap, err)
	case errors.Is(err, unix.EAFNOSUPPORT):
		return -1, fmt.Errorf("packet socket: %w: allow AF_PACKET (RestrictAddressFamilies= of the service, or the af_packet kernel module)", err)
	case err != nil:
		return -1, os.NewSyscallError("socket", err)
	}
	return fd, nil
}

// attach sets the filter of a packet socket, or replaces it in one step.
func attach(fd int, filter []bpf.RawInstruction) error {
	if len(filter) == 0 {
		return errors.New("packet filter: empty")
	}
	prog := make([]unix.SockFilter, len(filter))
	for i, ins := range filter {
		prog[i] = unix.SockFilter{Code: ins.Op, Jt: ins.Jt, Jf: ins.Jf, K: ins.K}
	}
	err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{
		Len:    uint16(len(prog)),
		Filter: &prog[0],
	})
	return os.NewSyscallError("setsockopt SO_ATTACH_FILTER", err)
}

// bind begins the reception of every protocol, both ways, on one device.
//
// ETH_P_ALL is the one protocol that sees what is sent; with ETH_P_IP, the
// kernel would also have to copy every packet that it goes on to process.
func bind(fd int, dev Device) error {
	all := uint16(unix.ETH_P_ALL)
	err := unix.Bind(fd, &unix.SockaddrLinklayer{
		Protocol: all<<8 | all>>8, // network byte order
		Ifindex:  dev.Index,
	})
	if err != nil {
		return os.NewSyscallError("bind", err)
	}
	return pendingError(fd) // ENETDOWN when the device is down
}

// pendingError returns and clears the error that the kernel left on a socket.
func pendingError(fd int) error {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return os.NewSyscallError("getsockopt SO_ERROR", err)
	}
	if n != 0 {
		return unix.Errno(n)
	}
	return nil
}

// Frame is one captured frame.
type Frame struct {
	// Data is what the filter let through of the frame. It is the kernel's
	// memory: valid until the iteration goes on, not to be written to.
	Data     []byte
	WireLen  int       // bytes on the wire
	Outgoing bool      // sent by this host through the device
	Time     time.Time // when the kernel took it, by the wall clock
}
