package report

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"vpnprobe/diagnosis"
)

// Options say how [Text] writes.
type Options struct {
	Lang  string // "en" or "zh"
	Color bool
	Width int // columns to wrap at; 0 means 80
}

// The columns between which text is wrapped: narrower breaks the table, wider
// is hard to read.
const (
	defaultWidth = 80
	minWidth     = 40
	maxWidth     = 110
)

// ForFile returns the options that fit a file: the width of a terminal, and
// colours only on one that can show them, unless NO_COLOR is set
// (no-color.org).
func ForFile(f *os.File, lang string) Options {
	o := Options{Lang: lang}
	fd := int(f.Fd())
	if !term.IsTerminal(fd) {
		return o
	}
	o.Color = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	if w, _, err := term.GetSize(fd); err == nil {
		o.Width = w
	}
	return o
}

// Text writes the report for a person: the verdict, why, what to do, and then
// everything that was observed.
func Text(w io.Writer, r *diagnosis.Report, o Options) error {
	if o.Width <= 0 {
		o.Width = defaultWidth
	}
	t := &text{Options: o}
	t.Width = min(max(o.Width, minWidth), maxWidth)
	t.verdict(r)
	t.others(r.Findings[1:])
	if r.Snapshot != nil {
		t.observations(r)
	}
	_, err := w.Write(t.buf.Bytes())
	return err
}

// text is a report being written.
type text struct {
	Options
	buf bytes.Buffer
}

// say returns the word in the language of the report.
func (t *text) say(en, zh string) string { return diagnosis.Text{EN: en, ZH: zh}.In(t.Lang) }

// in returns a sentence of the report, safe for a terminal.
func (t *text) in(s diagnosis.Text) string { return clean(s.In(t.Lang)) }

func (t *text) line(s string) { t.buf.WriteString(strings.TrimRight(s, " ") + "\n") }

// para writes a wrapped text whose first line begins with lead, and whose
// others are indented as far.
func (t *text) para(lead, s string) {
	indent := width(lead)
	for i, l := range wrap(s, t.Width-indent) {
		if i > 0 {
			lead = strings.Repeat(" ", indent)
		}
		t.line(lead + l)
	}
}

func (t *text) head(en, zh string) {
	t.line("")
	t.line(t.paint(bold, t.say(en, zh)))
}

// ANSI escape sequences (ECMA-48 SGR).
const (
	bold   = "\x1b[1m"
	red    = "\x1b[1;31m"
	yellow = "\x1b[1;33m"
	green  = "\x1b[1;32m"
	cyan   = "\x1b[1;36m"
	reset  = "\x1b[0m"
)

func (t *text) paint(color, s string) string {
	if !t.Color {
		return s
	}
	return color + s + reset
}

func colorOf(f diagnosis.Finding) string {
	switch {
	case f.Label == diagnosis.Undecided:
		return cyan
	case f.Severity == diagnosis.Critical:
		return red
	case f.Severity == diagnosis.Warning:
		return yellow
	}
	return green
}

// grade writes a finding's severity and confidence, such as
// "CRITICAL (likely)". What is ok or unknown has no severity worth a word.
func (t *text) grade(f diagnosis.Finding) string {
	severity := map[diagnosis.Severity]string{
		diagnosis.Info:     t.say("INFO", "提示"),
		diagnosis.Warning:  t.say("WARNING", "警告"),
		diagnosis.Critical: t.say("CRITICAL", "严重"),
	}[f.Severity]
	confidence := map[diagnosis.Confidence]string{
		diagnosis.Certain:  t.say("certain", "确定"),
		diagnosis.Likely:   t.say("likely", "很可能"),
		diagnosis.Possible: t.say("possible", "可能"),
	}[f.Confidence]
	if f.Label == diagnosis.OK || f.Label == diagnosis.Undecided {
		severity = ""
	}
	if confidence != "" {
		confidence = t.say("("+confidence+")", "（"+confidence+"）")
	}
	return strings.TrimSpace(severity + t.say(" ", "") + confidence)
}

// verdict writes the line that matters, its sentence, why, and what to do.
func (t *text) verdict(r *diagnosis.Report) {
	cause := r.Findings[0]
	who := clean(r.Peer)
	if g := clean(r.Gateway); g != who {
		who = strings.TrimSpace(who + " " + g)
	}
	t.line(fmt.Sprintf("%s: %s  %s", who, t.paint(colorOf(cause), clean(string(cause.Label))), t.grade(cause)))
	t.para("", t.in(r.Summary))
	if len(cause.Evidence) > 0 {
		t.head("Why", "依据")
	}
	for _, seen := range cause.Evidence {
		t.para("  - ", t.in(seen))
	}
	if cause.Remedy != (diagnosis.Text{}) {
		t.head("What to do", "处理建议")
		t.remedy("  ", cause.Remedy)
	}
}

// remedy writes each line of a remedy as a paragraph of its own.
func (t *text) remedy(lead string, s diagnosis.Text) {
	for l := range strings.Lines(s.In(t.Lang)) {
		t.para(lead, clean(strings.TrimRight(l, "\r\n")))
	}
}

// others writes what is true beside the cause in brief, and folds what the
// cause explains into one line.
func (t *text) others(findings []diagnosis.Finding) {
	var folded []string
	headed := false
	for _, f := range findings {
		if f.Role == diagnosis.Suppressed {
			folded = append(folded, clean(string(f.Label)))
			continue
		}
		if !headed {
			t.head("Also true", "同时存在")
			headed = true
		}
		t.line(fmt.Sprintf("  %s  %s", t.paint(colorOf(f), clean(string(f.Label))), t.grade(f)))
		for _, seen := range f.Evidence {
			t.para("    - ", t.in(seen))
		}
		t.remedy("    "+t.say("-> ", "→ "), f.Remedy)
	}
	if len(folded) > 0 {
		t.line("")
		t.para("", t.say("Explained by the above: ", "由上述原因解释：")+t.join(folded...))
	}
}
