package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"vpnprobe/diagnosis"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// execute runs one command line as a shell would.
func execute(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var out, err bytes.Buffer
	code = run(ctx, args, &out, &err)
	return code, out.String(), err.String()
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestUsage wants one clear line and status 2 for everything that is said
// wrongly.
func TestUsage(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	good := file(t, "peers: [{name: cloud, gateway: 127.0.0.1}]\n")
	tests := []struct {
		name string
		args []string
		want string // in the one line
	}{
		{"no peer", []string{"probe"}, "--peer"},
		{"nonsense peer", []string{"probe", "--peer", "no such peer!"}, "neither an address nor a DNS name"},
		{"half an address", []string{"probe", "--peer", "198.51.100"}, "neither an address nor a DNS name"},
		{"multicast peer", []string{"probe", "--peer", "224.0.0.1"}, "one host"},
		{"unknown name beside a configuration", []string{"probe", "--config", good, "--peer", "clout"}, "configured: cloud"},
		{"bad source", []string{"probe", "--peer", "127.0.0.1", "--source", "x"}, "source"},
		{"bad inner", []string{"probe", "--peer", "127.0.0.1", "--inner", "10.2.0.0/24"}, "inner"},
		{"bad format", []string{"probe", "--peer", "127.0.0.1", "--format", "xml"}, "text or json"},
		{"bad language", []string{"probe", "--peer", "127.0.0.1", "--lang", "fr"}, "en or zh"},
		{"duration too short", []string{"probe", "--peer", "127.0.0.1", "--duration", "1ms"}, "duration"},
		{"no configuration", []string{"run", "--config", "/nonexistent/agent.yaml"}, "/nonexistent/agent.yaml"},
		{"port in use", []string{"run", "--config", good, "--listen", taken.Addr().String()}, "in use"},
		{"unknown label", []string{"explain", "nothing"}, "no diagnosis"},
		{"unknown command", []string{"prob"}, "prob"},
		{"unknown flag", []string{"run", "--bogus"}, "bogus"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := execute(t, tt.args...)
			lines := strings.Split(strings.TrimSpace(stderr), "\n")
			last := lines[len(lines)-1]
			if code != exitUsage || stdout != "" || !strings.Contains(last, tt.want) {
				t.Errorf("status %d, stdout %q, stderr %q; want status %d and a line with %q", code, stdout, stderr, exitUsage, tt.want)
			}
			if !strings.HasPrefix(tt.args[0], "run") && len(lines) != 1 {
				t.Errorf("%d lines, want one: %s", len(lines), stderr)
			}
		})
	}
}

// TestCheckListsEveryFault wants ten mistakes in ten lines, each with its key.
func TestCheckListsEveryFault(t *testing.T) {
	path := file(t, `
listen: nowhere
interval: soon
bogus: 1
references: [not-an-address]
icmp: {size: -1}
peers:
  - {name: "Not A Name", gateway: 198.51.100.2}
  - {name: b}
  - {name: c, gateway: 198.51.100.3, remote_subnets: [10.2.0.1/24]}
  - {name: c, gateway: 198.51.100.4, source: 2001:db8::1}
  - {name: d, gateway: 198.51.100.5, ike: {version: 3}}
`)
	code, stdout, stderr := execute(t, "check", "--config", path)
	if code != exitUsage || stdout != "" {
		t.Errorf("status %d, stdout %q", code, stdout)
	}
	for _, key := range []string{"listen", "interval", "bogus", "references[0]", "icmp.size", "peers[0].name", "peers[1].gateway", "peers[2].remote_subnets[0]", "peers[3].name", "peers[4].ike.version"} {
		found := 0
		for _, line := range strings.Split(stderr, "\n") {
			if strings.Contains(line, key) {
				found++
			}
		}
		if found == 0 {
			t.Errorf("no line names %s in:\n%s", key, stderr)
		}
	}
}

// TestCheckPrintsWhatLoads feeds the effective configuration back.
func TestCheckPrintsWhatLoads(t *testing.T) {
	code, first, stderr := execute(t, "check", "--config", file(t, "references: [192.0.2.53]\npeers: [{name: cloud, gateway: 198.51.100.2}]\n"), "--interval", "7s")
	if code != exitHealthy {
		t.Fatalf("status %d: %s", code, stderr)
	}
	if !strings.Contains(first, "interval: 7s") {
		t.Errorf("the flag did not win:\n%s", first)
	}
	if _, second, _ := execute(t, "check", "--config", file(t, first)); second != first {
		t.Errorf("printed again:\n%s\nat first:\n%s", second, first)
	}
}

// TestProbeJSON probes a loopback address on which no IKE daemon listens.
func TestProbeJSON(t *testing.T) {
	code, stdout, stderr := execute(t, "probe", "--peer", "127.0.0.77", "--duration", "3s", "--format", "json")
	var r struct {
		SchemaVersion int    `json:"schema_version"`
		Diagnosis     string `json:"diagnosis"`
	}
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		t.Fatalf("%v in %q; stderr %q", err, stdout, stderr)
	}
	if code != exitProblem || r.Diagnosis != "peer_ike_not_listening" || r.SchemaVersion != 1 {
		t.Errorf("status %d, report %+v", code, r)
	}
}

// TestExplain wants every label explained in both languages.
func TestExplain(t *testing.T) {
	_, all, _ := execute(t, "explain")
	for _, r := range diagnosis.Rules() {
		if !strings.Contains(all, string(r.Label)) {
			t.Errorf("%s is not listed", r.Label)
		}
		for _, lang := range []string{"en", "zh"} {
			code, one, _ := execute(t, "explain", string(r.Label), "--lang", lang)
			if code != exitHealthy || !strings.Contains(one, r.Remedy.In(lang)) {
				t.Errorf("explain %s in %s: status %d, %q", r.Label, lang, code, one)
			}
		}
	}
}
