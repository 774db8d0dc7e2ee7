package exporter

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"

	"vpnprobe/diagnosis"
	"vpnprobe/evidence"
)

// Exporter holds the counters and the latest report of every peer. Its methods
// may be called from any goroutine.
type Exporter struct {
	version string
	now     func() time.Time

	// mu is held while an event is counted and while a scrape reads, so that
	// a scrape never sees half an event: at any scrape, requests = replies +
	// lost + send errors.
	mu      sync.Mutex
	metrics *metrics             // of vpnprobe itself, read under mu
	process *prometheus.Registry // of the Go runtime and the process
	peers   map[string]*peer
	loaded  bool // a configuration was ever put to use
}

// New returns an exporter without peers. The version is the one to show in
// vpnprobe_build_info and on the page.
func New(version string) *Exporter {
	e := &Exporter{
		version: version,
		now:     time.Now,
		process: prometheus.NewPedanticRegistry(),
		peers:   map[string]*peer{},
	}
	e.metrics = newMetrics(clean(version))
	e.metrics.registry.MustRegister(&reportCollector{e})
	e.process.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return e
}

// Gather implements [prometheus.Gatherer]: a consistent view of every metric.
func (e *Exporter) Gather() ([]*dto.MetricFamily, error) {
	return prometheus.Gatherers{prometheus.GathererFunc(e.gather), e.process}.Gather()
}

func (e *Exporter) gather() ([]*dto.MetricFamily, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.metrics.registry.Gather()
}

// SetPeers says which peers are configured. The series of a new peer start at
// 0, those of a removed peer end, and those of every other peer go on. What is
// reported later of a peer that is not configured is ignored.
func (e *Exporter) SetPeers(names []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.now()
	if !e.loaded { // the configuration that the agent started with
		e.reloaded(true, now)
	}
	for name, p := range e.peers {
		if !slices.Contains(names, name) {
			e.metrics.remove(p.label)
			delete(e.peers, name)
		}
	}
	for _, name := range names {
		if e.peers[name] == nil {
			e.peers[name] = newPeer(e.metrics, name, now)
		}
	}
}

// Reloaded says whether the attempt to load a new configuration, made at that
// time, put it to use.
func (e *Exporter) Reloaded(ok bool, at time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.reloaded(ok, at)
}

func (e *Exporter) reloaded(ok bool, at time.Time) {
	if !ok {
		e.metrics.reloadOK.Set(0)
		return
	}
	e.loaded = true
	e.metrics.reloadOK.Set(1)
	e.metrics.reloadTime.Set(unixSeconds(at))
}

// Observe counts one resolved echo request, or one late or duplicate reply.
func (e *Exporter) Observe(name string, r evidence.EchoResult) {
	e.with(name, func(p *peer) {
		if m := p.echoOf(r.Role); m != nil {
			m.observe(r)
		}
	})
}

// ObserveIKE counts one IKE heartbeat.
func (e *Exporter) ObserveIKE(name string, r evidence.IKEResult) {
	e.with(name, func(p *peer) {
		if m := p.ikeOn(r.Port); m != nil {
			m.observe(r)
		}
	})
}

// ObserveTCP counts one TCP connection attempt.
func (e *Exporter) ObserveTCP(name string, r evidence.TCPResult) {
	e.with(name, func(p *peer) { p.tcpSeries().observe(r) })
}

// AddCapture adds what the capture has counted since the last call.
func (e *Exporter) AddCapture(name string, delta evidence.Capture) {
	e.with(name, func(p *peer) { p.capture.add(delta) })
}

// AddTunnel adds what the kernel's security associations with the peer have
// carried since the last call.
func (e *Exporter) AddTunnel(name string, in, out evidence.Traffic) {
	e.with(name, func(p *peer) {
		p.tunnelIn.add(in)
		p.tunnelOut.add(out)
	})
}

// Publish shows a new report. The report, with its snapshot, must not change
// afterwards. A report without findings is shown as unknown.
func (e *Exporter) Publish(r *diagnosis.Report) {
	if r == nil {
		return
	}
	e.with(r.Peer, func(p *peer) { p.publish(r) })
}

func (e *Exporter) with(name string, f func(*peer)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if p := e.peers[name]; p != nil {
		f(p)
	}
}

// ready reports whether every peer has been reported on, and names one that
// has not.
func (e *Exporter) ready() (waiting string, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(e.peers)) {
		if e.peers[name].report == nil {
			return name, false
		}
	}
	return "", e.loaded
}

// unixSeconds is the form of time that Prometheus wants.
func unixSeconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// clean makes a text fit for a label value, which must be valid UTF-8.
func clean(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
