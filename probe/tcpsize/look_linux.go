package tcpsize

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"vpnprobe/evidence"
)

// Config describes one look.
type Config struct {
	// Target is the service: an address and a port in a remote subnet.
	Target netip.AddrPort
	// Source is the address to connect from; the zero Addr lets the kernel
	// choose. One of the local subnet is what makes the tunnel be used.
	Source netip.Addr
	// Timeout is how long the connection may take to stand, then how long the
	// target may take to speak first, and then to answer; 5 s if zero or less.
	// Where something is missing by then, the look goes on for up to 3.5 s.
	Timeout time.Duration
}

const defaultTimeout = 5 * time.Second

// Look opens a connection to the target and returns what its sizes showed. An
// error means that it could not look: no connection came about, ctx ended, or
// this host refused. The result then says the same in CannotLook.
func Look(ctx context.Context, cfg Config) (evidence.TCPSize, error) {
	cfg.Target = netip.AddrPortFrom(cfg.Target.Addr().Unmap(), cfg.Target.Port())
	cfg.Source = cfg.Source.Unmap()
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTimeout
	}
	out := evidence.TCPSize{Target: cfg.Target, Time: time.Now()}
	if err := look(ctx, cfg, &out); err != nil {
		err = fmt.Errorf("tcp size of %v: %w", cfg.Target, err)
		out.CannotLook = err.Error()
		return out, err
	}
	return out, nil
}

func look(ctx context.Context, cfg Config, out *evidence.TCPSize) error {
	c, err := dial(ctx, cfg)
	if err != nil {
		return err
	}
	defer c.close()
	s, err := c.state()
	if err != nil {
		return err
	}
	out.MSS, out.Ours = c.announced(s), evidence.Some(s.announced())

	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) }) // fails only on a closed one
	defer stop()
	c.abort, err = talk(ctx, c, cfg.Target.Port(), cfg.Timeout, out)
	if ctx.Err() != nil {
		return fmt.Errorf("stopped before it was known: %w", context.Cause(ctx))
	}
	return err
}

// connection is a connection to the target and, where this process may, the
// target's SYN-ACK.
type connection struct {
	*net.TCPConn
	raw    syscall.RawConn
	v6     bool
	synMSS evidence.Opt[int] // in the SYN-ACK; unknown when it was not seen
	abort  bool              // whether to end it with a reset
}

func dial(ctx context.Context, cfg Config) (*connection, error) {
	if !cfg.Target.IsValid() || cfg.Target.Port() == 0 {
		return nil, errors.New("no address and port to connect to")
	}
	network := "tcp4"
	if cfg.Target.Addr().Is6() {
		network = "tcp6"
	}
	var handshake *synACK
	defer func() { handshake.close() }()
	d := net.Dialer{
		Timeout:   cfg.Timeout,
		KeepAlive: -1, // no packets of its own
		// The port must be known before the first packet leaves, for the filter.
		Control: func(_, _ string, raw syscall.RawConn) error {
			var bound error
			if err := raw.Control(func(fd uintptr) {
				var port uint16
				repeatEvenly(int(fd))
				if port, bound = bind(int(fd), cfg); bound == nil {
					handshake = openSYNACK(cfg.Target, port)
				}
			}); err != nil {
				return err
			}
			return bound
		},
	}
	c, err := d.DialContext(ctx, network, cfg.Target.String())
	if err != nil {
		return nil, explain(err)
	}
	tcp := c.(*net.TCPConn)
	raw, err := tcp.SyscallConn()
	if err != nil {
		tcp.Close()
		return nil, err
	}
	return &connection{TCPConn: tcp, raw: raw, v6: cfg.Target.Addr().Is6(), synMSS: handshake.mss()}, nil
}

// bind gives a socket its source address, and a port of the kernel's choice.
func bind(fd int, cfg Config) (port uint16, err error) {
	v6 := cfg.Target.Addr().Is6()
	source := cfg.Source
	switch {
	case !source.IsValid() && v6:
		source = netip.IPv6Unspecified()
	case !source.IsValid():
		source = netip.IPv4Unspecified()
	case source.Is6() != v6:
		return 0, fmt.Errorf("source %v is of another family than the target: choose one of the same", source)
	}
	if err := unix.Bind(fd, sockaddr(source)); err != nil {
		return 0, fmt.Errorf("bind to source %v: %w", source, err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return 0, os.NewSyscallError("getsockname", err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return uint16(sa.Port), nil
	case *unix.SockaddrInet6:
		return uint16(sa.Port), nil
	}
	return 0, fmt.Errorf("getsockname returned a %T", sa)
}

// repeatEvenly makes the kernel repeat a lost segment seven times at even
// intervals before these begin to double, so that seconds suffice to tell a
// loss by size from one by chance. It applies while less than four segments are
// on their way (tcp_retransmit_timer in net/ipv4/tcp_timer.c), and not with a
// congestion control that knows no slow start threshold, as BBR. Without it, a
// look ends with fewer verdicts and no other ones.
func repeatEvenly(fd int) {
	_ = unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno") // every kernel has it
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_THIN_LINEAR_TIMEOUTS, 1)
}

// sockaddr returns an address with port 0.
func sockaddr(a netip.Addr) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4()}
	}
	var zone uint32
	if dev, err := net.InterfaceByName(a.Zone()); err == nil {
		zone = uint32(dev.Index)
	}
	return &unix.SockaddrInet6{Addr: a.As16(), ZoneId: zone}
}

// explain leaves out what package net adds to an error: the addresses are said
// already.
func explain(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		if op.Timeout() {
			return fmt.Errorf("no connection within the time: %w", op.Err)
		}
		return fmt.Errorf("no connection: %w", op.Err)
	}
	return err
}

// lingering is how long to wait for the target to close its side, too.
const lingering = 300 * time.Millisecond

// close ends the connection as both sides expect it, so that none needs a
// reset. What could not be delivered would be repeated by the kernels for
// minutes; then a reset is what frees both.
func (c *connection) close() {
	if c.abort {
		_ = c.SetLinger(0)
		c.Close()
		return
	}
	// Errors only mean that it has already ended.
	_ = c.CloseWrite()
	_ = c.SetReadDeadline(time.Now().Add(lingering))
	var b [4096]byte
	for rest := maxAnswer; rest > 0; {
		n, err := c.Read(b[:])
		if err != nil {
			break
		}
		rest -= n
	}
	c.Close()
}
