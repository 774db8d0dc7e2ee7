package rawconn

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// The ports of IKE and of IKE behind NAT (RFC 7296 section 2, RFC 3948).
const (
	portIKE  = 500
	portNATT = 4500
)

// ListenUDP opens an unconnected UDP socket on an ephemeral port, for IPv6 or
// IPv4. It never takes port 500 or 4500, even where the host's range of
// ephemeral ports includes them.
func ListenUDP(v6 bool, o Options) (*Conn, error) {
	family := unix.AF_INET
	if v6 {
		family = unix.AF_INET6
	}
	for range 3 {
		c, err := open(family, unix.SOCK_DGRAM, unix.IPPROTO_UDP, o)
		if err != nil {
			return nil, fmt.Errorf("open UDP socket: %w", err)
		}
		local, err := c.Local()
		if err != nil {
			c.Close()
			return nil, fmt.Errorf("open UDP socket: %w", err)
		}
		if p := local.Port(); p != portIKE && p != portNATT {
			return c, nil
		}
		// Close only now, so that the next socket gets another port.
		defer c.Close()
	}
	return nil, errors.New("open UDP socket: the kernel gives no port but 500 and 4500: widen net.ipv4.ip_local_port_range")
}

// Path is what the kernel would do with a packet to an address.
type Path struct {
	Source netip.Addr // the address it would be sent from
	MTU    int        // bytes, as the kernel believes it to be of the whole path
}

// LookUpPath asks the kernel for the way to an address, by connecting a UDP
// socket to it. It sends nothing. The error wraps the kernel's syscall.Errno.
func LookUpPath(to netip.Addr, o Options) (Path, error) {
	to = to.Unmap()
	p, err := lookUpPath(to, o)
	if err != nil {
		return Path{}, fmt.Errorf("look up path to %v: %w", to, err)
	}
	return p, nil
}

func lookUpPath(to netip.Addr, o Options) (Path, error) {
	c, err := ListenUDP(to.Is6(), o)
	if err != nil {
		return Path{}, err
	}
	defer c.Close()
	const discard = 9 // any port will do
	sa, err := sockaddr(netip.AddrPortFrom(to, discard), c.v6)
	if err != nil {
		return Path{}, err
	}
	level, opt := unix.SOL_IP, unix.IP_MTU
	if c.v6 {
		level, opt = unix.SOL_IPV6, unix.IPV6_MTU
	}
	var p Path
	err = c.control(func(fd int) error {
		if err := unix.Connect(fd, sa); err != nil {
			return os.NewSyscallError("connect", err)
		}
		var err error
		p.MTU, err = unix.GetsockoptInt(fd, level, opt)
		return os.NewSyscallError("getsockopt IP_MTU", err)
	})
	if err != nil {
		return Path{}, err
	}
	local, err := c.Local()
	p.Source = local.Addr()
	return p, err
}
