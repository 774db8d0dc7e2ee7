package report

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// wide are the characters that take two columns of a terminal (Unicode
// TR 11, classes W and F), in ranges.
var wide = [][2]rune{
	{0x1100, 0x115F}, {0x2E80, 0x303E}, {0x3041, 0x33FF}, {0x3400, 0x4DBF}, {0x4E00, 0x9FFF},
	{0xA000, 0xA4CF}, {0xA960, 0xA97F}, {0xAC00, 0xD7A3}, {0xF900, 0xFAFF}, {0xFE30, 0xFE6F},
	{0xFF00, 0xFF60}, {0xFFE0, 0xFFE6}, {0x1F300, 0x1F64F}, {0x1F900, 0x1F9FF}, {0x20000, 0x3FFFD},
}

// columns returns the number of terminal columns that a character takes.
func columns(r rune) int {
	if unicode.In(r, unicode.Mn, unicode.Me) {
		return 0
	}
	for _, w := range wide {
		if r >= w[0] && r <= w[1] {
			return 2
		}
	}
	return 1
}

// width returns the number of terminal columns that a text takes.
func width(s string) int {
	n := 0
	for _, r := range s {
		n += columns(r)
	}
	return n
}

// pad fills s with blanks up to n columns.
func pad(s string, n int) string {
	return s + strings.Repeat(" ", max(0, n-width(s)))
}

// clean makes a text from outside safe for a terminal: what could move the
// cursor, colour the text or reverse its direction is written as an escape.
func clean(s string) string {
	if strings.IndexFunc(s, unsafe) < 0 && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1, unsafe(r) && r <= 0xFF:
			fmt.Fprintf(&b, `\x%02x`, escaped(r, s[0]))
		case unsafe(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
		s = s[n:]
	}
	return b.String()
}

// escaped returns what to show of a character: its number, or of an invalid
// byte the byte itself.
func escaped(r rune, first byte) rune {
	if r == utf8.RuneError {
		return rune(first)
	}
	return r
}

func unsafe(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)
}

// wrap breaks a text into lines of at most n columns: at blanks, and beside
// any wide character, except before punctuation that may not begin a line. A
// word that is longer than a line is left whole.
func wrap(s string, n int) []string {
	var lines []string
	var line strings.Builder
	used := 0
	for _, word := range words(s) {
		w := width(word)
		if used > 0 && used+width(strings.TrimRight(word, " ")) > n {
			lines = append(lines, strings.TrimRight(line.String(), " "))
			line.Reset()
			used = 0
		}
		line.WriteString(word)
		used += w
	}
	return append(lines, strings.TrimRight(line.String(), " "))
}

// words splits a text where a line may be broken. A blank belongs to the word
// before it.
func words(s string) []string {
	const noStart = "，。、；：！？）》」』】”’…%"
	const noEnd = "（《「『【“‘"
	var out []string
	var word strings.Builder
	var last rune
	for _, r := range s {
		breakable := last == ' ' && r != ' ' || last != 0 && (columns(last) == 2 || columns(r) == 2) && last != ' ' && r != ' '
		if breakable && !strings.ContainsRune(noStart, r) && !strings.ContainsRune(noEnd, last) {
			out = append(out, word.String())
			word.Reset()
		}
		word.WriteRune(r)
		last = r
	}
	return append(out, word.String())
}
