//go:build linux

package lab

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Largest is more than any packet, for [Lab.Swallow].
const Largest = 65535

// Link is one of the links that a packet between the sites takes.
type Link int

// The links. A switch or a modem sits on each of them: what it swallows, no
// router knows of.
const (
	ProviderLink Link = iota // between the gateways
	PeerLAN                  // between gateway b and the host behind it
	OurLAN                   // between gateway a and the host behind it
)

// PathMTU narrows every way through the ISP's router to mtu bytes. The links
// at its sides stay as they are, so that only the router knows, and its
// "too big" messages are the only way to learn.
func (l *Lab) PathMTU(mtu int) *Fault {
	l.t.Helper()
	replace := func(how string) {
		l.t.Helper()
		for _, side := range []struct{ dev, address string }{{"to-a", l.plan.ispA}, {"to-b", l.plan.ispB}} {
			subnet := network(l.plan.subnet(side.address))
			l.ISP.Run("ip route del " + subnet + " dev " + side.dev)
			l.ISP.Run("ip route add " + subnet + " dev " + side.dev + how)
		}
	}
	replace(fmt.Sprintf(" mtu lock %d", mtu))
	return l.ISP.fault(func() { replace(""); l.ForgetSizes() })
}

// ForgetSizes makes all nodes forget the path MTUs that they were told.
func (l *Lab) ForgetSizes() {
	l.t.Helper()
	for _, n := range l.nodes() {
		n.must(func() error { return os.WriteFile("/proc/sys/net/ipv4/route/flush", []byte("1"), 0) })
	}
	if l.config.IPv6 { // where that does not forget what has not expired
		for _, g := range []*Gateway{l.A, l.B} {
			g.Run("ip -6 route flush cache")
		}
	}
}

// nodes returns the nodes between which a path MTU can be cached.
func (l *Lab) nodes() []*Node {
	return []*Node{l.LanA, l.A.Node, l.ISP, l.B.Node, l.LanB}
}

// LinkMTU gives all links between the hosts behind the gateways an MTU.
func (l *Lab) LinkMTU(mtu int) *Fault {
	l.t.Helper()
	set := func(mtu int) {
		l.t.Helper()
		for _, n := range l.nodes() {
			for _, dev := range l.devices(n) {
				n.Run(fmt.Sprintf("ip link set %s mtu %d", dev, mtu))
			}
		}
	}
	set(mtu)
	return l.ISP.fault(func() { set(1500); l.ForgetSizes() })
}

// devices returns the devices of a node on the way between the hosts behind
// the gateways.
func (l *Lab) devices(n *Node) []string {
	switch n {
	case l.LanA, l.LanB:
		return []string{"eth0"}
	case l.ISP:
		return []string{"to-a", "to-b"}
	}
	return []string{"lan", "wan"}
}

// TooBig returns the iptables match for the messages of the underlay's routers
// that a packet is too big.
func (l *Lab) TooBig() string {
	return pick(l.config.IPv6, "-p icmpv6 --icmpv6-type packet-too-big", "-p icmp --icmp-type fragmentation-needed")
}

// Fragments returns the iptables match for fragments in the underlay, the
// first ones included.
func (l *Lab) Fragments() string {
	return pick(l.config.IPv6, "-m ipv6header --soft --header frag", "-m u32 --u32 4&0x3fff=0x1:0x3fff")
}

// Swallow makes packets of from to to bytes, IP header included, vanish on a
// link, both ways, and nobody says so.
func (l *Lab) Swallow(link Link, from, to int) *Fault {
	l.t.Helper()
	match := fmt.Sprintf("-m length --length %d:%d", from, to)
	switch link {
	case PeerLAN:
		return l.swallow(place{l.LanB, lanChain, match}, place{l.B.Node, lanChain, "-i lan " + match})
	case OurLAN:
		return l.swallow(place{l.LanA, lanChain, match}, place{l.A.Node, lanChain, "-i lan " + match})
	}
	return l.swallow(place{l.ISP, "FORWARD", match})
}

// lanChain is where a node behind a switch drops what that would have.
const lanChain = "PREROUTING -t raw"

// place is what matches in a chain of a node.
type place struct {
	node         *Node
	chain, match string
}

// swallow drops packets in several places. The test fails if none of them ever
// met a packet.
func (l *Lab) swallow(places ...place) *Fault {
	l.t.Helper()
	var met []func() int
	for _, p := range places {
		p.node.Run(fmt.Sprintf("%s -w -I %s %s -j DROP", p.node.plan().iptables, p.chain, p.match))
		met = append(met, p.node.Count(p.chain, p.match))
	}
	return l.ISP.fault(func() {
		l.t.Helper()
		sum := 0
		for i, p := range places {
			sum += met[i]()
			p.node.Run(fmt.Sprintf("%s -w -D %s %s -j DROP", p.node.plan().iptables, p.chain, p.match))
		}
		if sum == 0 {
			l.t.Errorf("lab: no packet was swallowed by %s", places[0].match)
		}
	})
}

// ReassemblyTime is how long the gateway waits for the rest of a packet.
func (g *Gateway) ReassemblyTime(seconds int) *Fault {
	g.lab.t.Helper()
	return g.sysctl("ipv4/ipfrag_time", strconv.Itoa(seconds))
}

// AnswerAll makes the node tell of every packet whose time to live ends there.
// Linux does so about once a second, and as other users' questions count, too,
// a case may get no answer.
func (n *Node) AnswerAll() *Fault {
	n.lab.t.Helper()
	return n.sysctl("ipv4/icmp_ratelimit", "0")
}

// sysctl gives a setting of the node's network another value.
func (n *Node) sysctl(name, value string) *Fault {
	n.lab.t.Helper()
	path := "/proc/sys/net/" + name
	var was []byte
	n.must(func() (err error) { was, err = os.ReadFile(path); return err })
	n.must(func() error { return os.WriteFile(path, []byte(value), 0) })
	return n.fault(func() { n.must(func() error { return os.WriteFile(path, was, 0) }) })
}

// must does what must not fail in the node's network.
func (n *Node) must(f func() error) {
	n.lab.t.Helper()
	if err := n.inside(f); err != nil {
		n.lab.t.Fatalf("lab: %s: %v", n.Name, err)
	}
}

// ClearDF makes the ISP's router clear the "don't fragment" bit of what comes
// from gateway a's side, as some access concentrators do, and so fragment what
// does not fit. IPv4 only.
func (l *Lab) ClearDF() *Fault {
	l.t.Helper()
	const dev = "to-a"
	l.ISP.Run("tc qdisc add dev " + dev + " clsact")
	// The flags are the upper bits of byte 6.
	l.ISP.Run("tc filter add dev " + dev + " ingress protocol ip prio 1 u32 match u16 0x4000 0x4000 at 6" +
		" action pedit munge offset 6 u8 set 0x00 retain 0x40 pipe action csum ip4h")
	return l.ISP.fault(func() { l.ISP.Run("tc qdisc del dev " + dev + " clsact") })
}

// ReorderFragments makes the first fragment of each packet that gateway a
// sends overtaken by the others. Nothing is lost. IPv4 only.
func (l *Lab) ReorderFragments() *Fault {
	l.t.Helper()
	const dev = "wan"
	l.A.Run("tc qdisc replace dev " + dev + " root handle 1: prio bands 4 priomap" + strings.Repeat(" 0", 16))
	l.A.Run("tc qdisc add dev " + dev + " parent 1:4 handle " + netemHandle + " netem delay 20ms")
	l.A.Run("tc filter add dev " + dev + " parent 1: protocol ip prio 1 u32 match u16 0x2000 0x3fff at 6 flowid 1:4")
	return l.A.fault(func() { l.A.Run("tc qdisc del dev " + dev + " root") })
}

// KeepFragmentsInOrder makes the ISP's router drop a packet whose last
// fragment comes before the first on the way to gateway b, as some firewalls
// do that know no ports by then. Packets in fragments must not interleave.
// IPv4 only.
func (l *Lab) KeepFragmentsInOrder() *Fault {
	l.t.Helper()
	const (
		begun  = "-m recent --name begun "  // a first fragment came
		headed = "-m recent --name broken " // a last one came before it
		first  = "-m u32 --u32 4&0x3fff=0x2000 "
		last   = "-f -m u32 --u32 4&0x2000=0 "
	)
	rules := []string{
		first + headed + "--remove -j DROP",
		first + begun + "--set -j RETURN",
		last + begun + "--remove -j RETURN",
		last + headed + "--set -j DROP",
		"-f " + begun + "! --rcheck -j DROP",
	}
	const iptables, chain = "iptables-legacy -w ", "in-order"
	l.ISP.Run(iptables + "-N " + chain)
	for _, rule := range rules {
		l.ISP.Run(iptables + "-A " + chain + " " + rule)
	}
	jump := "FORWARD -o to-b -j " + chain
	l.ISP.Run(iptables + "-I " + jump)
	return l.ISP.fault(func() {
		l.ISP.Run(iptables + "-D " + jump)
		l.ISP.Run(iptables + "-F " + chain)
		l.ISP.Run(iptables + "-X " + chain)
	})
}

// ClampMSS makes the gateway lower the MSS of the TCP connections that it
// forwards, both ways.
func (g *Gateway) ClampMSS(mss int) *Fault {
	g.lab.t.Helper()
	rule := fmt.Sprintf("FORWARD -p tcp --tcp-flags SYN,RST SYN -m tcpmss --mss %d:65535 -j TCPMSS --set-mss %d", mss+1, mss)
	const iptables = "iptables-legacy -w -t mangle "
	g.Run(iptables + "-A " + rule)
	return g.fault(func() { g.Run(iptables + "-D " + rule) })
}
