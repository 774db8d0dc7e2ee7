// Command agent tells why an IPsec site-to-site tunnel is down, slow or
// half-working. README.md shows it at work.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"vpnprobe/internal/version"
)

// The exit statuses of every command.
const (
	exitHealthy   = 0 // or: the command did what it was asked
	exitProblem   = 1 // a problem was diagnosed
	exitUsage     = 2 // wrong usage or configuration
	exitUndecided = 3 // could not decide
)

// status is an error that only carries an exit status: what there was to say
// has been said.
type status int

func (s status) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run executes one command line and returns its exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:           "agent",
		Short:         "tells why an IPsec site-to-site tunnel is down, slow or half-working",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(runCommand(), probeCommand(), analyzeCommand(), recordCommand(), checkCommand(), demoCommand(), explainCommand(), &cobra.Command{
		Use: "version", Short: "print the version", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(c.OutOrStdout(), "vpnprobe", version.String())
			return err
		},
	})
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	var code status
	switch {
	case err == nil:
		return exitHealthy
	case errors.As(err, &code):
		return int(code)
	}
	for _, line := range strings.Split(strings.TrimRight(err.Error(), "\n"), "\n") {
		fmt.Fprintln(stderr, "agent:", line)
	}
	return exitUsage
}
