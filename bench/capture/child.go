package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime/pprof"
	"time"

	"vpnprobe/capture"
	"vpnprobe/evidence"
)

// profileVariable names the file for a CPU profile of the process.
const profileVariable = "BENCH_CAPTURE_PROFILE"

// child captures on wan with a method until its standard input ends, and then
// prints what it saw.
func child(m method) int {
	if name := os.Getenv(profileVariable); name != "" {
		f, err := os.Create(name)
		if err == nil {
			err = pprof.StartCPUProfile(f)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 2
		}
		defer pprof.StopCPUProfile()
	}
	ready := func() {
		fmt.Println("ready")
		_, _ = io.Copy(io.Discard, os.Stdin)
	}
	var c counted
	var err error
	switch m {
	case inBPF:
		c, err = live(evidence.CaptureBPF, ready)
	case inRing:
		c, err = live(evidence.CaptureRing, ready)
	case byGo:
		c, err = pcapgoLoop(ready)
	default:
		err = fmt.Errorf("%q is no method of this command", m)
	}
	if err != nil {
		c.Error = err.Error()
	}
	if err := json.NewEncoder(os.Stdout).Encode(c); err != nil {
		return 2
	}
	return 0
}

// live captures as the agent does: the packets of one peer, with a remote
// subnet to look for leaks into.
func live(mode evidence.CaptureMode, ready func()) (c counted, err error) {
	l, err := capture.Open(capture.Config{Mode: mode})
	if err != nil {
		return c, err
	}
	defer l.Close()
	l.SetPeers([]capture.Peer{{
		Name:       "peer",
		Addrs:      []netip.Addr{peerAddr},
		Interfaces: []string{"wan"},
		Local:      []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")},
		Remote:     []netip.Prefix{netip.MustParsePrefix("10.2.0.0/16")},
	}})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	defer func() {
		cancel()
		err = errors.Join(err, <-ended)
	}()
	begin := l.Counts("peer")
	for deadline := time.Now().Add(5 * time.Second); begin.Watching.IsZero(); begin = l.Counts("peer") {
		if time.Now().After(deadline) {
			return c, errors.New(begin.Reason)
		}
		time.Sleep(time.Millisecond)
	}
	ready()
	w := l.Counts("peer").Since(begin, evidence.No)
	if w.Mode != mode {
		return c, fmt.Errorf("captured in mode %s: %s", w.Mode, w.Reason)
	}
	return counted{
		Packets:    w.In.ESP.Packets + w.Out.ESP.Packets,
		Drops:      w.Dropped,
		Lost:       w.In.Sequence.Lost + w.Out.Sequence.Lost,
		Expected:   w.In.Sequence.Expected + w.Out.Sequence.Expected,
		Duplicates: w.In.Sequence.Duplicates + w.Out.Sequence.Duplicates,
	}, nil
}
