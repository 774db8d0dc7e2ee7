package agent

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"vpnprobe/diagnosis"
	"vpnprobe/evidence"
	"vpnprobe/internal/budget"
	"vpnprobe/internal/rawconn"
	"vpnprobe/probe/ladder"
)

const (
	// daemonPatience is how long an exchange that may leave a half-open SA
	// waits for the local daemon to end a negotiation of its own.
	daemonPatience = 3 * time.Second

	// ladderTail is left of an on-demand run after the ladder, for its result.
	ladderTail = 300 * time.Millisecond
)

// climb runs the probe ladder: once in an on-demand run; in the daemon
// whenever the peer has had a problem for two intervals, and rarely again
// while it lasts. A declared tunnel that is not up counts as one: nothing else
// tells whether it could be.
func (p *peer) climb(ctx context.Context, a netip.Addr) error {
	if p.pace.ladder == 0 {
		if end, ok := ctx.Deadline(); ok {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadline(ctx, end.Add(-ladderTail))
			defer cancel()
		}
		p.runLadder(ctx, a)
		<-ctx.Done()
		return nil
	}
	bad := 0
	for sleep(ctx, p.pace.beat) {
		switch r := p.report(); {
		case r.Diagnosis() == diagnosis.OK && p.state.holdsSA():
			bad = 0
			p.state.setLadder(evidence.Ladder{})
			continue
		case r.Diagnosis() == diagnosis.OK && len(p.state.declared.IKEProposals) > 0:
			// Nothing shows a fault, and nothing that the peer would agree.
		case r.Diagnosis() != diagnosis.Undecided && r.Severity() == diagnosis.Info:
			continue
		}
		if bad++; bad < 2 || !p.state.ladderDue(p.pace.ladder) {
			continue
		}
		p.runLadder(ctx, a)
	}
	return nil
}

// runLadder asks the peer and keeps what it said.
func (p *peer) runLadder(ctx context.Context, a netip.Addr) {
	g := &gate{env: p.env, peer: a}
	g.source, g.cannot = p.sourceTo(a)
	key := budget.Key{Source: g.source, Peer: a, Kind: budget.HalfOpen}
	cfg := ladder.Config{
		Target: a, Source: p.cfg.Source, Ports: p.env.IKEPorts,
		Version: p.cfg.IKE.Version, Mode: p.cfg.IKE.Mode, Proposals: p.state.declared.IKEProposals,
		LocalID: p.cfg.IKE.LocalID, RemoteID: p.cfg.IKE.RemoteID,
		Stateful: true, Previous: p.env.lastAnswers(key),
	}
	l := ladder.Run(ctx, cfg, g)
	p.state.setLadder(l)
	p.env.sub.ObserveLadder(p.cfg.Name, l)
	if l.CannotLook != "" {
		p.log.Warn("cannot look", "task", "ladder", "err", l.CannotLook)
	}
	if p.env.Budget == nil {
		return
	}
	for _, x := range l.Exchanges {
		if x.Step.LeavesState() && !x.Reused && x.Outcome == evidence.IKEAnswered {
			if err := p.env.Budget.Save(key, l); err != nil {
				p.log.Warn("cannot keep the answers for the next run", "err", err)
			}
			return
		}
	}
}

// lastAnswers returns the ladder of an earlier run whose budgeted exchanges
// cannot be asked again yet; nil when there is none.
func (e *Env) lastAnswers(key budget.Key) *evidence.Ladder {
	if e.Budget == nil {
		return nil
	}
	var l evidence.Ladder
	if saved, err := e.Budget.Load(key, &l); err != nil || time.Since(saved) > budget.HoldHalfOpen {
		return nil
	}
	return &l
}

// sourceTo is the address that requests to a carry, or why it is not known.
func (p *peer) sourceTo(a netip.Addr) (netip.Addr, error) {
	if p.cfg.Source.IsValid() {
		return p.cfg.Source.Unmap(), nil
	}
	path, err := rawconn.LookUpPath(a, rawconn.Options{})
	return path.Source, err
}

// gate keeps the budget of what may leave a half-open SA at the peer.
type gate struct {
	env          *Env
	source, peer netip.Addr
	cannot       error // why the source is not known
}

// Admit implements [ladder.Gate].
func (g *gate) Admit(ctx context.Context, step evidence.LadderStep) (ladder.Permit, *evidence.SkippedStep) {
	skip := func(r evidence.SkipReason, detail string) (ladder.Permit, *evidence.SkippedStep) {
		return nil, &evidence.SkippedStep{Step: step, Reason: r, Detail: detail}
	}
	if g.cannot != nil {
		return skip(evidence.SkipNoState, g.cannot.Error())
	}
	if g.env.Budget == nil {
		return skip(evidence.SkipNoState, g.env.BudgetErr)
	}
	if who := g.env.awaitQuiet(ctx, g.peer); who != "" {
		return skip(evidence.SkipNegotiating, who)
	}
	slot, err := g.env.Budget.Reserve(budget.Key{Source: g.source, Peer: g.peer, Kind: budget.HalfOpen}, budget.HoldHalfOpen)
	if spent := (*budget.SpentError)(nil); errors.As(err, &spent) {
		_, s := skip(evidence.SkipBudget, "")
		s.Until = evidence.Some(spent.Until)
		return nil, s
	}
	if err != nil {
		return skip(evidence.SkipNoState, err.Error())
	}
	return slot, nil
}

// awaitQuiet waits a little until no local daemon negotiates with the peer,
// and says which still does, or which cannot be asked and so may.
func (e *Env) awaitQuiet(ctx context.Context, peer netip.Addr) string {
	for until := time.Now().Add(daemonPatience); ; {
		busy := e.negotiating(ctx, peer)
		if busy == "" || time.Now().After(until) || !sleep(ctx, 300*time.Millisecond) {
			return busy
		}
	}
}

func (e *Env) negotiating(ctx context.Context, peer netip.Addr) string {
	daemons, err := e.daemons(ctx)
	for _, d := range daemons {
		s, failed := d.Status(ctx, peer)
		if failed != nil {
			err = failed
		}
		if s.Negotiating {
			return d.Name() + " on this host is negotiating with the peer"
		}
	}
	if err != nil {
		return "an IKE daemon of this host may be negotiating with the peer: " + err.Error()
	}
	return ""
}
