//go:build linux

package lab

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"testing"
	"time"
)

// Case is one of several that share a kernel and a network, which takes less
// time than to boot one for each.
type Case struct {
	Name   string
	Config Config
	Body   func(l *Lab)
}

// caseTimeout is what each further case adds to the time that a kernel has.
const caseTimeout = time.Minute

// RunCases runs the cases one after the other, in the same kernel, as subtests
// of the subtest name of t. Their configurations may differ in what the
// gateways are told of the tunnel, and in nothing else. Each case begins with
// IKE daemons just started, no association and an agent that knows nothing:
// as in a lab of its own, but for what it broke and does not mend.
//
// VPNPROBE_LAB_CASE is a regular expression for the names of the cases to run,
// all by default.
func RunCases(t *testing.T, name string, cases []Case) {
	t.Helper()
	wanted, err := regexp.Compile(os.Getenv(envCase))
	if err != nil {
		t.Fatalf("%s: %v", envCase, err)
	}
	cases = slices.DeleteFunc(slices.Clone(cases), func(c Case) bool { return !wanted.MatchString(c.Name) })
	if len(cases) == 0 {
		return
	}
	config := cases[0].Config
	config.Timeout = defaultTimeout + time.Duration(len(cases)-1)*caseTimeout
	Run(t, name, config, func(l *Lab) {
		whole := l.t.(*testing.T)
		for i, c := range cases {
			whole.Run(c.Name, func(t *testing.T) {
				l.t = t
				if i > 0 {
					l.reset(c.Config)
				}
				c.Body(l)
			})
			l.t = whole
		}
	})
}

// reset begins anew, with gateways that are told of a tunnel as config says.
func (l *Lab) reset(config Config) {
	l.t.Helper()
	if config.wiring() != l.config.wiring() {
		l.t.Fatal("lab: the cases of one lab need one network")
	}
	gateways := []*Gateway{l.A, l.B}
	for _, g := range gateways {
		g.IKE.Stop()
		g.Run("ip xfrm state flush") // of what it asked for in vain, which keeps the kernel from asking again
		g.Run("ip xfrm policy flush")
	}
	l.resets++
	for _, g := range gateways {
		// The next daemon's log tells of this case alone.
		if err := os.Rename(g.IKE.Log(), fmt.Sprintf("%s.%d", g.IKE.Log(), l.resets)); err != nil {
			l.t.Fatal("lab: ", err)
		}
	}
	for _, dir := range []string{stateDirectory, "/run/vpnprobe", fmt.Sprintf("%s/vpnprobe-%d", os.TempDir(), os.Getuid())} {
		if err := os.RemoveAll(dir); err != nil {
			l.t.Fatal("lab: ", err)
		}
	}
	l.config, l.Declared = config, Declaration{}
	l.A.Tunnel, l.B.Tunnel = l.tunnels()
	for _, g := range gateways {
		g.IKE.launch()
	}
	for _, g := range gateways {
		g.IKE.configure()
	}
}

// wiring is what the cases of a lab have in common.
type wiring struct {
	ipv6, nat, peerNAT, secondUplink, twin bool
	daemonA, daemonB                       Daemon
}

func (c Config) wiring() wiring {
	return wiring{c.IPv6, c.NAT, c.PeerNAT, c.SecondUplink, c.Twin, c.DaemonA, c.DaemonB}
}

// SameNetwork reports whether cases with the configurations can share a lab.
func SameNetwork(a, b Config) bool { return a.wiring() == b.wiring() && !a.Twin }
