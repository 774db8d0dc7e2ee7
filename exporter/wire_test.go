package exporter

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnprobe/diagnosis"
	"vpnprobe/evidence"
)

// wireValues returns the samples whose names begin with one of the prefixes,
// those of value 0 left out, with the labels but for the peer's.
func wireValues(t *testing.T, e *Exporter, prefixes ...string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for name, value := range values(t, e) {
		short := strings.TrimPrefix(name, "vpnprobe_")
		if value == "0" || !slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(short, p) }) {
			continue
		}
		short = strings.Replace(short, `,peer="cloud"`, "", 1)
		out[strings.Replace(short, `peer="cloud",`, "", 1)] = value
	}
	return out
}

// TestLossCountsOnlyWholeWindows: what the capture missed is no loss.
func TestLossCountsOnlyWholeWindows(t *testing.T) {
	in := map[string]string{`esp_expected_packets_total{direction="receive"}`: "310", `esp_lost_packets_total{direction="receive"}`: "11"}
	out := map[string]string{`esp_expected_packets_total{direction="transmit"}`: "6", `esp_lost_packets_total{direction="transmit"}`: "1"}
	for name, c := range map[string]struct {
		change  func(*evidence.Capture)
		in, out bool
	}{
		"whole":         {func(*evidence.Capture) {}, true, true},
		"in the kernel": {func(c *evidence.Capture) { c.Mode = evidence.CaptureBPF }, true, true},
		"drops":         {func(c *evidence.Capture) { c.Dropped = 1 }, false, false},
		"duty cycle":    {func(c *evidence.Capture) { c.Watched-- }, false, false},
		"no time":       {func(c *evidence.Capture) { c.Over, c.Watched = 0, 0 }, false, false},
		"blind":         {func(c *evidence.Capture) { c.Blind = evidence.Yes }, false, true},
		"SA counters":   {func(c *evidence.Capture) { c.Mode = evidence.CaptureSA }, false, false},
		"off":           {func(c *evidence.Capture) { c.Mode = evidence.CaptureOff }, false, false},
		"never set":     {func(c *evidence.Capture) { c.Mode = "" }, false, false},
	} {
		e := newTest(t, "cloud")
		delta := capture()
		c.change(&delta)
		e.AddCapture("cloud", delta)
		want := map[string]string{}
		for _, x := range []struct {
			counted bool
			samples map[string]string
		}{{c.in, in}, {c.out, out}} {
			for k, v := range x.samples {
				if x.counted {
					want[k] = v
				}
			}
		}
		if diff := cmp.Diff(want, wireValues(t, e, "esp_expected", "esp_lost")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestCaptureState: what the latest window says of the capture itself, and
// that what is not known has no series.
func TestCaptureState(t *testing.T) {
	gauges := []string{"capture_mode", "capture_blind", "capture_watched", "esp_reorder_depth", "fragments_incomplete"}
	over := evidence.Seconds(10 * time.Second)
	fragmented := evidence.WireTraffic{Fragments: evidence.Fragments{ESP: evidence.FragmentCount{First: 3, Last: 1}}, Sequence: evidence.Sequence{Depth: 7}}
	for name, c := range map[string]struct {
		capture evidence.Capture
		want    map[string]string
	}{
		"nothing": {evidence.Capture{}, map[string]string{`capture_mode{mode="off",reason="failed"}`: "1"}},
		"off":     {evidence.Capture{Mode: evidence.CaptureOff, Why: evidence.CaptureNoInterface}, map[string]string{`capture_mode{mode="off",reason="no_interface"}`: "1"}},
		"told off": {evidence.Capture{Mode: evidence.CaptureOff, Why: evidence.CaptureConfigured, Over: over, In: fragmented},
			map[string]string{`capture_mode{mode="off",reason="configured"}`: "1"}},
		"SA counters": {evidence.Capture{Mode: evidence.CaptureSA, Why: evidence.CaptureHidden, Blind: evidence.Yes, Over: over},
			map[string]string{`capture_mode{mode="sa",reason="hidden"}`: "1", `capture_blind{peer="cloud"}`: "1"}},
		"best": {evidence.Capture{Mode: evidence.CaptureBPF, Over: over, Watched: over, Out: fragmented}, map[string]string{
			`capture_mode{mode="bpf",reason="best"}`: "1", `capture_watched_ratio{peer="cloud"}`: "1",
			`esp_reorder_depth_packets{direction="transmit"}`: "7", `fragments_incomplete_packets{direction="transmit"}`: "2",
		}},
		"duty cycle": {evidence.Capture{Mode: evidence.CaptureRing, Why: evidence.CaptureNoKernel, Over: over, Watched: over / 4, In: fragmented}, map[string]string{
			`capture_mode{mode="ring",reason="no_kernel"}`: "1", `capture_watched_ratio{peer="cloud"}`: "0.25", `esp_reorder_depth_packets{direction="receive"}`: "7",
		}},
		"never heard of": {evidence.Capture{Mode: "x\xff", Why: "y\n"}, map[string]string{`capture_mode{mode="off",reason="failed"}`: "1"}},
	} {
		e := newTest(t, "cloud")
		if got := wireValues(t, e, gauges...); len(got) != 0 {
			t.Fatalf("before the first report: %v", got)
		}
		r := report("cloud", start, finding(diagnosis.OK, diagnosis.Info, diagnosis.Cause))
		r.Snapshot.Capture = c.capture
		e.Publish(r)
		if diff := cmp.Diff(c.want, wireValues(t, e, gauges...)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestCountersOutliveTheCapture: a capture that ends leaves its counters where
// they are.
func TestCountersOutliveTheCapture(t *testing.T) {
	e := newTest(t, "cloud")
	prefixes := []string{"esp_", "dpd_", "fragments_total", "leaked_", "capture_ike", "capture_flows", "capture_esp"}
	e.AddCapture("cloud", capture())
	before := wireValues(t, e, prefixes...)
	off := evidence.Capture{Mode: evidence.CaptureOff, Why: evidence.CaptureFailed, Reason: "the interface is gone"}
	e.AddCapture("cloud", off)
	r := report("cloud", start, finding(diagnosis.OK, diagnosis.Info, diagnosis.Cause))
	r.Snapshot.Capture = off
	e.Publish(r)
	if diff := cmp.Diff(before, wireValues(t, e, prefixes...)); diff != "" || len(before) < 20 {
		t.Errorf("%d samples (-before +after):\n%s", len(before), diff)
	}
}

func TestWireWords(t *testing.T) {
	over := evidence.Seconds(10 * time.Second)
	esp := evidence.WireTraffic{ESP: evidence.Traffic{Packets: 40}, Sequence: evidence.Sequence{Expected: 50, Lost: 10}}
	at := func(r evidence.IKEReached) evidence.Opt[evidence.IKENegotiation] {
		return evidence.Some(evidence.IKENegotiation{Version: 2, Reached: r, Notify: "NO_PROPOSAL_CHOSEN"})
	}
	for _, c := range []struct {
		capture evidence.Capture
		en, zh  string
	}{
		{evidence.Capture{}, "", ""},
		{evidence.Capture{Mode: evidence.CaptureOff, In: esp}, "", ""},
		{evidence.Capture{Mode: evidence.CaptureSA}, "no packets seen, only the kernel's SA counters", "看不到报文，仅有内核的 SA 计数"},
		{evidence.Capture{Mode: evidence.CaptureBPF, Over: over, Watched: over, In: esp, Talk: evidence.IKETalk{Newest: at(evidence.ReachedChild)}},
			"counted in the kernel · ESP in 40 packets, 20 % lost · ESP out none", "内核中计数 · ESP 入 40 包，丢包 20 % · ESP 出 无"},
		{evidence.Capture{Mode: evidence.CaptureRing, Over: over, Watched: over / 10, Dropped: 3, Out: esp, Talk: evidence.IKETalk{Newest: at(evidence.ReachedRefused)}},
			"packet ring · watched 10 % of the time · 3 dropped by the capture · ESP in none · ESP out 40 packets · IKEv2: the first message is refused NO_PROPOSAL_CHOSEN",
			"报文环 · 监听了 10 % 的时间 · 抓包丢弃 3 个 · ESP 入 无 · ESP 出 40 包 · IKEv2: 首个报文被拒绝 NO_PROPOSAL_CHOSEN"},
		{evidence.Capture{Mode: evidence.CaptureRing, Over: over, Watched: over, Blind: evidence.Yes, In: esp, Out: esp, Talk: evidence.IKETalk{Newest: at(evidence.ReachedIKE)}},
			"packet ring · inbound ESP may bypass it · ESP in 40 packets · ESP out 40 packets, 20 % lost on this host · IKEv2: authenticated, no child SA",
			"报文环 · 入向 ESP 可能绕过抓包 · ESP 入 40 包 · ESP 出 40 包，本机丢包 20 % · IKEv2: 认证通过，子 SA 未建立"},
	} {
		for lang, want := range map[string]string{"en": c.en, "zh": c.zh} {
			if got := strings.Join(wordsIn(lang).wire(c.capture), " · "); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		}
	}
}
