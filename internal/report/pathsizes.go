package report

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"vpnprobe/evidence"
)

// The number of sizes that a row names one by one, and of more how many at each
// end.
const (
	shownSizes   = 12
	shownEndings = 3
)

// way draws the hops that said "too big", with what each link takes:
// here =1500=> 203.0.113.1 =1400=> 198.51.100.2.
func (t *text) way(m evidence.PathMTU, bytes int) string {
	var hops []evidence.ICMPError
	for _, e := range m.TooBig {
		if e.MTU.Known() && e.Offender.Known() {
			hops = append(hops, e.ICMPError)
		}
	}
	if len(hops) == 0 {
		return ""
	}
	slices.SortStableFunc(hops, func(a, b evidence.ICMPError) int { return cmp.Compare(b.MTU.Or(0), a.MTU.Or(0)) })
	out := t.say("here", "本机")
	takes := m.LinkMTU.Or(0)
	if n := len(hops) - shownICMP; n > 0 { // the last ones decide
		out += arrow(takes) + "..."
		takes, hops = hops[n-1].MTU.Or(0), hops[n:]
	}
	for _, h := range hops {
		out += arrow(takes) + address(h.Offender.Or(m.Target))
		takes = h.MTU.Or(0)
	}
	out += arrow(takes) + address(m.Target)
	if takes != bytes { // a hop further on takes less and does not say so
		out += fmt.Sprintf(t.say(", of which %d pass", "，实际只通过 %d"), bytes)
	}
	return out
}

func arrow(mtu int) string {
	if mtu <= 0 {
		return " ==> "
	}
	return fmt.Sprintf(" =%d=> ", mtu)
}

// lostBetween draws where a size is lost: 1500: here ==> 203.0.113.9 (hop 3)
// =X=> 203.0.113.17.
func (t *text) lostBetween(m evidence.PathMTU) string {
	l, ok := m.Lost.Get()
	if !ok {
		return ""
	}
	out := fmt.Sprintf(t.say("%d: here", "%d：本机"), l.Size)
	if l.After.IsValid() {
		out += " ==> " + address(l.After)
		if l.Hops > 0 {
			out += fmt.Sprintf(t.say(" (hop %d)", "（第 %d 跳）"), l.Hops)
		}
	}
	out += " =X=> " + address(l.Before)
	if l.Before != m.Target {
		out += " ... " + address(m.Target)
	}
	return out
}

// sizes adds the sizes that were tried, by what became of them; and who says
// that one is too big, unless the way shows that.
func (t *text) sizes(b *block, m evidence.PathMTU, shown bool) {
	var answered, tooBig, refused, silent []int
	for _, s := range m.Sizes {
		switch {
		case s.Answered > 0:
			answered = append(answered, s.Size)
		case s.TooBig:
			tooBig = append(tooBig, s.Size)
		case s.Local:
			refused = append(refused, s.Size)
		case s.Sent > 0:
			silent = append(silent, s.Size)
		}
	}
	swept, senders := "", ""
	if m.Swept {
		swept = fmt.Sprintf(t.say(" (swept in steps of %d)", "（按 %d 字节步长扫描）"), evidence.SweepStep)
	}
	if !shown {
		senders = t.senders(m.TooBig)
	}
	b.add(t.say("answered", "有应答"), t.someSizes(answered)+swept)
	b.add(t.say("too big", "过大"), t.join(t.someSizes(tooBig), after(t.say("says ", "来自 "), senders)))
	if len(refused) > 0 {
		b.add(t.say("not sent", "未发出"), t.someSizes(refused)+t.say(": too big for this host", "：超过本机上限"))
	}
	b.add(t.say("silent", "无应答"), t.someSizes(silent))
}

// senders lists who says that a packet is too big, and for what.
func (t *text) senders(errors []evidence.CountedICMPError) string {
	var out []string
	for _, e := range errors[:min(len(errors), shownICMP)] {
		who := "?"
		if from, ok := e.Offender.Get(); ok {
			who = address(from)
		}
		if mtu, ok := e.MTU.Get(); ok {
			who += t.aside(fmt.Sprintf("MTU %d", mtu))
		}
		out = append(out, who)
	}
	return t.join(out...)
}

// someSizes lists sizes; of many, the ends.
func (t *text) someSizes(sizes []int) string {
	words := func(sizes []int) string {
		var out []string
		for _, n := range sizes {
			out = append(out, strconv.Itoa(n))
		}
		return strings.Join(out, " ")
	}
	if len(sizes) <= shownSizes {
		return words(sizes)
	}
	return fmt.Sprintf(t.say("%s ... %s (%d sizes)", "%s ... %s（共 %d 种）"), words(sizes[:shownEndings]), words(sizes[len(sizes)-shownEndings:]), len(sizes))
}
