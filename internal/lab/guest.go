//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	hostRoot     = "/host"    // where the guest sees the host's files, read-only
	guestResults = "/results" // where the guest sees the results directory, writable
	guestLog     = "guest.log"
	umlModules   = "/usr/lib/uml/modules"
	searchPath   = "/usr/sbin:/usr/bin:/sbin:/bin"

	// unpacked is where the host has the packages that are not installed, but
	// unpacked by integration/packages.sh.
	unpacked = "/var/cache/vpnprobe-lab"
)

// modules are loaded at boot, in one go: on demand, the first packet that
// needs one would wait for it.
var modules = []string{
	"veth", "sch_netem", "sch_ingress", "cls_bpf", "af_packet_diag",
	"xfrm_user", "esp4", "esp6", "authenc", "echainiv", "cbc", "hmac",
	"iptable_filter", "iptable_nat", "ip6table_filter", "xt_MASQUERADE", "xt_conntrack", "xt_policy", "ipt_REJECT", "ip6t_REJECT",
}

// runInit is process 1 of a lab's kernel. It lays out the file system, runs
// this binary once more as the test proper, and powers the machine off. It
// never returns.
func runInit() {
	if err := initGuest(); err != nil {
		fmt.Fprintln(os.Stderr, "lab init:", err) // the kernel's console
	}
	unix.Sync()
	err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	panic(fmt.Sprintf("power off: %v", err))
}

func initGuest() error {
	// The kernel starts its init with next to no environment.
	if err := os.Setenv("PATH", searchPath); err != nil {
		return err
	}
	if err := layOutRoot(os.Getenv(envResults)); err != nil {
		return fmt.Errorf("lay out the root: %w", err)
	}
	if out, err := exec.Command("modprobe", append([]string{"-a"}, modules...)...).CombinedOutput(); err != nil {
		return fmt.Errorf("load modules: %w: %s", err, out)
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(guestResults, guestLog))
	if err != nil {
		return err
	}
	test, err := os.StartProcess(exe, []string{exe}, &os.ProcAttr{
		Dir:   "/tmp",
		Files: []*os.File{nil, log, log},
	})
	if err != nil {
		return err
	}
	return reap(test.Pid)
}

// reap collects dead processes, as process 1 must, until pid is among them.
func reap(pid int) error {
	for {
		var status unix.WaitStatus
		switch dead, err := unix.Wait4(-1, &status, 0, nil); {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("wait for the test: %w", err)
		case dead == pid:
			return nil
		}
	}
}

// layOutRoot replaces the read-only root, which is the host's, by an empty one
// in memory that shows the host's programs where they are expected. results
// is a directory of the host that the guest may write to.
func layOutRoot(results string) error {
	const root = "/tmp" // any directory that exists on every host
	if err := unix.Mount("lab", root, "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	if err := os.Chdir(root); err != nil {
		return err
	}
	for _, dir := range []string{"host", "results", "proc", "sys", "dev", "run", "tmp", "root", "lib", "etc", "usr/libexec", "var/lib", "var/log", "var/tmp"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := linkRoot(); err != nil {
		return err
	}
	// Pivoting, not chroot: the kernel's own calls of modprobe follow.
	if err := unix.PivotRoot(".", "host"); err != nil {
		return fmt.Errorf("pivot root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	for _, m := range []struct{ source, target, fstype, data string }{
		{"proc", "/proc", "proc", ""},
		{"sys", "/sys", "sysfs", ""},
		{"dev", "/dev", "devtmpfs", ""},
		{"results", guestResults, "hostfs", results},
	} {
		if err := unix.Mount(m.source, m.target, m.fstype, 0, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	return syscall.Sethostname([]byte("lab"))
}

// linkRoot fills the new root, which is the current directory, with links to
// the host's files.
func linkRoot() error {
	links := map[string]string{
		"bin": "usr/bin", "sbin": "usr/sbin", "lib64": "usr/lib64", "var/run": "/run",
		// Where modprobe looks, and where libreswan expects itself.
		"lib/modules": umlModules, "usr/libexec/ipsec": hostRoot + unpacked + "/libreswan" + libreswanPrograms,
	}
	for dir, own := range map[string][]string{
		"/usr":         {"libexec"},
		"/usr/libexec": {"ipsec"},
		"/usr/lib":     {"modules"},
		"/etc":         {"passwd", "group", "iked"}, // an installed daemon would have its user
	} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		to := strings.TrimPrefix(dir, "/")
		if dir == "/usr/lib" {
			to = "lib" // the host's /lib is a link to it
		}
		for _, entry := range entries {
			if !slices.Contains(own, entry.Name()) {
				links[path.Join(to, entry.Name())] = path.Join(hostRoot, dir, entry.Name())
			}
		}
	}
	for link, target := range links {
		if err := os.Symlink(target, link); err != nil {
			return err
		}
	}
	for _, file := range []string{"etc/passwd", "etc/group"} {
		content, err := os.ReadFile("/" + file)
		if err != nil {
			return err
		}
		if err := os.WriteFile(file, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
