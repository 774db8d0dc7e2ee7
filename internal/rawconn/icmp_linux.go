package rawconn

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// Echo is an ICMP echo socket: of the unprivileged kind where the host permits
// it (net.ipv4.ping_group_range), else a raw one.
type Echo struct {
	conn   *Conn
	raw    bool // sees everybody's ICMP
	v6     bool
	id     uint16
	cookie [8]byte // leads every request's data: tells our replies from others'
}

// EchoEvent is an echo reply, or an error about an echo request of ours.
type EchoEvent struct {
	Time time.Time
	// Seq is the request's sequence number. An error of this host's own
	// (Err.Local) does not say which request it is about.
	Seq  uint16
	Size int        // of a reply: bytes of the IP packet
	From netip.Addr // sent the reply
	// Fragment is [Event.Fragment].
	Fragment int
	Err      *Error // nil for a reply
}

const icmpHeaderLen = 8

// HeaderLen returns the bytes that an echo request's IP packet has besides its
// data: the IP header without options and the ICMP header.
func HeaderLen(v6 bool) int {
	if v6 {
		return ipv6.HeaderLen + icmpHeaderLen
	}
	return ipv4.HeaderLen + icmpHeaderLen
}

// MinEcho is the smallest IP packet that [Echo.Send] sends, in bytes.
func MinEcho(v6 bool) int { return HeaderLen(v6) + 8 }

// OpenEcho opens an ICMP or ICMPv6 echo socket.
func OpenEcho(v6 bool, o Options) (*Echo, error) {
	e := &Echo{v6: v6}
	family, proto := unix.AF_INET, unix.IPPROTO_ICMP
	if v6 {
		family, proto = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	c, err := open(family, unix.SOCK_DGRAM, proto, o)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EPROTONOSUPPORT) {
		e.raw = true
		c, err = open(family, unix.SOCK_RAW, proto, o)
		if errors.Is(err, unix.EPERM) {
			err = fmt.Errorf("%w: needs CAP_NET_RAW: "+Setcap, err)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open ICMP socket: %w", err)
	}
	e.conn = c
	if err := e.identify(); err != nil {
		c.Close()
		return nil, fmt.Errorf("open ICMP socket: %w", err)
	}
	return e, nil
}

func (e *Echo) identify() error {
	rand.Read(e.cookie[:]) // never fails
	if !e.raw {
		local, err := e.conn.Local()
		e.id = local.Port()
		return err
	}
	var id [2]byte
	rand.Read(id[:])
	e.id = binary.BigEndian.Uint16(id[:])
	return e.conn.control(func(fd int) error { return filterReplies(fd, e.v6) })
}

// filterReplies lets only echo replies through to a raw socket. Its error
// queue is not filtered.
func filterReplies(fd int, v6 bool) error {
	if v6 {
		// A bit set in the filter is a type blocked.
		var f unix.ICMPv6Filter
		for i := range f.Data {
			f.Data[i] = ^uint32(0)
		}
		f.Data[ipv6.ICMPTypeEchoReply/32] &^= 1 << (uint(ipv6.ICMPTypeEchoReply) % 32)
		return os.NewSyscallError("setsockopt ICMPV6_FILTER", unix.SetsockoptICMPv6Filter(fd, unix.SOL_ICMPV6, unix.ICMPV6_FILTER, &f))
	}
	const solRaw, icmpFilter = 255, 1 // linux/icmp.h
	blocked := ^uint32(1 << uint(ipv4.ICMPTypeEchoReply))
	return os.NewSyscallError("setsockopt ICMP_FILTER", unix.SetsockoptInt(fd, solRaw, icmpFilter, int(int32(blocked))))
}

// BypassesIPsec is [Conn.BypassesIPsec].
func (e *Echo) BypassesIPsec() bool { return e.conn.BypassesIPsec() }

// SetTTL is [Conn.SetTTL].
func (e *Echo) SetTTL(ttl int) error { return e.conn.SetTTL(ttl) }

// Close closes the socket.
func (e *Echo) Close() error { return e.conn.Close() }

// Send sends an echo request in an IP packet of size bytes, from [MinEcho] to
// 65535. Its error is as that of [Conn.Send].
func (e *Echo) Send(to netip.Addr, seq uint16, size int) error {
	b, err := e.message(seq, size, nil) // the kernel fills in ICMPv6's checksum
	if err != nil {
		return err
	}
	return e.conn.Send(b, netip.AddrPortFrom(to, 0))
}

// Message returns the request that [Echo.Send] would send, from the ICMP
// header on and with its checksum, for who sends it by other means.
func (e *Echo) Message(from, to netip.Addr, seq uint16, size int) ([]byte, error) {
	if !e.v6 {
		return e.message(seq, size, nil)
	}
	return e.message(seq, size, icmp.IPv6PseudoHeader(from.AsSlice(), to.AsSlice()))
}

func (e *Echo) message(seq uint16, size int, pseudo []byte) ([]byte, error) {
	if size < MinEcho(e.v6) || size > maxPacket {
		return nil, fmt.Errorf("echo request of %d bytes: want %d to %d", size, MinEcho(e.v6), maxPacket)
	}
	data := make([]byte, size-HeaderLen(e.v6))
	copy(data, e.cookie[:])
	m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: int(e.id), Seq: int(seq), Data: data}}
	if e.v6 {
		m.Type = ipv6.ICMPTypeEchoRequest
	}
	b, err := m.Marshal(pseudo)
	if err != nil {
		return nil, fmt.Errorf("echo request: %w", err)
	}
	return b, nil
}

// Sent reads what an ICMP error quotes, from the ICMP header on, and returns
// the sequence number if it is of a request of this socket.
func (e *Echo) Sent(b []byte) (seq uint16, ok bool) {
	// A hop quotes at least the ICMP header (RFC 792), maybe no data.
	request := byte(ipv4.ICMPTypeEcho)
	if e.v6 {
		request = byte(ipv6.ICMPTypeEchoRequest)
	}
	if len(b) < icmpHeaderLen || b[0] != request || binary.BigEndian.Uint16(b[4:]) != e.id {
		return 0, false
	}
	if data := b[icmpHeaderLen:]; len(data) >= len(e.cookie) && !bytes.HasPrefix(data, e.cookie[:]) {
		return 0, false
	}
	return binary.BigEndian.Uint16(b[6:]), true
}

// Receive returns the next echo reply to this socket, or error about a request
// of its. What else arrives is left out. It returns ctx's error when ctx ends
// first.
func (e *Echo) Receive(ctx context.Context) (EchoEvent, error) {
	for {
		ev, err := e.conn.Receive(ctx)
		if err != nil {
			return EchoEvent{}, err
		}
		if echo, ok := e.parse(ev); ok {
			return echo, nil
		}
	}
}

func (e *Echo) parse(ev Event) (EchoEvent, bool) {
	out := EchoEvent{Time: ev.Time, Err: ev.Err}
	b := ev.Data
	switch {
	case ev.Err != nil && ev.Err.Local:
		return out, true
	case ev.Err != nil:
		// Both kinds of socket quote the request from its ICMP header on.
		var ok bool
		out.Seq, ok = e.Sent(b)
		return out, ok
	}
	if e.raw && !e.v6 { // the IP header comes too
		if len(b) == 0 || len(b) < int(b[0]&0x0f)*4 {
			return EchoEvent{}, false
		}
		b = b[int(b[0]&0x0f)*4:]
	}
	reply := byte(ipv4.ICMPTypeEchoReply)
	if e.v6 {
		reply = byte(ipv6.ICMPTypeEchoReply)
	}
	if len(b) < icmpHeaderLen || b[0] != reply || binary.BigEndian.Uint16(b[4:]) != e.id ||
		!bytes.HasPrefix(b[icmpHeaderLen:], e.cookie[:]) {
		return EchoEvent{}, false
	}
	out.Seq = binary.BigEndian.Uint16(b[6:])
	out.Size = len(b) - icmpHeaderLen + HeaderLen(e.v6)
	out.From = ev.From.Addr().Unmap()
	out.Fragment = ev.Fragment
	return out, true
}
