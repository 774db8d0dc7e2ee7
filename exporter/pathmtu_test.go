package exporter

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnprobe/diagnosis"
	"vpnprobe/evidence"
)

// search is one search by ICMP to the gateway.
func search(mtu int) evidence.PathMTU {
	return evidence.PathMTU{Role: evidence.Gateway, Target: gateway, Probe: evidence.MTUByICMP, MTU: evidence.Some(mtu), Packets: 3}
}

// at is a search that began at that second.
func at(second, mtu int) evidence.PathMTU {
	m := search(mtu)
	m.Time = evidence.Some(start.Add(time.Duration(second) * time.Second))
	return m
}

func TestPathMTUChanges(t *testing.T) {
	other := search(1400)
	other.Target = inner
	byIKE := search(1400)
	byIKE.Probe = evidence.MTUByIKE
	from := search(1400)
	from.Source = netip.MustParseAddr("10.1.0.1")
	silent := search(0)
	silent.MTU = evidence.Opt[int]{}
	nothing := search(1400)
	nothing.Packets = 0
	for name, c := range map[string]struct {
		searches []evidence.PathMTU
		want     string
	}{
		"the first":        {[]evidence.PathMTU{search(1500)}, "0"},
		"the same":         {[]evidence.PathMTU{search(1500), search(1500)}, "0"},
		"down and up":      {[]evidence.PathMTU{search(1500), search(1400), search(1500)}, "2"},
		"another target":   {[]evidence.PathMTU{search(1500), other}, "0"},
		"another probe":    {[]evidence.PathMTU{search(1500), byIKE, search(1500)}, "0"},
		"another source":   {[]evidence.PathMTU{search(1500), from}, "0"},
		"an outage":        {[]evidence.PathMTU{search(1500), silent, search(1500)}, "0"},
		"after an outage":  {[]evidence.PathMTU{search(1500), silent, search(1400)}, "1"},
		"nothing was sent": {[]evidence.PathMTU{search(1500), nothing}, "0"},
		"told again":       {[]evidence.PathMTU{at(0, 1500), at(1, 1400), at(1, 1500), at(2, 1400)}, "1"},
		"a negative count": {[]evidence.PathMTU{{Role: evidence.Gateway, Packets: -1, MTU: evidence.Some(1)}}, "0"},
	} {
		e := newTest(t, "cloud")
		for _, m := range c.searches {
			e.ObservePathMTU("cloud", m)
		}
		if got := values(t, e)[`vpnprobe_path_mtu_changes_total{path="underlay",peer="cloud",role="gateway"}`]; got != c.want {
			t.Errorf("%s: %s changes, want %s", name, got, c.want)
		}
	}
}

// TestPathMTUMemoryIsBounded: addresses without end leave no more than a bound.
func TestPathMTUMemoryIsBounded(t *testing.T) {
	e := newTest(t, "cloud")
	m := search(1500)
	for range 3 * maxMTUTargets {
		m.Target = m.Target.Next()
		e.ObservePathMTU("cloud", m)
	}
	if n := len(e.peers["cloud"].mtu[evidence.Gateway].last); n > maxMTUTargets {
		t.Errorf("%d targets are remembered, want at most %d", n, maxMTUTargets)
	}
}

func TestPathMTUCounters(t *testing.T) {
	e := newTest(t, "cloud")
	prefixes := []string{"path_mtu_searches", "path_mtu_probes", "path_mtu_fragmented"}
	if got := wireValues(t, e, prefixes...); len(got) != 0 {
		t.Fatalf("before the first search: %v", got)
	}
	m := search(1400)
	m.Fragmented = evidence.FragmentedProbe{Tried: evidence.Tried{Sent: 3, Answered: 2}, Reversed: evidence.Tried{Sent: 4, Answered: 1}}
	e.ObservePathMTU("cloud", m)
	m.Fragmented = evidence.FragmentedProbe{Tried: evidence.Tried{Sent: -3, Answered: -3}}
	e.ObservePathMTU("cloud", m)
	e.ObservePathMTU("nobody", m)
	e.ObservePathMTU("cloud", at(1, 1400))
	again := at(1, 1400) // the target has complained meanwhile
	again.Fragmented = evidence.FragmentedProbe{Tried: evidence.Tried{Sent: 3}, Expired: 2}
	e.ObservePathMTU("cloud", again)
	const of = `path="underlay",role="gateway"`
	want := map[string]string{
		`path_mtu_searches_total{` + of + `}`: "3", `path_mtu_probes_total{` + of + `}`: "9",
		`path_mtu_fragmented_requests_total{order="in_order",` + of + `}`: "3", `path_mtu_fragmented_responses_total{order="in_order",` + of + `}`: "2",
		`path_mtu_fragmented_requests_total{order="reversed",` + of + `}`: "4", `path_mtu_fragmented_responses_total{order="reversed",` + of + `}`: "1",
	}
	if diff := cmp.Diff(want, wireValues(t, e, prefixes...)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestPathMTUGauges: the worst and the smallest of several targets, and no
// series of what is not known.
func TestPathMTUGauges(t *testing.T) {
	const of = `path="inner",role="inner"`
	found := func(state evidence.MTUState, mtu, cached int) evidence.PathMTU {
		return evidence.PathMTU{Role: evidence.Inner, State: state, MTU: evidence.Some(mtu), Cached: evidence.Some(cached), Packets: 1}
	}
	mute := evidence.PathMTU{Role: evidence.Inner, Packets: 9}
	for name, c := range map[string]struct {
		s    evidence.Snapshot
		want map[string]string
	}{
		"nothing":        {evidence.Snapshot{}, map[string]string{}},
		"not searched":   {evidence.Snapshot{MTUs: []evidence.PathMTU{{Role: evidence.Inner, CannotLook: "why"}}}, map[string]string{}},
		"no role":        {evidence.Snapshot{MTUs: []evidence.PathMTU{{Role: "x", State: evidence.MTUFull, Packets: 1}}}, map[string]string{}},
		"not answered":   {evidence.Snapshot{MTUs: []evidence.PathMTU{mute}}, map[string]string{`path_mtu_state{` + of + `,state="unknown"}`: "1"}},
		"never heard of": {evidence.Snapshot{MTUs: []evidence.PathMTU{{Role: evidence.Inner, State: "x\xff", Packets: 1}}}, map[string]string{`path_mtu_state{` + of + `,state="unknown"}`: "1"}},
		"several": {evidence.Snapshot{MTUs: []evidence.PathMTU{mute, found(evidence.MTUFull, 1500, 1500), found(evidence.MTUBlackHole, 1400, 1438), found(evidence.MTUReduced, 1300, 1300)}},
			map[string]string{`path_mtu_state{` + of + `,state="black_hole"}`: "1", `path_mtu_cached_bytes{` + of + `}`: "1300"}},
		"MSS":     {evidence.Snapshot{TunnelMTU: evidence.Some(evidence.TunnelMTU{MSS4: 1398, MSS6: 1378})}, map[string]string{`tcp_mss_recommended_bytes{family="ipv4",peer="cloud"}`: "1398", `tcp_mss_recommended_bytes{family="ipv6",peer="cloud"}`: "1378"}},
		"IPv4":    {evidence.Snapshot{TunnelMTU: evidence.Some(evidence.TunnelMTU{MSS4: 1398})}, map[string]string{`tcp_mss_recommended_bytes{family="ipv4",peer="cloud"}`: "1398"}},
		"no room": {evidence.Snapshot{TunnelMTU: evidence.Some(evidence.TunnelMTU{MSS4: -1})}, map[string]string{}},
	} {
		e := newTest(t, "cloud")
		r := report("cloud", start, finding(diagnosis.OK, diagnosis.Info, diagnosis.Cause))
		r.Snapshot = &c.s
		e.Publish(r)
		got := wireValues(t, e, "path_mtu_state", "path_mtu_cached", "tcp_mss")
		want := map[string]string{}
		for k, v := range c.want {
			want[strings.Replace(k, `,peer="cloud"`, "", 1)] = v
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestPathMTUSeriesExist from the moment that the peer is known to have them.
func TestPathMTUSeriesExist(t *testing.T) {
	e := newTest(t, "cloud")
	roles := func() string {
		var out []string
		for name := range values(t, e) {
			if rest, ok := strings.CutPrefix(name, `vpnprobe_path_mtu_searches_total{path=`); ok {
				out = append(out, rest)
			}
		}
		slices.Sort(out)
		return strings.Join(out, " ")
	}
	const underlay, tunnel = `"underlay",peer="cloud",role="gateway"}`, `"inner",peer="cloud",role="inner"}`
	if got := roles(); got != underlay {
		t.Errorf("at first: %s", got)
	}
	e.Publish(report("cloud", start, finding(diagnosis.OK, diagnosis.Info, diagnosis.Cause)))
	if got := roles(); got != tunnel+" "+underlay {
		t.Errorf("with an inner host: %s", got)
	}
}

// TestPingsTellMoreThanIKE: IKE stands in only where no ping is answered.
func TestPingsTellMoreThanIKE(t *testing.T) {
	byIKE := search(1500)
	byIKE.Probe, byIKE.State = evidence.MTUByIKE, evidence.MTUFull
	ping := search(1400)
	ping.State = evidence.MTUBlackHole
	mute := search(0)
	mute.MTU = evidence.Opt[int]{}
	elsewhere := byIKE
	elsewhere.Target = inner
	const of = `path="underlay",role="gateway"`
	for name, c := range map[string]struct {
		mtus       []evidence.PathMTU
		mtu, state string
	}{
		"both":        {[]evidence.PathMTU{byIKE, ping}, "1400", "black_hole"},
		"only IKE":    {[]evidence.PathMTU{mute, byIKE}, "1500", "full"},
		"two targets": {[]evidence.PathMTU{elsewhere, ping}, "1400", "black_hole"},
	} {
		e := newTest(t, "cloud")
		r := report("cloud", start, finding(diagnosis.OK, diagnosis.Info, diagnosis.Cause))
		r.Snapshot.MTUs = c.mtus
		e.Publish(r)
		want := map[string]string{`path_mtu_bytes{` + of + `}`: c.mtu, `path_mtu_state{` + of + `,state="` + c.state + `"}`: "1"}
		if diff := cmp.Diff(want, wireValues(t, e, "path_mtu_bytes", "path_mtu_state")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if diff := cmp.Diff(len(c.mtus), len(r.Snapshot.MTUs)); diff != "" {
			t.Errorf("%s: the shared snapshot changed", name)
		}
	}
}

func TestSizeWords(t *testing.T) {
	with := func(change func(*evidence.PathMTU)) *evidence.Snapshot {
		m := search(1400)
		m.Cached = evidence.Some(1400)
		m.Fragmented = evidence.FragmentedProbe{Tried: evidence.Tried{Sent: 2, Answered: 2}, Reversed: evidence.Tried{Sent: 2, Answered: 2}}
		change(&m)
		return &evidence.Snapshot{MTUs: []evidence.PathMTU{m}}
	}
	for _, c := range []struct {
		s      *evidence.Snapshot
		en, zh string
	}{
		{&evidence.Snapshot{}, "", ""},
		{with(func(*evidence.PathMTU) {}), "", ""},
		{with(func(m *evidence.PathMTU) { m.Role = evidence.Reference; m.Cleared = evidence.Yes }), "", ""},
		{with(func(m *evidence.PathMTU) { m.Cached = evidence.Some(1500) }), "underlay: the kernel believes 1500", "公网路径：内核认为是 1500"},
		{with(func(m *evidence.PathMTU) { m.Fragmented.Answered = 0 }), "underlay: fragments lost", "公网路径：分片丢失"},
		{with(func(m *evidence.PathMTU) { m.Fragmented.Expired = 1 }), "underlay: fragments never complete", "公网路径：分片无法重组"},
		{with(func(m *evidence.PathMTU) { m.Fragmented.Reversed.Answered = 0 }), "underlay: fragments out of order lost", "公网路径：乱序分片丢失"},
		{with(func(m *evidence.PathMTU) {
			m.Role, m.Cleared = evidence.Inner, evidence.Yes
			m.Holes = []evidence.SizeRange{{From: 1373, To: 1472}}
		}),
			`tunnel: 1373 to 1472 lost, larger pass · tunnel: "don't fragment" cleared`, "隧道内：1373 至 1472 丢失，更大的可通过 · 隧道内：DF 被清除"},
		{&evidence.Snapshot{
			TunnelMTU: evidence.Some(evidence.TunnelMTU{Inner: 1438, MSS4: 1398, MSS6: 1378}),
			TCPSizes:  []evidence.TCPSize{{Acked: evidence.No}, {Acked: evidence.Yes, Stalled: evidence.No}},
		}, "up to 1438 bytes fit into the tunnel · TCP MSS 1398 (IPv6 1378) · 1 TCP connection stuck on large segments", "隧道内可用 1438 字节 · TCP MSS 1398（IPv6 1378） · 1 个 TCP 连接卡在大报文"},
		{&evidence.Snapshot{
			TunnelMTU: evidence.Some(evidence.TunnelMTU{Inner: 1438, MSS6: 1378}), TCPSizes: []evidence.TCPSize{{Stalled: evidence.Yes}, {Acked: evidence.No}},
		}, "up to 1438 bytes fit into the tunnel · IPv6 TCP MSS 1378 · 2 TCP connections stuck on large segments", "隧道内可用 1438 字节 · IPv6 TCP MSS 1378 · 2 个 TCP 连接卡在大报文"},
	} {
		for lang, want := range map[string]string{"en": c.en, "zh": c.zh} {
			if got := strings.Join(wordsIn(lang).size(c.s), " · "); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		}
	}
}
