package daemon

import (
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxSaid      = 12  // lines
	maxSaidBytes = 200 // of a line
)

// key matches what may be a key in a daemon's debugging output.
var key = regexp.MustCompile(`[0-9A-Fa-f]{33}|(?:[0-9A-Fa-f]{2}[ :]){15}[0-9A-Fa-f]{2}`)

// said appends a daemon's line to those that a result quotes: printable, cut
// to size, nothing that looks like a key, each once, and of many the last.
func said(lines []string, line string) []string {
	line = clean(line)
	if line == "" || key.MatchString(line) {
		return lines
	}
	line = cut(line)
	if slices.Contains(lines, line) {
		return lines
	}
	if len(lines) == maxSaid {
		lines = slices.Delete(lines, 0, 1)
	}
	return append(lines, line)
}

// clean replaces what a terminal would not print.
func clean(line string) string {
	line = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '.'
		}
		return r
	}, strings.TrimSpace(line))
	return line
}

// cut shortens a line to maxSaidBytes at the end of a character.
func cut(line string) string {
	if len(line) <= maxSaidBytes {
		return line
	}
	const more = "..."
	end := maxSaidBytes - len(more)
	for !utf8.RuneStart(line[end]) {
		end--
	}
	return line[:end] + more
}
