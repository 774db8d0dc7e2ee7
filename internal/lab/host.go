//go:build linux

package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	defaultTimeout = 3 * time.Minute

	// guestMemory is only reserved: the host pays for the pages in use.
	guestMemory = "512M"

	// logTail is how much of a failed guest's kernel log is worth printing.
	logTail = 4 << 10
)

// host is what the tests on the host share; runHost sets it up.
var host struct {
	missing string // why no kernel can be booted here; "" if one can
	dir     string // scratch directory, removed at the end
	init    string // this test binary, built for the guest
	agent   string // the agent binary
	broken  error  // why one of these could not be built
}

// runHost runs the tests on the host, where each one boots a kernel.
func runHost(m *testing.M) int {
	if host.missing = missing(); host.missing != "" {
		fmt.Fprintln(os.Stderr, "lab: "+host.missing)
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "vpnprobe-lab-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	host.dir = dir
	host.init, host.broken = buildInit(dir)
	if host.broken == nil {
		host.agent, host.broken = buildAgent(dir)
	}
	return m.Run()
}

// missing says in one line what this machine lacks to boot a lab, and how to
// get it. It returns "" if nothing is missing.
func missing() string {
	if os.Geteuid() != 0 {
		return "the lab needs root to give its kernel a root file system: run the tests as root"
	}
	var packages []string
	for _, need := range []struct{ file, pkg string }{
		{umlModules, "user-mode-linux"},
		{"/usr/bin/linux.uml", "user-mode-linux"},
		{"/sbin/modprobe", "kmod"},
		{"/usr/sbin/charon-systemd", "charon-systemd"},
		{"/usr/sbin/swanctl", "strongswan-swanctl"},
		{"/usr/lib/ipsec/plugins/libstrongswan-openssl.so", "libstrongswan-standard-plugins"},
		{"/sbin/ip", "iproute2"},
		{"/usr/sbin/iptables-legacy", "iptables"},
		{"/usr/bin/ping", "iputils-ping"},
		{"/usr/bin/tcpdump", "tcpdump"},
		{"/usr/sbin/ethtool", "ethtool"},
		{"/usr/bin/prometheus", "prometheus"},
		{unpacked + "/libreswan" + libreswanPrograms + "/pluto", "libreswan"},
		{"/usr/bin/certutil", "libnss3-tools"},
		{unpacked + "/openiked/usr/sbin/iked", "openiked"},
		{"/usr/bin/openssl", "openssl"},
	} {
		if _, err := os.Stat(need.file); err != nil {
			packages = append(packages, need.pkg)
		}
	}
	if len(packages) == 0 {
		return ""
	}
	return "missing parts of the lab, of " + strings.Join(slices.Compact(packages), ", ") + ": run integration/packages.sh"
}

// buildInit builds the test binary that is running, which is the one of the
// current directory's package, as the init of a guest: static, and without
// the race detector, which does not fit into a User Mode Linux process.
func buildInit(dir string) (string, error) {
	path := filepath.Join(dir, "init")
	return path, build("test", "-c", "-o", path, ".")
}

// buildAgent builds the agent as it is released, or takes the one that
// VPNPROBE_AGENT names.
func buildAgent(dir string) (string, error) {
	if path := os.Getenv("VPNPROBE_AGENT"); path != "" {
		return filepath.Abs(path)
	}
	path := filepath.Join(dir, "agent")
	return path, build("build", "-o", path, "vpnprobe/cmd/agent")
}

// build runs the go command for a static binary.
func build(args ...string) error {
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// runInKernel boots a kernel that runs the test t, and reports its verdict.
func runInKernel(t *testing.T, timeout time.Duration) {
	t.Helper()
	if host.missing != "" {
		if os.Getenv("VPNPROBE_LAB_REQUIRED") != "" {
			t.Fatal(host.missing)
		}
		t.Skip(host.missing)
	}
	if host.broken != nil {
		t.Fatal(host.broken)
	}
	results, err := os.MkdirTemp(host.dir, "case-")
	if err != nil {
		t.Fatal(err)
	}
	console, err := boot(t.Name(), results, cmp.Or(timeout, defaultTimeout))
	verdict, readErr := os.ReadFile(filepath.Join(results, verdictFile))
	if err != nil || readErr != nil || string(verdict) != verdictPass {
		guest, _ := os.ReadFile(filepath.Join(results, guestLog))
		t.Errorf("verdict %q, kernel: %v\n%s\nend of the kernel's log:\n%s", verdict, err, guest, tail(console, logTail))
	}
	if keep := os.Getenv(envKeep); keep != "" {
		if err := keepResults(results, filepath.Join(keep, t.Name())); err != nil {
			t.Error(err)
		}
	}
}

// boot runs a kernel for the subtest name until it powers off, and returns
// what it printed on its console.
func boot(name, results string, timeout time.Duration) (console []byte, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	args := []string{
		"mem=" + guestMemory, "quiet", "noreboot", "panic=1",
		"rootfstype=hostfs", "rootflags=/", "ro", "init=" + host.init,
		"con=null", "con0=null,fd:1", "ssl=null",
		"uml_dir=" + results + "/", "umid=uml",
		envRun + "=" + name, envResults + "=" + results, envAgent + "=" + host.agent,
	}
	for _, variable := range os.Environ() {
		if strings.HasPrefix(variable, envPrefix) {
			args = append(args, variable)
		}
	}
	kernel := exec.CommandContext(ctx, "/usr/bin/linux.uml", args...)
	// Nothing of the caller's environment: UML picks its memory file's place
	// by itself (a tmpfs, which is faster) and unlinks it at once.
	kernel.Env = []string{"PATH=" + searchPath, "HOME=" + results}
	// The kernel is many processes on the host. It is process 1 of a process
	// namespace of its own, so that none of them outlives it, and it does not
	// outlive the test, even one that is killed.
	kernel.SysProcAttr = &syscall.SysProcAttr{
		Setpgid:    true,
		Pdeathsig:  syscall.SIGKILL,
		Cloneflags: syscall.CLONE_NEWPID,
	}
	killGroup := func() error { return syscall.Kill(-kernel.Process.Pid, syscall.SIGKILL) }
	kernel.Cancel = killGroup
	kernel.WaitDelay = 5 * time.Second

	// The death signal follows the thread that started the process, so the
	// thread must outlive it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	console, err = kernel.CombinedOutput()
	if kernel.Process != nil {
		if kerr := killGroup(); kerr != nil && !errors.Is(kerr, syscall.ESRCH) {
			err = errors.Join(err, kerr)
		}
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("killed after %v", timeout)
	}
	return console, err
}

// keepResults copies what a case left behind to where it can be looked at.
func keepResults(results, to string) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	// The monitor's socket is not a file to copy; it is gone by now or useless.
	if err := os.RemoveAll(filepath.Join(results, "uml")); err != nil {
		return err
	}
	return os.CopyFS(to, os.DirFS(results))
}

// tail returns the last n bytes of b.
func tail(b []byte, n int) []byte {
	return b[max(0, len(b)-n):]
}
