package hoststate

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"vpnprobe/evidence"
)

// Reader reads the host's state. Its calls may be made concurrently.
type Reader struct {
	proc, sys, lib string // the file systems' roots, which tests replace
}

// New returns a Reader of this host.
func New() *Reader { return &Reader{proc: "/proc", sys: "/sys", lib: "/lib"} }

// Daemon reports whether a socket is bound to UDP 500 or 4500 in this network
// namespace, which is how an IKE daemon shows, whichever it is.
func (r *Reader) Daemon() evidence.Fact {
	found := evidence.No
	for _, table := range []string{"udp", "udp6"} {
		f, err := os.Open(filepath.Join(r.proc, "thread-self", "net", table))
		if table == "udp6" && errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if err != nil {
			found = evidence.Unknown
			continue
		}
		held, err := holdsIKEPort(f)
		f.Close()
		switch {
		case held:
			return evidence.Yes
		case err != nil:
			found = evidence.Unknown
		}
	}
	return found
}

// holdsIKEPort reads a table of UDP sockets (proc(5), /proc/net/udp): one line
// per socket, whose second field is the local address and port in hexadecimal.
func holdsIKEPort(table io.Reader) (bool, error) {
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		_, port, _ := strings.Cut(fields[1], ":")
		if port == "01F4" || port == "1194" { // 500, 4500
			return true, nil
		}
	}
	return false, lines.Err()
}
