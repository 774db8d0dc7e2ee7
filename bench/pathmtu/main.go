package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The bounds of the flags.
const (
	maxRounds = 20
	maxLimit  = 5 * time.Minute
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	if target := os.Getenv(searchVariable); target != "" {
		os.Exit(search(ctx, target, os.Stdout, os.Stderr))
	}
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("pathmtu", flag.ContinueOnError)
	flags.SetOutput(stderr)
	rounds := flags.Int("rounds", 3, "how many times to run each tool on each path, 1 to 20")
	limit := flags.Duration("limit", time.Minute, "how long one run of a tool may take, at most 5m")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	fail := func(err error) int {
		fmt.Fprintf(stderr, "pathmtu: %v\n", err)
		return 2
	}
	if *rounds < 1 || *rounds > maxRounds || *limit <= 0 || *limit > maxLimit || flags.NArg() > 0 {
		return fail(fmt.Errorf("-rounds from 1 to %d, -limit above 0 up to %v, and nothing else", maxRounds, maxLimit))
	}
	if os.Geteuid() != 0 {
		return fail(errors.New("needs root, for network namespaces"))
	}
	cells, err := measure(ctx, *rounds, *limit)
	if err != nil {
		return fail(err)
	}
	report(stdout, cells)
	return 0
}

// A cell is all runs of a tool on a path, or why there is none.
type cell struct {
	path    path
	tool    tool
	runs    []outcome
	missing string
}

// measure runs every tool on every path. Where nothing tells that a packet is
// too big, tools wait most of the time, and run at the same time.
func measure(ctx context.Context, rounds int, limit time.Duration) ([]cell, error) {
	var cells []cell
	for _, p := range paths {
		for _, t := range tools {
			cells = append(cells, cell{path: p, tool: t})
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	errs := make([]error, len(cells))
	for i := range cells {
		work := func() {
			if errs[i] = cells[i].measure(ctx, rounds, limit); errs[i] != nil {
				cancel()
			}
		}
		if cells[i].path.silent() {
			wg.Go(work)
			continue
		}
		work()
	}
	wg.Wait()
	return cells, first(errs)
}

// first is the error that made the others end, if there is one.
func first(errs []error) (err error) {
	for _, e := range errs {
		if e != nil && (err == nil || errors.Is(err, context.Canceled)) {
			err = e
		}
	}
	return err
}

// measure fills in the cell. Its error is about the network, not the tool.
func (c *cell) measure(ctx context.Context, rounds int, limit time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.missing = c.tool.absent()
	if c.missing == "" && c.path.silent() {
		c.missing = absent("nft", "nftables")
	}
	if c.missing != "" {
		return nil
	}
	n, err := newNetwork(ctx, c.path)
	if err != nil {
		return fmt.Errorf("path %q: %w", c.path.name, err)
	}
	defer n.close()
	for range rounds {
		o, err := n.run(ctx, c.tool, limit)
		if err != nil {
			return fmt.Errorf("path %q, %s: %w", c.path.name, c.tool.name, err)
		}
		c.runs = append(c.runs, o)
	}
	return nil
}
