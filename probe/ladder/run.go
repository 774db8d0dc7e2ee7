package ladder

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/ikecrypto"
	"vpnprobe/internal/wire/ike"
)

// The ports of IKE and of IKE behind NAT (RFC 7296 section 2, RFC 3948).
const (
	portIKE  = 500
	portNATT = 4500
)

// maxRequests bounds a run, whatever the peer answers, and maxOracle what it
// asks before the complete messages that confirm the answers. A peer that
// refuses three attributes at once takes about thirty.
const (
	maxRequests = 40
	maxOracle   = 34
)

// asker sends a request and returns the first answer. See
// [vpnprobe/probe.IKEClient], whose tests are where datagrams are looked at.
type asker interface {
	Ask(ctx context.Context, port uint16, message []byte, waits ...time.Duration) (evidence.IKEExchange, []byte, error)
	Local() netip.AddrPort
	Remote(port uint16) netip.AddrPort
}

// run is one climb of the ladder.
type run struct {
	cfg      Config
	conn     asker
	gate     Gate
	declared []offer
	left     []string          // the declared proposals that cannot be offered
	publics  map[string][]byte // a public value per group, each used again: no key is ever made of it

	out      evidence.Ladder
	port     uint16 // on which to ask: the first that answered
	requests int
	next     time.Time           // when the next request may be sent
	rtt      time.Duration       // the longest so far
	answered bool                // anything was
	halted   evidence.SkipReason // why nothing is asked any more
	detail   string

	// deaf is set once the peer has not refused a KE payload of a wrong group
	// as it should, and so cannot be asked without leaving state.
	deaf bool
	// suits is what the peer is expected to take, in the group that it wants.
	suits []offer
	// taken is set once the peer has accepted an IKE_SA_INIT: one is enough.
	taken bool
}

func newRun(cfg Config, conn asker, gate Gate) *run {
	r := &run{
		cfg: cfg, conn: conn, gate: gate, port: portIKE,
		publics: make(map[string][]byte),
	}
	r.declared, r.left = parseOffers(cfg.Proposals, cfg.Version)
	// Empty lists, so that they are no null in JSON.
	r.out = evidence.Ladder{
		Time: evidence.Some(time.Now()), Exchanges: []evidence.IKEExchange{}, Skipped: []evidence.SkippedStep{},
		Mismatches: []evidence.Mismatch{}, Large: []evidence.LargeIKE{},
		Features: evidence.IKEFeatures{VendorIDs: []string{}},
	}
	if a := conn.Local().Addr(); a.IsValid() && !a.IsUnspecified() {
		r.out.Local = evidence.Some(a)
	}
	if len(r.left) > 0 {
		step := evidence.StepDeclared
		if cfg.Version == 1 {
			step = r.modes()[0].declared
		}
		r.skip(evidence.SkippedStep{Step: step, Reason: evidence.SkipUnsupported, Detail: strings.Join(r.left, ",")})
	}
	return r
}

// ask takes one step. It returns false, and has noted why, when it was not
// possible.
func (r *run) ask(ctx context.Context, q request) (answer, bool) {
	if !r.mayAsk(ctx, q.step) {
		return answer{}, false
	}
	var permit Permit
	if q.step.LeavesState() {
		var reused answer
		var ok bool
		if permit, reused, ok = r.admit(ctx, q); !ok {
			return reused, reused.Reused
		}
	}
	return r.send(ctx, q, permit)
}

// mayAsk reports whether anything may be asked still, and else notes that a
// step is skipped.
func (r *run) mayAsk(ctx context.Context, step evidence.LadderStep) bool {
	switch {
	case r.halted != "":
	case ctx.Err() != nil:
		r.halted = evidence.SkipTime
	case step == evidence.StepBisect && r.requests >= maxOracle:
		r.skip(evidence.SkippedStep{Step: step, Reason: evidence.SkipTime, Detail: tooMany})
		return false
	case r.requests >= maxRequests:
		r.halted, r.detail = evidence.SkipTime, tooMany
	default:
		return true
	}
	r.skip(evidence.SkippedStep{Step: step, Reason: r.halted, Detail: r.detail})
	return false
}

const tooMany = "the peer's answers led to more requests than are sent in one run"

// send sends a request that may be sent.
func (r *run) send(ctx context.Context, q request, permit Permit) (answer, bool) {
	ex, raw, err := r.paced(ctx, r.port, q.message, r.patience()...)
	r.requests++
	if err != nil {
		if ctx.Err() != nil {
			r.halted = evidence.SkipTime
		} else {
			r.halted, r.detail, r.out.CannotLook = evidence.SkipTime, err.Error(), err.Error()
		}
		r.skip(evidence.SkippedStep{Step: q.step, Reason: r.halted, Detail: r.detail})
		return answer{}, false
	}
	a := judge(q, ex, raw)
	r.out.Exchanges = append(r.out.Exchanges, a.IKEExchange)
	r.answered = r.answered || a.Outcome == evidence.IKEAnswered
	switch {
	case a.Answer == evidence.AnswerCookie:
		// It is short of room for half-open SAs: no more of them, nor of
		// what it may take for them.
		r.out.Cookie, r.halted = true, evidence.SkipCookie
	case a.Answer == evidence.AnswerAccepted && permit == nil && r.gate != nil:
		// It must not have accepted that. What it keeps is accounted for.
		r.gate.Admit(ctx, q.step)
	case permit != nil && a.leftNothing():
		permit.Release()
	}
	return a, true
}

// hopeless reports whether nothing can come back from the peer: each request
// was refused on its way, or here.
func (r *run) hopeless() bool {
	return len(r.out.Exchanges) > 0 && !slices.ContainsFunc(r.out.Exchanges, func(e evidence.IKEExchange) bool {
		return e.Outcome == evidence.IKEAnswered || e.Outcome == evidence.IKESilent
	})
}

// gap is the least time between two requests, so that a run is no burst, and
// leaves room for the heartbeat at a peer that answers ten in a second.
const gap = 100 * time.Millisecond

// paced sends a request when it is time for it.
func (r *run) paced(ctx context.Context, port uint16, message []byte, waits ...time.Duration) (evidence.IKEExchange, []byte, error) {
	select {
	case <-time.After(time.Until(r.next)):
	case <-ctx.Done():
		return evidence.IKEExchange{}, nil, ctx.Err()
	}
	r.next = time.Now().Add(gap)
	ex, raw, err := r.conn.Ask(ctx, port, message, waits...)
	if rtt, ok := ex.RTT.Get(); ok {
		r.rtt = max(r.rtt, rtt.Duration())
	}
	return ex, raw, err
}

// patience returns how long to wait before each retransmission, and after the
// last. While nothing at all was heard, only the first request has all of it:
// a silent peer would take the time that others may need.
func (r *run) patience() []time.Duration {
	waits := []time.Duration{r.cfg.Timeout / 4, r.cfg.Timeout / 4, r.cfg.Timeout / 2}
	if r.requests > 0 && !r.answered {
		return waits[:2]
	}
	return waits
}

// admit asks the gate for a permit. Without one it returns the previous run's
// answer if that stands in, and false in any case.
func (r *run) admit(ctx context.Context, q request) (Permit, answer, bool) {
	if !r.cfg.Stateful || r.gate == nil {
		r.skip(evidence.SkippedStep{Step: q.step, Reason: evidence.SkipNotOnDemand})
		return nil, answer{}, false
	}
	permit, skipped := r.gate.Admit(ctx, q.step)
	if skipped == nil {
		return permit, answer{}, true
	}
	if skipped.Reason == evidence.SkipBudget {
		if ex, ok := r.previous(q); ok {
			return nil, r.reuse(ex), false
		}
	}
	r.skip(*skipped)
	return nil, answer{}, false
}

// previous returns the earlier run's newest exchange of the same request. What
// is declared may have been corrected in between.
func (r *run) previous(q request) (evidence.IKEExchange, bool) {
	if r.cfg.Previous == nil {
		return evidence.IKEExchange{}, false
	}
	for _, e := range slices.Backward(r.cfg.Previous.Exchanges) {
		if e.Step == q.step && e.Port == r.port && e.Offer == text(q.offers) {
			return e, true
		}
	}
	return evidence.IKEExchange{}, false
}

// reuse takes over an answer that an earlier run was given.
func (r *run) reuse(ex evidence.IKEExchange) answer {
	ex.Reused = true
	a := answer{IKEExchange: ex}
	if ex.Answer == evidence.AnswerAccepted {
		a.chosen, _ = parseOffer(ex.Chosen)
		r.out.Features = r.cfg.Previous.Features
	}
	r.out.Exchanges = append(r.out.Exchanges, ex)
	return a
}

// skip notes a step that is not taken, once.
func (r *run) skip(s evidence.SkippedStep) {
	if !slices.ContainsFunc(r.out.Skipped, func(o evidence.SkippedStep) bool { return o.Step == s.Step }) {
		r.out.Skipped = append(r.out.Skipped, s)
	}
}

// public returns a public value of a group.
func (r *run) public(group string) []byte {
	if b, ok := r.publics[group]; ok {
		return b
	}
	t, _ := ike.TransformOf(group)
	k, err := ikecrypto.NewKeyExchange(t.ID)
	if err != nil {
		return nil
	}
	r.publics[group] = k.Public()
	return r.publics[group]
}
