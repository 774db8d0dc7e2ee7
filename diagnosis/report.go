package diagnosis

import (
	"fmt"
	"time"

	"vpnprobe/evidence"
)

// Label names one diagnosis. The set is closed: see [Rules], [OK] and
// [Undecided].
type Label string

// The two labels that no rule produces.
const (
	// OK means that everything that could be looked at works.
	OK Label = "ok"
	// Undecided means that what was observed does not decide.
	Undecided Label = "unknown"
)

// Severity says how much a finding hurts the tunnel.
type Severity string

// The severities, from harmless to harmful.
const (
	Info     Severity = "info"
	Warning  Severity = "warning"
	Critical Severity = "critical"
)

// Confidence says how far the evidence goes.
type Confidence string

// The confidences.
const (
	Certain  Confidence = "certain"  // one decisive datum, or independent ones that agree
	Likely   Confidence = "likely"   // nothing else fits what was seen
	Possible Confidence = "possible" // fits, and so does something else
)

// Role says what a finding is within its report.
type Role string

// The roles. Exactly one finding of a report is the cause.
const (
	Cause        Role = "cause"
	Contributing Role = "contributing" // true beside the cause
	Suppressed   Role = "suppressed"   // explained by the cause
)

// Text is one sentence in the languages that reports are written in.
type Text struct{ EN, ZH string }

// say formats the same values into both languages.
func say(en, zh string, args ...any) Text {
	return Text{fmt.Sprintf(en, args...), fmt.Sprintf(zh, args...)}
}

// In returns the sentence in the language "zh", or in English for any other.
func (t Text) In(lang string) string {
	if lang == "zh" {
		return t.ZH
	}
	return t.EN
}

// Finding is one thing that is wrong, or worth knowing, with what was seen
// and what to do.
type Finding struct {
	Label      Label
	Severity   Severity
	Confidence Confidence
	Role       Role
	Evidence   []Text // never empty: what was seen, with value and threshold
	Remedy     Text
}

// Report is the diagnosis of one peer at one time.
type Report struct {
	Peer     string
	Gateway  string // as declared
	Time     time.Time
	Duration time.Duration // how long was observed
	// Findings hold the cause first, then the contributing and the suppressed
	// ones. There is always a cause: OK and Undecided are findings too.
	Findings []Finding
	Summary  Text
	Snapshot *evidence.Snapshot
}

// Diagnosis returns the label of the cause.
func (r *Report) Diagnosis() Label { return r.Findings[0].Label }

// Severity returns the severity of the cause.
func (r *Report) Severity() Severity { return r.Findings[0].Severity }
