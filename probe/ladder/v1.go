package ladder

import (
	"context"
	"slices"

	"vpnprobe/evidence"
	"vpnprobe/internal/wire/ike"
	"vpnprobe/probe"
)

// mode is one of IKEv1's ways of beginning a negotiation.
type mode struct {
	exchange                 ike.ExchangeType
	nobody, declared, common evidence.LadderStep
}

var (
	mainMode = mode{
		ike.IdentityProtectionV1,
		evidence.StepProposalV1, evidence.StepMain, evidence.StepMainWide,
	}
	aggressiveMode = mode{
		ike.AggressiveV1,
		evidence.StepProposalAggressive, evidence.StepAggressive, evidence.StepAggressiveWide,
	}
)

// offersOf returns where the findings about a mode go.
func (r *run) offersOf(m mode) *evidence.IKEOffers {
	if m == aggressiveMode {
		return &r.out.Aggressive
	}
	return &r.out.Main
}

// modes returns IKEv1's modes, the declared one first.
func (r *run) modes() [2]mode {
	if r.cfg.Mode == "aggressive" {
		return [2]mode{aggressiveMode, mainMode}
	}
	return [2]mode{mainMode, aggressiveMode}
}

// negotiateV1 finds out whether the peer takes the declared proposals, or any,
// by IKEv1. A first message that the peer takes leaves a half-open SA, and
// silence may mean one. So the mode comes first in which the peer answers what
// nobody accepts: one without a connection in a mode may be silent before it
// looks at the proposals.
func (r *run) negotiateV1(ctx context.Context) {
	first, second := r.modes()[0], r.modes()[1]
	asked := r.askNobody(ctx, first) == evidence.Yes
	if asked {
		r.negotiate(ctx, first)
		if r.offersOf(first).Accepts != evidence.No {
			return
		}
	}
	if r.answered && r.askNobody(ctx, second) == evidence.Yes {
		r.negotiate(ctx, second)
	}
	// A request that nothing suggests is worth it for a declared mode only.
	if !asked && r.cfg.Version == 1 && r.offersOf(second).Accepts != evidence.Yes {
		r.negotiate(ctx, first)
	}
}

// askNobody sends a first message that nobody accepts, once, and returns
// whether the peer answers such.
func (r *run) askNobody(ctx context.Context, m mode) evidence.Fact {
	o := r.offersOf(m)
	if o.Answers == evidence.Yes || o.Answers == evidence.No && slices.ContainsFunc(r.out.Exchanges, func(e evidence.IKEExchange) bool {
		return e.Step == m.nobody && e.Port == r.port
	}) {
		return o.Answers
	}
	message := probe.NewIKERequest(evidence.ProposalProbeV1, sizeOfInit)
	if m == aggressiveMode {
		p, _ := ike.Parse(message) // it is our own
		sa, _ := p.First(ike.PayloadSAV1)
		message = r.firstV1(m, sa, groupOfNobody)
	}
	if a, ok := r.ask(ctx, request{step: m.nobody, message: message}); ok {
		o.Answers = answers(a, ike.V1)
		if a.Answer == evidence.AnswerBadVersion {
			o.Answers, o.Accepts = evidence.No, evidence.No
		}
	}
	return o.Answers
}

// groupOfNobody is the group of the request that nobody accepts.
const groupOfNobody = "modp2048"

// negotiate offers the declared algorithms in a mode and then, as long as all
// are refused, others. Each is a complete first message, and needs no other to
// confirm what it shows.
func (r *run) negotiate(ctx context.Context, m mode) {
	o := r.offersOf(m)
	declared := suites(r.declared)
	for _, list := range m.messages(declared) {
		a, ok := r.askV1(ctx, m, m.declared, list)
		if !ok || a.Answer != evidence.AnswerNoProposal {
			switch {
			case a.Answer == evidence.AnswerAccepted:
				o.Declared = evidence.Yes
			case o.Accepts == evidence.No:
				o.Declared = evidence.No
			}
			return
		}
		o.Declared = r.refused()
	}
	for _, list := range m.wider(declared) {
		a, ok := r.askV1(ctx, m, m.common, list)
		if ok && a.Answer == evidence.AnswerAccepted && o.Declared == evidence.No && r.cfg.Version != 2 {
			r.out.Mismatches = differences(declared, a.chosen)
		}
		if !ok || a.Answer != evidence.AnswerNoProposal {
			return
		}
	}
	o.Accepts = evidence.No
	r.confirmV1()
}

// confirmV1 notes that complete first messages showed what is found about the
// declared version.
func (r *run) confirmV1() {
	if r.cfg.Version == 1 {
		r.out.Confirmed = evidence.Yes
	}
}

// askV1 sends a first message, and takes note of what it decides about the
// mode.
func (r *run) askV1(ctx context.Context, m mode, step evidence.LadderStep, list []offer) (answer, bool) {
	group := list[0].group[0]
	if m == aggressiveMode && r.public(group) == nil {
		return answer{}, false
	}
	sa := saV1(list)
	a, ok := r.ask(ctx, request{step: step, offers: list, message: r.firstV1(m, sa, group)})
	if !ok {
		return a, false
	}
	o := r.offersOf(m)
	if a.of(ike.V1) {
		o.Answers = evidence.Yes
	}
	switch {
	case a.Answer == evidence.AnswerAccepted:
		o.Accepts = evidence.Yes
		r.features(a)
		r.confirmV1()
	case a.Notify == authFailedV1.String(): // strongSwan, of a connection without this mode
		o.Accepts = evidence.No
	}
	return a, true
}

// firstV1 returns the first message of a mode.
func (r *run) firstV1(m mode, sa ike.Payload, group string) []byte {
	list := []ike.Payload{sa}
	if m == aggressiveMode {
		list = append(list, ike.KEV1(r.public(group)), ike.NonceV1(random(nonceLen)), r.identity().Payload())
	}
	return ike.Message{
		Header:   ike.Header{SPIi: newSPI(), Version: ike.V1, Exchange: m.exchange},
		Payloads: list,
	}.Append(nil)
}

// identity returns what we call ourselves: as declared, or else our address.
func (r *run) identity() ike.IdentityV1 {
	id := ike.IdentityOf(r.conn.Local().Addr().String())
	if r.cfg.LocalID != "" {
		id = ike.IdentityOf(r.cfg.LocalID)
	}
	// The only port and protocol besides 0 that RFC 2407 section 4.6.2 lets
	// phase 1 have, and the ones that daemons send.
	const udp = 17
	return ike.IdentityV1{Type: id.Type, Protocol: udp, Port: portIKE, Data: id.Data}
}

// suite is one set of algorithms of IKEv1, whose PRF is made of its hash.
func suite(encr, hash, group string) offer {
	return offer{encr: []string{encr}, integ: []string{hash}, group: []string{group}}
}

// suites returns all sets of algorithms of several offers that IKEv1 has, each
// once.
func suites(list []offer) []offer {
	var all []offer
	seen := make(map[string]bool)
	for _, o := range list {
		for _, e := range o.encr {
			for _, h := range o.integ {
				for _, g := range o.group {
					s := suite(e, h, g)
					if _, ok := ike.PhaseOneOf(e, h, g); ok && !seen[s.String()] {
						seen[s.String()] = true
						all = append(all, s)
					}
				}
			}
		}
	}
	return all
}

// maxSuites bounds a message to what one packet of 1280 bytes carries: a
// transform takes 36 bytes.
const maxSuites = 27

// lifetime is what most gateways have for an IKE SA, in seconds.
const lifetime = 28800

// saV1 returns the SA payload with the suites of several offers.
func saV1(list []offer) ike.Payload {
	p := ike.ProposalV1{Protocol: ike.ProtocolIKE}
	for _, s := range suites(list) {
		attrs, _ := ike.PhaseOneOf(s.encr[0], s.integ[0], s.group[0])
		p.Transforms = append(p.Transforms, ike.TransformV1{ID: ike.TransformKeyIKE, Attributes: append(
			attrs,
			ike.Attribute{Type: ike.AttrV1Auth, Value: ike.AuthV1SharedKey},
			ike.Attribute{Type: ike.AttrV1LifeType, Value: ike.LifeV1Seconds},
			ike.Attribute{Type: ike.AttrV1LifeDuration, Value: lifetime},
		)})
	}
	return ike.SAV1{DOI: ike.DOIIPsec, Situation: ike.SituationIdentity, Proposals: []ike.ProposalV1{p}}.Payload()
}

// messages splits suites into what one message of the mode can offer. In
// aggressive mode that is one group, that of its KE payload (RFC 2409 section
// 5.4).
func (m mode) messages(list []offer) [][]offer {
	if m == mainMode {
		return slices.Collect(slices.Chunk(list, maxSuites))
	}
	var all [][]offer
	for _, g := range union(list...).group {
		same := slices.DeleteFunc(slices.Clone(list), func(s offer) bool { return s.group[0] != g })
		all = slices.AppendSeq(all, slices.Chunk(same, maxSuites))
	}
	return all
}

// The algorithms that gateways commonly have for IKEv1.
var (
	commonV1 = offer{
		encr:  []string{"aes256", "aes128", "3des", "aes192", "des", "camellia256", "camellia128"},
		integ: []string{"sha256", "sha1", "md5", "sha512", "sha384"},
		group: []string{"modp2048", "modp1024", "modp1536", "modp4096", "modp3072", "ecp256", "ecp384", "modp768"},
	}
	// core is as many of them as one message takes in all combinations, and
	// modern those of newer gateways.
	core   = offer{encr: commonV1.encr[:3], integ: commonV1.integ[:3], group: commonV1.group[:3]}
	modern = offer{
		encr:  []string{"aes256", "aes128", "aes192"},
		integ: []string{"sha256", "sha512", "sha384"},
		group: []string{"modp4096", "modp3072", "ecp256"},
	}
)

// wider returns what to offer, message by message, when the declared suites
// are refused: with one attribute of the preferred suite changed, then with
// two, then anything. So a choice differs in no more than must be.
func (m mode) wider(declared []offer) [][]offer {
	groups := commonV1.group[:3]
	if len(declared) == 0 {
		if m == mainMode {
			return [][]offer{{core}, {modern}}
		}
		return changedGroups(groups, commonV1.encr[:4], commonV1.integ[:4])
	}
	d := declared[0]
	e, h, g := d.encr, d.integ, d.group
	few := offer{commonV1.encr[:5], commonV1.integ, nil, commonV1.group[:5]}
	if m == mainMode {
		return [][]offer{
			{{commonV1.encr, h, nil, g}, {e, commonV1.integ, nil, g}, {e, h, nil, commonV1.group}},
			{{few.encr, few.integ, nil, g}},
			{{few.encr, h, nil, few.group}},
			{{e, few.integ, nil, few.group}},
			{core}, {modern},
		}
	}
	list := [][]offer{
		{{commonV1.encr, h, nil, g}, {e, commonV1.integ, nil, g}},
		{{few.encr, few.integ[:4], nil, g}},
	}
	for _, other := range groups {
		if other != g[0] {
			list = append(list, []offer{suite(e[0], h[0], other)})
		}
	}
	others := slices.DeleteFunc(slices.Clone(groups), func(other string) bool { return other == g[0] })
	return append(list, changedGroups(others, few.encr[:4], few.integ[:4])...)
}

// changedGroups returns one message per group.
func changedGroups(groups, encr, integ []string) [][]offer {
	var list [][]offer
	for _, g := range groups {
		list = append(list, []offer{{encr, integ, nil, []string{g}}})
	}
	return list
}
