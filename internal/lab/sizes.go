//go:build linux

package lab

import (
	"fmt"
	"net/netip"
	"strings"
)

// Ping is one question whether a size passes.
type Ping struct {
	From     *Node
	To       string // address
	Size     int    // of the IP packet in bytes, header included
	Fragment bool   // this host and routers may fragment it
}

// Passes reports whether a ping of a size is answered: the truth that a
// measured path MTU is compared with. It asks until it is, for some seconds.
func (p Ping) Passes() bool {
	p.From.lab.t.Helper()
	_, err := p.run("-c 1 -i 0.2 -w 3")
	return err == nil
}

// Lost reports whether no ping of a size is answered, of two within half a
// second each.
func (p Ping) Lost() bool {
	p.From.lab.t.Helper()
	_, err := p.run("-c 2 -i 0.1 -W 0.5")
	return err != nil
}

// Refused returns what was said of a ping that is too big, "" if nothing was:
// it passed, or vanished.
func (p Ping) Refused() string {
	p.From.lab.t.Helper()
	out, _ := p.run("-c 2 -i 0.1 -W 0.5")
	for line := range strings.Lines(out) {
		// By a router, by this host's own kernel.
		for _, said := range []string{"Frag needed", "Packet too big", "too long"} {
			if strings.Contains(line, said) {
				return strings.TrimSpace(line)
			}
		}
	}
	return ""
}

func (p Ping) run(flags string) (string, error) {
	headers := 28
	if netip.MustParseAddr(p.To).Is6() {
		headers = 48
	}
	return p.From.Try(fmt.Sprintf("ping -n %s -M %s -s %d %s", flags, pick(p.Fragment, "dont", "do"), p.Size-headers, p.To))
}
