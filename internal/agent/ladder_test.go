package agent

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/budget"
	"vpnprobe/internal/daemon"
)

var (
	thisHost = netip.MustParseAddr("203.0.113.2")
	thePeer  = netip.MustParseAddr("198.51.100.2")
)

// busyDaemon negotiates with the peer until a time.
type busyDaemon struct {
	daemon.Daemon
	until time.Time
}

func (d busyDaemon) Name() string { return "strongswan" }
func (d busyDaemon) Status(context.Context, netip.Addr) (daemon.Status, error) {
	return daemon.Status{Configured: true, Negotiating: time.Now().Before(d.until)}, nil
}

func testGate(t *testing.T, daemons ...daemon.Daemon) *gate {
	t.Helper()
	b, err := budget.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	env := &Env{Log: slog.New(slog.DiscardHandler), Budget: b,
		Daemons: func(context.Context) ([]daemon.Daemon, error) { return daemons, nil }}
	return &gate{env: env, source: thisHost, peer: thePeer}
}

// TestGateBudget wants one permit a minute, unless the peer kept nothing.
func TestGateBudget(t *testing.T) {
	g := testGate(t)
	first, skipped := g.Admit(t.Context(), evidence.StepInit)
	if first == nil {
		t.Fatalf("the first exchange is not admitted: %+v", skipped)
	}
	first.Release()
	if again, skipped := g.Admit(t.Context(), evidence.StepInit); again == nil {
		t.Fatalf("not admitted after a release: %+v", skipped)
	}
	p, skipped := g.Admit(t.Context(), evidence.StepMain)
	if p != nil || skipped == nil || skipped.Reason != evidence.SkipBudget || skipped.Step != evidence.StepMain {
		t.Fatalf("got %v, %+v within a minute of an exchange that may have left state", p, skipped)
	}
	if until, ok := skipped.Until.Get(); !ok || time.Until(until) > budget.HoldHalfOpen || time.Until(until) < budget.HoldHalfOpen/2 {
		t.Errorf("admitted again at %v, want within a minute", until)
	}
	other := *g
	other.peer = netip.MustParseAddr("198.51.100.3")
	if p, skipped := other.Admit(t.Context(), evidence.StepInit); p == nil {
		t.Errorf("another peer is not admitted: %+v", skipped)
	}
}

func TestGateNegotiating(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := testGate(t, busyDaemon{until: time.Now().Add(time.Hour)})
		began := time.Now()
		if p, skipped := g.Admit(t.Context(), evidence.StepInit); p != nil || skipped.Reason != evidence.SkipNegotiating || !strings.Contains(skipped.Detail, "strongswan") {
			t.Errorf("got %v, %+v while the daemon negotiates", p, skipped)
		}
		if waited := time.Since(began); waited < daemonPatience || waited > 2*daemonPatience {
			t.Errorf("waited %v for the daemon", waited)
		}
	})
}

func TestGateNegotiationEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := testGate(t, busyDaemon{until: time.Now().Add(time.Second)})
		if p, skipped := g.Admit(t.Context(), evidence.StepInit); p == nil {
			t.Errorf("not admitted after the daemon's negotiation: %+v", skipped)
		}
	})
}

func TestGateWithoutBudget(t *testing.T) {
	g := testGate(t)
	g.env.Budget, g.env.BudgetErr = nil, "no directory"
	if p, skipped := g.Admit(t.Context(), evidence.StepInit); p != nil || skipped.Reason != evidence.SkipNoState || skipped.Detail != "no directory" {
		t.Errorf("got %v, %+v without a budget", p, skipped)
	}
}

func TestReadPSK(t *testing.T) {
	const secret = "correct horse"
	write := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for content, want := range map[string]string{secret + "\n": secret, secret + "\r\n": secret, secret: secret, " " + secret + " \n\n": " " + secret + " \n"} {
		if got, err := ReadPSK(write("psk", content, 0o600)); err != nil || string(got) != want {
			t.Errorf("ReadPSK(%q) = %q, %v", content, got, err)
		}
	}
	for name, path := range map[string]string{
		"mode":          write("psk", secret, 0o640),
		"is empty":      write("psk", "\n", 0o600),
		"longer than":   write("psk", strings.Repeat(secret, 1000), 0o600),
		"not a regular": t.TempDir(),
		"no such file":  filepath.Join(t.TempDir(), "none"),
	} {
		if _, err := ReadPSK(path); err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: got error %v", name, err)
		}
	}
}
