package report

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"vpnprobe/evidence"
)

// shownNotifies is how many kinds of notify messages have a place in the text.
const shownNotifies = 4

// conversation adds what the two IKE daemons said to each other, as far as the
// packets show it. What went well is not worth a row, but for how far the
// newest negotiation came.
func (t *text) conversation(s *evidence.Snapshot, add func(name string, cells ...string)) {
	if !s.Capture.Seen() {
		return
	}
	talk := s.Capture.Talk
	name := t.say("IKE seen", "IKE 会话")
	if n, ok := talk.Newest.Get(); ok {
		add(name, t.newest(n, s.Time))
	}
	add(name, t.requests(talk.Out, true))
	add(name, t.requests(talk.In, false))
	add(name, t.turnover(talk)...)
	for _, o := range talk.Offers {
		add(name, t.severalValues(o))
	}
	notifies := slices.DeleteFunc(slices.Clone(talk.Notifies), func(n evidence.WireNotify) bool { return !refuses(n.Name) })
	for _, n := range notifies[:min(len(notifies), shownNotifies)] {
		add(name, t.clearNotify(n, s.Time))
	}
	add("DPD", t.dpd(talk.Out.DPD, true))
	add("DPD", t.dpd(talk.In.DPD, false))
}

// newest writes how far the newest negotiation came.
func (t *text) newest(n evidence.IKENegotiation, now time.Time) string {
	by := t.say("begun by the peer ", "由对端发起，")
	if n.Ours {
		by = t.say("begun here ", "由本端发起，")
	}
	port, again := "", ""
	if n.NATT {
		port = "UDP 4500"
	}
	if n.Repeated > 1 {
		again = fmt.Sprintf(t.say("%d in a row", "连续 %d 次"), n.Repeated)
	}
	notify := ""
	if n.Notify != "" && n.Reached != evidence.ReachedChild {
		notify = t.aside(n.Notify)
	}
	return fmt.Sprintf("IKEv%d ", n.Version) + t.join(by+t.before(n.Began, now), t.reached(n)+notify, again, clean(n.Suite), port)
}

// reached writes the stage at which a negotiation is, or ended.
func (t *text) reached(n evidence.IKENegotiation) string {
	first, encrypted := "IKE_SA_INIT", "IKE_AUTH"
	if n.Version == 1 {
		first, encrypted = t.say("the first message", "首个报文"), t.say("the first encrypted message", "首个加密报文")
	} else if t.Lang == "zh" {
		first, encrypted = first+" ", encrypted+" "
	}
	switch n.Reached {
	case evidence.ReachedAsked:
		return first + t.say(" not answered", "无应答")
	case evidence.ReachedRefused:
		return first + t.say(" refused", "被拒绝")
	case evidence.ReachedInit:
		return first + t.say(" answered, nothing after it", "有应答，之后无报文")
	case evidence.ReachedAuthSent:
		return encrypted + t.say(" not answered", "无应答")
	case evidence.ReachedRejected:
		if n.InitiatorRefused == evidence.Yes {
			return encrypted + t.say(" answered, and refused by who had asked", "有应答，但被发起方拒绝")
		}
		return encrypted + t.say(" refused", "被拒绝") +
			t.bySize(n, t.say(": the answer of %d bytes holds a lone notify", "：%d 字节的应答只含一个通知"))
	case evidence.ReachedIKE:
		if n.ChildRefused != evidence.Yes {
			return t.say("IKE SA up, whether its child SA is does not show", "IKE SA 已建立，子 SA 是否建立未知")
		}
		return t.say("IKE SA up, child SA refused", "IKE SA 已建立，子 SA 被拒绝") +
			t.bySize(n, t.say(": the answer of %d bytes has no room for one", "：%d 字节的应答容不下子 SA"))
	case evidence.ReachedChild:
		return t.say("child SA up", "子 SA 已建立")
	}
	return clean(string(n.Reached))
}

// bySize says from which size a stage was derived, if it was.
func (t *text) bySize(n evidence.IKENegotiation, format string) string {
	if !n.Encrypted || n.AnswerBytes == 0 {
		return ""
	}
	return fmt.Sprintf(format, n.AnswerBytes)
}

// requests writes the requests of one side that were repeated or went
// unanswered.
func (t *text) requests(d evidence.IKEDirection, ours bool) string {
	whose := t.say("the peer", "对端")
	if ours {
		whose = t.say("this side", "本端")
	}
	repeated := ""
	if d.Retransmissions > 0 {
		repeated = t.count(d.Retransmissions, "retransmission", "重传 %d 次")
	}
	switch {
	case d.Unanswered > 0:
		asked := max(d.Requests, d.Unanswered)
		format := t.say("%[2]d of %[3]d requests of %[1]s unanswered", "%[1]s的 %[3]d 个请求中 %[2]d 个无应答")
		if asked == 1 {
			format = t.say("the only request of %[1]s unanswered", "%[1]s唯一的请求无应答")
		}
		return t.join(fmt.Sprintf(format, whose, d.Unanswered, asked), repeated)
	case repeated != "":
		return repeated + fmt.Sprintf(t.say(" by %s", "（%s）"), whose)
	}
	return ""
}

// turnover writes what was set up anew and what was ended.
func (t *text) turnover(k evidence.IKETalk) []string {
	var parts []string
	if k.Rekeys+k.RekeysFailed > 0 {
		parts = append(parts, t.count(k.Rekeys, "rekey", "重协商 %d 次"))
	}
	if k.RekeysFailed > 0 {
		parts = append(parts, fmt.Sprintf(t.say("%d failed", "失败 %d 次"), k.RekeysFailed))
	}
	if k.Attempts > 1 {
		parts = append(parts, fmt.Sprintf(t.say("%d negotiations began", "发起协商 %d 次"), k.Attempts))
	}
	if n := k.Out.Deletes; n > 0 {
		parts = append(parts, t.say("about ", "约 ")+t.count(n, "delete", "%d 次删除")+t.say(" by this side", "（本端）"))
	}
	if n := k.In.Deletes; n > 0 {
		parts = append(parts, t.say("about ", "约 ")+t.count(n, "delete", "%d 次删除")+t.say(" by the peer", "（对端）"))
	}
	return parts
}

// severalValues writes an offer that leaves the other side a choice, which
// some peers refuse as a whole.
func (t *text) severalValues(o evidence.WireOffer) string {
	if len(o.Multiple) == 0 {
		return ""
	}
	who := t.say("the peer", "对端")
	if o.Ours {
		who = t.say("this side", "本端")
	}
	var names []string
	for _, m := range o.Multiple {
		names = append(names, t.multiple(m))
	}
	return t.join(fmt.Sprintf(t.say("%s offers several values: ", "%s提供了多个取值："), who)+t.join(names...)+t.aside(o.Text),
		t.fact(o.Answered, t.say("accepted", "被接受"), t.say("refused", "被拒绝")))
}

func (t *text) multiple(attribute string) string {
	switch attribute {
	case "dh_group":
		return t.attribute(evidence.Group)
	case "proposal":
		return t.say("proposals", "提议")
	}
	return t.attribute(evidence.Attribute(attribute))
}

// refusals are how the names of the notify types begin that say that something
// went wrong, with "-" for "_" in IKEv1. The others only announce what a daemon
// can do.
var refusals = []string{
	"INVALID_", "UNSUPPORTED_", "NO_PROPOSAL_CHOSEN", "BAD_PROPOSAL_SYNTAX", "PAYLOAD_MALFORMED", "AUTHENTICATION_FAILED",
	"TS_UNACCEPTABLE", "NO_ADDITIONAL_SAS", "TEMPORARY_FAILURE", "STATE_NOT_FOUND", "SITUATION_NOT_SUPPORTED", "DOI_NOT_SUPPORTED",
	"ATTRIBUTES_NOT_SUPPORTED", "UNEQUAL_PAYLOAD_LENGTHS", "CERTIFICATE_UNAVAILABLE", "COOKIE", "REDIRECT",
}

func refuses(name string) bool {
	name = strings.ReplaceAll(name, "-", "_")
	if name == "REDIRECT_SUPPORTED" {
		return false
	}
	return slices.ContainsFunc(refusals, func(r string) bool { return strings.HasPrefix(name, r) })
}

func (t *text) clearNotify(n evidence.WireNotify, now time.Time) string {
	from := t.say("from this side", "来自本端")
	if n.Inbound {
		from = t.say("from the peer", "来自对端")
	}
	return t.join(fmt.Sprintf("%d× %s ", n.Count, clean(n.Name))+from, t.before(n.Last, now))
}

// dpd writes how the dead peer detection of one side fared. What is still
// under way counts neither way.
func (t *text) dpd(d evidence.IKEDPD, ours bool) string {
	asked := d.Answered + d.Missed
	if asked == 0 {
		return ""
	}
	format := t.say("the peer's %d of %d answered by this side", "对端的 %d/%d 次由本端应答")
	if ours {
		format = t.say("this side's %d of %d answered", "本端的 %d/%d 次有应答")
	}
	rtt, missed := "", ""
	if len(d.RTTs) > 0 {
		rtt = t.say("median ", "中位 ") + duration(median(d.RTTs).Duration())
	}
	switch {
	case d.Trailing == 1:
		missed = t.say("the last one missed", "最近一次无应答")
	case d.Trailing > 1:
		missed = fmt.Sprintf(t.say("the last %d missed", "最近 %d 次无应答"), d.Trailing)
	}
	return t.join(fmt.Sprintf(format, d.Answered, asked), rtt, missed)
}

func median(values []evidence.Seconds) evidence.Seconds {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
