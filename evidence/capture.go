package evidence

import (
	"net/netip"
	"time"
)

// CaptureMode is where the passive counts come from.
type CaptureMode string

// The capture modes, the cheapest that sees the packets first.
const (
	CaptureBPF  CaptureMode = "bpf"  // counted per SPI in the kernel, by an eBPF program at tc or XDP
	CaptureRing CaptureMode = "ring" // AF_PACKET, TPACKET_V3
	CaptureSA   CaptureMode = "sa"   // no packet is seen; the kernel's SA counters are all there is
	CaptureOff  CaptureMode = "off"  // nothing
	CaptureFile CaptureMode = "file" // a recorded capture
)

// CaptureWhy is why the capture is not in a better mode, in one word of a
// closed set.
type CaptureWhy string

// The reasons for a capture mode.
const (
	CaptureBest         CaptureWhy = ""              // there is no better mode here
	CaptureConfigured   CaptureWhy = "configured"    // the operator asked for the mode
	CaptureNoPermission CaptureWhy = "no_permission" // a capability is missing
	CaptureNoKernel     CaptureWhy = "no_kernel"     // the kernel cannot
	CaptureNoInterface  CaptureWhy = "no_interface"  // the underlay interface is not known, down or gone
	CaptureHidden       CaptureWhy = "hidden"        // ESP offload hides inbound ESP from the better mode
	CaptureRate         CaptureWhy = "rate"          // more passes than this host can afford to look at all the time
	CaptureFailed       CaptureWhy = "failed"        // anything else; Reason tells
)

// Capture is what passed on the underlay between this host and the peer over a
// window. It proves presence; it proves absence only when
// [Capture.Conclusive].
type Capture struct {
	Mode   CaptureMode `json:"mode"`
	Why    CaptureWhy  `json:"mode_reason"`
	Reason string      `json:"reason,omitempty"` // Why in words, with what mends it
	// Blind is Yes when inbound ESP may bypass the capture (ESP offload with
	// GRO and the SA on this host).
	Blind   Fact    `json:"blind"`
	Dropped uint64  `json:"dropped"` // packets the kernel dropped for us during Over
	Over    Seconds `json:"window_seconds"`
	// Watched is how much of Over was listened to. It is less where the rate
	// is more than this host can afford to look at.
	Watched Seconds     `json:"watched_seconds"`
	In      WireTraffic `json:"in"`
	Out     WireTraffic `json:"out"`
	// Flows are the SPIs that were in use during the window, the busiest
	// first, at most [MaxFlows].
	Flows []ESPFlow `json:"flows"`
	// Forgotten counts SPIs that found no room in the flow table, or had to
	// leave it: packets with forged SPIs, as a rule.
	Forgotten uint64 `json:"flows_forgotten"`
	// Interfaces is where the encrypted packets passed, if on several.
	Interfaces []InterfaceTraffic `json:"interfaces"`
	Talk       IKETalk            `json:"ike"`
	Leaks      []Leak             `json:"leaks"`
	// LeaksWatched is No where leaks cannot be looked for: no remote subnet is
	// declared, one is as wide as a good part of the Internet, or there are too
	// many. Unknown means not yet.
	LeaksWatched Fact `json:"leaks_watched"`
	// ICMPErrors are ICMP errors that quote a packet from this host to the
	// peer, by reason.
	ICMPErrors map[ICMPReason]uint64 `json:"icmp_errors"`
	// ICMP is the same and the errors about packets from the peer, with what
	// they say, at most [MaxWireICMP].
	ICMP []WireICMP `json:"icmp"`
}

// The number of entries of the lists in a [Capture].
const (
	MaxFlows    = 16
	MaxWireICMP = 16
)

// Seen reports whether the capture looks at packets at all.
func (c Capture) Seen() bool {
	switch c.Mode {
	case CaptureBPF, CaptureRing, CaptureFile:
		return true
	}
	return false
}

// Conclusive reports whether the capture can say that a packet was not there.
func (c Capture) Conclusive() bool { return c.Whole() && c.Blind == No }

// Whole reports whether the capture itself missed nothing during the window.
// ESP offload may still have hidden what came in; it touches neither IKE nor
// what this host sent.
func (c Capture) Whole() bool {
	return c.Seen() && c.Dropped == 0 && c.Over > 0 && c.Watched >= c.Over
}

// LossDoubt is why the sequence numbers of a window do not tell the network's
// loss: the capture itself missed packets.
type LossDoubt string

// The doubts.
const (
	LossKnown     LossDoubt = ""          // they do tell
	LossDropped   LossDoubt = "dropped"   // the kernel dropped packets for the capture
	LossUnwatched LossDoubt = "unwatched" // not all of the window was listened to
	LossHidden    LossDoubt = "hidden"    // ESP offload hides what came in
)

// LossDoubt returns why the loss of one direction is not known, if it is not.
func (c Capture) LossDoubt(inbound bool) LossDoubt {
	switch {
	case c.Dropped > 0:
		return LossDropped
	case !c.Whole():
		return LossUnwatched
	case inbound && c.Blind == Yes:
		return LossHidden
	}
	return LossKnown
}

// WireTraffic is what was seen of one peer in one direction.
type WireTraffic struct {
	ESP      Traffic `json:"esp"`        // IP protocol 50
	ESPInUDP Traffic `json:"esp_in_udp"` // RFC 3948, UDP 4500
	AH       Traffic `json:"ah"`         // IP protocol 51
	// Sequence is what the sequence numbers of ESP and AH tell, of all SPIs.
	Sequence      Sequence          `json:"sequence"`
	IKE           map[string]uint64 `json:"ike"`            // messages by exchange type
	NATKeepalives uint64            `json:"nat_keepalives"` // RFC 3948 2.3
	Fragments     Fragments         `json:"fragments"`
}

// Sequence is what sequence numbers tell of a stream of packets, which the
// sender numbers one by one from 1 (RFC 4303, section 2.2). Only a window in
// which no packet was missed by the capture itself tells the network's loss.
type Sequence struct {
	// Expected counts the packets that were sent according to their numbers.
	Expected uint64 `json:"expected"`
	// Lost counts those of them that were not seen.
	Lost       uint64 `json:"lost"`
	Duplicates uint64 `json:"duplicates"`
	Reordered  uint64 `json:"reordered"` // seen after one with a higher number
	// Depth is the greatest difference of a reordered packet's number to the
	// highest one seen before it, in packets.
	Depth uint32 `json:"reorder_depth"`
	// Discontinuities counts jumps of more than 2^16, which are no loss: an
	// HA failover, or an SA set up anew under the same SPI.
	Discontinuities uint64 `json:"discontinuities"`
	// Bursts counts the runs of consecutive lost packets by length: 1, 2 to 3,
	// 4 to 7, and so on; the last entry has all longer ones. Null where the
	// source of the counts does not tell.
	Bursts []uint64 `json:"loss_bursts"`
}

// Fragments counts IP fragments of outer packets, by what they are parts of. A
// fragment of UDP but the first has no ports; it counts where the first one
// did that was seen last.
type Fragments struct {
	ESP      FragmentCount `json:"esp"`
	ESPInUDP FragmentCount `json:"esp_in_udp"`
	IKE      FragmentCount `json:"ike"`
}

// Total returns the number of all fragments.
func (f Fragments) Total() uint64 { return f.ESP.Total() + f.ESPInUDP.Total() + f.IKE.Total() }

// Incomplete returns how many packets at least lack their beginning or end.
func (f Fragments) Incomplete() uint64 {
	return f.ESP.Incomplete() + f.ESPInUDP.Incomplete() + f.IKE.Incomplete()
}

// FragmentCount counts the fragments of one kind of packet.
type FragmentCount struct {
	First  uint64 `json:"first"`
	Middle uint64 `json:"middle"`
	Last   uint64 `json:"last"`
}

// Total returns the number of all fragments.
func (c FragmentCount) Total() uint64 { return c.First + c.Middle + c.Last }

// Incomplete returns how many packets at least lack their beginning or end.
func (c FragmentCount) Incomplete() uint64 { return max(c.First, c.Last) - min(c.First, c.Last) }

// ESPFlow is one SPI in one direction, over the window.
type ESPFlow struct {
	SPI      uint32    `json:"spi"`
	Inbound  bool      `json:"inbound"`
	Protocol string    `json:"protocol"` // "esp" or "ah"
	Encap    bool      `json:"udp_encapsulated"`
	Traffic  Traffic   `json:"traffic"`
	Sequence Sequence  `json:"sequence"`
	Longest  int       `json:"longest_bytes"` // IP packet
	First    time.Time `json:"first"`         // in the capture, maybe before the window
	Last     time.Time `json:"last"`
}

// InterfaceTraffic is the ESP and AH that passed one interface.
type InterfaceTraffic struct {
	Name string  `json:"name"`
	In   Traffic `json:"in"`
	Out  Traffic `json:"out"`
	// FirstOut and LastOut are when the outgoing packets of the window passed.
	FirstOut Opt[time.Time] `json:"first_out"`
	LastOut  Opt[time.Time] `json:"last_out"`
}

// LeakKind is what a packet in clear on the underlay tells by its source.
type LeakKind string

// The kinds of a leak.
const (
	// LeakRewritten is a packet that this gateway forwarded and gave its own
	// public address: NAT before IPsec.
	LeakRewritten LeakKind = "rewritten"
	// LeakOwn is a packet that this host itself sent from its public address.
	LeakOwn LeakKind = "own"
	// LeakDeclared has a source in a declared local subnet.
	LeakDeclared LeakKind = "declared"
	// LeakOther has any other source.
	LeakOther LeakKind = "other"
)

// Leak counts packets in clear that left this host on the underlay though
// their destination is in a remote subnet of the peer. In [CaptureBPF] there
// were at least so many: of more than 1024 in a second on one CPU, the rest is
// not looked at.
type Leak struct {
	Kind    LeakKind `json:"kind"`
	Packets uint64   `json:"packets"`
	// Of the newest one:
	Source      netip.Addr `json:"source"`
	Destination netip.Addr `json:"destination"`
	Protocol    int        `json:"protocol"` // of IP
	Last        time.Time  `json:"last"`
}

// WireICMP is an ICMP error that passed the underlay, about the peer's traffic.
type WireICMP struct {
	Sender netip.Addr `json:"sender"`
	Reason ICMPReason `json:"reason"`
	MTU    Opt[int]   `json:"mtu_bytes"` // of "too big", as stated
	// About is what the quoted packet carries: "esp", "ah", "udp500",
	// "udp4500", "icmp" or "other".
	About string `json:"about"`
	// Ours is true when the quoted packet went to the peer, false when it came
	// from there.
	Ours  bool      `json:"ours"`
	Count uint64    `json:"count"`
	Last  time.Time `json:"last"`
}
