//go:build linux

package lab

import (
	"net/netip"
	"strings"
)

const (
	// connName and childName are what every daemon calls its tunnel.
	connName  = "cloud"
	childName = "lan"

	preSharedKey = "a pre-shared key for tests only"
)

// Tunnel is what one gateway is told of the tunnel. Each kind of daemon gets
// it in a language of its own.
type Tunnel struct {
	Version    int    // of IKE, 1 or 2
	Aggressive bool   // IKEv1's other mode
	IKE, ESP   string // one or more proposals, in strongSwan's notation
	Transport  bool   // ESP in transport mode
	Whole      bool   // IKE messages are left to IP to fragment, not by IKE itself

	LocalID, RemoteID         string
	Key                       string // pre-shared
	LocalSubnet, RemoteSubnet string
	Remote                    string // where the other gateway is expected

	// Connection and Child are lines of strongSwan's configuration of the
	// connection, and of what it connects. No other daemon is told.
	Connection, Child string

	// Settings are lines of the daemon's own configuration, of its global
	// part: charon's section, pluto's config setup, or iked.conf.
	Settings string
}

// tunnels returns what the two gateways are told, by the lab's
// configuration. The plain identities are names, so that they hold behind NAT.
func (l *Lab) tunnels() (a, b Tunnel) {
	a = Tunnel{
		Version: 2, IKE: "aes256-sha256-modp2048", ESP: "aes256-sha256",
		LocalID: "a.lab.example", RemoteID: "b.lab.example", Key: preSharedKey,
		LocalSubnet: LanASubnet, RemoteSubnet: LanBSubnet,
		Remote: l.plan.b,
	}
	b = a
	b.LocalID, b.RemoteID = a.RemoteID, a.LocalID
	b.LocalSubnet, b.RemoteSubnet = a.RemoteSubnet, a.LocalSubnet
	b.Remote = l.plan.a
	for _, t := range []*Tunnel{&a, &b} {
		if l.config.Tunnel != nil {
			l.config.Tunnel(t)
		}
	}
	if l.config.Theirs != nil {
		l.config.Theirs(&b)
	}
	return a, b
}

// suite is one proposal in parts, in strongSwan's keywords.
type suite struct{ encryption, integrity, prf, group string }

// suites takes a list of proposals apart.
func suites(proposals string) []suite {
	var list []suite
	for _, proposal := range strings.Split(proposals, ",") {
		var s suite
		for _, word := range strings.Split(strings.TrimSpace(proposal), "-") {
			switch {
			case strings.HasPrefix(word, "prf"):
				s.prf = strings.TrimPrefix(word, "prf")
			case strings.HasPrefix(word, "sha"), word == "md5":
				s.integrity = word
			case strings.HasPrefix(word, "modp"), strings.HasPrefix(word, "ecp"), strings.HasPrefix(word, "curve"):
				s.group = word
			default:
				s.encryption = word
			}
		}
		list = append(list, s)
	}
	return list
}

// pick returns yes if b holds, else no.
func pick(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}

// fqdn says whether an identity is a domain name.
func fqdn(id string) bool {
	_, err := netip.ParseAddr(id)
	return err != nil && !strings.Contains(id, "@")
}

// join joins what f makes of each proposal.
func join(proposals, separator string, f func(suite) string) string {
	var list []string
	for _, s := range suites(proposals) {
		list = append(list, f(s))
	}
	return strings.Join(list, separator)
}
