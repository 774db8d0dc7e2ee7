package agent

import (
	"fmt"
	"time"

	"vpnprobe/evidence"
)

// statusEvery is the time between two lines on how it stands, and the least that
// each is on.
const statusEvery = 10 * time.Second

// tell says now and then how it stands, so that who follows a capture sees that
// it is read.
func (a *analysis) tell(now time.Time) {
	if a.Status == nil || now.Sub(a.told) < statusEvery {
		return
	}
	a.told = now
	to := a.read()
	from, ok := a.end.before(to.at, statusEvery)
	if !ok {
		from = a.asked(to.at)
	}
	c := to.counts[0].Since(from.counts[0], evidence.Unknown)
	line := fmt.Sprintf("%s %s: in the last %.0f s %s in, %s out", to.at.UTC().Format("2006-01-02 15:04:05Z"),
		orNone(string(a.label)), c.Over.Duration().Seconds(), passed(c.In), passed(c.Out))
	if idle := now.Sub(a.came); idle >= statusEvery {
		line += fmt.Sprintf("; nothing came for %.0f s since", idle.Seconds())
	}
	a.Status(line)
}

func orNone(label string) string {
	if label == "" {
		return "no diagnosis yet"
	}
	return label
}

// passed says what passed in one direction.
func passed(t evidence.WireTraffic) string {
	encrypted := encrypted(t)
	s := fmt.Sprintf("%d ESP", encrypted.Packets)
	if t.AH.Packets > 0 {
		s = fmt.Sprintf("%d ESP and AH", encrypted.Packets)
	}
	if t.Sequence.Lost > 0 {
		s += fmt.Sprintf(" (%d missing)", t.Sequence.Lost)
	}
	var ike uint64
	for _, n := range t.IKE {
		ike += n
	}
	if ike > 0 {
		s += fmt.Sprintf(" and %d IKE", ike)
	}
	return s
}
