package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/probe/pmtu"
)

// searchVariable holds the target in the environment of a process that is to
// search.
const searchVariable = "BENCH_PATHMTU_TARGET"

// A tool finds a path MTU.
type tool struct {
	name        string
	command     []string
	environment []string
	debian      string   // package; "" is ours
	version     []string // command
	// verdict reads the path MTU from what the tool printed, and is 0 when it
	// did not reach the target.
	verdict func(out string) int
}

var tools = []tool{
	{
		name: "vpnprobe", command: []string{"/proc/self/exe"},
		environment: []string{searchVariable + "=" + serverAddr},
		verdict:     func(out string) int { n, _ := strconv.Atoi(strings.TrimSpace(out)); return n },
	},
	{
		name: "tracepath", command: []string{"tracepath", "-n", serverAddr},
		debian: "iputils-tracepath", version: []string{"tracepath", "-V"}, verdict: tracepathVerdict,
	},
	{
		name: "scamper", command: []string{"scamper", "-I", "trace -M " + serverAddr},
		debian: "scamper", version: []string{"scamper", "-v"}, verdict: scamperVerdict,
	},
}

// absent says how to get the tool if it is missing.
func (t tool) absent() string {
	if t.debian == "" {
		return ""
	}
	return absent(t.command[0], t.debian)
}

func absent(command, debian string) string {
	if _, err := exec.LookPath(command); err != nil {
		return fmt.Sprintf("%s is missing: Debian package %s", command, debian)
	}
	return ""
}

var (
	tracepathMTU = regexp.MustCompile(`Resume: pmtu (\d+)`)
	scamperMTU   = regexp.MustCompile(`(?m)^\s*\d+\s+` + regexp.QuoteMeta(serverAddr) + `\s.*\[\*?mtu: (\d+)\]`)
)

// tracepathVerdict ignores the last line of a tracepath that did not reach its
// target, which is the MTU of its own link.
func tracepathVerdict(out string) int {
	if !strings.Contains(out, "reached") {
		return 0
	}
	return number(tracepathMTU, out)
}

// scamperVerdict is the MTU in the line of the target.
func scamperVerdict(out string) int { return number(scamperMTU, out) }

func number(r *regexp.Regexp, out string) int {
	m := r.FindStringSubmatch(out)
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

// outcome is one run of a tool.
type outcome struct {
	packets uint64
	took    time.Duration
	mtu     int // 0 without a verdict
	ended   bool
}

// run runs a tool once. A tool that fails, or does not end in time, has no
// verdict.
func (n *network) run(ctx context.Context, t tool, limit time.Duration) (o outcome, err error) {
	if err := n.client.configure(ctx, "ip route flush cache"); err != nil {
		return o, err
	}
	before, err := n.sent()
	if err != nil {
		return o, err
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	begin := time.Now()
	out, failed := n.client.command(limited, t.environment, t.command...)
	o.took = time.Since(begin)
	if err := ctx.Err(); err != nil {
		return o, err
	}
	if o.ended = limited.Err() == nil; o.ended && failed != nil {
		return o, failed
	}
	after, err := n.sent()
	if err != nil {
		return o, err
	}
	o.packets = after - before
	if o.ended {
		o.mtu = t.verdict(out)
	}
	return o, nil
}

// search is the process that searches, as the agent would, and prints the path
// MTU, or 0.
func search(ctx context.Context, target string, stdout, stderr io.Writer) int {
	addr, err := netip.ParseAddr(target)
	if err == nil && target != serverAddr {
		err = errors.New("not an address of this command's namespaces")
	}
	var found evidence.PathMTU
	if err == nil {
		found, err = pmtu.Search(ctx, pmtu.Config{Target: addr, Role: evidence.Gateway})
	}
	if err != nil {
		fmt.Fprintf(stderr, "pathmtu: search %s: %v\n", target, err)
		return 1
	}
	mtu, _ := found.MTU.Get()
	fmt.Fprintln(stdout, mtu)
	return 0
}

// versionOf is the first line that a tool prints about itself, to either output.
func versionOf(ctx context.Context, t tool) string {
	if t.debian == "" {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, t.version[0], t.version[1:]...).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return t.absent()
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
}
