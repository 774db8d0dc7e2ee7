package probe

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"runtime"
	"time"

	probing "github.com/prometheus-community/pro-bing"
	"golang.org/x/sys/unix"

	"vpnprobe/internal/rawconn"
)

// proBing is a pinger that runs one cycle of pro-bing per request.
type proBing struct {
	cfg        EchoConfig
	privileged bool // a raw socket, because the host permits no other
}

// openProBing finds out which kind of ICMP socket this process may have. The
// unprivileged kind comes first: every raw socket on the host is given a copy
// of every ICMP packet.
func openProBing(cfg EchoConfig) (pinger, error) {
	family, proto := unix.AF_INET, unix.IPPROTO_ICMP
	if cfg.Target.Is6() {
		family, proto = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	if !cfg.Target.IsValid() {
		return nil, errors.New("send echo requests: no target address")
	}
	var err error
	for _, typ := range []int{unix.SOCK_DGRAM, unix.SOCK_RAW} {
		var fd int
		if fd, err = unix.Socket(family, typ|unix.SOCK_CLOEXEC, proto); err == nil {
			unix.Close(fd)
			return proBing{cfg, typ == unix.SOCK_RAW}, nil
		}
	}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return nil, fmt.Errorf("send echo requests to %v: %w: needs CAP_NET_RAW ("+rawconn.Setcap+") "+
			"or this process's group in net.ipv4.ping_group_range (sudo sysctl -w net.ipv4.ping_group_range='0 2147483647')", cfg.Target, err)
	}
	return nil, fmt.Errorf("send echo requests to %v: open ICMP socket: %w", cfg.Target, err)
}

// ping implements pinger.
func (p proBing) ping(ctx context.Context, sent func(), reply func(time.Duration)) error {
	started := time.Now()
	var left time.Time
	guard := &accessGuard{}

	pb := probing.New(p.cfg.Target.String())
	pb.SetIPAddr(&net.IPAddr{IP: p.cfg.Target.AsSlice(), Zone: p.cfg.Target.Zone()})
	pb.SetPrivileged(p.privileged)
	pb.SetLogger(guard)
	pb.Size = p.cfg.Size
	pb.InterfaceName = p.cfg.Interface
	if p.cfg.Source.IsValid() {
		pb.Source = p.cfg.Source.WithZone("").String()
	}
	pb.RecordRtts, pb.RecordTTLs = false, false
	// One request: the second would be sent after the interval. With a Count
	// of one the cycle would end with the first reply, deaf to a duplicate.
	pb.Interval = math.MaxInt64
	pb.OnSend = func(*probing.Packet) {
		left = time.Now()
		sent()
	}
	received := func(pkt *probing.Packet) { reply(plausibleRTT(pkt.Rtt, time.Since(started), time.Since(left))) }
	pb.OnRecv, pb.OnDuplicateRecv = received, received

	err := pb.RunWithContext(ctx)
	switch {
	case guard.denied:
		return unix.EACCES
	case err == nil, ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)):
		return nil
	case left.IsZero() && !p.interfaceUp():
		return fmt.Errorf("interface %q: %w", p.cfg.Interface, unix.ENODEV)
	}
	return err
}

func (p proBing) interfaceUp() bool {
	if p.cfg.Interface == "" {
		return true
	}
	ifi, err := net.InterfaceByName(p.cfg.Interface)
	return err == nil && ifi.Flags&net.FlagUp != 0
}

// plausibleRTT returns the round-trip time that pro-bing measured, which is
// between two readings of the wall clock, unless the clock was set in between:
// then it is outside of what passed on the monotonic clock since the cycle
// began, and what passed since the send returned is the nearest to the truth.
func plausibleRTT(measured, sinceStart, sinceSend time.Duration) time.Duration {
	if measured < 0 || measured > sinceStart {
		return sinceSend
	}
	return measured
}

// accessGuard is the logger of one cycle, and the way out of a trap. When the
// kernel refuses a packet with EACCES, as it does on a prohibit route, pro-bing
// takes the target for a broadcast address, permits itself to send to one and
// tries again, for ever: it looks neither at its context nor at Stop, calls no
// callback, and takes a whole core. All that it does on the way is to log, and
// that is where the guard ends pro-bing's goroutine. Goexit runs its deferred
// calls, so that the cycle ends like one that was stopped.
type accessGuard struct {
	probing.NoopLogger
	denied bool // read after the cycle has ended
}

// Infof is called by pro-bing's sending goroutine alone: for EACCES, and for a
// reply from an address that is of no IP family, which does not exist.
func (g *accessGuard) Infof(string, ...any) {
	g.denied = true
	runtime.Goexit()
}
