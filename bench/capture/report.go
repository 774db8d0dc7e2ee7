package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"
)

// report is all that was measured.
type report struct {
	methods  []method // without nothing
	rounds   int
	duration time.Duration
	rate     float64  // of the paced scene
	idle     []result // nothing, at full speed
	full     map[method][]result
	paced    map[method][]result
	forward  [2]map[method][]pair
	inside   [2][]result        // of eBPF
	holds    map[method]float64 // the highest of the rates tried without a packet missed, per second
	errors   []string           // what was counted wrong
}

// pair is a measurement with a method, and one with nothing right before it:
// what else there is to slow a core down changes from second to second.
type pair struct{ without, with result }

// added is what the method adds to the core that forwards, per packet, in ns.
func (p pair) added() float64 { return p.with.core() - p.without.core() }

// Indexes of forward.
const (
	in = iota
	out
)

// lower are the rates that are tried where packets are missed at the paced one.
var lower = []float64{250_000, 100_000, 50_000, 25_000, 10_000}

// all measures everything, method after method in each round. In each, a
// forwarding gateway is measured several times, for a part of the time d.
func (b *bench) all(ctx context.Context, methods []method, rate float64, d time.Duration, rounds, pairs int) (*report, error) {
	r := &report{
		methods: methods, rounds: rounds, duration: d, rate: rate,
		full: map[method][]result{}, paced: map[method][]result{}, holds: map[method]float64{},
		forward: [2]map[method][]pair{{}, {}},
	}
	var err error // the first
	measure := func(m method, s scene) (x result) {
		if err != nil {
			return x
		}
		for range 3 {
			if x, err = b.measure(ctx, m, s); err != nil {
				return x
			}
			if !x.starved(s) {
				break
			}
		}
		if wrong := x.wrong(m); wrong != nil {
			r.errors = append(r.errors, fmt.Sprintf("%s, %s: %v", s.name, m, wrong))
		}
		return x
	}
	for round := range rounds {
		r.idle = append(r.idle, measure(nothing, scene{"full speed", 0, dropped, d, false}))
		for i := range methods {
			m := methods[(i+round)%len(methods)] // none is always the first
			if m == inBPF {
				r.inside[in] = append(r.inside[in], measure(m, scene{"inside, in", 0, inward, d / 2, true}))
				r.inside[out] = append(r.inside[out], measure(m, scene{"inside, out", 0, outward, d / 2, true}))
			}
			r.full[m] = append(r.full[m], measure(m, scene{"full speed", 0, dropped, d, false}))
			r.paced[m] = append(r.paced[m], measure(m, scene{"paced", rate, dropped, d, false}))
			for i := range 2 * pairs {
				s := scene{"forwarded in", 0, inward, d / time.Duration(pairs), false}
				if i%2 == out {
					s = scene{"forwarded out", 0, outward, d / time.Duration(pairs), false}
				}
				r.forward[i%2][m] = append(r.forward[i%2][m], pair{measure(nothing, s), measure(m, s)})
			}
		}
	}
	for _, m := range methods {
		switch {
		case missed(r.full[m]) == 0:
			r.holds[m] = over(r.full[m], result.rate).median
		case missed(r.paced[m]) == 0:
			r.holds[m] = over(r.paced[m], result.rate).median
		default:
			for _, rate := range lower {
				if x := measure(m, scene{"lower rate", rate, dropped, d, false}); err == nil && x.missed() == 0 {
					r.holds[m] = x.rate()
					break
				}
			}
		}
	}
	return r, err
}

// spread is what several rounds gave.
type spread struct{ low, median, high float64 }

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{math.NaN(), math.NaN(), math.NaN()}
	}
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	return spread{v[0], (v[(n-1)/2] + v[n/2]) / 2, v[n-1]}
}

func (s spread) text(format string, unit float64) string {
	return fmt.Sprintf(format+" ("+format+" to "+format+")", s.median/unit, s.low/unit, s.high/unit)
}

func over[T any](list []T, f func(T) float64) spread {
	var v []float64
	for _, x := range list {
		v = append(v, f(x))
	}
	return spreadOf(v)
}

// added is what a method adds to the core that forwards, per packet, in ns.
func (r *report) added(direction int, m method) spread {
	return over(r.forward[direction][m], pair.added)
}

// both is what a packet in and a packet out take longer.
func (r *report) both(m method) float64 { return r.added(in, m).median + r.added(out, m).median }

// missed is how many packets of all rounds a method did not see.
func missed(list []result) (n uint64) {
	for _, x := range list {
		n += x.missed()
	}
	return n
}

func missedShare(list []result) float64 {
	var all uint64
	for _, x := range list {
		all += x.sent.packets
	}
	return float64(missed(list)) / float64(max(all, 1))
}

// with returns the measurements of a method on a forwarding gateway.
func (r *report) with(m method) (list []result) {
	for _, direction := range r.forward {
		for _, p := range direction[m] {
			list = append(list, p.with)
		}
	}
	return list
}

// results returns all measurements.
func (r *report) results() []result {
	list := slices.Clone(r.idle)
	for _, m := range r.methods {
		list = slices.Concat(list, r.full[m], r.paced[m], r.with(m))
		for _, direction := range r.forward {
			for _, p := range direction[m] {
				list = append(list, p.without)
			}
		}
	}
	return list
}

// target is one of what the capture has to reach.
type target struct {
	what string
	have string
	met  bool
}

func (r *report) targets() (list []target) {
	add := func(met bool, what, have string, args ...any) {
		list = append(list, target{what, fmt.Sprintf(have, args...), met})
	}
	has := func(m method) bool { return slices.Contains(r.methods, m) }
	cpu := func(m method) float64 { return over(r.paced[m], result.perPacket).median }
	for _, m := range []method{inBPF, inRing} {
		if !has(m) {
			continue
		}
		n, rate := missed(r.paced[m]), over(r.paced[m], result.rate).median
		add(n == 0 && rate > 0.95*r.rate, fmt.Sprintf("%s: no drop at %.0f kpps", m, r.rate/1000),
			"%d missed at %.0f kpps", n, rate/1000)
	}
	if has(inRing) && has(byDump) {
		add(cpu(inRing) <= cpu(byDump), "ring: CPU per packet at or below tcpdump's", "%.2f of it", cpu(inRing)/cpu(byDump))
	}
	if has(inBPF) && has(byDump) {
		add(10*cpu(inBPF) <= cpu(byDump), "eBPF: CPU per packet at most a tenth of tcpdump's", "1/%.0f of it", cpu(byDump)/cpu(inBPF))
	}
	if has(inBPF) {
		both := r.both(inBPF)
		add(both <= 150, "eBPF: a packet in and one out at most 150 ns more to forward", "%.0f ns", both)
	}
	return list
}

func (r *report) met() bool {
	return !slices.ContainsFunc(r.targets(), func(t target) bool { return !t.met })
}

// print writes the tables in Markdown.
func (r *report) print(w io.Writer) {
	p := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	row := func(cells ...string) { p("| %s |", strings.Join(cells, " | ")) }
	others := over(r.results(), func(x result) float64 { return x.others })
	p("%s; %d rounds of %v, median (lowest to highest). Other processes used %s %% of the machine meanwhile.\n",
		machine(), r.rounds, r.duration, others.text("%.0f", 0.01))

	row("in, dropped behind the tap", "full speed, kpps", "missed there", fmt.Sprintf("missed at %.0f kpps", r.rate/1000),
		"without a drop, kpps", fmt.Sprintf("CPU of the process at %.0f kpps, ns/packet", r.rate/1000), "of tcpdump's")
	row("---", "--:", "--:", "--:", "--:", "--:", "--:")
	row(string(nothing), over(r.idle, result.rate).text("%.0f", 1000), "", "", "", "", "")
	dump := over(r.paced[byDump], result.perPacket).median
	for _, m := range r.methods {
		cpu := over(r.paced[m], result.perPacket)
		ratio := "" // without tcpdump
		if !math.IsNaN(dump) {
			ratio = fmt.Sprintf("%.2f", cpu.median/dump)
		}
		holds := fmt.Sprintf("not even %.0f", lower[len(lower)-1]/1000)
		if rate, ok := r.holds[m]; ok {
			holds = fmt.Sprintf("%.0f", rate/1000)
		}
		row(string(m), over(r.full[m], result.rate).text("%.0f", 1000), percent(missedShare(r.full[m])),
			percent(missedShare(r.paced[m])), holds, cpu.text("%.1f", 1), ratio)
	}
	p("")
	row("forwarded at full speed", "core without, ns/packet in", "out", "added in, ns", "added out, ns", "in and out, ns", "missed")
	row("---", "--:", "--:", "--:", "--:", "--:", "--:")
	for _, m := range r.methods {
		core := func(direction int) string {
			return over(r.forward[direction][m], func(p pair) float64 { return p.without.core() }).text("%.0f", 1)
		}
		row(string(m), core(in), core(out), r.added(in, m).text("%+.0f", 1), r.added(out, m).text("%+.0f", 1),
			fmt.Sprintf("%+.0f", r.both(m)), percent(missedShare(r.with(m))))
	}
	if len(r.inside[in]) > 0 {
		inside := func(direction int) string {
			return over(r.inside[direction], func(x result) float64 { return x.inside }).text("%.0f", 1)
		}
		p("\nBy the kernel's own measure, the eBPF program takes %s ns for a packet in and %s ns for one out, of which some 25 ns are the measuring.",
			inside(in), inside(out))
	}
	p("")
	row("target", "measured", "")
	row("---", "---", "---")
	for _, t := range r.targets() {
		row(t.what, t.have, map[bool]string{true: "met", false: "**missed**"}[t.met])
	}
	slices.Sort(r.errors)
	for _, e := range r.errors {
		p("\nWrong: %s.", e)
	}
}

// percent shows a share; one that is not 0 is never shown as such.
func percent(share float64) string {
	if share == 0 {
		return "0"
	}
	return fmt.Sprintf("%.2g %%", 100*share)
}
