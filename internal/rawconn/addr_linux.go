package rawconn

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// sockaddr turns an address into the kernel's form; the zero address into the
// unspecified one of the family.
func sockaddr(ap netip.AddrPort, v6 bool) (unix.Sockaddr, error) {
	a := ap.Addr().Unmap()
	switch {
	case v6 && !a.IsValid():
		return &unix.SockaddrInet6{Port: int(ap.Port())}, nil
	case !a.IsValid():
		return &unix.SockaddrInet4{Port: int(ap.Port())}, nil
	case v6 != a.Is6():
		return nil, fmt.Errorf("address %v is of the other IP family: use a source and a target of the same", a)
	case !v6:
		return &unix.SockaddrInet4{Port: int(ap.Port()), Addr: a.As4()}, nil
	}
	sa := &unix.SockaddrInet6{Port: int(ap.Port()), Addr: a.As16()}
	if zone := a.Zone(); zone != "" {
		index, err := zoneIndex(zone)
		if err != nil {
			return nil, fmt.Errorf("address %v: %w", a, err)
		}
		sa.ZoneId = index
	}
	return sa, nil
}

func zoneIndex(zone string) (uint32, error) {
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	ifi, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, err
	}
	return uint32(ifi.Index), nil
}

// addrPort is the inverse of sockaddr; a zone, which only link-local addresses
// have, becomes the interface's number. Anything but an IP address gives the
// zero AddrPort.
func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		a := netip.AddrFrom16(sa.Addr)
		if sa.ZoneId != 0 {
			a = a.WithZone(strconv.FormatUint(uint64(sa.ZoneId), 10))
		}
		return netip.AddrPortFrom(a, uint16(sa.Port))
	}
	return netip.AddrPort{}
}
