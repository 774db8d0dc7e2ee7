//go:build linux

package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

const (
	prometheusListen   = "127.0.0.1:9090"
	prometheusPatience = 30 * time.Second
)

const prometheusConfig = `
global:
  scrape_interval: %[1]s
  scrape_timeout: %[1]s
scrape_configs:
  - job_name: vpnprobe
    static_configs:
      - targets: [%[2]q]
`

// Prometheus is a running Prometheus on gateway a that scrapes the agent.
type Prometheus struct {
	lab *Lab
}

// StartPrometheus starts Prometheus and waits until it answers.
func (l *Lab) StartPrometheus(scrapeInterval time.Duration) *Prometheus {
	l.t.Helper()
	config := filepath.Join(guestResults, "prometheus.yml")
	l.save(config, fmt.Appendf(nil, prometheusConfig, scrapeInterval, AgentListen))
	cmd := l.A.Command("prometheus --config.file=" + config + " --storage.tsdb.path=/var/lib/prometheus --web.listen-address=" + prometheusListen)
	cmd.Env = append(os.Environ(), "HOME=/root")
	l.start(cmd, "prometheus.log")
	l.t.Cleanup(func() {
		if err := terminate(cmd); err != nil {
			l.t.Errorf("lab: stop Prometheus: %v", err)
		}
	})
	p := &Prometheus{l}
	ready := func() bool {
		_, err := l.A.get("http://" + prometheusListen + "/-/ready")
		return err == nil
	}
	if !eventually(prometheusPatience, ready) {
		log, _ := os.ReadFile(filepath.Join(guestResults, "prometheus.log"))
		l.t.Fatalf("lab: Prometheus did not come up:\n%s", log)
	}
	return p
}

// Series is one element of an instant query's answer: its labels.
type Series map[string]string

// Query evaluates an instant query and returns the series it yields now.
func (p *Prometheus) Query(query string) []Series {
	p.lab.t.Helper()
	body, err := p.lab.A.get("http://" + prometheusListen + "/api/v1/query?query=" + url.QueryEscape(query))
	if err != nil {
		p.lab.t.Fatal("lab: ask Prometheus: ", err)
	}
	var answer struct {
		Data struct {
			Result []struct{ Metric Series }
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		p.lab.t.Fatalf("lab: Prometheus answered %q: %v", body, err)
	}
	var series []Series
	for _, result := range answer.Data.Result {
		series = append(series, result.Metric)
	}
	return series
}

// TryGet fetches a path from the agent run on gateway a, which may be starting.
func (a *Agent) TryGet(path string) ([]byte, error) {
	return a.lab.A.get("http://" + AgentListen + path)
}

// Get fetches a path from the agent run on gateway a.
func (a *Agent) Get(path string) []byte {
	a.lab.t.Helper()
	body, err := a.TryGet(path)
	if err != nil {
		a.lab.t.Fatal("lab: ask the agent: ", err)
	}
	return body
}

// get fetches a URL from the node.
func (n *Node) get(url string) ([]byte, error) {
	client := http.Client{
		Timeout: 10 * time.Second,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			// The host in url is an address, so dialling stays on this thread.
			DialContext: func(ctx context.Context, network, address string) (conn net.Conn, err error) {
				err = n.inside(func() (err error) {
					conn, err = new(net.Dialer).DialContext(ctx, network, address)
					return err
				})
				return conn, err
			},
		},
	}
	response, err := client.Get(url)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, response.Status, body)
	}
	return body, err
}
