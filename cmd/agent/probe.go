package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

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

type probeFlags struct {
	peer, source, iface, format, lang string
	inner                             []string
	references                        []string
	duration                          time.Duration
	verbose, authenticate             bool
}

func probeCommand() *cobra.Command {
	var f probeFlags
	c := &cobra.Command{
		Use:   "probe --peer NAME|ADDRESS",
		Short: "look at one peer now and say what is wrong with it",
		Long: `Look at one peer now and say what is wrong with it.

Works with no configuration at all when the peer is given by its address.
Exit status: 0 healthy, 1 a problem was diagnosed, 2 wrong usage or
configuration, 3 could not decide.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return probePeer(c, f) },
	}
	fs := c.Flags()
	fs.StringVar(&f.peer, "peer", "", "the peer's name in the configuration, or its public `address` or DNS name")
	fs.StringSliceVar(&f.inner, "inner", nil, "an `address` behind the tunnel to reach (repeatable)")
	fs.StringSliceVar(&f.references, "reference", nil, "a public `address` that is not the peer, to tell a bad uplink from a bad peer (repeatable)")
	fs.StringVar(&f.source, "source", "", "the local `address` to probe from")
	fs.StringVar(&f.iface, "interface", "", "the underlay `interface`")
	fs.DurationVar(&f.duration, "duration", 10*time.Second, "how long to look")
	fs.BoolVar(&f.authenticate, "authenticate", false, "negotiate for real, with the key of ike.psk_file (see docs/ike-probing.md)")
	fs.StringVar(&f.format, "format", "text", "output: text or json")
	fs.StringVar(&f.lang, "lang", "", "language: en or zh (default en, or the configuration's)")
	fs.BoolVarP(&f.verbose, "verbose", "v", false, "log what the probes do")
	fs.String("config", "", "the configuration `file` (default "+config.DefaultPath+", if there is one)")
	return c
}

func checkLang(lang string) error {
	if lang != "en" && lang != "zh" {
		return fmt.Errorf("language %q: want en or zh", lang)
	}
	return nil
}

func probePeer(c *cobra.Command, f probeFlags) error {
	if f.peer == "" {
		return fmt.Errorf("which peer? say --peer NAME or --peer ADDRESS")
	}
	if f.format != "text" && f.format != "json" {
		return fmt.Errorf("format %q: want text or json", f.format)
	}
	if f.duration < minDuration || f.duration > maxDuration {
		return fmt.Errorf("duration %v: want %v to %v", f.duration, minDuration, maxDuration)
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
	psk, err := f.key(p)
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
	r := agent.Probe(c.Context(), cfg, p, f.duration, psk, env, sub)
	done()
	if c.Context().Err() != nil {
		fmt.Fprintf(c.ErrOrStderr(), "agent: probe of %s: interrupted before it could decide\n", p.Name)
		return status(exitUndecided)
	}
	if err := write(c.OutOrStdout(), r, f); err != nil {
		fmt.Fprintln(c.ErrOrStderr(), "agent: write report:", err)
		return status(exitUndecided)
	}
	return verdict(r)
}

// key reads the pre-shared key, when a negotiation for real is asked for.
func (f probeFlags) key(p config.Peer) ([]byte, error) {
	switch {
	case !f.authenticate:
		return nil, nil
	case p.IKE.PSKFile == "":
		return nil, fmt.Errorf("--authenticate needs the key of peer %s: declare ike.psk_file, a file of mode 0600", p.Name)
	case p.IKE.LocalID == "" || p.IKE.RemoteID == "":
		return nil, fmt.Errorf("--authenticate needs both identities of peer %s: declare ike.local_id and ike.remote_id", p.Name)
	case len(p.IKE.Proposals) == 0 || len(p.LocalSubnets) == 0 || len(p.RemoteSubnets) == 0:
		return nil, fmt.Errorf("--authenticate needs what the tunnel of peer %s is agreed upon: declare ike.proposals, local_subnets and remote_subnets", p.Name)
	}
	return agent.ReadPSK(p.IKE.PSKFile)
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

func write(w io.Writer, r *diagnosis.Report, f probeFlags) error {
	if f.format == "json" {
		b, err := report.JSON(r, f.lang)
		if err != nil {
			return err
		}
		_, err = w.Write(append(bytes.TrimRight(b, "\n"), '\n'))
		return err
	}
	o := report.Options{Lang: f.lang}
	if file, ok := w.(*os.File); ok {
		o = report.ForFile(file, f.lang)
	}
	return report.Text(w, r, o)
}

// verdict turns a report into the exit status that scripts read.
func verdict(r *diagnosis.Report) error {
	switch {
	case r.Diagnosis() == diagnosis.Undecided:
		return status(exitUndecided)
	case r.Severity() == diagnosis.Info:
		return nil
	}
	return status(exitProblem)
}

// progress shows an on-demand run on the terminal.
type progress struct{ *report.Progress }

// target finds the peer in the configuration, or makes one of its address;
// flags win over what is configured.
func (f probeFlags) target(cfg *config.Config) (config.Peer, error) {
	p, found := config.Peer{}, false
	for _, q := range cfg.Peers {
		if q.Name == f.peer || !found && q.Gateway == f.peer {
			p, found = q, true
		}
	}
	if !found {
		if err := nameable(f.peer, cfg); err != nil {
			return p, err
		}
		p = cfg.NewPeer(f.peer, f.peer)
	}
	var err error
	if f.source != "" {
		if p.Source, err = host("source", f.source); err != nil {
			return p, err
		}
		if here, err := hoststate.SourceOnHost(p.Source); err == nil && !here {
			return p, fmt.Errorf("source %s is not an address of this host: see `ip address`", p.Source)
		}
		if g, err := netip.ParseAddr(p.Gateway); err == nil && g.Unmap().Is4() != p.Source.Unmap().Is4() {
			return p, fmt.Errorf("source %s and peer %s are of different families", p.Source, g)
		}
	}
	if f.iface != "" {
		if _, err := net.InterfaceByName(f.iface); err != nil {
			return p, fmt.Errorf("interface %q is not on this host: see `ip link`", f.iface)
		}
		p.Interface = f.iface
	}
	for _, s := range f.inner {
		a, err := host("inner", s)
		if err != nil {
			return p, err
		}
		p.Inner = append(p.Inner, config.Inner{Address: a})
	}
	for _, s := range f.references {
		a, err := host("reference", s)
		if err != nil {
			return p, err
		}
		if a.String() == p.Gateway {
			return p, fmt.Errorf("reference %s is the peer itself: name another public address", a)
		}
		cfg.References = append(cfg.References, a)
	}
	return p, nil
}

// host reads the address of one host.
func host(flag, s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.IsUnspecified() || a.IsMulticast() {
		return a, fmt.Errorf("%s %q: want the IP address of one host", flag, s)
	}
	return a.Unmap(), nil
}

// nameable reports what is wrong with a peer that is not configured: it must
// be an address or look like a DNS name.
func nameable(s string, cfg *config.Config) error {
	if a, err := netip.ParseAddr(s); err == nil {
		if a.IsUnspecified() || a.IsMulticast() {
			return fmt.Errorf("peer %s: want the address of one host", s)
		}
		return nil
	}
	if !strings.Contains(s, ".") || strings.ContainsAny(s, " /:@") || strings.Trim(s, "0123456789.") == "" || len(s) > 253 {
		var names []string
		for _, p := range cfg.Peers {
			names = append(names, p.Name)
		}
		if len(names) == 0 {
			return fmt.Errorf("peer %q is neither an address nor a DNS name, and no configuration names it", s)
		}
		return fmt.Errorf("peer %q is neither configured nor an address nor a DNS name; configured: %s", s, strings.Join(names, ", "))
	}
	return nil
}

// loadOptional reads the configuration that --config or VPNPROBE_CONFIG names,
// else the default one when it is there, else none.
func loadOptional(c *cobra.Command) (*config.Config, error) {
	path, err := configPath(c)
	if err != nil {
		return nil, err
	}
	if path == config.DefaultPath {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return config.FromEnvironment(os.Environ())
		}
	}
	return config.Load(path, nil, os.Environ())
}

// configPath is the file that --config names, or the environment, or the default.
func configPath(c *cobra.Command) (string, error) {
	path, err := c.Flags().GetString("config")
	if err != nil || path != "" {
		return path, err
	}
	return config.Path(os.Environ()), nil
}

func (progress) AddTunnel(string, evidence.Traffic, evidence.Traffic) {}
func (progress) AddCapture(string, evidence.Capture)                  {}
func (progress) Publish(*diagnosis.Report)                            {}
