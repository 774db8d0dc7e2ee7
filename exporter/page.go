package exporter

import (
	"cmp"
	"crypto/sha256"
	_ "embed" // for the page and its style
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"vpnprobe/diagnosis"
)

//go:embed page.html
var pageHTML string

//go:embed style.css
var pageStyle string

// refreshSeconds is how often the page loads itself again.
const refreshSeconds = 10

// staleAfter is the age from which a report no longer tells what is.
const staleAfter = 5 * time.Minute

// page serves the status page: one row per peer, the worst first, with what
// was seen and what to do beneath. It needs no script, so its policy allows
// none, and no style but its own.
func (e *Exporter) page(o Options) http.Handler {
	t := template.Must(template.New("page").Parse(pageHTML))
	sum := sha256.Sum256([]byte(pageStyle))
	policy := "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src 'sha256-" +
		base64.StdEncoding.EncodeToString(sum[:]) + "'"
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		view := e.view(language(w, r, o.Lang), r.URL.Query())
		var b strings.Builder
		if err := t.Execute(&b, view); err != nil {
			http.Error(w, "cannot write the page: "+err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Security-Policy", policy)
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		fmt.Fprint(w, b.String())
	})
}

// view is what the page shows, in words.
type view struct {
	Lang, Title, Verdict, Version, Only string
	Refresh                             int // seconds, 0 while paused
	Now                                 time.Time
	Style                               template.CSS
	Links                               struct{ All, Pause, Other string }
	Words                               words
	Peers                               []peerView
}

type peerView struct {
	Name, Gateway, Tone, State, Diagnosis, Summary string
	Since, For, Age                                string
	Stale                                          string // the report's age, when that is a worry
	Open                                           bool
	Paths                                          []pathView
	Findings                                       []findingView
	Folded                                         string // labels of what the cause explains
	IKE                                            string // what the peer makes of a negotiation
	Wire                                           string // what passed on the underlay
	Size                                           string // what fits into the tunnel
	Link, JSON                                     string
	rank                                           int
}

type pathView struct {
	Name, Loss, RTT, MTU string
	Bad                  bool
}

type findingView struct {
	Label, Tone, Note string
	Evidence          []string
	Remedy            string
}

// view builds the page for one query: lang, peer (show only this one) and
// pause (do not reload).
func (e *Exporter) view(lang string, q url.Values) view {
	v := view{
		Lang: lang, Version: e.version, Only: q.Get("peer"), Now: e.now().UTC(),
		Style: template.CSS(pageStyle), Words: wordsIn(lang),
	}
	paused := q.Has("pause")
	if !paused {
		v.Refresh = refreshSeconds
	}
	link := func(lang, peer string, pause bool) string {
		out := url.Values{"lang": {lang}}
		if peer != "" {
			out.Set("peer", peer)
		}
		if pause {
			out.Set("pause", "1")
		}
		return "/?" + out.Encode()
	}
	v.Links.All = link(lang, "", paused)
	v.Links.Pause = link(lang, v.Only, !paused)
	v.Links.Other = link(v.Words.otherLang, v.Only, paused)

	counts := map[string]int{}
	for _, s := range e.summaries(lang) {
		p := viewPeer(s, lang, v.Words, v.Now)
		counts[p.Tone]++
		if v.Only != "" && v.Only != p.Name {
			continue
		}
		p.Open = p.rank < rankUnknown || p.Stale != "" || v.Only != ""
		p.Link = link(lang, p.Name, false)
		p.JSON = "/api/v1/peers/" + url.PathEscape(p.Name) + "?lang=" + lang
		v.Peers = append(v.Peers, p)
	}
	slices.SortStableFunc(v.Peers, func(a, b peerView) int { return cmp.Compare(a.rank, b.rank) })
	v.Verdict = v.Words.verdict(counts)
	v.Title = v.Verdict + " - vpnprobe"
	return v
}

// The order of the rows: what needs a person comes first.
const (
	rankCritical = iota
	rankWarning
	rankUnknown
	rankOK
)

// tone returns the style and the rank of a diagnosis.
func tone(label string, severity diagnosis.Severity) (string, int) {
	switch {
	case label == string(diagnosis.Undecided):
		return "unknown", rankUnknown
	case severity == diagnosis.Critical:
		return "critical", rankCritical
	case severity == diagnosis.Warning:
		return "warning", rankWarning
	}
	return "ok", rankOK
}

func viewPeer(s summary, lang string, w words, now time.Time) peerView {
	p := peerView{
		Name: s.Peer, Gateway: s.Gateway, Summary: s.Summary,
		Since: s.Since.Format("2006-01-02 15:04"), For: w.duration(now.Sub(s.Since)),
	}
	p.Tone, p.rank = tone(s.Diagnosis, diagnosis.Severity(s.Severity))
	p.State = w.state(p.Tone)
	switch diagnosis.Label(s.Diagnosis) {
	case diagnosis.OK, diagnosis.Undecided: // the state says it
	default:
		p.Diagnosis = s.Diagnosis
	}
	if s.report == nil {
		p.Summary = w.Waiting
		return p
	}
	age := now.Sub(*s.Time)
	p.Age = fmt.Sprintf(w.Age, w.duration(age))
	if age > staleAfter { // it tells what was, not what is
		p.Tone, p.rank, p.State = "unknown", rankUnknown, w.Stale
		p.Stale = p.Age
	}
	if snapshot := s.report.Snapshot; snapshot != nil {
		p.IKE = strings.Join(w.negotiation(snapshot, now), " · ")
		p.Wire = strings.Join(w.wire(snapshot.Capture), " · ")
		p.Size = strings.Join(w.size(snapshot), " · ")
	}
	p.Paths = []pathView{w.path(w.Underlay, s.Underlay), w.path(w.Inner, s.Inner)}
	var folded []string
	for _, f := range distinct(s.findings) {
		if f.Role == diagnosis.Suppressed {
			folded = append(folded, string(f.Label))
			continue
		}
		p.Findings = append(p.Findings, viewFinding(f, lang, w))
	}
	p.Folded = strings.Join(folded, ", ")
	return p
}

func viewFinding(f diagnosis.Finding, lang string, w words) findingView {
	v := findingView{
		Label:  string(f.Label),
		Note:   strings.Join([]string{w.role(f.Role), w.severity(f.Severity), w.confidence(f.Confidence)}, " · "),
		Remedy: f.Remedy.In(lang),
	}
	v.Tone, _ = tone(v.Label, f.Severity)
	for _, seen := range f.Evidence {
		v.Evidence = append(v.Evidence, seen.In(lang))
	}
	return v
}
