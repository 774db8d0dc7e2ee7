//go:build linux

package lab

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
)

// Addresses of the inner networks, the same in every lab.
const (
	LanAHost    = "10.1.0.10"
	LanAGateway = "10.1.0.1" // gateway a's, and so the agent's way into the tunnel
	LanASubnet  = "10.1.0.0/24"
	LanBHost    = "10.2.0.10"
	LanBGateway = "10.2.0.1"
	LanBSubnet  = "10.2.0.0/24"

	natInside = "192.168.100.1"
	natClient = "192.168.100.2" // gateway a's own address behind NAT

	peerNATInside = "192.168.200.1"
	peerNATClient = "192.168.200.2" // gateway b's own address behind NAT
)

// plan is the underlay in one address family: its numbers, and what the
// family's tools call things. The ISP's addresses are everyone's gateways.
type plan struct {
	bits               int
	a, b, ref          string
	ispA, ispB, ispRef string
	family             string // for ip, where no address tells
	iptables           string
	adminProhibited    string
	echoRequest        string
}

var (
	planIPv4 = plan{
		bits: 24,
		a:    "203.0.113.2", b: "198.51.100.2", ref: "192.0.2.53",
		ispA: "203.0.113.1", ispB: "198.51.100.1", ispRef: "192.0.2.1",
		family:          "-4",
		iptables:        "iptables-legacy",
		adminProhibited: "icmp-admin-prohibited",
		echoRequest:     "-p icmp --icmp-type echo-request",
	}
	planIPv6 = plan{
		bits: 64,
		a:    "2001:db8:a::2", b: "2001:db8:b::2", ref: "2001:db8:c::53",
		ispA: "2001:db8:a::1", ispB: "2001:db8:b::1", ispRef: "2001:db8:c::1",
		family:          "-6",
		iptables:        "ip6tables-legacy",
		adminProhibited: "icmp6-adm-prohibited",
		echoRequest:     "-p icmpv6 --icmpv6-type echo-request",
	}
)

// subnet returns an underlay address with its prefix length.
func (p plan) subnet(address string) string { return fmt.Sprintf("%s/%d", address, p.bits) }

// layOut creates the nodes and cables. Starting a program costs a tenth of a
// second in here, so everything that ip does goes through a few batches.
func (l *Lab) layOut() {
	l.t.Helper()
	l.LanA, l.LanB = l.node("lan-a"), l.node("lan-b")
	l.A = &Gateway{Node: l.node("a"), Address: l.plan.a}
	l.B = &Gateway{Node: l.node("b"), Address: l.plan.b}
	l.ISP, l.Reference = l.node("isp"), l.node("reference")
	nodes := []*Node{l.LanA, l.LanB, l.A.Node, l.B.Node, l.ISP, l.Reference}

	p, edge, peerEdge := l.plan, l.A.Node, l.B.Node // the edges hold the public addresses
	var cables []cable
	if l.config.NAT {
		l.NAT = l.node("nat")
		nodes, edge = append(nodes, l.NAT), l.NAT
		l.A.Address = natClient
		cables = append(cables, cable{
			end{l.A.Node, "wan", natClient + "/24", natInside},
			end{l.NAT, "lan", natInside + "/24", ""},
		})
	}
	if l.config.PeerNAT {
		l.PeerNAT = l.node("peer-nat")
		nodes, peerEdge = append(nodes, l.PeerNAT), l.PeerNAT
		l.B.Address = peerNATClient
		cables = append(cables, cable{
			end{l.B.Node, "wan", peerNATClient + "/24", peerNATInside},
			end{l.PeerNAT, "lan", peerNATInside + "/24", ""},
		})
	}
	cables = append(cables,
		cable{end{l.LanA, "eth0", LanAHost + "/24", LanAGateway}, end{l.A.Node, "lan", LanAGateway + "/24", ""}},
		cable{end{l.LanB, "eth0", LanBHost + "/24", LanBGateway}, end{l.B.Node, "lan", LanBGateway + "/24", ""}},
		cable{end{edge, "wan", p.subnet(p.a), p.ispA}, end{l.ISP, "to-a", p.subnet(p.ispA), ""}},
		cable{end{peerEdge, "wan", p.subnet(p.b), p.ispB}, end{l.ISP, "to-b", p.subnet(p.ispB), ""}},
		cable{end{l.Reference, "wan", p.subnet(p.ref), p.ispRef}, end{l.ISP, "to-ref", p.subnet(p.ispRef), ""}},
	)
	if l.config.SecondUplink {
		cables = append(cables, cable{end{l.A.Node, "wan2", secondUplink + "/24", ""}, end{l.ISP, "to-a2", secondUplinkISP + "/24", ""}})
	}
	if l.config.Twin {
		l.Twin = &Gateway{Node: l.node("twin"), Address: twinAddress}
		nodes = append(nodes, l.Twin.Node)
		cables = append(cables,
			cable{end{l.Twin.Node, "wan", twinAddress + "/24", twinISP}, end{l.ISP, "to-twin", twinISP + "/24", ""}},
			cable{end{l.LanB, "eth1", twinLanHost + "/24", ""}, end{l.Twin.Node, "lan", twinLan + "/24", ""}})
	}
	l.makeRouters()
	l.create(nodes, cables)
	if l.NAT != nil {
		l.NAT.Run("iptables-legacy -t nat -A POSTROUTING -o wan -j MASQUERADE")
	}
	if l.PeerNAT != nil {
		l.PeerNAT.Run("iptables-legacy -t nat -A POSTROUTING -o wan -j MASQUERADE")
		l.PeerNAT.Run("iptables-legacy -t nat -A PREROUTING -i wan -p udp -m multiport --dports 500,4500 -j DNAT --to-destination " + peerNATClient)
	}
}

// end is one end of a cable: a network device, and the default gateway, if
// any, that is reached through it.
type end struct {
	node             *Node
	dev, address, gw string
}

type cable [2]end

// makeRouters makes every network namespace to come forward packets.
func (l *Lab) makeRouters() {
	l.t.Helper()
	for name, value := range map[string]string{
		"net/core/devconf_inherit_init_net": "1", // new namespaces copy this one's settings
		"net/ipv4/ip_forward":               "1",
		"net/ipv6/conf/all/forwarding":      "1",
		"net/ipv6/conf/default/accept_dad":  "0", // addresses are usable at once
	} {
		if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0o644); err != nil {
			l.t.Fatal("lab: ", err)
		}
	}
}

// create brings nodes and cables into being.
func (l *Lab) create(nodes []*Node, cables []cable) {
	l.t.Helper()
	var inventory strings.Builder
	perNode := map[*Node]*strings.Builder{}
	for _, n := range nodes {
		fmt.Fprintf(&inventory, "netns add %s\n", n.Name)
		perNode[n] = &strings.Builder{}
		fmt.Fprintln(perNode[n], "link set lo up")
	}
	l.ip("-batch", inventory.String())
	inventory.Reset()
	for _, c := range cables {
		fmt.Fprintf(&inventory, "link add %s netns %s type veth peer name %s netns %s\n", c[0].dev, c[0].node.Name, c[1].dev, c[1].node.Name)
		for _, e := range c {
			fmt.Fprintf(perNode[e.node], "address add %s dev %s\nlink set %s up\n", e.address, e.dev, e.dev)
		}
	}
	for _, c := range cables {
		for _, e := range c {
			if e.gw != "" {
				fmt.Fprintf(perNode[e.node], "route add default via %s\n", e.gw)
			}
		}
	}
	l.ip("-batch", inventory.String())
	for n, batch := range perNode {
		l.ip("-n", n.Name, "-batch", batch.String())
	}
}

// ip runs ip in batch mode; the last argument is the batch.
func (l *Lab) ip(args ...string) {
	l.t.Helper()
	batch := args[len(args)-1]
	cmd := exec.Command("ip", append(args[:len(args)-1:len(args)-1], "-")...)
	cmd.Stdin = strings.NewReader(batch)
	if out, err := cmd.CombinedOutput(); err != nil {
		l.t.Fatalf("lab: ip %v: %v: %s\n%s", args[:len(args)-1], err, out, batch)
	}
}

func (l *Lab) node(name string) *Node { return &Node{Name: name, lab: l} }

// network returns the network of an address with its prefix length.
func network(address string) string {
	return netip.MustParsePrefix(address).Masked().String()
}
