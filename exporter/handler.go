package exporter

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"vpnprobe/diagnosis"
	"vpnprobe/evidence"
)

// Options connect the HTTP handler with the rest of the agent.
type Options struct {
	// Render writes a report as JSON, in the language "en" or "zh".
	Render func(r *diagnosis.Report, lang string) ([]byte, error)
	// Lang returns the language for clients that prefer none; nil is English.
	Lang func() string
	// Reload loads the configuration again. Its error is shown to the client
	// in one line.
	Reload func() error
	// Log gets what the client does not need to know.
	Log *slog.Logger
}

// maxScrapes is the number of scrapes that are answered at one time.
const maxScrapes = 16

// Handler serves everything that the agent shows:
//
//	/                     the status page
//	/metrics              Prometheus: text, OpenMetrics or protobuf
//	/api/v1/peers         one summary per peer, as a JSON array
//	/api/v1/peers/NAME    the peer's whole report, as JSON
//	/-/healthy            200 while the agent runs
//	/-/ready              200 once every peer has been reported on, else 503
//	/-/reload             POST or PUT: load the configuration again
func (e *Exporter) Handler(o Options) http.Handler {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(e, promhttp.HandlerOpts{
		EnableOpenMetrics:   true,
		MaxRequestsInFlight: maxScrapes,
		ErrorLog:            slog.NewLogLogger(o.Log.Handler(), slog.LevelError),
	}))
	mux.Handle("GET /{$}", e.page(o))
	mux.HandleFunc("GET /api/v1/peers", func(w http.ResponseWriter, r *http.Request) { e.servePeers(w, r, o) })
	mux.HandleFunc("GET /api/v1/peers/{name}", func(w http.ResponseWriter, r *http.Request) { e.servePeer(w, r, o) })
	mux.HandleFunc("GET /-/healthy", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "healthy") })
	mux.HandleFunc("GET /-/ready", e.serveReady)
	reload := func(w http.ResponseWriter, r *http.Request) { serveReload(w, r, o) }
	mux.HandleFunc("POST /-/reload", reload)
	mux.HandleFunc("PUT /-/reload", reload)
	return secure(mux)
}

// secure forbids browsers to frame the pages or to guess their type.
func secure(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("X-Frame-Options", "DENY")
		w.Header().Set("Referrer-Policy", "no-referrer")
		h.ServeHTTP(w, r)
	})
}

func (e *Exporter) serveReady(w http.ResponseWriter, _ *http.Request) {
	switch waiting, ok := e.ready(); {
	case ok:
		fmt.Fprintln(w, "ready")
	case waiting == "":
		http.Error(w, "not ready: no configuration is loaded yet", http.StatusServiceUnavailable)
	default:
		http.Error(w, fmt.Sprintf("not ready: peer %q has no report yet", waiting), http.StatusServiceUnavailable)
	}
}

// serveReload asks for a reload. No page of ours offers one, so a request that
// a browser sent came from someone else's page, be it with a form (Origin,
// Sec-Fetch-Site say so) or from a name that was rebound to this address
// (then Origin equals Host, hence any Origin is refused).
func serveReload(w http.ResponseWriter, r *http.Request, o Options) {
	site := r.Header.Get("Sec-Fetch-Site")
	if len(r.Header.Values("Origin")) > 0 || (site != "" && site != "none") {
		http.Error(w, "a web page may not reload the configuration: use curl -X POST", http.StatusForbidden)
		return
	}
	if o.Reload == nil {
		http.Error(w, "this agent cannot reload its configuration", http.StatusNotImplemented)
		return
	}
	if err := o.Reload(); err != nil {
		http.Error(w, fmt.Sprintf("the old configuration stays in use: %v", err), http.StatusInternalServerError)
		return
	}
	fmt.Fprintln(w, "reloaded")
}

// summary is one peer in the list of /api/v1/peers. What is not known is null.
type summary struct {
	Peer      string      `json:"peer"`
	Gateway   string      `json:"gateway"`
	Diagnosis string      `json:"diagnosis"`
	Severity  string      `json:"severity"`
	Summary   string      `json:"summary"`
	Since     time.Time   `json:"since"` // when the diagnosis became what it is
	Time      *time.Time  `json:"time"`  // of the latest report
	Underlay  pathSummary `json:"underlay"`
	Inner     pathSummary `json:"inner"`
	report    *diagnosis.Report
	findings  []diagnosis.Finding
}

// pathSummary is what the latest report says of one path.
type pathSummary struct {
	Loss *float64 `json:"loss_ratio"` // of the echo requests that left this host
	RTT  *float64 `json:"rtt_seconds"`
	MTU  *int     `json:"path_mtu_bytes"`
	// State is how the latest path MTU search ended, nil before the first one.
	State *string `json:"path_mtu_state"`

	maxLoss float64 // above it, loss is a fault
}

// summaries returns every peer by name.
func (e *Exporter) summaries(lang string) []summary {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]summary, 0, len(e.peers))
	for _, name := range slices.Sorted(maps.Keys(e.peers)) {
		p := e.peers[name]
		cause := p.findings()[0]
		s := summary{
			Peer: name, Diagnosis: string(cause.Label), Severity: string(cause.Severity),
			Since: p.changed.UTC(), report: p.report, findings: p.findings(),
		}
		if r := p.report; r != nil {
			at := r.Time.UTC()
			s.Time, s.Gateway, s.Summary = &at, r.Gateway, r.Summary.In(lang)
			s.Underlay = p.summarizePath(evidence.Gateway)
			s.Inner = p.summarizePath(evidence.Inner)
		}
		out = append(out, s)
	}
	return out
}

// summarizePath joins all targets of a role: loss over all requests, the
// worst median round-trip time, the smallest path MTU.
func (p *peer) summarizePath(role evidence.Role) pathSummary {
	var out pathSummary
	if p.report.Snapshot == nil {
		return out
	}
	out.maxLoss = p.report.Snapshot.Declared.MaxLoss
	var replies, lost int
	for _, s := range p.report.Snapshot.Echo(role) {
		replies += s.Replies
		lost += s.Lost
		if rtt, ok := s.RTT.Get(); ok {
			median := rtt.Median.Duration().Seconds()
			if out.RTT == nil || median > *out.RTT {
				out.RTT = &median
			}
		}
	}
	if replies+lost > 0 {
		ratio := float64(lost) / float64(replies+lost)
		out.Loss = &ratio
	}
	if mtu, ok := p.mtus[role]; ok {
		out.MTU = &mtu.bytes
	}
	if state := worstMTUState(p.report.Snapshot.MTUs, role); state != "" {
		out.State = &state
	}
	return out
}

func (e *Exporter) servePeers(w http.ResponseWriter, r *http.Request, o Options) {
	lang := language(w, r, o.Lang)
	b, err := json.Marshal(e.summaries(lang))
	if err != nil {
		http.Error(w, "cannot write the list of peers: "+err.Error(), http.StatusInternalServerError)
		return
	}
	writeJSON(w, b)
}

func (e *Exporter) servePeer(w http.ResponseWriter, r *http.Request, o Options) {
	name := r.PathValue("name")
	e.mu.Lock()
	p := e.peers[name]
	var report *diagnosis.Report
	if p != nil {
		report = p.report
	}
	e.mu.Unlock()
	switch {
	case p == nil:
		http.Error(w, fmt.Sprintf("there is no peer %q: /api/v1/peers lists them", name), http.StatusNotFound)
		return
	case report == nil:
		w.Header().Set("Retry-After", "10")
		http.Error(w, fmt.Sprintf("peer %q has no report yet", name), http.StatusServiceUnavailable)
		return
	case o.Render == nil:
		http.Error(w, "this agent cannot write reports", http.StatusNotImplemented)
		return
	}
	b, err := o.Render(report, language(w, r, o.Lang))
	if err != nil {
		o.Log.Error("cannot write a report", "peer", name, "err", err)
		http.Error(w, "cannot write the report: "+err.Error(), http.StatusInternalServerError)
		return
	}
	writeJSON(w, b)
}

func writeJSON(w http.ResponseWriter, b []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Write(b) //nolint:errcheck // the client has gone: nobody to tell
}

// language returns the language to answer in: the one asked for with ?lang=,
// else what the client prefers, else the configured one.
func language(w http.ResponseWriter, r *http.Request, otherwise func() string) string {
	asked := r.URL.Query().Get("lang")
	if asked == "" {
		w.Header().Add("Vary", "Accept-Language")
		asked = r.Header.Get("Accept-Language")
	}
	if strings.HasPrefix(strings.ToLower(asked), "zh") {
		return "zh"
	}
	if asked == "" && otherwise != nil {
		return otherwise()
	}
	return "en"
}
