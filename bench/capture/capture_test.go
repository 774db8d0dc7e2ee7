package main

import (
	"context"
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if m := os.Getenv(childVariable); m != "" {
		os.Exit(child(method(m)))
	}
	goleak.VerifyTestMain(m)
}

func open(t *testing.T) *bench {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for network namespaces and BPF")
	}
	for _, tool := range []string{"ip", "tcpdump"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs iproute2 and tcpdump")
		}
	}
	b, err := newBench()
	if err != nil {
		if strings.Contains(err.Error(), "two cores") {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	t.Cleanup(b.close)
	return b
}

// Every method of ours counts every packet, and finds the numbers that were
// left out and no others, whichever way the packets pass; and leaves nothing
// behind on the interface.
func TestGaps(t *testing.T) {
	b := open(t)
	for _, m := range []method{inBPF, inRing, byDump, byGo} {
		for name, w := range map[string]way{"dropped": dropped, "inward": inward, "outward": outward} {
			if !m.ours() && w != inward {
				continue // they would only be tested for themselves
			}
			t.Run(string(m)+" "+name, func(t *testing.T) {
				// Slow enough for a machine that is busy with other tests.
				r, err := b.measure(t.Context(), m, scene{name, 20_000, w, 150 * time.Millisecond, false})
				if err != nil {
					t.Fatal(err)
				}
				if err := r.wrong(m); err != nil {
					t.Error(err)
				}
				if r.sent.packets < gapEvery || r.sent.gaps != r.sent.packets/gapEvery {
					t.Errorf("sent %+v", r.sent)
				}
				if r.missed() > 0 {
					t.Logf("missed %d of %d packets: %+v", r.missed(), r.sent.packets, r.counted)
				}
				if m.ours() && r.missed() > 0 {
					t.Error("of a few packets per millisecond")
				}
				if m.ours() && r.counted.Lost != r.sent.gaps {
					t.Errorf("%d numbers missing, want %d", r.counted.Lost, r.sent.gaps)
				}
				left(t, b)
			})
		}
	}
}

// left fails the test if there is a BPF program on wan.
func left(t *testing.T, b *bench) {
	t.Helper()
	index, err := b.net.gateway.ifindex("wan")
	if err != nil {
		t.Fatal(err)
	}
	for _, hook := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
		err := b.net.gateway.do(func() error {
			r, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: hook})
			if err == nil && len(r.Programs) > 0 {
				t.Errorf("%d programs left at %v", len(r.Programs), hook)
			}
			return err
		})
		if err != nil {
			t.Logf("not looked for: %v", err) // before Linux 6.6
		}
	}
}

// The command as it is called, without anything left of it in this namespace.
func TestRun(t *testing.T) {
	open(t)
	before := devices(t)
	var stdout, stderr strings.Builder
	code := run(t.Context(), []string{
		"-rounds", "1", "-pairs", "1", "-time", "100ms", "-patience", "0", "-rate", "20000", "-methods", "ring",
	}, &stdout, &stderr)
	if code != 0 {
		t.Errorf("exit status %d\n%s%s", code, &stderr, &stdout)
	}
	for _, want := range []string{"| nothing |", "| ring |", "no drop at 20 kpps"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("no %q in\n%s", want, &stdout)
		}
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

func TestRunRefuses(t *testing.T) {
	for _, args := range []string{"-methods magic", "-time 1h", "-time 0s", "-rounds 0", "-pairs 0", "-rate 0", "more", "-unknown"} {
		var stdout, stderr strings.Builder
		if code := run(t.Context(), strings.Fields(args), &stdout, &stderr); code != 2 || stderr.Len() == 0 || stdout.Len() > 0 {
			t.Errorf("%s: exit status %d, %q, %q", args, code, &stdout, &stderr)
		}
	}
}

// An interrupt ends it soon, and what captures with it.
func TestInterrupt(t *testing.T) {
	b := open(t)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := b.measure(ctx, inRing, scene{"interrupted", 20_000, dropped, time.Minute, false}); err == nil {
		t.Error("measured to the end")
	}
}

func TestWrong(t *testing.T) {
	const gaps = 3
	right := result{sent: sent{packets: 3000, gaps: gaps}, arrived: 3000, counted: counted{Packets: 3000, Lost: gaps, Expected: 3003}}
	for name, tc := range map[string]struct {
		change func(*result)
		method method
		wrong  bool
	}{
		"right":              {func(*result) {}, inBPF, false},
		"a gap too many":     {func(r *result) { r.counted.Lost++ }, inBPF, true},
		"a gap missed":       {func(r *result) { r.counted.Lost-- }, inRing, true},
		"pcapgo too":         {func(r *result) { r.counted.Lost-- }, byGo, true},
		"tcpdump looks not":  {func(r *result) { r.counted.Lost = 0 }, byDump, false},
		"drops":              {func(r *result) { r.counted.Packets--; r.counted.Drops++; r.counted.Lost++ }, inRing, false},
		"drops, silent":      {func(r *result) { r.counted.Packets--; r.counted.Lost++ }, inRing, true},
		"too many packets":   {func(r *result) { r.counted.Packets++ }, inBPF, true},
		"duplicates":         {func(r *result) { r.counted.Duplicates++ }, inRing, true},
		"lost by the sender": {func(r *result) { r.arrived-- }, nothing, true},
	} {
		r := right
		tc.change(&r)
		if err := r.wrong(tc.method); (err != nil) != tc.wrong {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseDump(t *testing.T) {
	got, err := parseDump("24 packets captured\n25 packets received by filter\n1 packet dropped by kernel\n")
	if want := (counted{Packets: 24, Drops: 1}); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := parseDump("tcpdump: no permission\n"); err == nil {
		t.Error("statistics of nothing")
	}
}

func TestSpread(t *testing.T) {
	for _, tc := range []struct {
		values []float64
		want   spread
	}{
		{[]float64{3}, spread{3, 3, 3}},
		{[]float64{9, 1, 2}, spread{1, 2, 9}},
		{[]float64{4, 1, 2, 9}, spread{1, 3, 9}},
	} {
		if got := spreadOf(tc.values); got != tc.want {
			t.Errorf("%v: %v, want %v", tc.values, got, tc.want)
		}
	}
	if got := spreadOf(nil).median; !math.IsNaN(got) {
		t.Errorf("of nothing: %v", got)
	}
}

func TestTargets(t *testing.T) {
	list := func(cpu time.Duration, missed uint64) []result {
		return []result{{
			sent:    sent{packets: 1e6, wall: 2 * time.Second},
			counted: counted{Packets: 1e6 - missed},
			cpu:     cpu * (1e6 - time.Duration(missed)),
		}}
	}
	forward := func(added time.Duration) []pair {
		return []pair{{
			without: result{sent: sent{packets: 1e6, cpu: 1e6 * 1000}},
			with:    result{sent: sent{packets: 1e6, cpu: 1e6 * (1000 + added)}},
		}}
	}
	good := func() *report {
		return &report{
			methods: []method{inBPF, inRing, byDump}, rate: 500_000,
			paced:   map[method][]result{inBPF: list(6, 0), inRing: list(60, 0), byDump: list(60, 0)},
			forward: [2]map[method][]pair{{inBPF: forward(70)}, {inBPF: forward(80)}},
		}
	}
	for name, tc := range map[string]struct {
		change func(*report)
		missed string // a target
	}{
		"all are met":    {func(*report) {}, ""},
		"ring too slow":  {func(r *report) { r.paced[inRing] = list(61, 0) }, "ring: CPU"},
		"BPF too slow":   {func(r *report) { r.paced[inBPF] = list(7, 0) }, "eBPF: CPU"},
		"drops":          {func(r *report) { r.paced[inRing] = list(60, 1) }, "ring: no drop"},
		"not so fast":    {func(r *report) { r.paced[inBPF][0].sent.wall *= 2 }, "eBPF: no drop"},
		"forward slower": {func(r *report) { r.forward[out][inBPF] = forward(81) }, "eBPF: a packet in"},
	} {
		r := good()
		tc.change(r)
		var missed []string
		for _, target := range r.targets() {
			if !target.met {
				missed = append(missed, target.what)
			}
		}
		switch {
		case r.met() != (tc.missed == ""):
			t.Errorf("%s: met %v", name, r.met())
		case tc.missed != "" && (len(missed) != 1 || !strings.HasPrefix(missed[0], tc.missed)):
			t.Errorf("%s: missed %q, want only %q", name, missed, tc.missed)
		}
	}
}
