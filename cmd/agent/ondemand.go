package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"vpnprobe/config"
	"vpnprobe/diagnosis"
	"vpnprobe/evidence"
	"vpnprobe/hoststate"
	"vpnprobe/internal/agent"
	"vpnprobe/internal/budget"
	"vpnprobe/internal/daemon"
	"vpnprobe/internal/report"
)

// The shortest run still lets a silent peer stay silent twice; the longest is
// what a person waits for.
const (
	minDuration = 2 * time.Second
	maxDuration = 10 * time.Minute
)

// probeFlags are the flags of the commands that look at a peer on demand.
type probeFlags struct {
	reportFlags
	peer, source, iface string
	inner, references   []string
	duration            time.Duration
	verbose             bool
}

func (f *probeFlags) register(fs *pflag.FlagSet, duration time.Duration) {
	f.reportFlags.register(fs)
	fs.StringVar(&f.peer, "peer", "", "the peer's name in the configuration, or its public `address` or DNS name")
	fs.StringSliceVar(&f.inner, "inner", nil, "an `address` behind the tunnel to reach (repeatable)")
	fs.StringSliceVar(&f.references, "reference", nil, "a public `address` that is not the peer, to tell a bad uplink from a bad peer (repeatable)")
	fs.StringVar(&f.source, "source", "", "the local `address` to probe from")
	fs.StringVar(&f.iface, "interface", "", "the underlay `interface`")
	fs.DurationVar(&f.duration, "duration", duration, "how long to look; in less than 10s, a silent or misconfigured peer may stay undecided")
	fs.BoolVarP(&f.verbose, "verbose", "v", false, "log what the probes do")
}

// look is one look at a peer on demand.
type look struct {
	probeFlags
	cfg  *config.Config
	whom config.Peer
	env  agent.Env
	sub  agent.Subscriber
	done func() // clears the progress bar off the terminal
}

// prepare checks the flags and finds the peer.
func (f probeFlags) prepare(c *cobra.Command) (look, error) {
	if f.peer == "" {
		return look{}, fmt.Errorf("which peer? say --peer NAME or --peer ADDRESS")
	}
	if f.duration < minDuration || f.duration > maxDuration {
		return look{}, fmt.Errorf("duration %v: want %v to %v", f.duration, minDuration, maxDuration)
	}
	cfg, err := f.load(c)
	if err != nil {
		return look{}, err
	}
	p, err := f.target(cfg)
	if err != nil {
		return look{}, err
	}
	return look{probeFlags: f, cfg: cfg, whom: p}, nil
}

// begin makes ready what the look needs of this host.
func (l *look) begin(c *cobra.Command) {
	level := slog.LevelError
	if l.verbose {
		level = slog.LevelDebug
	}
	l.env = environment(l.cfg, slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: level})))
	l.sub, l.done = agent.Nobody{}, func() {}
	if l.format == "text" {
		bar := report.NewProgress(os.Stderr, l.lang, l.duration)
		l.sub, l.done = progress{bar}, bar.Done
	}
}

// conclude writes the report and returns the exit status that it makes.
func (l *look) conclude(c *cobra.Command, r *diagnosis.Report) error {
	if c.Context().Err() != nil {
		fmt.Fprintf(c.ErrOrStderr(), "agent: probe of %s: interrupted before it could decide\n", l.whom.Name)
		return status(exitUndecided)
	}
	if err := l.write(c.OutOrStdout(), r); err != nil {
		fmt.Fprintln(c.ErrOrStderr(), "agent: write report:", err)
		return status(exitUndecided)
	}
	return verdict(r)
}

// environment is what probes need of this host.
func environment(cfg *config.Config, log *slog.Logger) agent.Env {
	env := agent.Env{Host: hoststate.New(), Log: log, Daemons: daemon.Find}
	b, err := budget.Open(stateDirectories(cfg)...)
	if err != nil {
		env.BudgetErr = err.Error()
		log.Warn("nothing that may leave a half-open SA at a peer will be sent", "err", err)
		return env
	}
	if b.Dir() != cfg.StateDirectory {
		log.Warn("the state directory cannot be used, so users of this host do not share one budget", "state_directory", cfg.StateDirectory, "instead", b.Dir())
	}
	env.Budget = b
	return env
}

// stateDirectories are the places for what must survive a restart. The last
// are forgotten when the host is, which takes longer than the budget's minute.
func stateDirectories(cfg *config.Config) []string {
	return []string{cfg.StateDirectory, "/run/vpnprobe", filepath.Join(os.TempDir(), fmt.Sprintf("vpnprobe-%d", os.Getuid()))}
}

// progress shows an on-demand run on the terminal.
type progress struct{ *report.Progress }

func (progress) AddTunnel(string, evidence.Traffic, evidence.Traffic) {}
func (progress) AddCapture(string, evidence.Capture)                  {}
func (progress) Publish(*diagnosis.Report)                            {}
