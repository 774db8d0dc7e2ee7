//go:build linux

package lab

// A second subnet behind gateway a, and a host in it. Nothing covers it
// unless a case says so.
const (
	LanASecondHost    = "10.1.1.10"
	LanASecondGateway = "10.1.1.1"
	LanASecondSubnet  = "10.1.1.0/24"
)

// AddSecondSubnet gives the network behind gateway a its second subnet. The
// host behind the gateway is in both.
func (l *Lab) AddSecondSubnet() {
	l.t.Helper()
	l.LanA.Run("ip address add " + LanASecondHost + "/24 dev eth0")
	l.A.Run("ip address add " + LanASecondGateway + "/24 dev lan")
}

// Masquerade makes the gateway give everything that leaves on its underlay
// its own address, as a router at home does, but for what the tunnel is for
// if that is exempt. Flows that conntrack knows already go on as before.
func (g *Gateway) Masquerade(exempt bool) *Fault {
	g.lab.t.Helper()
	rules := []string{"-o wan -j MASQUERADE"}
	if exempt {
		rules = append(rules, "-m policy --dir out --pol ipsec -j ACCEPT")
	}
	const nat = "iptables-legacy -w -t nat "
	for _, rule := range rules {
		g.Run(nat + "-I POSTROUTING " + rule)
	}
	return g.fault(func() {
		for _, rule := range rules {
			g.Run(nat + "-D POSTROUTING " + rule)
		}
	})
}

// InClear makes a node count the packets for the network behind gateway b
// that arrive in clear at the device, and returns a function that tells how
// many there were.
func (n *Node) InClear(dev string) func() int {
	n.lab.t.Helper()
	return n.Count("PREROUTING -t raw", "-i "+dev+" -d "+LanBSubnet)
}
