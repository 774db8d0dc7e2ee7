package agent

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"vpnprobe/config"
	"vpnprobe/evidence"
	"vpnprobe/hoststate"
	"vpnprobe/internal/budget"
	"vpnprobe/internal/daemon"
)

// fakeDaemon has a status, and says how an initiation went.
type fakeDaemon struct {
	daemon.Daemon
	status daemon.Status
	says   evidence.IKEAuth
	err    error
	asked  int
	rekey  bool
}

func (d *fakeDaemon) Name() string { return "strongswan" }
func (d *fakeDaemon) Status(context.Context, netip.Addr) (daemon.Status, error) {
	return d.status, d.err
}
func (d *fakeDaemon) Initiate(_ context.Context, _ netip.Addr, rekey bool) (evidence.IKEAuth, error) {
	d.asked++
	d.rekey = rekey
	return d.says, nil
}

// TestAuthenticateOrder wants the local daemon asked first, and nothing done
// where an SA exists or is being made.
func TestAuthenticateOrder(t *testing.T) {
	target := netip.MustParseAddr("127.0.0.1") // nothing listens at the ports below
	complete := evidence.IKEAuth{By: evidence.ByStrongSwan, Stage: evidence.StageComplete, Authenticated: evidence.Yes}
	refused := evidence.IKEAuth{By: evidence.ByStrongSwan, Stage: evidence.StageAuth, Notify: "AUTHENTICATION_FAILED"}
	for _, tt := range []struct {
		name    string
		daemon  fakeDaemon
		asked   int
		by      evidence.AuthBy
		skipped string
	}{
		{"child installed", fakeDaemon{status: daemon.Status{Configured: true, Established: true, Installed: true}}, 0, "", "authenticated already"},
		{"refused, and an IKE SA stays", fakeDaemon{status: daemon.Status{Configured: true, Established: true}, says: refused}, 1, evidence.ByStrongSwan, ""},
		{"not configured, but an IKE SA is up", fakeDaemon{status: daemon.Status{Established: true}}, 0, "", "authenticated already"},
		{"cannot be asked", fakeDaemon{err: errors.New("permission denied")}, 0, "", "permission denied"},
		{"negotiating", fakeDaemon{status: daemon.Status{Configured: true, Negotiating: true}}, 0, "", "negotiating"},
		{"daemon succeeds", fakeDaemon{status: daemon.Status{Configured: true}, says: complete}, 1, evidence.ByStrongSwan, ""},
		{"daemon refused, we are not even answered", fakeDaemon{status: daemon.Status{Configured: true}, says: refused}, 1, evidence.ByStrongSwan, ""},
		{"daemon of others", fakeDaemon{}, 0, evidence.ByAgent, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := budget.Open(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			d := tt.daemon
			env := &Env{Host: hoststate.New(), Log: slog.New(slog.DiscardHandler), Budget: b, IKEPorts: map[uint16]uint16{500: 9, 4500: 9},
				Daemons: func(context.Context) ([]daemon.Daemon, error) { return []daemon.Daemon{&d}, nil }}
			cfg := config.Default().NewPeer("cloud", target.String())
			cfg.IKE.Proposals = []config.Proposal{{Encryption: []string{"aes256"}, Integrity: []string{"sha256"}, Groups: []string{"curve25519"}}}
			cfg.ESP.Proposals = cfg.IKE.Proposals
			p := newPeer(env, cfg, nil, nil, oncePace(0))
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			got := p.authenticate(ctx, []netip.Addr{target}, []byte("secret"))
			if d.asked != tt.asked || d.asked > 0 && !d.rekey {
				t.Errorf("the daemon was asked %d times (rekey %v), want %d", d.asked, d.rekey, tt.asked)
			}
			if got.By != tt.by || !strings.Contains(got.Skipped, tt.skipped) || (got.Skipped == "") != (tt.skipped == "") {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// TestAuthenticationReused wants an earlier result told while it is too early
// for another attempt, unless it was made of something else.
func TestAuthenticationReused(t *testing.T) {
	b, err := budget.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	cfg := config.Default().NewPeer("cloud", thePeer.String())
	cfg.Source = thisHost
	env := &Env{Log: slog.New(slog.DiscardHandler), Budget: b}
	p := newPeer(env, cfg, nil, nil, oncePace(0))
	if earlier, ok := p.reserveAuth(thePeer); !ok {
		t.Fatalf("the first attempt is not admitted: %+v", earlier)
	}
	found := evidence.IKEAuth{Time: evidence.Some(time.Now().Round(0)), By: evidence.ByAgent, Stage: evidence.StageAuth, Notify: "AUTHENTICATION_FAILED"}
	p.keep(thePeer, found)
	if earlier, ok := p.reserveAuth(thePeer); ok || !earlier.Reused || earlier.Notify != found.Notify || !earlier.Time.Known() {
		t.Errorf("got %+v, %v within ten minutes", earlier, ok)
	}
	cfg.IKE.LocalID = "another"
	if earlier, ok := newPeer(env, cfg, nil, nil, oncePace(0)).reserveAuth(thePeer); ok || earlier.Reused || !strings.Contains(earlier.Skipped, "10m") {
		t.Errorf("got %+v, %v for another identity", earlier, ok)
	}
}

// TestAwaitSlot wants an attempt to wait for the budget instead of failing.
func TestAwaitSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := testGate(t)
		if p, skipped := g.Admit(t.Context(), evidence.StepInit); p == nil {
			t.Fatal(skipped)
		}
		cfg := config.Default().NewPeer("cloud", thePeer.String())
		cfg.Source = thisHost
		began := time.Now()
		slot, why := newPeer(g.env, cfg, nil, nil, oncePace(0)).awaitSlot(t.Context(), thePeer)
		if slot == nil {
			t.Fatal(why)
		}
		if waited := time.Since(began); waited < budget.HoldHalfOpen-time.Second || waited > budget.HoldHalfOpen+5*time.Second {
			t.Errorf("waited %v", waited)
		}
	})
}
