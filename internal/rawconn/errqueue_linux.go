package rawconn

import (
	"encoding/binary"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// receiveError takes the oldest entry off the socket's error queue. It returns
// EAGAIN when there is none.
func (c *Conn) receiveError(fd int) (Event, error) {
	for {
		n, oobn, _, to, err := unix.Recvmsg(fd, c.buf[:], c.oob[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if err != nil {
			return Event{}, os.NewSyscallError("recvmsg MSG_ERRQUEUE", err)
		}
		e, ok := parseErrorQueue(c.oob[:oobn])
		if !ok {
			continue // not an ICMP or local error: nothing that we asked for
		}
		return Event{Time: time.Now(), Data: c.buf[:n], From: addrPort(to), Err: e}, nil
	}
}

// The origins of an error (linux/errqueue.h).
const (
	originLocal = 1
	originICMP  = 2
	originICMP6 = 3
)

// extendedErrLen is the size of struct sock_extended_err; the offender's
// sockaddr follows it (SO_EE_OFFENDER).
const extendedErrLen = 16

func parseErrorQueue(oob []byte) (*Error, bool) {
	for len(oob) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return nil, false
		}
		oob = rest
		v4 := h.Level == unix.SOL_IP && h.Type == unix.IP_RECVERR
		v6 := h.Level == unix.SOL_IPV6 && h.Type == unix.IPV6_RECVERR
		if v4 || v6 {
			return parseExtendedErr(data)
		}
	}
	return nil, false
}

func parseExtendedErr(b []byte) (*Error, bool) {
	if len(b) < extendedErrLen {
		return nil, false
	}
	e := &Error{Errno: syscall.Errno(binary.NativeEndian.Uint32(b)), Type: b[5], Code: b[6]}
	switch origin := b[4]; origin {
	case originLocal:
		e.Local = true
	case originICMP, originICMP6:
		e.Offender = offender(b[extendedErrLen:])
	default:
		return nil, false
	}
	if e.Errno == unix.EMSGSIZE {
		e.MTU = int(binary.NativeEndian.Uint32(b[8:]))
	}
	return e, true
}

// offender reads a struct sockaddr_in or sockaddr_in6.
func offender(b []byte) netip.Addr {
	if len(b) < 2 {
		return netip.Addr{}
	}
	switch family := binary.NativeEndian.Uint16(b); {
	case family == unix.AF_INET && len(b) >= 8:
		return netip.AddrFrom4([4]byte(b[4:8]))
	case family == unix.AF_INET6 && len(b) >= 24:
		return netip.AddrFrom16([16]byte(b[8:24])).Unmap()
	}
	return netip.Addr{}
}
