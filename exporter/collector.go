package exporter

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"vpnprobe/diagnosis"
)

// reportCollector reads metrics off the latest reports. It is collected only
// by the exporter's own registry, under the exporter's lock.
type reportCollector struct{ e *Exporter }

// desc describes one metric of the latest report.
func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
}

var (
	descDiagnosis = desc("diagnosis", "A constant 1 per finding of the latest report; exactly one of a peer's has the role cause.",
		"peer", "diagnosis", "severity", "role")
	descChanged = desc("diagnosis_changed_timestamp_seconds", "When the diagnosis became what it is, in Unix time.", "peer")
	descReport  = desc("report_timestamp_seconds", "When the latest report was made, in Unix time; 0 before the first one.", "peer")
)

// Describe implements [prometheus.Collector].
func (*reportCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range slices.Concat(ladderDescs, wireDescs, mtuDescs, []*prometheus.Desc{descDiagnosis, descChanged, descReport}) {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *reportCollector) Collect(ch chan<- prometheus.Metric) {
	for _, p := range c.e.peers {
		p.collect(func(d *prometheus.Desc, value float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, append([]string{p.label}, labels...)...)
		})
	}
}

func (p *peer) collect(gauge func(d *prometheus.Desc, value float64, labels ...string)) {
	for _, f := range distinct(p.findings()) {
		gauge(descDiagnosis, 1, clean(string(f.Label)), clean(string(f.Severity)), clean(string(f.Role)))
	}
	gauge(descChanged, unixSeconds(p.changed))
	var reported float64
	if p.report != nil {
		reported = unixSeconds(p.report.Time)
		if s := p.report.Snapshot; s != nil {
			collectWire(s.Capture, gauge)
			collectLadder(&s.Ladder, gauge)
			collectPathMTU(s, gauge)
		}
	}
	gauge(descReport, reported)
	for role, mtu := range p.mtus {
		gauge(descMTU, float64(mtu.bytes), pathOf(role), string(role))
		gauge(descMTUTime, unixSeconds(mtu.at), pathOf(role), string(role))
	}
}

// distinct returns one finding per label and role, and one cause, whatever
// the report holds: two equal series would make the whole scrape fail.
func distinct(findings []diagnosis.Finding) []diagnosis.Finding {
	type key struct {
		label diagnosis.Label
		role  diagnosis.Role
	}
	seen := map[key]bool{}
	var out []diagnosis.Finding
	for i, f := range findings {
		switch {
		case i == 0:
			f.Role = diagnosis.Cause
		case f.Role == diagnosis.Cause:
			f.Role = diagnosis.Contributing
		}
		k := key{f.Label, f.Role}
		if !seen[k] {
			seen[k] = true
			out = append(out, f)
		}
	}
	return out
}

func boolValue(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
