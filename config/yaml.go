package config

import (
	"bytes"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The types below are the file as it is printed: texts, in the order in which
// a reader wants them, without what was not declared.
type (
	fileYAML struct {
		Listen          string         `yaml:"listen"`
		References      []string       `yaml:"references,flow,omitempty"`
		Interval        string         `yaml:"interval"`
		ICMP            icmpYAML       `yaml:"icmp,flow"`
		InnerInterval   string         `yaml:"inner_interval"`
		PathMTUInterval string         `yaml:"path_mtu_interval"`
		Thresholds      thresholdsYAML `yaml:"thresholds,flow"`
		Capture         captureYAML    `yaml:"capture,flow"`
		StateDirectory  string         `yaml:"state_directory"`
		WebConfigFile   string         `yaml:"web_config_file,omitempty"`
		Log             loggingYAML    `yaml:"log,flow"`
		Lang            string         `yaml:"lang"`
		Peers           []peerYAML     `yaml:"peers"`
	}
	icmpYAML struct {
		Interval string `yaml:"interval"`
		Timeout  string `yaml:"timeout"`
		Size     int    `yaml:"size"`
	}
	thresholdsYAML struct {
		Loss float64 `yaml:"loss"`
		RTT  string  `yaml:"rtt"`
	}
	captureYAML struct {
		Mode string `yaml:"mode"`
		XDP  string `yaml:"xdp"`
	}
	loggingYAML struct {
		Level  string `yaml:"level"`
		Format string `yaml:"format"`
	}
	peerYAML struct {
		Name          string          `yaml:"name"`
		Gateway       string          `yaml:"gateway"`
		Source        string          `yaml:"source,omitempty"`
		Interface     string          `yaml:"interface,omitempty"`
		IKE           ikeYAML         `yaml:"ike,omitempty"`
		ESP           espYAML         `yaml:"esp,omitempty"`
		LocalSubnets  []string        `yaml:"local_subnets,flow,omitempty"`
		RemoteSubnets []string        `yaml:"remote_subnets,flow,omitempty"`
		Inner         []innerYAML     `yaml:"inner,omitempty"`
		Bandwidth     string          `yaml:"bandwidth,omitempty"`
		Logs          []logYAML       `yaml:"logs,omitempty"`
		Vendor        string          `yaml:"vendor,omitempty"`
		ICMP          *icmpYAML       `yaml:"icmp,flow,omitempty"`
		Thresholds    *thresholdsYAML `yaml:"thresholds,flow,omitempty"`
	}
	ikeYAML struct {
		Version   int      `yaml:"version,omitempty"`
		Mode      string   `yaml:"mode,omitempty"`
		Proposals []string `yaml:"proposals,flow,omitempty"`
		LocalID   string   `yaml:"local_id,omitempty"`
		RemoteID  string   `yaml:"remote_id,omitempty"`
		PSKFile   string   `yaml:"psk_file,omitempty"`
		Lifetime  string   `yaml:"lifetime,omitempty"`
		DPDDelay  string   `yaml:"dpd_delay,omitempty"`
	}
	espYAML struct {
		Proposals     []string `yaml:"proposals,flow,omitempty"`
		Mode          string   `yaml:"mode,omitempty"`
		Encapsulation string   `yaml:"encapsulation,omitempty"`
		Lifetime      string   `yaml:"lifetime,omitempty"`
	}
	innerYAML struct {
		Address  string   `yaml:"address"`
		Source   string   `yaml:"source,omitempty"`
		TCPPorts []uint16 `yaml:"tcp_ports,flow,omitempty"`
	}
	logYAML struct {
		Path    string `yaml:"path,omitempty"`
		Journal string `yaml:"journal,omitempty"`
	}
)

// YAML returns the effective configuration: the defaults written out, and
// what variables and flags changed. Loading it gives c again.
func (c *Config) YAML() ([]byte, error) {
	f := fileYAML{
		Listen:          c.Listen,
		References:      texts(c.References),
		Interval:        formatDuration(c.Interval),
		ICMP:            c.ICMP.yaml(),
		InnerInterval:   formatDuration(c.InnerInterval),
		PathMTUInterval: formatDuration(c.PathMTUInterval),
		Thresholds:      c.Thresholds.yaml(),
		Capture:         captureYAML(c.Capture),
		StateDirectory:  c.StateDirectory,
		WebConfigFile:   c.WebConfigFile,
		Log:             loggingYAML{strings.ToLower(c.Log.Level.String()), c.Log.Format},
		Lang:            c.Lang,
	}
	for i := range c.Peers {
		f.Peers = append(f.Peers, c.peerYAML(&c.Peers[i]))
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(f); err != nil {
		return nil, fmt.Errorf("print configuration: %w", err)
	}
	return b.Bytes(), nil
}

// peerYAML leaves out what a peer has from c.
func (c *Config) peerYAML(p *Peer) peerYAML {
	out := peerYAML{
		Name:      p.Name,
		Gateway:   p.Gateway,
		Source:    addrKey(p.Source),
		Interface: p.Interface,
		IKE: ikeYAML{
			Version: p.IKE.Version, Mode: p.IKE.Mode, Proposals: texts(p.IKE.Proposals),
			LocalID: p.IKE.LocalID, RemoteID: p.IKE.RemoteID, PSKFile: p.IKE.PSKFile,
			Lifetime: declared(p.IKE.Lifetime, formatDuration), DPDDelay: declared(p.IKE.DPDDelay, formatDuration),
		},
		ESP: espYAML{
			Proposals: texts(p.ESP.Proposals), Mode: p.ESP.Mode,
			Encapsulation: p.ESP.Encapsulation, Lifetime: declared(p.ESP.Lifetime, formatDuration),
		},
		LocalSubnets:  texts(p.LocalSubnets),
		RemoteSubnets: texts(p.RemoteSubnets),
		Bandwidth:     declared(p.Bandwidth, formatBandwidth),
		Vendor:        p.Vendor,
	}
	for _, in := range p.Inner {
		out.Inner = append(out.Inner, innerYAML{in.Address.String(), addrKey(in.Source), in.TCPPorts})
	}
	for _, log := range p.Logs {
		out.Logs = append(out.Logs, logYAML(log))
	}
	if p.ICMP != c.ICMP {
		icmp := p.ICMP.yaml()
		out.ICMP = &icmp
	}
	if p.Thresholds != c.Thresholds {
		thresholds := p.Thresholds.yaml()
		out.Thresholds = &thresholds
	}
	return out
}

func (i ICMP) yaml() icmpYAML {
	return icmpYAML{formatDuration(i.Interval), formatDuration(i.Timeout), i.Size}
}

func (t Thresholds) yaml() thresholdsYAML {
	return thresholdsYAML{t.Loss, formatDuration(t.RTT)}
}

// texts returns the texts of values.
func texts[T fmt.Stringer](values []T) []string {
	var out []string
	for _, v := range values {
		out = append(out, v.String())
	}
	return out
}

// declared formats what was declared, and leaves the rest empty.
func declared[T comparable](v T, format func(T) string) string {
	var zero T
	if v == zero {
		return ""
	}
	return format(v)
}
