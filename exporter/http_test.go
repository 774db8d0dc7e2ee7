package exporter

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vpnprobe/diagnosis"
)

// ask sends one request to the handler.
func ask(h http.Handler, method, target string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestRoutes(t *testing.T) {
	e := newTest(t, "a b/c", "waiting")
	e.Publish(report("a b/c", start, finding("peer_unreachable", diagnosis.Critical, diagnosis.Cause)))
	h := e.Handler(Options{Render: func(r *diagnosis.Report, lang string) ([]byte, error) {
		return fmt.Appendf(nil, `{"peer":%q,"lang":%q}`, r.Peer, lang), nil
	}})
	for _, c := range []struct {
		method, path string
		status       int
		body         string
	}{
		{"GET", "/-/healthy", 200, "healthy\n"},
		{"GET", "/-/ready", 503, `not ready: peer "waiting" has no report yet`},
		{"GET", "/-/reload", 405, ""},
		{"POST", "/-/reload", 501, ""},
		{"GET", "/metrics", 200, "vpnprobe_build_info"},
		{"POST", "/metrics", 405, ""},
		{"GET", "/api/v1/peers/a%20b%2Fc?lang=zh", 200, `{"peer":"a b/c","lang":"zh"}`},
		{"GET", "/api/v1/peers/waiting", 503, `peer "waiting" has no report yet`},
		{"GET", "/api/v1/peers/nobody", 404, `there is no peer "nobody"`},
		{"GET", "/", 200, "peer_unreachable"},
		{"GET", "/favicon.ico", 404, ""},
		{"GET", "/../etc/passwd", 307, ""},
	} {
		w := ask(h, c.method, c.path)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.body) {
			t.Errorf("%s %s = %d %q, want %d %q", c.method, c.path, w.Code, w.Body, c.status, c.body)
		}
	}
	e.Publish(report("waiting", start, finding(diagnosis.OK, diagnosis.Info, diagnosis.Cause)))
	if w := ask(h, "GET", "/-/ready"); w.Code != 200 {
		t.Errorf("/-/ready = %d %q once every peer has a report", w.Code, w.Body)
	}
	if w := ask(New("x").Handler(Options{}), "GET", "/-/ready"); w.Code != 503 {
		t.Errorf("/-/ready = %d without a configuration, want 503", w.Code)
	}
}

func TestReload(t *testing.T) {
	reloads := 0
	var result error
	h := New("x").Handler(Options{Reload: func() error { reloads++; return result }})
	for _, c := range []struct {
		name, method string
		headers      []string
		err          error
		status       int
	}{
		{name: "curl", method: "POST", status: 200},
		{name: "put", method: "PUT", status: 200},
		{name: "typed into a browser's tool", method: "POST", headers: []string{"Sec-Fetch-Site", "none"}, status: 200},
		{name: "a bad file", method: "POST", err: errors.New("peers[0].gateway: missing"), status: 500},
		{name: "get", method: "GET", status: 405},
		{name: "a form elsewhere", method: "POST", headers: []string{"Origin", "https://evil.example"}, status: 403},
		{name: "a sandboxed form", method: "POST", headers: []string{"Origin", "null"}, status: 403},
		{name: "a rebound name", method: "POST", headers: []string{"Origin", "http://example.com"}, status: 403}, // equals Host
		{name: "another site", method: "POST", headers: []string{"Sec-Fetch-Site", "cross-site"}, status: 403},
	} {
		before := reloads
		result = c.err
		w := ask(h, c.method, "/-/reload", c.headers...)
		if w.Code != c.status {
			t.Errorf("%s: status %d, want %d", c.name, w.Code, c.status)
		}
		if called := reloads > before; called != (c.status == 200 || c.status == 500) {
			t.Errorf("%s: reload called: %t", c.name, called)
		}
		if c.err != nil && !strings.Contains(w.Body.String(), c.err.Error()) {
			t.Errorf("%s: %q does not say why", c.name, w.Body)
		}
	}
}

func TestMetricsFormats(t *testing.T) {
	h := everything(t).Handler(Options{})
	for _, c := range []struct{ accept, want string }{
		{"text/plain", "text/plain; version=0.0.4"},
		{"application/openmetrics-text;version=1.0.0", "application/openmetrics-text; version=1.0.0"},
		{"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited", "application/vnd.google.protobuf"},
	} {
		w := ask(h, "GET", "/metrics", "Accept", c.accept, "Accept-Encoding", "gzip")
		if got := w.Header().Get("Content-Type"); !strings.HasPrefix(got, c.want) {
			t.Errorf("Accept %s: Content-Type %q, want %q", c.accept, got, c.want)
		}
		z, err := gzip.NewReader(w.Body)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(z)
		if err != nil || !bytes.Contains(b, []byte("vpnprobe_diagnosis")) {
			t.Errorf("Accept %s: no vpnprobe_diagnosis in %d bytes: %v", c.accept, len(b), err)
		}
	}
}

func TestPeersSummary(t *testing.T) {
	e := newTest(t, "cloud", "new")
	e.Publish(report("cloud", start, finding("peer_unreachable", diagnosis.Critical, diagnosis.Cause)))
	w := ask(e.Handler(Options{}), "GET", "/api/v1/peers")
	var got []map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	underlay := got[0]["underlay"].(map[string]any)
	if got[0]["peer"] != "cloud" || got[0]["diagnosis"] != "peer_unreachable" || got[0]["since"] != "2026-03-01T03:00:00Z" ||
		underlay["loss_ratio"] != 0.1 || underlay["rtt_seconds"] != 0.012 || underlay["path_mtu_bytes"] != 1400.0 || underlay["path_mtu_state"] != "reduced" {
		t.Errorf("first peer: %v", got[0])
	}
	if got[1]["diagnosis"] != "unknown" || got[1]["time"] != nil || got[1]["underlay"].(map[string]any)["loss_ratio"] != nil || got[1]["underlay"].(map[string]any)["path_mtu_state"] != nil {
		t.Errorf("a peer without a report: %v", got[1])
	}
	if body := ask(New("x").Handler(Options{}), "GET", "/api/v1/peers").Body.String(); body != "[]" {
		t.Errorf("without peers: %q, want []", body)
	}
}

// serve runs a server on a free port of loopback until the test ends.
func serve(t *testing.T, webConfig string, h http.Handler) string {
	t.Helper()
	s, err := Listen([]string{"127.0.0.1:0", "127.0.0.1:0"}, webConfig, h, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		http.DefaultClient.CloseIdleConnections()
		if err := <-done; err != nil {
			t.Errorf("Serve = %v after its context ended, want nil", err)
		}
		if _, err := net.Dial("tcp", s.Addrs()[1].String()); err == nil {
			t.Error("the second listener is still open")
		}
	})
	return "http://" + s.Addrs()[0].String()
}

func TestServeWithBasicAuth(t *testing.T) {
	// The bcrypt hash of "secret", at the lowest cost.
	const hash = "$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW"
	path := filepath.Join(t.TempDir(), "web.yml")
	config := "basic_auth_users:\n  ops: " + hash + "\n"
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	reloaded := 0
	url := serve(t, path, newTest(t, "cloud").Handler(Options{Reload: func() error { reloaded++; return nil }}))
	for _, c := range []struct{ method, path string }{
		{"GET", "/"}, {"GET", "/metrics"}, {"GET", "/api/v1/peers"}, {"POST", "/-/reload"}, {"GET", "/-/ready"},
	} {
		for _, password := range []string{"", "wrong", "secret"} {
			r, err := http.NewRequest(c.method, url+c.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if password != "" {
				r.SetBasicAuth("ops", password)
			}
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if allowed := resp.StatusCode != http.StatusUnauthorized; allowed != (password == "secret") {
				t.Errorf("%s %s with password %q: status %d", c.method, c.path, password, resp.StatusCode)
			}
		}
	}
	if reloaded != 1 {
		t.Errorf("reloaded %d times, want once", reloaded)
	}
}

func TestListenErrors(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	for _, c := range []struct{ address, webConfig, want string }{
		{busy.Addr().String(), "", "the port is in use"},
		{"192.0.2.1:9793", "", "the address is not on this host"},
		{"127.0.0.1:99999", "", "cannot listen on 127.0.0.1:99999"},
		{"127.0.0.1:0", "/no/such/web.yml", "web configuration /no/such/web.yml"},
	} {
		s, err := Listen([]string{"127.0.0.1:0", c.address}, c.webConfig, http.NotFoundHandler(), slog.New(slog.DiscardHandler))
		if err == nil {
			s.Close()
			t.Errorf("%s %s: no error", c.address, c.webConfig)
			continue
		}
		if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s %s: %q, want one line with %q", c.address, c.webConfig, err, c.want)
		}
	}
}

// TestShutdownDropsSlowClients ends a server while it answers a request that
// never ends by itself.
func TestShutdownDropsSlowClients(t *testing.T) {
	entered := make(chan struct{})
	h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
	})
	s, err := Listen([]string{"127.0.0.1:0"}, "", h, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s.patience = time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	c, err := net.Dial("tcp", s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-entered
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve = %v, want nil", err)
	}
}
