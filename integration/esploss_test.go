//go:build linux

package integration

import (
	"math"
	"testing"
	"time"

	"vpnprobe/internal/lab"
)

// edge is how many packets the counts of two observers may differ by that did
// not begin and end with the same packet.
const edge = 4

// impairments are what real ESP suffers, in both directions at a time.
var impairments = []struct {
	name      string
	spec      string // for netem
	loss      float64
	reordered bool
	mode      string // of the capture
}{
	{name: "loss_1", spec: "loss 1%", loss: 0.01, mode: "ring"},
	{name: "loss_5", spec: "loss 5%", loss: 0.05, mode: "bpf"},
	{name: "loss_20", spec: "loss 20%", loss: 0.2, mode: "ring"},
	{name: "duplication", spec: "duplicate 5%", mode: "bpf"},
	{name: "reordering", spec: "delay 15ms reorder 5%", reordered: true, mode: "ring"},
	{name: "everything", spec: "delay 15ms reorder 5% loss 5% duplicate 2%", loss: 0.05, reordered: true, mode: "bpf"},
}

// TestESPLoss has netem impair real ESP, and compares what the agent, netem,
// the kernel's own associations and tcpdump count of it.
func TestESPLoss(t *testing.T) {
	t.Parallel()
	const packets, rate = 2000, 500
	lab.Run(t, "netem", lab.Config{}, func(l *lab.Lab) {
		t := l.T()
		l.Establish()
		for _, c := range impairments {
			l.Declared.Capture = c.mode
			rec := l.A.Record("wan", c.name+".pcap")
			in, out := meter(l.ISP.ImpairESP("to-a", c.spec), l.B, l.A), meter(l.ISP.ImpairESP("to-b", c.spec), l.A, l.B)
			look := l.Look(8 * time.Second)
			back := l.Stream(lab.Stream{From: l.LanB, To: l.LanA, Packets: packets, Rate: rate})
			there := l.Stream(lab.Stream{Packets: packets, Rate: rate})
			back()
			there()
			report := look()
			rec.Stop()
			incoming, outgoing := in(), out()

			failed := false
			errorf := func(format string, args ...any) {
				failed = true
				t.Errorf(c.name+": "+format, args...)
			}
			near := func(what string, got, want int) {
				t.Helper()
				if got < want-edge || got > want+edge {
					errorf("%s: %d, want %d", what, got, want)
				}
			}
			// What was done is what was asked for, by netem and by the kernels.
			for direction, m := range map[string]metered{"in": incoming, "out": outgoing} {
				near(direction+": netem's loss by the kernel", m.lost, m.netem.Dropped)
				near(direction+": netem's duplicates by the kernel", m.duplicates, m.netem.Passed+m.netem.Dropped-m.sent)
				if n := float64(m.sent); math.Abs(float64(m.netem.Dropped)-c.loss*n) > 5*math.Sqrt(c.loss*(1-c.loss)*n) || m.sent < packets {
					errorf("%s: netem dropped %d of %d, asked for %v", direction, m.netem.Dropped, m.sent, c.loss)
				}
			}
			numbers := inOrder(rec.Numbers(l.B.Address))
			if c.reordered != (numbers.reordered > packets/100) {
				errorf("%d packets came late: this lab is not what the case says", numbers.reordered)
			}
			// What the agent says of it.
			capture := report.Evidence.Capture
			if string(capture.Mode) != c.mode || capture.Dropped != 0 {
				errorf("the capture's mode is %s: %s; dropped %d", capture.Mode, capture.Reason, capture.Dropped)
			}
			seen := capture.In.Sequence
			near("lost in", int(seen.Lost), incoming.lost)
			near("duplicated in", int(seen.Duplicates), incoming.duplicates)
			near("reordered in", int(seen.Reordered), numbers.reordered)
			near("depth in", int(seen.Depth), numbers.depth)
			if o := capture.Out.Sequence; o.Lost != 0 || o.Duplicates != 0 || o.Reordered != 0 || o.Expected < packets {
				errorf("what happens farther on is seen here: out %+v", o)
			}
			t.Logf("%s: in %+v, out %+v, late %+v; agent (%s) in %+v", c.name, incoming, outgoing, numbers, capture.Mode, seen)
			if failed {
				t.Logf("%s", report.Raw)
			}
		}
	})
}

// metered is what one direction suffered, by those who take part.
type metered struct {
	sent       int // by the sender's kernel
	netem      lab.Impaired
	lost       int // by the receiver's kernel
	duplicates int // received again; one out of the window is not sure to be one
}

// meter begins to count, and returns a function that ends the impairment and
// tells what it did.
func meter(netem *lab.Impairment, sender, receiver *lab.Gateway) func() metered {
	sent, in := sender.Outbound(), receiver.Inbound()
	return func() metered {
		sentNow, inNow := sender.Outbound(), receiver.Inbound()
		m := metered{sent: int(sentNow.Sequence - sent.Sequence), netem: netem.Counts(), duplicates: inNow.Replayed - in.Replayed}
		m.lost = int(inNow.Sequence-in.Sequence) - (inNow.Packets - in.Packets) - (inNow.Late - in.Late)
		netem.Heal()
		return m
	}
}

// order is what a list of sequence numbers tells.
type order struct {
	reordered, depth int
}

// inOrder counts the numbers that came after a higher one, by SPI, without
// those that came before.
func inOrder(bySPI map[string][]uint32) order {
	var o order
	for _, numbers := range bySPI {
		had := map[uint32]bool{}
		highest := uint32(0)
		for _, n := range numbers {
			if n < highest && !had[n] {
				o.reordered++
				o.depth = max(o.depth, int(highest-n))
			}
			had[n] = true
			highest = max(highest, n)
		}
	}
	return o
}
