package ikeauth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/rawconn"
)

// DefaultTimeout is how long a negotiation may take, unless configured
// otherwise.
const DefaultTimeout = 10 * time.Second

// The UDP ports of IKE; on the second it shares with ESP, and so has a marker
// before each message (RFC 3948).
const (
	portIKE  = 500
	portNATT = 4500
)

// Key is a pre-shared key. However it is printed, it does not show.
type Key []byte

// Format implements [fmt.Formatter] for every verb.
func (Key) Format(s fmt.State, _ rune) { io.WriteString(s, hidden) }

// MarshalText implements [encoding.TextMarshaler].
func (Key) MarshalText() ([]byte, error) { return []byte(hidden), nil }

const hidden = "(hidden)"

// Config says whom to negotiate with, and what was agreed on with its owner.
type Config struct {
	Target netip.Addr
	// Source is the address to send from; the zero Addr leaves it to routing.
	Source netip.Addr
	// Ports replaces the peer's UDP ports 500 and 4500, where the peer is a
	// demonstration.
	Ports map[uint16]uint16
	// Proposals and ESPProposals are in strongSwan's notation. Groups in the
	// latter mean perfect forward secrecy. Without any, common ones are
	// offered.
	Proposals, ESPProposals []string
	ESPMode                 string // "transport", or else tunnel
	// LocalSubnets and RemoteSubnets are the traffic selectors. A side
	// without any has its gateway's own address as the first guess.
	LocalSubnets, RemoteSubnets []netip.Prefix
	// LocalID and RemoteID are in a daemon's notation. Without a LocalID the
	// own address stands for it; without a RemoteID any is right.
	LocalID, RemoteID string
	PSK               Key
	// Timeout is how long everything but the DELETE may take; 0 means
	// [DefaultTimeout].
	Timeout time.Duration
}

// Run negotiates once. It returns at the latest two seconds after ctx ended:
// that long it waits for the peer to confirm the end of what was set up.
func Run(ctx context.Context, cfg Config) evidence.IKEAuth {
	cfg.Target, cfg.Source = cfg.Target.Unmap(), cfg.Source.Unmap()
	if cfg.Timeout <= 0 {
		cfg.Timeout = DefaultTimeout
	}
	found := evidence.IKEAuth{Time: evidence.Some(time.Now()), By: evidence.ByAgent}
	l, err := dial(&cfg)
	if err != nil {
		found.CannotLook = fmt.Sprintf("negotiate with %v: %v", cfg.Target, err)
		return found
	}
	defer l.conn.Close()
	return negotiate(ctx, &cfg, l, found)
}

// dial opens a socket of its own, whose port is neither 500 nor 4500: those
// are the IKE daemon's.
func dial(cfg *Config) (*link, error) {
	switch {
	case !cfg.Target.IsValid():
		return nil, errors.New("no peer address")
	case len(cfg.PSK) == 0:
		return nil, errors.New("no pre-shared key: set ike.psk_file")
	}
	opts := rawconn.Options{Source: cfg.Source, BypassIPsec: true}
	path, err := rawconn.LookUpPath(cfg.Target, opts)
	if err != nil {
		return nil, err
	}
	c, err := rawconn.ListenUDP(cfg.Target.Is6(), opts)
	if err != nil {
		return nil, err
	}
	local, err := c.Local()
	if err != nil {
		c.Close()
		return nil, err
	}
	return newLink(c, netip.AddrPortFrom(path.Source.Unmap(), local.Port()), cfg), nil
}
