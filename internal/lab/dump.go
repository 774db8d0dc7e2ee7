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
	saPacketCount = 168 // of struct xfrm_lifetime_cur, after two addresses and struct xfrm_lifetime_cfg
	saInfoSize    = 224
)

// newest is the newest ESP association to some address.
type newest struct {
	spi     uint32 // 0 if there is none
	packets uint64 // that it has carried
}

// newestTo returns the newest ESP association to an address that the node's
// kernel holds. It asks the kernel itself: a run of ip takes a tenth of a
// second, and more on a busy machine.
func (n *Node) newestTo(to netip.Addr) newest {
	n.lab.t.Helper()
	var sa newest
	err := n.inside(func() (err error) {
		sa, err = newestTo(to)
		return err
	})
	if err != nil {
		n.lab.t.Fatalf("lab: %s: list the associations: %v", n.Name, err)
	}
	return sa
}

func newestTo(to netip.Addr) (sa newest, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_XFRM)
	if err != nil {
		return sa, err
	}
	defer unix.Close(fd)
	request := make([]byte, unix.NLMSG_HDRLEN)
	binary.NativeEndian.PutUint32(request, uint32(len(request)))
	binary.NativeEndian.PutUint16(request[4:], xfrmMsgGetSA)
	binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return sa, err
	}
	for buf := make([]byte, 1<<16); ; {
		size, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return sa, err
		}
		messages, err := syscall.ParseNetlinkMessage(buf[:size])
		if err != nil {
			return sa, err
		}
		for _, m := range messages {
			switch m.Header.Type {
			case unix.NLMSG_DONE:
				return sa, nil
			case unix.NLMSG_ERROR:
				return sa, fmt.Errorf("the kernel answered %x", m.Data)
			case xfrmMsgNewSA:
				// The kernel lists the newest first.
				if sa.spi == 0 && len(m.Data) >= saInfoSize && m.Data[saProtocol] == unix.IPPROTO_ESP && leadsTo(m.Data[saDestination:], to) {
					sa.spi = binary.BigEndian.Uint32(m.Data[saSPI:])
					sa.packets = binary.NativeEndian.Uint64(m.Data[saPacketCount:])
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
