package main

import (
	"fmt"
	"net/netip"
	"os"

	"github.com/prometheus/exporter-toolkit/web"
	"github.com/spf13/cobra"

	"vpnprobe/config"
	"vpnprobe/hoststate"
)

func checkCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "check",
		Short: "validate the configuration, or print the effective one",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			path, err := configPath(c)
			if err != nil {
				return err
			}
			cfg, err := config.Load(path, c.Flags(), os.Environ())
			if err != nil {
				return err
			}
			for _, w := range lint(cfg) {
				fmt.Fprintln(c.ErrOrStderr(), "agent: warning:", w)
			}
			if err := web.Validate(cfg.WebConfigFile); err != nil {
				return fmt.Errorf("web_config_file %s: %w", cfg.WebConfigFile, err)
			}
			out, err := cfg.YAML()
			if err != nil {
				return err
			}
			_, err = c.OutOrStdout().Write(out)
			return err
		},
	}
	config.Flags(c.Flags())
	addConfigFlag(c)
	return c
}

// lint lists what is legal but unlikely to be meant.
func lint(cfg *config.Config) []config.Warning {
	here := func(a netip.Addr) bool {
		on, err := hoststate.SourceOnHost(a)
		return on || err != nil || a.IsLoopback() // what could not be looked at is not warned of
	}
	list := config.Lint(cfg, here)
	list = append(list, config.LintFiles(cfg, os.Stat)...)
	return append(list, config.LintEnv(os.Environ())...)
}
