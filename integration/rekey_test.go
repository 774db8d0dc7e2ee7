//go:build linux

package integration

import (
	"testing"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/lab"
)

// TestRekeys renews the tunnel's associations again and again amidst traffic,
// at the initiative of both gateways in turn.
func TestRekeys(t *testing.T) {
	t.Parallel()
	const (
		rekeys  = 20
		apart   = 600 * time.Millisecond // so that one has ended when the next begins
		packets = 1800
		rate    = 100
	)
	for _, peer := range peers {
		lab.Run(t, peer.name, lab.Config{DaemonA: peer.daemon, DaemonB: peer.daemon}, func(l *lab.Lab) {
			t := l.T()
			l.Establish()
			rec := l.A.Record("wan", "rekeys.pcap")
			look := l.Look(packets/rate*time.Second + 3*time.Second)
			began := time.Now()
			there := l.Stream(lab.Stream{Packets: packets, Rate: rate})
			back := l.Stream(lab.Stream{From: l.LanB, To: l.LanA, Packets: packets, Rate: rate})
			for i := range rekeys {
				time.Sleep(apart)
				[]lab.IKE{l.A.IKE, l.B.IKE}[i%2].Rekey()
			}
			t.Logf("%d renewals in %v", rekeys, time.Since(began))
			arrived, arrivedBack := there(), back()
			report := look()
			rec.Stop()
			capture := report.Evidence.Capture
			for _, d := range []struct {
				name    string
				source  string
				seen    evidence.Sequence
				arrived int
			}{{"in", l.B.Address, capture.In.Sequence, arrivedBack}, {"out", l.A.Address, capture.Out.Sequence, arrived}} {
				spis, gaps := 0, 0
				for _, numbers := range rec.Numbers(d.source) {
					spis++
					gaps += int(numbers[len(numbers)-1]-numbers[0]) + 1 - len(numbers)
				}
				if spis <= rekeys || gaps != 0 {
					t.Errorf("%s: %d SPIs and %d missing numbers on the wire: this lab is not what the case says", d.name, spis, gaps)
				}
				// libreswan is without a policy or an association at times.
				if peer.daemon == lab.StrongSwan && d.arrived != packets {
					t.Errorf("%s: %d of %d packets crossed the tunnel", d.name, d.arrived, packets)
				}
				if s := d.seen; s.Lost != 0 || s.Duplicates != 0 || s.Discontinuities != 0 || int(s.Expected) < d.arrived {
					t.Errorf("%s: %+v, want nothing lost of %d or more", d.name, s, d.arrived)
				}
				t.Logf("%s: %d SPIs, %d packets arrived, %+v", d.name, spis, d.arrived, d.seen)
			}
			if talk := capture.Talk; talk.Rekeys < rekeys || talk.RekeysFailed != 0 {
				t.Errorf("%d renewals, %d failed, want %d and none", talk.Rekeys, talk.RekeysFailed, rekeys)
			}
			if report.Diagnosis != "ok" {
				t.Errorf("diagnosis is %s: %s", report.Diagnosis, report.Summary)
			}
			if t.Failed() {
				t.Logf("%s", report.Raw)
			}
		})
	}
}
