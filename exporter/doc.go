// Package exporter shows the latest diagnosis of every peer to others: as
// Prometheus metrics, as a JSON API and as one HTML page.
//
// An [Exporter] is told what happens, as it happens, by the scheduler
// (Observe, ObserveIKE, ObserveTCP, ObservePathMTU, AddCapture, AddTunnel,
// Publish); a scrape reads what was counted and never probes. Counters live as long as the
// process: a reload adds the series of new peers and removes those of removed
// peers, and touches no other. docs/metrics.md lists every metric.
package exporter
