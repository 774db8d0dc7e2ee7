package report

import (
	"strings"

	"vpnprobe/evidence"
)

// The words of bounded sets of reasons. In English they are those of the metrics
// and of the JSON form, so that they can be searched for.

// icmpReason writes what an ICMP error means.
func (t *text) icmpReason(r evidence.ICMPReason) string {
	zh, ok := map[evidence.ICMPReason]string{
		evidence.FragNeeded: "报文过大需分片", evidence.NetUnreachable: "网络不可达", evidence.HostUnreachable: "主机不可达",
		evidence.AdminProhibited: "被管理策略禁止", evidence.PortUnreachable: "端口不可达", evidence.ProtUnreachable: "协议不可达",
		evidence.TTLExceeded: "TTL 超时", evidence.OtherICMP: "其他 ICMP 错误",
	}[r]
	if !ok {
		return clean(string(r))
	}
	return t.say(string(r), zh)
}

// sendReason writes why a packet did not leave this host.
func (t *text) sendReason(r evidence.SendReason) string {
	zh, ok := map[evidence.SendReason]string{
		evidence.NoRoute: "没有路由", evidence.Prohibited: "被禁止", evidence.LocalFirewall: "被本机防火墙拒绝", evidence.BlockedByXfrm: "被 IPsec 策略拒绝",
		evidence.TooBig: "报文过大", evidence.NoBuffer: "缓冲区不足", evidence.NoDevice: "接口不存在或未启用", evidence.NoAddress: "源地址不在本机", evidence.OtherSend: "其他原因",
	}[r]
	if !ok {
		return clean(string(r))
	}
	return t.say(string(r), zh)
}

// tcpReason writes why a connection did not come about.
func (t *text) tcpReason(s string) string {
	for _, x := range []struct{ en, zh string }{
		{"no answer within ", "等待 "}, {"timed out after ", "超时："},
	} {
		if after, ok := strings.CutPrefix(s, x.en); ok {
			return clean(t.say(x.en, x.zh) + after)
		}
	}
	return clean(s)
}
