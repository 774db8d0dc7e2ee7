package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if m := os.Getenv(childVariable); m != "" {
		os.Exit(child(method(m)))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// maxDuration is how long a measurement may take: after three seconds above its
// budget, the ring begins to listen only now and then.
const maxDuration = 2 * time.Second

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("capture", flag.ContinueOnError)
	flags.SetOutput(stderr)
	rounds := flags.Int("rounds", 5, "how many times to measure everything")
	duration := flags.Duration("time", maxDuration, "how long to send for one measurement, at most 2s")
	pairs := flags.Int("pairs", 4, "how many times to measure a forwarding gateway with and without in each round")
	rate := flags.Float64("rate", 500_000, "packets per second at which nothing may be dropped")
	patience := flags.Duration("patience", 5*time.Second, "how long to wait for a quiet machine before each measurement")
	which := flags.String("methods", "eBPF,ring,tcpdump,pcapgo", "what to measure")
	profiles := flags.String("profile", "", "a `directory` for CPU profiles of our own methods and pcapgo; they cost time themselves")
	check := flags.Bool("check", false, "exit with 1 if a target was missed")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	fail := func(err error) int {
		fmt.Fprintf(stderr, "capture: %v\n", err)
		return 2
	}
	if *rounds < 1 || *pairs < 1 || *duration <= 0 || *duration > maxDuration || *rate <= 0 || flags.NArg() > 0 {
		return fail(fmt.Errorf("-rounds and -pairs from 1, -time up to %v, -rate above 0, and nothing else", maxDuration))
	}
	var chosen []method
	for name := range strings.SplitSeq(*which, ",") {
		if !slices.Contains(methods[1:], method(name)) {
			return fail(fmt.Errorf("-methods: %q is none of %v", name, methods[1:]))
		}
		chosen = append(chosen, method(name))
	}
	if os.Geteuid() != 0 {
		return fail(fmt.Errorf("needs root, for network namespaces and BPF"))
	}
	b, err := newBench()
	if err != nil {
		return fail(err)
	}
	defer b.close()
	b.patience, b.profiles = *patience, *profiles
	b.log = func(format string, args ...any) { fmt.Fprintf(stderr, format+"\n", args...) }
	r, err := b.all(ctx, chosen, *rate, *duration, *rounds, *pairs)
	if err != nil {
		return fail(err)
	}
	r.print(stdout)
	switch {
	case len(r.errors) > 0:
		return 1
	case *check && !r.met():
		return 1
	}
	return 0
}
