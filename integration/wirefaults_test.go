//go:build linux

package integration

import "vpnprobe/internal/lab"

// bothSubnets declares the second subnet behind gateway a, too.
func bothSubnets(t *lab.Tunnel) { t.LocalSubnet += ", " + lab.LanASecondSubnet }

// otherEncap makes gateway b send ESP in the other form than both agreed on.
func otherEncap(inUDP bool) func(l *lab.Lab) func() {
	return func(l *lab.Lab) func() {
		fault := l.B.SwapEncap()
		if b, a := l.B.Outbound(), l.A.Inbound(); a.SPI != b.SPI || a.Encap != inUDP || b.Encap == inUDP {
			l.T().Fatalf("gateway a receives by %+v, and b sends by %+v", a, b)
		}
		return func() {
			if n := l.A.Inbound().Packets; n == 0 {
				l.T().Error("the tunnel carried nothing before the fault")
			}
			fault.Heal()
		}
	}
}

// fragmenting checks that fragments of ESP arrive at gateway b, or none.
func fragmenting(want bool) func(l *lab.Lab) func() {
	return func(l *lab.Lab) func() {
		// Of later fragments the kernel has joined none yet in this chain.
		fragments := l.ISP.Count("FORWARD", "-f -p esp")
		before := fragments()
		return func() {
			if n := fragments() - before; (n > 0) != want {
				l.T().Errorf("%d fragments of ESP, want some: %v", n, want)
			}
		}
	}
}

// inClear checks that at least so many packets for the far side leave gateway
// a in clear while there is a fault; 0 stands for none at all.
func inClear(fault func(l *lab.Lab) *lab.Fault, least int) func(l *lab.Lab) func() {
	return func(l *lab.Lab) func() {
		seen := l.ISP.InClear("to-a")
		end := func() {}
		if fault != nil {
			end = fault(l).Heal
		}
		return func() {
			end()
			if n := seen(); n < least || least == 0 && n > 0 {
				l.T().Errorf("%d packets in clear, want %d or more, or none for 0", n, least)
			}
		}
	}
}

// sharedUplinks has gateway a use both of its uplinks at a time.
func sharedUplinks(l *lab.Lab) func() {
	check := byBothUplinks(l)
	fault := l.ShareUplinks()
	return func() {
		check()
		fault.Heal()
	}
}

// byBothUplinks returns a check that ESP left gateway a by both uplinks.
func byBothUplinks(l *lab.Lab) (check func()) {
	first, second := l.ISP.Count("FORWARD", "-i to-a -p esp"), l.ISP.Count("FORWARD", "-i to-a2 -p esp")
	return func() {
		l.T().Helper()
		if one, two := first(), second(); one < 20 || two < 20 {
			l.T().Errorf("%d and %d packets of ESP left by the uplinks, want some by each", one, two)
		}
	}
}

// byTwin has the far site answer by the tunnel of its other gateway.
func byTwin(l *lab.Lab) func() {
	one, twin := l.ISP.Count("FORWARD", "-i to-b -p esp"), l.ISP.Count("FORWARD", "-i to-twin -p esp")
	fault := l.AnswerByTwin()
	return func() {
		// Gateway b itself goes on to answer what expires there.
		if b, c := one(), twin(); c < 100 || b > c/10 {
			l.T().Errorf("%d packets of ESP came by gateway b and %d by its twin, want nearly all by the twin", b, c)
		}
		fault.Heal()
	}
}

// agree tells gateway b, and gateway a too if both, of other IKE proposals,
// and takes the tunnel down if they do not agree then.
func agree(proposals string, both bool) func(l *lab.Lab) func() {
	return func(l *lab.Lab) func() {
		was := l.A.Tunnel.IKE
		gateways := []*lab.Gateway{l.B}
		if both {
			gateways = append(gateways, l.A)
		}
		l.Retell(func(t *lab.Tunnel) { t.IKE = proposals }, gateways...)
		if !both {
			l.Reestablish()
		}
		return func() {
			l.Retell(func(t *lab.Tunnel) { t.IKE = was }, gateways...)
			if !both {
				l.A.IKE.Initiate() // the kernel waits for minutes before it asks again
			}
		}
	}
}
