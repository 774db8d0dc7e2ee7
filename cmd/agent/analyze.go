package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"vpnprobe/diagnosis"
	"vpnprobe/hoststate"
	"vpnprobe/internal/agent"
)

// followLast is how far back a capture that is followed is looked at, unless
// --last says otherwise.
const followLast = time.Minute

type analyzeFlags struct {
	reportFlags
	peer, local string
	last        time.Duration
	follow      bool
}

func analyzeCommand() *cobra.Command {
	var f analyzeFlags
	c := &cobra.Command{
		Use:   "analyze FILE|-",
		Short: "say what is wrong with a tunnel, from a recorded capture of it",
		Long: `Say what is wrong with a tunnel, from a recorded capture of it.

Reads pcap and pcapng, compressed by gzip or not; - is standard input:

  tcpdump -i wan -s 2000 -U -w - 'esp or ah or udp port 500 or udp port 4500
    or icmp or icmp6 or ip[6:2] & 0x1fff != 0 or ip6 proto 44' | agent analyze -

The last part of the filter lets later fragments pass. The peer is found in the
capture by itself where that is possible. A capture shows less than the host
itself: docs/analyze.md says what it can tell.
Exit status: 0 healthy, 1 a problem was diagnosed, 2 wrong usage, or the file
cannot be read, or which peer is meant is not clear, 3 could not decide.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return analyze(c, f, args[0]) },
	}
	fs := c.Flags()
	f.register(fs)
	fs.StringVar(&f.peer, "peer", "", "the peer's name in the configuration, or the remote gateway's `address` or DNS name (default: by what the capture holds)")
	fs.StringVar(&f.local, "local", "", "an `address` of this side, to tell the two ends apart")
	fs.DurationVar(&f.last, "last", 0, "look only at so much of the capture's end (default: all of it; with --follow, 1m)")
	fs.BoolVar(&f.follow, "follow", false, "go on as the capture grows, and report again whenever the diagnosis changes; with --format json, a line for each report")
	return c
}

func analyze(c *cobra.Command, f analyzeFlags, path string) error {
	o, err := f.offline(path)
	if err != nil {
		return err
	}
	if c.Flags().Changed("last") && f.last <= 0 {
		return fmt.Errorf("last %v: want a length of time", f.last)
	}
	cfg, err := f.load(c)
	if err != nil {
		return err
	}
	if f.peer != "" {
		if _, err := configured(cfg, f.peer); err != nil {
			return err
		}
	}
	verdictOfLast := error(status(exitUndecided))
	reports := 0
	o.Note = func(line string) { fmt.Fprintln(c.ErrOrStderr(), "agent:", line) }
	if f.format == "text" {
		o.Status = o.Note
	}
	o.Report = func(r *diagnosis.Report) error {
		verdictOfLast = verdict(r)
		reports++
		return f.next(c.OutOrStdout(), r, reports)
	}
	err = o.Run(c.Context(), cfg)
	switch {
	case errors.Is(err, errWrite):
		fmt.Fprintln(c.ErrOrStderr(), "agent: write report:", err)
		return status(exitUndecided)
	case errors.Is(err, agent.ErrNoTraffic):
		fmt.Fprintln(c.ErrOrStderr(), "agent:", err)
		return status(exitUndecided)
	case err != nil:
		return err
	}
	return verdictOfLast
}

// offline checks the flags that need no configuration.
func (f analyzeFlags) offline(path string) (agent.Offline, error) {
	o := agent.Offline{Path: path, Peer: f.peer, Last: f.last, Follow: f.follow, Here: func(a netip.Addr) bool {
		here, err := hoststate.SourceOnHost(a)
		return here && err == nil
	}}
	if f.follow && f.last == 0 {
		o.Last = followLast
	}
	if f.local != "" {
		var err error
		if o.Local, err = host("local", f.local); err != nil {
			return o, err
		}
	}
	if path == "-" {
		if term.IsTerminal(int(os.Stdin.Fd())) {
			return o, fmt.Errorf("standard input is a terminal: send a capture through it, as `tcpdump -U -w - | agent analyze -` does")
		}
		o.Path, o.Stdin = "", os.Stdin
	}
	return o, nil
}

// errWrite marks an error of the output.
var errWrite = errors.New("output")

// next writes the n-th report. Those of a capture that is followed say of when
// they are, and are apart by an empty line.
func (f analyzeFlags) next(w io.Writer, r *diagnosis.Report, n int) error {
	if f.follow && f.format == "text" {
		lead := "\n"
		if n == 1 {
			lead = ""
		}
		if _, err := fmt.Fprintf(w, "%s[%s]\n", lead, r.Time.UTC().Format("2006-01-02 15:04:05Z")); err != nil {
			return fmt.Errorf("%w: %w", errWrite, err)
		}
	}
	if err := f.write(w, r); err != nil {
		return fmt.Errorf("%w: %w", errWrite, err)
	}
	return nil
}
