package ikeauth

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"vpnprobe/internal/ikecrypto"
	"vpnprobe/internal/wire/ike"
)

const nonceLen = 32 // bytes; RFC 7296 section 2.10 wants half of the PRF's key at least

// init makes the IKE_SA_INIT exchange. It returns false when the peer's answer
// is one that ends the negotiation.
func (s *session) init(ctx context.Context) (bool, error) {
	declared := s.cfg.Proposals
	if len(declared) == 0 {
		declared = strings.Fields(wideIKE)
	}
	offer, leftOut := offerOf(ike.ProtocolIKE, declared)
	groups := groupsOf(offer)
	if len(groups) == 0 {
		return false, cmp.Or(leftOut, errors.New("no group in the declared IKE proposals"))
	}
	group := groups[0]
	s.leftOut = leftOut
	wanted, err := s.initWith(ctx, offer, group)
	if wanted != 0 && wanted != group && slices.Contains(groups, wanted) {
		// A responder is free in its choice of the groups offered, and has
		// kept no state (RFC 7296 section 1.2).
		s.found.Notify = ""
		_, err = s.initWith(ctx, offer, wanted)
	}
	return s.keys != nil, err
}

// initWith makes the exchange with a public value of the given group. It
// returns the group that the peer wants instead, if it does.
func (s *session) initWith(ctx context.Context, offer []ike.Proposal, group uint16) (wanted uint16, err error) {
	kx, err := ikecrypto.NewKeyExchange(group)
	if err != nil {
		return 0, err
	}
	s.spii, s.group = newSPI(), group
	s.nonce = make([]byte, nonceLen)
	rand.Read(s.nonce) // never fails
	s.request = s.initRequest(offer, kx)

	var unusable error
	done := func(b []byte) (ok bool) {
		if wanted, ok, err = s.initAnswer(b, offer, kx); err != nil {
			unusable = err
		}
		return ok
	}
	err = s.link.roundTrip(ctx, [][]byte{s.request}, done)
	if errors.Is(err, errSilent) && s.link.port == portIKE {
		// The same message, so that a peer whose answers are lost still has
		// no more than one SA.
		s.link.port = portNATT
		err = s.link.roundTrip(ctx, [][]byte{s.request}, done)
	}
	if errors.Is(err, errSilent) && unusable != nil {
		err = unusable
	}
	return wanted, err
}

func (s *session) initRequest(offer []ike.Proposal, kx ikecrypto.KeyExchange) []byte {
	here := ikecrypto.NATDetection(s.spii, ike.SPI{}, s.link.local)
	there := ikecrypto.NATDetection(s.spii, ike.SPI{}, s.link.remote())
	return ike.Message{
		Header: ike.Header{SPIi: s.spii, Version: ike.V2, Exchange: ike.SAInit, Flags: ike.FlagInitiator},
		Payloads: []ike.Payload{
			ike.SA(withSPI(offer, nil)...),
			ike.KE(kx.Group(), kx.Public()),
			ike.Nonce(s.nonce),
			ike.Notify{Type: ike.NATDetectionSourceIP, Data: here[:]}.Payload(),
			ike.Notify{Type: ike.NATDetectionDestinationIP, Data: there[:]}.Payload(),
			ike.Notify{Type: ike.FragmentationSupported}.Payload(),
		},
	}.Append(nil)
}

// initAnswer reads an answer to IKE_SA_INIT. It returns false when the message
// is none, with an error when it looks like one that cannot be gone on with.
func (s *session) initAnswer(b []byte, offer []ike.Proposal, kx ikecrypto.KeyExchange) (wanted uint16, ok bool, err error) {
	m, err := ike.Parse(b)
	if err != nil || m.SPIi != s.spii {
		return 0, false, nil
	}
	if m.Version.Major() == ike.V1.Major() {
		// One that speaks nothing else (RFC 2408 section 4.8).
		s.found.Notify = m.FirstNotify()
		return 0, s.found.Notify != "", nil
	}
	if m.Version.Major() != ike.V2.Major() || m.Flags&(ike.FlagResponse|ike.FlagInitiator) != ike.FlagResponse || m.MessageID != 0 {
		return 0, false, nil
	}
	if n, ok := ending(m); ok {
		s.found.Notify = n.Type.String()
		if n.Type == ike.InvalidKEPayload && len(n.Data) >= 2 {
			wanted = binary.BigEndian.Uint16(n.Data)
		}
		return wanted, true, nil
	}
	if m.Exchange != ike.SAInit || m.SPIr.IsZero() {
		return 0, false, nil
	}
	if err := s.derive(m, offer, kx); err != nil {
		// Anybody on the way can send such a message: a better one may follow.
		return 0, false, fmt.Errorf("unusable IKE_SA_INIT answer: %w", err)
	}
	s.response, s.link.port = b, s.link.from
	_, s.childless = notify(m, ike.ChildlessSupported)
	if s.link.port == portIKE && s.natDetected(m) {
		s.link.port = portNATT // RFC 7296 section 2.23
	}
	return 0, true, nil
}

// ending returns the notification by which an answer ends the negotiation.
func ending(m ike.Message) (ike.Notify, bool) {
	if n, ok := refusal(m); ok {
		return n, true
	}
	if n, ok := notify(m, ike.Cookie); ok {
		return n, true
	}
	return notify(m, ike.Redirect)
}

// derive computes the keys of the suite that the peer chose.
func (s *session) derive(m ike.Message, offer []ike.Proposal, kx ikecrypto.KeyExchange) error {
	sa, _ := m.First(ike.PayloadSA)
	chosen, err := choice(sa.Body, offer)
	if err != nil {
		return err
	}
	suite, err := ikecrypto.NewSuite(chosen)
	if err != nil {
		return err
	}
	ke, _ := m.First(ike.PayloadKE)
	public, err := ike.ParseKE(ke.Body)
	if err != nil {
		return err
	}
	if public.Group != kx.Group() || !slices.Contains(groupsOf([]ike.Proposal{chosen}), public.Group) {
		return fmt.Errorf("a public value of group %d, where we use %d", public.Group, kx.Group())
	}
	shared, err := kx.Shared(public.Public)
	if err != nil {
		return err
	}
	nonce, _ := m.First(ike.PayloadNonce)
	if n := len(nonce.Body); n < 16 || n > 256 {
		return fmt.Errorf("a nonce of %d bytes", n)
	}
	s.peerNonce, s.spir = nonce.Body, m.SPIr
	s.keys = suite.Keys(shared, s.nonce, s.peerNonce, s.spii, s.spir)
	return nil
}

// natDetected reports whether the peer sees either end under another address
// or port than the end itself, or says so to have ESP in UDP. A peer may send
// the hashes of several of its addresses.
func (s *session) natDetected(m ike.Message) bool {
	return s.natAt(m, ike.NATDetectionDestinationIP, ikecrypto.NATDetection(s.spii, s.spir, s.link.local)) ||
		s.natAt(m, ike.NATDetectionSourceIP, ikecrypto.NATDetection(s.spii, s.spir, s.link.remote()))
}

func (s *session) natAt(m ike.Message, t ike.NotifyType, want [20]byte) bool {
	said := false
	for _, p := range m.Payloads {
		if p.Type != ike.PayloadNotify {
			continue
		}
		if n, err := ike.ParseNotify(p.Body); err == nil && n.Type == t {
			if bytes.Equal(n.Data, want[:]) {
				return false
			}
			said = true
		}
	}
	return said
}
