package exporter

import (
	"fmt"
	"strings"
	"time"

	"vpnprobe/diagnosis"
	"vpnprobe/evidence"
)

// words are the page's own words in one language. The findings bring theirs.
type words struct {
	zh        bool
	otherLang string

	All, Pause, Resume, Other, Since, Link, Report string
	Underlay, Inner, Folded, None, Waiting, Stale  string
	Wire, Size                                     string
	Age                                            string // has one %s: a duration
}

func wordsIn(lang string) words {
	if lang == "zh" {
		return words{
			zh: true, otherLang: "en",
			All: "全部对端", Pause: "暂停刷新", Resume: "恢复刷新", Other: "English", Since: "自", Link: "只看此对端", Report: "完整报告 (JSON)",
			Underlay: "公网路径", Inner: "隧道内", Folded: "由上述原因解释：", Wire: "线路：", Size: "大小：", None: "没有这样的对端。", Waiting: "尚无报告，首次探测正在进行。", Stale: "已过期",
			Age: "%s前的报告",
		}
	}
	return words{
		otherLang: "zh",
		All:       "all peers", Pause: "pause refresh", Resume: "resume refresh", Other: "中文", Since: "since", Link: "only this peer", Report: "whole report (JSON)",
		Underlay: "underlay", Inner: "tunnel", Folded: "Explained by the above:", Wire: "On the wire:", Size: "Sizes:", None: "There is no such peer.", Waiting: "No report yet: the first probes are under way.", Stale: "STALE",
		Age: "reported %s ago",
	}
}

// pick returns the word in the language of w.
func (w words) pick(en, zh string) string {
	if w.zh {
		return zh
	}
	return en
}

// state is the one word that tells from afar.
func (w words) state(tone string) string {
	switch tone {
	case "critical":
		return w.pick("CRITICAL", "严重")
	case "warning":
		return w.pick("WARNING", "警告")
	case "unknown":
		return w.pick("UNKNOWN", "未知")
	}
	return w.pick("OK", "正常")
}

func (w words) role(r diagnosis.Role) string {
	if r == diagnosis.Cause {
		return w.pick("the cause", "根本原因")
	}
	return w.pick("also true", "同时存在")
}

func (w words) severity(s diagnosis.Severity) string {
	switch s {
	case diagnosis.Critical:
		return w.pick("critical", "严重")
	case diagnosis.Warning:
		return w.pick("warning", "警告")
	}
	return w.pick("info", "提示")
}

func (w words) confidence(c diagnosis.Confidence) string {
	switch c {
	case diagnosis.Certain:
		return w.pick("certain", "确定")
	case diagnosis.Likely:
		return w.pick("likely", "很可能")
	case diagnosis.Possible:
		return w.pick("possible", "可能")
	}
	return w.pick("not decided", "未判定")
}

// verdict sums up all peers, from the number of peers by tone.
func (w words) verdict(counts map[string]int) string {
	var parts []string
	for _, tone := range []string{"critical", "warning", "unknown", "ok"} {
		if n := counts[tone]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, w.state(tone)))
		}
	}
	if len(parts) == 0 {
		return w.pick("no peers", "没有对端")
	}
	return strings.Join(parts, ", ")
}

// duration writes a duration in its largest unit and the next smaller one.
func (w words) duration(d time.Duration) string {
	units := []struct {
		size   time.Duration
		en, zh string
	}{{24 * time.Hour, "d", "天"}, {time.Hour, "h", "小时"}, {time.Minute, "min", "分"}, {time.Second, "s", "秒"}}
	d = max(d, 0)
	for len(units) > 1 && d < units[0].size {
		units = units[1:]
	}
	var parts []string
	for i, u := range units[:min(2, len(units))] {
		if n := d / u.size; n > 0 || i == 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, w.pick(u.en, u.zh)))
		}
		d %= u.size
	}
	return strings.Join(parts, " ")
}

// count writes a number of things; the Chinese text has a place for it.
func (w words) count(n uint64, en, zh string) string {
	if n != 1 {
		en += "s"
	}
	return fmt.Sprintf(w.pick("%d "+en, zh), n)
}

// path writes what is known of one path.
func (w words) path(name string, s pathSummary) pathView {
	v := pathView{Name: name, Loss: w.pick("not probed", "未探测")}
	if s.Loss != nil {
		v.Loss = fmt.Sprintf(w.pick("%.3g %% loss", "丢包 %.3g %%"), *s.Loss*100)
		v.Bad = *s.Loss > s.maxLoss
		if *s.Loss == 1 {
			// A gateway may ignore ping and be well: the diagnosis judges.
			v.Loss, v.Bad = w.pick("no reply", "无回应"), false
		}
	}
	if s.RTT != nil {
		v.RTT = fmt.Sprintf("%.3g ms", *s.RTT*1000)
		if *s.RTT >= .9995 {
			v.RTT = fmt.Sprintf("%.3g s", *s.RTT)
		}
	}
	if s.MTU != nil {
		v.MTU = fmt.Sprint(*s.MTU)
		if s.State != nil && *s.State == string(evidence.MTUBlackHole) {
			v.MTU += w.pick(" (black hole)", "（黑洞）")
		}
	}
	return v
}
