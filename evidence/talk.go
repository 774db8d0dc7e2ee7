package evidence

import "time"

// IKETalk is what the IKE daemons of the two gateways said to each other, as
// far as it shows from outside. Messages of this agent's own probes, which use
// other ports, do not count.
type IKETalk struct {
	// Over is the window, which may reach further back than that of the
	// packets: requests are given up slowly.
	Over Seconds `json:"window_seconds"`
	// Whole says that the capture itself missed no message in the window.
	Whole bool         `json:"whole"`
	In    IKEDirection `json:"in"`  // requests by the peer, and its NAT keepalives
	Out   IKEDirection `json:"out"` // requests by this side
	// Rekeys counts CREATE_CHILD_SA and quick mode exchanges that set up
	// something, RekeysFailed those that were refused or never answered.
	Rekeys       uint64 `json:"rekeys"`
	RekeysFailed uint64 `json:"rekeys_failed"`
	// Ignored counts requests of the peer that it sent three times or more, on
	// IKE SAs on which this side was not heard yet, since this side's daemon last
	// said anything at all. They may be forged.
	Ignored uint64 `json:"ignored"`
	// Attempts counts the negotiations of an IKE SA that began.
	Attempts uint64 `json:"attempts"`
	// Newest is the last negotiation that moved during the window.
	Newest Opt[IKENegotiation] `json:"newest"`
	// Offers are the proposals that passed in clear, one per side, the newest.
	Offers []WireOffer `json:"offers"`
	// Notifies are the notify messages that passed in clear.
	Notifies []WireNotify `json:"notifies"`
}

// IKEDirection counts the requests of one side and what became of them.
type IKEDirection struct {
	Requests        uint64 `json:"requests"` // without retransmissions
	Retransmissions uint64 `json:"retransmissions"`
	Answered        uint64 `json:"answered"`
	// Unanswered counts requests that were given up: sent at least twice, and
	// no answer [UnansweredAfter] after the first.
	Unanswered uint64 `json:"unanswered"`
	Deletes    uint64 `json:"deletes"` // by their size: an estimate
	DPD        IKEDPD `json:"dpd"`
}

// UnansweredAfter is how long after a request's first transmission its answer
// may still come.
const UnansweredAfter = Seconds(5 * time.Second)

// IKEDPD is dead peer detection by one side: empty INFORMATIONAL requests of
// IKEv2 (RFC 7296, section 1.4), R-U-THERE of IKEv1 (RFC 3706).
type IKEDPD struct {
	Requests uint64 `json:"requests"`
	Answered uint64 `json:"answered"`
	Missed   uint64 `json:"missed"`
	// Trailing counts the missed ones since the last answered.
	Trailing uint64 `json:"trailing_missed"`
	// RTTs are the times to the answers, of those in the window; at most the
	// last 64.
	RTTs []Seconds `json:"rtt_seconds"`
}

// IKEReached is how far a negotiation came, as far as it shows on the wire.
type IKEReached string

// The stages of a negotiation.
const (
	ReachedAsked    IKEReached = "asked"    // the first message was sent, and not answered
	ReachedRefused  IKEReached = "refused"  // the first message was refused in clear
	ReachedInit     IKEReached = "init"     // all messages in clear were answered
	ReachedAuthSent IKEReached = "auth"     // the first encrypted message was sent, and not answered
	ReachedRejected IKEReached = "rejected" // it was answered, and refused
	ReachedIKE      IKEReached = "ike"      // the IKE SA is up, its child is not
	ReachedChild    IKEReached = "child"    // the child SA is up
)

// IKENegotiation is one negotiation of an IKE SA.
type IKENegotiation struct {
	Version   int        `json:"version"` // 1 or 2
	Ours      bool       `json:"ours"`    // this side began it
	Began     time.Time  `json:"began"`
	Last      time.Time  `json:"last"` // message
	Reached   IKEReached `json:"reached"`
	Suite     string     `json:"suite,omitempty"` // that the responder chose, in strongSwan's notation
	Encrypted bool       `json:"encrypted"`       // the stage was derived from the sizes of encrypted messages
	// ChildRefused is Yes when that shows that the child SA was refused, No
	// when it is up. ReachedIKE alone does not tell.
	ChildRefused Fact `json:"child_refused"`
	// InitiatorRefused is Yes when it is the initiator that refused what the
	// responder proved, after the responder had taken its own proof.
	InitiatorRefused Fact `json:"initiator_refused"`
	// Certificates is Yes when the initiator's authentication is as long as one
	// with a certificate. Long identities and many proposals make one by a
	// pre-shared key as long.
	Certificates Fact `json:"certificates"`
	// AnswerBytes is the length of the encrypted answer that the stage was
	// derived from (UDP payload, without a non-ESP marker).
	AnswerBytes int `json:"answer_bytes,omitempty"`
	// Repeated counts the negotiations in a row, this one included, that ended
	// at the same stage.
	Repeated int    `json:"repeated"`
	Notify   string `json:"notify,omitempty"` // that refused it in clear
	NATT     bool   `json:"udp4500"`          // it moved to UDP 4500
}

// WireOffer is a proposal that passed in clear.
type WireOffer struct {
	Ours      bool   `json:"ours"`
	Version   int    `json:"version"`
	Proposals int    `json:"proposals"`
	Text      string `json:"text"` // in strongSwan's notation, proposals apart by a comma
	// Multiple names the attributes with several values: "encryption",
	// "integrity", "prf", "dh_group", "proposal".
	Multiple []string `json:"multiple"`
	// Answered is Yes when the other side chose from it, No when it refused.
	Answered Fact      `json:"accepted"`
	Time     time.Time `json:"time"`
}

// WireNotify is a notify message that passed in clear.
type WireNotify struct {
	Name    string    `json:"name"` // by its RFC 7296 or RFC 2408 name
	Inbound bool      `json:"inbound"`
	Count   uint64    `json:"count"`
	Last    time.Time `json:"last"`
}
