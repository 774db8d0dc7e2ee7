package probe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/rawconn"
)

// DefaultHopTimeout is how long a hop probe waits for its answers, unless
// configured otherwise.
const DefaultHopTimeout = time.Second

// HopConfig says where hop probes go.
type HopConfig struct {
	// Target is an address behind the tunnel; it need not exist.
	Target netip.Addr
	// Source is the address to send from: one of those that the tunnel takes.
	Source netip.Addr
	// Interface binds the probes to an interface; "" does not.
	Interface string
	// TTLs are the times to live to send with, 1 to 255: the remote gateway
	// is one hop behind this host if the tunnel begins here, two if it begins
	// at the next router. Nil means 1.
	TTLs []int
	// Timeout is how long to wait after the last was sent; 0 means
	// [DefaultHopTimeout].
	Timeout time.Duration
}

// smallSize is the size of a hop probe, in bytes of IP: one that passes on any
// path.
const smallSize = 100

// hopConn is the socket of a hop probe.
type hopConn interface {
	Send(to netip.Addr, seq uint16, size int) error
	Receive(ctx context.Context) (rawconn.EchoEvent, error)
	SetTTL(ttl int) error
	Close() error
}

// ProbeHop sends one ICMP echo request per TTL towards an address behind the
// tunnel and waits for the hop at which it expires to say so. A reply by the
// target itself is an answer too. Of several answers, the one to the largest
// TTL names the offender. A request that cannot be sent is not counted as sent.
//
// The error is not nil when it was not possible to look.
func ProbeHop(ctx context.Context, cfg HopConfig) (evidence.InnerHop, error) {
	cfg.Target = cfg.Target.Unmap()
	conn, err := rawconn.OpenEcho(cfg.Target.Is6(), rawconn.Options{Source: cfg.Source, Interface: cfg.Interface})
	if err != nil {
		return evidence.InnerHop{}, fmt.Errorf("probe hop towards %v: %w", cfg.Target, err)
	}
	defer conn.Close()
	hop, err := probeHop(ctx, conn, cfg)
	if err != nil {
		err = fmt.Errorf("probe hop towards %v: %w", cfg.Target, err)
	}
	return hop, err
}

func probeHop(ctx context.Context, conn hopConn, cfg HopConfig) (evidence.InnerHop, error) {
	if cfg.Timeout <= 0 {
		cfg.Timeout = DefaultHopTimeout
	}
	if len(cfg.TTLs) == 0 {
		cfg.TTLs = []int{1}
	}
	var hop evidence.InnerHop
	open := map[uint16]int{} // TTLs by sequence number
	for i, ttl := range cfg.TTLs {
		if ttl < 1 || ttl > 255 {
			return hop, fmt.Errorf("TTL %d: want 1 to 255", ttl)
		}
		if err := conn.SetTTL(ttl); err != nil {
			return hop, err
		}
		if err := conn.Send(cfg.Target, uint16(i), smallSize); err == nil {
			open[uint16(i)] = ttl
			hop.Sent++
		}
	}

	wctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	farthest := 0
	for len(open) > 0 {
		ev, err := conn.Receive(wctx)
		switch {
		case ctx.Err() != nil:
			return hop, ctx.Err()
		case errors.Is(err, context.DeadlineExceeded):
			return hop, nil
		case err != nil:
			return hop, err
		}
		from, ok := hopAnswer(ev, cfg.Target.Is6())
		ttl, sent := open[ev.Seq]
		if !ok || !sent {
			continue
		}
		delete(open, ev.Seq)
		hop.Answered++
		hop.Ever = evidence.Yes
		if ttl >= farthest {
			farthest, hop.Offender = ttl, evidence.Some(from)
		}
	}
	return hop, nil
}

// hopAnswer returns who answered a hop probe, and whether this is an answer.
func hopAnswer(ev rawconn.EchoEvent, v6 bool) (netip.Addr, bool) {
	switch {
	case ev.Err == nil:
		return ev.From, true
	case ev.Err.Local || icmpReason(v6, ev.Err.Type, ev.Err.Code) != evidence.TTLExceeded:
		return netip.Addr{}, false
	}
	return ev.Err.Offender, ev.Err.Offender.IsValid()
}
