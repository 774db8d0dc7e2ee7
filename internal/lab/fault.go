//go:build linux

package lab

import (
	"strings"
	"sync"
	"time"
)

// Fault is something that was broken, and can be mended.
type Fault struct {
	heal func()
	once sync.Once
}

// Heal undoes the fault. Healing twice is healing once.
func (f *Fault) Heal() { f.once.Do(f.heal) }

// Drop makes the node swallow the packets of an iptables chain that match,
// in the underlay's address family on the underlay's nodes, and in IPv4
// behind the gateways. A match is written as iptables wants it; an empty one
// is every packet.
//
// The test fails if no packet ever met the fault: then whatever was
// diagnosed, it was not this.
func (n *Node) Drop(chain, match string) *Fault {
	n.lab.t.Helper()
	return n.filter(chain, match+" -j DROP")
}

// Reject is like [Node.Drop], but tells the sender by ICMP that the
// administrator forbids it.
func (n *Node) Reject(chain, match string) *Fault {
	n.lab.t.Helper()
	return n.filter(chain, match+" -j REJECT --reject-with "+n.plan().adminProhibited)
}

func (n *Node) filter(chain, rule string) *Fault {
	n.lab.t.Helper()
	iptables := n.plan().iptables + " -w "
	n.Run(iptables + "-I " + chain + " " + rule)
	return n.fault(func() {
		n.lab.t.Helper()
		if !met(n.Run(iptables + "-S " + chain + " -v")) {
			n.lab.t.Errorf("lab: no packet ever met a fault of %s %s", n.Name, chain)
		}
		n.Run(iptables + "-D " + chain + " " + rule)
	})
}

// met says whether every rule in the listing of a chain has seen a packet.
func met(listing string) bool {
	for line := range strings.Lines(listing) {
		if strings.HasPrefix(line, "-A ") && strings.Contains(line, " -c 0 0 -j ") {
			return false
		}
	}
	return true
}

// Netem makes what the node sends through a device suffer as tc-netem(8) says,
// for example "loss 10%" or "delay 300ms".
func (n *Node) Netem(dev, spec string) *Fault {
	n.lab.t.Helper()
	n.Run("tc qdisc replace dev " + dev + " root netem limit 10000 " + spec)
	return n.fault(func() { n.Run("tc qdisc del dev " + dev + " root") })
}

// Unplug takes a device of the node down; its neighbour loses the carrier.
// Static routes of the node by the device come back with it. IPv4 only.
func (n *Node) Unplug(dev string) *Fault {
	n.lab.t.Helper()
	routes := n.Run("ip -4 route show dev " + dev)
	n.Run("ip link set " + dev + " down")
	return n.fault(func() {
		n.Run("ip link set " + dev + " up")
		for route := range strings.Lines(routes) {
			if !strings.Contains(route, "proto kernel") {
				n.Run("ip route replace " + strings.TrimSpace(route) + " dev " + dev)
			}
		}
	})
}

// DeleteDefaultRoute leaves the gateway without a way to the underlay.
func (g *Gateway) DeleteDefaultRoute() *Fault {
	g.lab.t.Helper()
	ip := "ip " + g.lab.plan.family
	was := strings.TrimSpace(g.Run(ip + " route show default"))
	g.Run(ip + " route del default")
	return g.fault(func() { g.Run(ip + " route add " + was) })
}

// ProhibitRoute makes the gateway refuse to send to an address.
func (g *Gateway) ProhibitRoute(address string) *Fault {
	g.lab.t.Helper()
	g.Run("ip route add prohibit " + address)
	return g.fault(func() { g.Run("ip route del prohibit " + address) })
}

// plan returns the numbering of the address family that the node filters in.
func (n *Node) plan() plan {
	if n == n.lab.LanA || n == n.lab.LanB {
		return planIPv4
	}
	return n.lab.plan
}

// fault makes sure that a fault that was never healed ends with the test, so
// that what healing checks is checked in any case.
func (n *Node) fault(heal func()) *Fault {
	f := &Fault{heal: heal}
	n.lab.t.Cleanup(f.Heal)
	return f
}

// eventually tries until check holds, and says whether it did in time.
func eventually(within time.Duration, check func() bool) bool {
	for deadline := time.Now().Add(within); ; time.Sleep(100 * time.Millisecond) {
		if check() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}
