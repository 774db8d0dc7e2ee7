package probe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/rawconn"
	"vpnprobe/internal/wire/ike"
)

// IKEClientConfig says whom an [IKEClient] asks.
type IKEClientConfig struct {
	// Target is the peer's address.
	Target netip.Addr
	// Ports replaces the peer's ports 500 and 4500, for a demonstration that
	// cannot have them; what it does not name stays.
	Ports map[uint16]uint16
	// Source is the address to send from; the zero Addr leaves it to routing.
	Source netip.Addr
}

// IKEClient puts first requests of IKE to a peer, whatever they are, and hears
// the answers. It owns one socket on an ephemeral port. It is not safe for
// concurrent use.
type IKEClient struct {
	cfg   IKEClientConfig
	conn  ikeConn
	local netip.AddrPort
	asked map[ike.SPI]bool // whose answers may still come
}

// OpenIKEClient opens the socket of a client.
func OpenIKEClient(cfg IKEClientConfig) (*IKEClient, error) {
	cfg.Target = cfg.Target.Unmap()
	if !cfg.Target.IsValid() {
		return nil, errors.New("open IKE client: no target address")
	}
	opts := rawconn.Options{Source: cfg.Source, BypassIPsec: true}
	conn, err := rawconn.ListenUDP(cfg.Target.Is6(), opts)
	if err != nil {
		return nil, fmt.Errorf("open IKE client for %v: %w", cfg.Target, err)
	}
	c := &IKEClient{cfg: cfg, conn: conn, asked: make(map[ike.SPI]bool)}
	if c.local, err = conn.Local(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("open IKE client for %v: %w", cfg.Target, err)
	}
	if path, err := rawconn.LookUpPath(cfg.Target, opts); err == nil {
		c.local = netip.AddrPortFrom(path.Source, c.local.Port())
	}
	return c, nil
}

// Local returns the address and port that requests come from. The address is
// unspecified while there is no route to the peer.
func (c *IKEClient) Local() netip.AddrPort { return c.local }

// Remote returns the address and port that stands for one of the peer's ports.
func (c *IKEClient) Remote(port uint16) netip.AddrPort {
	if other := c.cfg.Ports[port]; other != 0 {
		return netip.AddrPortFrom(c.cfg.Target, other)
	}
	return netip.AddrPortFrom(c.cfg.Target, port)
}

// Close closes the socket.
func (c *IKEClient) Close() error { return c.conn.Close() }

// Ask sends an IKE message, which begins with the initiator's SPI, to one of
// the peer's ports, and returns the first answer and what is to be said of the
// exchange without a look into the request. It sends the same bytes once more
// each time when it has waited as long as the next of waits says, except after
// the last; an ICMP error ends it too.
//
// The error is not nil when it was not possible to look: ctx ended, or the
// socket broke.
func (c *IKEClient) Ask(ctx context.Context, port uint16, message []byte, waits ...time.Duration) (evidence.IKEExchange, []byte, error) {
	a := asking{
		conn: c.conn, port: ikePort{c.Remote(port), port}, asked: c.asked,
		out: evidence.IKEExchange{Port: port, Bytes: len(message), Sent: time.Now()},
	}
	copy(a.spi[:], message)
	c.asked[a.spi] = true
	datagram := append(a.port.appendMarker(nil), message...)
	for _, wait := range waits {
		if err := c.conn.Send(datagram, a.port.addr); err != nil {
			a.out.Outcome, a.out.Send = evidence.IKESendError, sendReason(err)
			return a.out, nil, nil
		}
		a.out.Requests++
		if err := a.await(ctx, wait); err != nil {
			return a.out, nil, fmt.Errorf("ask %v: %w", a.port.addr, err)
		}
		if a.out.Outcome != "" {
			return a.out, a.answer, nil
		}
	}
	a.out.Outcome = evidence.IKESilent
	if a.late != nil {
		a.refuse(*a.late)
	}
	return a.out, nil, nil
}

// asking is one run of [IKEClient.Ask].
type asking struct {
	conn   ikeConn
	port   ikePort
	spi    ike.SPI
	asked  map[ike.SPI]bool
	out    evidence.IKEExchange
	answer []byte
	// late is an ICMP error that does not quote which request it is about.
	late *evidence.ICMPError
}

// await handles what is received until the exchange has an outcome, or until
// it has waited long enough, which is no error.
func (a *asking) await(ctx context.Context, wait time.Duration) error {
	return hear(ctx, a.conn, wait, func(ev rawconn.Event) bool {
		if ev.Err != nil {
			a.receiveError(ev)
		} else {
			a.receive(ev)
		}
		return a.out.Outcome != ""
	})
}

// hear hands what a socket receives to handle until that returns true, or
// until the wait is over, which is no error.
func hear(ctx context.Context, conn ikeConn, wait time.Duration, handle func(rawconn.Event) (done bool)) error {
	wctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		ev, err := conn.Receive(wctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, context.DeadlineExceeded):
			return nil
		case err != nil:
			return err
		case handle(ev):
			return nil
		}
	}
}

func (a *asking) receive(ev rawconn.Event) {
	m, b, ok := a.port.parseReply(ev)
	switch {
	case !ok && samePort(ev.From, a.port.addr), ok && !a.asked[m.SPIi]:
		a.out.Unsolicited++
		return
	case !ok, m.SPIi != a.spi: // from elsewhere, or too late
		return
	}
	a.answer = slices.Clone(b)
	a.out.Outcome, a.out.Version, a.out.Notify = evidence.IKEAnswered, m.Version.String(), m.FirstNotify()
	if a.out.Requests == 1 { // else it is not known which of them was answered
		a.out.RTT = evidence.Some(evidence.Seconds(ev.Time.Sub(a.out.Sent)))
	}
}

func (a *asking) receiveError(ev rawconn.Event) {
	e, spi, quoted, ok := a.port.parseError(ev)
	switch {
	case !ok:
	case quoted && spi == a.spi:
		a.refuse(e)
	case !quoted:
		a.late = &e
	}
}

// refuse records an ICMP error, and what it means for the exchange if it means
// anything.
func (a *asking) refuse(e evidence.ICMPError) {
	a.out.ICMP = &e
	if outcome := ikeOutcome(e, a.port.addr.Addr()); outcome != "" {
		a.out.Outcome = outcome
	}
}
