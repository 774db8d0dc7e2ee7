// Package config reads, checks and prints the agent's configuration.
//
// A configuration is one YAML file, /etc/vpnprobe/agent.yaml by default. The
// scalar settings of its top level can also be given as VPNPROBE_...
// variables, which win over the file, and as flags, which win over both.
// [Load] lists every fault of all three at once, each with the key, the line
// or the variable it comes from, and how to mend it; what is legal but
// unlikely to be meant is for [Lint] to tell. A [Config] that was returned
// without an error is complete: every default is filled in and every value is
// within its range.
//
// The package opens no socket and never reads what a psk_file holds.
package config

import (
	_ "embed"
	"log/slog"
	"net/netip"
	"time"
)

// DefaultPath is where the agent looks for its configuration.
const DefaultPath = "/etc/vpnprobe/agent.yaml"

// Minimal is the least configuration that works, to start from.
//
//go:embed minimal.yaml
var Minimal string

// Reference is a configuration that holds and explains every key.
//
//go:embed reference.yaml
var Reference string

// Config is a validated configuration. It is not changed after it was loaded.
type Config struct {
	// Listen is the address of the HTTP server, "host:port". An empty host
	// means all addresses of the machine, port 0 any free port.
	Listen string
	// References are public addresses that are no peer's gateway. They tell
	// "the Internet is bad here" from "this peer is bad".
	References []netip.Addr
	// Interval is the time from one diagnosis of a peer, with its IKE
	// heartbeat, to the next: 1 s to 1 h.
	Interval time.Duration
	// ICMP says how gateways, references and inner addresses are pinged.
	ICMP ICMP
	// InnerInterval is the time between two echo requests to an inner
	// address, 1 s to 1 h. They keep an idle tunnel up. 0 turns them off.
	InnerInterval time.Duration
	// PathMTUInterval is the time between two searches for a path MTU, 1 min to
	// 24 h; in between it is confirmed every minute.
	PathMTUInterval time.Duration
	// Thresholds are the limits from which the path itself is at fault.
	Thresholds Thresholds
	// Capture says how the underlay is listened to.
	Capture Capture
	// StateDirectory holds what must survive a restart. Absolute.
	StateDirectory string
	// WebConfigFile is an exporter-toolkit file with the TLS and basic
	// authentication settings of the HTTP server. Absolute, "" without one.
	WebConfigFile string
	// Log says what the agent logs, and how.
	Log Logging
	// Lang is the language of reports: "en" or "zh".
	Lang string
	// Peers are the VPN connections, in the order of the file. Their names
	// are unique, and so is each pair of gateway and source.
	Peers []Peer
}

// ICMP says how an address is pinged.
type ICMP struct {
	// Interval is the time between two requests, 200 ms to 1 min.
	Interval time.Duration
	// Timeout is how long an answer may take before the request counts as
	// lost, 100 ms to 30 s. It may be longer than Interval.
	Timeout time.Duration
	// Size is the length in bytes of the echo request's data, without the IP
	// and ICMP headers: 24 to 65507, which is an IPv4 packet of 65535 bytes
	// less 20 and 8 bytes of headers.
	Size int
}

// Thresholds are the limits from which loss and latency are faults.
type Thresholds struct {
	// Loss is the highest acceptable share of lost packets, 0 to 1.
	Loss float64
	// RTT is the highest acceptable median round-trip time, 1 ms to 30 s.
	RTT time.Duration
}

// Capture says how the underlay is listened to.
type Capture struct {
	// Mode is "auto", the best that works, or one of "bpf" (counting in the
	// kernel), "ring" (packet sockets), "sa" (the counters of the kernel's SAs
	// alone) and "off".
	Mode string
	// XDP is where counting in the kernel may use XDP: "auto", where it is
	// needed and attaching cannot reset a link, "always" or "never".
	XDP string
}

// Logging says what the agent logs about itself, and how.
type Logging struct {
	Level  slog.Level
	Format string // "text" or "json"
}

// Peer is one VPN connection to one remote gateway. What is not declared has
// its zero value and is not judged, except for ICMP and Thresholds, which are
// then those of the [Config].
type Peer struct {
	// Name is fit for a metric label and for a URL: 1 to 63 of a-z, 0-9, ".",
	// "_" and "-", starting with a letter or a digit.
	Name string
	// Gateway is the peer's public address, or a DNS name in lower case.
	Gateway string
	// Source is the local address to probe from. It has the family of
	// Gateway where that is an address.
	Source netip.Addr
	// Interface is the underlay interface to listen on.
	Interface string

	IKE IKE
	ESP ESP

	// LocalSubnets and RemoteSubnets are the traffic selectors, seen from
	// this host, without host bits.
	LocalSubnets, RemoteSubnets []netip.Prefix
	// Inner are the hosts to reach through the tunnel.
	Inner []Inner

	// Bandwidth is what the line or the gateway was sold as, in bits/s.
	Bandwidth uint64
	// Logs are the IKE daemon's logs on this host.
	Logs []Log

	ICMP       ICMP
	Thresholds Thresholds

	// Vendor names the profile of the remote side: one of [Vendors].
	Vendor string
}

// IKE is what was declared of the IKE SA.
type IKE struct {
	Version   int    // 1 or 2
	Mode      string // "main" or "aggressive", of version 1 only
	Proposals []Proposal
	// LocalID and RemoteID are the identities in the daemon's own notation.
	LocalID, RemoteID string
	// PSKFile holds the pre-shared key. Absolute. The file is not read here.
	PSKFile  string
	Lifetime time.Duration // until the SA is replaced, 1 min to 30 days
	DPDDelay time.Duration // between two liveness checks, 1 s to 1 h
}

// ESP is what was declared of the CHILD_SA or phase 2.
type ESP struct {
	Proposals []Proposal
	Mode      string // "tunnel" or "transport"
	// Encapsulation is "udp" when ESP is expected in UDP 4500 (RFC 3948),
	// "none" when it is expected as IP protocol 50.
	Encapsulation string
	Lifetime      time.Duration // until the SA is replaced, 1 min to 30 days
}

// Inner is a host that is reached through the tunnel.
type Inner struct {
	Address netip.Addr
	// Source is the local address to probe from, so that the packets match
	// the traffic selectors. It has the family of Address.
	Source   netip.Addr
	TCPPorts []uint16 // expected to accept connections; never 0
}

// Log is where an IKE daemon logs: exactly one of its fields is set.
type Log struct {
	Path    string // a file, absolute
	Journal string // a systemd unit
}

// Vendors returns the profiles that [Peer.Vendor] can name.
func Vendors() []string { return []string{"aws", "huawei", "ctyun", "generic"} }

// Default returns a configuration without peers in which every setting has
// its default.
func Default() *Config {
	c := new(Config)
	for _, s := range settings() {
		if err := s.set(c, s.def); s.def != "" && err != nil {
			panic("config: default of " + s.key + ": " + err.Error()) // a bug, found by any test
		}
	}
	return c
}

// NewPeer returns a peer of which nothing but the gateway is declared. It is
// not checked: the caller answers for both arguments.
func (c *Config) NewPeer(name, gateway string) Peer {
	return Peer{Name: name, Gateway: gateway, ICMP: c.ICMP, Thresholds: c.Thresholds}
}
