package archtest

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// allowed says, for every package, which others of this module it may import.
// A name that ends in "/" stands for all packages below it.
var allowed = map[string][]string{
	"evidence":           {},
	"internal/wire/ike":  {},
	"internal/wire/esp":  {},
	"internal/version":   {},
	"internal/rawconn":   {},
	"config":             {},
	"probe":              {"evidence", "internal/rawconn", "internal/wire/"},
	"probe/ladder":       {"evidence", "probe", "internal/rawconn", "internal/wire/", "internal/ikecrypto"},
	"probe/pmtu":         {"evidence", "probe", "internal/rawconn", "internal/wire/"},
	"probe/tcpsize":      {"evidence", "internal/rawconn"},
	"probe/ikeauth":      {"evidence", "internal/rawconn", "internal/wire/", "internal/ikecrypto"},
	"internal/ikecrypto": {"internal/wire/"},
	"internal/budget":    {},
	"internal/daemon":    {"evidence"},
	"internal/bpfcount":  {"internal/wire/"},
	"capture":            {"evidence", "capture/ikeconv", "internal/rawconn", "internal/bpfcount", "internal/wire/"},
	"capture/ikeconv":    {"evidence", "internal/wire/"},
	"hoststate":          {"evidence", "internal/rawconn", "internal/wire/"},
	"diagnosis":          {"evidence"},
	"exporter":           {"evidence", "diagnosis"},
	"internal/report":    {"evidence", "diagnosis"},
	"internal/agent":     {"config", "evidence", "probe", "probe/", "capture", "hoststate", "diagnosis", "internal/rawconn", "internal/wire/", "internal/budget", "internal/daemon"},
	"internal/demo":      {"internal/wire/"},
	"cmd/agent":          {"config", "evidence", "diagnosis", "exporter", "hoststate", "internal/"},
	"deploy":             {},
	"internal/archtest":  {},
	"internal/netnstest": {},
	"internal/lab":       {"evidence", "internal/wire/"},
	"bench/capture":      {"capture", "evidence"},
	"bench/pathmtu":      {"evidence", "probe/pmtu"},
	"integration":        {"evidence", "internal/lab", "internal/wire/"},
}

// forbidden are packages of others that a package must not import, with why.
var forbidden = map[string][]string{
	"evidence":        {"os", "net", "log/slog"},                                      // a vocabulary, no I/O
	"diagnosis":       {"os", "net", "log/slog", "context"},                           // a pure function
	"probe":           {"github.com/prometheus/client_golang/prometheus"},             // observations, not metrics
	"capture":         {"github.com/prometheus/client_golang/prometheus"},             //
	"capture/ikeconv": {"os", "net", "log/slog"},                                      // pure
	"hoststate":       {"github.com/prometheus/client_golang/prometheus"},             //
	"config":          {"github.com/prometheus/client_golang/prometheus"},             //
	"internal/agent":  {"github.com/prometheus/client_golang/prometheus"},             // the exporter subscribes
	"internal/report": {"github.com/prometheus/client_golang/prometheus"},             //
	"exporter":        {"github.com/prometheus-community/pro-bing", "vpnprobe/probe"}, // shows, never probes
	// For tests only.
	"cmd/agent": {"testing", "vpnprobe/internal/lab", "vpnprobe/internal/netnstest"},
}

type goPackage struct {
	ImportPath string
	GoFiles    []string // without those of tests
	Imports    []string
	Doc        string
}

// TestImports holds every package to the import rule.
func TestImports(t *testing.T) {
	const module = "vpnprobe/"
	seen := 0
	for _, p := range list(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		may, ok := allowed[name]
		if !ok {
			t.Errorf("%s: not in the import rule; give it a layer here and in docs/architecture.md", name)
			continue
		}
		seen++
		for _, i := range p.Imports {
			other, ours := strings.CutPrefix(i, module)
			if ours && !slices.ContainsFunc(may, func(m string) bool { return other == m || strings.HasSuffix(m, "/") && strings.HasPrefix(other, m) }) {
				t.Errorf("%s imports %s, which its layer must not", name, other)
			}
			if slices.Contains(forbidden[name], i) {
				t.Errorf("%s imports %s, which it must not", name, i)
			}
		}
		if p.Doc == "" && len(p.GoFiles) > 0 {
			t.Errorf("%s has no package comment", name)
		}
	}
	if seen < 10 {
		t.Errorf("looked at %d packages only", seen)
	}
}

func list(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,GoFiles,Imports,Doc", "vpnprobe/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var p goPackage
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}
