package diagnosis

import (
	"net/netip"

	"vpnprobe/evidence"
)

// sideText says where an inner black hole is.
func (f *facts) sideText(m evidence.PathMTU) Text {
	if f.outerAgrees(m) {
		return say("side: underlay; with what the tunnel adds, %d bytes inside are what is lost outside", "位置：底层网络；内层 %d 字节加上隧道开销即为外层丢失的大小", m.MTU.Or(0))
	}
	lost, located := m.Lost.Get()
	switch {
	case located && !lost.After.IsValid() && (inSubnets(lost.Before, f.Declared.LocalSubnets) || f.saUp() == evidence.No && lost.Before.IsValid()):
		return say("side: our own LAN; the first hop, %s, answers small packets only", "位置：本端局域网；第一跳 %s 只应答小包", lost.Before)
	case located && lost.After.IsValid() && f.saUp() == evidence.Yes:
		return say("side: behind the peer; %s, at hop %d, still answers %d bytes", "位置：对端网关之后；第 %[2]d 跳 %[1]s 仍应答 %[3]d 字节", lost.After, lost.Hops, lost.Size)
	case located && lost.After.IsValid():
		return say("lost beyond hop %d, %s, which still answers %d bytes", "丢失于第 %d 跳 %s 之后，该跳仍应答 %d 字节", lost.Hops, lost.After, lost.Size)
	}
	if o, ok := f.outer(); ok && f.spent() > 0 && m.MTU.Or(0)+f.spent()+maxPadding < o.MTU.Or(0) {
		return say("side: not the underlay, which passes %d bytes: behind the peer, or the peer itself", "位置：不在底层网络（可通过 %d 字节）：对端网关之后或对端自身", o.MTU.Or(0))
	}
	return say("side: not known; no hop tells", "位置：未知，没有中间设备应答")
}

// clampText is the rule to add for one direction, in the two tools' forms.
func clampText(p netip.Prefix, to string, mss int) Text {
	family, tables, flag := "ip", "iptables", "-d"
	if p.Addr().Is6() {
		family, tables = "ip6", "ip6tables"
	}
	if to == "saddr" {
		flag = "-s"
	}
	return say("in your forward chain: nft add rule inet filter forward %s %s %s tcp flags syn tcp option maxseg size set %d; or: %s -t mangle -A FORWARD %s %[3]s -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss %[4]d",
		"在 forward 链中添加：nft add rule inet filter forward %s %s %s tcp flags syn tcp option maxseg size set %d；或：%s -t mangle -A FORWARD %s %[3]s -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss %[4]d",
		family, to, p, mss, tables, flag)
}

func sizeText(m evidence.PathMTU) Text {
	failed := 0
	for _, r := range m.Sizes {
		if r.Size > m.MTU.Or(0) && r.Sent > 0 && r.Answered == 0 && (failed == 0 || r.Size < failed) {
			failed = r.Size
		}
	}
	return say("to %s: %d bytes pass, %d do not and nobody says so (small ones: %d of %d answered)", "发往 %s：%d 字节可通过，%d 字节丢失且无设备告知（小包应答 %d/%d）",
		m.Target, m.MTU.Or(0), failed, m.Small.Answered, m.Small.Sent)
}

func fragmentsText(m evidence.PathMTU) Text {
	return say("to %s: %d of %d packets in fragments answered, whole ones of %d bytes pass", "发往 %s：分片报文应答 %d/%d，%d 字节的完整报文可通过",
		m.Target, m.Fragmented.Answered, m.Fragmented.Sent, m.MTU.Or(0))
}

func lostText(m evidence.PathMTU) []Text {
	l, ok := m.Lost.Get()
	switch {
	case !ok:
		return nil
	case l.After.IsValid():
		return []Text{say("%s, at hop %d, still answers %d bytes", "第 %[2]d 跳 %[1]s 仍应答 %[3]d 字节", l.After, l.Hops, l.Size)}
	case l.Before.IsValid():
		return []Text{say("already the first hop, %s, answers small packets only", "第一跳 %s 即只应答小包", l.Before)}
	}
	return nil
}

func stuckText(t evidence.TCPSize) Text {
	if t.Acked == evidence.No {
		return say("TCP to %s connects, but a segment of %d bytes is not acknowledged", "到 %s 的 TCP 可建立连接，但 %d 字节的报文段未被确认", t.Target, t.Sent.Or(0))
	}
	return say("TCP to %s connects, but the rest of its answer never comes (largest segment seen: %d bytes)", "到 %s 的 TCP 可建立连接，但其后续应答始终未到（所见最大报文段 %d 字节）", t.Target, t.Received.Or(0))
}

func bogusText(e evidence.CountedICMPError, m evidence.PathMTU) Text {
	return say("%s says that only %d bytes fit to %s, which cannot be true (%d bytes were answered)", "%s 声称到 %[3]s 只能通过 %[2]d 字节，与事实不符（%[4]d 字节有应答）",
		e.Offender.Or(netip.Addr{}), e.MTU.Or(0), m.Target, m.MTU.Or(0))
}
