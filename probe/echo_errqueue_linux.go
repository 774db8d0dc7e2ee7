package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"vpnprobe/evidence"
)

// echoErrors is the error queue of a raw ICMP socket that is connected to one
// address. The kernel gives it every ICMP error about an ICMP packet from the
// connection's source to that address, whichever socket sent the packet
// (raw_icmp_error in net/ipv4/raw.c), pro-bing's own included, which ask for
// none. It sends nothing, and a filter keeps everything but errors out.
type echoErrors struct {
	file *os.File
	raw  syscall.RawConn
	v6   bool
}

// watchEchoErrors needs CAP_NET_RAW and a route to the target.
func watchEchoErrors(cfg EchoConfig) (errorWatch, error) {
	family, proto := unix.AF_INET, unix.IPPROTO_ICMP
	if cfg.Target.Is6() {
		family, proto = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := connectEchoErrors(fd, cfg); err != nil {
		unix.Close(fd)
		return nil, err
	}
	w := &echoErrors{file: os.NewFile(uintptr(fd), "icmp errors"), v6: cfg.Target.Is6()}
	if w.raw, err = w.file.SyscallConn(); err != nil {
		w.file.Close()
		return nil, err
	}
	return w, nil
}

func connectEchoErrors(fd int, cfg EchoConfig) error {
	if err := filterAllICMP(fd, cfg.Target.Is6()); err != nil {
		return err
	}
	if err := setRecvErr(fd, cfg.Target.Is6()); err != nil {
		return err
	}
	if cfg.Source.IsValid() {
		if err := unix.Bind(fd, sockaddrOf(netip.AddrPortFrom(cfg.Source, 0))); err != nil {
			return os.NewSyscallError("bind", err)
		}
	}
	if cfg.Interface != "" {
		if err := unix.BindToDevice(fd, cfg.Interface); err != nil {
			return fmt.Errorf("bind to interface %q: %w", cfg.Interface, err)
		}
	}
	if err := unix.Connect(fd, sockaddrOf(netip.AddrPortFrom(cfg.Target, 0))); err != nil {
		return os.NewSyscallError("connect", err)
	}
	if cfg.Interface != "" {
		// The interface has chosen the source address. An error may come in on
		// another: this host's own come in on lo.
		return os.NewSyscallError("setsockopt SO_BINDTODEVICE", unix.BindToDevice(fd, ""))
	}
	return nil
}

// filterAllICMP keeps every ICMP message out of the socket's receive queue.
// Its error queue is not filtered.
func filterAllICMP(fd int, v6 bool) error {
	if v6 {
		var f unix.ICMPv6Filter
		for i := range f.Data {
			f.Data[i] = ^uint32(0)
		}
		return os.NewSyscallError("setsockopt ICMPV6_FILTER", unix.SetsockoptICMPv6Filter(fd, unix.SOL_ICMPV6, unix.ICMPV6_FILTER, &f))
	}
	const solRaw, icmpFilter = 255, 1 // linux/socket.h, linux/icmp.h
	return os.NewSyscallError("setsockopt ICMP_FILTER", unix.SetsockoptInt(fd, solRaw, icmpFilter, -1))
}

func setRecvErr(fd int, v6 bool) error {
	level, opt := unix.SOL_IP, unix.IP_RECVERR
	if v6 {
		level, opt = unix.SOL_IPV6, unix.IPV6_RECVERR
	}
	return os.NewSyscallError("setsockopt IP_RECVERR", unix.SetsockoptInt(fd, level, opt, 1))
}

// close makes a receive that waits return.
func (w *echoErrors) close() { w.file.Close() }

func (w *echoErrors) receive() (echoError, error) {
	var quote [64]byte
	for {
		var n int
		var e evidence.ICMPError
		var err error
		if rerr := w.raw.Read(func(fd uintptr) bool {
			n, e, err = readErrorQueue(int(fd), quote[:], w.v6)
			return err != unix.EAGAIN
		}); rerr != nil {
			return echoError{}, rerr
		}
		if err != nil && !errors.Is(err, errNotICMP) {
			return echoError{}, err
		}
		if out, ok := parseQuote(quote[:n], w.v6); ok && err == nil {
			out.icmp = e
			return out, nil
		}
	}
}

// parseQuote reads an echo request as an ICMP error quotes it, from the ICMP
// header on; false if it is none.
func parseQuote(b []byte, v6 bool) (echoError, bool) {
	const headerLen, stampLen = 8, 8
	request := byte(8) // RFC 792
	if v6 {
		request = 128 // RFC 4443
	}
	if len(b) < headerLen || b[0] != request {
		return echoError{}, false
	}
	if len(b) < headerLen+stampLen {
		return echoError{}, true
	}
	return echoError{stamp: time.Unix(0, int64(binary.BigEndian.Uint64(b[headerLen:])))}, true
}

// errNotICMP is an entry of the error queue that no ICMP error made.
var errNotICMP = errors.New("not an ICMP error")

// readErrorQueue takes the oldest entry off a socket's error queue, and what
// it quotes of the packet that it is about. It returns EAGAIN when the queue
// is empty.
func readErrorQueue(fd int, quote []byte, v6 bool) (int, evidence.ICMPError, error) {
	var oob [256]byte
	n, oobn, _, _, err := unix.Recvmsg(fd, quote, oob[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
	if err != nil {
		return 0, evidence.ICMPError{}, err
	}
	e, ok := parseExtendedError(oob[:oobn], v6)
	if !ok {
		return n, e, errNotICMP
	}
	return n, e, nil
}

// parseExtendedError reads a struct sock_extended_err (linux/errqueue.h) and
// the sockaddr of the error's sender, which follows it.
func parseExtendedError(oob []byte, v6 bool) (evidence.ICMPError, bool) {
	const size, originICMP, originICMP6 = 16, 2, 3
	for len(oob) > 0 {
		h, b, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return evidence.ICMPError{}, false
		}
		oob = rest
		isV4 := h.Level == unix.SOL_IP && h.Type == unix.IP_RECVERR
		isV6 := h.Level == unix.SOL_IPV6 && h.Type == unix.IPV6_RECVERR
		if !isV4 && !isV6 || len(b) < size || b[4] != originICMP && b[4] != originICMP6 {
			continue
		}
		e := evidence.ICMPError{Type: b[5], Code: b[6], Reason: icmpReason(v6, b[5], b[6])}
		if e.Reason == evidence.FragNeeded {
			e.MTU = evidence.Some(int(binary.NativeEndian.Uint32(b[8:])))
		}
		switch sa := b[size:]; {
		case isV4 && len(sa) >= 8 && binary.NativeEndian.Uint16(sa) == unix.AF_INET:
			e.Offender = evidence.Some(netip.AddrFrom4([4]byte(sa[4:8])))
		case isV6 && len(sa) >= 24 && binary.NativeEndian.Uint16(sa) == unix.AF_INET6:
			e.Offender = evidence.Some(netip.AddrFrom16([16]byte(sa[8:24])).Unmap())
		}
		return e, true
	}
	return evidence.ICMPError{}, false
}

func sockaddrOf(ap netip.AddrPort) unix.Sockaddr {
	addr := ap.Addr()
	if addr.Is4() {
		return &unix.SockaddrInet4{Port: int(ap.Port()), Addr: addr.As4()}
	}
	return &unix.SockaddrInet6{Port: int(ap.Port()), Addr: addr.As16(), ZoneId: zoneIndex(addr.Zone())}
}

// zoneIndex returns 0, no zone, for an interface that does not exist: the
// kernel then refuses a link-local address.
func zoneIndex(zone string) uint32 {
	if i, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(i)
	}
	if ifi, err := net.InterfaceByName(zone); zone != "" && err == nil {
		return uint32(ifi.Index)
	}
	return 0
}
