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
		rekeys = 20
		rate   = 100
		apart  = 200 * time.Millisecond // so that each pair of associations carries some packets
		look   = 25 * time.Second       // more than enough for all of them
	)
	for _, peer := range peers {
		lab.Run(t, peer.name, lab.Config{DaemonA: peer.daemon, DaemonB: peer.daemon}, func(l *lab.Lab) {
			t := l.T()
			l.Establish()
			rec := l.A.Record("wan", "rekeys.pcap")
			looked := l.Look(look)
			began := time.Now()
			stop := make(chan struct{})
			there := l.Stream(lab.Stream{Packets: 10000, Rate: rate, Stop: stop})
			back := l.Stream(lab.Stream{From: l.LanB, To: l.LanA, Packets: 10000, Rate: rate, Stop: stop})
			for i := range rekeys {
				time.Sleep(apart)
				l.Renew([]*lab.Gateway{l.A, l.B}[i%2])
			}
			time.Sleep(apart)
			close(stop)
			t.Logf("%d renewals in %v", rekeys, time.Since(began))
			streamed, streamedBack := there(), back()
			report := looked()
			rec.Stop()
			capture := report.Evidence.Capture
			for _, d := range []struct {
				name   string
				source string
				seen   evidence.Sequence
				stream lab.Streamed
			}{{"in", l.B.Address, capture.In.Sequence, streamedBack}, {"out", l.A.Address, capture.Out.Sequence, streamed}} {
				spis, gaps := 0, 0
				for _, numbers := range rec.Numbers(d.source) {
					spis++
					gaps += int(numbers[len(numbers)-1]-numbers[0]) + 1 - len(numbers)
				}
				if spis < rekeys || gaps != 0 { // one pair may have been too short in use
					t.Errorf("%s: %d SPIs and %d missing numbers on the wire: this lab is not what the case says", d.name, spis, gaps)
				}
				// libreswan is without a policy or an association at times.
				if peer.daemon == lab.StrongSwan && d.stream.Arrived != d.stream.Sent {
					t.Errorf("%s: %d of %d packets crossed the tunnel", d.name, d.stream.Arrived, d.stream.Sent)
				}
				if s := d.seen; s.Lost != 0 || s.Duplicates != 0 || s.Discontinuities != 0 || int(s.Expected) < d.stream.Arrived {
					t.Errorf("%s: %+v, want nothing lost of %d or more", d.name, s, d.stream.Arrived)
				}
				t.Logf("%s: %d SPIs, %d packets arrived, %+v", d.name, spis, d.stream.Arrived, d.seen)
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
