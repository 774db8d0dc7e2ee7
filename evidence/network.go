package evidence

import (
	"net/netip"
	"time"
)

// Role says what a probed address is to the peer.
type Role string

// The roles of a probed address.
const (
	Gateway   Role = "gateway"   // the peer's public address
	Reference Role = "reference" // a public address that is not the peer
	Inner     Role = "inner"     // reached through the tunnel
)

// SendReason says why this host could not send a packet. It is a bounded set,
// fit for a metric label.
type SendReason string

// The reasons for which a packet does not leave this host.
const (
	NoRoute       SendReason = "no_route"       // ENETUNREACH, EHOSTUNREACH
	Prohibited    SendReason = "prohibited"     // EACCES: a prohibit route, or SELinux
	LocalFirewall SendReason = "local_firewall" // EPERM from the output hook
	BlockedByXfrm SendReason = "xfrm_block"     // an IPsec policy without an SA refused it
	TooBig        SendReason = "message_too_long"
	NoBuffer      SendReason = "no_buffer"
	NoDevice      SendReason = "no_device"  // the interface is gone or down
	NoAddress     SendReason = "no_address" // the source address is not on this host
	OtherSend     SendReason = "other"
)

// ICMPReason groups ICMPv4 and ICMPv6 error codes by what they mean to the
// sender. It is a bounded set, fit for a metric label.
type ICMPReason string

// The meanings of an ICMP error.
const (
	FragNeeded      ICMPReason = "frag_needed"      // v4 3/4, v6 2/0
	NetUnreachable  ICMPReason = "net_unreachable"  // v4 3/0 3/6, v6 1/0
	HostUnreachable ICMPReason = "host_unreachable" // v4 3/1 3/7, v6 1/3
	AdminProhibited ICMPReason = "admin_prohibited" // v4 3/9 3/10 3/13, v6 1/1 1/5 1/6
	PortUnreachable ICMPReason = "port_unreachable" // v4 3/3, v6 1/4
	ProtUnreachable ICMPReason = "prot_unreachable" // v4 3/2, v6 4/1
	TTLExceeded     ICMPReason = "ttl_exceeded"     // v4 11/0, v6 3/0
	OtherICMP       ICMPReason = "other"
)

// ICMPError is one ICMP error about a packet of ours.
type ICMPError struct {
	Reason   ICMPReason      `json:"reason"`
	Type     uint8           `json:"type"`
	Code     uint8           `json:"code"`
	MTU      Opt[int]        `json:"mtu"`      // next-hop MTU in bytes, of FragNeeded only
	Offender Opt[netip.Addr] `json:"offender"` // the address that sent the error
}

// EchoOutcome is how one echo request ended.
type EchoOutcome string

// The ways in which an echo request ends; each request ends in exactly one.
const (
	EchoReply     EchoOutcome = "reply"      // answered within the timeout
	EchoLost      EchoOutcome = "lost"       // not answered within the timeout
	EchoSendError EchoOutcome = "send_error" // never left this host
)

// EchoResult is one resolved ICMP echo request, or one event about requests
// that were resolved before (a late or duplicate reply): then Outcome is "".
type EchoResult struct {
	Target    netip.Addr
	Role      Role
	Sent      time.Time
	Outcome   EchoOutcome
	RTT       time.Duration // of a reply, also of a late one
	Send      SendReason    // of a send error
	ICMP      *ICMPError    // an ICMP error that quoted this request
	Late      bool          // a reply to a request that was already counted lost
	Duplicate bool          // a further reply to an answered request
	Reordered bool          // the reply overtook, or was overtaken by, another
}

// EchoSeries sums up the echo requests to one address over a window.
// Sent = Replies + Lost + all SendErrors, at all times.
type EchoSeries struct {
	Role       Role               `json:"role"`
	Target     netip.Addr         `json:"target"`
	Source     Opt[netip.Addr]    `json:"source"`
	Sent       int                `json:"sent"`
	Replies    int                `json:"replies"`
	Lost       int                `json:"lost"`
	SendErrors map[SendReason]int `json:"send_errors"`
	ICMPErrors []CountedICMPError `json:"icmp_errors"`
	Late       int                `json:"late"`
	Duplicates int                `json:"duplicates"`
	Reordered  int                `json:"reordered"`
	RTT        Opt[RTT]           `json:"rtt"`
	// InOutages counts the lost requests that are part of a run of at least
	// OutageRun losses: an outage, which is not the same fault as random loss
	// (RFC 3357 tells loss periods from loss rates).
	InOutages int `json:"lost_in_outages"`
	// LongestRun is the longest run of consecutive losses.
	LongestRun int `json:"longest_loss_run"`
	// Trailing is the number of requests at the end of the window that were
	// not answered (lost or not sent): 0 means that the last was answered.
	Trailing int `json:"trailing_unanswered"`
	// TrailingUnsent is how many of those never left this host.
	TrailingUnsent int            `json:"trailing_unsent"`
	LastReply      Opt[time.Time] `json:"last_reply"` // late ones included
	// AnsweringSince is when the first request was sent that was answered
	// after the last run of SilentRun unanswered ones; null while the address
	// does not answer.
	AnsweringSince Opt[time.Time] `json:"answering_since"`
	// CannotLook says why no echo could be sent at all, such as a missing
	// permission; "" when echoes could be sent.
	CannotLook string `json:"cannot_look,omitempty"`
}

// OutageRun is the number of consecutive losses from which a run of losses
// is an outage instead of random loss. At 20 % random loss a given run of
// five has a probability of 0.2^5 = 0.03 %.
const OutageRun = 5

// SilentRun is the number of consecutive unanswered requests from which an
// address is taken not to answer.
const SilentRun = 3

// RTT describes round-trip times. Jitter is the mean difference between
// consecutive answered probes.
type RTT struct {
	Min    Seconds `json:"min_seconds"`
	Median Seconds `json:"median_seconds"`
	P90    Seconds `json:"p90_seconds"`
	Max    Seconds `json:"max_seconds"`
	Jitter Seconds `json:"jitter_seconds"`
}

// CountedICMPError is an ICMP error with the number of times it was received.
type CountedICMPError struct {
	ICMPError
	Count int `json:"count"`
}

// IKEOutcome is how one IKE heartbeat ended.
type IKEOutcome string

// The ways in which an IKE heartbeat ends.
const (
	IKEAnswered    IKEOutcome = "answered"    // a valid IKE response came from the peer
	IKERefused     IKEOutcome = "refused"     // the peer itself says that no one listens on the port
	IKEProhibited  IKEOutcome = "prohibited"  // a hop says that a filter forbids it
	IKEUnreachable IKEOutcome = "unreachable" // a hop says that it cannot deliver
	IKESilent      IKEOutcome = "silent"      // nothing came back
	IKESendError   IKEOutcome = "send_error"  // never left this host
)

// IKERequest names the request that a heartbeat sent.
type IKERequest string

// The requests that leave no state at the responder (docs/ike-probing.md).
const (
	// VersionProbe is a bare IKE header with an unsupported major version.
	VersionProbe IKERequest = "version"
	// ProposalProbe is an IKE_SA_INIT whose only proposal nobody accepts.
	ProposalProbe IKERequest = "proposal"
	// ProposalProbeV1 is a first message of IKEv1's main mode whose only
	// transform nobody accepts.
	ProposalProbeV1 IKERequest = "proposal_v1"
)

// IKEResult is one IKE heartbeat on one port.
type IKEResult struct {
	Port        uint16          `json:"port"`
	Sent        time.Time       `json:"sent"`
	Request     IKERequest      `json:"request"`  // the last one sent
	Requests    int             `json:"requests"` // datagrams sent for this heartbeat
	Outcome     IKEOutcome      `json:"outcome"`
	Notify      string          `json:"notify,omitempty"`  // the answer's first notify, by its RFC 7296 name
	Version     string          `json:"version,omitempty"` // the answer's IKE version, "2.0"
	RTT         Opt[Seconds]    `json:"rtt_seconds"`
	ICMP        *ICMPError      `json:"icmp"`
	Send        SendReason      `json:"send_error,omitempty"`
	Unsolicited int             `json:"unsolicited"` // datagrams that failed validation
	Local       Opt[netip.Addr] `json:"local"`       // the address it was sent from
}

// IKEPort is what the heartbeats on one UDP port of the peer have shown over a
// window, newest last.
type IKEPort struct {
	Port    uint16      `json:"port"`
	Results []IKEResult `json:"results"`
	// Ever is Yes when a heartbeat on this port was answered at any time since
	// the agent started, so that silence now is a change.
	Ever Fact `json:"ever_answered"`
	// CannotLook says why no heartbeat could be sent at all; "" when it could.
	CannotLook string `json:"cannot_look,omitempty"`
}

// Last returns the newest result, and false when there is none.
func (p IKEPort) Last() (IKEResult, bool) {
	if len(p.Results) == 0 {
		return IKEResult{}, false
	}
	return p.Results[len(p.Results)-1], true
}

// TCPResult is one TCP connection attempt to a port of an inner host.
type TCPResult struct {
	Target    netip.AddrPort `json:"target"`
	Sent      time.Time      `json:"sent"`
	Connected Fact           `json:"connected"` // Unknown: could not try
	Refused   bool           `json:"refused"`   // the host answered with a reset: it is reachable
	RTT       Opt[Seconds]   `json:"rtt_seconds"`
	Reason    string         `json:"reason,omitempty"` // why not, in words
}
