//go:build linux

package lab

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// envPrefix begins the variables that a guest shares with the host: they are
// on its kernel's command line, from where its init inherits them.
const envPrefix = "VPNPROBE_LAB_"

// The variables that tell a process which part it plays are unset on the host.
const (
	envRun     = "VPNPROBE_LAB_RUN"     // the one subtest that this kernel was booted for
	envResults = "VPNPROBE_LAB_RESULTS" // the results directory, by its path on the host
	envKeep    = "VPNPROBE_LAB_KEEP"    // where the host keeps results; asks the guest for a capture
	envAgent   = "VPNPROBE_LAB_AGENT"   // the agent binary, by its path on the host
	envCase    = "VPNPROBE_LAB_CASE"    // which cases of RunCases to run; the host's and the guest's
)

// verdictFile, in the results directory, holds the verdict of the subtest.
// Only the end of a body that ran writes it, so that a kernel that
// crashed, or a name that matched nothing, cannot pass for a success.
const (
	verdictFile = "verdict"
	verdictPass = "pass"
	verdictFail = "fail"
)

// Main is the whole of TestMain for a package whose tests call [Run].
func Main(m *testing.M) {
	name := os.Getenv(envRun)
	switch {
	case name == "":
		os.Exit(runHost(m))
	case os.Getpid() == 1:
		runInit()
	default:
		for flagName, value := range map[string]string{"test.run": exactly(name), "test.v": "true"} {
			if err := flag.Set(flagName, value); err != nil {
				panic(err)
			}
		}
		os.Exit(m.Run())
	}
}

// Run runs body as the subtest name of t, in a kernel and network of its own.
// Subtests run in parallel with each other, as many as go test's -parallel.
func Run(t *testing.T, name string, config Config, body func(l *Lab)) {
	t.Helper()
	if os.Getenv(envRun) == "" {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runInKernel(t, config.Timeout)
		})
		return
	}
	t.Run(name, func(t *testing.T) {
		verdict := verdictFail
		// Registered first, so run last: after the checks that body leaves behind.
		t.Cleanup(func() {
			if t.Failed() || t.Skipped() {
				verdict = verdictFail
			}
			path := filepath.Join(guestResults, verdictFile)
			if err := os.WriteFile(path, []byte(verdict), 0o644); err != nil {
				t.Errorf("record the verdict: %v", err)
			}
		})
		body(newLab(t, config))
		verdict = verdictPass
	})
}

// exactly returns the go test -run pattern that matches the one test name.
func exactly(name string) string {
	parts := strings.Split(name, "/")
	for i, part := range parts {
		parts[i] = fmt.Sprintf("^%s$", part)
	}
	return strings.Join(parts, "/")
}
