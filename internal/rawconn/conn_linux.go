package rawconn

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Options are what a socket can be bound to and exempted from. The zero value
// leaves everything to the kernel's routing.
type Options struct {
	// Source is the address to send from; the zero Addr lets the kernel choose.
	Source netip.Addr
	// Interface binds the socket to one interface; "" does not.
	Interface string
	// BypassIPsec exempts the socket from every IPsec policy of this host, in
	// both directions. See [Conn.BypassesIPsec].
	BypassIPsec bool
	// ProbeMTU sends with the DF bit and up to the interface's MTU, whatever
	// the kernel has learnt about the path (IP_PMTUDISC_PROBE).
	ProbeMTU bool
	// FragmentSizes asks for [Event.Fragment].
	FragmentSizes bool
}

// Conn is one datagram socket. Send and Receive may be used at the same time;
// Receive by one goroutine at a time.
type Conn struct {
	file   *os.File
	raw    syscall.RawConn
	v6     bool
	bypass bool
	buf    [maxPacket]byte
	oob    [512]byte // holds IP_RECVERR: sock_extended_err and a sockaddr, or IP_RECVFRAGSIZE
}

// maxPacket is the largest IP packet without jumbograms (RFC 791).
const maxPacket = 65535

// Event is what a socket received: a datagram, or news about one of ours.
type Event struct {
	Time time.Time // when it was read, in user space
	// Data is the datagram, or what Err quotes of ours from behind its IP
	// header (ICMP) or UDP header (UDP): maybe nothing. It is valid until the
	// next Receive.
	Data []byte
	// From sent the datagram. Of an Err it is where ours was sent to; invalid
	// when the kernel does not say.
	From netip.AddrPort
	// Fragment is the size of the largest fragment that the datagram came in,
	// in bytes with the IP header; 0 when it came whole, or the socket does not
	// ask for it (IP_RECVFRAGSIZE, IPV6_RECVFRAGSIZE).
	Fragment int
	// Err is nil for a datagram.
	Err *Error
}

// Error is one entry of a socket's error queue (struct sock_extended_err of
// linux/errqueue.h). It describes what the network said of our packet; it is
// an observation, not a Go error.
type Error struct {
	Errno syscall.Errno
	// Local says that this host refused the packet; otherwise an ICMP error
	// came.
	Local bool
	// Type and Code are the ICMP or ICMPv6 error's; 0 of a local one.
	Type, Code uint8
	// MTU is the next hop's MTU in bytes when Errno is EMSGSIZE, and 0
	// otherwise. It is what the error says, however absurd.
	MTU int
	// Offender sent the ICMP error; invalid of a local one.
	Offender netip.Addr
}

// open makes a bound, non-blocking socket. port is what to bind to, 0 for an
// ephemeral one.
func open(family, typ, proto int, o Options) (*Conn, error) {
	fd, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	c := &Conn{v6: family == unix.AF_INET6}
	if err := c.configure(fd, o); err != nil {
		unix.Close(fd)
		return nil, err
	}
	// A non-blocking descriptor makes os.File use the runtime's poller, which
	// wakes readers on EPOLLERR too: the error queue needs nothing more.
	c.file = os.NewFile(uintptr(fd), "socket")
	if c.raw, err = c.file.SyscallConn(); err != nil {
		c.file.Close()
		return nil, err
	}
	return c, nil
}

func (c *Conn) configure(fd int, o Options) error {
	level, recvErr, discover, probe := unix.SOL_IP, unix.IP_RECVERR, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE
	if c.v6 {
		level, recvErr, discover, probe = unix.SOL_IPV6, unix.IPV6_RECVERR, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE
		if err := unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_V6ONLY, 1); err != nil && !errors.Is(err, unix.EINVAL) {
			return os.NewSyscallError("setsockopt IPV6_V6ONLY", err)
		}
	}
	if err := unix.SetsockoptInt(fd, level, recvErr, 1); err != nil {
		return os.NewSyscallError("setsockopt IP_RECVERR", err)
	}
	if o.ProbeMTU {
		if err := unix.SetsockoptInt(fd, level, discover, probe); err != nil {
			return os.NewSyscallError("setsockopt IP_MTU_DISCOVER", err)
		}
	}
	if o.FragmentSizes {
		opt := unix.IP_RECVFRAGSIZE
		if c.v6 {
			opt = unix.IPV6_RECVFRAGSIZE
		}
		// Since Linux 4.11; without it nothing is said of fragments.
		if err := unix.SetsockoptInt(fd, level, opt, 1); err != nil && !errors.Is(err, unix.ENOPROTOOPT) {
			return os.NewSyscallError("setsockopt IP_RECVFRAGSIZE", err)
		}
	}
	if o.Interface != "" {
		if err := unix.BindToDevice(fd, o.Interface); err != nil {
			if errors.Is(err, unix.EPERM) {
				return fmt.Errorf("bind to interface %q: %w: needs CAP_NET_RAW: "+Setcap, o.Interface, err)
			}
			return fmt.Errorf("bind to interface %q: %w", o.Interface, err)
		}
	}
	if o.BypassIPsec {
		var err error
		if c.bypass, err = bypassIPsec(fd, c.v6); err != nil {
			return err
		}
	}
	sa, err := sockaddr(netip.AddrPortFrom(o.Source, 0), c.v6)
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, sa); err != nil {
		return fmt.Errorf("bind to source %v: %w", o.Source, err)
	}
	return nil
}

// BypassesIPsec reports whether no IPsec policy applies to the socket: it was
// exempted, or the kernel has no IPsec. False when exemption was not asked
// for, or not permitted (it needs CAP_NET_ADMIN); then a policy that covers
// both hosts swallows what the socket sends.
func (c *Conn) BypassesIPsec() bool { return c.bypass }

// Local returns the address and port that the socket is bound to; the address
// is unspecified when no source was asked for. An ICMP socket's port is the
// identifier of its echo requests.
func (c *Conn) Local() (netip.AddrPort, error) {
	var local netip.AddrPort
	err := c.control(func(fd int) error {
		sa, err := unix.Getsockname(fd)
		local = addrPort(sa)
		return os.NewSyscallError("getsockname", err)
	})
	return local, err
}

// SetTTL sets the time to live, or hop limit, of what is sent from now on:
// 1 to 255, or -1 for the host's default.
func (c *Conn) SetTTL(ttl int) error {
	level, opt := unix.SOL_IP, unix.IP_TTL
	if c.v6 {
		level, opt = unix.SOL_IPV6, unix.IPV6_UNICAST_HOPS
	}
	return c.control(func(fd int) error {
		return os.NewSyscallError("setsockopt IP_TTL", unix.SetsockoptInt(fd, level, opt, ttl))
	})
}

// Close closes the socket and makes a Receive that waits on it return.
func (c *Conn) Close() error { return c.file.Close() }

func (c *Conn) control(f func(fd int) error) error {
	var err error
	if cerr := c.raw.Control(func(fd uintptr) { err = f(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}

// sendTries bounds how often Send is refused for an error of an earlier
// packet. Such errors come from the network, so one may arrive at any time.
const sendTries = 4

// Send sends one datagram. It does not wait: a full buffer is EAGAIN or
// ENOBUFS. The error wraps the kernel's syscall.Errno and is about this
// datagram: the kernel also fails a send for an ICMP error that is about an
// earlier one, having sent nothing, and such a send is repeated.
func (c *Conn) Send(b []byte, to netip.AddrPort) error {
	sa, err := sockaddr(to, c.v6)
	if err != nil {
		return err
	}
	return c.control(func(fd int) error {
		var err error
		for range sendTries {
			// sock_error() has cleared what it returned, so only an error
			// that is about this very datagram can come every time.
			if err = unix.Sendto(fd, b, unix.MSG_DONTWAIT, sa); err == nil || err == unix.EAGAIN {
				break
			}
		}
		return os.NewSyscallError("sendto", err)
	})
}

// errClosed replaces the error that package os has for sockets that were
// closed, which cannot be told from others. There is no other reason for which
// one of ours stops waiting.
var errClosed = fmt.Errorf("receive: %w", os.ErrClosed)

// past is a deadline that has passed at any time.
var past = time.Unix(1, 0)

// Receive returns what the socket received next, errors about our packets
// first. It returns ctx's error when ctx ends first, and an error that wraps
// os.ErrClosed when the socket is closed.
func (c *Conn) Receive(ctx context.Context) (Event, error) {
	if err := ctx.Err(); err != nil {
		return Event{}, err
	}
	if err := c.file.SetReadDeadline(time.Time{}); err != nil {
		return Event{}, errClosed
	}
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		_ = c.file.SetReadDeadline(past) // fails only on a closed file
	})
	defer func() {
		if !stop() {
			<-woken // so that it cannot end the next Receive
		}
	}()

	var ev Event
	var err error
	if rerr := c.raw.Read(func(fd uintptr) bool {
		ev, err = c.receive(int(fd))
		return !errors.Is(err, unix.EAGAIN)
	}); rerr != nil {
		if ctx.Err() != nil {
			return Event{}, ctx.Err()
		}
		return Event{}, errClosed
	}
	return ev, err
}

// receive returns EAGAIN when there is nothing to receive.
func (c *Conn) receive(fd int) (Event, error) {
	var err error
	for range sendTries {
		var ev Event
		if ev, err = c.receiveError(fd); !errors.Is(err, unix.EAGAIN) {
			return ev, err
		}
		var n, oobn int
		var from unix.Sockaddr
		if n, oobn, _, from, err = unix.Recvmsg(fd, c.buf[:], c.oob[:], unix.MSG_DONTWAIT); err == nil {
			return Event{Time: time.Now(), Data: c.buf[:n], From: addrPort(from), Fragment: fragmentSize(c.oob[:oobn])}, nil
		}
		if err == unix.EAGAIN {
			return Event{}, err
		}
		// The errno of an ICMP error that has just arrived: its entry is in
		// the error queue by now.
	}
	return Event{}, os.NewSyscallError("recvmsg", err)
}
