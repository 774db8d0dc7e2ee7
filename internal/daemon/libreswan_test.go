package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnprobe/evidence"
)

var evidencePeer = netip.MustParseAddr("198.51.100.2")

func TestPlutoStatus(t *testing.T) {
	b, err := os.ReadFile("testdata/pluto/status.txt")
	if err != nil {
		t.Fatal(err)
	}
	up := string(b)
	conn, _, _ := strings.Cut(up, "000 State Information")
	hosts := []string{"203.0.113.2", "198.51.100.2"}
	for _, tt := range []struct {
		name, status, peer string
		want               plutoStatus
	}{
		{"up", up, "198.51.100.2", plutoStatus{
			Status: Status{Configured: true, Established: true, Installed: true},
			conn:   "cloud", hosts: hosts, local: []string{"10.1.0.0/24"}, remote: []string{"10.2.0.0/24"}, up: true, routed: true,
		}},
		{"mapped", up, "::ffff:198.51.100.2", plutoStatus{
			Status: Status{Configured: true, Established: true, Installed: true},
			conn:   "cloud", hosts: hosts, local: []string{"10.1.0.0/24"}, remote: []string{"10.2.0.0/24"}, up: true, routed: true,
		}},
		{"another peer", up, "198.51.100.3", plutoStatus{}},
		{"retrying", strings.ReplaceAll(conn, "+UP", "") + `000 #4: "cloud":500 STATE_V2_PARENT_I1 (sent IKE_SA_INIT request); RETRANSMIT in 7s; idle;` + "\n000 #4: pending CHILD SA for \"cloud\"\n", "198.51.100.2", plutoStatus{
			Status: Status{Configured: true, Negotiating: true},
			conn:   "cloud", hosts: hosts, local: []string{"10.1.0.0/24"}, remote: []string{"10.2.0.0/24"}, routed: true,
		}},
		{"quick mode", `000 "v1": 2001:db8::2[@a]---2001:db8::1...2001:db8:b::1---2001:db8:b::2[@b]; unrouted; eroute owner: #0
000 #33: "v1":500 STATE_MAIN_I4 (IKE SA established); REPLACE in 28009s; newest; idle;
000 #34: "v1":500 STATE_QUICK_I1 (sent Quick Mode request); RETRANSMIT in 0s; idle;`, "2001:db8:b::2", plutoStatus{
			Status: Status{Configured: true, Negotiating: true, Established: true}, conn: "v1", hosts: []string{"2001:db8::2", "2001:db8:b::2"},
		}},
		{"instance", `000 "road": 203.0.113.2[@a]...%any[@b]; unrouted; eroute owner: #0
000 "road"[1]: 203.0.113.2[@a]...198.51.100.2<vpn.example>[@b]===10.2.0.0/24; erouted; eroute owner: #7
000 #7: "road"[1] 198.51.100.2:4500 STATE_V2_ESTABLISHED_CHILD_SA (established Child SA); REKEY in 1s;
000 #6: "road"[1] 198.51.100.2:4500 STATE_V2_IKE_SA_DELETE (STATE_V2_IKE_SA_DELETE); idle;`, "198.51.100.2", plutoStatus{
			Status: Status{Configured: true, Installed: true}, conn: "road", hosts: hosts, remote: []string{"10.2.0.0/24"}, routed: true,
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := plutoStatusOf(strings.Split(tt.status, "\n"), plain(netip.MustParseAddr(tt.peer)))
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(plutoStatus{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// fakeWhack is a script that notes its arguments and prints what a file named
// after the command holds. A command with a file "command.hang" then waits. A
// file "later" replaces the status once a negotiation began.
func fakeWhack(t *testing.T, output map[string]string) (d *libreswan, calls func() string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range output {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	script := fmt.Sprintf(`#!/bin/sh
shift 2
echo "$*" >> %[1]s/calls
[ "$1" = --oppohere ] && [ -e %[1]s/later ] && mv %[1]s/later %[1]s/--status
cat %[1]s/$1 2>/dev/null
[ -e %[1]s/$1.hang ] && exec sleep 60
[ -e %[1]s/$1.status ] && exit $(cat %[1]s/$1.status)
exit 0
`, dir)
	path := filepath.Join(dir, "whack")
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return &libreswan{whack: path, socket: "/run/pluto/pluto.ctl"}, func() string {
		b, err := os.ReadFile(filepath.Join(dir, "calls"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return string(b)
	}
}

// idle is a connection that waits for traffic.
const idle = `000 "cloud": 10.1.0.0/24===203.0.113.2[@a.lab.example]...198.51.100.2[@b.lab.example]===10.2.0.0/24; prospective erouted; eroute owner: #0
000 "cloud":   policy: IKEv2+PSK+ENCRYPT+TUNNEL+PFS+IKE_FRAG_ALLOW+ESN_NO+ESN_YES;
`

const (
	established0 = `000 #16: "cloud":500 STATE_V2_ESTABLISHED_IKE_SA (established IKE SA); REKEY in 27779s; newest; idle;` + "\n"
	installed    = `000 #17: "cloud":500 STATE_V2_ESTABLISHED_CHILD_SA (established Child SA); REKEY in 27779s; newest; idle;` + "\n"
)

func TestLibreswanInitiate(t *testing.T) {
	text := func(name string) string { return strings.Join(lines(t, "pluto/"+name), "\n") + "\n" }
	const status, demand, end, rekey = "--status\n", "--oppohere 10.1.0.1 --oppothere 10.2.0.1\n", "--terminate --name cloud\n", "--rekey-ipsec --name cloud\n"
	trying := `000 #22: "cloud":500 STATE_V2_PARENT_I1 (sent IKE_SA_INIT request); RETRANSMIT in 7s; idle;` + "\n"
	up := strings.ReplaceAll(idle, "+PFS", "+PFS+UP")
	for _, tt := range []struct {
		name   string
		output map[string]string
		rekey  bool
		calls  string
		want   evidence.IKEAuth
	}{
		{"established", map[string]string{"--status": idle, "--oppohere": text("ikev2-established")}, false, status + demand,
			with(established, func(a *evidence.IKEAuth) { a.Narrowed = evidence.No })},
		{"rekeyed", map[string]string{"--status": idle, "--oppohere": text("ikev2-established"), "--rekey-ipsec": text("rekey-accepted")}, true, status + demand + rekey,
			with(established, func(a *evidence.IKEAuth) { a.Narrowed, a.Rekey = evidence.No, evidence.Yes })},
		{"rekey refused, whack waits", map[string]string{"--status": idle, "--oppohere": text("ikev2-established"), "--rekey-ipsec": text("rekey-refused"), "--rekey-ipsec.hang": ""}, true, status + demand + rekey,
			with(established, func(a *evidence.IKEAuth) {
				a.Narrowed, a.Rekey, a.Notify = evidence.No, evidence.No, "NO_PROPOSAL_CHOSEN"
			})},
		{"IKEv1 is not rekeyed", map[string]string{"--status": idle, "--oppohere": text("ikev1-established")}, true, status + demand,
			with(established, func(a *evidence.IKEAuth) { a.Selectors = "" })},
		{"key refused", map[string]string{"--status": idle, "--oppohere": text("ikev2-psk"), "--oppohere.status": "36"}, true, status + demand + status, wrongKey},
		{"refused, whack waits", map[string]string{"--status": idle, "--oppohere": text("ikev2-proposal"), "--oppohere.hang": "", "later": idle + trying}, true, status + demand + status + end, refused},
		{"meanwhile set up", map[string]string{"--status": idle, "--oppohere": text("ikev2-proposal"), "--oppohere.hang": "", "later": idle + trying + installed}, true, status + demand + status, refused},
		{"the IKE SA was there", map[string]string{"--status": idle + established0, "--oppohere": text("ikev2-esp"), "--oppohere.hang": ""}, true, status + demand, child("NO_PROPOSAL_CHOSEN")},
		{"kept up anyway", map[string]string{"--status": up, "--initiate": text("ikev2-psk")}, true, status + "--initiate --name cloud\n", wrongKey},
		{"neither kept up nor routed", map[string]string{"--status": strings.ReplaceAll(idle, "prospective erouted", "unrouted")}, true, status,
			evidence.IKEAuth{Skipped: `libreswan is not told to set up "cloud" by itself, and would try for ever once asked: ipsec auto --up cloud`}},
		{"neither kept up nor routed, and an IKE SA is there", map[string]string{"--status": strings.ReplaceAll(idle, "prospective erouted", "unrouted") + established0}, true, status,
			evidence.IKEAuth{Skipped: `libreswan is not told to set up "cloud" by itself, and would try for ever once asked: ipsec auto --up cloud`}},
		{"not begun", map[string]string{"--status": idle, "--oppohere": "033 cannot initiate on-demand for packet: no routed template covers this pair\n", "--oppohere.status": "33"}, true, status + demand + status,
			evidence.IKEAuth{Stage: evidence.StageInit, CannotLook: "libreswan did not begin: cannot initiate on-demand for packet: no routed template covers this pair"}},
		{"not a word", map[string]string{"--status": idle}, true, status + demand + status, evidence.IKEAuth{Stage: evidence.StageInit, CannotLook: "libreswan did not say that it began"}},
		{"not configured", map[string]string{"--status": "000 Total IPsec connections: loaded 0, active 0\n"}, true, status,
			evidence.IKEAuth{Skipped: "libreswan has no connection to 198.51.100.2 that it could set up"}},
		{"installed", map[string]string{"--status": idle + `000 #2: "cloud":500 STATE_V2_ESTABLISHED_CHILD_SA (established Child SA); idle;`}, true, status,
			evidence.IKEAuth{Skipped: "a child SA with 198.51.100.2 is up in libreswan, which shows that both ends agree"}},
		{"negotiating", map[string]string{"--status": idle + `000 #2: "cloud":500 STATE_V2_PARENT_I1 (sent IKE_SA_INIT request); idle;`}, true, status,
			evidence.IKEAuth{Skipped: "libreswan is negotiating with 198.51.100.2 itself"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, calls := fakeWhack(t, tt.output)
			got, err := d.Initiate(t.Context(), evidencePeer, tt.rekey)
			if unable := tt.name == "neither kept up nor routed" || tt.name == "not configured"; unable != errors.Is(err, ErrUnable) || !unable && err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, withoutTime); diff != "" {
				t.Error(diff)
			}
			if got.By != evidence.ByLibreswan || got.Time.Known() == (got.Skipped != "") {
				t.Errorf("by %q at %v", got.By, got.Time)
			}
			if diff := cmp.Diff(tt.calls, calls()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestWhackHangs: whoever waits is let go, and pluto's attempt is ended.
func TestWhackHangs(t *testing.T) {
	silence := strings.Join(lines(t, "pluto/ikev2-silence"), "\n") + "\n"
	trying := `000 #4: "cloud":500 STATE_V2_PARENT_I1 (sent IKE_SA_INIT request); RETRANSMIT in 7s; idle;`
	d, calls := fakeWhack(t, map[string]string{"--status": idle, "--oppohere": silence, "--oppohere.hang": "", "later": idle + trying})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	got, err := d.Initiate(ctx, evidencePeer, true)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(initial, got, withoutTime); diff != "" {
		t.Error(diff)
	}
	if !strings.HasSuffix(calls(), "--terminate --name cloud\n") {
		t.Errorf("asked for\n%s", calls())
	}

	d, _ = fakeWhack(t, map[string]string{"--status.hang": ""})
	ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := d.Status(ctx, evidencePeer); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a status that does not come: %v", err)
	}
}

func TestWhackFails(t *testing.T) {
	for name, tt := range map[string]struct {
		output map[string]string
		want   string
	}{
		"not running": {map[string]string{"--status": "whack: Pluto is not running (no \"/run/pluto/pluto.ctl\")\n", "--status.status": "33"},
			`ask libreswan at /run/pluto/pluto.ctl: whack: Pluto is not running (no "/run/pluto/pluto.ctl")`},
		"endless": {map[string]string{"--status": strings.Repeat("000 "+strings.Repeat("x", 1000)+"\n", maxStatus/1000)},
			"ask libreswan at /run/pluto/pluto.ctl: its status is longer than 4194304 bytes"},
		"endless line": {map[string]string{"--status": "000 " + strings.Repeat("x", maxWhackLine)},
			"ask libreswan at /run/pluto/pluto.ctl: bufio.Scanner: token too long"},
	} {
		d, _ := fakeWhack(t, tt.output)
		_, err := d.Status(t.Context(), evidencePeer)
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s: got %v, want %s", name, err, tt.want)
		}
	}
	gone := &libreswan{whack: "/nonexistent/whack", socket: "/run/pluto/pluto.ctl"}
	if _, err := gone.Status(t.Context(), evidencePeer); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without the program: %v", err)
	}
}
