package agent

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"vpnprobe/evidence"
)

// snapshot returns everything that is known now.
func (s *state) snapshot(now time.Time) *evidence.Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	window := min(s.pace.window, now.Sub(s.started))
	snap := &evidence.Snapshot{
		Peer: s.name, Time: now, Window: evidence.Seconds(window), Declared: s.declared,
		Addresses: slices.Clone(s.addresses), ResolveErr: s.resolve,
		Host: s.host, Hop: s.hop, Capture: s.capture, Siblings: s.siblings, Ladder: s.ladder, Auth: s.auth,
	}
	for _, k := range slices.SortedFunc(maps.Keys(s.echoes), compareEcho) {
		w := s.echoes[k]
		e := evidence.SummarizeEcho(w.results, now.Add(-s.pace.window))
		e.Role, e.Target, e.Source, e.CannotLook = k.role, k.target, w.source, w.cannotLook
		snap.Echoes = append(snap.Echoes, e)
	}
	for _, port := range slices.Sorted(maps.Keys(s.ike)) {
		p := *s.ike[port]
		p.Results = slices.DeleteFunc(slices.Clone(p.Results), func(r evidence.IKEResult) bool {
			return r.Sent.Before(now.Add(-max(s.pace.window, 4*s.pace.beat)))
		})
		snap.IKE = append(snap.IKE, p)
	}
	for _, t := range s.tcp {
		if t.Sent.Before(now.Add(-max(s.pace.window, 2*s.pace.tcp))) {
			continue
		}
		snap.TCP = append(snap.TCP, t)
	}
	slices.SortFunc(snap.TCP, func(a, b evidence.TCPResult) int { return a.Target.Compare(b.Target) })
	for _, k := range slices.SortedFunc(maps.Keys(s.mtus), func(a, b mtuKey) int {
		return cmp.Or(compareEcho(a.echoKey, b.echoKey), cmp.Compare(a.probe, b.probe))
	}) {
		snap.MTUs = append(snap.MTUs, s.mtus[k])
	}
	for _, c := range s.changes {
		if !c.Time.Before(now.Add(-s.pace.window)) {
			snap.MTUChanges = append(snap.MTUChanges, c)
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(s.tcpSizes), netip.AddrPort.Compare) {
		if s.tcp[k].Connected == evidence.Yes { // else it says nothing of now
			snap.TCPSizes = append(snap.TCPSizes, s.tcpSizes[k])
		}
	}
	snap.Host.MSSClamps = s.clamps
	snap.Host.Tunnel.In, snap.Host.Tunnel.Out, snap.Host.Tunnel.Over = s.carried.sum()
	snap.Host.Tunnel.LastIn = s.lastIn
	snap.TunnelMTU = tunnelMTU(snap)
	return snap
}

func compareEcho(a, b echoKey) int {
	if c := order(a.role) - order(b.role); c != 0 {
		return c
	}
	return a.target.Compare(b.target)
}

// order puts what the reader looks for first, first.
func order(r evidence.Role) int {
	return slices.Index([]evidence.Role{evidence.Gateway, evidence.Reference, evidence.Inner}, r)
}
