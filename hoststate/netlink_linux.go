package hoststate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// netlinkTimeout bounds the wait for one datagram of an answer. The kernel
	// answers while it handles the request, so this only guards against a
	// kernel that never does.
	netlinkTimeout = 2 * time.Second

	// receiveBuffer holds one datagram: the kernel fills at most 32 KiB at a
	// time, however large the buffer (net/netlink/af_netlink.c, netlink_recvmsg).
	receiveBuffer = 32 << 10
)

var (
	errMalformed = errors.New("the kernel's answer is malformed")
	errTruncated = errors.New("the kernel's answer is truncated")
)

// query asks the kernel one question over a socket of its own and calls visit
// with the payload of each message of the answer, until the answer is complete
// or visit returns false. The payload is valid only during visit: it is
// overwritten, as it may hold keys. An error that the kernel answered is
// returned as its unix.Errno.
func query(protocol int, kind, flags uint16, body []byte, visit func(payload []byte) bool) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return fmt.Errorf("open a netlink socket: %w", err)
	}
	defer unix.Close(fd)
	timeout := unix.NsecToTimeval(netlinkTimeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return fmt.Errorf("set the netlink receive timeout: %w", err)
	}
	request := appendMessage(nil, kind, flags|unix.NLM_F_REQUEST, body)
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send a netlink request: %w", err)
	}

	buf := make([]byte, receiveBuffer)
	for {
		n, err := receive(fd, buf)
		if err != nil {
			return err
		}
		done, err := visitMessages(buf[:n], visit)
		clear(buf[:n])
		if done || err != nil {
			return err
		}
	}
}

// receive reads one datagram from the kernel; another process may send to a
// netlink socket too, and is not listened to.
func receive(fd int, buf []byte) (int, error) {
	for {
		n, from, err := unix.Recvfrom(fd, buf, unix.MSG_TRUNC)
		switch {
		case err == unix.EINTR:
			continue // SO_RCVTIMEO ends SA_RESTART: signal(7)
		case err != nil:
			clear(buf)
			return 0, fmt.Errorf("receive a netlink answer: %w", err)
		}
		if kernel, ok := from.(*unix.SockaddrNetlink); !ok || kernel.Pid != 0 {
			clear(buf)
			continue
		}
		if n > len(buf) {
			clear(buf)
			return 0, errTruncated
		}
		return n, nil
	}
}

// visitMessages walks the messages of one datagram and reports whether the
// answer ended with it: with an error, the end of a dump, a message that is not
// part of a dump, or because visit wants no more.
func visitMessages(b []byte, visit func(payload []byte) bool) (done bool, err error) {
	for len(b) > 0 {
		m, rest, ok := cutMessage(b)
		if !ok {
			return false, errMalformed
		}
		b = rest
		switch m.kind {
		case unix.NLMSG_NOOP:
			continue
		case unix.NLMSG_ERROR, unix.NLMSG_DONE:
			return true, messageError(m)
		}
		if !visit(m.payload) || m.flags&unix.NLM_F_MULTI == 0 {
			return true, nil
		}
	}
	return false, nil
}

// messageError reads the status that starts the payload of an error message
// and, on any kernel of interest, of the message that ends a dump: 0 or a
// negative errno.
func messageError(m message) error {
	if len(m.payload) < 4 {
		if m.kind == unix.NLMSG_DONE {
			return nil
		}
		return errMalformed
	}
	status := int32(binary.NativeEndian.Uint32(m.payload))
	if status >= 0 || status < -4095 { // MAX_ERRNO of include/linux/err.h
		return nil
	}
	return unix.Errno(-status)
}

// message is a netlink message: struct nlmsghdr of linux/netlink.h, without
// its sequence and port numbers, which a socket used once does not need.
type message struct {
	kind, flags uint16
	payload     []byte
}

func cutMessage(b []byte) (m message, rest []byte, ok bool) {
	if len(b) < unix.SizeofNlMsghdr {
		return m, nil, false
	}
	length := uint64(binary.NativeEndian.Uint32(b))
	if length < unix.SizeofNlMsghdr || length > uint64(len(b)) {
		return m, nil, false
	}
	m.kind = binary.NativeEndian.Uint16(b[4:])
	m.flags = binary.NativeEndian.Uint16(b[6:])
	m.payload = b[unix.SizeofNlMsghdr:length]
	return m, b[min(align(int(length)), len(b)):], true
}

func appendMessage(b []byte, kind, flags uint16, body []byte) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(unix.SizeofNlMsghdr+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint64(b, 0) // sequence, port: the kernel's choice
	return append(b, body...)
}

// attributes yields the type and value of each attribute in b, and stops at
// the first one that does not fit. The value is not looked at.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofNlAttr {
			length := int(binary.NativeEndian.Uint16(b))
			if length < unix.SizeofNlAttr || length > len(b) {
				return
			}
			kind := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if !yield(kind, b[unix.SizeofNlAttr:length]) {
				return
			}
			b = b[min(align(length), len(b)):]
		}
	}
}

func appendAttribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofNlAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, align(len(value))-len(value))...)
}

// uint32Of and addressOf read an attribute's value, and return the zero value
// for one of another size.
func uint32Of(value []byte) uint32 {
	if len(value) != 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(value)
}

func addressOf(value []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(value)
	return a
}

// family returns the address family of a, which must be unmapped.
func family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// align rounds up to the four bytes that netlink aligns everything to.
func align(n int) int { return (n + 3) &^ 3 }
