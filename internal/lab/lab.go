//go:build linux

package lab

import (
	"os"
	"testing"
	"time"
)

// Config says how a lab differs from the plain one: IPv4 between the
// gateways, public addresses at both ends.
type Config struct {
	// IPv6 makes the gateways talk to each other over IPv6. What they
	// connect stays IPv4.
	IPv6 bool

	// NAT puts gateway a behind a router that masquerades it, so that ESP
	// travels in UDP port 4500. IPv4 only.
	NAT bool

	// Timeout ends a kernel that hangs. Zero is three minutes, which is
	// several times what a case takes on a busy machine.
	Timeout time.Duration
}

// Lab is one small Internet. Its methods end the test when they fail, so that
// a test reads as what happens in the network.
type Lab struct {
	LanA, LanB     *Node    // a host behind each gateway
	A, B           *Gateway // the gateways; the agent runs on A
	ISP, Reference *Node    // the router between them, and an unrelated host
	NAT            *Node    // the router in front of A; nil without Config.NAT

	t      testing.TB
	config Config
	plan   plan
	runs   int // agent runs so far, to name their files
}

// newLab lays the network out and starts both gateways' IKE daemons.
func newLab(t testing.TB, config Config) *Lab {
	t.Helper()
	if config.IPv6 && config.NAT {
		t.Fatal("lab: NAT is for IPv4")
	}
	l := &Lab{t: t, config: config, plan: planIPv4}
	if config.IPv6 {
		l.plan = planIPv6
	}
	l.layOut()
	if os.Getenv(envKeep) != "" {
		l.record()
	}
	l.A.IKE, l.B.IKE = startStrongSwan(l.A), startStrongSwan(l.B)
	l.A.IKE.load(l.connection(l.A))
	l.B.IKE.load(l.connection(l.B))
	return l
}

// record captures gateway a's underlay, for people to look at.
func (l *Lab) record() {
	l.t.Helper()
	tcpdump := l.A.Command("tcpdump -Z root -U -n -i wan -w " + guestResults + "/wan.pcap")
	l.start(tcpdump, "tcpdump.log")
	l.t.Cleanup(func() {
		if err := terminate(tcpdump); err != nil {
			l.t.Errorf("lab: stop tcpdump: %v", err)
		}
	})
}

// T returns the test that the lab belongs to.
func (l *Lab) T() testing.TB { return l.t }

// Peer returns the underlay address of gateway b, the peer of the agent's gateway.
func (l *Lab) Peer() string { return l.plan.b }

// EchoRequests returns the iptables match for pings across the underlay.
func (l *Lab) EchoRequests() string { return l.plan.echoRequest }

// Hop returns the ISP's router as gateway a sees it: the offender of the
// ICMP errors that it sends there.
func (l *Lab) Hop() string { return l.plan.ispA }

// Establish sets the tunnel up and checks that it carries packets. Without
// it, the first packet for the far side sets it up, as is usual.
func (l *Lab) Establish() {
	l.t.Helper()
	l.A.IKE.initiate()
	if !l.Carries() {
		l.t.Fatal("lab: the tunnel is up but carries nothing")
	}
}

// Carries says whether the hosts behind the gateways reach each other: the
// truth that a diagnosis is measured by. One answer is enough, for some
// faults lose a part of the packets, and a tunnel being set up the first.
func (l *Lab) Carries() bool {
	l.t.Helper()
	_, err := l.LanA.Try("ping -n -q -c 1 -w 4 -i 0.2 " + LanBHost)
	return err == nil
}
