//go:build linux

package integration

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"vpnprobe/internal/lab"
)

// one makes a case of one fault.
func one(fault func(l *lab.Lab) *lab.Fault) func(l *lab.Lab) []*lab.Fault {
	return func(l *lab.Lab) []*lab.Fault { return []*lab.Fault{fault(l)} }
}

// narrow is a link of the provider that says what it takes.
func narrow(mtu int) func(l *lab.Lab) []*lab.Fault {
	return one(func(l *lab.Lab) *lab.Fault { return l.PathMTU(mtu) })
}

// silent is a link of the provider of which nobody tells what it takes.
func silent(mtu int) func(l *lab.Lab) []*lab.Fault {
	return func(l *lab.Lab) []*lab.Fault {
		return []*lab.Fault{l.ISP.Drop("OUTPUT", l.TooBig()), l.PathMTU(mtu)}
	}
}

// tells proves that too large packets between the gateways are refused by the
// ISP's router, and those of the size not.
func tells(mtu int) func(l *lab.Lab) {
	return func(l *lab.Lab) {
		passes(l, lab.Ping{From: l.A.Node, To: l.Peer(), Size: mtu})
		if said := (lab.Ping{From: l.A.Node, To: l.Peer(), Size: mtu + 1}).Refused(); !strings.Contains(said, fmt.Sprint(mtu)) {
			l.T().Errorf("%d bytes are answered with %q: this lab is not what the case says", mtu+1, said)
		}
		l.ForgetSizes()
	}
}

// vanish proves that pings between two nodes of more than size bytes vanish, and
// those of the size not.
func vanish(ping func(l *lab.Lab) lab.Ping, size int) func(l *lab.Lab) {
	return func(l *lab.Lab) {
		p := ping(l)
		p.Size = size
		passes(l, p)
		if p.Size++; !p.Lost() || p.Refused() != "" {
			l.T().Errorf("%d bytes do not vanish: this lab is not what the case says", p.Size)
		}
	}
}

func passes(l *lab.Lab, p lab.Ping) {
	l.T().Helper()
	if !p.Passes() {
		l.T().Errorf("%d bytes do not pass: this lab is not what the case says", p.Size)
	}
}

func outside(l *lab.Lab) lab.Ping { return lab.Ping{From: l.A.Node, To: l.Peer()} }
func inside(l *lab.Lab) lab.Ping  { return lab.Ping{From: l.LanA, To: lab.LanBHost} }

var recommended = regexp.MustCompile(`MSS of at most (\d+)`)

// recommendation checks that TCP passes with the MSS that the agent tells to
// clamp to, and that it asks for no larger one then.
func recommendation(l *lab.Lab, r *lab.Report) {
	t := l.T()
	t.Helper()
	mss := recommends(r)
	if mss == 0 {
		t.Error("no MSS is recommended")
		return
	}
	clamp := l.A.ClampMSS(mss)
	defer clamp.Heal()
	if moved := l.Transfer(transfer); !moved.Completed {
		t.Errorf("TCP with an MSS of %d bytes: %v", mss, moved)
	}
	// A search that has to end early may find less to pass.
	if again := recommends(l.Probe(sizeFlags...)); again >= mss {
		t.Errorf("with the MSS clamped to %d bytes, one of %d is recommended", mss, again)
	}
}

// recommends returns the MSS that the agent tells to clamp to, or 0.
func recommends(r *lab.Report) int {
	f := r.Finding("mss_not_clamped")
	if f == nil {
		return 0
	}
	match := recommended.FindStringSubmatch(strings.Join(f.Evidence, "\n"))
	if match == nil {
		return 0
	}
	mss, _ := strconv.Atoi(match[1])
	return mss
}
