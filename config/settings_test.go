package config

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

// other holds, for every setting, a value that is not its default.
func other(i int) map[string]string {
	return map[string]string{
		"listen": []string{":1", ":2", ":3"}[i], "interval": []string{"11s", "12s", "13s"}[i],
		"icmp.interval": []string{"3s", "4s", "5s"}[i], "icmp.timeout": []string{"3s", "4s", "5s"}[i],
		"icmp.size": []string{"100", "200", "300"}[i], "inner_interval": []string{"off", "7s", "8s"}[i],
		"path_mtu_interval": []string{"2m", "3m", "4m"}[i], "thresholds.loss": []string{"3%", "4%", "5%"}[i],
		"thresholds.rtt": []string{"3ms", "4ms", "5ms"}[i], "state_directory": []string{"/a", "/b", "/c"}[i],
		"web_config_file": []string{"/a", "/b", "/c"}[i], "log.level": []string{"debug", "warn", "error"}[i],
		"capture.mode": []string{"bpf", "ring", "sa"}[i], "capture.xdp": []string{"always", "never", "always"}[i],
		"log.format": []string{"json", "text", "json"}[i], "lang": []string{"zh", "en", "zh"}[i],
	}
}

// TestPrecedence gives each setting by every subset of file, variable and
// flag, and wants the strongest of them to win.
func TestPrecedence(t *testing.T) {
	for _, s := range settings() {
		for sources := range 8 {
			text, env, args, want := "", []string{"HOME=/", s.env() + "="}, []string(nil), s.def
			if sources&1 != 0 {
				want = other(0)[s.key]
				text = inFile(s.key, want)
			}
			if sources&2 != 0 {
				want = other(1)[s.key]
				env = append(env, s.env()+"="+want)
			}
			if sources&4 != 0 {
				want = other(2)[s.key]
				args = append(args, "--"+s.flag()+"="+want)
			}
			fs := flags(t, args)
			got, err := Parse(strings.NewReader(text+Minimal), "agent.yaml", fs, env)
			if err != nil {
				t.Fatalf("%s from sources %03b: %v", s.key, sources, err)
			}
			expect := Default()
			if want != "" {
				if err := s.set(expect, want); err != nil {
					t.Fatal(err)
				}
			}
			expect.Peers = []Peer{expect.NewPeer("cloud", "198.51.100.2")}
			if diff := cmp.Diff(expect, got, values); diff != "" {
				t.Errorf("%s from sources %03b (-want +got):\n%s", s.key, sources, diff)
			}
		}
	}
}

func inFile(key, value string) string {
	group, name, nested := strings.Cut(key, ".")
	if !nested {
		return key + ": " + value + "\n"
	}
	return group + ":\n  " + name + ": " + value + "\n"
}

func flags(t *testing.T, args []string) *pflag.FlagSet {
	t.Helper()
	fs := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	Flags(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return fs
}

func TestInvalidOverride(t *testing.T) {
	// The file's own value is wrong too, but does not count.
	text := "interval: 1\nicmp: {size: 30}\n" + Minimal + "    icmp: {size: 1}\n"
	env := []string{"VPNPROBE_INTERVAL=soon", "VPNPROBE_LANG=fr", "VPNPROBE_LANG=de"}
	_, err := Parse(strings.NewReader(text), "agent.yaml", flags(t, []string{"--icmp-size=9", "--log-level="}), env)
	want := strings.Join([]string{
		`agent.yaml:7: peers[0].icmp.size: 1 is not within 24 to 65507`,
		`VPNPROBE_INTERVAL: interval: "soon" is not a duration: write it like 500ms, 10s or 5m`,
		`--icmp-size: icmp.size: 9 is not within 24 to 65507`,
		`--log-level: log.level: "" is not supported: write debug, info, warn or error`,
		`VPNPROBE_LANG: lang: "de" is not supported: write en or zh`,
	}, "\n")
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Errorf("error (-want +got):\n%s", diff)
	}
}

// TestProcessEnvironment makes sure that only the given variables count.
func TestProcessEnvironment(t *testing.T) {
	t.Setenv("VPNPROBE_INTERVAL", "20s")
	if got := parse(t, Minimal).Interval; got != 10*time.Second {
		t.Errorf("interval %s came from the process's environment", got)
	}
}

func TestLogLevels(t *testing.T) {
	for text, want := range map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
	} {
		if got := parse(t, "log: {level: "+text+"}\n"+Minimal).Log.Level; got != want {
			t.Errorf("level %s is %v, want %v", text, got, want)
		}
	}
}

func TestPath(t *testing.T) {
	if got := Path([]string{"A=b"}); got != DefaultPath {
		t.Errorf("Path without a variable is %q", got)
	}
	if got := Path([]string{"VPNPROBE_CONFIG=/x"}); got != "/x" {
		t.Errorf("Path is %q, want /x", got)
	}
}

func TestLintEnv(t *testing.T) {
	got := LintEnv([]string{"PATH=/bin", "VPNPROBE_CONFIG=/x", "VPNPROBE_LANG=zh", "VPNPROBE_EMPTY=",
		"VPNPROBE_INTERVALL=1s", "VPNPROBE_SERVICE_HOST=10.0.0.1", "VPNPROBE_PEERS=a,b"})
	want := []Warning{
		{"VPNPROBE_INTERVALL", "no such setting, the variable is ignored: did you mean VPNPROBE_INTERVAL?"},
		{"VPNPROBE_PEERS", "is a list, which only the file can hold: the variable is ignored"},
		{"VPNPROBE_SERVICE_HOST", "no such setting, the variable is ignored"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("LintEnv (-want +got):\n%s", diff)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "agent.yaml")
	if err := os.WriteFile(file, []byte(Minimal), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(file, nil, nil)
	if err != nil || len(c.Peers) != 1 {
		t.Fatalf("Load: %v, %v", c, err)
	}

	pipe, missing := filepath.Join(dir, "pipe"), filepath.Join(dir, "missing")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		dir:                  "read configuration: " + dir + " is not a regular file",
		pipe:                 "read configuration: " + pipe + " is not a regular file",
		missing:              "read configuration: stat " + missing + ": no such file or directory: create it, or name another with --config",
		"/proc/self/mem\x00": "read configuration: stat /proc/self/mem\x00: invalid argument",
	} {
		if _, err := Load(path, nil, nil); err == nil || err.Error() != want {
			t.Errorf("Load(%q): %v, want %s", path, err, want)
		}
	}
	if _, err := Load(missing, nil, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v is not fs.ErrNotExist", err)
	}
}

func TestFaultAs(t *testing.T) {
	_, err := Parse(strings.NewReader("lang: de\n"+Minimal), "agent.yaml", nil, nil)
	var fault Fault
	if !errors.As(err, &fault) {
		t.Fatalf("%v holds no Fault", err)
	}
	want := Fault{File: "agent.yaml", Line: 1, Key: "lang", Text: `"de" is not supported: write en or zh`}
	if diff := cmp.Diff(want, fault); diff != "" {
		t.Errorf("fault (-want +got):\n%s", diff)
	}
}
