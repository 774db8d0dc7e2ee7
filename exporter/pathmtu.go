package exporter

import (
	"net/netip"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"vpnprobe/evidence"
)

// Values of the labels of path MTUs, see [sendReasons].
var (
	mtuStates      = []string{"full", "reduced", "black_hole", "unknown"} // each worse than the one before, but for the last
	fragmentOrders = []string{"in_order", "reversed"}
)

// mtuVecs count what path MTU searches did.
type mtuVecs struct {
	// by peer, path, role
	searches, probes, changes *prometheus.CounterVec
	fragmented, reassembled   *prometheus.CounterVec // and order
}

func (m *metrics) addPathMTU() {
	by := []string{"peer", "path", "role"}
	m.mtu = mtuVecs{
		searches:    m.counter("path_mtu_searches_total", "Path MTU searches that sent anything.", by...),
		probes:      m.counter("path_mtu_probes_total", "Packets sent to search path MTUs, of every size and in fragments.", by...),
		changes:     m.counter("path_mtu_changes_total", "Path MTU searches that found another MTU than the one before, to the same target with the same kind of probe.", by...),
		fragmented:  m.counter("path_mtu_fragmented_requests_total", "Packets sent in fragments, each of which fits the path, by the order of the fragments.", append(by, "order")...),
		reassembled: m.counter("path_mtu_fragmented_responses_total", "Those of path_mtu_fragmented_requests_total that were answered.", append(by, "order")...),
	}
}

// mtuSeries counts the searches to all targets of one role.
type mtuSeries struct {
	searches, probes, changes prometheus.Counter
	fragmented, reassembled   reasons
	last                      map[mtuKey]foundMTU
}

// mtuKey tells apart what may rightly have different path MTUs: an echo must
// pass both ways, an IKE request one.
type mtuKey struct {
	target, source netip.Addr
	probe          evidence.MTUProbe
}

// foundMTU is what must be remembered of one target between two searches.
type foundMTU struct {
	began evidence.Opt[time.Time]
	bytes evidence.Opt[int] // the newest path MTU
}

// maxMTUTargets bounds what is remembered of a role, should its addresses
// change without end.
const maxMTUTargets = 256

func newMTUSeries(v mtuVecs, labels ...string) *mtuSeries {
	return &mtuSeries{
		searches:    v.searches.WithLabelValues(labels...),
		probes:      v.probes.WithLabelValues(labels...),
		changes:     v.changes.WithLabelValues(labels...),
		fragmented:  newReasons(v.fragmented, fragmentOrders, labels...),
		reassembled: newReasons(v.reassembled, fragmentOrders, labels...),
		last:        map[mtuKey]foundMTU{},
	}
}

// observe counts one search. One that is told again, because more has come to
// light, was counted then.
func (s *mtuSeries) observe(m evidence.PathMTU) {
	key := mtuKey{m.Target, m.Source, m.Probe}
	old, seen := s.last[key]
	if m.Packets <= 0 || m.Time.Known() && m.Time == old.began {
		return // nothing was sent: not a search
	}
	s.searches.Inc()
	s.probes.Add(float64(m.Packets))
	for i, tried := range []evidence.Tried{m.Fragmented.Tried, m.Fragmented.Reversed} {
		s.fragmented.of(fragmentOrders[i]).Add(float64(max(tried.Sent, 0)))
		s.reassembled.of(fragmentOrders[i]).Add(float64(max(tried.Answered, 0)))
	}
	found := foundMTU{m.Time, m.MTU}
	switch {
	case !m.MTU.Known():
		found.bytes = old.bytes // an outage is no change of the MTU
	case old.bytes.Known() && old.bytes != m.MTU:
		s.changes.Inc()
	}
	if !seen && len(s.last) >= maxMTUTargets {
		clear(s.last)
	}
	s.last[key] = found
}

// ObservePathMTU counts one path MTU search.
func (e *Exporter) ObservePathMTU(name string, m evidence.PathMTU) {
	e.with(name, func(p *peer) {
		if s := p.mtuOf(m.Role); s != nil {
			s.observe(m)
		}
	})
}

var (
	descMTU = desc("path_mtu_bytes", "Largest IP packet that was answered, header included: a ping, or where none is answered, an IKE request; of several targets, the smallest. No series until one was.",
		"peer", "path", "role")
	descMTUTime = desc("path_mtu_last_success_timestamp_seconds", "When path_mtu_bytes was last proven by a reply, in Unix time.",
		"peer", "path", "role")
	descMTUState = desc("path_mtu_state", "A constant 1, labelled with how the latest path MTU search ended; of several targets, the worst. No series before the first search.",
		"peer", "path", "role", "state")
	descCached = desc("path_mtu_cached_bytes", "Path MTU that the kernel believes, read at the latest search; of several targets, the smallest. No series while that is not known.",
		"peer", "path", "role")
	descMSS = desc("tcp_mss_recommended_bytes", "Largest TCP segment that fits into the tunnel unfragmented: the MTU of the underlay, as measured or else of the outgoing link, less what ESP and the headers take. No series while it is not known what encrypts.",
		"peer", "family")
)

var mtuDescs = []*prometheus.Desc{descMTU, descMTUTime, descMTUState, descCached, descMSS}

// collectPathMTU reads the latest searches.
func collectPathMTU(s *evidence.Snapshot, gauge func(d *prometheus.Desc, value float64, labels ...string)) {
	for _, role := range []evidence.Role{evidence.Gateway, evidence.Reference, evidence.Inner} {
		if state := worstMTUState(s.MTUs, role); state != "" {
			gauge(descMTUState, 1, pathOf(role), string(role), state)
		}
		if bytes, ok := cachedMTU(s.MTUs, role); ok {
			gauge(descCached, float64(bytes), pathOf(role), string(role))
		}
	}
	if t, ok := s.TunnelMTU.Get(); ok {
		for _, x := range []struct {
			family string
			bytes  int
		}{{"ipv4", t.MSS4}, {"ipv6", t.MSS6}} {
			if x.bytes > 0 { // nothing of that family goes in, or nothing fits
				gauge(descMSS, float64(x.bytes), x.family)
			}
		}
	}
}

// telling leaves out the searches by IKE to targets of which pings tell. Those
// must pass both ways, at their own size.
func telling(mtus []evidence.PathMTU) []evidence.PathMTU {
	byPing := map[netip.Addr]bool{}
	for _, m := range mtus {
		if !byIKE(m) && m.MTU.Known() {
			byPing[m.Target] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(mtus), func(m evidence.PathMTU) bool { return byIKE(m) && byPing[m.Target] })
}

func byIKE(m evidence.PathMTU) bool {
	return m.Probe == evidence.MTUByIKE || m.Probe == evidence.MTUByIKENATT
}

// worstMTUState returns the worst end of the searches of a role, as the value of
// a label: "unknown" when none was answered, "" when there was none.
func worstMTUState(mtus []evidence.PathMTU, role evidence.Role) string {
	worst, searched := -1, false
	for _, m := range telling(mtus) {
		if m.Role != role || m.Packets <= 0 && !m.MTU.Known() {
			continue
		}
		searched = true
		if i := slices.Index(mtuStates[:3], string(m.State)); i > worst {
			worst = i
		}
	}
	switch {
	case !searched:
		return ""
	case worst < 0:
		return mtuStates[3]
	}
	return mtuStates[worst]
}

// cachedMTU returns the smallest path MTU that the kernel believes of a role.
func cachedMTU(mtus []evidence.PathMTU, role evidence.Role) (bytes int, ok bool) {
	for _, m := range mtus {
		if n, known := m.Cached.Get(); known && m.Role == role && (!ok || n < bytes) {
			bytes, ok = n, true
		}
	}
	return bytes, ok
}
