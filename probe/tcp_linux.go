package probe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"vpnprobe/evidence"
)

// TCPConfig describes one TCP connection attempt.
type TCPConfig struct {
	Target netip.AddrPort
	// Source is the address to connect from; the zero Addr lets the kernel
	// choose.
	Source netip.Addr
	// Interface is the one to connect through; "" leaves it to the routes.
	Interface string
	// Timeout is how long to wait for an answer; 3 s if zero, which leaves
	// room for one repeated SYN (RFC 6298: after 1 s).
	Timeout time.Duration
}

// ConnectTCP opens a TCP connection and closes it at once; it sends no data. A
// reset in answer means that the host is reachable, though the port is closed.
// An ICMP error, which connect(2) reports just like a reset if it is "port
// unreachable", is not the host's word: a filter on the way sends the same.
func ConnectTCP(ctx context.Context, cfg TCPConfig) evidence.TCPResult {
	if cfg.Timeout <= 0 {
		cfg.Timeout = 3 * time.Second
	}
	cfg.Target = netip.AddrPortFrom(cfg.Target.Addr().Unmap(), cfg.Target.Port())
	cfg.Source = cfg.Source.Unmap()
	out := evidence.TCPResult{Target: cfg.Target, Sent: time.Now()}
	f, err := startConnect(cfg)
	if err != nil {
		out.Reason = fmt.Sprintf("could not try: %v", err)
		return out
	}
	defer f.Close()

	err = awaitConnect(ctx, f, out.Sent.Add(cfg.Timeout))
	rtt := evidence.Some(evidence.Seconds(time.Since(out.Sent)))
	var hop *icmpRefusal
	switch {
	case err == nil:
		out.Connected, out.RTT = evidence.Yes, rtt
	case errors.As(err, &hop):
		out.Connected, out.Reason = evidence.No, hop.Error()
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ECONNRESET):
		out.Connected, out.Refused, out.RTT = evidence.No, true, rtt
		out.Reason = "refused with a reset"
	case ctx.Err() != nil:
		out.Reason = "could not try: stopped before an answer came"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, unix.ETIMEDOUT):
		out.Connected, out.Reason = evidence.No, fmt.Sprintf("no answer within %v", cfg.Timeout)
	default:
		out.Reason = fmt.Sprintf("could not try: %v", err)
	}
	return out
}

// startConnect sends the SYN. Its error is about this host.
func startConnect(cfg TCPConfig) (*os.File, error) {
	if !cfg.Target.IsValid() {
		return nil, errors.New("no target address")
	}
	family, v6 := unix.AF_INET, cfg.Target.Addr().Is6()
	if v6 {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := connectTCP(fd, v6, cfg); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), cfg.Target.String()), nil
}

func connectTCP(fd int, v6 bool, cfg TCPConfig) error {
	if err := setRecvErr(fd, v6); err != nil {
		return err
	}
	if cfg.Interface != "" {
		if err := unix.BindToDevice(fd, cfg.Interface); err != nil {
			return fmt.Errorf("bind to interface %q: %w", cfg.Interface, err)
		}
	}
	if cfg.Source.IsValid() {
		if err := unix.Bind(fd, sockaddrOf(netip.AddrPortFrom(cfg.Source, 0))); err != nil {
			return fmt.Errorf("bind to source %v: %w", cfg.Source, err)
		}
	}
	err := unix.Connect(fd, sockaddrOf(cfg.Target))
	if err == unix.EINPROGRESS {
		return nil
	}
	return os.NewSyscallError("connect", err)
}

// icmpRefusal is an ICMP error about the SYN.
type icmpRefusal struct{ evidence.ICMPError }

func (e *icmpRefusal) Error() string {
	if from, ok := e.Offender.Get(); ok {
		return fmt.Sprintf("ICMP %s from %v", e.Reason, from)
	}
	return fmt.Sprintf("ICMP %s", e.Reason)
}

// awaitConnect returns nil when the connection stands.
func awaitConnect(ctx context.Context, f *os.File, deadline time.Time) error {
	if err := f.SetDeadline(deadline); err != nil {
		return err
	}
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		_ = f.SetDeadline(time.Unix(1, 0)) // fails only on a closed file
	})
	defer func() {
		if !stop() {
			<-woken
		}
	}()
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var connErr error
	if err := raw.Write(func(fd uintptr) bool {
		connErr = connectResult(int(fd))
		return connErr != unix.EINPROGRESS
	}); err != nil {
		return err
	}
	return connErr
}

// connectResult returns EINPROGRESS while there is none.
func connectResult(fd int) error {
	family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return os.NewSyscallError("getsockopt SO_DOMAIN", err)
	}
	if _, e, err := readErrorQueue(fd, nil, family == unix.AF_INET6); err == nil {
		return &icmpRefusal{e}
	}
	errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return os.NewSyscallError("getsockopt SO_ERROR", err)
	}
	if errno != 0 {
		return unix.Errno(errno)
	}
	if _, err := unix.Getpeername(fd); err != nil {
		return unix.EINPROGRESS
	}
	return nil
}
