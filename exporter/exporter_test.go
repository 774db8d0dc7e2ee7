package exporter

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"go.uber.org/goleak"

	"vpnprobe/diagnosis"
	"vpnprobe/evidence"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// own gathers the metrics of vpnprobe itself, without those of Go.
func own(e *Exporter) prometheus.Gatherer { return prometheus.GathererFunc(e.gather) }

func gather(t *testing.T, e *Exporter) []*dto.MetricFamily {
	t.Helper()
	families, err := e.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// values returns every sample of vpnprobe in the text format.
func values(t *testing.T, e *Exporter) map[string]string {
	t.Helper()
	out := map[string]string{}
	for line := range strings.Lines(exposition(t, own(e))) {
		if !strings.HasPrefix(line, "#") {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "} ")
			out[name+"}"] = value
		}
	}
	return out
}

func exposition(t *testing.T, g prometheus.Gatherer) string {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func TestExpositionGolden(t *testing.T) {
	got := exposition(t, own(everything(t)))
	got = regexp.MustCompile(`goversion="[^"]*"`).ReplaceAllString(got, `goversion="GO"`)
	const path = "testdata/metrics.txt"
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLint(t *testing.T) {
	e := everything(t)
	problems, err := testutil.GatherAndLint(e)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed")
	}
	cmd := exec.Command(promtool, "check", "metrics")
	cmd.Stdin = strings.NewReader(exposition(t, own(e)))
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// TestRequestsAddUp scrapes while results are counted: at no moment may a
// request be in one counter and not yet in the other.
func TestRequestsAddUp(t *testing.T) {
	e := newTest(t, "cloud")
	results := []evidence.EchoResult{
		reply(time.Millisecond), lost(),
		{Target: gateway, Role: evidence.Gateway, Outcome: evidence.EchoSendError, Send: evidence.NoBuffer},
	}
	var counted atomic.Int64
	var observers sync.WaitGroup
	ctx, stop := context.WithCancel(context.Background())
	for range 4 {
		observers.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				e.Observe("cloud", results[i%3])
				counted.Add(1)
			}
		})
	}
	for scrape := range 100 {
		families, err := own(e).Gather()
		if err != nil {
			t.Fatal(err)
		}
		if requests, ended := requestsAndEnds(families); requests != ended {
			t.Errorf("scrape %d: %v requests, but %v replies, losses and send errors", scrape, requests, ended)
			break
		}
	}
	stop()
	observers.Wait()
	if requests, _ := requestsAndEnds(gather(t, e)); requests != float64(counted.Load()) {
		t.Errorf("%v requests, want %d", requests, counted.Load())
	}
}

func requestsAndEnds(families []*dto.MetricFamily) (requests, ended float64) {
	for _, f := range families {
		for _, m := range f.GetMetric() {
			switch f.GetName() {
			case "vpnprobe_icmp_requests_total":
				requests += m.GetCounter().GetValue()
			case "vpnprobe_icmp_lost_total", "vpnprobe_icmp_send_errors_total":
				ended += m.GetCounter().GetValue()
			case "vpnprobe_icmp_rtt_seconds":
				ended += float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return requests, ended
}

func TestReloadKeepsCounters(t *testing.T) {
	e := newTest(t, "a", "b")
	e.Observe("a", lost())
	e.Observe("b", lost())
	e.Publish(report("a", start, finding(diagnosis.OK, diagnosis.Info, diagnosis.Cause)))
	before := values(t, e)
	e.SetPeers([]string{"a", "c"})
	after := values(t, e)
	e.Observe("b", lost()) // a result that was still under way
	e.Publish(report("b", start, finding(diagnosis.OK, diagnosis.Info, diagnosis.Cause)))
	if diff := cmp.Diff(after, values(t, e)); diff != "" {
		t.Errorf("a removed peer came back (-before +after):\n%s", diff)
	}
	for name, value := range after {
		switch {
		case strings.Contains(name, `peer="b"`):
			t.Errorf("%s is still there", name)
		case !strings.Contains(name, `peer="c"`) && before[name] != value:
			t.Errorf("%s went from %q to %q", name, before[name], value)
		}
	}
	for name := range before {
		fresh := strings.ReplaceAll(name, `peer="b"`, `peer="c"`)
		if value, ok := after[fresh]; !ok || strings.Contains(name, `peer="b"`) && strings.Contains(name, "_total") && value != "0" {
			t.Errorf("%s = %q, want a series that starts at 0", fresh, value)
		}
	}
}

func TestDiagnosis(t *testing.T) {
	e := newTest(t, "cloud")
	show := func() map[string]string {
		out := map[string]string{}
		for name, value := range values(t, e) {
			if strings.HasPrefix(name, "vpnprobe_diagnosis") {
				out[strings.TrimPrefix(name, "vpnprobe_diagnosis")] = value
			}
		}
		return out
	}
	at := func(d time.Duration) string { return fmt.Sprint(unixSeconds(start.Add(d))) }
	ok := finding(diagnosis.OK, diagnosis.Info, diagnosis.Cause)
	down := finding("peer_unreachable", diagnosis.Critical, diagnosis.Cause)
	slow := finding("underlay_loss", diagnosis.Warning, diagnosis.Contributing)
	impostor := slow
	impostor.Role = diagnosis.Cause
	for i, step := range []struct {
		findings []diagnosis.Finding
		active   []string
		changed  time.Duration
		moves    string
	}{
		{nil, []string{`diagnosis="unknown",peer="cloud",role="cause",severity="info"`}, 0, "0"},
		{[]diagnosis.Finding{ok}, []string{`diagnosis="ok",peer="cloud",role="cause",severity="info"`}, time.Minute, "0"},
		{[]diagnosis.Finding{ok}, []string{`diagnosis="ok",peer="cloud",role="cause",severity="info"`}, time.Minute, "0"},
		{[]diagnosis.Finding{down, slow, slow}, []string{
			`diagnosis="peer_unreachable",peer="cloud",role="cause",severity="critical"`,
			`diagnosis="underlay_loss",peer="cloud",role="contributing",severity="warning"`,
		}, 3 * time.Minute, "1"},
		{[]diagnosis.Finding{down, impostor}, []string{
			`diagnosis="peer_unreachable",peer="cloud",role="cause",severity="critical"`,
			`diagnosis="underlay_loss",peer="cloud",role="contributing",severity="warning"`,
		}, 3 * time.Minute, "1"},
		{[]diagnosis.Finding{}, []string{`diagnosis="unknown",peer="cloud",role="cause",severity="info"`}, 5 * time.Minute, "2"},
	} {
		if i > 0 {
			e.Publish(report("cloud", start.Add(time.Duration(i)*time.Minute), step.findings...))
		}
		want := map[string]string{
			`_changed_timestamp_seconds{peer="cloud"}`: at(step.changed),
			`_transitions_total{peer="cloud"}`:         step.moves,
		}
		for _, labels := range step.active {
			want["{"+labels+"}"] = "1"
		}
		if diff := cmp.Diff(want, show()); diff != "" {
			t.Errorf("report %d (-want +got):\n%s", i, diff)
		}
	}
}

func TestLossRuns(t *testing.T) {
	e := newTest(t, "cloud")
	run := func() string {
		return values(t, e)[`vpnprobe_loss_run_probes{path="underlay",peer="cloud",role="gateway"}`]
	}
	bursts := func() string {
		return values(t, e)[`vpnprobe_loss_burst_probes_sum{path="underlay",peer="cloud",role="gateway"}`]
	}
	e.Observe("cloud", lost())
	e.Observe("cloud", lost())
	e.Observe("cloud", evidence.EchoResult{Target: gateway, Role: evidence.Gateway, Outcome: evidence.EchoSendError})
	e.Observe("cloud", lost())
	if run() != "3" || bursts() != "0" {
		t.Errorf("in a run of 3: run %s, bursts %s", run(), bursts())
	}
	e.Observe("cloud", reply(time.Millisecond))
	if run() != "0" || bursts() != "3" {
		t.Errorf("after a run of 3: run %s, bursts %s", run(), bursts())
	}
	// The gateway's name resolves to another address: the old one's run ends.
	e.Observe("cloud", lost())
	moved := report("cloud", start, finding(diagnosis.OK, diagnosis.Info, diagnosis.Cause))
	moved.Snapshot.Echoes[0].Target = inner
	e.Publish(moved)
	if run() != "0" || bursts() != "4" {
		t.Errorf("after a change of address: run %s, bursts %s", run(), bursts())
	}
}

func TestPathMTUIsKept(t *testing.T) {
	e := newTest(t, "cloud")
	const name = `vpnprobe_path_mtu_bytes{path="inner",peer="cloud",role="inner"}`
	if got, ok := values(t, e)[name]; ok {
		t.Errorf("%s = %s before anything was proven", name, got)
	}
	ok := finding(diagnosis.OK, diagnosis.Info, diagnosis.Cause)
	e.Publish(report("cloud", start, ok))
	later := report("cloud", start.Add(time.Minute), ok)
	later.Snapshot.MTUs = []evidence.PathMTU{{Role: evidence.Inner, Target: inner}} // nothing answered
	e.Publish(later)
	got := values(t, e)
	if got[name] != "1338" {
		t.Errorf("%s = %q, want 1338, the smallest that was proven", name, got[name])
	}
	if age := got[`vpnprobe_path_mtu_last_success_timestamp_seconds{path="inner",peer="cloud",role="inner"}`]; age != "1.772334e+09" {
		t.Errorf("last success at %s, want that of the first report", age)
	}
}

func TestReloadMetrics(t *testing.T) {
	e := New("dev")
	e.now = func() time.Time { return start }
	show := func() [2]float64 {
		var out [2]float64
		for _, f := range gather(t, e) {
			switch f.GetName() {
			case "vpnprobe_config_last_reload_successful":
				out[0] = f.GetMetric()[0].GetGauge().GetValue()
			case "vpnprobe_config_last_reload_success_timestamp_seconds":
				out[1] = f.GetMetric()[0].GetGauge().GetValue()
			}
		}
		return out
	}
	first, third := unixSeconds(start), unixSeconds(start.Add(2*time.Hour))
	for i, step := range []struct {
		do   func()
		want [2]float64
	}{
		{func() {}, [2]float64{0, 0}},
		{func() { e.SetPeers([]string{"a"}) }, [2]float64{1, first}},
		{func() { e.Reloaded(false, start.Add(time.Hour)) }, [2]float64{0, first}},
		{func() { e.Reloaded(true, start.Add(2*time.Hour)); e.SetPeers([]string{"b"}) }, [2]float64{1, third}},
	} {
		step.do()
		if got := show(); got != step.want {
			t.Errorf("step %d: %v, want %v", i, got, step.want)
		}
	}
}

// TestLadderAddsUp: every request of the ladder is counted once by its step
// and once by what became of it, and an answer to an earlier run not again.
func TestLadderAddsUp(t *testing.T) {
	sums := map[string]float64{}
	for _, f := range gather(t, everything(t)) {
		for _, m := range f.GetMetric() {
			sums[strings.TrimPrefix(f.GetName(), "vpnprobe_ike_ladder_")] += m.GetCounter().GetValue()
		}
	}
	for name, want := range map[string]float64{"runs_total": 1, "requests_total": 13, "exchanges_total": 5, "answers_total": 5, "skipped_total": 3} {
		if sums[name] != want {
			t.Errorf("%s = %v, want %v", name, sums[name], want)
		}
	}
}

// TestLadderVerdicts: what a ladder did not find has no series.
func TestLadderVerdicts(t *testing.T) {
	declared := func(f evidence.Fact) evidence.Ladder { return evidence.Ladder{V2: evidence.IKEOffers{Declared: f}} }
	for name, c := range map[string]struct {
		ladder evidence.Ladder
		want   map[string]string
	}{
		"never ran": {evidence.Ladder{}, map[string]string{}},
		"accepted": {declared(evidence.Yes), map[string]string{
			`accepts_declared{peer="cloud",version="ikev2"}`: "1",
			`mismatch{attribute="encryption",peer="cloud"}`:  "0", `mismatch{attribute="integrity",peer="cloud"}`: "0",
			`mismatch{attribute="prf",peer="cloud"}`: "0", `mismatch{attribute="group",peer="cloud"}`: "0",
		}},
		"refused, attribute not known": {declared(evidence.No), map[string]string{`accepts_declared{peer="cloud",version="ikev2"}`: "0"}},
		"connects":                     {evidence.Ladder{TCP: evidence.IKEOverTCP{Connected: evidence.Yes}}, map[string]string{}},
		"over TCP":                     {evidence.Ladder{TCP: evidence.IKEOverTCP{Connected: evidence.Yes, Answered: evidence.Yes}}, map[string]string{`tcp_up{peer="cloud"}`: "1"}},
	} {
		e := newTest(t, "cloud")
		r := report("cloud", start, finding(diagnosis.OK, diagnosis.Info, diagnosis.Cause))
		r.Snapshot.Ladder = c.ladder
		e.Publish(r)
		got := map[string]string{}
		for series, value := range values(t, e) {
			for _, gauge := range []string{"ladder_timestamp", "accepts", "mismatch", "nat", "tcp_up"} {
				if short := strings.TrimPrefix(series, "vpnprobe_ike_"); strings.HasPrefix(short, gauge) {
					got[short] = value
				}
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestSampleBudget holds the text form to 60 samples per peer and role, per
// IKE port, per direction on the wire, for the probe ladder, for the capture,
// for path MTUs, and for what belongs to the peer as a whole.
func TestSampleBudget(t *testing.T) {
	const budget = 60
	count := map[string]int{}
	for name := range values(t, everything(t)) {
		group := "the peer"
		switch {
		case strings.HasPrefix(name, "vpnprobe_ike_"):
			group = "the ladder"
		case strings.HasPrefix(name, "vpnprobe_capture_"):
			group = "the capture"
		case strings.HasPrefix(name, "vpnprobe_path_mtu_"):
			count["path MTUs"]++
			continue
		}
		for _, label := range []string{`role="gateway"`, `role="reference"`, `role="inner"`, `port="500"`, `port="4500"`, `direction="receive"`, `direction="transmit"`} {
			if strings.Contains(name, label) {
				group = label
			}
		}
		if strings.Contains(name, `peer="`) {
			count[group]++
		}
	}
	if len(count) != 11 {
		t.Errorf("%d groups, want 11: %v", len(count), count)
	}
	for group, n := range count {
		if n > budget {
			t.Errorf("%s: %d samples, want at most %d", group, n, budget)
		}
	}
}

func TestNativeHistograms(t *testing.T) {
	for _, f := range gather(t, everything(t)) {
		if !strings.HasSuffix(f.GetName(), "rtt_seconds") {
			continue
		}
		for _, m := range f.GetMetric() {
			if h := m.GetHistogram(); h.Schema == nil || len(h.GetBucket()) == 0 || len(h.GetBucket()) > 12 {
				t.Errorf("%s: want a native histogram with 1 to 12 classic buckets, got schema %v and %d", f.GetName(), h.Schema, len(h.GetBucket()))
			}
		}
	}
}

func TestHostileNames(t *testing.T) {
	e := newTest(t, "bad\xff\"\n")
	e.Observe("bad\xff\"\n", lost())
	e.Publish(report("bad\xff\"\n", start, finding("x\xff", "\xfe", diagnosis.Cause)))
	e.ObserveTCP("bad\xff\"\n", evidence.TCPResult{Connected: evidence.Yes, RTT: evidence.Some(evidence.Seconds(math.MinInt64))})
	for port := range uint16(1000) {
		e.ObserveIKE("bad\xff\"\n", evidence.IKEResult{Port: port, Requests: -1, Unsolicited: -1, Outcome: evidence.IKESilent})
	}
	if n := strings.Count(exposition(t, e), "\nvpnprobe_ike_timeouts_total{"); n != maxPorts {
		t.Errorf("%d ports have series, want %d", n, maxPorts)
	}
}
