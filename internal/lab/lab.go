//go:build linux

package lab

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strconv"
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

	// PeerNAT puts gateway b behind a router that forwards IKE to it, and
	// has the public address. IPv4 only.
	PeerNAT bool

	// DaemonA and DaemonB are what the gateways run, strongSwan by default.
	DaemonA, DaemonB Daemon

	// SecondUplink gives gateway a another way to the ISP, wan2, which is
	// not used until a case says so. IPv4 only.
	SecondUplink bool

	// Twin gives the far site a second gateway, and gateway a a tunnel to it
	// for the same subnets. Gateway a sends by the one to gateway b, and
	// takes what comes by either. IPv4 and strongSwan only.
	Twin bool

	// Tunnel, if not nil, changes what each gateway is told, and what the
	// agent's administrator declares is what gateway a is told. Theirs
	// changes it for gateway b alone, after that.
	Tunnel, Theirs func(*Tunnel)

	// Identified declares the identities and the pre-shared key to the agent.
	Identified bool

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
	PeerNAT        *Node    // the router in front of B; nil without Config.PeerNAT
	Twin           *Gateway // the far site's second gateway; nil without Config.Twin

	// Declared is what the agent's administrator declares beside or instead
	// of what gateway a is told.
	Declared Declaration

	t      testing.TB
	config Config
	plan   plan
	runs   int // runs of agent probe so far, to name their files
	agents int // agents started so far
	counts int // packet counters so far, to tell them apart

	streams int // so far, to give each a port
	resets  int // so far, to tell logs apart
}

// newLab lays the network out and starts both gateways' IKE daemons.
func newLab(t testing.TB, config Config) *Lab {
	t.Helper()
	if config.IPv6 && (config.NAT || config.PeerNAT || config.SecondUplink || config.Twin) {
		t.Fatal("lab: this network is for IPv4")
	}
	l := &Lab{t: t, config: config, plan: planIPv4}
	if config.IPv6 {
		l.plan = planIPv6
	}
	l.layOut()
	if os.Getenv(envKeep) != "" {
		l.record()
	}
	l.A.Tunnel, l.B.Tunnel = l.tunnels()
	l.A.IKE, l.B.IKE = newIKE(l.A, config.DaemonA), newIKE(l.B, config.DaemonB)
	daemons := []IKE{l.A.IKE, l.B.IKE}
	if l.Twin != nil {
		l.pairUp()
		daemons = append(daemons, l.Twin.IKE)
	}
	for _, ike := range daemons {
		t.Cleanup(ike.Stop)
		ike.launch()
	}
	for _, ike := range daemons {
		ike.configure()
	}
	return l
}

// record captures gateway a's underlay, for people to look at.
func (l *Lab) record() {
	l.t.Helper()
	l.A.Record("wan", "wan.pcap")
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
	l.A.IKE.Initiate()
	if !l.Carries() {
		l.t.Fatal("lab: the tunnel is up but carries nothing")
	}
}

// Reestablish takes the tunnel down; the next packet sets it up anew.
func (l *Lab) Reestablish() { l.A.IKE.Terminate() }

// inUse is how many packets make an association one that is in use.
const inUse = 3

// Renew renews the tunnel's ESP associations, at the initiative of a gateway,
// and waits until both gateways send by new ones: until some packets of the
// traffic that there must be both ways went by each.
func (l *Lab) Renew(g *Gateway) {
	l.t.Helper()
	toA, toB := netip.MustParseAddr(l.A.Address), netip.MustParseAddr(l.B.Address)
	a, b := l.A.newestTo(toB), l.B.newestTo(toA)
	g.IKE.Rekey()
	renewed := func() bool {
		newA, newB := l.A.newestTo(toB), l.B.newestTo(toA)
		return newA.spi != a.spi && newB.spi != b.spi && newA.packets >= inUse && newB.packets >= inUse
	}
	if !eventually(daemonPatience, renewed) {
		l.t.Fatalf("lab: gateway %s renewed no association", g.Name)
	}
}

// Restart makes the gateway's IKE daemon begin anew, without a tunnel.
func (g *Gateway) Restart() {
	g.lab.t.Helper()
	g.IKE.Stop()
	g.Run("ip xfrm state flush") // as reset does
	g.IKE.launch()
	g.IKE.configure()
}

// Retell changes what gateways are told of the tunnel, and tells it them anew.
// A tunnel that is up stays as it is until it is renewed.
func (l *Lab) Retell(change func(*Tunnel), gateways ...*Gateway) {
	l.t.Helper()
	for _, g := range gateways {
		change(&g.Tunnel)
		g.IKE.configure()
	}
}

// Traffic begins to send packets through the tunnel, 20 a second. The function
// returned waits for the end, and tells how many were answered.
func (l *Lab) Traffic(packets int) (answered func() int) {
	l.t.Helper()
	ping := l.LanA.Command(fmt.Sprintf("ping -n -q -i 0.05 -W 10 -c %d %s", packets, LanBHost))
	var out bytes.Buffer
	ping.Stdout, ping.Stderr = &out, &out
	if err := ping.Start(); err != nil {
		l.t.Fatal("lab: ", err)
	}
	return func() int {
		l.t.Helper()
		err := ping.Wait()
		match := received.FindStringSubmatch(out.String())
		if match == nil {
			l.t.Fatalf("lab: ping: %v: %s", err, &out)
		}
		n, _ := strconv.Atoi(match[1])
		return n
	}
}

var received = regexp.MustCompile(`(\d+) received`)

// Carries says whether the hosts behind the gateways reach each other: the
// truth that a diagnosis is measured by. One answer is enough, for some
// faults lose a part of the packets, and a tunnel being set up the first.
func (l *Lab) Carries() bool {
	l.t.Helper()
	_, err := l.LanA.Try("ping -n -q -c 1 -w 4 -i 0.2 " + LanBHost)
	return err == nil
}
