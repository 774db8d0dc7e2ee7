package hoststate

import (
	"errors"
	"strings"

	"vpnprobe/evidence"
)

// Bounds on what is kept of a firewall's rules: any more makes it unreadable,
// which is honest, where to go on would be slow.
const (
	mostClamps = 256
	mostChains = 1 << 15
	mostJumps  = 1 << 17

	longestName = 256 // bytes: NFT_NAME_MAXLEN
)

var errTooManyRules = errors.New("it has more rules than are read here")

// chains are the chains of one table and what leads into them.
type chains struct {
	byName map[string]*chain
	jumps  []jump
	clamps []placedClamp
	// mapped says that a map of verdicts leads to chains that are not known.
	mapped bool
}

type chain struct {
	// hooked says that packets that this host forwards or sends can get into the
	// chain, and reached which of the tunnel's do.
	hooked  bool
	reached meets
	// base says that the kernel calls it; left which packets get to the next
	// rule, seen from the first.
	base bool
	left meets
}

type jump struct {
	from, to *chain
	meets    meets
}

type placedClamp struct {
	evidence.MSSClamp
	in    *chain
	meets meets
}

// chain returns the chain of that name, or nil when there are too many, or the
// name is longer than any can be.
func (c *chains) chain(name string) *chain {
	if found := c.byName[name]; found != nil {
		return found
	}
	if c.byName == nil {
		c.byName = make(map[string]*chain)
	}
	if len(c.byName) >= mostChains || len(name) > longestName {
		return nil
	}
	made := &chain{reached: none(), left: all()}
	c.byName[strings.Clone(name)] = made // and not the rule around it
	return made
}

// rule adds one rule: a clamp or none, then where it sends packets.
func (c *chains) rule(in *chain, m meets, clamp *evidence.MSSClamp, then verdict) error {
	m = m.and(in.left)
	if clamp != nil {
		if len(c.clamps) >= mostClamps {
			return errTooManyRules
		}
		c.clamps = append(c.clamps, placedClamp{*clamp, in, m})
	}
	if then.chain != "" {
		to := c.chain(then.chain)
		if to == nil || len(c.jumps) >= mostJumps {
			return errTooManyRules
		}
		c.jumps = append(c.jumps, jump{in, to, m})
	}
	if then.ends {
		// Packets that surely match go no further; those that may, may.
		for f := range in.left {
			for d := range in.left[f] {
				if m[f][d] == evidence.Yes {
					in.left[f][d] = evidence.No
				}
			}
		}
	}
	return nil
}

// verdict is what becomes of a packet that a rule matched.
type verdict struct {
	chain string // it goes on in this chain
	ends  bool   // it does not come to the next rule of this chain
}

// results judges the clamps, and leaves out those that nothing leads to.
func (c *chains) results(f *flows) []evidence.MSSClamp {
	if c.mapped {
		for _, to := range c.byName {
			if !to.base {
				to.hooked, to.reached = true, perhaps()
			}
		}
	}
	// Each round takes a packet one jump further. Linux allows no loops and 16
	// jumps on end (NFT_JUMP_STACK_SIZE); iptables has no such limit, but deeper
	// nesting than this is not in use.
	for range 64 {
		changed := false
		for _, j := range c.jumps {
			if !j.from.hooked {
				continue
			}
			reached := j.to.reached.or(j.from.reached.and(j.meets))
			if !j.to.hooked || reached != j.to.reached {
				j.to.hooked, j.to.reached, changed = true, reached, true
			}
		}
		if !changed {
			break
		}
	}
	out := []evidence.MSSClamp{}
	for _, p := range c.clamps {
		if !p.in.hooked {
			continue
		}
		m := p.in.reached.and(p.meets)
		p.Covers = m.covers(f)
		if p.Covers != evidence.No {
			// Of the families, keep those of which that is true.
			p.V4 = p.V4 && (!f.uses(false) || m.of(ipv4) == p.Covers)
			p.V6 = p.V6 && (!f.uses(true) || m.of(ipv6) == p.Covers)
		}
		out = append(out, p.MSSClamp)
	}
	return out
}

// hookKind is where the kernel calls a chain.
type hookKind uint8

// The kinds of hooks.
const (
	hookNone    hookKind = iota // only rules lead there
	hookOther                   // to the host itself
	hookForward                 // before, at and behind forwarding
	hookOutput                  // what this host sends itself
	hookDevice                  // one device's
)

// hookAt makes a chain one of the kind, in the families that m has.
func (c *chain) hookAt(kind hookKind, m meets, f *flows) {
	c.base = kind != hookNone
	switch kind {
	case hookForward:
		c.hooked, c.reached = true, m
	case hookOutput:
		if !f.hosts() {
			m = none()
		}
		c.hooked, c.reached = true, m
	case hookDevice:
		c.hooked, c.reached = true, m.and(perhaps())
	}
}
