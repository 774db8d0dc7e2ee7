package probe

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"vpnprobe/evidence"
	"vpnprobe/internal/netnstest"
)

const (
	allGroups = "0 2147483647"
	noGroup   = "1 0"
)

// runEcho sends count requests and returns what became of them.
func runEcho(t *testing.T, cfg EchoConfig, count int) []evidence.EchoResult {
	t.Helper()
	var got []evidence.EchoResult
	if err := NewEcho(cfg).Run(t.Context(), count, func(r evidence.EchoResult) { got = append(got, r) }); err != nil {
		t.Fatal(err)
	}
	return got
}

func wantTally(t *testing.T, want map[string]int, results []evidence.EchoResult) {
	t.Helper()
	if diff := cmp.Diff(want, tally(results)); diff != "" {
		t.Errorf("results (-want +got):\n%s%+v", diff, results)
	}
}

func TestEchoLoopback(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	for _, groups := range []string{allGroups, noGroup} { // unprivileged and raw sockets
		netnstest.Sysctl(t, "ipv4/ping_group_range", groups)
		for _, cfg := range []EchoConfig{
			{Target: netip.MustParseAddr("127.0.0.9")},
			{Target: netip.MustParseAddr("127.0.0.9"), Source: netip.MustParseAddr("127.0.0.8"), Size: 1000},
			{Target: netip.MustParseAddr("127.0.0.9"), Interface: "lo", Size: 1},
			{Target: netip.MustParseAddr("127.0.0.9"), Size: 30000},
			{Target: netip.IPv6Loopback()},
			{Target: netip.IPv6Loopback(), Source: netip.IPv6Loopback(), Interface: "lo", Size: 2000},
		} {
			cfg.Interval, cfg.Role = 10*time.Millisecond, evidence.Reference
			t.Run(fmt.Sprintf("%s %v %v %s %d", groups, cfg.Target, cfg.Source, cfg.Interface, cfg.Size), func(t *testing.T) {
				got := runEcho(t, cfg, 30)
				for i, r := range got {
					got[i].Reordered = false // a busy host reads several sockets in any order
					if r.RTT <= 0 || r.Target != cfg.Target || r.Role != cfg.Role || r.Sent.IsZero() {
						t.Errorf("got %+v", r)
					}
				}
				wantTally(t, map[string]int{"reply": 30}, got)
			})
		}
		t.Run(groups+" ignored", func(t *testing.T) {
			netnstest.Sysctl(t, "ipv4/icmp_echo_ignore_all", "1")
			defer netnstest.Sysctl(t, "ipv4/icmp_echo_ignore_all", "0")
			cfg := EchoConfig{Target: netip.MustParseAddr("127.0.0.9"), Interval: 10 * time.Millisecond, Timeout: 50 * time.Millisecond}
			wantTally(t, map[string]int{"lost": 10}, runEcho(t, cfg, 10))
		})
	}
}

// A target that cannot be sent to, at the start or later, costs next to
// nothing, and is probed with the first request after it can.
func TestEchoSendErrors(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	netnstest.Sysctl(t, "ipv4/ping_group_range", allGroups)
	netnstest.IP(t, "link add veth0 type veth peer name veth0p", "link set veth0 up", "link set veth0p up", "addr add 192.0.2.1/24 dev veth0")
	// So that a rule can come before the host's own addresses.
	netnstest.IP(t, "rule add pref 20 lookup local", "rule del pref 0", "-6 rule add pref 20 lookup local", "-6 rule del pref 0")
	const target4, target6 = "198.51.100.7", "2001:db8::7"
	answer := []string{"addr add " + target4 + "/32 dev lo", "addr add " + target6 + "/128 dev lo"}
	silence := []string{"addr del " + target4 + "/32 dev lo", "addr del " + target6 + "/128 dev lo"}
	for _, tt := range []struct {
		name     string
		fail     []string
		mend     []string
		reason   evidence.SendReason
		answered bool // before fail
	}{
		{name: "no route at the start", mend: answer, reason: evidence.NoRoute},
		{name: "no route later", answered: true, fail: silence, mend: answer, reason: evidence.NoRoute},
		{name: "prohibited at the start", reason: evidence.Prohibited,
			fail: []string{"rule add pref 10 to " + target4 + " prohibit", "-6 rule add pref 10 to " + target6 + " prohibit"},
			mend: append([]string{"rule del to " + target4 + " prohibit", "-6 rule del to " + target6 + " prohibit"}, answer...)},
		{name: "prohibited later", answered: true, reason: evidence.Prohibited,
			fail: []string{"rule add pref 10 to " + target4 + " prohibit", "-6 rule add pref 10 to " + target6 + " prohibit"},
			mend: []string{"rule del to " + target4 + " prohibit", "-6 rule del to " + target6 + " prohibit"}},
	} {
		for _, target := range []string{target4, target6} {
			t.Run(tt.name+" "+target, func(t *testing.T) {
				_ = netnstest.Run("ip addr flush dev lo scope global") // fails without any
				if tt.answered {
					netnstest.IP(t, answer...)
				}
				cfg := EchoConfig{Target: netip.MustParseAddr(target), Interval: 50 * time.Millisecond, Timeout: 500 * time.Millisecond}
				checkOutage(t, cfg, outage{
					fail: func() { netnstest.IP(t, tt.fail...) }, mend: func() { netnstest.IP(t, tt.mend...) },
					answered: tt.answered, reason: tt.reason,
				})
			})
		}
	}
}

type outage struct {
	fail, mend func()
	answered   bool // before fail
	reason     evidence.SendReason
}

// checkOutage runs an Echo through an outage.
func checkOutage(t *testing.T, cfg EchoConfig, o outage) {
	t.Helper()
	results := make(chan evidence.EchoResult, 1000)
	next := func(what string, until func(evidence.EchoResult) bool) []evidence.EchoResult {
		t.Helper()
		var seen []evidence.EchoResult
		for {
			select {
			case r := <-results:
				seen = append(seen, r)
				if until(r) {
					return seen
				}
			case <-time.After(20 * time.Second):
				t.Fatalf("never %s: %+v", what, seen)
			}
		}
	}
	if !o.answered {
		o.fail()
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- NewEcho(cfg).Run(ctx, 0, func(r evidence.EchoResult) { results <- r })
	}()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	replied := func(r evidence.EchoResult) bool { return r.Outcome == evidence.EchoReply }
	failed := func(r evidence.EchoResult) bool { return r.Outcome == evidence.EchoSendError }
	if o.answered {
		next("answered", replied)
		o.fail()
	}
	seen := next("refused", failed)
	since := seen[len(seen)-1].Sent

	before := cpuTime(t)
	for range 20 {
		for _, r := range next("refused", failed) {
			if r.Sent.After(since) && r.Send != o.reason {
				t.Errorf("got %+v, want a send error: %s", r, o.reason)
			}
		}
	}
	// Twenty requests, a second: spinning would take all of it.
	if used := cpuTime(t) - before; used > 400*time.Millisecond {
		t.Errorf("20 refused requests took %v of CPU time", used)
	}

	o.mend()
	mended := time.Now()
	for _, r := range next("answered again", replied) {
		if r.Sent.After(mended) && r.Outcome != evidence.EchoReply {
			t.Errorf("got %+v after the mend", r)
		}
	}
}

// cpuTime returns what this process has used.
func cpuTime(tb testing.TB) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// The error of a process that may do nothing names both ways out.
func TestEchoPermission(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	netnstest.Sysctl(t, "ipv4/ping_group_range", noGroup)
	errs := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread has lost its capabilities
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&hdr, &none[0]); err != nil {
			errs <- err
			return
		}
		for _, target := range []string{"127.0.0.1", "::1"} {
			e := NewEcho(EchoConfig{Target: netip.MustParseAddr(target)})
			errs <- e.Run(context.Background(), 1, func(evidence.EchoResult) {})
		}
	}()
	for range 2 {
		err := <-errs
		if err == nil {
			t.Fatal("no error without permission")
		}
		for _, want := range []string{"CAP_NET_RAW", "net.ipv4.ping_group_range"} {
			if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q: want one line that names %s", err, want)
			}
		}
	}
}

// BenchmarkEcho reports what one answered request costs on loopback, the
// answering included.
func BenchmarkEcho(b *testing.B) {
	cfg := EchoConfig{Target: netip.MustParseAddr("127.0.0.1"), Interval: time.Millisecond}
	if _, err := openProBing(cfg); err != nil {
		b.Skip(err)
	}
	before := cpuTime(b)
	lost := 0
	if err := NewEcho(cfg).Run(b.Context(), b.N, func(r evidence.EchoResult) {
		if r.Outcome == evidence.EchoLost {
			lost++
		}
	}); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N)/1e3, "cpu-us/op")
	b.ReportMetric(float64(lost), "lost")
}
