package diagnosis

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"vpnprobe/evidence"
)

// Rule is one diagnosis as data. [Rules] lists them all.
type Rule struct {
	Label    Label
	Severity Severity
	// Precedence orders the rules that hold at the same time: the lowest is
	// the cause. 1 to 99; facts about this host come before guesses about
	// remote ones.
	Precedence int
	// Needs are the observations without which the rule says nothing.
	Needs []Need
	// Symptom says that the rule tells what happens and not why: it is a cause
	// only where no rule does that tells why.
	Symptom bool
	// Explains are the labels that are only symptoms when this rule holds.
	Explains []Label
	Summary  Text // one sentence: what is wrong
	Remedy   Text // what to do
	decide   func(*facts) verdict
}

// Need names one observation that a rule cannot do without.
type Need string

// The observations that rules can need.
const (
	NeedRoute Need = "route" // the kernel's route to the gateway
	NeedEcho  Need = "ping"  // echo requests to the gateway were resolved
	NeedIKE   Need = "ike"   // heartbeats on UDP 500 ended
	NeedSAs   Need = "sas"   // the kernel's SAs could be read, or all packets were seen
	NeedInner Need = "inner" // an inner address is declared and was probed

	NeedLadder Need = "ladder"         // the probe ladder was run lately, or a negotiation was seen
	NeedAuth   Need = "authentication" // an authenticated negotiation was made lately, or seen

	NeedCapture Need = "capture" // packets were seen on the wire

	NeedSizes    Need = "sizes"    // a path MTU was found, or a TCP connection looked at
	NeedSiblings Need = "siblings" // another tunnel to the same site is declared
)

// has reports whether the observation is there.
func (n Need) has(f *facts) bool {
	switch n {
	case NeedRoute:
		return f.Host.Route.Kind != ""
	case NeedEcho:
		return f.gateway.Sent > 0 || f.recorded()
	case NeedIKE:
		return len(f.ike500.Results) > 0 || f.recorded()
	case NeedSAs:
		return f.Host.Tunnel.Readable == evidence.Yes || f.recorded() || f.Capture.Conclusive()
	case NeedInner:
		return len(f.inner) > 0 || len(f.TCP) > 0
	case NeedLadder:
		return f.Ladder.Time.Known() || f.Capture.Talk.Newest.Known()
	case NeedAuth:
		return f.Auth.Time.Known() || f.Capture.Talk.Newest.Known()
	case NeedCapture:
		return f.Capture.Seen()
	case NeedSizes:
		return len(f.MTUs) > 0 || len(f.TCPSizes) > 0
	case NeedSiblings:
		return len(f.Siblings) > 0
	}
	return false
}

// optional reports whether it is no wonder that the observation is missing:
// it was not declared, or is made only when something is wrong or asked for.
func (n Need) optional() bool {
	switch n {
	case NeedInner, NeedLadder, NeedAuth, NeedCapture, NeedSizes, NeedSiblings:
		return true
	}
	return false
}

// missing returns the first observation that the rule lacks.
func (r *Rule) missing(f *facts) (Need, bool) {
	for _, n := range r.Needs {
		if !n.has(f) {
			return n, true
		}
	}
	return "", false
}

// verdict is what a rule says about one snapshot.
type verdict struct {
	holds      bool
	confidence Confidence
	evidence   []Text
	harmless   bool // worth knowing, but the tunnel works: severity Info
}

var no = verdict{}

func yes(c Confidence, evidence ...Text) verdict {
	return verdict{holds: true, confidence: c, evidence: evidence}
}

// Rules returns every rule, by precedence. The slice is the caller's.
func Rules() []Rule { return slices.Clone(ruleset) }

func ruleOf(l Label) *Rule {
	for i := range ruleset {
		if ruleset[i].Label == l {
			return &ruleset[i]
		}
	}
	return &Rule{}
}

var summaries = map[Label]Text{
	OK:        say("everything that could be looked at works", "所有可观测的项目均正常"),
	Undecided: say("what was observed does not decide", "现有观测不足以作出判断"),
}

// SummaryOf returns the sentence that a report with this cause begins with.
func SummaryOf(l Label) Text {
	if s, ok := summaries[l]; ok {
		return s
	}
	return ruleOf(l).Summary
}

// Sentences that several rules quote.

func pingText(e evidence.EchoSeries) Text {
	n := e.Sent
	if e.Sent == 0 {
		return say("the gateway was not pinged", "未对网关执行 ping")
	}
	if e.Trailing == 0 {
		return say("ping %s: %d of %d answered", "ping %s：%d/%d 有应答", e.Target, e.Replies, n)
	}
	return say("ping %s: %d of %d answered, the last %d not", "ping %s：%d/%d 有应答，最近连续 %d 个无应答", e.Target, e.Replies, n, e.Trailing)
}

func referenceText(list []evidence.EchoSeries) []Text {
	if len(list) == 0 {
		return []Text{say("no reference address is declared, so this host's own uplink is not excluded", "未配置参照地址，因此不能排除本机上行链路的问题")}
	}
	var out []Text
	for _, e := range list {
		out = append(out, say("reference %s: %d of %d pings answered", "参照地址 %s：%d/%d 个 ping 有应答", e.Target, e.Replies, e.Sent))
	}
	return out
}

func ikeText(p evidence.IKEPort) Text {
	_, ok := p.Last()
	_, last := port(p) // the result that decides
	if !ok {
		return say("UDP %d was not probed", "未探测 UDP %d", p.Port)
	}
	switch last.Outcome {
	case evidence.IKEAnswered:
		return say("UDP %d: IKE answered with %s", "UDP %d：IKE 应答 %s", p.Port, last.Notify)
	case evidence.IKESilent:
		beats, sent := 0, 0
		for i := len(p.Results) - 1; i >= 0 && p.Results[i].Outcome == evidence.IKESilent; i-- {
			beats++
			sent += p.Results[i].Requests
		}
		return say("UDP %d: no answer to %d IKE heartbeats in a row (%d datagrams)", "UDP %d：连续 %d 次 IKE 心跳（%d 个报文）无应答", p.Port, beats, sent)
	case evidence.IKESendError:
		return say("UDP %d: heartbeats do not leave this host (%s)", "UDP %d：心跳未能离开本机（%s）", p.Port, last.Send)
	}
	if last.ICMP == nil {
		return say("UDP %d: %s", "UDP %d：%s", p.Port, last.Outcome)
	}
	return say("UDP %d: ICMP %s (type %d code %d) from %s", "UDP %d：收到 ICMP %s（类型 %d 代码 %d），来自 %s",
		p.Port, last.ICMP.Reason, last.ICMP.Type, last.ICMP.Code, offender(last.ICMP))
}

func offender(e *evidence.ICMPError) string {
	if a, ok := e.Offender.Get(); ok {
		return a.String()
	}
	return "?"
}

func targets(list []evidence.EchoSeries) string {
	var names []string
	for _, e := range list {
		names = append(names, e.Target.String())
	}
	return strings.Join(names, ", ")
}

func sendReasons(e evidence.EchoSeries) string {
	var parts []string
	for _, r := range slices.Sorted(maps.Keys(e.SendErrors)) {
		parts = append(parts, fmt.Sprintf("%s x%d", r, e.SendErrors[r]))
	}
	return strings.Join(parts, ", ")
}

func percent(part, whole int) float64 {
	if whole == 0 {
		return 0
	}
	return 100 * float64(part) / float64(whole)
}
