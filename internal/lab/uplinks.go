//go:build linux

package lab

import "fmt"

// A second way from gateway a to the same ISP, and the second gateway of the
// site behind gateway b.
const (
	secondUplink    = "100.64.0.2"
	secondUplinkISP = "100.64.0.1"

	twinAddress = "198.18.0.2"
	twinISP     = "198.18.0.1"
	twinLan     = "10.3.0.1"
	twinLanHost = "10.3.0.10" // the host behind gateway b, as the twin knows it
	twinID      = "twin.lab.example"
)

// ShareUplinks makes gateway a spread the packets of its tunnel over both of
// its uplinks, as gateways do that share the load between two providers: by
// marks. A default route with two ways alone does not do it, for between two
// addresses the kernel always takes the same of them.
func (l *Lab) ShareUplinks() *Fault {
	l.t.Helper()
	const mangle = "iptables-legacy -w -t mangle "
	marks := []string{
		"OUTPUT -p esp -j MARK --set-mark 1",
		"OUTPUT -p esp -m statistic --mode nth --every 2 --packet 0 -j MARK --set-mark 2",
	}
	l.A.Run("ip route replace default nexthop via " + l.plan.ispA + " dev wan nexthop via " + secondUplinkISP + " dev wan2")
	for i, via := range []string{l.plan.ispA, secondUplinkISP} {
		l.A.Run(fmt.Sprintf("ip route replace default via %s table %d", via, 201+i))
		l.A.Run(fmt.Sprintf("ip rule add fwmark %d lookup %d", 1+i, 201+i))
		l.A.Run(mangle + "-A " + marks[i])
	}
	return l.A.fault(func() {
		for i, mark := range marks {
			l.A.Run(mangle + "-D " + mark)
			l.A.Run(fmt.Sprintf("ip rule del fwmark %d", 1+i))
		}
		l.A.Run("ip route replace default via " + l.plan.ispA)
	})
}

// UseSecondUplink makes gateway a send everything by its second uplink, as
// when the first one failed.
func (l *Lab) UseSecondUplink() *Fault {
	l.t.Helper()
	l.A.Run("ip route replace default via " + secondUplinkISP)
	return l.A.fault(func() { l.A.Run("ip route replace default via " + l.plan.ispA) })
}

// pairUp tells the twin and gateway a of the tunnel between them. Gateway a
// tells its two tunnels apart by marks, for the kernel holds one policy for
// one pair of subnets: what it sends gets the mark of the tunnel to gateway b,
// what comes that of the gateway that it comes from.
func (l *Lab) pairUp() {
	l.t.Helper()
	second := l.A.Tunnel
	second.Remote, second.RemoteID = twinAddress, twinID
	l.A.Tunnel.Child += "\nmark_in = 1\nmark_out = 1"
	second.Child += "\nmark_in = 2\nmark_out = 2"
	l.A.Second = &second
	l.Twin.Tunnel = l.B.Tunnel
	l.Twin.Tunnel.LocalID = twinID
	l.Twin.IKE = newIKE(l.Twin, StrongSwan)
	const mangle = "iptables-legacy -w -t mangle -A "
	for _, rule := range []string{
		"PREROUTING -i lan -d " + LanBSubnet + " -j MARK --set-mark 1",
		"OUTPUT -d " + LanBSubnet + " -j MARK --set-mark 1",
		"PREROUTING -i wan -p esp -s " + l.plan.b + " -j MARK --set-mark 1",
		"PREROUTING -i wan -p esp -s " + twinAddress + " -j MARK --set-mark 2",
	} {
		l.A.Run(mangle + rule)
	}
	l.Twin.Run("ip route add " + LanBSubnet + " via " + twinLanHost)
}

// AnswerByTwin makes the far site answer by the tunnel of its second gateway,
// whichever the question came by.
func (l *Lab) AnswerByTwin() *Fault {
	l.t.Helper()
	route := LanASubnet + " via " + twinLan
	l.LanB.Run("ip route add " + route)
	return l.LanB.fault(func() { l.LanB.Run("ip route del " + route) })
}
