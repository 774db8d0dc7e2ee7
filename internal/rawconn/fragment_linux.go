package rawconn

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// fragmentSize reads the control message of IP_RECVFRAGSIZE or
// IPV6_RECVFRAGSIZE, which the kernel adds to what it put together.
func fragmentSize(oob []byte) int {
	for len(oob) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return 0
		}
		oob = rest
		v4 := h.Level == unix.SOL_IP && h.Type == unix.IP_RECVFRAGSIZE
		v6 := h.Level == unix.SOL_IPV6 && h.Type == unix.IPV6_RECVFRAGSIZE
		if (v4 || v6) && len(data) >= 4 {
			return int(int32(binary.NativeEndian.Uint32(data)))
		}
	}
	return 0
}

// ListenICMPErrors opens a raw socket that receives every ICMP or ICMPv6 error
// that reaches this host, whosever packet it is about. Of IPv4, [Event.Data]
// begins with the IP header; of IPv6, with the ICMPv6 header. It is what tells
// of incomplete reassembly (type 11 code 1), which the error queue leaves out
// (icmp_unreach, raw_err and ping_err of net/ipv4), and of the IP header that
// an error quotes. It needs CAP_NET_RAW.
func ListenICMPErrors(v6 bool, o Options) (*Conn, error) {
	family, proto := unix.AF_INET, unix.IPPROTO_ICMP
	if v6 {
		family, proto = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	c, err := open(family, unix.SOCK_RAW, proto, o)
	if err == nil {
		if err = c.control(func(fd int) error { return filterErrors(fd, v6) }); err != nil {
			c.Close()
		}
	}
	if err != nil {
		return nil, rawError("listen to ICMP errors", err)
	}
	return c, nil
}

func filterErrors(fd int, v6 bool) error {
	if v6 {
		var f unix.ICMPv6Filter
		for i := range f.Data {
			f.Data[i] = ^uint32(0) // a bit set is a type blocked
		}
		for _, typ := range []ipv6.ICMPType{ipv6.ICMPTypeDestinationUnreachable, ipv6.ICMPTypePacketTooBig, ipv6.ICMPTypeTimeExceeded} {
			f.Data[typ/32] &^= 1 << (uint(typ) % 32)
		}
		return os.NewSyscallError("setsockopt ICMPV6_FILTER", unix.SetsockoptICMPv6Filter(fd, unix.SOL_ICMPV6, unix.ICMPV6_FILTER, &f))
	}
	const solRaw, icmpFilter = 255, 1 // linux/icmp.h
	blocked := ^uint32(1<<uint(ipv4.ICMPTypeDestinationUnreachable) | 1<<uint(ipv4.ICMPTypeTimeExceeded))
	return os.NewSyscallError("setsockopt ICMP_FILTER", unix.SetsockoptInt(fd, solRaw, icmpFilter, int(int32(blocked))))
}

// OpenHeaders opens a raw socket that sends packets whose IP header the caller
// writes (IP_HDRINCL, IPV6_HDRINCL); it receives nothing. Connection tracking
// of this host leaves fragments of IPv4 as they are; those of IPv6 it puts
// together, and sends them in order. It needs CAP_NET_RAW.
func OpenHeaders(v6 bool, o Options) (*Conn, error) {
	family, level, opt := unix.AF_INET, unix.SOL_IP, unix.IP_HDRINCL
	if v6 {
		family, level, opt = unix.AF_INET6, unix.SOL_IPV6, unix.IPV6_HDRINCL
	}
	c, err := open(family, unix.SOCK_RAW, unix.IPPROTO_RAW, o)
	if err == nil {
		err = c.control(func(fd int) error {
			if err := unix.SetsockoptInt(fd, level, opt, 1); err != nil || v6 {
				return os.NewSyscallError("setsockopt IP_HDRINCL", err)
			}
			const noDefrag = 22 // IP_NODEFRAG of linux/in.h
			return os.NewSyscallError("setsockopt IP_NODEFRAG", unix.SetsockoptInt(fd, unix.SOL_IP, noDefrag, 1))
		})
		if err != nil {
			c.Close()
		}
	}
	if err != nil {
		return nil, rawError("open raw IP socket", err)
	}
	return c, nil
}

func rawError(what string, err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%s: %w: needs CAP_NET_RAW: "+Setcap, what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}
