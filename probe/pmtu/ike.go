package pmtu

import (
	"context"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/rawconn"
	"vpnprobe/internal/wire/ike"
	"vpnprobe/probe"
)

const (
	portIKE  = 500
	portNATT = 4500

	udpHeaderLen = 8
	markerLen    = 4 // before IKE messages on port 4500 (RFC 3948 section 2.2)

	// maxIKEPackets and ikePacing keep below what a responder, or a guard
	// before it, takes for an attack.
	maxIKEPackets = 14
	ikePacing     = 100 * time.Millisecond
)

// ikeConn sends IKE requests, padded to the size asked for.
type ikeConn struct {
	cfg    Config
	target netip.AddrPort
	marker bool
	udp    *rawconn.Conn
	ttl    int
	spis   []ike.SPI // by the number of the request
}

func openIKE(cfg Config) (conn, error) {
	opts := cfg.options()
	opts.BypassIPsec = true // as an IKE daemon does
	udp, err := rawconn.ListenUDP(cfg.v6(), opts)
	if err != nil {
		return nil, err
	}
	return newIKEConn(cfg, udp), nil
}

func newIKEConn(cfg Config, udp *rawconn.Conn) *ikeConn {
	c := &ikeConn{cfg: cfg, marker: cfg.Probe == evidence.MTUByIKENATT, udp: udp}
	port := cfg.Port
	switch {
	case port != 0:
	case c.marker:
		port = portNATT
	default:
		port = portIKE
	}
	c.target = netip.AddrPortFrom(cfg.Target, port)
	return c
}

// headers returns the bytes of a request's packet before its IKE message.
func (c *ikeConn) headers() int {
	n := headerLen4 + udpHeaderLen
	if c.cfg.v6() {
		n = headerLen6 + udpHeaderLen
	}
	if c.marker {
		n += markerLen
	}
	return n
}

func (c *ikeConn) Send(p packet) error {
	if p.form != whole {
		return syscall.EOPNOTSUPP
	}
	if p.size > maxPacket-headerLen6 { // only to hear the link's MTU
		err := c.udp.Send(make([]byte, p.size-c.headers()), c.target)
		return err
	}
	if p.ttl != c.ttl {
		ttl := p.ttl
		if ttl == 0 {
			ttl = -1
		}
		if err := c.udp.SetTTL(ttl); err != nil {
			return err
		}
		c.ttl = p.ttl
	}
	var b []byte
	if c.marker {
		b = ike.AppendNonESPMarker(b)
	}
	m := probe.NewIKERequest(c.cfg.Request, p.size-c.headers())
	for len(c.spis) <= int(p.seq) {
		c.spis = append(c.spis, ike.SPI{})
	}
	c.spis[p.seq] = ike.SPI(m[:len(ike.SPI{})])
	return c.udp.Send(append(b, m...), c.target)
}

func (c *ikeConn) Receive(ctx context.Context) (event, error) {
	for {
		ev, err := c.udp.Receive(ctx)
		if err != nil {
			return event{}, err
		}
		if out, ok := c.parse(ev); ok {
			return out, nil
		}
	}
}

// parse matches what came with a request, by the SPI of the initiator. An ICMP
// error may quote less than that: the kernel has matched its ports, and it is
// about the last request, as they are sent singly.
func (c *ikeConn) parse(ev rawconn.Event) (event, bool) {
	out := event{at: ev.Time}
	if ev.Err != nil && ev.Err.Local {
		out.news, out.mtu = localLimit, ev.Err.MTU
		return out, true
	}
	if ev.From.IsValid() && (ev.From.Port() != c.target.Port() || ev.From.Addr().WithZone("") != c.target.Addr().WithZone("")) {
		return event{}, false
	}
	b := ev.Data
	if c.marker {
		var ok bool
		if b, ok = ike.CutNonESPMarker(b); !ok && ev.Err == nil {
			return event{}, false
		}
	}
	var spi ike.SPI
	seq := len(c.spis) - 1
	if copy(spi[:], b) == len(spi) {
		seq = slices.Index(c.spis, spi)
		if spi.IsZero() {
			seq = -1
		}
	} else if ev.Err == nil {
		return event{}, false
	}
	if seq < 0 {
		return event{}, false
	}
	out.seq = uint16(seq)
	if ev.Err != nil {
		out.news, out.icmp = icmpError, probe.ICMPError(c.cfg.v6(), ev.Err)
		return out, true
	}
	h, err := ike.ParseHeader(b)
	if err != nil || h.Version == unsupported || h.Flags&ike.FlagResponse == 0 && h.Version.Major() == ike.V2.Major() {
		return event{}, false // our own, sent back, or none
	}
	out.news, out.from = answer, ev.From.Addr().Unmap()
	return out, true
}

// unsupported is the version of the probe that no responder speaks.
const unsupported ike.Version = 0x30

// Fragments reports false: fragments of a request that are lost on the way
// would be held by a responder's host, and its answer tells of nothing more
// than ICMP does.
func (c *ikeConn) Fragments() bool { return false }

// Smallest is the size of the request without padding.
func (c *ikeConn) Smallest() int {
	return c.headers() + len(probe.NewIKERequest(c.cfg.Request, 0))
}

func (c *ikeConn) Close() error { return c.udp.Close() }
