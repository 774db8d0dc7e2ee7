package exporter

import (
	"fmt"
	"strings"
	"time"

	"vpnprobe/evidence"
)

// negotiation writes, in a few words each, what the probe ladder and an
// authenticated attempt found, and when.
func (w words) negotiation(s *evidence.Snapshot, now time.Time) []string {
	l := &s.Ladder
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for _, x := range []struct {
		name   string
		offers evidence.IKEOffers
	}{{"IKEv2", l.V2}, {w.pick("IKEv1 main mode", "IKEv1 主模式"), l.Main}, {w.pick("IKEv1 aggressive mode", "IKEv1 野蛮模式"), l.Aggressive}} {
		if said := w.offers(x.offers); said != "" {
			add("%s %s", x.name, said)
		}
	}
	for _, m := range l.Mismatches {
		accepts := strings.Join(m.Accepts, ", ")
		if accepts == "" {
			accepts = "?"
		}
		add("%s: %s → %s", w.attribute(m.Attribute), strings.Join(m.Declared, ", "), accepts)
	}
	if l.Cookie {
		add("%s", w.pick("asks for a cookie", "要求 cookie"))
	}
	if l.Features.Implementation != "" {
		add("%s", l.Features.Implementation)
	}
	if l.Features.NATHere == evidence.Yes {
		add("%s", w.pick("NAT on our side", "本端位于 NAT 之后"))
	}
	if l.Features.NATThere == evidence.Yes {
		add("%s", w.pick("NAT on its side", "对端位于 NAT 之后"))
	}
	if said := w.auth(s.Auth); said != "" {
		add("%s", said)
	}
	if at, ok := l.Time.Get(); ok && len(out) > 0 {
		add(w.pick("asked %s ago", "%s前询问"), w.duration(now.Sub(at)))
	}
	return out
}

// offers writes what the peer makes of one way to begin a negotiation. A way
// that it does not answer goes without saying.
func (w words) offers(o evidence.IKEOffers) string {
	switch {
	case o.Declared == evidence.Yes:
		return w.pick("accepts the declared proposal", "接受所声明的提议")
	case o.Declared == evidence.No && o.Accepts == evidence.Yes:
		return w.pick("refuses the declared proposal, accepts another", "拒绝所声明的提议，接受其他提议")
	case o.Accepts == evidence.No:
		return w.pick("refuses every common algorithm from our address", "拒绝来自本端地址的所有常用算法")
	case o.Declared == evidence.No:
		return w.pick("refuses the declared proposal", "拒绝所声明的提议")
	case o.Accepts == evidence.Yes:
		return w.pick("accepts a proposal from our address", "接受来自本端地址的提议")
	case o.Answers == evidence.Yes:
		return w.pick("answers", "有应答")
	}
	return ""
}

func (w words) attribute(a evidence.Attribute) string {
	switch a {
	case evidence.Encryption:
		return w.pick("encryption", "加密")
	case evidence.Integrity:
		return w.pick("integrity", "完整性")
	case evidence.PRF:
		return "PRF"
	case evidence.Group:
		return w.pick("group", "DH 组")
	}
	return string(a)
}

// auth writes how an authenticated negotiation ended.
func (w words) auth(a evidence.IKEAuth) string {
	switch a.Stage {
	case evidence.StageInit, evidence.StageAuth:
		return strings.TrimSpace(w.pick("not authenticated ", "认证未通过 ") + a.Notify)
	case evidence.StageChild:
		return strings.TrimSpace(w.pick("authenticated, child SA refused ", "认证通过，子 SA 被拒绝 ") + a.Notify)
	case evidence.StageComplete:
		return w.pick("authenticated, child SA agreed", "认证通过，子 SA 已协商")
	}
	return ""
}
