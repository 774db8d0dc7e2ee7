package daemon

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Find returns the IKE daemons that run in the network namespace of the
// calling thread. Daemons that were found are returned along with an error
// about others, which names what is missing to ask them.
func Find(ctx context.Context) ([]Daemon, error) {
	return finder{proc: "/proc", trusted: trusted}.find(ctx)
}

// finder looks for daemons in a proc file system, which tests replace.
type finder struct {
	proc    string
	trusted func(socket string) error
}

// find begins with the listening sockets: their table is that of one network
// namespace and readable by everyone. The processes matter for a daemon that
// has no such socket, and for where libreswan's programs are.
func (f finder) find(ctx context.Context) ([]Daemon, error) {
	table, err := os.Open(filepath.Join(f.proc, "thread-self/net/unix"))
	if err != nil {
		return nil, fmt.Errorf("find the IKE daemon: %w", err)
	}
	defer table.Close()
	sockets, err := listening(table)
	if err != nil {
		return nil, fmt.Errorf("find the IKE daemon: %w", err)
	}
	processes, faults := f.processes(ctx)

	var daemons []Daemon
	has := make(map[string]bool)
	for _, socket := range sockets {
		who := owner(socket)
		if who == "" {
			continue
		}
		has[who] = true // reachable or not, it is told of once
		if err := f.trusted(socket); err != nil {
			faults = append(faults, err)
			continue
		}
		switch who {
		case "strongSwan":
			daemons = append(daemons, &strongSwan{socket})
		case "libreswan":
			whack, err := f.whack(processes)
			if err != nil {
				faults = append(faults, err)
				continue
			}
			daemons = append(daemons, &libreswan{whack: whack, socket: socket})
		}
	}
	for _, p := range processes {
		if has[p.who] {
			continue
		}
		has[p.who] = true
		faults = append(faults, p.unreachable())
	}
	return daemons, oneLine(faults)
}

// oneLine joins errors in one line, as an operator reads them.
func oneLine(faults []error) (err error) {
	for _, fault := range faults {
		if err == nil {
			err = fault
			continue
		}
		err = fmt.Errorf("%w; %w", err, fault)
	}
	return err
}

// owner returns the daemon that makes a socket of that name.
func owner(socket string) string {
	switch base := filepath.Base(socket); {
	case strings.Contains(base, "vici"):
		return "strongSwan"
	case strings.Contains(base, "pluto") && strings.HasSuffix(base, ".ctl"):
		return "libreswan"
	}
	return ""
}

// listening reads a table of unix sockets (proc(5), /proc/net/unix) and
// returns the paths of those that accept connections.
func listening(table io.Reader) (paths []string, err error) {
	const accepts = 0x10000 // __SO_ACCEPTCON, include/linux/net.h
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		// Num RefCount Protocol Flags Type St Inode Path
		fields := strings.Fields(lines.Text())
		if len(fields) < 8 {
			continue
		}
		flags, err := strconv.ParseUint(fields[3], 16, 32)
		if err != nil || flags&accepts == 0 {
			continue
		}
		path := strings.Join(fields[7:], " ")
		if filepath.IsAbs(path) {
			paths = append(paths, path)
		}
	}
	return paths, lines.Err()
}

// trusted refuses a socket that anyone could have made, and so could answer
// for the daemon.
func trusted(socket string) error {
	dir := filepath.Dir(socket)
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("ask the IKE daemon at %s: permission denied: run as root", socket)
	case err != nil:
		return fmt.Errorf("ask the IKE daemon at %s: its socket is not in this process's file system: %w", socket, err)
	}
	if ours(info) && info.Mode().Perm()&0o002 == 0 {
		return nil
	}
	// Where all may write, as in /tmp, nobody can replace another's socket.
	if s, err := os.Lstat(socket); err == nil && ours(info) && ours(s) && s.Mode()&fs.ModeSocket != 0 && info.Mode()&fs.ModeSticky != 0 {
		return nil
	}
	return fmt.Errorf("ask the IKE daemon at %s: left out, for others than root can make sockets in %s", socket, dir)
}

// ours reports whether a file belongs to root or to us.
func ours(info fs.FileInfo) bool {
	uid := info.Sys().(*syscall.Stat_t).Uid
	return uid == 0 || int(uid) == os.Geteuid()
}

// process is an IKE daemon's process.
type process struct {
	id      string
	who     string
	program string // "" when it may not be read
	blind   bool   // its network namespace may not be read
}

// unreachable says what is missing to ask a daemon without a known socket.
func (p process) unreachable() error {
	switch {
	case p.blind:
		return fmt.Errorf("find the IKE daemon: %s runs as process %s, in a network namespace that may not be read: run as root, with CAP_SYS_PTRACE", p.who, p.id)
	case p.who == "strongSwan":
		return fmt.Errorf("find the IKE daemon: strongSwan runs here as process %s, without a vici socket: load its vici plugin", p.id)
	}
	return fmt.Errorf("find the IKE daemon: %s runs here as process %s, without a control socket", p.who, p.id)
}

// processes returns the daemons' processes in our network namespace, and
// those of which that may not be known.
func (f finder) processes(ctx context.Context) (found []process, faults []error) {
	own, err := os.Readlink(filepath.Join(f.proc, "thread-self/ns/net"))
	if err != nil {
		return nil, []error{fmt.Errorf("find the IKE daemon: %w", err)}
	}
	dir, err := os.Open(f.proc)
	if err != nil {
		return nil, []error{fmt.Errorf("find the IKE daemon: %w", err)}
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, []error{fmt.Errorf("find the IKE daemon: %w", err)}
	}
	for _, id := range names {
		if ctx.Err() != nil {
			return found, []error{fmt.Errorf("find the IKE daemon: %w", ctx.Err())}
		}
		if _, err := strconv.Atoi(id); err != nil {
			continue
		}
		p := process{id: id, who: f.command(id)}
		if p.who == "" {
			continue
		}
		namespace, err := os.Readlink(filepath.Join(f.proc, id, "ns/net"))
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ESRCH):
			continue // gone
		case err != nil:
			p.blind = true
		case namespace != own:
			continue
		}
		if info, err := os.Stat(filepath.Join(f.proc, id)); err == nil && info.Sys().(*syscall.Stat_t).Uid == 0 {
			p.program, _ = os.Readlink(filepath.Join(f.proc, id, "exe"))
		}
		found = append(found, p)
	}
	return found, nil
}

// command returns the daemon whose process this is.
func (f finder) command(id string) string {
	name, err := os.ReadFile(filepath.Join(f.proc, id, "comm"))
	if err != nil {
		return "" // gone
	}
	switch strings.TrimSpace(string(name)) {
	case "charon", "charon-systemd":
		return "strongSwan"
	case "pluto":
		return "libreswan"
	}
	return ""
}

// whack returns libreswan's remote control: the one beside the pluto that
// runs, else where distributions put it.
func (finder) whack(processes []process) (string, error) {
	paths := []string{"/usr/libexec/ipsec/whack", "/usr/lib/ipsec/whack", "/usr/local/libexec/ipsec/whack"}
	for _, p := range processes {
		if p.who == "libreswan" && p.program != "" && !p.blind {
			paths = append([]string{filepath.Join(filepath.Dir(p.program), "whack")}, paths...)
		}
	}
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o022 == 0 && info.Sys().(*syscall.Stat_t).Uid == 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("ask libreswan: its program whack was not found at %s", strings.Join(paths, ", "))
}
