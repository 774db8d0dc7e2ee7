package main

import (
	"fmt"
	"log/slog"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vpnprobe/config"
	"vpnprobe/diagnosis"
	"vpnprobe/evidence"
	"vpnprobe/internal/agent"
	"vpnprobe/internal/report"
	"vpnprobe/internal/version"
)

// The bounds of a recording's size: the smallest holds some hundred packets,
// the largest is what still fits into memory of whoever opens it.
const (
	minRecording = 64 << 10
	maxRecording = 4 << 30
)

type recordFlags struct {
	probeFlags
	maxSize string
}

func recordCommand() *cobra.Command {
	var f recordFlags
	c := &cobra.Command{
		Use:   "record --peer NAME|ADDRESS FILE.pcapng",
		Short: "look at one peer now and keep the packets, for a ticket",
		Long: `Look at one peer now, as agent probe does, and keep the packets that pass
between this host and the peer meanwhile.

The file holds no payload of the tunnel: ESP and AH are cut behind their
headers, packets in clear behind IP and transport header; IKE is kept whole. It
says of itself what was diagnosed. It is created with mode 0600, and an existing
file is never touched. Exit status as that of agent probe; also 2 when there is
nothing to record.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return record(c, f, args[0]) },
	}
	fs := c.Flags()
	fs.StringVar(&f.peer, "peer", "", "the peer's name in the configuration, or its public `address` or DNS name")
	fs.StringSliceVar(&f.inner, "inner", nil, "an `address` behind the tunnel to reach (repeatable)")
	fs.StringSliceVar(&f.references, "reference", nil, "a public `address` that is not the peer (repeatable)")
	fs.StringVar(&f.source, "source", "", "the local `address` to probe from")
	fs.StringVar(&f.iface, "interface", "", "the underlay `interface`")
	fs.DurationVar(&f.duration, "duration", 30*time.Second, "how long to look and record")
	fs.StringVar(&f.maxSize, "max-size", "64MB", "stop recording before the file is larger than this")
	fs.StringVar(&f.format, "format", "text", "output: text or json")
	fs.StringVar(&f.lang, "lang", "", "language: en or zh (default en, or the configuration's)")
	fs.BoolVarP(&f.verbose, "verbose", "v", false, "log what the probes do")
	fs.String("config", "", "the configuration `file` (default "+config.DefaultPath+", if there is one)")
	return c
}

func record(c *cobra.Command, f recordFlags, path string) error {
	if f.peer == "" {
		return fmt.Errorf("which peer? say --peer NAME or --peer ADDRESS")
	}
	if path == "-" {
		return fmt.Errorf("a recording cannot go to standard output, because its comment is written last: name a file")
	}
	if f.format != "text" && f.format != "json" {
		return fmt.Errorf("format %q: want text or json", f.format)
	}
	if f.duration < minDuration || f.duration > maxDuration {
		return fmt.Errorf("duration %v: want %v to %v", f.duration, minDuration, maxDuration)
	}
	size, err := parseSize(f.maxSize)
	if err != nil || size < minRecording || size > maxRecording {
		return fmt.Errorf("max-size %q: want a number of bytes from 64KiB to 4GiB, such as 64MB", f.maxSize)
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
	p, err := f.target(cfg)
	if err != nil {
		return err
	}
	level := slog.LevelError
	if f.verbose {
		level = slog.LevelDebug
	}
	env := environment(cfg, slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: level})))
	var sub agent.Subscriber = agent.Nobody{}
	done := func() {}
	if f.format == "text" {
		bar := report.NewProgress(os.Stderr, f.lang, f.duration)
		sub, done = progress{bar}, bar.Done
	}
	interrupted := func() bool { return c.Context().Err() != nil }
	r, kept, err := agent.Record(c.Context(), cfg, p, f.duration, env, sub, agent.RecordConfig{
		Path: path, MaxSize: size, App: "vpnprobe " + version.String(),
		Comment: func(r *diagnosis.Report, kept agent.Recorded) string { return comment(r, kept, interrupted()) },
	})
	done()
	if r == nil {
		return err
	}
	say := func(format string, args ...any) { fmt.Fprintf(c.ErrOrStderr(), "agent: "+format+"\n", args...) }
	if err == nil {
		for _, line := range shortcomings(kept) {
			say("%s: %s", path, line)
		}
		say("%s: %d packets of peer %s, %d bytes", path, kept.Frames, p.Name, kept.Bytes)
	}
	if interrupted() {
		say("probe of %s: interrupted before it could decide", p.Name)
		return status(exitUndecided)
	}
	if err := write(c.OutOrStdout(), r, f.probeFlags); err != nil {
		say("write report: %v", err)
		return status(exitUndecided)
	}
	if err != nil {
		return err
	}
	return verdict(r)
}

// shortcomings says what the recording lacks.
func shortcomings(kept agent.Recorded) []string {
	var out []string
	if kept.Full {
		out = append(out, fmt.Sprintf("full: it ends at %s; --max-size would let it grow", kept.Until.UTC().Format(time.RFC3339)))
	}
	if kept.Err != nil {
		out = append(out, fmt.Sprintf("not all could be written: %v", kept.Err))
	}
	c := kept.Capture
	if c.Dropped > 0 {
		out = append(out, fmt.Sprintf("%d packets are missing: the kernel had no room for them", c.Dropped))
	}
	if c.Watched < c.Over {
		out = append(out, fmt.Sprintf("packets are missing: of %.1f s, %.1f s were listened to", c.Over.Duration().Seconds(), c.Watched.Duration().Seconds()))
	}
	if c.Blind == evidence.Yes {
		out = append(out, "ESP that came in may be missing: "+c.Reason)
	}
	return out
}

// comment is what the file says of itself.
func comment(r *diagnosis.Report, kept agent.Recorded, interrupted bool) string {
	var b strings.Builder
	cause := r.Findings[0]
	fmt.Fprintf(&b, "vpnprobe %s, %s: peer %s, gateway %s, observed for %.0f s\n", version.String(),
		r.Time.UTC().Format(time.RFC3339), r.Peer, r.Gateway, r.Duration.Seconds())
	if interrupted {
		b.WriteString("interrupted; up to then:\n")
	}
	fmt.Fprintf(&b, "%s (%s, %s): %s\n", cause.Label, cause.Severity, cause.Confidence, r.Summary.EN)
	for _, seen := range cause.Evidence {
		fmt.Fprintf(&b, "- %s\n", seen.EN)
	}
	for _, f := range r.Findings[1:] {
		fmt.Fprintf(&b, "%s: %s (%s, %s)\n", f.Role, f.Label, f.Severity, f.Confidence)
		for _, seen := range f.Evidence {
			fmt.Fprintf(&b, "  - %s\n", seen.EN)
		}
	}
	b.WriteString("ESP and AH are cut behind their headers, packets in clear behind the transport header.\n")
	for _, line := range shortcomings(kept) {
		fmt.Fprintf(&b, "Beware: %s.\n", line)
	}
	return strings.TrimRight(b.String(), "\n")
}

// parseSize reads a number of bytes such as 64MB, 10MiB or 500000.
func parseSize(s string) (int64, error) {
	units := []struct {
		name  string
		bytes int64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"B", 1}, {"", 1}}
	for _, u := range units {
		number, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/u.bytes {
			return 0, fmt.Errorf("size %q", s)
		}
		return n * u.bytes, nil
	}
	return 0, fmt.Errorf("size %q", s) // never: every text ends in ""
}
