package report

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"vpnprobe/diagnosis"
	"vpnprobe/evidence"
)

// observations writes everything that was seen, and what could not be.
func (t *text) observations(r *diagnosis.Report) {
	s := r.Snapshot
	t.line("")
	t.line(t.paint(bold, fmt.Sprintf(t.say("Observed for %s, until %s", "观测 %s，截至 %s"),
		duration(r.Duration), r.Time.UTC().Format("2006-01-02 15:04:05 UTC"))))
	t.echoes(s)
	var rows [][]string
	add := func(name string, cells ...string) {
		if text := t.join(cells...); text != "" {
			rows = append(rows, []string{name, text})
		}
	}
	for _, p := range s.IKE {
		add(fmt.Sprintf("IKE %d", p.Port), t.ike(p))
	}
	t.negotiation(s, add)
	t.conversation(s, add)
	sized := t.pathBlocks(s)
	if !slices.ContainsFunc(sized, func(b block) bool { return !b.plain() }) {
		for _, b := range sized {
			add(t.say("path MTU", "路径 MTU"), b.title)
		}
		sized = nil
	}
	for _, c := range s.TCP {
		add(fmt.Sprintf("TCP %d", c.Target.Port()), t.tcp(c))
	}
	add(t.say("inner hop", "隧道下一跳"), t.hop(s.Hop))
	add(t.say("tunnel", "隧道"), t.tunnel(s.Host.Tunnel, s.Time))
	t.wireRows(s, add)
	add(t.say("route", "路由"), t.route(s.Host.Route))
	add(t.say("interface", "接口"), t.link(s.Host.Underlay))
	add(t.say("IKE daemon", "IKE 进程"), t.fact(s.Host.Daemon, t.say("runs here", "本机运行中"), t.say("does not run here", "本机未运行")))
	first := 0
	for _, row := range rows {
		first = max(first, width(row[0]))
	}
	for _, row := range rows {
		t.para("  "+pad(row[0], first)+"  ", row[1])
	}
	if len(sized) > 0 {
		t.head("Path MTU", "路径 MTU")
		t.paths(sized)
	}
	if unseen := t.unseen(s); len(unseen) > 0 {
		t.head("Could not see", "无法观测")
		for _, u := range unseen {
			t.para("  - ", clean(u))
		}
	}
}

// echoes writes the table of echo targets.
func (t *text) echoes(s *evidence.Snapshot) {
	rows := [][]string{{t.say("echo", "回显探测"), "", t.say("sent", "发送"), t.say("lost", "丢包"), t.say("median", "中位"), "p90", ""}}
	for _, e := range s.Echoes {
		if e.Sent == 0 {
			continue
		}
		row := []string{t.role(e.Role), address(e.Target), fmt.Sprint(e.Replies + e.Lost), "-", "-", "-", t.echoNote(e)}
		if n := e.Replies + e.Lost; n > 0 {
			row[3] = fmt.Sprintf("%.3g%%", 100*float64(e.Lost)/float64(n))
		}
		if rtt, ok := e.RTT.Get(); ok {
			row[4], row[5] = duration(rtt.Median.Duration()), duration(rtt.P90.Duration())
		}
		rows = append(rows, row)
	}
	if len(rows) == 1 {
		return
	}
	for _, l := range table(rows, 2, 3, 4, 5) {
		t.line("  " + l)
	}
}

// table aligns cells in columns two blanks apart; those in right are aligned
// to the right.
func table(rows [][]string, right ...int) []string {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], width(cell))
		}
	}
	var out []string
	for _, row := range rows {
		var cells []string
		for i, cell := range row {
			padding := strings.Repeat(" ", widths[i]-width(cell))
			if slices.Contains(right, i) {
				cells = append(cells, padding+cell)
			} else {
				cells = append(cells, cell+padding)
			}
		}
		out = append(out, strings.TrimRight(strings.Join(cells, "  "), " "))
	}
	return out
}

func (t *text) role(r evidence.Role) string {
	switch r {
	case evidence.Gateway:
		return t.say("gateway", "网关")
	case evidence.Reference:
		return t.say("reference", "参照")
	case evidence.Inner:
		return t.say("inner", "内网")
	}
	return clean(string(r))
}

// echoNote writes what the figures of a series do not tell.
func (t *text) echoNote(e evidence.EchoSeries) string {
	var notes []string
	for _, reason := range sortedKeys(e.SendErrors) {
		notes = append(notes, fmt.Sprintf(t.say("%d not sent: %s", "%d 个未发出：%s"), e.SendErrors[reason], t.sendReason(reason)))
	}
	for _, i := range e.ICMPErrors {
		notes = append(notes, fmt.Sprintf("%d× %s", i.Count, t.icmp(i.ICMPError)))
	}
	for _, c := range []struct {
		n      int
		en, zh string
	}{{e.Late, "late", "迟到"}, {e.Duplicates, "duplicate", "重复"}, {e.Reordered, "reordered", "乱序"}} {
		if c.n > 0 {
			notes = append(notes, fmt.Sprintf("%d %s", c.n, t.say(c.en, c.zh)))
		}
	}
	if e.LongestRun >= evidence.OutageRun && e.Replies > 0 {
		notes = append(notes, fmt.Sprintf(t.say("outage of %d probes", "连续丢失 %d 个"), e.LongestRun))
	}
	return t.join(notes...)
}

// icmp writes an ICMP error with the address that sent it.
func (t *text) icmp(e evidence.ICMPError) string {
	out := t.icmpReason(e.Reason)
	if from, ok := e.Offender.Get(); ok {
		out += fmt.Sprintf(t.say(" from %s", "（来自 %s）"), from)
	}
	if mtu, ok := e.MTU.Get(); ok {
		out += t.aside(fmt.Sprintf("MTU %d", mtu))
	}
	return out
}

// ike writes the last outcome on a port, and how often the peer answered.
func (t *text) ike(p evidence.IKEPort) string {
	last, ok := p.Last()
	if !ok {
		return ""
	}
	answered := 0
	for _, r := range p.Results {
		if r.Outcome == evidence.IKEAnswered {
			answered++
		}
	}
	parts := []string{t.ikeOutcome(last)}
	if rtt, ok := last.RTT.Get(); ok {
		parts = append(parts, duration(rtt.Duration()))
	}
	parts = append(parts, fmt.Sprintf(t.say("%d of %d answered", "%d/%d 次应答"), answered, len(p.Results)))
	return t.join(parts...)
}

func (t *text) ikeOutcome(r evidence.IKEResult) string {
	by := ""
	if r.ICMP != nil {
		by = t.say(": ", "：") + t.icmp(*r.ICMP)
	}
	switch r.Outcome {
	case evidence.IKEAnswered:
		if r.Notify == "" {
			return t.say("answered", "有应答")
		}
		return fmt.Sprintf(t.say("answered (%s)", "有应答（%s）"), clean(r.Notify))
	case evidence.IKERefused:
		return t.say("refused by the peer", "被对端拒绝") + by
	case evidence.IKEProhibited:
		return t.say("prohibited by a filter", "被过滤器禁止") + by
	case evidence.IKEUnreachable:
		return t.say("undeliverable", "无法送达") + by
	case evidence.IKESilent:
		return t.say("silent", "无回应") + by
	case evidence.IKESendError:
		return t.say("not sent: ", "未发出：") + t.sendReason(r.Send)
	}
	return clean(string(r.Outcome))
}

func (t *text) tcp(r evidence.TCPResult) string {
	who := address(r.Target.Addr())
	switch {
	case r.Connected == evidence.Yes:
		rtt := ""
		if d, ok := r.RTT.Get(); ok {
			rtt = duration(d.Duration())
		}
		return t.join(who+t.say(": connected", "：已连接"), rtt)
	case r.Refused:
		return who + t.say(": refused by the host, which is thus reachable", "：被主机拒绝，主机可达")
	case r.Connected == evidence.No:
		return t.join(who+t.say(": no answer", "：无回应"), t.tcpReason(r.Reason))
	}
	return who + t.say(": not tried", "：未尝试")
}

func (t *text) hop(h evidence.InnerHop) string {
	if h.Sent == 0 {
		return ""
	}
	out := fmt.Sprintf(t.say("%d of %d answered", "%d/%d 次应答"), h.Answered, h.Sent)
	if from, ok := h.Offender.Get(); ok {
		out += fmt.Sprintf(t.say(" by %s", "（%s）"), from)
	}
	return out
}

func (t *text) tunnel(x evidence.Tunnel, now time.Time) string {
	if x.Readable != evidence.Yes {
		return ""
	}
	if len(x.SAs) == 0 {
		return t.join(t.say("no SA", "没有 SA"), t.fact(x.Policy, t.say("a policy is installed", "已安装策略"), t.say("no policy", "没有策略")))
	}
	parts := []string{
		t.count(uint64(len(x.SAs)), "SA", "%d 个 SA"),
		t.say("in ", "入 ") + t.traffic(x.In),
		t.say("out ", "出 ") + t.traffic(x.Out),
	}
	if last, ok := x.LastIn.Get(); ok {
		parts = append(parts, fmt.Sprintf(t.say("last in %s ago", "最近入向 %s前"), duration(max(0, now.Sub(last)))))
	}
	return t.join(parts...)
}

func (t *text) traffic(x evidence.Traffic) string {
	if x.Packets == 0 {
		return t.say("nothing", "无")
	}
	return t.count(x.Packets, "packet", "%d 包") + " / " + size(x.Bytes)
}

func (t *text) route(r evidence.Route) string {
	if r.Kind == "" {
		return ""
	}
	if r.Kind == evidence.RouteLocal {
		return t.say("local: the gateway's address is this host's own", "local：网关地址是本机自己的地址")
	}
	if r.Kind != evidence.RouteUnicast {
		return fmt.Sprintf(t.say("%s: nothing can be sent to the gateway", "%s：无法向网关发送"), clean(string(r.Kind)))
	}
	out := clean(r.Interface)
	if via, ok := r.NextHop.Get(); ok {
		out += fmt.Sprintf(t.say(" via %s", " 经 %s"), via)
	}
	if from, ok := r.Source.Get(); ok {
		out += fmt.Sprintf(t.say(" from %s", " 源 %s"), from)
	}
	tunnel := ""
	if r.Tunnel == evidence.Yes {
		tunnel = t.say("INTO A TUNNEL", "指向隧道接口")
	}
	return t.join(out, t.fact(r.Neighbour, "", t.say("the next hop does not answer on the link", "下一跳在链路上无应答")), tunnel)
}

func (t *text) link(l evidence.Link) string {
	if l.Name == "" {
		return ""
	}
	mtu := ""
	if n, ok := l.MTU.Get(); ok {
		mtu = fmt.Sprintf("MTU %d", n)
	}
	if l.Exists == evidence.No {
		return clean(l.Name) + t.say(" does not exist", " 不存在")
	}
	return t.join(clean(l.Name)+" "+t.fact(l.Up, t.say("up", "已启用"), t.say("DOWN", "未启用")),
		t.fact(l.Carrier, "", t.say("NO CARRIER", "无载波")), mtu)
}

// fact writes one of two texts, or none when the fact is not known.
func (t *text) fact(f evidence.Fact, yes, no string) string {
	switch f {
	case evidence.Yes:
		return yes
	case evidence.No:
		return no
	}
	return ""
}

// unseen lists what could not be looked at, and why, each reason once.
func (t *text) unseen(s *evidence.Snapshot) []string {
	var out []string
	add := func(what, why string) {
		if entry := what + t.say(": ", "：") + why; why != "" && !slices.Contains(out, entry) {
			out = append(out, entry)
		}
	}
	add(t.say("gateway's name", "网关域名"), s.ResolveErr)
	for _, e := range s.Echoes {
		add(t.role(e.Role)+t.say(" echo", "回显"), e.CannotLook)
	}
	for _, p := range s.IKE {
		add(fmt.Sprintf("IKE %d", p.Port), p.CannotLook)
	}
	add(t.say("IKE negotiation", "IKE 协商"), s.Ladder.CannotLook)
	add(t.say("IKE authentication", "IKE 认证"), s.Auth.CannotLook)
	for _, m := range s.MTUs {
		add(t.say("path MTU", "路径 MTU"), m.CannotLook)
	}
	for _, c := range s.TCPSizes {
		add(t.say("TCP sizes", "TCP 报文大小"), c.CannotLook)
	}
	add(t.say("MSS rules", "MSS 规则"), s.Host.MSSClamps.CannotLook)
	add(t.say("route", "路由"), s.Host.Route.CannotLook)
	add(t.say("tunnel", "隧道"), s.Host.Tunnel.CannotLook)
	c := s.Capture
	if c.Seen() { // it sees, if not all
		add(t.say("capture", "抓包"), c.Reason)
	} else {
		add(t.say("packets on the wire", "线路报文"), c.Reason)
	}
	if c.Seen() && c.Watched < c.Over {
		add(t.say("packets on the wire", "线路报文"), fmt.Sprintf(t.say("listened for %s of %s, so absence proves nothing", "%[2]s 中仅监听 %[1]s，未见不代表没有"),
			duration(c.Watched.Duration()), duration(c.Over.Duration())))
	}
	if c.Blind == evidence.Yes {
		add(t.say("inbound ESP", "入向 ESP"), t.say("it may bypass the capture, so its absence proves nothing", "可能绕过抓包，未见不代表没有"))
	}
	if c.Dropped > 0 {
		add(t.say("packets on the wire", "线路报文"), fmt.Sprintf(
			t.say("the kernel dropped %d of them, so absence proves nothing", "内核丢弃了 %d 个，未见不代表没有"), c.Dropped))
	}
	return out
}

// join joins what is not empty.
func (t *text) join(parts ...string) string {
	parts = slices.DeleteFunc(parts, func(s string) bool { return s == "" })
	return strings.Join(parts, t.say(", ", "，"))
}

func address(a netip.Addr) string {
	if !a.IsValid() {
		return "?"
	}
	return clean(a.String())
}

func sortedKeys[K ~string, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// duration writes three significant digits and a unit.
func duration(d time.Duration) string {
	switch {
	case d >= time.Minute:
		return d.Round(time.Second).String()
	case d >= 999500*time.Microsecond:
		return fmt.Sprintf("%.3g s", d.Seconds())
	}
	return fmt.Sprintf("%.3g ms", d.Seconds()*1000)
}

// size writes a number of bytes with a decimal prefix.
func size(n uint64) string {
	units := []string{"B", "kB", "MB", "GB", "TB", "PB", "EB"}
	f, i := float64(n), 0
	for f >= 999.5 && i < len(units)-1 {
		f /= 1000
		i++
	}
	return fmt.Sprintf("%.3g %s", f, units[i])
}
