package hoststate

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"vpnprobe/evidence"
)

// Reader reads the host's state. Its calls may be made concurrently.
type Reader struct {
	proc, sys, lib string   // the file systems' roots, which tests replace
	tools          []string // the folders of the tools that are run, alike
}

// New returns a Reader of this host.
func New() *Reader { return &Reader{proc: "/proc", sys: "/sys", lib: "/lib", tools: toolDirs} }

// Daemon reports whether a socket is bound to UDP 500 or 4500 in this network
// namespace, which is how an IKE daemon shows, whichever it is, and how many
// bytes wait there to be read.
func (r *Reader) Daemon() (held evidence.Fact, backlog evidence.Opt[int]) {
	held = evidence.No
	waiting, known := 0, true
	for _, table := range []string{"udp", "udp6"} {
		f, err := os.Open(filepath.Join(r.proc, "thread-self", "net", table))
		if table == "udp6" && errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if err == nil {
			var n, queue int
			n, queue, err = ikeSockets(f)
			f.Close()
			waiting += queue
			if n > 0 {
				held = evidence.Yes
			}
		}
		if err != nil && held != evidence.Yes {
			held = evidence.Unknown
		}
		known = known && err == nil
	}
	if held == evidence.Yes && known {
		backlog = evidence.Some(waiting)
	}
	return held, backlog
}

// ikeSockets reads a table of UDP sockets (proc(5), /proc/net/udp): one line
// per socket, whose second field is the local address and port in hexadecimal,
// and whose fifth is what waits to be sent and to be read.
func ikeSockets(table io.Reader) (sockets, waiting int, err error) {
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		_, port, _ := strings.Cut(fields[1], ":")
		if port != "01F4" && port != "1194" { // 500, 4500
			continue
		}
		sockets++
		_, queue, _ := strings.Cut(fields[4], ":")
		if n, err := strconv.ParseUint(queue, 16, 31); err == nil {
			waiting += int(n)
		}
	}
	return sockets, waiting, lines.Err()
}
