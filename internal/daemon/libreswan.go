package daemon

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"

	"vpnprobe/evidence"
)

const (
	// whackDelay is how long whack's output may stay open after its end.
	whackDelay = time.Second

	maxStatus     = 4 << 20  // bytes of a status
	maxWhackLine  = 16 << 10 // bytes
	maxWhackLines = 2000     // of one negotiation
)

// libreswan is a pluto that is asked by its program whack.
type libreswan struct {
	whack, socket string
}

func (*libreswan) Name() string { return string(evidence.ByLibreswan) }

// plutoStatus is what pluto tells of its connections and states with one peer.
type plutoStatus struct {
	Status
	conn          string   // the connection's name, "" without one
	hosts         []string // its two gateways
	local, remote []string // its subnets, where it has any
	up            bool     // pluto keeps it up, or tries to, by itself
	routed        bool     // traffic sets it up
}

func (d *libreswan) Status(ctx context.Context, peer netip.Addr) (Status, error) {
	s, err := d.status(ctx, peer)
	return s.Status, err
}

func (d *libreswan) status(ctx context.Context, peer netip.Addr) (plutoStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	var lines []string
	size := 0
	err := d.run(ctx, func(line string) bool {
		lines = append(lines, line)
		size += len(line)
		return size < maxStatus
	}, "--status")
	if err == nil && size >= maxStatus {
		err = fmt.Errorf("ask libreswan at %s: its status is longer than %d bytes", d.socket, maxStatus)
	}
	if err != nil {
		return plutoStatus{}, err
	}
	return plutoStatusOf(lines, plain(peer)), nil
}

var (
	// 000 "cloud": 10.1.0.0/24===203.0.113.2[@a]...198.51.100.2[@b]===10.2.0.0/24; erouted; ...
	plutoConn = regexp.MustCompile(`^000 "([^"]+)"(?:\[\d+\](?: [^ ]+)?)?: (?:([^ ;]+)===)?([0-9a-fA-F.:]+)[^ ;]*?\.\.\.(?:[^ ;]*---)?([0-9a-fA-F.:]+)[^ ;=]*(?:===([^ ;]+))?; ([^;]*);`)
	// 000 "cloud":   policy: IKEv2+PSK+ENCRYPT+TUNNEL+UP+...;
	plutoPolicy = regexp.MustCompile(`^000 "([^"]+)"(?:\[\d+\](?: [^ ]+)?)?: +policy: ([^;]*);`)
	// 000 #1: "cloud":500 STATE_V2_ESTABLISHED_IKE_SA (established IKE SA); ...
	plutoState = regexp.MustCompile(`^000 #\d+: "([^"]+)"(?:\[\d+\](?: [^ ]+)?)?:\d+ STATE_(\w+) \(([^)]*)\)`)
)

func plutoStatusOf(lines []string, peer netip.Addr) plutoStatus {
	var s plutoStatus
	names := make(map[string]bool) // the connections to the peer
	for _, line := range lines {
		if m := plutoConn.FindStringSubmatch(line); m != nil {
			a, err := netip.ParseAddr(m[4])
			if err != nil || plain(a) != peer {
				continue
			}
			names[m[1]] = true
			if s.conn == "" {
				s.Configured, s.conn = true, m[1]
				s.hosts = []string{m[3], m[4]}
				s.local, s.remote = words(m[2]), words(m[5])
				s.routed = strings.HasSuffix(m[6], "erouted") // or "prospective erouted"
			}
		}
		if m := plutoPolicy.FindStringSubmatch(line); m != nil && m[1] == s.conn {
			s.up = slices.Contains(strings.Split(m[2], "+"), "UP")
		}
		if m := plutoState.FindStringSubmatch(line); m != nil && names[m[1]] {
			s.count(m[2], m[3])
		}
	}
	return s
}

func words(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// count reads one state, by its name and what pluto says of it.
func (s *plutoStatus) count(state, story string) {
	switch {
	case strings.Contains(story, "established Child SA"), strings.Contains(story, "IPsec SA established"):
		s.Installed = true
	case strings.Contains(story, "established IKE SA"), strings.Contains(story, "IKE SA established"):
		s.Established = true
	case strings.Contains(state, "DELETE"), strings.Contains(state, "ZOMBIE"), strings.Contains(state, "INFO"):
	default:
		s.Negotiating = true
	}
}

func (d *libreswan) Initiate(ctx context.Context, peer netip.Addr, rekey bool) (evidence.IKEAuth, error) {
	began := time.Now()
	before, err := d.status(ctx, peer)
	if err != nil {
		return evidence.IKEAuth{}, err
	}
	if why := busy("libreswan", before.Status, peer); why != "" {
		return evidence.IKEAuth{By: evidence.ByLibreswan, Skipped: why}, nil
	}
	if !before.Configured {
		return unable(evidence.ByLibreswan, noConnection("libreswan", peer))
	}
	how := before.way()
	if how == nil {
		why := clean(fmt.Sprintf("libreswan is not told to set up %q by itself, and would try for ever once asked: ipsec auto --up %s", before.conn, before.conn))
		if before.Established {
			return evidence.IKEAuth{By: evidence.ByLibreswan, Skipped: why}, nil
		}
		return unable(evidence.ByLibreswan, why)
	}

	log := newPlutoLog(before.conn)
	err = d.negotiate(ctx, log, initiateTimeout, how...)
	log.auth.Time = evidence.Some(began)
	if log.auth.Stage != evidence.StageComplete {
		if failed := d.cleanUp(ctx, before, peer); failed != nil && err == nil {
			log.auth.Said = said(log.auth.Said, failed.Error())
		}
		if log.lines == 0 && err != nil {
			return evidence.IKEAuth{}, err
		}
		if log.lines == 0 && log.auth.CannotLook == "" {
			log.auth.CannotLook = "libreswan did not say that it began"
		}
		return log.auth, nil
	}
	if !log.auth.Narrowed.Known() {
		log.auth.Narrowed = narrowed(log.auth.Selectors, before.local, before.remote)
	}
	if rekey && log.version == 2 {
		log.rekeying = true
		// What cannot be learnt stays unknown.
		_ = d.negotiate(ctx, log, rekeyTimeout, "--rekey-ipsec", "--name", before.conn)
	}
	return log.auth, nil
}

// way returns how to ask pluto for the connection, nil when there is no way
// back. An initiated connection is one that pluto keeps up from then on: it
// comes back after a failure, and libreswan 4 cannot be told not to. That is
// no news for a connection that is kept up already. One that waits for
// traffic is set up as by a packet, once.
func (s plutoStatus) way() []string {
	if s.up {
		return []string{"--initiate", "--name", s.conn}
	}
	if !s.routed {
		return nil
	}
	here, ok1 := inside(s.local, s.hosts[0])
	there, ok2 := inside(s.remote, s.hosts[1])
	if !ok1 || !ok2 {
		return nil
	}
	return []string{"--oppohere", here, "--oppothere", there}
}

// inside returns an address of a connection's subnet, or without one its
// gateway's.
func inside(subnet []string, host string) (string, bool) {
	if len(subnet) == 0 {
		return host, true
	}
	p, err := netip.ParsePrefix(subnet[0])
	if err != nil {
		return "", false // with a protocol or port
	}
	a := p.Masked().Addr()
	if p.Bits() < a.BitLen()-1 {
		a = a.Next()
	}
	return a.String(), true
}

// cleanUp ends what pluto would go on with by itself, even when the caller's
// time is up. What was there before it began, or came meanwhile, stays.
func (d *libreswan) cleanUp(ctx context.Context, before plutoStatus, peer netip.Addr) error {
	if before.up || before.Established {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	now, err := d.status(ctx, peer)
	if err != nil || now.Installed || !now.Negotiating && !now.Established {
		return err
	}
	return d.run(ctx, func(string) bool { return true }, "--terminate", "--name", before.conn)
}

// negotiate runs a whack that waits, and reads what pluto says until that
// decides. Pluto goes on without whack.
func (d *libreswan) negotiate(ctx context.Context, log *plutoLog, timeout time.Duration, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := d.run(ctx, func(line string) bool {
		log.add(line)
		return !log.decided && log.lines < maxWhackLines
	}, args...)
	if err != nil && ctx.Err() != nil && log.lines > 0 {
		return nil // the silence is what was seen
	}
	return err
}

// run runs whack and hands its lines to each, until that has enough. An exit
// status is not an error when whack reached pluto: it repeats the last line's
// number.
func (d *libreswan) run(ctx context.Context, each func(line string) bool, args ...string) error {
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(running, d.whack, append([]string{"--ctlsocket", d.socket}, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.WaitDelay = whackDelay
	out, in := io.Pipe()
	cmd.Stdout, cmd.Stderr = in, in
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("ask libreswan by %s: %w", d.whack, err)
	}
	ended := make(chan error, 1)
	go func() {
		err := cmd.Wait()
		in.Close()
		ended <- err
	}()
	enough, complaint := readLines(out, each)
	cancel()
	out.Close()
	err := <-ended
	switch {
	case enough:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("ask libreswan at %s: no answer in time: %w", d.socket, ctx.Err())
	case complaint != "":
		return fmt.Errorf("ask libreswan at %s: %s", d.socket, cut(clean(complaint)))
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return fmt.Errorf("ask libreswan at %s: %w", d.socket, err)
	}
	return nil
}

// reply begins the lines that come from pluto, as opposed to whack's own.
var reply = regexp.MustCompile(`^\d{3}(?: |$)`)

// readLines reads whack's output to its end, or until each has enough. The
// complaint is what does not come from pluto.
func readLines(out io.Reader, each func(line string) bool) (enough bool, complaint string) {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, maxWhackLine)
	for lines.Scan() {
		line := strings.TrimRight(lines.Text(), " \r")
		switch {
		case line == "":
		case !reply.MatchString(line):
			complaint = line
		case !each(line):
			return true, ""
		}
	}
	if err := lines.Err(); err != nil {
		complaint = err.Error()
	}
	return false, complaint
}
