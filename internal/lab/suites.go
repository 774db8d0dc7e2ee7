//go:build linux

package lab

import (
	"fmt"
	"os/exec"
	"strings"
)

// suiteModules are those of the ciphers: the kernel would load them one by one,
// each with the first association that needs it.
const suiteModules = "gcm ccm ctr ecb chacha20poly1305 des_generic camellia_generic blowfish_generic cast5_generic " +
	"xcbc cmac sha512_generic seqiv"

// OfferSuites has the gateways agree on any of some ESP suites, in strongSwan's
// notation, one after the other: for the networks behind them, and in
// transport mode between the gateways themselves. Both must run strongSwan.
// Nothing is set up yet.
func (l *Lab) OfferSuites(suites []string, inUDP bool) {
	l.t.Helper()
	if out, err := exec.Command("modprobe", append([]string{"-a"}, strings.Fields(suiteModules)...)...).CombinedOutput(); err != nil {
		l.t.Fatalf("lab: load the ciphers: %v: %s", err, out)
	}
	child := func(name, subnets, mode, proposals string) string {
		return fmt.Sprintf("%s {\n%s\nmode = %s\nesp_proposals = %s\n}\n", name, subnets, mode, proposals)
	}
	subnets := func(t Tunnel) string {
		return fmt.Sprintf("local_ts = %s\nremote_ts = %s", t.LocalSubnet, t.RemoteSubnet)
	}
	a, b := &l.A.Tunnel, &l.B.Tunnel
	var ours strings.Builder
	for i, suite := range suites {
		ours.WriteString(child(suiteChild(i, false), subnets(*a), "tunnel", suite))
		ours.WriteString(child(suiteChild(i, true), "", "transport", suite))
	}
	// It fails when there is nothing to take down.
	_ = l.A.IKE.(*strongSwan).call("terminate", []string{"ike", connName})
	encap := "encap = " + yesNo(inUDP) + "\n"
	a.Connection = encap + "children {\n" + ours.String() + "}"
	a.Child = "start_action = none" // it is for the children above
	b.ESP = strings.Join(suites, ", ")
	b.Connection = encap + "children {\n" + child("transport", "", "transport", b.ESP) + "}"
	for _, g := range []*Gateway{l.A, l.B} {
		g.IKE.configure()
	}
}

// UseSuite sets the tunnel up with the ith of the suites that were offered,
// and the gateways' own packets with it, too. The function returned ends both.
func (l *Lab) UseSuite(i int) (end func()) {
	l.t.Helper()
	s := l.A.IKE.(*strongSwan)
	var up []string
	for _, transport := range []bool{false, true} {
		name := suiteChild(i, transport)
		s.command("initiate", "child", name, "timeout", "10000")
		up = append(up, name)
	}
	return func() {
		l.t.Helper()
		for _, name := range up {
			s.command("terminate", "child", name)
		}
	}
}

func suiteChild(i int, transport bool) string {
	return fmt.Sprintf("suite-%d-%s", i, pick(transport, "transport", "tunnel"))
}
