package ikeauth

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"vpnprobe/evidence"
	"vpnprobe/internal/ikecrypto"
	"vpnprobe/internal/wire/ike"
)

// child is a child SA as it is asked for.
type child struct {
	proposals []ike.Proposal // with the groups of perfect forward secrecy
	group     uint16         // of the KE payload; 0 is without one
	transport bool
	tsi, tsr  []ike.TrafficSelector

	spi    []byte // under which we would receive
	rekeys []byte // the SPI of the child SA that it is to replace; nil for none
}

// childAnswer is what the peer made of a request for a child SA.
type childAnswer struct {
	accepted bool

	// Of one that it refused.
	notify ike.NotifyType // 0 when it did not say why
	wanted uint16         // the group, of INVALID_KE_PAYLOAD

	// Of one that it accepted.
	chosen    ike.Proposal
	transport bool
	tsi, tsr  []ike.TrafficSelector
}

// declared returns the child SA that the operator declared. What is not
// declared is offered as widely as possible, and selectors as the gateways'
// own addresses.
func (s *session) declared() (child, error) {
	c := child{
		transport: s.cfg.ESPMode == "transport",
		tsi:       selectors(s.cfg.LocalSubnets, s.link.local.Addr()),
		tsr:       selectors(s.cfg.RemoteSubnets, s.link.peer),
		spi:       newChildSPI(),
	}
	s.leftOut = nil // what IKE_SA_INIT was about was agreed on
	if len(s.cfg.ESPProposals) == 0 {
		c.proposals = withSequence(withGroups(wide(), widePFS()...), ike.SequenceNumbers32, ike.SequenceNumbers64)
		c.group = s.group
		return c.orWithoutPFS(), nil
	}
	list, leftOut := offerOf(ike.ProtocolESP, s.cfg.ESPProposals)
	if len(list) == 0 {
		return child{}, leftOut
	}
	s.leftOut = leftOut
	c.proposals, c.group = list, firstGroup(list)
	return c, nil
}

// wide returns every common algorithm of ESP.
func wide() []ike.Proposal {
	list, _ := offerOf(ike.ProtocolESP, strings.Fields(wideESP))
	return list
}

func firstGroup(list []ike.Proposal) uint16 {
	if groups := groupsOf(list); len(groups) > 0 {
		return groups[0]
	}
	return 0
}

// orWithoutPFS returns the same child with the alternative of no perfect
// forward secrecy, which is less preferred.
func (c child) orWithoutPFS() child {
	if c.group != 0 {
		c.proposals = slices.Concat(c.proposals, withGroups(c.proposals))
	}
	return c
}

func newChildSPI() []byte {
	spi := make([]byte, 4)
	rand.Read(spi) // never fails
	spi[0] |= 1    // below 256 they are reserved (RFC 4303 section 2.1)
	return spi
}

// payloads returns what asks for the child in an IKE_AUTH exchange; others go
// behind its SA payload.
func (c child) payloads(others []ike.Payload) []ike.Payload {
	list := append([]ike.Payload{ike.SA(withSPI(c.proposals, c.spi)...)}, others...)
	list = append(list, ike.TS(ike.PayloadTSi, c.tsi), ike.TS(ike.PayloadTSr, c.tsr))
	if c.transport {
		list = append(list, ike.Notify{Type: ike.UseTransportMode}.Payload())
	}
	return list
}

// create asks for a child SA in a CREATE_CHILD_SA exchange, and once more if
// the peer would rather have another of the groups offered.
func (s *session) create(ctx context.Context, c child) (*childAnswer, error) {
	a, err := s.createOnce(ctx, c)
	if err == nil && a.notify == ike.InvalidKEPayload && a.wanted != c.group && slices.Contains(groupsOf(c.proposals), a.wanted) {
		c.group = a.wanted
		return s.createOnce(ctx, c)
	}
	return a, err
}

func (s *session) createOnce(ctx context.Context, c child) (*childAnswer, error) {
	nonce := make([]byte, nonceLen)
	rand.Read(nonce) // never fails
	others := []ike.Payload{ike.Nonce(nonce)}
	if c.group != 0 {
		kx, err := ikecrypto.NewKeyExchange(c.group)
		if err != nil {
			return nil, err
		}
		others = append(others, ike.KE(kx.Group(), kx.Public()))
	}
	c.spi = newChildSPI()
	payloads := c.payloads(others)
	if c.rekeys != nil {
		rekey := ike.Notify{Protocol: ike.ProtocolESP, Type: ike.RekeySA, SPI: c.rekeys}.Payload()
		payloads = slices.Insert(payloads, 0, rekey)
	}
	m, err := s.ask(ctx, ike.CreateChildSA, nil, payloads...)
	if err != nil {
		return nil, err
	}
	return c.answer(m), nil
}

// answer reads the peer's answer to a request for the child. One that accepts
// what was not asked for counts as a refusal without a reason.
func (c child) answer(m ike.Message) *childAnswer {
	if n, ok := refusal(m); ok {
		a := &childAnswer{notify: n.Type}
		if n.Type == ike.InvalidKEPayload && len(n.Data) >= 2 {
			a.wanted = binary.BigEndian.Uint16(n.Data)
		}
		return a
	}
	sa, _ := m.First(ike.PayloadSA)
	tsi, _ := m.First(ike.PayloadTSi)
	tsr, _ := m.First(ike.PayloadTSr)
	chosen, err1 := choice(sa.Body, c.proposals)
	i, err2 := ike.ParseTS(tsi.Body)
	r, err3 := ike.ParseTS(tsr.Body)
	if err1 != nil || err2 != nil || err3 != nil || len(i) == 0 || len(r) == 0 {
		return &childAnswer{}
	}
	_, transport := notify(m, ike.UseTransportMode)
	return &childAnswer{accepted: true, chosen: chosen, transport: transport, tsi: i, tsr: r}
}

// selectors returns what the child SA that was agreed on carries.
func (a *childAnswer) selectors() string {
	return sideText(a.tsi) + " === " + sideText(a.tsr)
}

func sideText(list []ike.TrafficSelector) string {
	var words []string
	for _, ts := range list {
		words = append(words, ts.String())
	}
	return strings.Join(words, " ")
}

// sameSelectors compares two sides' selectors in any order.
func sameSelectors(a, b []ike.TrafficSelector) bool {
	key := func(list []ike.TrafficSelector) []string {
		words := []string{}
		for _, ts := range list {
			words = append(words, fmt.Sprint(ts))
		}
		slices.Sort(words)
		return slices.Compact(words)
	}
	return slices.Equal(key(a), key(b))
}

// child finds out whether the peer agrees to the declared child SA, and if
// not, what it would agree to. first is its answer to the one that IKE_AUTH
// asked for, if it did.
func (s *session) child(ctx context.Context, want child, first *childAnswer) error {
	a := first
	var err error
	if a == nil {
		if a, err = s.create(ctx, want); err != nil {
			return err
		}
	}
	undeclared := len(s.cfg.LocalSubnets) == 0 || len(s.cfg.RemoteSubnets) == 0
	if a.notify == ike.TSUnacceptable && undeclared {
		// Only our guess was wrong.
		want = want.orWithoutPFS()
		if len(s.cfg.LocalSubnets) == 0 {
			want.tsi = anything(want.tsi)
		}
		if len(s.cfg.RemoteSubnets) == 0 {
			want.tsr = anything(want.tsr)
		}
		first = nil
		if a, err = s.create(ctx, want); err != nil {
			return err
		}
		if a.notify == ike.TSUnacceptable {
			return errors.New("the peer accepts none but its own traffic selectors: declare local_subnets and remote_subnets")
		}
	}
	if !a.accepted {
		if a.notify != 0 {
			s.found.Notify = a.notify.String()
		}
		return s.explain(ctx, want, a, first != nil)
	}
	s.found.ESPChosen, s.found.Selectors = notation(a.chosen), a.selectors()
	if !undeclared {
		s.found.Narrowed = evidence.FactOf(!sameSelectors(a.tsi, want.tsi) || !sameSelectors(a.tsr, want.tsr))
	}
	if a.transport != want.transport {
		// The peer insists on the other mode, which we must refuse then (RFC
		// 7296 section 1.3.1).
		s.found.OtherMode = evidence.Yes
		return nil
	}
	s.found.Stage = evidence.StageComplete
	if first != nil && len(s.cfg.ESPProposals) > 0 {
		return s.rekey(ctx, want)
	}
	return nil
}

// rekey finds out whether the child SA that IKE_AUTH set up could be replaced
// when its time comes: only then perfect forward secrecy has a part.
func (s *session) rekey(ctx context.Context, want child) error {
	want.rekeys = want.spi
	a, err := s.create(ctx, want)
	switch {
	case err != nil:
		return err
	case a.accepted:
		s.found.Rekey = evidence.Yes
	case s.leftOut != nil:
		// The group that it would take may be the one left out.
	case a.notify == ike.NoProposalChosen, a.notify == ike.InvalidKEPayload:
		s.found.Rekey = evidence.No
		return s.try(ctx, s.otherPFS(want, a))
	}
	return nil
}

// explain asks for the child SA again, with one thing changed at a time, until
// the peer accepts it.
func (s *session) explain(ctx context.Context, want child, refused *childAnswer, inAuth bool) error {
	pfs := s.otherPFS(want, refused)
	if inAuth {
		// Where it was refused, perfect forward secrecy had no part; now that
		// it has, it must not be what fails.
		want = want.orWithoutPFS()
	}
	algorithms := variant{fact: &s.found.OtherESP, child: want}
	sequences := sequencesOf(want.proposals)
	algorithms.child.proposals = withSequence(withGroups(wide(), groupsOf(want.proposals)...), sequences...)
	if inAuth {
		algorithms.child = algorithms.child.orWithoutPFS()
	}
	// A variant of its own: many peers, given the choice, take the longer
	// ones, which would look like a difference.
	sequence := variant{fact: &s.found.OtherESP, child: want}
	sequence.child.proposals = withSequence(want.proposals, ike.SequenceNumbers64-sequences[0])
	mode := variant{fact: &s.found.OtherMode, child: want}
	mode.child.transport = !want.transport
	selectors := variant{fact: &s.found.OtherSelectors, child: want}
	selectors.child.tsi, selectors.child.tsr = anything(want.tsi), anything(want.tsr)

	var list []variant
	switch refused.notify {
	case ike.InvalidKEPayload:
		if s.leftOut == nil {
			list = []variant{pfs}
		}
	case ike.TSUnacceptable:
		// One that insists on transport mode may refuse networks first.
		list = []variant{selectors, mode}
	case ike.SinglePairRequired:
		selectors.child.tsi, selectors.child.tsr = want.tsi[:1], want.tsr[:1]
		list = []variant{selectors}
	case ike.NoProposalChosen:
		// The peer may want what was declared and left out: another algorithm
		// or group that it takes then says nothing of the declared ones.
		if len(s.cfg.ESPProposals) > 0 && s.leftOut == nil {
			if !inAuth {
				list = append(list, pfs)
			}
			list = append(list, algorithms)
			if len(sequences) == 1 {
				list = append(list, sequence)
			}
		}
		list = append(list, mode, selectors)
	}
	return s.try(ctx, list...)
}

// variant is a child SA with one thing changed, and what its acceptance says.
type variant struct {
	fact  *evidence.Fact
	child child
}

// otherPFS returns the variant with other groups than the declared ones, or
// with none where some were declared.
func (s *session) otherPFS(want child, refused *childAnswer) variant {
	declared := groupsOf(want.proposals)
	others := slices.DeleteFunc(widePFS(), func(g uint16) bool { return slices.Contains(declared, g) })
	v := variant{fact: &s.found.OtherPFS, child: want}
	v.child.group = 0 // when all were declared, there is only none to try
	switch {
	case slices.Contains(others, s.group):
		v.child.group = s.group // the peer has it
	case len(others) > 0:
		v.child.group = others[0]
	}
	if refused.notify == ike.InvalidKEPayload && refused.wanted != 0 {
		s.found.PFSGroup = groupName(refused.wanted)
		if _, ok := ikecrypto.PublicLen(refused.wanted); ok && !slices.Contains(declared, refused.wanted) {
			others, v.child.group = []uint16{refused.wanted}, refused.wanted
		}
	}
	v.child.proposals = withGroups(want.proposals, others...)
	if len(declared) > 0 {
		v.child = v.child.orWithoutPFS()
	}
	return v
}

// try asks for each variant until one is accepted.
func (s *session) try(ctx context.Context, list ...variant) error {
	for _, v := range list {
		a, err := s.create(ctx, v.child)
		if err != nil {
			return err
		}
		if v.fact == &s.found.OtherPFS {
			switch {
			case a.notify == ike.InvalidKEPayload && a.wanted != 0:
				// It would take a group that we cannot compute.
				*v.fact, s.found.PFSGroup = evidence.Yes, groupName(a.wanted)
				return nil
			case a.notify == ike.InvalidSyntax:
				if a, err = s.findGroup(ctx, v.child); err != nil {
					return err
				}
			}
		}
		*v.fact = evidence.FactOf(a.accepted && a.transport == v.child.transport)
		if a.accepted {
			s.accept(v, a)
			return nil
		}
	}
	return nil
}

// findGroup halves the groups of a child until the peer accepts one. It is for
// peers such as libreswan 4, which choose a proposal by one of its groups and
// then refuse the public value of another as a malformed one.
func (s *session) findGroup(ctx context.Context, c child) (*childAnswer, error) {
	groups := groupsOf(c.proposals)
	proposals := slices.DeleteFunc(slices.Clone(c.proposals), func(p ike.Proposal) bool { return firstGroup([]ike.Proposal{p}) == 0 })
	for len(groups) > 0 {
		half := groups[:(len(groups)+1)/2]
		c.proposals, c.group = withGroups(proposals, half...), half[0]
		a, err := s.createOnce(ctx, c)
		switch {
		case err != nil, a.accepted:
			return a, err
		case a.notify == ike.NoProposalChosen:
			groups = groups[len(half):]
		case a.notify == ike.InvalidSyntax:
			groups = half[1:]
		default:
			return a, nil
		}
	}
	return &childAnswer{}, nil
}

// accept records what the peer made of a variant.
func (s *session) accept(v variant, a *childAnswer) {
	s.found.ESPChosen, s.found.Selectors = notation(a.chosen), a.selectors()
	if v.fact == &s.found.OtherMode && s.cfg.ESPMode == "" {
		// Nothing was declared, so only our guess was wrong.
		s.found.OtherMode, s.found.Notify, s.found.Stage = evidence.Unknown, "", evidence.StageComplete
	}
	if v.fact == &s.found.OtherPFS {
		s.found.PFSGroup = ""
		if g := firstGroup([]ike.Proposal{a.chosen}); g != 0 {
			s.found.PFSGroup = groupName(g)
		}
	}
}
