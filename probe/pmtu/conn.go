package pmtu

import (
	"context"
	"net/netip"
	"time"

	"vpnprobe/evidence"
)

// form is how a probe is sent.
type form uint8

const (
	whole      form = iota // with the DF bit, in one packet
	fragmented             // in fragments
	reversed               // in fragments, the last of them first
)

// packet is a probe to be sent.
type packet struct {
	seq  uint16
	size int // of the IP packet in bytes, before it is fragmented
	form form
	// fragment is the largest that a fragment may be, in bytes of IP.
	fragment int
	ttl      int // 0 for the host's default
}

// news says what an event is about.
type news uint8

const (
	answer     news = iota // by from
	icmpError              // about a probe
	localLimit             // this host refused one, of which it does not say
)

// event is what came back.
type event struct {
	news news
	at   time.Time
	seq  uint16     // of the probe that it is about, not of a localLimit
	from netip.Addr // of an answer
	// icmp is what a hop, or the target, said.
	icmp evidence.ICMPError
	// mtu is what a localLimit would have let through.
	mtu int
	// quote is how the probe looked when it met a hop; its length is 0 when
	// nobody quoted the IP header.
	quote quote
	// fragment is the largest fragment of an answer in bytes of IP, 0 if it
	// came whole.
	fragment int
}

// conn sends probes to one target and receives what comes back.
type conn interface {
	// Send sends a probe. It returns EMSGSIZE when this host says that it is
	// too big.
	Send(p packet) error
	// Receive returns ctx's error when ctx ends first.
	Receive(ctx context.Context) (event, error)
	// Fragments reports whether probes other than whole ones can be sent.
	Fragments() bool
	// Smallest is the least size that can be sent.
	Smallest() int
	Close() error
}
