package evidence

import (
	"net/netip"
	"time"
)

// LadderStep names one request of the probe ladder (docs/ike-probing.md).
type LadderStep string

// The requests of the ladder. Those of the first group leave nothing at a
// responder; those of the second are a first message that the responder may
// accept, and so may leave a half-open SA.
const (
	StepVersion    LadderStep = "version"     // a header of an unsupported version, padded to the size of an IKE_SA_INIT
	StepProposal   LadderStep = "proposal"    // an IKE_SA_INIT that nobody accepts
	StepProposalV1 LadderStep = "proposal_v1" // a main mode message 1 that nobody accepts
	// StepProposalAggressive is an aggressive mode message 1 that nobody
	// accepts; a responder may look for a connection of that mode first.
	StepProposalAggressive LadderStep = "proposal_aggressive"

	StepDeclared LadderStep = "declared" // the declared proposals with a KE payload of another group
	StepWide     LadderStep = "wide"     // every common algorithm with a KE payload of another group
	StepBisect   LadderStep = "bisect"   // the wide offer narrowed, to find the attribute that is refused
	StepLarge    LadderStep = "large"    // a request above the path MTU

	StepInit           LadderStep = "init"            // a complete IKE_SA_INIT
	StepMain           LadderStep = "main"            // IKEv1 main mode, declared proposals
	StepMainWide       LadderStep = "main_wide"       // IKEv1 main mode, every common algorithm
	StepAggressive     LadderStep = "aggressive"      // IKEv1 aggressive mode, declared proposals
	StepAggressiveWide LadderStep = "aggressive_wide" // IKEv1 aggressive mode, every common algorithm
)

// LeavesState reports whether a responder may keep a half-open SA after the
// request.
func (s LadderStep) LeavesState() bool {
	switch s {
	case StepInit, StepMain, StepMainWide, StepAggressive, StepAggressiveWide:
		return true
	}
	return false
}

// IKEAnswer is what the responder made of a request that it answered.
type IKEAnswer string

// The answers to a request of the ladder.
const (
	AnswerAccepted   IKEAnswer = "accepted"    // it chose a proposal: a half-open SA stays
	AnswerWrongGroup IKEAnswer = "wrong_group" // INVALID_KE_PAYLOAD: it would choose a proposal, with another KE payload
	AnswerNoProposal IKEAnswer = "no_proposal" // NO_PROPOSAL_CHOSEN
	AnswerCookie     IKEAnswer = "cookie"      // COOKIE: too many half-open SAs
	AnswerBadVersion IKEAnswer = "bad_version" // INVALID_MAJOR_VERSION
	AnswerRedirect   IKEAnswer = "redirect"    // REDIRECT (RFC 5685)
	AnswerOther      IKEAnswer = "other"       // another notify
)

// Acceptable reports whether the answer shows that the responder has a
// configuration for us which takes a proposal of the request.
func (a IKEAnswer) Acceptable() bool { return a == AnswerAccepted || a == AnswerWrongGroup }

// IKEExchange is one request of the ladder, with its retransmissions, and what
// became of it.
type IKEExchange struct {
	Step     LadderStep   `json:"step"`
	Port     uint16       `json:"port"`
	Offer    string       `json:"offer,omitempty"` // the proposals, in strongSwan's notation
	Bytes    int          `json:"bytes"`           // of the IKE message
	Sent     time.Time    `json:"sent"`
	Requests int          `json:"requests"` // datagrams sent
	Outcome  IKEOutcome   `json:"outcome"`
	Answer   IKEAnswer    `json:"answer,omitempty"` // when the outcome is IKEAnswered
	Version  string       `json:"version,omitempty"`
	Notify   string       `json:"notify,omitempty"` // the answer's first notify, by its registered name
	Group    string       `json:"group,omitempty"`  // that the peer wants instead, of AnswerWrongGroup
	Chosen   string       `json:"chosen,omitempty"` // the proposal that the peer chose, of AnswerAccepted
	RTT      Opt[Seconds] `json:"rtt_seconds"`
	ICMP     *ICMPError   `json:"icmp"`
	Send     SendReason   `json:"send_error,omitempty"`
	// Unsolicited counts datagrams that came meanwhile from the peer's port
	// and were no answer.
	Unsolicited int `json:"unsolicited"`
	// Reused is set on an answer that an earlier run was given: it is older
	// than this run, and the budget does not allow to ask again yet.
	Reused bool `json:"reused"`
}

// SkipReason says why a step of the ladder was not taken.
type SkipReason string

// The reasons to leave a step out.
const (
	SkipBudget      SkipReason = "budget"             // the last exchange that may leave a half-open SA was too recent
	SkipNegotiating SkipReason = "daemon_negotiating" // the local daemon is setting an SA up with the peer
	SkipCookie      SkipReason = "cookie"             // the peer asked for a cookie: it is short of room
	SkipTime        SkipReason = "time"               // the run ended first
	SkipNoState     SkipReason = "no_state_directory" // the budget could not be kept
	SkipNotOnDemand SkipReason = "on_demand_only"     // the daemon leaves it to agent probe
	SkipUnsupported SkipReason = "unsupported"        // it needs an algorithm that has no number in IKE, or none here
)

// SkippedStep is a step that was not taken, though it would have decided
// something.
type SkippedStep struct {
	Step   LadderStep     `json:"step"`
	Reason SkipReason     `json:"reason"`
	Until  Opt[time.Time] `json:"until"` // when the budget allows it, of SkipBudget
	Detail string         `json:"detail,omitempty"`
}

// IKEOffers is what the ladder found about one way of beginning a
// negotiation: IKEv2, or one of IKEv1's modes.
type IKEOffers struct {
	// Answers is Yes when the peer answered such a request, of the same
	// version, with anything at all; No when it stayed silent.
	Answers Fact `json:"answers"`
	// Accepts is Yes when the peer takes some proposal from our address: it
	// has a configuration for it. No when it refused every common algorithm.
	Accepts Fact `json:"accepts"`
	// Declared says whether the peer takes a declared proposal.
	Declared Fact `json:"accepts_declared"`
}

// Attribute is one kind of algorithm of an IKE proposal.
type Attribute string

// The attributes, in the order in which a proposal names them.
const (
	Encryption Attribute = "encryption"
	Integrity  Attribute = "integrity"
	PRF        Attribute = "prf"
	Group      Attribute = "group"
)

// Mismatch is an attribute of the declared proposals of which the peer takes
// no declared value.
type Mismatch struct {
	Attribute Attribute `json:"attribute"`
	Declared  []string  `json:"declared"`
	Accepts   []string  `json:"accepts"` // values that the peer takes; empty when none was found
}

// LargeIKE compares small IKE requests with one of the same kind that is above
// the path MTU, on one port.
type LargeIKE struct {
	Port          uint16 `json:"port"`
	SmallBytes    int    `json:"small_bytes"` // of the IP packet
	SmallSent     int    `json:"small_sent"`
	SmallAnswered int    `json:"small_answered"`
	LargeBytes    int    `json:"large_bytes"` // of the IP packet, before fragmentation
	LargeSent     int    `json:"large_sent"`
	LargeAnswered int    `json:"large_answered"`
}

// IKEFeatures is what a complete IKE_SA_INIT or main mode answer tells of the
// peer. The answer is not authenticated.
type IKEFeatures struct {
	VendorIDs      []string `json:"vendor_ids"`               // known names, else hexadecimal
	Implementation string   `json:"implementation,omitempty"` // "strongSwan", "" when unknown
	Fragmentation  Fact     `json:"fragmentation"`            // RFC 7383
	Childless      Fact     `json:"childless"`                // RFC 6023
	Redirect       string   `json:"redirect,omitempty"`       // the gateway that the peer redirects to
	// NATHere is Yes when the peer sees us under another address or port than
	// our own, NATThere when the peer's own is another than the one that we
	// reach (RFC 7296 section 2.23), or when the peer claims so to force UDP
	// encapsulation.
	NATHere  Fact `json:"nat_here"`
	NATThere Fact `json:"nat_there"`
}

// IKEOverTCP is what a connection to TCP port 4500 showed (RFC 9329).
type IKEOverTCP struct {
	Connected Fact   `json:"connected"`
	Answered  Fact   `json:"answered"` // an IKE message came back over it
	Reason    string `json:"reason,omitempty"`
}

// Ladder is what one run of the probe ladder found.
type Ladder struct {
	Time      Opt[time.Time]  `json:"time"` // when it began; null when it never ran
	Local     Opt[netip.Addr] `json:"local"`
	Exchanges []IKEExchange   `json:"exchanges"`
	Skipped   []SkippedStep   `json:"skipped"`

	V2         IKEOffers `json:"ikev2"`
	Main       IKEOffers `json:"ikev1_main"`
	Aggressive IKEOffers `json:"ikev1_aggressive"`
	// Mismatches are of the declared version, and empty unless the declared
	// proposals are refused and others accepted.
	Mismatches []Mismatch `json:"mismatches"`
	// Confirmed is Yes when a complete first message, with a KE payload of a
	// group that it offers, was answered as what the other requests showed
	// lets expect. Without it, a peer that handles a KE payload of another
	// group in a way of its own may be misread.
	Confirmed  Fact        `json:"confirmed"`
	Cookie     bool        `json:"cookie"` // the peer asked for a cookie
	Features   IKEFeatures `json:"features"`
	Large      []LargeIKE  `json:"large"`
	TCP        IKEOverTCP  `json:"tcp_4500"`
	CannotLook string      `json:"cannot_look,omitempty"`
}

// Exchange returns the newest exchange of a step, and false when there is none.
func (l *Ladder) Exchange(step LadderStep) (IKEExchange, bool) {
	for i := len(l.Exchanges) - 1; i >= 0; i-- {
		if l.Exchanges[i].Step == step {
			return l.Exchanges[i], true
		}
	}
	return IKEExchange{}, false
}

// AuthBy names who made an authenticated negotiation.
type AuthBy string

// Those who can negotiate with the peer.
const (
	ByStrongSwan AuthBy = "strongswan" // the local daemon, asked by vici
	ByLibreswan  AuthBy = "libreswan"  // the local daemon, asked by whack
	ByAgent      AuthBy = "agent"      // vpnprobe itself
)

// AuthStage is how far an authenticated negotiation came.
type AuthStage string

// The stages of a negotiation, each with the answer that ended it there.
const (
	StageInit     AuthStage = "init"     // no IKE_SA_INIT answer that could be gone on with
	StageAuth     AuthStage = "auth"     // the peer's answer to IKE_AUTH (or main mode 5) failed it, or none came
	StageChild    AuthStage = "child"    // authenticated; the child SA (quick mode) was refused
	StageComplete AuthStage = "complete" // authenticated, and the child SA agreed upon
)

// IKEAuth is what an authenticated negotiation showed. It holds no key.
type IKEAuth struct {
	Time    Opt[time.Time] `json:"time"` // when it began; null when none was made
	By      AuthBy         `json:"by,omitempty"`
	Skipped string         `json:"skipped,omitempty"` // why none was made, though asked for
	// Reused is set on what an earlier run found: it is too recent to be
	// repeated.
	Reused bool      `json:"reused"`
	Stage  AuthStage `json:"stage,omitempty"`
	// Notify is the error notify that ended the negotiation, by its
	// registered name; "" when nothing came, or when it is complete.
	Notify string `json:"notify,omitempty"`
	// RemoteID is the identity under which the peer authenticated, when it
	// did; RemoteIDOther is Yes when that is not the declared one.
	RemoteID      string `json:"remote_id,omitempty"`
	RemoteIDOther Fact   `json:"remote_id_differs"`
	// Authenticated says whether both ends proved the key.
	Authenticated Fact `json:"authenticated"`
	// The child SA with one thing changed, each tried only while it explains
	// a refusal: Yes when the peer takes it so.
	OtherMode      Fact   `json:"accepts_other_mode"` // transport for tunnel, or the reverse
	OtherESP       Fact   `json:"accepts_other_algorithms"`
	OtherPFS       Fact   `json:"accepts_other_pfs"`       // without a KE payload, or with one of another group
	OtherSelectors Fact   `json:"accepts_other_selectors"` // any to any
	ESPChosen      string `json:"esp_chosen,omitempty"`
	PFSGroup       string `json:"pfs_group,omitempty"` // that the peer asked for
	// Rekey is whether the peer takes the declared PFS group in a
	// CREATE_CHILD_SA, where the first child SA has none.
	Rekey      Fact     `json:"rekey"`
	Narrowed   Fact     `json:"selectors_narrowed"`
	Selectors  string   `json:"selectors,omitempty"` // that the peer answered with, "10.1.0.0/24 === 10.2.0.0/24"
	Deleted    Fact     `json:"deleted"`             // the peer confirmed the DELETE of what we set up
	Said       []string `json:"said"`                // the daemon's own lines about it; never a key
	CannotLook string   `json:"cannot_look,omitempty"`
}
