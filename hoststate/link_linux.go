package hoststate

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"

	"vpnprobe/evidence"
)

// Link reads the state of the interface of that name. The carrier is known
// only while the interface is up. A reading that failed leaves all of it
// unknown.
func (*Reader) Link(name string) evidence.Link {
	l, err := getLink(linkByName(name))
	switch {
	case err == unix.ENODEV:
		return evidence.Link{Name: name, Exists: evidence.No}
	case err != nil:
		return evidence.Link{Name: name}
	}
	state := evidence.Link{Name: name, Exists: evidence.Yes, Up: evidence.FactOf(l.flags&unix.IFF_UP != 0)}
	if state.Up == evidence.Yes {
		state.Carrier = evidence.FactOf(l.flags&unix.IFF_LOWER_UP != 0)
	}
	if l.mtu > 0 {
		state.MTU = evidence.Some(int(l.mtu))
	}
	return state
}

// link is what the kernel says of an interface.
type link struct {
	name     string
	index    uint32
	hardware uint16 // ARPHRD_* of linux/if_arp.h
	flags    uint32 // IFF_*
	mtu      uint32 // bytes
	kind     string // "vlan", "xfrm", ...; "" for hardware
}

// linkByIndex and linkByName build the struct ifinfomsg (linux/rtnetlink.h)
// that asks for one interface.
func linkByIndex(index uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], index)
	return b
}

func linkByName(name string) []byte {
	kind := uint16(unix.IFLA_IFNAME) // finds alternative names too
	if len(name) >= unix.IFNAMSIZ {
		kind = unix.IFLA_ALT_IFNAME
	}
	return appendAttribute(make([]byte, unix.SizeofIfInfomsg), kind, append([]byte(name), 0))
}

// getLink returns unix.ENODEV when there is no such interface.
func getLink(request []byte) (link, error) {
	var l link
	err := query(unix.NETLINK_ROUTE, unix.RTM_GETLINK, 0, request, func(b []byte) bool {
		l = parseLink(b)
		return false
	})
	if err == nil && l.index == 0 {
		err = errMalformed
	}
	return l, err
}

func parseLink(b []byte) link {
	if len(b) < unix.SizeofIfInfomsg {
		return link{}
	}
	l := link{
		hardware: binary.NativeEndian.Uint16(b[2:]),
		index:    binary.NativeEndian.Uint32(b[4:]),
		flags:    binary.NativeEndian.Uint32(b[8:]),
	}
	for kind, value := range attributes(b[unix.SizeofIfInfomsg:]) {
		switch kind {
		case unix.IFLA_IFNAME:
			l.name = cString(value)
		case unix.IFLA_MTU:
			l.mtu = uint32Of(value)
		case unix.IFLA_LINKINFO:
			for kind, value := range attributes(value) {
				if kind == unix.IFLA_INFO_KIND {
					l.kind = cString(value)
				}
			}
		}
	}
	return l
}

// cString returns the string before the first NUL.
func cString(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(b)
}

// tunnel reports whether the interface carries IP in something that goes to a
// remote address. Of PPP nobody can tell: PPPoE is a common underlay, L2TP is
// not. A tap device is the uplink of some containers, so it is no tunnel.
func (l link) tunnel() evidence.Fact {
	switch l.kind {
	case "vti", "vti6", "xfrm", "ipip", "sit", "ip6tnl",
		"gre", "gretap", "ip6gre", "ip6gretap", "erspan", "ip6erspan",
		"wireguard", "ovpn", "gtp":
		return evidence.Yes
	case "tun":
		return evidence.FactOf(l.hardware != unix.ARPHRD_ETHER)
	case "ppp":
		return evidence.Unknown
	}
	switch l.hardware {
	case unix.ARPHRD_TUNNEL, unix.ARPHRD_TUNNEL6, unix.ARPHRD_SIT, unix.ARPHRD_IPGRE, unix.ARPHRD_IP6GRE:
		return evidence.Yes // a driver outside the kernel may name no kind
	case unix.ARPHRD_PPP:
		return evidence.Unknown
	}
	return evidence.No
}
