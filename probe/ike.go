package probe

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/rawconn"
	"vpnprobe/internal/wire/ike"
)

// DefaultIKETimeout is how long a heartbeat waits for the answer to each of
// its requests, unless configured otherwise.
const DefaultIKETimeout = 2 * time.Second

// portNATT is the UDP port on which IKE shares with ESP, and so has a marker
// before each message (RFC 3948).
const portNATT = 4500

// IKEConfig says where an IKE heartbeat goes to.
type IKEConfig struct {
	// Target is the peer's address and port.
	Target netip.AddrPort
	// Port is the port that Target stands for, 500 or 4500; 0 means Target's
	// own. It decides about the framing and is what results are reported
	// under; the two differ only where the peer is a demonstration.
	Port uint16
	// Source is the address to send from; the zero Addr leaves it to routing.
	Source netip.Addr
	// Interface binds the probe to an interface; "" does not.
	Interface string
	// Version is the IKE version that the peer is declared to speak, 1 or 2; 0
	// when none is. It decides which requests are tried, and in which order.
	Version int
	// Timeout is how long to wait for the answer to each request; 0 means
	// [DefaultIKETimeout]. A heartbeat sends four requests at most.
	Timeout time.Duration
}

// IKE asks one UDP port of one peer whether an IKE responder answers there,
// without leaving state at the peer (docs/ike-probing.md).
type IKE struct {
	cfg  IKEConfig
	dial func() (ikeConn, error)

	mu     sync.Mutex // held by the heartbeat that runs
	closed bool
	conn   ikeConn // nil while it cannot be opened
	bypass bool
	local  evidence.Opt[netip.Addr]
	buf    []byte
	// prefer is the request that the peer answered last.
	prefer evidence.IKERequest
	recent recentSPIs
	// refused are the SPIs of all requests of the kind that nobody accepts,
	// used in turn: OpenIKED 7.2 remembers one that it refused for minutes, and
	// forgets it when another of the same SPI comes. Two, so that an answer
	// that is late is not taken for one to the next heartbeat.
	refused [2]ike.SPI
}

// ikeConn is the socket of a heartbeat.
type ikeConn interface {
	Send(b []byte, to netip.AddrPort) error
	Receive(ctx context.Context) (rawconn.Event, error)
	BypassesIPsec() bool
	Close() error
}

// OpenIKE opens the socket that heartbeats to one port of a peer are sent
// from. That its interface or source address is not there (yet) is no error
// but something for [IKE.Heartbeat] to see and to recover from.
func OpenIKE(cfg IKEConfig) (*IKE, error) {
	if !cfg.Target.IsValid() || cfg.Target.Port() == 0 {
		return nil, fmt.Errorf("open IKE probe: target %v: want an address and a port", cfg.Target)
	}
	cfg.Target = netip.AddrPortFrom(cfg.Target.Addr().Unmap(), cfg.Target.Port())
	if cfg.Port == 0 {
		cfg.Port = cfg.Target.Port()
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = DefaultIKETimeout
	}
	opts := rawconn.Options{Source: cfg.Source, Interface: cfg.Interface, BypassIPsec: true}
	k := newIKE(cfg, func() (ikeConn, error) { return rawconn.ListenUDP(cfg.Target.Addr().Is6(), opts) })
	if err := k.open(); err != nil && !deviceMissing(sendReason(err)) {
		return nil, fmt.Errorf("open IKE probe to %v: %w", cfg.Target, err)
	}
	if path, err := rawconn.LookUpPath(cfg.Target.Addr(), opts); err == nil {
		k.local = evidence.Some(path.Source)
	}
	return k, nil
}

func newIKE(cfg IKEConfig, dial func() (ikeConn, error)) *IKE {
	return &IKE{cfg: cfg, dial: dial, prefer: requestsFor(cfg.Version)[0], refused: [2]ike.SPI{newSPI(), newSPI()}}
}

// requestsFor returns the requests that a peer of a declared version may
// answer, the likeliest first.
func requestsFor(version int) []evidence.IKERequest {
	switch version {
	case 1:
		return []evidence.IKERequest{evidence.ProposalProbeV1, evidence.VersionProbe, evidence.ProposalProbe}
	case 2:
		return []evidence.IKERequest{evidence.VersionProbe, evidence.ProposalProbe}
	}
	// A responder that speaks nothing but IKEv1 may ignore the others.
	return []evidence.IKERequest{evidence.VersionProbe, evidence.ProposalProbe, evidence.ProposalProbeV1}
}

func (k *IKE) port() ikePort { return ikePort{k.cfg.Target, k.cfg.Port} }

// deviceMissing reports whether a send failed for lack of what the socket is
// bound to, in which case a new socket may do better than the old.
func deviceMissing(r evidence.SendReason) bool {
	return r == evidence.NoDevice || r == evidence.NoAddress
}

func (k *IKE) open() error {
	conn, err := k.dial()
	if err != nil {
		return err
	}
	k.conn, k.bypass = conn, conn.BypassesIPsec()
	return nil
}

// BypassesIPsec reports whether this host's IPsec policies leave the
// heartbeats alone. If not (it needs CAP_NET_ADMIN), a policy that covers both
// gateways' addresses may swallow or encrypt them.
func (k *IKE) BypassesIPsec() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.bypass
}

// Close closes the socket, once a running heartbeat has ended.
func (k *IKE) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	if k.conn == nil {
		return nil
	}
	err := k.conn.Close()
	k.conn = nil
	return err
}

// Heartbeat sends one request and, on silence, the same again and then the
// other kinds, once each. It starts with the kind that the peer answered last,
// so an answering peer gets one datagram. A peer that answers COOKIE is alive; the
// cookie is not returned.
//
// The error is not nil when it was not possible to look: ctx ended, or the
// socket broke. Whatever the network or the peer did is in the result.
func (k *IKE) Heartbeat(ctx context.Context) (evidence.IKEResult, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	h := &heartbeat{
		ike:    k,
		result: evidence.IKEResult{Port: k.cfg.Port, Sent: time.Now(), Request: k.prefer, Local: k.local},
	}
	if k.closed {
		return h.result, fmt.Errorf("IKE probe to %v: already closed", k.cfg.Target)
	}
	if k.conn == nil {
		if err := k.open(); err != nil {
			if r := sendReason(err); deviceMissing(r) {
				h.sendError(r)
				return h.result, nil
			}
			return h.result, fmt.Errorf("IKE probe to %v: %w", k.cfg.Target, err)
		}
	}
	if err := h.run(ctx); err != nil {
		return h.result, fmt.Errorf("IKE probe to %v: %w", k.cfg.Target, err)
	}
	if h.result.Outcome == evidence.IKEAnswered {
		k.prefer = h.result.Request
	}
	if deviceMissing(h.result.Send) {
		// A socket stays bound to an interface that was removed, even when
		// one of the same name returns.
		k.conn.Close()
		k.conn = nil
	}
	return h.result, nil
}

// heartbeat is one run of [IKE.Heartbeat].
type heartbeat struct {
	ike    *IKE
	result evidence.IKEResult
	sent   []sentRequest
	// late is an ICMP error about the heartbeat before: what it says counts
	// only if nothing better is heard.
	late *evidence.ICMPError
}

type sentRequest struct {
	spi  ike.SPI
	kind evidence.IKERequest
	at   time.Time
}

func (h *heartbeat) run(ctx context.Context) error {
	h.ike.refused[0], h.ike.refused[1] = h.ike.refused[1], h.ike.refused[0]
	defer func() {
		for _, s := range h.sent {
			h.ike.recent.add(s.spi)
		}
	}()
	tries := []evidence.IKERequest{h.ike.prefer, h.ike.prefer}
	for _, kind := range requestsFor(h.ike.cfg.Version) {
		if kind != h.ike.prefer {
			tries = append(tries, kind)
		}
	}
	for _, kind := range tries {
		if h.send(kind); h.result.Outcome != "" {
			return nil
		}
		if err := h.wait(ctx); err != nil || h.result.Outcome != "" {
			return err
		}
	}
	h.result.Outcome = evidence.IKESilent
	if h.late != nil {
		h.refuse(*h.late)
	}
	return nil
}

// send sends a request under an SPI of its own, but for one kind, so that each
// answer tells which request it is to, and no round-trip time is taken from
// the wrong one.
func (h *heartbeat) send(kind evidence.IKERequest) {
	k := h.ike
	spi := newSPI()
	if kind == evidence.ProposalProbe {
		spi = k.refused[0]
	}
	k.buf = appendRequest(k.port().appendMarker(k.buf[:0]), kind, spi, nil)
	at := time.Now()
	h.result.Request = kind
	if err := k.conn.Send(k.buf, k.cfg.Target); err != nil {
		h.sendError(sendReason(err))
		return
	}
	h.result.Requests++
	h.sent = append(h.sent, sentRequest{spi, kind, at})
}

func (h *heartbeat) sendError(r evidence.SendReason) {
	h.result.Outcome, h.result.Send = evidence.IKESendError, r
}

// wait handles what is received until the timeout, or until the heartbeat has
// an outcome. It returns nil on silence.
func (h *heartbeat) wait(ctx context.Context) error {
	return hear(ctx, h.ike.conn, h.ike.cfg.Timeout, func(ev rawconn.Event) bool {
		if ev.Err != nil {
			h.receiveError(ev)
		} else {
			h.receive(ev)
		}
		return h.result.Outcome != ""
	})
}

// receive handles a datagram.
func (h *heartbeat) receive(ev rawconn.Event) {
	m, _, ok := h.ike.port().parseReply(ev)
	if !ok {
		h.result.Unsolicited++
		return
	}
	for _, s := range h.sent {
		if s.spi != m.SPIi {
			continue
		}
		if h.result.Outcome == evidence.IKEAnswered { // to one of several: not known which
			h.result.RTT = evidence.Opt[evidence.Seconds]{}
			return
		}
		h.result.Outcome = evidence.IKEAnswered
		h.result.Request = s.kind
		h.result.Notify = m.FirstNotify()
		h.result.Version = m.Version.String()
		h.result.RTT = evidence.Some(evidence.Seconds(ev.Time.Sub(s.at)))
	}
	if h.result.Outcome == "" && !h.ike.recent.has(m.SPIi) { // else it is a late answer
		h.result.Unsolicited++
	}
}

// receiveError handles an ICMP error about a datagram from this socket. The
// kernel has matched its ports; where it quotes enough of the datagram, the
// SPI must be ours too.
func (h *heartbeat) receiveError(ev rawconn.Event) {
	e, spi, quoted, ok := h.ike.port().parseError(ev)
	switch {
	case !ok:
	case quoted && h.isCurrent(spi) && !slices.Contains(h.ike.refused[:], spi):
		h.refuse(e)
	case !quoted, slices.Contains(h.ike.refused[:], spi), h.ike.recent.has(spi): // may be about an earlier heartbeat
		h.late = &e
	}
}

func (h *heartbeat) isCurrent(spi ike.SPI) bool {
	for _, s := range h.sent {
		if s.spi == spi {
			return true
		}
	}
	return false
}

// refuse records an ICMP error, and what it means for the heartbeat if it
// means anything.
func (h *heartbeat) refuse(e evidence.ICMPError) {
	h.result.ICMP = &e
	if outcome := ikeOutcome(e, h.ike.cfg.Target.Addr()); outcome != "" {
		h.result.Outcome = outcome
	}
}
