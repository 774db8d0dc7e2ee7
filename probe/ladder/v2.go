package ladder

import (
	"context"
	"crypto/rand"
	"slices"

	"vpnprobe/evidence"
	"vpnprobe/internal/ikecrypto"
	"vpnprobe/internal/wire/ike"
	"vpnprobe/probe"
)

// reach finds a port on which the peer answers anything that nobody accepts,
// port 500 first.
func (r *run) reach(ctx context.Context) {
	for _, r.port = range []uint16{portIKE, portNATT} {
		if r.cfg.Version == 1 {
			r.askNobody(ctx, r.modes()[0])
			if r.answered {
				return
			}
		}
		m := probe.NewIKERequest(evidence.ProposalProbe, 0)
		a, ok := r.ask(ctx, request{step: evidence.StepProposal, message: m})
		if !ok {
			return
		}
		r.out.V2.Answers = answers(a, ike.V2)
		if a.Outcome == evidence.IKEAnswered {
			if a.Answer == evidence.AnswerBadVersion {
				r.out.V2.Accepts = evidence.No
			}
			return
		}
		if !a.silent() {
			continue
		}
		// Of the same size, so that an answer blames the kind of the request.
		m = probe.NewIKERequest(evidence.VersionProbe, len(m))
		if a, ok = r.ask(ctx, request{step: evidence.StepVersion, message: m}); !ok {
			return
		}
		if a.Outcome == evidence.IKEAnswered {
			// It may have been busy a moment ago, and nothing more.
			m = probe.NewIKERequest(evidence.ProposalProbe, 0)
			if a, ok = r.ask(ctx, request{step: evidence.StepProposal, message: m}); ok {
				r.out.V2.Answers = answers(a, ike.V2)
			}
			return
		}
	}
	r.port = portIKE
	for _, e := range r.out.Exchanges {
		if e.Outcome == evidence.IKESilent { // and not refused on its way
			r.port = e.Port
			return
		}
	}
}

// answers says whether a peer answers requests of a version, by an answer to
// one: no answer means so only when nothing explains it.
func answers(a answer, v ike.Version) evidence.Fact {
	switch {
	case a.of(v):
		return evidence.Yes
	case a.silent(), a.Outcome == evidence.IKEAnswered:
		return evidence.No
	}
	return evidence.Unknown
}

// negotiateV2 finds out whether the peer takes the declared proposals, or any,
// by IKEv2, and what is wrong with them.
func (r *run) negotiateV2(ctx context.Context) {
	if r.out.V2.Accepts == evidence.No || r.answered && r.out.V2.Answers == evidence.No {
		return
	}
	if r.cfg.Version != 1 && len(r.declared) > 0 {
		r.out.V2.Declared = r.takesDeclared(ctx)
		switch {
		case r.out.V2.Declared == evidence.Yes:
			r.out.V2.Accepts = evidence.Yes
			return
		case r.out.V2.Declared == evidence.Unknown && r.answered:
			r.initUndecided(ctx)
			return
		case r.out.V2.Declared == evidence.Unknown:
			return
		}
	}
	all := union(wide, union(r.declared...))
	accepts, group := r.takes(ctx, evidence.StepWide, all)
	r.out.V2.Accepts = accepts
	if accepts != evidence.Yes || group == "" {
		return
	}
	r.suits = []offer{all.with(evidence.Group, []string{group})}
	if r.out.V2.Declared == evidence.No {
		b := bisection{run: r, all: all, group: group, declared: r.declared}
		r.out.Mismatches = b.mismatches(ctx)
	}
}

// takesDeclared asks whether the peer takes a declared proposal.
func (r *run) takesDeclared(ctx context.Context) evidence.Fact {
	verdict, group := r.oracleSays(ctx, evidence.StepDeclared, r.declared)
	if verdict == evidence.Yes && group != "" {
		for _, o := range r.declared {
			if slices.Contains(o.group, group) {
				r.suits = append(r.suits, o.with(evidence.Group, []string{group}))
			}
		}
	}
	return verdict
}

// takes asks whether the peer takes an offer, and in which group.
func (r *run) takes(ctx context.Context, step evidence.LadderStep, o offer) (evidence.Fact, string) {
	if _, ok := decoy([]offer{o}); ok {
		return r.oracleSays(ctx, step, []offer{o})
	}
	verdict, group := evidence.No, ""
	for _, half := range splitGroups(o) {
		if verdict, group = r.oracleSays(ctx, step, []offer{half}); verdict != evidence.No {
			break
		}
	}
	return verdict, group
}

// oracleSays offers proposals with a KE payload of none of their groups: Yes
// means that the peer would take one in the group that it names, No that it
// takes none. Both leave nothing at the peer. Unknown is any other answer, and
// so that such requests lead nowhere with this peer.
func (r *run) oracleSays(ctx context.Context, step evidence.LadderStep, list []offer) (evidence.Fact, string) {
	group, ok := decoy(list)
	if !ok || r.deaf {
		return evidence.Unknown, ""
	}
	a, ok := r.ask(ctx, r.saInit(step, list, group))
	if !ok {
		return evidence.Unknown, ""
	}
	if r.out.V2.Answers != evidence.Yes {
		r.out.V2.Answers = answers(a, ike.V2)
	}
	switch a.Answer {
	case evidence.AnswerWrongGroup:
		return evidence.Yes, a.Group
	case evidence.AnswerNoProposal:
		return evidence.No, ""
	case evidence.AnswerAccepted:
		r.deaf = true
		r.features(a)
		return evidence.Yes, ""
	}
	r.deaf = true
	return evidence.Unknown, ""
}

// saInit returns an IKE_SA_INIT.
func (r *run) saInit(step evidence.LadderStep, list []offer, group string) request {
	var proposals []ike.Proposal
	for _, o := range list {
		proposals = append(proposals, o.proposals()...)
	}
	t, _ := ike.TransformOf(group)
	m := ike.Message{
		Header: ike.Header{SPIi: newSPI(), Version: ike.V2, Exchange: ike.SAInit, Flags: ike.FlagInitiator},
		Payloads: []ike.Payload{
			ike.SA(proposals...),
			ike.KE(t.ID, r.public(group)),
			ike.Nonce(random(nonceLen)),
		},
	}
	if step.LeavesState() {
		here := ikecrypto.NATDetection(m.SPIi, ike.SPI{}, r.conn.Local())
		there := ikecrypto.NATDetection(m.SPIi, ike.SPI{}, r.conn.Remote(r.port))
		m.Payloads = append(
			m.Payloads,
			ike.Notify{Type: ike.NATDetectionSourceIP, Data: here[:]}.Payload(),
			ike.Notify{Type: ike.NATDetectionDestinationIP, Data: there[:]}.Payload(),
			ike.Notify{Type: ike.FragmentationSupported}.Payload(),
			ike.Notify{Type: ike.RedirectSupported}.Payload(),
		)
	}
	return request{step: step, offers: list, ke: group, message: m.Append(nil)}
}

// nonceLen is the length of a nonce in bytes; RFC 7296 section 2.10 wants 16
// to 256.
const nonceLen = 32

// newSPI returns a random SPI that is not zero.
func newSPI() ike.SPI {
	spi := ike.SPI(random(len(ike.SPI{})))
	spi[0] |= 1
	return spi
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return b
}

// introduce makes a complete IKE_SA_INIT: by it a peer that takes IKEv2
// introduces itself. One that answered nothing may answer what it can accept.
func (r *run) introduce(ctx context.Context) {
	switch {
	case r.out.V2.Accepts == evidence.Yes && len(r.suits) > 0:
		r.init(ctx, r.suits)
	case !r.answered && r.cfg.Version != 1 && len(r.declared) > 0:
		r.initUndecided(ctx)
	}
}

// initUndecided makes a complete IKE_SA_INIT with the declared proposals, for
// a peer that does not answer one of another group as it should.
func (r *run) initUndecided(ctx context.Context) {
	a, ok := r.init(ctx, r.declared)
	v2 := &r.out.V2
	switch {
	case !ok:
	case a.Answer.Acceptable():
		*v2 = evidence.IKEOffers{Answers: evidence.Yes, Accepts: evidence.Yes, Declared: evidence.Yes}
	case a.Answer == evidence.AnswerNoProposal:
		v2.Answers, v2.Declared = evidence.Yes, evidence.No
		a, ok = r.init(ctx, []offer{union(wide, union(r.declared...))})
		switch {
		case !ok:
		case a.Answer.Acceptable():
			v2.Accepts = evidence.Yes
			r.out.Mismatches = append(r.out.Mismatches, differences(r.declared, a.chosen)...)
		case a.Answer == evidence.AnswerNoProposal:
			v2.Accepts = evidence.No
		}
	case a.of(ike.V2):
		v2.Answers = evidence.Yes
	}
}

// init makes a complete IKE_SA_INIT, and a second one when the peer wants
// another group: the first has left nothing then. It makes none in a group of
// which there is no key exchange here.
func (r *run) init(ctx context.Context, list []offer) (answer, bool) {
	group := union(list...).group[0]
	if r.public(group) == nil {
		return answer{}, false
	}
	a, ok := r.ask(ctx, r.saInit(evidence.StepInit, list, group))
	if ok && a.Answer == evidence.AnswerWrongGroup && !a.Reused && r.public(a.Group) != nil {
		a, ok = r.ask(ctx, r.saInit(evidence.StepInit, list, a.Group))
	}
	if ok {
		r.features(a)
	}
	return a, ok
}
