package evidence

import (
	"net/netip"
	"time"
)

// MTUState is how a path MTU search ended.
type MTUState string

// The ends of a path MTU search.
const (
	MTUUnknown   MTUState = ""           // not searched, or nothing was answered
	MTUFull      MTUState = "full"       // the outgoing link's own MTU passes
	MTUReduced   MTUState = "reduced"    // smaller than the link's, and a hop said so
	MTUBlackHole MTUState = "black_hole" // smaller than the link's, and no hop said so
)

// MTUProbe is the kind of packets that a search sends.
type MTUProbe string

// The kinds of probes. An ICMP echo is answered at its own size, so that both
// directions must carry it; IKE requests get a short answer, so they tell of
// the way to the peer alone.
const (
	MTUByICMP    MTUProbe = "icmp"
	MTUByIKE     MTUProbe = "ike_500"
	MTUByIKENATT MTUProbe = "ike_4500"
)

// SweepStep is the width in bytes of the narrowest hole that a sweep is sure to
// see.
const SweepStep = 8

// PathMTU is the largest packet that reached a target and was answered.
type PathMTU struct {
	Role    Role           `json:"role"`
	Target  netip.Addr     `json:"target"`
	Source  netip.Addr     `json:"source,omitzero"` // as configured; omitted when left to routing
	Probe   MTUProbe       `json:"probe"`
	Time    Opt[time.Time] `json:"time"` // when the search began
	Took    Seconds        `json:"took_seconds"`
	State   MTUState       `json:"state"`
	MTU     Opt[int]       `json:"mtu_bytes"`        // largest IP packet answered, header included
	LinkMTU Opt[int]       `json:"link_mtu_bytes"`   // of the outgoing interface
	Cached  Opt[int]       `json:"cached_mtu_bytes"` // what the kernel believes
	// TooBig are the "too big" messages that may be true, by sender; Bogus
	// those that cannot: they state an MTU that is not below the size they are
	// about, or below what IP demands of any link, or one that larger packets
	// were seen to pass (RFC 8899 section 4.6.2).
	TooBig []CountedICMPError `json:"too_big"`
	Bogus  []CountedICMPError `json:"too_big_bogus"`
	Sizes  []SizeResult       `json:"sizes"` // ascending
	// Holes are ranges of sizes that were lost while smaller and larger ones
	// passed, ascending.
	Holes []SizeRange `json:"holes"`
	// Swept says that the sizes were close enough together to see any hole of
	// SweepStep bytes or more.
	Swept bool `json:"swept"`
	// Small and Fragmented interleave with the sizes: small packets tell loss
	// from size.
	Small      Tried           `json:"small"`
	Fragmented FragmentedProbe `json:"fragmented"`
	// Cleared is Yes when a hop showed, by quoting it, that one of our packets
	// had lost its "don't fragment" bit on the way or was already a fragment;
	// No when a quote showed a large one intact.
	Cleared Fact `json:"df_cleared"`
	// ReplyFragment is the largest fragment, in bytes of IP, in which a reply
	// came: the way back is no larger than that.
	ReplyFragment Opt[int] `json:"reply_fragment_bytes"`
	// Lost says where a size that is too large is lost: only of black holes and
	// holes, and only when hops tell that their time was exceeded.
	Lost       Opt[LostBetween] `json:"lost_between"`
	Packets    int              `json:"packets"`
	CannotLook string           `json:"cannot_look,omitempty"`
}

// SizeResult is what became of the probes of one packet size.
type SizeResult struct {
	Size     int  `json:"size_bytes"` // of the IP packet
	Sent     int  `json:"sent"`
	Answered int  `json:"answered"`
	TooBig   bool `json:"too_big"`         // a hop said that this size does not fit
	Local    bool `json:"too_big_locally"` // this host refused to send it
}

// SizeRange is a range of sizes of IP packets in bytes: the smallest and the
// largest that were tried.
type SizeRange struct {
	From int `json:"from_bytes"`
	To   int `json:"to_bytes"`
}

// Tried counts probes of one kind.
type Tried struct {
	Sent     int `json:"sent"`
	Answered int `json:"answered"`
}

// FragmentedProbe is what became of packets that this host sent in fragments,
// each of which fits the path.
type FragmentedProbe struct {
	Tried
	// Reversed were sent with their last fragment first.
	Reversed Tried `json:"reversed"`
	// Expired counts the target's complaints that fragments of ours stayed
	// incomplete (ICMP 11 code 1, ICMPv6 3 code 1), which come after 30 s to 60 s.
	Expired int `json:"reassembly_expired"`
}

// LostBetween are the hops between which a size is lost: After still answered
// a packet of that size whose time to live ended there, Before answered only a
// small one. Invalid addresses are unknown: After when the first hop already
// did not answer the size, Before when none beyond After answers at all.
type LostBetween struct {
	Size   int        `json:"size_bytes"`
	After  netip.Addr `json:"after,omitzero"`
	Before netip.Addr `json:"before,omitzero"`
	// Hops is the distance of After, 0 when it is unknown.
	Hops int `json:"hops"`
}

// MTUChange is a path MTU that a later search found to be another one.
type MTUChange struct {
	Role   Role       `json:"role"`
	Target netip.Addr `json:"target"`
	Time   time.Time  `json:"time"`
	From   int        `json:"from_bytes"`
	To     int        `json:"to_bytes"`
}

// TunnelMTU is the sum that leads from the MTU outside a tunnel to that inside.
type TunnelMTU struct {
	// Suite names what encrypts, in strongSwan's notation; From says who says
	// so: "kernel" of an SA in use, "declared" by the operator.
	Suite string `json:"suite"`
	From  string `json:"from"`
	Mode  string `json:"mode"` // "tunnel" or "transport"
	Encap bool   `json:"udp_encapsulated"`
	// Outer is the MTU of the underlay, in bytes, and Measured whether a search
	// found it: otherwise it is the outgoing link's.
	Outer    int  `json:"outer_mtu_bytes"`
	Measured bool `json:"measured"`
	// The terms, in bytes. Align is what the encrypted part is padded to.
	OuterIP int `json:"outer_ip_bytes"`
	UDP     int `json:"udp_bytes"`
	ESP     int `json:"esp_header_bytes"`
	IV      int `json:"iv_bytes"`
	ICV     int `json:"icv_bytes"`
	Align   int `json:"align_bytes"`
	Trailer int `json:"trailer_bytes"` // pad length and next header
	// Inner is the largest packet in clear that fits, in bytes; MSS4 and MSS6
	// are the TCP segments that fit into it, without options.
	Inner int `json:"inner_mtu_bytes"`
	MSS4  int `json:"mss_ipv4_bytes"`
	MSS6  int `json:"mss_ipv6_bytes"`
}

// MSSClamps is what this host does to the MSS of TCP connections that it
// forwards.
type MSSClamps struct {
	// Readable is Yes when all of the host's firewalls could be read.
	Readable   Fact       `json:"readable"`
	Rules      []MSSClamp `json:"rules"`
	CannotLook string     `json:"cannot_look,omitempty"`
}

// MSSClamp is one rule that sets the MSS in TCP SYN packets.
type MSSClamp struct {
	Tool  string `json:"tool"`  // "nft" or "iptables"
	Where string `json:"where"` // family, table and chain
	Rule  string `json:"rule"`  // as its tool prints it
	// MSS is what the rule sets, in bytes; null when it follows the route's MTU,
	// which knows nothing of what ESP adds.
	MSS Opt[int] `json:"mss_bytes"`
	// V4 and V6 are the families it is for.
	V4 bool `json:"ipv4"`
	V6 bool `json:"ipv6"`
	// Covers says whether it meets what goes through the tunnel: Yes when
	// nothing in the rule restricts it to other traffic.
	Covers  Fact        `json:"covers_tunnel"`
	Packets Opt[uint64] `json:"packets"` // that it met
}

// TCPSize is what one TCP connection through the tunnel showed of its sizes.
type TCPSize struct {
	Target  netip.AddrPort `json:"target"`
	Time    time.Time      `json:"time"`
	Service string         `json:"service,omitempty"` // "tls", "ssh", "http"; "" when it is none of these
	// MSS is what the target announced, Ours what we did, in bytes as they came
	// and went on this host.
	MSS  Opt[int] `json:"mss_bytes"`
	Ours Opt[int] `json:"our_mss_bytes"`
	// Sent is the largest segment that we sent, in bytes of TCP payload, and
	// Acked whether the target acknowledged it; Unknown where the service does
	// not permit to send one.
	Sent  Opt[int] `json:"largest_sent_bytes"`
	Acked Fact     `json:"largest_acked"`
	// Received is the largest segment that came, and Stalled is Yes when the
	// target began to answer and the rest of its answer never came.
	Received   Opt[int] `json:"largest_received_bytes"`
	Stalled    Fact     `json:"answer_stalled"`
	Retransmit int      `json:"retransmitted"`
	CannotLook string   `json:"cannot_look,omitempty"`
}
