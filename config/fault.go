package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// maxFaults bounds the list: who made that many has the wrong file.
const maxFaults = 50

// Fault is one thing that is wrong with a configuration.
type Fault struct {
	File string // "" when the fault does not come from the file
	Line int    // in File, from 1; 0 when unknown
	Key  string // the path of the key, such as "peers[1].remote_subnets[0]"; "" for the whole file
	From string // the flag or variable that gave the value, "" for the file
	Text string // what is wrong and how to mend it
}

// Error returns the fault on one line, "file:line: key: text".
func (f Fault) Error() string {
	var b strings.Builder
	if f.File != "" {
		b.WriteString(f.File + ":")
		if f.Line > 0 {
			fmt.Fprintf(&b, "%d:", f.Line)
		}
		b.WriteByte(' ')
	}
	if f.From != "" {
		b.WriteString(f.From + ": ")
	}
	if f.Key != "" {
		b.WriteString(f.Key + ": ")
	}
	b.WriteString(f.Text)
	return b.String()
}

// Faults is everything that is wrong with a configuration, in the order of
// the file, followed by what is wrong with variables and flags.
type Faults []Fault

// Error returns one line per fault.
func (fs Faults) Error() string {
	var lines []string
	for _, f := range fs {
		lines = append(lines, f.Error())
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the single faults, for errors.As.
func (fs Faults) Unwrap() []error {
	errs := make([]error, len(fs))
	for i, f := range fs {
		errs[i] = f
	}
	return errs
}

// finish brings the faults into their final order and number.
func (fs Faults) finish() Faults {
	slices.SortStableFunc(fs, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(b.File, a.File), cmp.Compare(a.Line, b.Line))
	})
	if more := len(fs) - maxFaults; more > 0 {
		fs = append(fs[:maxFaults:maxFaults], Fault{Text: fmt.Sprintf("and %d more faults", more)})
	}
	return fs
}
