package capture

import "time"

// budget is what a packet ring on one interface may cost.
type budget struct {
	packets float64       // per second through the interface, both ways
	cpu     float64       // of one core, in the reader
	turn    time.Duration // how often the cost is looked at
}

// affordable is the budget. Each packet that passes the interface costs the
// kernel about 0.3 µs for the copy of its header alone, whether or not the
// filter lets it through, so that 200,000 packets per second are about a
// fifteenth of a core; what is let through costs the reader as much again.
var affordable = budget{packets: 200_000, cpu: 0.10, turn: time.Second}

// The duty cycle of a ring that the host cannot afford: open for listenTurns
// out of every cycleTurns.
const (
	listenTurns = 1
	cycleTurns  = 10
)

// dutyPatience is for how many turns in a row the load must be over the budget
// before the ring is closed for most of the time, and within half of it, while
// the ring is open, before it stays open again.
const dutyPatience = 3

// load is what a ring cost during one turn.
type load struct {
	over    time.Duration // how long the turn took
	packets uint64        // through the interface
	cpu     time.Duration // of the reader
	drops   uint64        // frames that found the ring full
}

// share returns the load as a multiple of a budget: above 1 the host cannot
// afford it. Drops are over any budget.
func (l load) share(b budget) float64 {
	if l.over <= 0 {
		return 0
	}
	s := max(float64(l.packets)/l.over.Seconds()/b.packets,
		l.cpu.Seconds()/l.over.Seconds()/b.cpu)
	if l.drops > 0 {
		s = max(s, 2)
	}
	return s
}

// duty decides turn by turn whether the ring is to be open. At first it is.
type duty struct {
	budget  budget
	cycling bool
	streak  int // turns over the budget, or within half of it
	turn    int // of the cycle
}

// next takes the load of the turn that ends and reports whether the ring is to
// be open during the one that begins. The load of a turn with the ring closed
// is only what passed the interface, which does not say what listening would
// cost: such a turn can keep a ring closed, but not open it.
func (d *duty) next(l load) (listen bool) {
	if !d.cycling {
		if l.share(d.budget) <= 1 {
			d.streak = 0
			return true
		}
		if d.streak++; d.streak < dutyPatience {
			return true
		}
		d.cycling, d.streak, d.turn = true, 0, listenTurns
		return false
	}
	open := d.turn < listenTurns
	if l.share(d.budget) > 0.5 {
		d.streak = 0
	} else if open {
		if d.streak++; d.streak >= dutyPatience {
			d.cycling, d.streak = false, 0
			return true
		}
	}
	d.turn = (d.turn + 1) % cycleTurns
	return d.turn < listenTurns
}
