package ladder

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"

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

// sizeOfInit is how long the requests are that reach sends, in bytes: that of an
// IKE_SA_INIT that nobody accepts.
var sizeOfInit = len(probe.NewIKERequest(evidence.ProposalProbe, 0))

// doubtSilence takes back that the peer does not answer IKEv2, unless it
// answered something that is as large: what is dropped for its size says nothing
// about the version.
func (r *run) doubtSilence() {
	if r.out.V2.Answers == evidence.No && !slices.ContainsFunc(r.out.Exchanges, func(e evidence.IKEExchange) bool {
		return e.Outcome == evidence.IKEAnswered && e.Bytes >= sizeOfInit
	}) {
		r.out.V2.Answers = evidence.Unknown
	}
}

// negotiateV2 finds out whether the peer takes the declared proposals, or any,
// by IKEv2, and what is wrong with them.
func (r *run) negotiateV2(ctx context.Context) {
	v2 := &r.out.V2
	if v2.Accepts == evidence.No || r.answered && v2.Answers == evidence.No {
		return
	}
	verdict := evidence.No // of nothing
	if r.declaresV2() {
		verdict = r.takesDeclared(ctx)
	}
	switch verdict {
	case evidence.Yes:
		v2.Declared, v2.Accepts = evidence.Yes, evidence.Yes
	case evidence.No:
		if r.declaresV2() {
			v2.Declared = r.refused()
		}
		r.takesAny(ctx)
	}
	if r.answered {
		r.settle(ctx)
	}
}

// declaresV2 reports whether there are proposals that are meant for IKEv2.
func (r *run) declaresV2() bool { return r.cfg.Version != 1 && len(r.declared) > 0 }

// refused is what a refusal of all declared proposals that can be offered says
// of the declared proposals: nothing when there are others.
func (r *run) refused() evidence.Fact {
	if len(r.left) > 0 {
		return evidence.Unknown
	}
	return evidence.No
}

// takesAny asks whether the peer takes any common algorithms, and if so, what
// is wrong with the declared ones.
func (r *run) takesAny(ctx context.Context) {
	v2 := &r.out.V2
	all := r.widest()
	var group string
	if v2.Accepts, group = r.takes(ctx, evidence.StepWide, all); group == "" {
		return
	}
	r.suits = []offer{all.with(evidence.Group, []string{group})}
	if v2.Declared != evidence.No {
		return
	}
	b := bisection{run: r, all: all, group: group, declared: r.declared}
	r.out.Mismatches = b.mismatches(ctx)
	switch {
	case len(r.out.Mismatches) > 0:
		r.suits = []offer{b.corrected()}
	case r.halted == "": // it contradicts itself
		v2.Declared, r.suits = evidence.Unknown, nil
	}
}

// widest returns every common algorithm, and the declared ones.
func (r *run) widest() offer { return union(wide, union(r.declared...)) }

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
		r.deaf, r.taken = true, true
		r.features(a)
		r.accepted(a)
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

// introduce makes a complete IKE_SA_INIT for a peer that answered nothing: it
// may answer what it can accept.
func (r *run) introduce(ctx context.Context) {
	if !r.answered && r.declaresV2() {
		r.initAll(ctx)
	}
}

// settle has a complete IKE_SA_INIT confirm what the others showed: by it a peer
// that takes IKEv2 introduces itself, too. What it contradicts, or what the
// others did not show, is left to complete ones alone. So is a refusal of
// everything, since a peer may ignore any proposal without the group of the KE
// payload (RFC 7296 section 3.4).
func (r *run) settle(ctx context.Context) {
	if r.taken {
		return
	}
	if len(r.suits) > 0 {
		a, ok := r.init(ctx, r.suits)
		switch {
		case ok && a.Answer == evidence.AnswerAccepted:
			r.confirmed(a)
			return
		case !ok || a.Answer != evidence.AnswerNoProposal && a.demanded == "":
			return
		}
		r.deaf = true
		r.out.V2, r.out.Mismatches = evidence.IKEOffers{Answers: evidence.Yes}, []evidence.Mismatch{}
	}
	r.initAll(ctx)
}

// initAll makes complete IKE_SA_INITs with the declared proposals and, if they
// are refused, with every common algorithm.
func (r *run) initAll(ctx context.Context) {
	v2 := &r.out.V2
	if r.declaresV2() {
		if groups := r.usable(r.declared); len(groups) > 0 && !r.refusesDeclared(ctx, groups) {
			return
		}
	}
	a, ok := r.init(ctx, []offer{r.widest()})
	switch {
	case !ok:
	case a.Answer == evidence.AnswerAccepted:
		r.confirmed(a)
	case a.Answer == evidence.AnswerWrongGroup:
		v2.Accepts = evidence.Yes
	case a.Answer == evidence.AnswerNoProposal:
		v2.Accepts, r.out.Confirmed = evidence.No, evidence.Yes
	}
}

// refusesDeclared makes complete IKE_SA_INITs with the declared proposals, and
// returns whether they are refused. Anything else but an acceptance leaves open
// what the peer makes of them.
func (r *run) refusesDeclared(ctx context.Context, groups []string) bool {
	v2 := &r.out.V2
	a, ok := r.initDeclared(ctx, groups)
	switch {
	case !ok:
	case a.Answer == evidence.AnswerNoProposal:
		v2.Answers, v2.Declared = evidence.Yes, r.refused()
		return true
	case a.Answer == evidence.AnswerAccepted:
		r.confirmed(a)
	case a.Answer == evidence.AnswerWrongGroup: // of which there is no key exchange here
		v2.Answers, v2.Accepts, v2.Declared = evidence.Yes, evidence.Yes, evidence.Yes
	case a.of(ike.V2):
		v2.Answers = evidence.Yes
	}
	return false
}

// initDeclared makes complete IKE_SA_INITs with the declared proposals, with a
// KE payload of each of some groups until one is not refused: the peer may look
// at the proposals with that group only. One that demands another group gets
// the proposals with that, and the rest as declared.
func (r *run) initDeclared(ctx context.Context, groups []string) (a answer, ok bool) {
	for _, group := range groups {
		if a, ok = r.initIn(ctx, group, r.declared); !ok || a.Answer != evidence.AnswerNoProposal {
			break
		}
	}
	if a.demanded == "" {
		return a, ok
	}
	a, ok = r.init(ctx, []offer{union(r.declared...).with(evidence.Group, []string{a.demanded})})
	if a.Answer == evidence.AnswerAccepted {
		r.out.V2.Declared = r.refused()
	}
	return a, ok
}

// confirmed takes note of the choice that answers a complete IKE_SA_INIT.
func (r *run) confirmed(a answer) {
	r.accepted(a)
	r.out.Confirmed = evidence.Yes
}

// accepted takes note of a choice: it tells more than any refusal.
func (r *run) accepted(a answer) {
	v2 := &r.out.V2
	v2.Answers, v2.Accepts = evidence.Yes, evidence.Yes
	switch {
	case !r.declaresV2():
	case takes(r.declared, a.chosen):
		v2.Declared, r.out.Mismatches = evidence.Yes, []evidence.Mismatch{}
	case v2.Declared == evidence.No:
		list := differences(r.declared, a.chosen)
		if len(list) == 0 && len(r.out.Mismatches) == 0 { // each of it is declared, but not together
			list = differences(r.declared[:1], a.chosen)
		}
		if len(list) > 0 {
			r.out.Mismatches = list
		}
	}
}

// init makes a complete IKE_SA_INIT.
func (r *run) init(ctx context.Context, list []offer) (answer, bool) {
	groups := r.usable(list)
	if len(groups) == 0 {
		return answer{}, false
	}
	return r.initIn(ctx, groups[0], list)
}

// usable returns the groups of some offers of which there is a key exchange
// here. It notes that nothing complete can be sent when there is none.
func (r *run) usable(list []offer) []string {
	all := union(list...).group
	groups := slices.DeleteFunc(slices.Clone(all), func(g string) bool {
		t, _ := ike.TransformOf(g)
		_, ok := ikecrypto.PublicLen(t.ID)
		return !ok
	})
	if len(groups) == 0 && len(all) > 0 {
		r.skip(evidence.SkippedStep{Step: evidence.StepInit, Reason: evidence.SkipUnsupported, Detail: strings.Join(all, ",")})
	}
	return groups
}

// initIn makes a complete IKE_SA_INIT with a KE payload of a group, and a second one when the peer wants
// another group: the first has left nothing then.
func (r *run) initIn(ctx context.Context, group string, list []offer) (answer, bool) {
	a, ok := r.ask(ctx, r.saInit(evidence.StepInit, list, group))
	if ok && a.Answer == evidence.AnswerWrongGroup && !a.Reused && r.public(a.Group) != nil {
		a, ok = r.ask(ctx, r.saInit(evidence.StepInit, list, a.Group))
	}
	if ok {
		r.features(a)
	}
	return a, ok
}
