//go:build linux

package integration

import (
	"fmt"
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
		tries  = 4 // to look for long enough
	)
	for _, peer := range peers {
		lab.Run(t, peer.name, lab.Config{DaemonA: peer.daemon, DaemonB: peer.daemon}, func(l *lab.Lab) {
			t := l.T()
			l.Establish()
			// How long renewals take is the machine's affair.
			_, _, trial := renew(l, rekeys/5)
			look := max(2*least, 2*5*trial)
			var (
				rec                    *lab.Recording
				report                 *lab.Report
				streamed, streamedBack lab.Streamed
			)
			for try := 1; report == nil; try++ {
				rec = l.A.Record("wan", fmt.Sprintf("rekeys-%d.pcap", try))
				began := time.Now()
				looked := l.Look(look)
				var took time.Duration
				streamed, streamedBack, took = renew(l, rekeys)
				seen := time.Since(began) < look
				r := looked()
				rec.Stop()
				t.Logf("%d renewals in %v, of a look of %v", rekeys, took, look)
				switch {
				case seen:
					report = r
				case try == tries:
					t.Fatalf("this machine is too busy for %d renewals in %v", rekeys, look)
				}
				look *= 2
			}
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
				if spis <= rekeys || gaps != 0 {
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

// renew renews the tunnel's associations so many times amidst traffic both
// ways, and tells what became of that and how long it took.
func renew(l *lab.Lab, times int) (there, back lab.Streamed, took time.Duration) {
	l.T().Helper()
	const rate, enough = 100, 1_000_000
	stop, began := make(chan struct{}), time.Now()
	out := l.Stream(lab.Stream{Packets: enough, Rate: rate, Stop: stop})
	in := l.Stream(lab.Stream{From: l.LanB, To: l.LanA, Packets: enough, Rate: rate, Stop: stop})
	for i := range times {
		l.Renew([]*lab.Gateway{l.A, l.B}[i%2])
	}
	close(stop)
	there, back = out(), in()
	return there, back, time.Since(began)
}
