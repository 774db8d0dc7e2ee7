package main

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"vpnprobe/config"
	"vpnprobe/hoststate"
)

// target finds the peer in the configuration, or makes one of its address;
// flags win over what is configured.
func (f probeFlags) target(cfg *config.Config) (config.Peer, error) {
	p, err := configured(cfg, f.peer)
	if err != nil {
		return p, err
	}
	if f.source != "" {
		if p.Source, err = host("source", f.source); err != nil {
			return p, err
		}
		if here, err := hoststate.SourceOnHost(p.Source); err == nil && !here {
			return p, fmt.Errorf("source %s is not an address of this host: see `ip address`", p.Source)
		}
		if g, err := netip.ParseAddr(p.Gateway); err == nil && g.Unmap().Is4() != p.Source.Unmap().Is4() {
			return p, fmt.Errorf("source %s and peer %s are of different families", p.Source, g)
		}
	}
	if f.iface != "" {
		if _, err := net.InterfaceByName(f.iface); err != nil {
			return p, fmt.Errorf("interface %q is not on this host: see `ip link`", f.iface)
		}
		p.Interface = f.iface
	}
	for _, s := range f.inner {
		a, err := host("inner", s)
		if err != nil {
			return p, err
		}
		p.Inner = append(p.Inner, config.Inner{Address: a})
	}
	for _, s := range f.references {
		a, err := host("reference", s)
		if err != nil {
			return p, err
		}
		if a.String() == p.Gateway {
			return p, fmt.Errorf("reference %s is the peer itself: name another public address", a)
		}
		cfg.References = append(cfg.References, a)
	}
	return p, nil
}

// host reads the address of one host.
func host(flag, s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.IsUnspecified() || a.IsMulticast() {
		return a, fmt.Errorf("%s %q: want the IP address of one host", flag, s)
	}
	return a.Unmap(), nil
}

// nameable reports what is wrong with a peer that is not configured: it must
// be an address or look like a DNS name.
func nameable(s string, cfg *config.Config) error {
	if a, err := netip.ParseAddr(s); err == nil {
		if a.IsUnspecified() || a.IsMulticast() {
			return fmt.Errorf("peer %s: want the address of one host", s)
		}
		return nil
	}
	if !strings.Contains(s, ".") || strings.ContainsAny(s, " /:@") || strings.Trim(s, "0123456789.") == "" || len(s) > 253 {
		var names []string
		for _, p := range cfg.Peers {
			names = append(names, p.Name)
		}
		if len(names) == 0 {
			return fmt.Errorf("peer %q is neither an address nor a DNS name, and no configuration names it", s)
		}
		return fmt.Errorf("peer %q is neither configured nor an address nor a DNS name; configured: %s", s, strings.Join(names, ", "))
	}
	return nil
}

// configured finds the peer in the configuration, or makes one of its address.
func configured(cfg *config.Config, peer string) (config.Peer, error) {
	p, found := config.Peer{}, false
	for _, q := range cfg.Peers {
		if q.Name == peer || !found && q.Gateway == peer {
			p, found = q, true
		}
	}
	if found {
		return p, nil
	}
	if err := nameable(peer, cfg); err != nil {
		return p, err
	}
	return cfg.NewPeer(peer, peer), nil
}
