package ikeauth

import (
	"context"
	"crypto/hmac"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"vpnprobe/evidence"
	"vpnprobe/internal/wire/ike"
)

// authenticate makes the IKE_AUTH exchange, which asks for a child SA too
// unless the peer can do without (RFC 6023). It returns what became of that
// child; nil when none was asked for.
//
// It names no identity for the peer, so that one with another than the
// declared answers under its own.
func (s *session) authenticate(ctx context.Context, want child) (*childAnswer, error) {
	id := s.identity().Payload(ike.PayloadIDi)
	payloads := []ike.Payload{id, ike.Authentication{
		Method: ike.AuthSharedKey,
		Data:   s.keys.AuthPSK(true, s.cfg.PSK, s.request, s.peerNonce, id.Body),
	}.Payload()}
	// The first child has its keys from the IKE SA's own exchange (RFC 7296
	// section 1.2).
	want.proposals, want.group = withGroups(want.proposals), 0
	if !s.childless {
		payloads = append(payloads, want.payloads(nil)...)
	}
	s.nextID, s.up = 1, true
	m, err := s.ask(ctx, ike.Auth, nil, payloads...)
	if err != nil {
		return nil, err
	}
	if n, ok := refusal(m); ok {
		s.found.Notify = n.Type.String()
	}
	if _, ok := m.First(ike.PayloadAuth); !ok {
		// Then there should be no IKE SA (RFC 7296 section 2.21.2).
		switch {
		case s.found.Notify == ike.AuthenticationFailed.String():
			s.up, s.found.Authenticated = false, evidence.No
		case aboutChild(s.found.Notify):
			s.found.Stage = evidence.StageChild // some give all up for the child
		}
		return nil, nil
	}
	s.proven = true
	if err := s.verify(m); err != nil || s.found.Authenticated != evidence.Yes || s.childless {
		return nil, err
	}
	s.found.Notify = ""
	return want.answer(m), nil
}

// aboutChild reports whether a notify in an IKE_AUTH answer is about the child
// SA, and leaves the IKE SA (RFC 7296 section 1.2).
func aboutChild(notify string) bool {
	return slices.ContainsFunc([]ike.NotifyType{
		ike.NoProposalChosen, ike.TSUnacceptable, ike.SinglePairRequired, ike.InternalAddressFailure, ike.FailedCPRequired,
	}, func(t ike.NotifyType) bool { return t.String() == notify })
}

// identity returns what we call ourselves.
func (s *session) identity() ike.Identity {
	if s.cfg.LocalID != "" {
		return ike.IdentityOf(s.cfg.LocalID)
	}
	return ike.IdentityOf(s.link.local.Addr().WithZone("").String())
}

// verify checks the peer's signature, and under which identity it made it.
func (s *session) verify(m ike.Message) error {
	p, _ := m.First(ike.PayloadAuth)
	auth, err := ike.ParseAuth(p.Body)
	if err != nil {
		return fmt.Errorf("IKE_AUTH answer: %w", err)
	}
	if auth.Method != ike.AuthSharedKey {
		return fmt.Errorf("the peer authenticates itself by method %v, not by the pre-shared key", auth.Method)
	}
	p, _ = m.First(ike.PayloadIDr)
	id, err := ike.ParseIdentity(p.Body)
	if err != nil {
		return fmt.Errorf("IKE_AUTH answer: %w", err)
	}
	right := s.keys.AuthPSK(false, s.cfg.PSK, s.response, s.nonce, p.Body)
	s.found.Authenticated = evidence.FactOf(hmac.Equal(auth.Data, right))
	if s.found.Authenticated == evidence.Yes {
		s.found.RemoteID = id.String()
		s.found.RemoteIDOther = differs(s.cfg.RemoteID, id)
	}
	return nil
}

// differs compares an identity with the declared one as the daemons do. It is
// Unknown where any is right, and where only a daemon knows.
func differs(declared string, id ike.Identity) evidence.Fact {
	if network, err := netip.ParsePrefix(declared); err == nil {
		a, ok := netip.AddrFromSlice(id.Data)
		isAddr := id.Type == ike.IDIPv4Addr || id.Type == ike.IDIPv6Addr
		return evidence.FactOf(!isAddr || !ok || !network.Contains(a))
	}
	if !single(declared) {
		return evidence.Unknown
	}
	want := ike.IdentityOf(declared)
	switch id.Type {
	case ike.IDFQDN, ike.IDUserFQDN:
		return evidence.FactOf(want.Type != id.Type || !matchName(string(want.Data), string(id.Data)))
	case ike.IDDERASN1DN:
		if sameName(declared, id.String()) {
			return evidence.No
		}
		if strings.Contains(declared, "=") {
			return evidence.Unknown // names can be written in several ways
		}
		return evidence.Yes
	}
	return evidence.FactOf(want.Type != id.Type || string(want.Data) != string(id.Data))
}

// single reports whether a declared identity stands for one, or for all names
// with one ending. Others are "%any" and its like, ranges of addresses, regular
// expressions, and those of a stated type ("keyid:...").
func single(declared string) bool {
	if a, err := netip.ParseAddr(declared); err == nil {
		return !a.IsUnspecified() // which strongSwan takes for any
	}
	if first, last, ok := strings.Cut(declared, "-"); ok {
		_, err1 := netip.ParseAddr(first)
		_, err2 := netip.ParseAddr(last)
		if err1 == nil && err2 == nil {
			return false
		}
	}
	return declared != "" && declared != "*" && !strings.HasPrefix(declared, "%") && !strings.HasPrefix(declared, "^") && !strings.Contains(declared, ":")
}

// matchName compares a name with a pattern that may begin with an asterisk for
// one or more characters, as strongSwan has it. Names have no case.
func matchName(pattern, name string) bool {
	if strings.EqualFold(pattern, name) {
		return true
	}
	ending, ok := strings.CutPrefix(strings.ToLower(pattern), "*")
	name = strings.ToLower(name)
	return ok && len(name) > len(ending) && strings.HasSuffix(name, ending)
}

// sameName compares distinguished names but for case and blanks.
func sameName(a, b string) bool {
	strip := func(s string) string { return strings.ReplaceAll(s, " ", "") }
	return strings.EqualFold(strip(a), strip(b))
}
