//go:build linux

package lab

import (
	"encoding/binary"
	"errors"
	"net"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// LieTooBig makes the ISP's router answer gateway a's packets of more than
// size bytes with the message that they are too big and the next link takes
// mtu bytes. It forwards them all the same. The test fails if it never lied.
// IPv4 only.
func (l *Lab) LieTooBig(size, mtu int) *Fault {
	l.t.Helper()
	var liar *liar
	err := l.ISP.inside(func() (err error) {
		liar, err = newLiar("to-a", size, mtu)
		return err
	})
	if err != nil {
		l.t.Fatal("lab: lie about sizes: ", err)
	}
	done := make(chan struct{})
	go func() { defer close(done); liar.run() }()
	return l.ISP.fault(func() {
		l.t.Helper()
		liar.ended.Store(true)
		<-done
		if liar.lies.Load() == 0 {
			l.t.Errorf("lab: no packet of more than %d bytes met the router that lies", size)
		}
	})
}

// liar sees what comes in by a device, and answers some of it.
type liar struct {
	in, out   int // sockets
	size, mtu int
	lies      atomic.Int64
	ended     atomic.Bool
}

func newLiar(dev string, size, mtu int) (*liar, error) {
	device, err := net.InterfaceByName(dev)
	if err != nil {
		return nil, err
	}
	const ipv4 = unix.ETH_P_IP>>8 | unix.ETH_P_IP&0xff<<8 // in network byte order
	in, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, ipv4)
	if err != nil {
		return nil, err
	}
	out, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		return nil, errors.Join(err, unix.Close(in))
	}
	soon := unix.Timeval{Usec: 100_000} // to see that it is over
	err = errors.Join(
		unix.Bind(in, &unix.SockaddrLinklayer{Protocol: ipv4, Ifindex: device.Index}),
		unix.SetsockoptTimeval(in, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &soon),
	)
	if err != nil {
		return nil, errors.Join(err, unix.Close(in), unix.Close(out))
	}
	return &liar{in: in, out: out, size: size, mtu: mtu}, nil
}

func (l *liar) run() {
	defer unix.Close(l.in)
	defer unix.Close(l.out)
	const header, quoted = 20, 28 // of IP without options, and 8 bytes of what follows
	for buf := make([]byte, 1<<16); !l.ended.Load(); {
		n, from, err := unix.Recvfrom(l.in, buf, 0)
		link, ok := from.(*unix.SockaddrLinklayer)
		if err != nil || !ok || link.Pkttype != unix.PACKET_HOST || n <= l.size || n < quoted || buf[0] != 0x40|header/4 {
			continue
		}
		// RFC 792 and RFC 1191, section 4: type 3, code 4, the MTU at byte 6.
		message := make([]byte, 8, 8+quoted)
		message[0], message[1] = 3, 4
		binary.BigEndian.PutUint16(message[6:], uint16(l.mtu))
		message = append(message, buf[:quoted]...)
		binary.BigEndian.PutUint16(message[2:], checksum(message))
		if unix.Sendto(l.out, message, 0, &unix.SockaddrInet4{Addr: [4]byte(buf[12:16])}) == nil {
			l.lies.Add(1)
		}
	}
}

// checksum is the Internet checksum of an even number of bytes (RFC 1071).
func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
