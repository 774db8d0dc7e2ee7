package agent

import (
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/wire/esp"
)

// tunnelMTU sums up what is left inside the tunnel of a snapshot, if it is
// known what encrypts: the SA that this host sends with, else what is declared.
func tunnelMTU(s *evidence.Snapshot) evidence.Opt[evidence.TunnelMTU] {
	out := evidence.TunnelMTU{Mode: "tunnel"}
	suite, known := esp.Suite{}, false
	var newest time.Time
	for _, sa := range s.Host.Tunnel.SAs {
		if sa.Inbound || sa.Protocol != "esp" || sa.Suite == "" || sa.Created.Before(newest) {
			continue
		}
		if q, err := esp.ParseSuite(sa.Suite); err == nil {
			suite, known, newest = q, true, sa.Created
			out.From, out.Mode, out.Encap = "kernel", sa.Mode, sa.Encap
		}
	}
	if !known {
		suite, known = declaredSuite(s.Declared.ESPProposals)
		out.From = "declared"
		if s.Declared.ESPMode != "" {
			out.Mode = s.Declared.ESPMode
		}
		out.Encap = s.Ladder.Features.NATHere == evidence.Yes || s.Ladder.Features.NATThere == evidence.Yes
	}
	outer, measured := outerMTU(s)
	if !known || outer == 0 || len(s.Addresses) == 0 || out.Mode != "tunnel" && out.Mode != "transport" {
		return evidence.Opt[evidence.TunnelMTU]{}
	}
	sum := suite.Inner(outer, esp.Outer{V6: s.Addresses[0].Unmap().Is6(), NATT: out.Encap, Transport: out.Mode == "transport"})
	out.Suite, out.Outer, out.Measured = suite.Name, outer, measured
	out.OuterIP, out.UDP, out.ESP, out.IV, out.ICV = sum.OuterIP, sum.UDP, sum.Header, sum.IV, sum.ICV
	out.Align, out.Trailer, out.Inner, out.MSS4, out.MSS6 = sum.Align, sum.Trailer, sum.Inner, sum.MSS4, sum.MSS6
	return evidence.Some(out)
}

// declaredSuite returns what all declared proposals have in common, as far as
// sizes go.
func declaredSuite(proposals []string) (esp.Suite, bool) {
	var suite esp.Suite
	for i, p := range proposals {
		q, err := esp.ParseSuite(p)
		if err != nil || i > 0 && (q.IV != suite.IV || q.ICV != suite.ICV || q.Block != suite.Block) {
			return esp.Suite{}, false
		}
		suite = q
	}
	return suite, len(proposals) > 0
}

// outerMTU returns the path MTU between the gateways, and whether it was
// measured: where only large pings were lost, that may be the gateway's policy,
// and the link's MTU stands in.
func outerMTU(s *evidence.Snapshot) (bytes int, measured bool) {
	bytes = s.Host.Underlay.MTU.Or(0)
	for _, m := range s.MTUs {
		n, ok := m.MTU.Get()
		if m.Role != evidence.Gateway || !ok {
			continue
		}
		if bytes == 0 {
			bytes = m.LinkMTU.Or(0)
		}
		// What IKE requests find is near the truth only.
		if m.Probe == evidence.MTUByICMP && (m.State != evidence.MTUBlackHole || confirmed(m, s.MTUs)) {
			return n, true
		}
	}
	return bytes, false
}

// confirmed reports whether packets that are no pings between the gateways were
// lost above about the same size.
func confirmed(m evidence.PathMTU, list []evidence.PathMTU) bool {
	const (
		least, most = 36, 96 // bytes that ESP adds
		near        = 32
	)
	for _, o := range list {
		d := m.MTU.Or(0) - o.MTU.Or(0)
		if o.State != evidence.MTUBlackHole || !o.MTU.Known() {
			continue
		}
		if o.Role == evidence.Inner && d >= least && d <= most {
			return true
		}
		if o.Role == evidence.Gateway && o.Probe != evidence.MTUByICMP && d >= -near && d <= near {
			return true
		}
	}
	return false
}
