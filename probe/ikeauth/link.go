package ikeauth

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"time"

	"vpnprobe/internal/rawconn"
	"vpnprobe/internal/wire/ike"
)

// conn is the socket of a negotiation.
type conn interface {
	Send(b []byte, to netip.AddrPort) error
	Receive(ctx context.Context) (rawconn.Event, error)
	Close() error
}

// errSilent says that a request and all its retransmissions met silence.
var errSilent = errors.New("no answer")

// patience returns how long to wait for the answer to each transmission of a
// request: 3.5 s in all.
func patience() []time.Duration {
	return []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second}
}

// link carries IKE messages between this host and one peer.
type link struct {
	conn  conn
	local netip.AddrPort // as this host sees itself
	peer  netip.Addr
	ports map[uint16]uint16

	port    uint16 // in use: 500 or 4500
	from    uint16 // which of the two the last message came from
	sent    bool   // a datagram has left
	sendErr error  // why the first one that did not could not
}

func newLink(c conn, local netip.AddrPort, cfg *Config) *link {
	return &link{conn: c, local: local, peer: cfg.Target, ports: cfg.Ports, port: portIKE}
}

// remote returns the peer's address and port.
func (l *link) remote() netip.AddrPort {
	return netip.AddrPortFrom(l.peer, l.wire(l.port))
}

// wire returns the peer's actual port for 500 or 4500.
func (l *link) wire(port uint16) uint16 {
	if other := l.ports[port]; other != 0 {
		return other
	}
	return port
}

// roundTrip sends requests, in order, until done accepts a message from the
// peer as the answer, and again the same bytes after silence (RFC 7296 section
// 2.1). It returns errSilent when patience ends, and ctx's error when that
// ends first. done may keep what it is given.
func (l *link) roundTrip(ctx context.Context, requests [][]byte, done func(m []byte) bool) error {
	for _, wait := range patience() {
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, m := range requests {
			l.send(m)
		}
		if err := l.await(ctx, wait, done); !errors.Is(err, errSilent) {
			return err
		}
	}
	return errSilent
}

// await hands messages of the peer to done until it accepts one.
func (l *link) await(ctx context.Context, wait time.Duration, done func(m []byte) bool) error {
	wctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		ev, err := l.conn.Receive(wctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case wctx.Err() != nil:
			return errSilent
		case err != nil:
			return err
		case ev.Err != nil:
			// An ICMP error is not authenticated, and the ladder's business.
			continue
		}
		if m, ok := l.message(ev); ok && done(bytes.Clone(m)) {
			return nil
		}
	}
}

// send sends one message. One that does not leave is like one that is lost on
// its way.
func (l *link) send(m []byte) {
	var b []byte
	if l.port == portNATT {
		b = ike.AppendNonESPMarker(b)
	}
	err := l.conn.Send(append(b, m...), l.remote())
	switch {
	case err == nil:
		l.sent = true
	case l.sendErr == nil:
		l.sendErr = err
	}
}

// message returns the IKE message in a datagram from one of the peer's ports,
// and notes which: a late answer may come from the port that was given up, and
// some peers answer a message that they have seen before from the port where
// they saw it first.
func (l *link) message(ev rawconn.Event) ([]byte, bool) {
	// The kernel names the zone of a link-local address by number and a user
	// by name, so zones do not count.
	if ev.From.Addr().Unmap().WithZone("") != l.peer.WithZone("") {
		return nil, false
	}
	switch ev.From.Port() {
	case l.wire(portIKE):
		l.from = portIKE
		return ev.Data, true
	case l.wire(portNATT):
		l.from = portNATT
		return ike.CutNonESPMarker(ev.Data)
	}
	return nil, false
}
