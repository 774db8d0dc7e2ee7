package tcpsize

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"vpnprobe/evidence"
)

// synACK watches for a target's SYN-ACK on a raw socket: what the kernel tells
// of the MSS in it is bounded by the path MTU, and so is no word of the target.
type synACK struct {
	fd   int
	v6   bool
	from netip.AddrPort
	to   uint16
}

// openSYNACK returns nil where this process may not watch (it needs
// CAP_NET_RAW): the look is poorer then, but not in vain.
func openSYNACK(from netip.AddrPort, to uint16) *synACK {
	w := &synACK{v6: from.Addr().Is6(), from: from, to: to}
	family := unix.AF_INET
	if w.v6 {
		family = unix.AF_INET6
	}
	var err error
	w.fd, err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
	if err != nil {
		return nil
	}
	// What came before the filter was in place is sorted out by the reader.
	if w.filter() != nil {
		w.close()
		return nil
	}
	return w
}

// filter lets in SYN-ACKs between the two ports only. IPv4 packets begin with
// their IP header on a raw socket, IPv6 packets behind it (raw(7), ipv6(7)).
func (w *synACK) filter() error {
	begin := []bpf.Instruction{bpf.LoadMemShift{Off: 0}}
	if w.v6 {
		begin = []bpf.Instruction{bpf.LoadConstant{Dst: bpf.RegX, Val: 0}}
	}
	program, err := bpf.Assemble(append(begin,
		bpf.LoadIndirect{Off: 0, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(w.from.Port())<<16 | uint32(w.to), SkipTrue: 4},
		bpf.LoadIndirect{Off: 13, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: flagSYN | flagACK | flagRST},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: flagSYN | flagACK, SkipTrue: 1},
		bpf.RetConstant{Val: maxHeaders},
		bpf.RetConstant{Val: 0},
	))
	if err != nil {
		return err
	}
	filter := make([]unix.SockFilter, len(program))
	for i, in := range program {
		filter[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	return unix.SetsockoptSockFprog(w.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
}

// maxHeaders is the longest IPv4 header and the longest TCP header, in bytes.
const maxHeaders = 60 + 60

// mss returns the MSS of the SYN-ACK that came; unknown when none was seen.
func (w *synACK) mss() evidence.Opt[int] {
	if w == nil {
		return evidence.Opt[int]{}
	}
	var b [maxHeaders]byte
	for range 1000 { // what came before the filter
		n, from, err := unix.Recvfrom(w.fd, b[:], unix.MSG_TRUNC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			break
		}
		segment, ok := b[:min(n, len(b))], true
		var addr netip.Addr
		switch from := from.(type) {
		case *unix.SockaddrInet4:
			addr = netip.AddrFrom4(from.Addr)
			segment, ok = skipIPv4(segment)
		case *unix.SockaddrInet6:
			addr = netip.AddrFrom16(from.Addr)
		}
		if !ok || addr != w.from.Addr().WithZone("") {
			continue
		}
		if mss, ok := parseSYNACK(segment, w.from.Port(), w.to, w.v6); ok {
			return evidence.Some(mss)
		}
	}
	return evidence.Opt[int]{}
}

func (w *synACK) close() {
	if w != nil {
		unix.Close(w.fd)
	}
}

func skipIPv4(b []byte) (segment []byte, ok bool) {
	if len(b) < 20 {
		return nil, false
	}
	length := int(b[0]&0xf) * 4
	if length < 20 || length > len(b) {
		return nil, false
	}
	return b[length:], true
}

// Bits of the TCP header (RFC 9293 section 3.1).
const (
	flagSYN = 0x02
	flagRST = 0x04
	flagACK = 0x10
)

// parseSYNACK returns the MSS in a SYN-ACK between two ports. One without the
// option stands for the default of RFC 9293 section 3.7.1. A segment that is
// none, or is cut off within its options, is not ok.
func parseSYNACK(b []byte, from, to uint16, v6 bool) (mss int, ok bool) {
	if len(b) < 20 || binary.BigEndian.Uint16(b) != from || binary.BigEndian.Uint16(b[2:]) != to ||
		b[13]&(flagSYN|flagACK|flagRST) != flagSYN|flagACK {
		return 0, false
	}
	length := int(b[12]>>4) * 4
	if length < 20 || length > len(b) {
		return 0, false
	}
	const end, nop, maximum = 0, 1, 2 // kinds of options
	for o := b[20:length]; len(o) > 0 && o[0] != end; {
		if o[0] == nop {
			o = o[1:]
			continue
		}
		if len(o) < 2 || o[1] < 2 || int(o[1]) > len(o) {
			return 0, false
		}
		if o[0] == maximum && o[1] == 4 {
			return int(binary.BigEndian.Uint16(o[2:])), true
		}
		o = o[o[1]:]
	}
	if v6 {
		return 1220, true
	}
	return 536, true
}
