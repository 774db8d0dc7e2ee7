package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vpnprobe/diagnosis"
	"vpnprobe/evidence"
	"vpnprobe/internal/agent"
	"vpnprobe/internal/version"
)

// maxRecording bounds the size of a recording, in bytes, to what still fits into
// the memory of whoever opens it.
const maxRecording = 4 << 30

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
	f.register(c.Flags(), 30*time.Second)
	c.Flags().StringVar(&f.maxSize, "max-size", "64MB", "stop recording before the file is larger than this")
	return c
}

func record(c *cobra.Command, f recordFlags, path string) error {
	if path == "-" {
		return fmt.Errorf("a recording cannot go to standard output, because its comment is written last: name a file")
	}
	size, err := parseSize(f.maxSize)
	if err != nil || size < agent.MinRecording || size > maxRecording {
		return fmt.Errorf("max-size %q: want a number of bytes from %dKiB to %dGiB, such as 64MB", f.maxSize, agent.MinRecording>>10, maxRecording>>30)
	}
	l, err := f.prepare(c)
	if err != nil {
		return err
	}
	l.begin(c)
	r, kept, err := agent.Record(c.Context(), l.cfg, l.whom, l.duration, l.env, l.sub, agent.RecordConfig{
		Path: path, MaxSize: size, App: "vpnprobe " + version.String(),
		Comment: func(r *diagnosis.Report, kept agent.Recorded) string {
			return comment(r, kept, c.Context().Err() != nil)
		},
	})
	l.done()
	if r == nil {
		return err
	}
	if err == nil {
		say := func(format string, args ...any) {
			fmt.Fprintf(c.ErrOrStderr(), "agent: %s: %s\n", path, fmt.Sprintf(format, args...))
		}
		for _, line := range shortcomings(kept) {
			say("%s", line)
		}
		say("%d packets of peer %s, %d bytes", kept.Frames, l.whom.Name, kept.Bytes)
	}
	verdict := l.soFar(c, r)
	if err != nil {
		return err
	}
	return verdict
}

// soFar writes the report even if the look was interrupted: so the file has it.
func (l *look) soFar(c *cobra.Command, r *diagnosis.Report) error {
	if c.Context().Err() == nil {
		return l.conclude(c, r)
	}
	fmt.Fprintf(c.ErrOrStderr(), "agent: interrupted: the report is on the first %.0f s\n", r.Duration.Seconds())
	if err := l.write(c.OutOrStdout(), r); err != nil {
		fmt.Fprintln(c.ErrOrStderr(), "agent: write report:", err)
	}
	return status(exitUndecided)
}

// shortcomings says what the recording lacks.
func shortcomings(kept agent.Recorded) []string {
	var out []string
	if kept.Full {
		out = append(out, fmt.Sprintf("full: it ends at %s; --max-size would let it grow", kept.Until.UTC().Format(time.RFC3339)))
	}
	if kept.Err != nil {
		end := "none of it is there"
		if kept.Frames > 0 {
			end = "it ends at " + kept.Until.UTC().Format(time.RFC3339)
		}
		out = append(out, fmt.Sprintf("not all could be written, %s: %v", end, kept.Err))
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
