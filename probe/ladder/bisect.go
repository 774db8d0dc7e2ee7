package ladder

import (
	"context"
	"slices"

	"vpnprobe/evidence"
)

// bisection finds the attributes for which a peer refuses the declared
// proposals, where it takes some of all the common ones.
type bisection struct {
	*run
	all      offer  // of which the peer takes some
	group    string // in which it does
	declared []offer
	found    []evidence.Mismatch
	// broken is set when the peer's answers contradict each other, or when it
	// stops answering as it did.
	broken bool
}

// mismatches returns what is found, or nothing if the peer contradicts itself
// or answers no more.
func (b *bisection) mismatches(ctx context.Context) []evidence.Mismatch {
	b.pinSingly(ctx)
	if !b.broken && !b.explained(ctx) && !b.broken {
		b.pinTogether(ctx)
	}
	if b.broken {
		b.mayAsk(ctx, evidence.StepBisect) // if not, says why
		return []evidence.Mismatch{}
	}
	if verdict, _ := b.oracleSays(ctx, evidence.StepDeclared, b.declared); verdict != evidence.No {
		return []evidence.Mismatch{} // its first answer holds no longer, and nothing that was built on it
	}
	return append([]evidence.Mismatch{}, b.found...)
}

// pinSingly narrows one attribute at a time to the declared values.
func (b *bisection) pinSingly(ctx context.Context) {
	declared := union(b.declared...)
	for _, a := range attributes {
		values := declared.values(a)
		if len(values) == 0 {
			continue // the encryption brings its own integrity
		}
		b.pin(ctx, b.all, b.group, a, values)
		if b.broken {
			return
		}
	}
}

// explained reports whether the peer takes the declared proposals with just
// what was found put right.
func (b *bisection) explained(ctx context.Context) bool {
	return len(b.found) > 0 && b.asks(ctx, b.corrected()) != ""
}

// corrected returns the declared proposals with what was found put right.
func (b *bisection) corrected() offer {
	o := union(b.declared...)
	for _, m := range b.found {
		o = o.with(m.Attribute, m.Accepts)
	}
	// What needs integrity, where none is declared, may have any.
	if len(o.integ) == 0 {
		o.integ = b.all.integ
	}
	return o
}

// pinTogether narrows one attribute after the other to the values of the
// preferred proposal, for a peer that takes each of them but not together. The
// first refusal names the attribute.
func (b *bisection) pinTogether(ctx context.Context) {
	base, group := b.all, b.group
	for _, a := range attributes {
		values := b.declared[0].values(a)
		if len(values) == 0 || slices.ContainsFunc(b.found, func(m evidence.Mismatch) bool { return m.Attribute == a }) {
			continue
		}
		if group = b.pin(ctx, base, group, a, values); group == "" {
			return
		}
		base = base.with(a, values)
	}
	// With the rest as declared, it may want another group than at first.
	for i, m := range b.found {
		if m.Attribute == evidence.Group {
			b.found[i].Accepts = []string{group}
		}
	}
}

// pin narrows one attribute of an offer that the peer takes in a group, and
// returns the group in which it takes it then. It notes a mismatch when the
// peer takes it no longer, and returns "".
func (b *bisection) pin(ctx context.Context, base offer, group string, a evidence.Attribute, values []string) string {
	if narrowed := b.asks(ctx, base.with(a, values)); narrowed != "" || b.broken {
		return narrowed
	}
	m := evidence.Mismatch{Attribute: a, Declared: values, Accepts: []string{group}}
	if a != evidence.Group {
		// One group leaves a decoy, and so takes one request for each step.
		m.Accepts = b.find(ctx, base.with(evidence.Group, []string{group}), a, values)
	}
	b.found = append(b.found, m)
	return ""
}

// find halves the values of an attribute, but for those that were refused,
// until one is left that the peer takes: the most common if it takes several.
func (b *bisection) find(ctx context.Context, base offer, a evidence.Attribute, refused []string) []string {
	left := slices.DeleteFunc(slices.Clone(base.values(a)), func(v string) bool { return slices.Contains(refused, v) })
	for seen := false; len(left) > 1 || len(left) == 1 && !seen; {
		half := left[:(len(left)+1)/2]
		seen = b.asks(ctx, base.with(a, half)) != ""
		if seen {
			left = half
		} else {
			left = left[len(half):]
		}
		if b.broken {
			return nil
		}
	}
	b.broken = len(left) == 0 // it took them together, and now none
	return left
}

// asks returns the group in which the peer takes an offer, "" if it does not.
// An answer that is neither ends the bisection.
func (b *bisection) asks(ctx context.Context, o offer) string {
	verdict, group := b.takes(ctx, evidence.StepBisect, o)
	b.broken = b.broken || verdict != evidence.No && group == ""
	return group
}
