package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"vpnprobe/capture"
	"vpnprobe/config"
)

// target is the peer that a capture is looked at for.
type target struct {
	config.Peer
	addrs    []netip.Addr
	siblings []target // other tunnels to the same site
}

// known finds the peer that was asked for by name or address; or the configured
// ones, to choose from by what the capture holds.
func (a *analysis) known(ctx context.Context) error {
	if a.Peer != "" {
		p, ok := configured(a.cfg, a.Peer)
		if !ok {
			p = a.cfg.NewPeer(a.Peer, a.Peer)
		}
		t, err := a.resolve(ctx, p)
		if err != nil {
			return fmt.Errorf("peer %s: gateway %s does not resolve: %w: say --peer ADDRESS", p.Name, p.Gateway, err)
		}
		if slices.Contains(t.addrs, a.Local) {
			return fmt.Errorf("--local %s is the address of peer %s too: want an address of this side, or none", a.Local, p.Name)
		}
		return a.begin(t)
	}
	for _, p := range a.cfg.Peers {
		t, err := a.resolve(ctx, p)
		if err != nil {
			a.Note(fmt.Sprintf("peer %s: gateway %s does not resolve, so it is not looked for: %v", p.Name, p.Gateway, err))
			continue
		}
		a.among = append(a.among, t)
	}
	return nil
}

// configured finds a peer by its name, or else by its gateway.
func configured(cfg *config.Config, name string) (config.Peer, bool) {
	for _, same := range []func(config.Peer) bool{
		func(p config.Peer) bool { return p.Name == name },
		func(p config.Peer) bool { return p.Gateway == name },
	} {
		if i := slices.IndexFunc(cfg.Peers, same); i >= 0 {
			return cfg.Peers[i], true
		}
	}
	return config.Peer{}, false
}

// resolve returns the addresses of a peer and of its siblings, as far as those
// resolve.
func (a *analysis) resolve(ctx context.Context, p config.Peer) (target, error) {
	addrs, err := lookUp(ctx, p.Gateway, p.Source)
	if err != nil {
		return target{}, err
	}
	t := target{Peer: p, addrs: addrs}
	for _, s := range siblings(p, a.cfg.Peers) {
		if addrs, err := lookUp(ctx, s.Gateway, s.Source); err == nil {
			t.siblings = append(t.siblings, target{Peer: s, addrs: addrs})
		}
	}
	return t, nil
}

// decide finds the peer out by what the capture holds.
func (a *analysis) decide() error {
	pairs := a.survey.Pairs()
	if len(pairs) == 0 {
		return fmt.Errorf("%s: %w (%d packets)", a.name(), ErrNoTraffic, a.survey.Frames())
	}
	var there []target
	for _, t := range a.among {
		if slices.ContainsFunc(pairs, func(p capture.Pair) bool {
			return slices.Contains(t.addrs, p.A.Addr) || slices.Contains(t.addrs, p.B.Addr)
		}) {
			there = append(there, t)
		}
	}
	switch len(there) {
	case 0:
		return a.infer(pairs)
	case 1:
		return a.begin(there[0])
	}
	var names []string
	for _, t := range there {
		names = append(names, t.Name)
	}
	return fmt.Errorf("%s: several configured peers are in it: say --peer with one of %s", a.name(), strings.Join(names, ", "))
}

// infer takes the far end of the pairs for the peer, if there is but one.
func (a *analysis) infer(pairs []capture.Pair) error {
	if all := pairs; a.Local.IsValid() {
		pairs = slices.DeleteFunc(slices.Clone(all), func(p capture.Pair) bool { return p.A.Addr != a.Local && p.B.Addr != a.Local })
		if len(pairs) == 0 {
			return fmt.Errorf("%s: no IPsec with --local %s in it, but of %s", a.name(), a.Local, list(all, a.survey.Left()))
		}
	}
	var remotes []netip.Addr
	why := ""
	for _, p := range pairs {
		ours, w, ok := a.ours(p)
		if !ok {
			return a.cannotTell(pairs)
		}
		remote := p.A.Addr
		if remote == ours {
			remote = p.B.Addr
		}
		why = fmt.Sprintf("%s is taken for this side, %s for the peer: %s", ours, remote, w)
		if !slices.Contains(remotes, remote) {
			remotes = append(remotes, remote)
		}
	}
	if len(remotes) > 1 {
		return a.cannotTell(pairs)
	}
	if len(pairs) == 1 && !a.Local.IsValid() {
		a.Note(fmt.Sprintf("%s: %s", a.name(), why))
	}
	return a.begin(target{Peer: a.cfg.NewPeer(remotes[0].String(), remotes[0].String()), addrs: remotes})
}

// ours tells which end of a pair is this side, and by what.
func (a *analysis) ours(p capture.Pair) (ours netip.Addr, why string, ok bool) {
	if addr, ok := either(p, func(addr netip.Addr) bool { return addr == a.Local }); ok {
		return addr, "--local says so", true
	}
	if addr, ok := a.survey.Ours(p); ok {
		return addr, "the capture tells which packets went out", true
	}
	if addr, ok := either(p, a.Here); ok {
		return addr, "it is an address of this host", true
	}
	if addr, ok := either(p, private); ok {
		return addr, "its address is private, the other one's public", true
	}
	return netip.Addr{}, "", false
}

// either returns the end of a pair that is something which the other is not.
func either(p capture.Pair, is func(netip.Addr) bool) (netip.Addr, bool) {
	if is == nil {
		return netip.Addr{}, false
	}
	a, b := is(p.A.Addr), is(p.B.Addr)
	switch {
	case a && !b:
		return p.A.Addr, true
	case b && !a:
		return p.B.Addr, true
	}
	return netip.Addr{}, false
}

// sharedSpace is what providers use between themselves and their customers (RFC 6598).
var sharedSpace = netip.MustParsePrefix("100.64.0.0/10")

// private reports whether an address is one of RFC 1918, RFC 4193 or RFC 6598.
func private(a netip.Addr) bool { return a.IsPrivate() || sharedSpace.Contains(a) }

// maxListed bounds the pairs that a message names.
const maxListed = 8

func (a *analysis) cannotTell(pairs []capture.Pair) error {
	if len(pairs) == 1 {
		p := pairs[0]
		return fmt.Errorf("%s: %s and %s speak IPsec, and nothing tells which of them is this side: say --peer with the address of the remote gateway", a.name(), p.A.Addr, p.B.Addr)
	}
	return fmt.Errorf("%s: several pairs of hosts speak IPsec: say --peer with the address of the remote gateway: %s", a.name(), list(pairs, a.survey.Left()))
}

// list names pairs with their numbers of packets, the busiest first.
func list(pairs []capture.Pair, left uint64) string {
	var s []string
	for _, p := range pairs[:min(len(pairs), maxListed)] {
		s = append(s, fmt.Sprintf("%s and %s (%d packets)", p.A.Addr, p.B.Addr, p.Packets()))
	}
	if n := uint64(len(pairs)-len(s)) + left; n > 0 {
		s = append(s, fmt.Sprintf("and %d more", n))
	}
	return strings.Join(s, ", ")
}

func join(addrs []netip.Addr) string {
	var s []string
	for _, a := range addrs {
		s = append(s, a.String())
	}
	return strings.Join(s, ", ")
}
