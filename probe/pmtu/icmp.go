package pmtu

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"sync"
	"syscall"

	"vpnprobe/internal/rawconn"
	"vpnprobe/probe"
)

// openConn opens the sockets that a configuration asks for.
func openConn(cfg Config) (conn, error) {
	if cfg.ike() {
		return openIKE(cfg)
	}
	return openICMP(cfg)
}

// icmpConn sends echo requests. Where the host permits raw sockets, it can also
// fragment them and reads ICMP errors whole; otherwise it has the error queue
// alone.
type icmpConn struct {
	cfg     Config
	echo    *rawconn.Echo
	errors  *rawconn.Conn // nil if not permitted
	headers *rawconn.Conn // nil if not permitted
	src     netip.Addr    // of what is sent in fragments; may be invalid for IPv4
	ttl     int           // as set on the socket, 0 for the host's default

	events chan event
	failed chan error // of the sockets' readers
	stop   context.CancelFunc
	done   sync.WaitGroup
}

func openICMP(cfg Config) (conn, error) {
	v6, opts := cfg.v6(), cfg.options()
	echo, err := rawconn.OpenEcho(v6, opts)
	if err != nil {
		return nil, err
	}
	c := &icmpConn{cfg: cfg, echo: echo, src: cfg.Source, events: make(chan event, 64), failed: make(chan error, 2)}
	// Without these, a search knows less, and says so by what it leaves
	// unknown.
	if c.errors, err = rawconn.ListenICMPErrors(v6, opts); err != nil {
		c.errors = nil
	}
	if !c.src.IsValid() {
		if path, err := rawconn.LookUpPath(cfg.Target, opts); err == nil {
			c.src = path.Source
		}
	}
	if c.src.IsValid() || !v6 {
		if c.headers, err = rawconn.OpenHeaders(v6, opts); err != nil {
			c.headers = nil
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	c.done.Go(func() { c.read(ctx, c.readEcho) })
	if c.errors != nil {
		c.done.Go(func() { c.read(ctx, c.readError) })
	}
	return c, nil
}

// read passes on what one socket receives, until ctx ends.
func (c *icmpConn) read(ctx context.Context, next func(context.Context) (event, bool, error)) {
	for {
		ev, ok, err := next(ctx)
		if err != nil {
			if ctx.Err() == nil {
				c.failed <- err
			}
			return
		}
		if !ok {
			continue
		}
		select {
		case c.events <- ev:
		case <-ctx.Done():
			return
		}
	}
}

func (c *icmpConn) readEcho(ctx context.Context) (event, bool, error) {
	ev, err := c.echo.Receive(ctx)
	switch {
	case err != nil:
		return event{}, false, err
	case ev.Err == nil:
		return event{news: answer, at: ev.Time, seq: ev.Seq, from: ev.From, fragment: ev.Fragment}, true, nil
	case ev.Err.Local:
		return event{news: localLimit, at: ev.Time, mtu: ev.Err.MTU}, true, nil
	}
	return event{news: icmpError, at: ev.Time, seq: ev.Seq, icmp: probe.ICMPError(c.cfg.v6(), ev.Err)}, true, nil
}

func (c *icmpConn) readError(ctx context.Context) (event, bool, error) {
	ev, err := c.errors.Receive(ctx)
	if err != nil {
		return event{}, false, err
	}
	if ev.Err != nil {
		return event{}, false, nil // about a packet of ours, which comes whole too
	}
	typ, code, mtu, q, ok := parseError(ev.Data, c.cfg.v6())
	if !ok || q.dst != c.cfg.Target.WithZone("") || q.protocol != c.protocol() {
		return event{}, false, nil
	}
	seq, ok := c.echo.Sent(q.payload)
	if !ok {
		return event{}, false, nil
	}
	q.payload = nil // the socket's buffer
	said := &rawconn.Error{Type: typ, Code: code, MTU: mtu, Offender: ev.From.Addr().Unmap().WithZone("")}
	return event{news: icmpError, at: ev.Time, seq: seq, icmp: probe.ICMPError(c.cfg.v6(), said), quote: q}, true, nil
}

func (c *icmpConn) protocol() uint8 {
	if c.cfg.v6() {
		return protoICMP6
	}
	return protoICMP
}

func (c *icmpConn) Send(p packet) error {
	if p.form != whole {
		return c.sendFragments(p)
	}
	if p.ttl != c.ttl {
		ttl := p.ttl
		if ttl == 0 {
			ttl = -1
		}
		if err := c.echo.SetTTL(ttl); err != nil {
			return err
		}
		c.ttl = p.ttl
	}
	return c.echo.Send(c.cfg.Target, p.seq, p.size)
}

func (c *icmpConn) sendFragments(p packet) error {
	if c.headers == nil {
		return syscall.EPERM
	}
	message, err := c.echo.Message(c.src, c.cfg.Target, p.seq, p.size)
	if err != nil {
		return err
	}
	var id [4]byte
	rand.Read(id[:]) // never fails
	id[3] |= 1       // the kernel would replace a zero
	list := fragments(message, c.protocol(), c.src, c.cfg.Target, binary.BigEndian.Uint32(id[:]), p.fragment)
	if list == nil {
		return syscall.EMSGSIZE
	}
	if p.form == reversed {
		last := len(list) - 1
		list = append([][]byte{list[last]}, list[:last]...)
	}
	for _, b := range list {
		if err := c.headers.Send(b, netip.AddrPortFrom(c.cfg.Target, 0)); err != nil {
			return err
		}
	}
	return nil
}

func (c *icmpConn) Receive(ctx context.Context) (event, error) {
	select {
	case ev := <-c.events:
		return ev, nil
	default:
	}
	select {
	case ev := <-c.events:
		return ev, nil
	case err := <-c.failed:
		return event{}, err
	case <-ctx.Done():
		return event{}, ctx.Err()
	}
}

func (c *icmpConn) Fragments() bool { return c.headers != nil }

func (c *icmpConn) Smallest() int { return rawconn.MinEcho(c.cfg.v6()) }

func (c *icmpConn) Close() error {
	c.stop()
	c.done.Wait()
	for _, conn := range []*rawconn.Conn{c.errors, c.headers} {
		if conn != nil {
			conn.Close()
		}
	}
	return c.echo.Close()
}
