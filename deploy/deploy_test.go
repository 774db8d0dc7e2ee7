// Package deploy holds what it takes to run the agent as a service, and the
// tests of it.
package deploy

import (
	"bytes"
	"debug/elf"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"vpnprobe/config"
)

// maxExposure is the greatest exposure that the unit may have, in tenths, as
// systemd-analyze rates it.
const maxExposure = "21"

// tool runs a program, and skips the test where it is not installed.
func tool(t *testing.T, dir, name string, args ...string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "SYSTEMD_COLORS=0", "SYSTEMD_EMOJI=0")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestExample(t *testing.T) {
	cfg, err := config.Load("agent.yaml", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range config.Lint(cfg, nil) {
		t.Errorf("warning: %v", w)
	}
}

// TestExampleUncommented wants the keys that the example offers as comments
// to be right too.
func TestExampleUncommented(t *testing.T) {
	offered := regexp.MustCompile(`(?m)^( *)# ([a-z_]+: )`)
	text := read(t, "agent.yaml")
	if n := len(offered.FindAllString(text, -1)); n < 8 {
		t.Fatalf("only %d keys are offered as comments", n)
	}
	cfg, err := config.Parse(strings.NewReader(offered.ReplaceAllString(text, "$1$2")), "agent.yaml", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Lang != "zh" || cfg.Peers[0].Vendor != "huawei" {
		t.Errorf("the offered keys are not in effect: %+v", cfg)
	}
}

func TestUnitExposure(t *testing.T) {
	out, err := tool(t, ".", "systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold="+maxExposure, "systemd/vpnprobe.service")
	if !strings.Contains(out, "Overall exposure level for vpnprobe.service") {
		t.Skipf("systemd-analyze cannot rate a file (it needs systemd 250): %v: %s", err, out)
	}
	if err != nil {
		t.Errorf("exposure is above %s tenths:\n%s", maxExposure, out)
	}
}

// TestUnitVerified wants systemd to know every directive and to accept every
// value. The program itself need not be installed here.
func TestUnitVerified(t *testing.T) {
	out, err := tool(t, ".", "systemd-analyze", "verify", "--man=no", "--recursive-errors=no", "systemd/vpnprobe.service")
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "vpnprobe.service: Command ") && strings.Contains(line, " is not executable") {
			continue
		}
		if strings.Contains(line, "vpnprobe.service") {
			t.Errorf("systemd-analyze verify (%v): %s", err, line)
		}
	}
}

// TestUnitMatchesDefaults wants the unit to provide what the agent uses when
// it is told nothing else.
func TestUnitMatchesDefaults(t *testing.T) {
	unit := strings.Split(read(t, "systemd/vpnprobe.service"), "\n")
	for _, line := range []string{
		"ExecStart=/usr/local/bin/agent run --config " + config.DefaultPath,
		"StateDirectory=" + strings.TrimPrefix(config.Default().StateDirectory, "/var/lib/"),
		"CapabilityBoundingSet=CAP_NET_RAW CAP_NET_ADMIN CAP_BPF",
		"AmbientCapabilities=CAP_NET_RAW CAP_NET_ADMIN CAP_BPF",
	} {
		if !slices.Contains(unit, line) {
			t.Errorf("the unit lacks %q", line)
		}
	}
}

func TestRules(t *testing.T) {
	if out, err := tool(t, "prometheus", "promtool", "check", "rules", "rules.yaml"); err != nil {
		t.Errorf("promtool check rules: %v\n%s", err, out)
	}
	if out, err := tool(t, "prometheus", "promtool", "test", "rules", "rules_test.yaml"); err != nil {
		t.Errorf("promtool test rules: %v\n%s", err, out)
	}
}

// TestRulesUseMetrics wants every metric that an alert is about to be one that
// the agent exports.
func TestRulesUseMetrics(t *testing.T) {
	documented := read(t, "../docs/metrics.md")
	names := regexp.MustCompile(`vpnprobe_[a-z_]+`).FindAllString(read(t, "prometheus/rules.yaml"), -1)
	if len(names) == 0 {
		t.Fatal("the rules use no metric")
	}
	for _, name := range names {
		if !strings.Contains(documented, "`"+name+"`") {
			t.Errorf("docs/metrics.md knows no %s", name)
		}
	}
}

// TestRulesTested wants a test of each alert.
func TestRulesTested(t *testing.T) {
	tests := read(t, "prometheus/rules_test.yaml")
	alerts := regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(read(t, "prometheus/rules.yaml"), -1)
	if len(alerts) == 0 {
		t.Fatal("there is no alert")
	}
	for _, alert := range alerts {
		fires := regexp.MustCompile(`alertname: ` + alert[1] + `\n +exp_alerts:`)
		if !fires.MatchString(tests) {
			t.Errorf("no test in which %s fires", alert[1])
		}
	}
}

// TestDockerfile takes the image's build step by step: what .dockerignore
// leaves, built by the Dockerfile's own command.
func TestDockerfile(t *testing.T) {
	dockerfile := read(t, "../Dockerfile")
	src, out := t.TempDir(), t.TempDir()
	copyContext(t, src)
	_, run, ok := strings.Cut(dockerfile, "\nRUN CGO_ENABLED=0 ")
	if !ok {
		t.Fatal("the Dockerfile has no static build")
	}
	run, _, _ = strings.Cut(run, "\n\n")
	_, err := exec.LookPath("setcap")
	if err != nil || os.Geteuid() != 0 {
		t.Log("setcap is left out: it needs root and the program")
		run = regexp.MustCompile(`(?m) \\\n && setcap .*$`).ReplaceAllString(run, "")
	}
	cmd := exec.Command("sh", "-ec", "CGO_ENABLED=0 "+strings.ReplaceAll(run, "/out/", out+"/"))
	cmd.Dir = src
	cmd.Env = append(os.Environ(), "VERSION=1.2.3-test")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}

	agent := filepath.Join(out, "plain", "agent")
	f, err := elf.Open(agent)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the agent is linked dynamically: an image without a C library cannot run it")
		}
	}
	text, err := exec.Command(agent, "version").CombinedOutput()
	if err != nil || !bytes.Contains(text, []byte("1.2.3-test")) {
		t.Errorf("agent version: %s (%v), want 1.2.3-test in it", text, err)
	}
}

// TestDockerfileForm checks what no build step shows.
func TestDockerfileForm(t *testing.T) {
	dockerfile := read(t, "../Dockerfile")
	for _, want := range []string{"\nUSER 65532:65532\n", "\nFROM scratch AS base\n", "\nENTRYPOINT [\"/agent\"]\n"} {
		if !strings.Contains(dockerfile, want) {
			t.Errorf("the Dockerfile lacks %q", want)
		}
	}
	goVersion := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "../go.mod"))
	if goVersion == nil || !strings.Contains(dockerfile, "FROM golang:"+goVersion[1]+"-") {
		t.Errorf("the Dockerfile does not build with the Go of go.mod, %v", goVersion)
	}
}

// copyContext copies the module without what .dockerignore lists. The list
// has plain names and patterns of the top level only.
func copyContext(t *testing.T, dst string) {
	t.Helper()
	ignored := strings.Fields(regexp.MustCompile(`(?m)^#.*$`).ReplaceAllString(read(t, "../.dockerignore"), ""))
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == ".." {
			return err
		}
		rel, err := filepath.Rel("..", path)
		if err != nil {
			return err
		}
		for _, pattern := range ignored {
			match, err := filepath.Match(pattern, rel)
			switch {
			case err != nil:
				return err
			case match && d.IsDir():
				return fs.SkipDir
			case match:
				return nil
			}
		}
		if d.IsDir() {
			return os.Mkdir(filepath.Join(dst, rel), 0o755)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dst, rel), text, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
}
