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

	"vpnprobe/config"
	"vpnprobe/diagnosis"
	"vpnprobe/hoststate"
	"vpnprobe/internal/agent"
)

// followLast is how far back a capture that is followed is looked at, unless
// --last says otherwise.
const followLast = time.Minute

type analyzeFlags struct {
	peer, local, format, lang string
	last                      time.Duration
	follow                    bool
}

func analyzeCommand() *cobra.Command {
	var f analyzeFlags
	c := &cobra.Command{
		Use:   "analyze FILE|-",
		Short: "say what is wrong with a tunnel, from a recorded capture of it",
		Long: `Say what is wrong with a tunnel, from a recorded capture of it.

Reads pcap and pcapng, compressed by gzip or not; - is standard input:

  tcpdump -i wan -U -w - 'esp or udp port 500 or udp port 4500 or icmp' | agent analyze -

The peer is found in the capture by itself where that is possible. A capture
shows less than the host itself: docs/analyze.md says what it can tell.
Exit status: 0 healthy, 1 a problem was diagnosed, 2 wrong usage, or the file
cannot be read, or which peer is meant is not clear, 3 could not decide.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return analyze(c, f, args[0]) },
	}
	fs := c.Flags()
	fs.StringVar(&f.peer, "peer", "", "the peer's name in the configuration, or the remote gateway's `address` or DNS name (default: by what the capture holds)")
	fs.StringVar(&f.local, "local", "", "an `address` of this side, to tell the two ends apart")
	fs.DurationVar(&f.last, "last", 0, "look only at so much of the capture's end (default: all of it; with --follow, 1m)")
	fs.BoolVar(&f.follow, "follow", false, "go on as the capture grows, and report again whenever the diagnosis changes")
	fs.StringVar(&f.format, "format", "text", "output: text or json (with --follow, a line for each report)")
	fs.StringVar(&f.lang, "lang", "", "language: en or zh (default en, or the configuration's)")
	fs.String("config", "", "the configuration `file` (default "+config.DefaultPath+", if there is one)")
	return c
}

func analyze(c *cobra.Command, f analyzeFlags, path string) error {
	o, err := f.offline(path)
	if err != nil {
		return err
	}
	cfg, err := loadOptional(c)
	if err != nil {
		return err
	}
	if f.lang == "" {
		f.lang = cfg.Lang
	}
	if err := checkLang(f.lang); err != nil {
		return err
	}
	if f.peer != "" {
		if _, err := (probeFlags{peer: f.peer}).target(cfg); err != nil {
			return err
		}
	}
	verdictOfLast := error(status(exitUndecided))
	reports := 0
	o.Note = func(line string) { fmt.Fprintln(c.ErrOrStderr(), "agent:", line) }
	o.Report = func(r *diagnosis.Report) error {
		verdictOfLast = verdict(r)
		reports++
		return f.write(c.OutOrStdout(), r, reports)
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
	if f.format != "text" && f.format != "json" {
		return o, fmt.Errorf("format %q: want text or json", f.format)
	}
	if f.last < 0 {
		return o, fmt.Errorf("last %v: want a length of time", f.last)
	}
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

// write writes the n-th report. Those of a capture that is followed say of when
// they are, and are apart by an empty line.
func (f analyzeFlags) write(w io.Writer, r *diagnosis.Report, n int) error {
	if f.follow && f.format == "text" {
		lead := "\n"
		if n == 1 {
			lead = ""
		}
		if _, err := fmt.Fprintf(w, "%s[%s]\n", lead, r.Time.UTC().Format("2006-01-02 15:04:05Z")); err != nil {
			return fmt.Errorf("%w: %w", errWrite, err)
		}
	}
	if err := write(w, r, probeFlags{format: f.format, lang: f.lang}); err != nil {
		return fmt.Errorf("%w: %w", errWrite, err)
	}
	return nil
}
