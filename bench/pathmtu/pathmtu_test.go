package main

import (
	"context"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if target := os.Getenv(searchVariable); target != "" {
		os.Exit(search(context.Background(), target, os.Stdout, os.Stderr))
	}
	goleak.VerifyTestMain(m)
}

func TestVerdicts(t *testing.T) {
	for name, tc := range map[string]struct {
		verdict func(string) int
		out     string
		want    int
	}{
		"tracepath": {tracepathVerdict, " 1?: [LOCALHOST]                      pmtu 1500\n" +
			" 2:  192.0.2.1                0.017ms pmtu 1400\n" +
			" 2:  198.51.100.2             0.023ms reached\n     Resume: pmtu 1400 hops 2 back 2 \n", 1400},
		"tracepath, not reached": {tracepathVerdict, " 2:  no reply\n     Too many hops: pmtu 1500\n     Resume: pmtu 1500 \n", 0},
		"scamper": {scamperVerdict, "traceroute from 192.0.2.2 to 198.51.100.2\n" +
			" 1  192.0.2.1  0.031 ms [mtu: 1500]\n 2  198.51.100.2  0.034 ms [mtu: 1400]\n", 1400},
		"scamper, inferred":    {scamperVerdict, " 1  192.0.2.1  0.2 ms [mtu: 1500]\n 2  198.51.100.2  0.067 ms [*mtu: 1437]\n", 1437},
		"scamper, not reached": {scamperVerdict, " 1  192.0.2.1  0.031 ms [mtu: 1500]\n 2  *\n", 0},
		"scamper, none":        {scamperVerdict, " 1  192.0.2.1  0.031 ms\n 2  198.51.100.2  0.034 ms\n", 0},
		"ours":                 {tools[0].verdict, "1280\n", 1280},
		"nothing":              {tools[0].verdict, "", 0},
	} {
		if got := tc.verdict(tc.out); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
	}
}

func TestTransmitted(t *testing.T) {
	const table = "Inter-|   Receive    |  Transmit\n face |bytes    packets\n" +
		"    lo:  1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n  eth0: 1 2 3 4 5 6 7 8 90 42 0 0 0 0 0 0\n"
	if got, err := transmitted(table, "eth0"); got != 42 || err != nil {
		t.Errorf("%d, %v", got, err)
	}
	for _, bad := range []string{"", "eth0: 1 2\n", "eth0:1 2 3 4 5 6 7 8 9 x\n"} {
		if got, err := transmitted(bad, "eth0"); err == nil {
			t.Errorf("%q: %d", bad, got)
		}
	}
}

func TestRow(t *testing.T) {
	c := cell{path: path{name: "p", mtu: 1400}, tool: tool{name: "t"}, runs: []outcome{
		{packets: 9, took: 3 * time.Second, mtu: 1400, ended: true},
		{packets: 1, took: time.Second, mtu: 1500, ended: true},
		{packets: 5, took: 2 * time.Second},
	}}
	if got, want := c.row(), "| p | t | 5 | 2.00 s | 1400, 1500, none, ended by the limit | 1 of 3 |"; got != want {
		t.Errorf("%s\n%s", got, want)
	}
	c.missing = "t is missing"
	if got, want := c.row(), "| p | t | | | t is missing | |"; got != want {
		t.Errorf("%s\n%s", got, want)
	}
}

func TestRunRefuses(t *testing.T) {
	for _, args := range []string{"-rounds 0", "-rounds 21", "-limit 0s", "-limit 1h", "more", "-unknown"} {
		var stdout, stderr strings.Builder
		if code := run(t.Context(), strings.Fields(args), &stdout, &stderr); code != 2 || stderr.Len() == 0 || stdout.Len() > 0 {
			t.Errorf("%s: exit status %d, %q, %q", args, code, &stdout, &stderr)
		}
	}
}

// Our search on the paths that lose nothing at random, and a tool that never
// ends. Nothing is left in this namespace.
func TestMeasure(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, for network namespaces")
	}
	for _, command := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(command); err != nil {
			t.Skip("needs iproute2 and nftables")
		}
	}
	before := devices(t)
	for _, p := range paths[:4] {
		c := cell{path: p, tool: tools[0]}
		if err := c.measure(t.Context(), 1, time.Minute); err != nil {
			t.Fatal(err)
		}
		if c.missing != "" || len(c.runs) != 1 || c.runs[0].mtu != p.mtu || !c.runs[0].ended || c.runs[0].packets == 0 {
			t.Errorf("%s: %+v, %s", p.name, c.runs, c.missing)
		}
	}
	c := cell{path: paths[0], tool: tool{command: []string{"sleep", "1h"}, verdict: func(string) int { return 1500 }}}
	if err := c.measure(t.Context(), 1, 10*time.Millisecond); err != nil || c.runs[0].ended || c.runs[0].mtu != 0 {
		t.Errorf("%+v, %v", c.runs, err)
	}
	c = cell{path: paths[0], tool: tool{command: []string{"no-such-tool"}, debian: "no-such-package"}}
	if err := c.measure(t.Context(), 1, time.Second); err != nil || !strings.Contains(c.missing, "no-such-package") {
		t.Errorf("%q, %v", c.missing, err)
	}
	if after := devices(t); !slices.Equal(before, after) {
		t.Errorf("interfaces: %v, then %v", before, after)
	}
}

func devices(t *testing.T) (names []string) {
	t.Helper()
	entries, err := os.ReadDir("/sys/class/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
