package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"vpnprobe/config"
	"vpnprobe/exporter"
	"vpnprobe/internal/agent"
	"vpnprobe/internal/report"
	"vpnprobe/internal/version"
)

func runCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "run",
		Short: "run the daemon: probe every peer and serve metrics and the status page",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			path, err := configPath(c)
			if err != nil {
				return err
			}
			load := func() (*config.Config, error) { return config.Load(path, c.Flags(), os.Environ()) }
			cfg, err := load()
			if err != nil {
				return err
			}
			return serve(c.Context(), cfg, load, environment(cfg, logger(c.ErrOrStderr(), cfg.Log)))
		},
	}
	config.Flags(c.Flags())
	addConfigFlag(c)
	return c
}

func logger(w io.Writer, l config.Logging) *slog.Logger {
	o := &slog.HandlerOptions{Level: l.Level}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// serve runs the daemon until ctx ends.
func serve(ctx context.Context, cfg *config.Config, load func() (*config.Config, error), env agent.Env) error {
	log := env.Log
	for _, w := range lint(cfg) {
		log.Warn("configuration", "key", w.Key, "warning", w.Text)
	}
	exp := exporter.New(version.String())
	exp.SetPeers(names(cfg))
	exp.Reloaded(true, time.Now())
	a := agent.New(cfg, env, exp)
	r := &reloader{load: load, agent: a, exporter: exp, log: log, was: cfg}
	srv, err := exporter.Listen([]string{cfg.Listen}, cfg.WebConfigFile, exp.Handler(exporter.Options{Render: report.JSON, Reload: r.reload, Lang: r.lang, Log: log}), log)
	if err != nil {
		return err
	}
	log.Info("listening", "address", srv.Addrs()[0].String(), "peers", len(cfg.Peers), "version", version.String())
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.Run(ctx) })
	group.Go(func() error { return srv.Serve(ctx) })
	group.Go(func() error { return r.onHangup(ctx) })
	group.Go(func() error { return notify(ctx) })
	return group.Wait()
}

func names(cfg *config.Config) []string {
	var out []string
	for _, p := range cfg.Peers {
		out = append(out, p.Name)
	}
	return out
}

// reloader loads the configuration again, for a signal or a request.
type reloader struct {
	load     func() (*config.Config, error)
	agent    *agent.Agent
	exporter *exporter.Exporter
	log      *slog.Logger

	mu  sync.Mutex // one reload at a time
	was *config.Config
}

// reload applies the file as it is now. A file with a fault changes nothing
// but the metric that says so.
func (r *reloader) reload() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	cfg, err := r.load()
	if err == nil && (cfg.Listen != r.was.Listen || cfg.WebConfigFile != r.was.WebConfigFile || cfg.Log != r.was.Log) {
		err = fmt.Errorf("listen, web_config_file and log cannot change while the agent runs: restart it")
	}
	r.exporter.Reloaded(err == nil, time.Now())
	if err != nil {
		r.log.Error("configuration not reloaded, the old one stays", "err", err)
		return err
	}
	for _, w := range lint(cfg) {
		r.log.Warn("configuration", "key", w.Key, "warning", w.Text)
	}
	r.was = cfg
	r.exporter.SetPeers(names(cfg))
	r.agent.Reload(cfg)
	r.log.Info("configuration reloaded", "peers", len(cfg.Peers))
	return nil
}

// lang is the configured language of reports.
func (r *reloader) lang() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.was.Lang
}

func (r *reloader) onHangup(ctx context.Context) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
			daemon.SdNotify(false, daemon.SdNotifyReloading)
			r.reload() // its error was logged
			daemon.SdNotify(false, daemon.SdNotifyReady)
		}
	}
}

// notify tells systemd, where it is the parent, that the agent is up and
// stays up (sd_notify(3)).
func notify(ctx context.Context) error {
	if ok, err := daemon.SdNotify(false, daemon.SdNotifyReady); !ok || err != nil {
		return err
	}
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil || every == 0 {
		return err
	}
	tick := time.NewTicker(every / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			daemon.SdNotify(false, daemon.SdNotifyStopping)
			return nil
		case <-tick.C:
			daemon.SdNotify(false, daemon.SdNotifyWatchdog)
		}
	}
}
