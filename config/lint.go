package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Warning is something that is legal and probably not what was meant.
type Warning struct {
	Key  string // the path of the key, or the name of the variable
	Text string
}

// String returns the warning on one line.
func (w Warning) String() string { return w.Key + ": " + w.Text }

// linter collects warnings.
type linter struct {
	onHost   func(netip.Addr) bool // nil when nobody can tell
	warnings []Warning
}

// here and elsewhere are both false when nobody can tell.
func (l *linter) here(a netip.Addr) bool      { return l.onHost != nil && l.onHost(a) }
func (l *linter) elsewhere(a netip.Addr) bool { return l.onHost != nil && a.IsValid() && !l.onHost(a) }

func (l *linter) warnf(key, format string, args ...any) {
	l.warnings = append(l.warnings, Warning{key, fmt.Sprintf(format, args...)})
}

// Lint tells what is legal in cfg and probably not meant. Whether an address
// is one of this host's is for onHost to say; nil leaves that out.
func Lint(cfg *Config, onHost func(netip.Addr) bool) []Warning {
	l := &linter{onHost: onHost}
	if len(cfg.References) == 0 {
		l.warnf("references", "none declared: without one, a bad Internet connection here looks like a bad peer")
	}
	if host, _, _ := net.SplitHostPort(cfg.Listen); !local(host) && cfg.WebConfigFile == "" {
		l.warnf("listen", "%s is open to the network without TLS or a password: set web_config_file, or listen on 127.0.0.1", cfg.Listen)
	}
	for i := range cfg.Peers {
		l.peer(fmt.Sprintf("peers[%d]", i), &cfg.Peers[i])
	}
	l.betweenPeers(cfg)
	return l.warnings
}

// local reports whether a listener on host is reached from this host only.
func local(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

func (l *linter) peer(path string, p *Peer) {
	if l.elsewhere(p.Source) {
		l.warnf(path+".source", "%s is not an address of this host: nothing can be sent from it", p.Source)
	}
	if a, err := netip.ParseAddr(p.Gateway); err == nil && !a.IsLoopback() && l.here(a) {
		l.warnf(path+".gateway", "%s is an address of this host: declare the remote gateway's", a)
	}
	for i, in := range p.Inner {
		l.inner(fmt.Sprintf("%s.inner[%d]", path, i), p, in)
	}
	l.subnets(path, p)
	l.proposals(path+".ike.proposals", p.IKE.Proposals)
	l.proposals(path+".esp.proposals", p.ESP.Proposals)
	for i, e := range p.ESP.Proposals {
		if !e.AEAD() && len(e.Integrity) == 0 {
			l.warnf(fmt.Sprintf("%s.esp.proposals[%d]", path, i), "%s has no integrity: packets can be changed on the way unnoticed", e)
		}
	}
	if p.IKE.Version == 2 && slices.ContainsFunc(slices.Concat(p.IKE.Proposals, p.ESP.Proposals), usesSM) {
		l.warnf(path+".ike.version", "gateways offer sm2, sm3 and sm4 with IKE version 1 only")
	}
	if p.ESP.Mode == "transport" && len(p.LocalSubnets)+len(p.RemoteSubnets) > 0 {
		l.warnf(path+".esp.mode", "transport mode protects the traffic of the gateways themselves, not that of subnets")
	}
}

func (l *linter) inner(path string, p *Peer, in Inner) {
	if len(p.RemoteSubnets) > 0 && !within(p.RemoteSubnets, in.Address) {
		l.warnf(path+".address", "%s is in none of remote_subnets: the tunnel does not carry it", in.Address)
	}
	if in.Source.IsValid() && len(p.LocalSubnets) > 0 && !within(p.LocalSubnets, in.Source) {
		l.warnf(path+".source", "%s is in none of local_subnets: the tunnel does not carry it", in.Source)
	}
	if l.elsewhere(in.Source) {
		l.warnf(path+".source", "%s is not an address of this host: nothing can be sent from it", in.Source)
	}
}

func within(subnets []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(subnets, func(p netip.Prefix) bool { return p.Contains(a.WithZone("")) })
}

// subnets compares the subnets of one peer.
func (l *linter) subnets(path string, p *Peer) {
	for i, r := range p.RemoteSubnets {
		at := fmt.Sprintf("%s.remote_subnets[%d]", path, i)
		for _, s := range p.LocalSubnets {
			if s.Overlaps(r) {
				l.warnf(at, "%s overlaps local %s: hosts in both never reach each other", r, s)
			}
		}
		if a, err := netip.ParseAddr(p.Gateway); err == nil && r.Contains(a) && r.Bits() > 0 {
			l.warnf(at, "%s contains the gateway %s: its own packets would be sent into the tunnel", r, a)
		}
	}
	l.contained(path+".local_subnets", p.LocalSubnets)
	l.contained(path+".remote_subnets", p.RemoteSubnets)
}

func (l *linter) contained(path string, subnets []netip.Prefix) {
	for i, s := range subnets {
		for j, wide := range subnets {
			if i != j && wide.Bits() < s.Bits() && wide.Overlaps(s) {
				l.warnf(fmt.Sprintf("%s[%d]", path, i), "%s is part of %s already", s, wide)
			}
		}
	}
}

// proposals warns of choices: cloud gateways take one value per parameter,
// and which one a rekey ends with may differ from the first.
func (l *linter) proposals(path string, proposals []Proposal) {
	if len(proposals) > 1 {
		l.warnf(path, "%d proposals: many cloud gateways accept only one", len(proposals))
	}
	for i, p := range proposals {
		if c := p.Choices(); len(c) > 0 {
			l.warnf(fmt.Sprintf("%s[%d]", path, i), "several values for %s: many cloud gateways accept only one", strings.Join(c, ", "))
		}
	}
}

func usesSM(p Proposal) bool {
	return slices.ContainsFunc(slices.Concat(p.Encryption, p.Integrity, p.PRF, p.Groups), func(name string) bool {
		return name == "sm2" || name == "sm3" || name == "sm4" || name == "prfsm3"
	})
}

// betweenPeers warns of remote subnets that lie within another peer's: the
// more specific one wins, for some of the hosts. Equal subnets are what two
// tunnels to one site have, and no reason to warn.
//
// Two prefixes either nest or are disjoint, so in the order of addresses, the
// wider first, a stack of the prefixes that are still open is enough.
func (l *linter) betweenPeers(cfg *Config) {
	type subnet struct {
		netip.Prefix
		peer, index int
	}
	var all, open []subnet
	for i := range cfg.Peers {
		for j, p := range cfg.Peers[i].RemoteSubnets {
			all = append(all, subnet{p, i, j})
		}
	}
	slices.SortStableFunc(all, func(a, b subnet) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	for _, s := range all {
		for len(open) > 0 && !open[len(open)-1].Overlaps(s.Prefix) {
			open = open[:len(open)-1]
		}
		for _, wide := range slices.Backward(open) {
			if wide.peer != s.peer && wide.Prefix != s.Prefix {
				l.warnf(fmt.Sprintf("peers[%d].remote_subnets[%d]", s.peer, s.index),
					"%s is part of %s of peer %s", s, wide.Prefix, cfg.Peers[wide.peer].Name)
				break
			}
		}
		if len(open) == 0 || open[len(open)-1].Prefix != s.Prefix {
			open = append(open, s)
		}
	}
}

// LintFiles tells of files that are named in cfg and are missing, or that
// others than their owner can read though they hold a secret. Files are looked
// at with stat only, such as [os.Stat].
func LintFiles(cfg *Config, stat func(string) (fs.FileInfo, error)) []Warning {
	l := new(linter)
	look := func(key, path string) (fs.FileInfo, bool) {
		if path == "" {
			return nil, false
		}
		info, err := stat(path)
		var pathErr *fs.PathError
		if errors.As(err, &pathErr) {
			err = pathErr.Err // the path is in the message already
		}
		if err != nil {
			l.warnf(key, "%s: %v", path, err)
		}
		return info, err == nil
	}
	look("web_config_file", cfg.WebConfigFile)
	for i, p := range cfg.Peers {
		key := fmt.Sprintf("peers[%d].ike.psk_file", i)
		if info, ok := look(key, p.IKE.PSKFile); ok && info.Mode().Perm()&0o077 != 0 {
			l.warnf(key, "%s has mode %04o, so others can read the key: chmod 0600 it", p.IKE.PSKFile, info.Mode().Perm())
		}
		for j, log := range p.Logs {
			look(fmt.Sprintf("peers[%d].logs[%d].path", i, j), log.Path)
		}
	}
	return l.warnings
}
