package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"vpnprobe/config"
	"vpnprobe/diagnosis"
	"vpnprobe/hoststate"
	"vpnprobe/internal/agent"
	"vpnprobe/internal/demo"
	"vpnprobe/internal/report"
)

func demoCommand() *cobra.Command {
	var listen string
	var duration time.Duration
	c := &cobra.Command{
		Use:   "demo",
		Short: "see the daemon at work on loopback, without a VPN",
		Long: `See the daemon at work on loopback, without a VPN.

Plays a few gateways on 127.0.50.0/24 that work, refuse, and drop IKE, runs the
ordinary daemon against them, and serves its page and metrics until interrupted.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx := c.Context()
			if duration > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, duration)
				defer cancel()
			}
			return runDemo(ctx, c.OutOrStdout(), c.ErrOrStderr(), listen)
		},
	}
	c.Flags().StringVar(&listen, "listen", config.Default().Listen, "`address` of the page and the metrics")
	c.Flags().DurationVar(&duration, "duration", 0, "stop by itself after this time (default: when interrupted)")
	return c
}

// demoTurn is how long the gateway that comes and goes stays each way.
const demoTurn = 30 * time.Second

// demoLook is how long each gateway is probed on demand: long enough for a
// silent one to be silent to two heartbeats.
const demoLook = 9 * time.Second

func runDemo(ctx context.Context, stdout, stderr io.Writer, listen string) error {
	cfg := config.Default()
	cfg.Listen = listen
	cfg.Interval = 2 * time.Second
	gateways := demo.Gateways()
	for _, g := range gateways {
		cfg.Peers = append(cfg.Peers, cfg.NewPeer(g.Name, g.Address.String()))
	}
	cfg.Log.Level = 8 // errors only: the page is what is to be seen
	env := agent.Env{Host: hoststate.New(), Log: logger(stderr, cfg.Log), IKEPorts: demo.Ports, BudgetErr: "this is a demonstration"}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return demo.Play(ctx, gateways, demoTurn) })
	group.Go(func() error {
		return serve(ctx, cfg, func() (*config.Config, error) { return cfg, nil }, env)
	})
	group.Go(func() error {
		fmt.Fprintf(stdout, "demonstration gateways on loopback; page http://%s/ metrics http://%s/metrics (Ctrl-C ends)\n", listen, listen)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second): // the gateways listen by then
		}
		return showDemo(ctx, stdout, cfg, env)
	})
	return group.Wait()
}

// showDemo probes every gateway on demand, at the same time, and writes the
// reports one below the other.
func showDemo(ctx context.Context, w io.Writer, cfg *config.Config, env agent.Env) error {
	reports := make([]*diagnosis.Report, len(cfg.Peers))
	var wg sync.WaitGroup
	for i, p := range cfg.Peers {
		wg.Go(func() { reports[i] = agent.Probe(ctx, cfg, p, demoLook, nil, env, nil) })
	}
	wg.Wait()
	for _, r := range reports {
		if ctx.Err() != nil {
			return nil
		}
		fmt.Fprintln(w)
		if err := report.Text(w, r, report.Options{Lang: cfg.Lang}); err != nil {
			return err
		}
	}
	return nil
}
