package ikeauth

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/ikecrypto"
	"vpnprobe/internal/wire/ike"
)

// grace is how long the peer has to confirm the end of the IKE SA.
const grace = 2 * time.Second

// session is one IKE SA, as its initiator sees it, and what was found by it.
type session struct {
	cfg   *Config
	link  *link
	found evidence.IKEAuth

	// Of the IKE_SA_INIT exchange.
	spii, spir        ike.SPI
	group             uint16
	request, response []byte // the messages, which AUTH signs
	nonce, peerNonce  []byte
	keys              *ikecrypto.Keys
	childless         bool

	// leftOut says what of the declared proposals was not offered in the
	// exchange that the negotiation is at.
	leftOut error

	// up is set while the peer may hold an IKE SA, and proven once it has
	// said so under the key.
	up, proven bool
	nextID     uint32
	// pending is a request of the SA that was not answered yet. The peer
	// takes no other before it.
	pending []byte
	peer    peerRequests
	parts   fragments
}

// negotiate goes through all of the exchanges over an open link.
func negotiate(ctx context.Context, cfg *Config, l *link, found evidence.IKEAuth) evidence.IKEAuth {
	s := &session{cfg: cfg, link: l, found: found}
	nctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	err := guard(func() error { return s.exchange(nctx) })
	// Whatever became of the exchanges, the SA must not stay.
	if fault := guard(func() error { s.end(ctx); return nil }); fault != nil {
		err = fault
	}
	switch {
	case errors.Is(err, errDefect):
	case !l.sent && l.sendErr != nil:
		err = l.sendErr
	case err == nil, errors.Is(err, errSilent):
		if s.leftOut == nil || !s.blamesProposals() {
			return s.found // which is seen
		}
		err = s.leftOut
	case ctx.Err() != nil:
		err = fmt.Errorf("interrupted: %w", ctx.Err())
	case nctx.Err() != nil:
		err = fmt.Errorf("not done within %v", cfg.Timeout)
	}
	s.found.CannotLook = fmt.Sprintf("negotiate with %v: %v", cfg.Target, err)
	return s.found
}

// blamesProposals reports whether the peer refused what was offered, and took
// it no other way.
func (s *session) blamesProposals() bool {
	return (s.found.Notify == ike.NoProposalChosen.String() || s.found.Notify == ike.InvalidKEPayload.String()) &&
		s.found.OtherMode != evidence.Yes && s.found.OtherSelectors != evidence.Yes
}

// errDefect says that an exchange panicked.
var errDefect = errors.New("a defect of vpnprobe ended the negotiation: please report it")

// guard calls f and turns a panic into an error. Of the panic's value only what
// the runtime says is told, for any other may hold the key.
func guard(f func() error) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case runtime.Error:
			err = fmt.Errorf("%w: %s", errDefect, p.Error())
		default:
			err = fmt.Errorf("%w: %T", errDefect, p)
		}
	}()
	return f()
}

// exchange returns an error when it was ended by anything but an answer.
func (s *session) exchange(ctx context.Context) error {
	s.found.Stage = evidence.StageInit
	if ok, err := s.init(ctx); !ok || err != nil {
		return err
	}
	s.found.Stage = evidence.StageAuth
	want, err := s.declared()
	if err != nil {
		return err
	}
	first, err := s.authenticate(ctx, want)
	if err != nil || s.found.Authenticated != evidence.Yes {
		return err
	}
	s.found.Stage = evidence.StageChild
	return s.child(ctx, want, first)
}

// end deletes the IKE SA, also when ctx has ended, because the peer would
// keep it for hours. A request that got no answer goes before the DELETE: if
// it was lost, the peer still waits for its message ID.
func (s *session) end(ctx context.Context) {
	if !s.up {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	var before [][]byte
	if s.pending != nil && s.proven {
		before = append(before, s.pending)
	}
	_, err := s.ask(ctx, ike.Informational, before, ike.Delete{Protocol: ike.ProtocolIKE}.Payload())
	switch {
	case err == nil, errors.Is(err, errGone):
		s.found.Deleted = evidence.Yes
	case s.proven:
		s.found.Deleted = evidence.No
	}
}

// errGone says that the peer has deleted the IKE SA.
var errGone = errors.New("the peer deleted the IKE SA")

// ask makes one protected exchange, after requests that go out before it.
func (s *session) ask(ctx context.Context, typ ike.ExchangeType, before [][]byte, payloads ...ike.Payload) (ike.Message, error) {
	if !s.keepsSA() {
		return ike.Message{}, errGone
	}
	h := ike.Header{Exchange: typ, MessageID: s.nextID}
	b, err := s.keys.Seal(true, h, payloads)
	if err != nil {
		return ike.Message{}, err
	}
	s.nextID++
	s.pending = b
	var answer ike.Message
	err = s.link.roundTrip(ctx, append(before, b), func(b []byte) bool {
		m, ok := s.receive(b)
		if !ok {
			return !s.keepsSA()
		}
		if m.MessageID != h.MessageID || m.Exchange != h.Exchange {
			return false
		}
		answer = m
		return true
	})
	if err == nil && answer.Exchange == 0 {
		err = errGone
	}
	if err == nil {
		s.pending = nil
	}
	return answer, err
}

// keepsSA reports whether the peer has not deleted the IKE SA.
func (s *session) keepsSA() bool { return !s.peer.deleted }

// receive opens a message of the SA. It returns responses of the peer, and
// deals with its requests by itself.
func (s *session) receive(b []byte) (ike.Message, bool) {
	h, err := ike.ParseHeader(b)
	// What the peer sends as the SA's responder has no Initiator flag; with
	// it, it is ours, reflected.
	if err != nil || h.SPIi != s.spii || h.SPIr != s.spir || h.Version.Major() != ike.V2.Major() || h.Flags&ike.FlagInitiator != 0 {
		return ike.Message{}, false
	}
	var m ike.Message
	if h.NextPayload == ike.PayloadFragment {
		m, err = s.parts.add(s.keys, h, b)
	} else {
		m, err = s.keys.Open(b)
	}
	if err != nil {
		return ike.Message{}, false // forged, or incomplete
	}
	if m.Flags&ike.FlagResponse == 0 {
		s.answer(m)
		return ike.Message{}, false
	}
	return m, true
}

// peerRequests is what the peer asked of us so far.
type peerRequests struct {
	next    uint32 // message ID
	last    []byte // our answer to the one before
	deleted bool   // it deleted the IKE SA
}

// answer answers a request of the peer: a liveness check or a DELETE by an
// empty message (RFC 7296 section 1.4). It ignores other requests, which are
// for SAs that are about to end.
func (s *session) answer(m ike.Message) {
	p := &s.peer
	switch {
	case m.Exchange != ike.Informational:
		return
	case m.MessageID == p.next:
	case m.MessageID+1 == p.next && p.last != nil: // a retransmission
		s.link.send(p.last)
		return
	default:
		return
	}
	b, err := s.keys.Seal(true, ike.Header{Exchange: ike.Informational, Flags: ike.FlagResponse, MessageID: m.MessageID}, nil)
	if err != nil {
		return
	}
	p.next, p.last = m.MessageID+1, b
	s.link.send(b)
	for _, payload := range m.Payloads {
		if payload.Type != ike.PayloadDelete {
			continue
		}
		if d, err := ike.ParseDelete(payload.Body); err == nil && d.Protocol == ike.ProtocolIKE {
			p.deleted = true
		}
	}
}

// fragments collects the parts of one message of the peer (RFC 7383).
type fragments struct {
	of   ike.Header // its flags, exchange and message ID
	list [][]byte
}

// maxFragments is far more than the largest message that a peer needs, which
// is one with a chain of certificates.
const maxFragments = 128

// add opens the message that b is the last missing fragment of.
func (f *fragments) add(keys *ikecrypto.Keys, h ike.Header, b []byte) (ike.Message, error) {
	m, err := keys.OpenFragments([][]byte{b})
	if !errors.Is(err, ikecrypto.ErrIncomplete) {
		return m, err // whole by itself, or forged
	}
	of := ike.Header{Exchange: h.Exchange, Flags: h.Flags, MessageID: h.MessageID}
	if f.of != of || len(f.list) == maxFragments {
		*f = fragments{of: of}
	}
	f.list = append(f.list, b)
	return keys.OpenFragments(f.list)
}

// newSPI returns a random SPI. It cannot be zero, which IKE has another use
// for.
func newSPI() ike.SPI {
	var spi ike.SPI
	rand.Read(spi[:]) // never fails
	spi[0] |= 1
	return spi
}

// refusal returns a message's first error notification (RFC 7296 section
// 3.10.1), and false when it has none.
func refusal(m ike.Message) (ike.Notify, bool) {
	const firstStatus = 16384
	for _, p := range m.Payloads {
		if p.Type != ike.PayloadNotify {
			continue
		}
		if n, err := ike.ParseNotify(p.Body); err == nil && n.Type < firstStatus {
			return n, true
		}
	}
	return ike.Notify{}, false
}

// notify returns a message's first notification of a type.
func notify(m ike.Message, t ike.NotifyType) (ike.Notify, bool) {
	for _, p := range m.Payloads {
		if p.Type != ike.PayloadNotify {
			continue
		}
		if n, err := ike.ParseNotify(p.Body); err == nil && n.Type == t {
			return n, true
		}
	}
	return ike.Notify{}, false
}
