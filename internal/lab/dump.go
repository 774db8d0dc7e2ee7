//go:build linux

package lab

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// Of linux/xfrm.h.
const (
	xfrmMsgNewSA = 0x10
	xfrmMsgGetSA = 0x12

	// Offsets in struct xfrm_usersa_info: a selector of 56 bytes, and the
	// destination, SPI and protocol of struct xfrm_id.
	saDestination = 56
	saSPI         = 72
	saProtocol    = 76
	saInfoSize    = 224
)

// newestSPI returns the SPI of the newest ESP association to an address that
// the node's kernel holds, 0 if there is none. It asks the kernel itself: a
// run of ip takes a tenth of a second, and more on a busy machine.
func (n *Node) newestSPI(to netip.Addr) uint32 {
	n.lab.t.Helper()
	var spi uint32
	err := n.inside(func() (err error) {
		spi, err = newestSPI(to)
		return err
	})
	if err != nil {
		n.lab.t.Fatalf("lab: %s: list the associations: %v", n.Name, err)
	}
	return spi
}

func newestSPI(to netip.Addr) (uint32, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_XFRM)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	request := make([]byte, unix.NLMSG_HDRLEN)
	binary.NativeEndian.PutUint32(request, uint32(len(request)))
	binary.NativeEndian.PutUint16(request[4:], xfrmMsgGetSA)
	binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, err
	}
	newest := uint32(0)
	for buf := make([]byte, 1<<16); ; {
		size, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return 0, err
		}
		messages, err := syscall.ParseNetlinkMessage(buf[:size])
		if err != nil {
			return 0, err
		}
		for _, m := range messages {
			switch m.Header.Type {
			case unix.NLMSG_DONE:
				return newest, nil
			case unix.NLMSG_ERROR:
				return 0, fmt.Errorf("the kernel answered %x", m.Data)
			case xfrmMsgNewSA:
				// The kernel lists the newest first.
				if newest == 0 && len(m.Data) >= saInfoSize && m.Data[saProtocol] == unix.IPPROTO_ESP && leadsTo(m.Data[saDestination:], to) {
					newest = binary.BigEndian.Uint32(m.Data[saSPI:])
				}
			}
		}
	}
}

// leadsTo reports whether an xfrm_address_t is an address.
func leadsTo(b []byte, to netip.Addr) bool {
	raw := to.AsSlice()
	return string(b[:len(raw)]) == string(raw)
}
