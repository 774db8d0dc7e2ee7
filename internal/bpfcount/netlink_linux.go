package bpfcount

import (
	"encoding/binary"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Parents of filters in the clsact qdisc, and its own (linux/pkt_sched.h).
const (
	handleClsact  = 0xffff0000
	parentClsact  = 0xfffffff1
	parentIngress = 0xfffffff2
	parentEgress  = 0xfffffff3
)

// Attributes of qdiscs and filters (linux/rtnetlink.h, linux/pkt_cls.h).
const (
	tcaKind    = 1
	tcaOptions = 2

	tcaBPFFD       = 6
	tcaBPFName     = 7
	tcaBPFFlags    = 8
	tcaBPFFlagsGen = 9

	bpfDirectAction = 1 // TCA_BPF_FLAG_ACT_DIRECT: the program's result decides
	skipHardware    = 1 // TCA_CLS_FLAGS_SKIP_HW
)

const (
	tcMessageLen   = 20 // struct tcmsg
	linkMessageLen = 16 // struct ifinfomsg
	attrHeader     = 4
)

// filter is one filter of cls_bpf.
type filter struct {
	parent   uint32
	priority uint16
	handle   uint32
	name     string // empty if it is of another kind
}

// routeSocket is a netlink socket for requests to the kernel's traffic control,
// one at a time.
type routeSocket struct {
	fd  int
	seq uint32
}

func dialRoute() (*routeSocket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	return &routeSocket{fd: fd}, nil
}

func (s *routeSocket) close() { unix.Close(s.fd) }

// hardware returns the type of an interface (ARPHRD_).
func (s *routeSocket) hardware(ifindex int) (uint16, error) {
	body := make([]byte, linkMessageLen)
	binary.NativeEndian.PutUint32(body[4:], uint32(ifindex))
	var hardware uint16
	err := s.request(unix.RTM_GETLINK, 0, body, func(typ uint16, body []byte) {
		if typ == unix.RTM_NEWLINK && len(body) >= linkMessageLen {
			hardware = binary.NativeEndian.Uint16(body[2:])
		}
	})
	return hardware, err
}

func (s *routeSocket) addClsact(ifindex int) error {
	body := tcMessage(ifindex, handleClsact, parentClsact, 0)
	body = appendAttr(body, tcaKind, []byte("clsact\x00"))
	return s.request(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL, body, nil)
}

func (s *routeSocket) removeClsact(ifindex int) error {
	return s.request(unix.RTM_DELQDISC, 0, tcMessage(ifindex, handleClsact, parentClsact, 0), nil)
}

// ingressKind returns the kind of the qdisc that is in the place of clsact.
func (s *routeSocket) ingressKind(ifindex int) (string, error) {
	var kind string
	err := s.request(unix.RTM_GETQDISC, unix.NLM_F_DUMP, tcMessage(ifindex, 0, 0, 0), func(typ uint16, body []byte) {
		if typ != unix.RTM_NEWQDISC || len(body) < tcMessageLen ||
			binary.NativeEndian.Uint32(body[4:]) != uint32(ifindex) || binary.NativeEndian.Uint32(body[12:]) != parentClsact {
			return
		}
		for typ, value := range attrs(body[tcMessageLen:]) {
			if typ == tcaKind {
				kind = text(value)
			}
		}
	})
	return kind, err
}

func (s *routeSocket) addFilter(ifindex int, f filter, program int) error {
	var options []byte
	options = appendAttr(options, tcaBPFFD, binary.NativeEndian.AppendUint32(nil, uint32(program)))
	options = appendAttr(options, tcaBPFName, append([]byte(f.name), 0))
	options = appendAttr(options, tcaBPFFlags, binary.NativeEndian.AppendUint32(nil, bpfDirectAction))
	options = appendAttr(options, tcaBPFFlagsGen, binary.NativeEndian.AppendUint32(nil, skipHardware))
	body := tcMessage(ifindex, f.handle, f.parent, f.info())
	body = appendAttr(body, tcaKind, []byte("bpf\x00"))
	body = appendAttr(body, tcaOptions|unix.NLA_F_NESTED, options)
	return s.request(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE|unix.NLM_F_EXCL, body, nil)
}

func (s *routeSocket) removeFilter(ifindex int, f filter) error {
	body := tcMessage(ifindex, f.handle, f.parent, f.info())
	body = appendAttr(body, tcaKind, []byte("bpf\x00"))
	return s.request(unix.RTM_DELTFILTER, 0, body, nil)
}

// info is tcm_info of a filter for all protocols.
func (f filter) info() uint32 {
	return uint32(f.priority)<<16 | uint32(network(unix.ETH_P_ALL))
}

// filters returns the filters of a parent, of all kinds.
func (s *routeSocket) filters(ifindex int, parent uint32) ([]filter, error) {
	var list []filter
	err := s.request(unix.RTM_GETTFILTER, unix.NLM_F_DUMP, tcMessage(ifindex, 0, parent, 0), func(typ uint16, body []byte) {
		if typ != unix.RTM_NEWTFILTER || len(body) < tcMessageLen {
			return
		}
		f := filter{
			parent:   parent,
			handle:   binary.NativeEndian.Uint32(body[8:]),
			priority: uint16(binary.NativeEndian.Uint32(body[16:]) >> 16),
		}
		var kind string
		var options []byte
		for typ, value := range attrs(body[tcMessageLen:]) {
			switch typ {
			case tcaKind:
				kind = text(value)
			case tcaOptions:
				options = value
			}
		}
		if kind == "bpf" {
			for typ, value := range attrs(options) {
				if typ == tcaBPFName {
					f.name = text(value)
				}
			}
		}
		list = append(list, f)
	})
	return list, err
}

// tcMessage is a struct tcmsg.
func tcMessage(ifindex int, handle, parent, info uint32) []byte {
	b := make([]byte, 4, 128) // family and padding
	for _, v := range []uint32{uint32(ifindex), handle, parent, info} {
		b = binary.NativeEndian.AppendUint32(b, v)
	}
	return b
}

func appendAttr(b []byte, typ uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(attrHeader+len(value)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, value...)
	for len(b)%unix.NLA_ALIGNTO != 0 {
		b = append(b, 0)
	}
	return b
}

// attrs yields the attributes in b by their type.
func attrs(b []byte) func(yield func(uint16, []byte) bool) {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= attrHeader {
			n := int(binary.NativeEndian.Uint16(b))
			typ := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if n < attrHeader || n > len(b) || !yield(typ, b[attrHeader:n]) {
				return
			}
			b = b[min(len(b), (n+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1)):]
		}
	}
}

func text(b []byte) string { s, _, _ := strings.Cut(string(b), "\x00"); return s }

// request sends a message and hands the answers to f until the kernel says
// that it is done.
func (s *routeSocket) request(typ uint16, flags int, body []byte, f func(typ uint16, body []byte)) error {
	s.seq++
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(body)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.NLM_F_REQUEST|unix.NLM_F_ACK|flags))
	b = binary.NativeEndian.AppendUint32(b, s.seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	if err := unix.Sendto(s.fd, append(b, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(s.fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return os.NewSyscallError("recvfrom", err)
		}
		done, err := s.answers(buf[:n], f)
		if done || err != nil {
			return err
		}
	}
}

func (s *routeSocket) answers(b []byte, f func(typ uint16, body []byte)) (done bool, err error) {
	for len(b) >= unix.NLMSG_HDRLEN {
		n := int(binary.NativeEndian.Uint32(b))
		if n < unix.NLMSG_HDRLEN || n > len(b) {
			return true, unix.EBADMSG
		}
		typ, seq, body := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint32(b[8:]), b[unix.NLMSG_HDRLEN:n]
		b = b[min(len(b), (n+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1)):]
		switch {
		case seq != s.seq: // of an earlier request
		case typ == unix.NLMSG_ERROR || typ == unix.NLMSG_DONE:
			if len(body) >= 4 {
				if code := int32(binary.NativeEndian.Uint32(body)); code < 0 {
					return true, unix.Errno(-code)
				}
			}
			return true, nil
		case f != nil:
			f(typ, body)
		}
	}
	return false, nil
}
