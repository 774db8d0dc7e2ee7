package exporter

import (
	"fmt"

	"vpnprobe/evidence"
)

// size writes, in a few words each, what fits into the tunnel and what is amiss
// with sizes on each path.
func (w words) size(s *evidence.Snapshot) []string {
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if t, ok := s.TunnelMTU.Get(); ok {
		add(w.pick("up to %d bytes fit into the tunnel", "隧道内可用 %d 字节"), t.Inner)
		switch {
		case t.MSS4 > 0 && t.MSS6 > 0:
			add(w.pick("TCP MSS %d (IPv6 %d)", "TCP MSS %d（IPv6 %d）"), t.MSS4, t.MSS6)
		case t.MSS4 > 0:
			add("TCP MSS %d", t.MSS4)
		case t.MSS6 > 0:
			add("IPv6 TCP MSS %d", t.MSS6)
		}
	}
	out = append(out, w.amiss(w.Underlay, s.MTUs, evidence.Gateway)...)
	out = append(out, w.amiss(w.Inner, s.MTUs, evidence.Inner)...)
	stalled := uint64(0)
	for _, c := range s.TCPSizes {
		if c.Stalled == evidence.Yes || c.Acked == evidence.No {
			stalled++
		}
	}
	if stalled > 0 {
		out = append(out, w.count(stalled, "TCP connection", "%d 个 TCP 连接")+w.pick(" stuck on large segments", "卡在大报文"))
	}
	return out
}

// amiss writes what the searches of a role show beside their MTU.
func (w words) amiss(path string, mtus []evidence.PathMTU, role evidence.Role) []string {
	var out []string
	add := func(text string) { out = append(out, path+w.pick(": ", "：")+text) }
	for _, m := range mtus {
		if m.Role != role {
			continue
		}
		for _, h := range m.Holes[:min(len(m.Holes), 1)] {
			add(fmt.Sprintf(w.pick("%d to %d lost, larger pass", "%d 至 %d 丢失，更大的可通过"), h.From, h.To))
		}
		f := m.Fragmented
		switch {
		case f.Sent > 0 && f.Answered == 0:
			add(w.pick("fragments lost", "分片丢失"))
		case f.Expired > 0:
			add(w.pick("fragments never complete", "分片无法重组"))
		case f.Reversed.Sent > 0 && f.Reversed.Answered == 0:
			add(w.pick("fragments out of order lost", "乱序分片丢失"))
		}
		if m.Cleared == evidence.Yes {
			add(w.pick("\"don't fragment\" cleared", "DF 被清除"))
		}
		if cached, ok := m.Cached.Get(); ok && m.MTU.Known() && cached != m.MTU.Or(0) {
			add(fmt.Sprintf(w.pick("the kernel believes %d", "内核认为是 %d"), cached))
		}
	}
	return out
}
