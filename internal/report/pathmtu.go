package report

import (
	"fmt"
	"strconv"

	"vpnprobe/evidence"
)

// The number of rows that a list beneath a path may take. The JSON form holds
// everything.
const (
	shownBogus = 3
	shownHoles = 4
)

// pathBlocks returns a small picture of each path whose MTU was searched, and
// the sum that leads from the MTU outside the tunnel to that inside. A path that
// takes what the link takes is a line without rows.
func (t *text) pathBlocks(s *evidence.Snapshot) []block {
	var blocks []block
	for _, m := range s.MTUs {
		if title := t.mtuTitle(m); title != "" {
			blocks = append(blocks, t.mtuBlock(m, title))
		}
	}
	return append(blocks, t.tunnelBlock(s)...)
}

// paths writes the blocks of pathBlocks.
func (t *text) paths(blocks []block) {
	first := 0
	for _, b := range blocks {
		for _, row := range b.rows {
			first = max(first, width(row[0]))
		}
	}
	for _, b := range blocks {
		t.para("  ", b.title)
		for _, row := range b.rows {
			t.para("    "+pad(row[0], first)+"  ", row[1])
		}
	}
}

// block is a line with rows beneath it.
type block struct {
	title string
	rows  [][2]string
}

// plain reports whether the block is no more than its line.
func (b block) plain() bool { return len(b.rows) == 0 }

// add adds a row of what is not empty, if anything is.
func (b *block) add(name, text string) {
	if text != "" {
		b.rows = append(b.rows, [2]string{name, text})
	}
}

// mtuTitle writes what a search found and what it cost, "" when nothing was
// sent.
func (t *text) mtuTitle(m evidence.PathMTU) string {
	if m.Packets <= 0 && !m.MTU.Known() {
		return ""
	}
	from, pass := "", ""
	if m.Source.IsValid() {
		from = fmt.Sprintf(t.say(" from %s", "（源 %s）"), address(m.Source))
	}
	if f := m.Fragmented; f.Sent > 0 && allAnswered(f.Tried) && allAnswered(f.Reversed) && f.Expired == 0 {
		pass = t.say("fragments pass", "分片可通过")
	}
	return t.join(t.role(m.Role)+" "+address(m.Target)+from+t.say(": ", "：")+t.mtuFound(m), t.probedBy(m.Probe), pass, t.cost(m))
}

// mtuResult writes what a search found on one line without its details.
func (t *text) mtuResult(m evidence.PathMTU) string {
	return t.role(m.Role) + " " + address(m.Target) + t.say(": ", "：") + t.mtuFound(m)
}

func (t *text) mtuFound(m evidence.PathMTU) string {
	bytes, ok := m.MTU.Get()
	if !ok {
		return t.say("no size was answered", "任何大小都无回应")
	}
	of := ""
	if link, known := m.LinkMTU.Get(); known && link != bytes {
		of = fmt.Sprintf(t.say(" of the link's %d", "（链路 %d）"), link)
	}
	found := strconv.Itoa(bytes) + of
	switch m.State {
	case evidence.MTUFull:
		return t.join(found, t.say("as the link", "与链路相同"))
	case evidence.MTUReduced:
		return t.join(found, t.say("and a hop says so", "中间设备已告知"))
	case evidence.MTUBlackHole:
		return t.join(found, t.say("BLACK HOLE: no hop says so", "黑洞：无设备告知"))
	}
	return found
}

func (t *text) probedBy(p evidence.MTUProbe) string {
	switch p {
	case evidence.MTUByIKE:
		return t.say("by IKE on UDP 500, which tells of the way there only", "经 UDP 500 的 IKE 探测，仅反映去程")
	case evidence.MTUByIKENATT:
		return t.say("by IKE on UDP 4500, which tells of the way there only", "经 UDP 4500 的 IKE 探测，仅反映去程")
	}
	return ""
}

func (t *text) cost(m evidence.PathMTU) string {
	if m.Packets <= 0 {
		return ""
	}
	out := t.count(uint64(m.Packets), "packet", "%d 个报文")
	if m.Took > 0 {
		out += fmt.Sprintf(t.say(" in %s", "，用时 %s"), duration(m.Took.Duration()))
	}
	return out
}

func allAnswered(n evidence.Tried) bool { return n.Answered >= n.Sent }

// mtuBlock writes what a search saw, as far as it is more than that everything
// passed.
func (t *text) mtuBlock(m evidence.PathMTU, title string) block {
	b := block{title: title}
	way := ""
	if bytes, ok := m.MTU.Get(); ok {
		way = t.way(m, bytes)
	}
	b.add(t.say("way", "路径"), way)
	b.add(t.say("lost", "丢失点"), t.lostBetween(m))
	if m.State != evidence.MTUFull || len(m.Holes) > 0 || len(m.Bogus) > 0 {
		t.sizes(&b, m, way != "")
	}
	b.add(t.say("small", "小包"), t.losses(m.Small))
	for _, h := range m.Holes[:min(len(m.Holes), shownHoles)] {
		b.add(t.say("HOLE", "空洞"), fmt.Sprintf(t.say("%d to %d is lost, smaller and larger passes", "%d 至 %d 丢失，更小和更大的可通过"), h.From, h.To))
	}
	for _, e := range m.Bogus[:min(len(m.Bogus), shownBogus)] {
		b.add(t.say("not true", "不可信"), fmt.Sprintf("%d× %s", e.Count, t.icmp(e.ICMPError)))
	}
	t.fragmented(&b, m.Fragmented)
	if m.Cleared == evidence.Yes {
		b.add("DF", t.say("cleared on the way: a hop fragments what must not be", "途中被清除：有设备擅自分片"))
	}
	if n, ok := m.ReplyFragment.Get(); ok {
		b.add(t.say("way back", "回程"), fmt.Sprintf(t.say("replies come in fragments of up to %d", "应答被分片，每片最大 %d"), n))
	}
	if cached, ok := m.Cached.Get(); ok && m.MTU.Known() && cached != m.MTU.Or(0) {
		b.add(t.say("kernel", "内核"), fmt.Sprintf(t.say("believes %d", "认为是 %d"), cached))
	}
	return b
}

// losses writes of how many packets of a kind some were lost.
func (t *text) losses(n evidence.Tried) string {
	if allAnswered(n) {
		return ""
	}
	return t.ratio(n)
}

func (t *text) ratio(n evidence.Tried) string {
	return fmt.Sprintf(t.say("%d of %d answered", "%d/%d 次应答"), n.Answered, n.Sent)
}

// fragmented adds what became of packets in fragments, unless all passed.
func (t *text) fragmented(b *block, f evidence.FragmentedProbe) {
	if allAnswered(f.Tried) && allAnswered(f.Reversed) && f.Expired <= 0 {
		return
	}
	var parts []string
	if f.Sent > 0 {
		parts = append(parts, t.ratio(f.Tried))
	}
	if f.Reversed.Sent > 0 {
		parts = append(parts, t.say("last one first: ", "逆序发送：")+t.ratio(f.Reversed))
	}
	if f.Expired > 0 {
		parts = append(parts, fmt.Sprintf(t.say("the target gave up on %d for want of a part", "目标因缺片放弃重组 %d 个"), f.Expired))
	}
	b.add(t.say("fragments", "分片"), t.join(parts...))
}
