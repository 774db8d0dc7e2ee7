package hoststate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"vpnprobe/evidence"
)

const (
	// saveTimeout bounds a run of iptables-save: the largest rule sets take it a
	// second or two.
	saveTimeout = 10 * time.Second

	// mostSaved bounds what is read of its output, in bytes: 100,000 rules are
	// about 10 MB.
	mostSaved = 64 << 20
)

// toolDirs are where the tools of a firewall are. The environment's search
// path has no say in what a privileged process runs.
var toolDirs = []string{"/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin", "/bin"}

// iptablesFamily is one of the two firewalls of iptables.
type iptablesFamily struct {
	v6    bool
	tool  string // the tools' names begin so
	names string // the kernel's list of the tables of the old kind that are there
}

var iptablesFamilies = [2]iptablesFamily{
	{tool: "iptables", names: "ip_tables_names"},
	{v6: true, tool: "ip6tables", names: "ip6_tables_names"},
}

// legacyClamps reads the tables of the kernel's old packet filter. Without
// tables there is nothing to run: a tool that is asked for a table of its own
// accord makes the kernel create it.
func (r *Reader) legacyClamps(ctx context.Context, family iptablesFamily, f *flows) ([]evidence.MSSClamp, error) {
	names, err := os.ReadFile(filepath.Join(r.proc, "thread-self", "net", family.names))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil // not in this kernel, or not loaded
	case errors.Is(err, fs.ErrPermission) && !r.legacyLoaded(family):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("whether %s has tables: %w: run as root", family.tool, err)
	case len(bytes.TrimSpace(names)) == 0:
		return nil, nil
	}
	tool := r.findTool(ctx, family.tool+"-legacy-save", family.tool+"-save", false)
	if tool == "" {
		return nil, fmt.Errorf("the kernel has tables of %s (%s), and there is no %s-legacy-save to read them: install iptables",
			family.tool, printable(strings.Join(strings.Fields(string(names)), ", ")), family.tool)
	}
	return save(ctx, tool, family.v6, f)
}

// legacyLoaded reports whether a module of the old packet filter's tables may
// be in the kernel, for those who may not read which tables there are.
func (r *Reader) legacyLoaded(family iptablesFamily) bool {
	modules, err := os.ReadFile(filepath.Join(r.proc, "modules"))
	if err != nil {
		return true
	}
	core, table := "ip_tables ", "iptable_"
	if family.v6 {
		core, table = "ip6_tables ", "ip6table_"
	}
	built, tables := true, false
	for line := range strings.Lines(string(modules)) {
		built = built && !strings.HasPrefix(line, core)
		tables = tables || strings.HasPrefix(line, table)
	}
	return built || tables
}

// nftToolClamps reads what iptables keeps in nftables.
func (r *Reader) nftToolClamps(ctx context.Context, family iptablesFamily, f *flows) ([]evidence.MSSClamp, error) {
	tool := r.findTool(ctx, family.tool+"-nft-save", family.tool+"-save", true)
	if tool == "" {
		return nil, fs.ErrNotExist
	}
	return save(ctx, tool, family.v6, f)
}

// findTool returns the path of the tool by the name that says its kind, or by
// the one that every kind has, or "".
func (r *Reader) findTool(ctx context.Context, exact, common string, nft bool) string {
	if path := r.tool(exact); path != "" {
		return path
	}
	path := r.tool(common)
	if path == "" {
		return ""
	}
	// "iptables-save v1.8.9 (nf_tables)"; before 1.8 there was the old kind only.
	var version bytes.Buffer
	err := runTool(ctx, []string{path, "--version"}, func(out io.Reader) error {
		_, err := io.CopyN(&version, out, 4096)
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return err
	})
	if isNFT := err == nil && strings.Contains(version.String(), "nf_tables"); isNFT != nft {
		return ""
	}
	return path
}

func (r *Reader) tool(name string) string {
	for _, dir := range r.tools {
		path := filepath.Join(dir, name)
		if s, err := os.Stat(path); err == nil && s.Mode().IsRegular() && s.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}

// save has the tool print all tables that are there, with counters.
func save(ctx context.Context, tool string, v6 bool, f *flows) ([]evidence.MSSClamp, error) {
	var clamps []evidence.MSSClamp
	err := runTool(ctx, []string{tool, "-c"}, func(out io.Reader) error {
		limited := &io.LimitedReader{R: out, N: mostSaved}
		var err error
		clamps, err = parseIPTables(limited, v6, f)
		if err == nil && limited.N <= 0 {
			err = errTooManyRules
		}
		return err
	})
	return clamps, err
}

// runTool runs a command in this thread's network namespace, hands what it
// prints to read, and ends it when read returns. It fails as read does, or when
// the command did.
func runTool(ctx context.Context, command []string, read func(io.Reader) error) error {
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = []string{"LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.Dir = "/"
	if os.Geteuid() != 0 {
		// A program does not inherit what setcap or the service manager gave.
		cmd.SysProcAttr = &syscall.SysProcAttr{AmbientCaps: []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW}}
	}
	cmd.WaitDelay = 200 * time.Millisecond // for what the command left behind
	complaint := &firstBytes{room: 256}
	cmd.Stderr = complaint
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return fmt.Errorf("run %s: %w", command[0], err)
	}
	failed := read(out)
	late := ctx.Err()
	if failed != nil {
		cancel()
	}
	err = cmd.Wait()
	switch {
	case late != nil:
		return fmt.Errorf("run %s: %w", command[0], late)
	case failed != nil:
		return fmt.Errorf("read what %s prints: %w", command[0], failed)
	case err != nil:
		line, _, _ := strings.Cut(strings.TrimSpace(string(complaint.b)), "\n")
		return fmt.Errorf("run %s: %w: %s", command[0], err, printable(line))
	}
	return nil
}

// firstBytes keeps the first bytes that are written to it.
type firstBytes struct {
	b    []byte
	room int
}

func (f *firstBytes) Write(b []byte) (int, error) {
	n := min(f.room, len(b))
	f.b = append(f.b, b[:n]...)
	f.room -= n
	return len(b), nil
}
