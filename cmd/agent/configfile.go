package main

import (
	"errors"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"vpnprobe/config"
)

func addConfigFlag(c *cobra.Command) {
	if c.Flags().Lookup("config") == nil {
		c.Flags().String("config", "", "the configuration `file` (default "+config.DefaultPath+")")
	}
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
