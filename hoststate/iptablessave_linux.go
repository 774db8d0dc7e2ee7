package hoststate

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"

	"vpnprobe/evidence"
)

const (
	// longestRule bounds a line; iptables itself takes about 10 kB.
	longestRule = 64 << 10

	// longestText bounds what is kept of a rule, in bytes.
	longestText = 400
)

var errEndless = errors.New("a rule in it is longer than any can be")

// parseIPTables reads what iptables-save -c, or ip6tables-save -c, prints, and
// returns the rules that change the MSS.
//
// Each line is "*table", ":chain policy [packets:bytes]", "COMMIT", or
// "[packets:bytes] -A chain matches -j target", in which words with spaces are
// in double quotes; matches that it does not know are taken to restrict a rule
// in some way.
func parseIPTables(in io.Reader, v6 bool, f *flows) ([]evidence.MSSClamp, error) {
	out := []evidence.MSSClamp{}
	var table string
	var c chains
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 0, 4096), longestRule)
	for lines.Scan() {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		switch line[0] {
		case '#':
		case '*':
			table, c = string(line[1:min(len(line), 64)]), chains{}
		case ':':
			name, policy, _ := strings.Cut(string(line[1:]), " ")
			made := c.chain(name)
			if made == nil {
				return out, errTooManyRules
			}
			if !strings.HasPrefix(policy, "-") { // one of the user's has no policy
				made.hookAt(builtIn(name), ofFamily(v6), f)
			}
		case 'C': // COMMIT
			out = append(out, c.results(f)...)
			c = chains{}
		case '-', '[':
			if err := c.iptablesRule(string(line), table, v6, f); err != nil {
				return out, err
			}
		}
		if len(out) > mostClamps {
			return out[:mostClamps], errTooManyRules
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return out, errEndless
	}
	return out, lines.Err()
}

// builtIn returns what comes to a chain of iptables.
func builtIn(name string) hookKind {
	switch name {
	case "PREROUTING", "FORWARD", "POSTROUTING":
		return hookForward
	case "OUTPUT":
		return hookOutput
	}
	return hookOther
}

// iptablesRule adds one line of rules.
func (c *chains) iptablesRule(line, table string, v6 bool, f *flows) error {
	rule := line
	var packets evidence.Opt[uint64]
	if strings.HasPrefix(line, "[") {
		counters, rest, _ := strings.Cut(line[1:], "]")
		n, _, _ := strings.Cut(counters, ":")
		if met, err := strconv.ParseUint(n, 10, 64); err == nil {
			packets = evidence.Some(met)
		}
		rule = strings.TrimSpace(rest)
	}
	words, whole := cutWords(rule)
	r := readIPTables(words, v6, f)
	if r.chain == "" {
		return nil
	}
	if !whole {
		r.meets = r.meets.and(perhaps())
	}
	in := c.chain(r.chain)
	if in == nil {
		return errTooManyRules
	}
	if !r.clamps {
		return c.rule(in, r.meets, nil, r.verdict(c))
	}
	family := "ip"
	if v6 {
		family = "ip6"
	}
	clamp := evidence.MSSClamp{
		Tool: "iptables", Where: printable(family + " " + table + " " + r.chain), Rule: printable(rule),
		MSS: r.mss, V4: !v6, V6: v6, Packets: packets,
	}
	return c.rule(in, r.meets, &clamp, verdict{})
}

// verdict says what the rule's target does with a packet. A chain is known by
// its declaration, which comes before all rules.
func (r *iptablesRule) verdict(c *chains) verdict {
	switch {
	case c.byName[r.target] != nil && r.target != "":
		return verdict{chain: r.target, ends: r.goes}
	case slices.Contains([]string{"ACCEPT", "DROP", "REJECT", "RETURN", "QUEUE", "NFQUEUE"}, r.target):
		return verdict{ends: true}
	}
	return verdict{}
}

// iptablesRule is what is known of a rule.
type iptablesRule struct {
	chain, target string
	goes          bool // not to return
	clamps        bool
	mss           evidence.Opt[int] // to which; none by the route's MTU
	meets         meets
}

// readIPTables reads the words of a rule.
func readIPTables(words []string, v6 bool, f *flows) iptablesRule {
	r := iptablesRule{meets: ofFamily(v6)}
	negated := false
	for len(words) > 0 {
		option := words[0]
		words = words[1:]
		if option == "!" {
			negated = true
			continue
		}
		if option == "-j" || option == "-g" {
			r.goes = option == "-g"
			r.readTarget(words)
			return r
		}
		// The values of an option reach to the next one, or to its negation.
		n := 0
		for n < len(words) && words[n] != "!" && (!strings.HasPrefix(words[n], "-") || n == 0 && option == "--comment") {
			n++
		}
		values := words[:n]
		words = words[n:]
		if option == "-A" {
			if n > 0 {
				r.chain = values[0]
			}
			continue
		}
		if option == "--pol" || option == "--dir" || option == "-m" && n > 0 && values[0] == "policy" {
			// Of one match: read together, from the first of them.
			var m meets
			m, words = f.policyMatch(option, negated, values, words)
			r.meets = r.meets.and(m)
		} else {
			r.meets = r.meets.and(f.option(option, values, v6).unless(negated))
		}
		negated = false
	}
	return r
}

// readTarget reads the target of a rule and its options.
func (r *iptablesRule) readTarget(words []string) {
	if len(words) == 0 {
		return
	}
	r.target = words[0]
	if r.target != "TCPMSS" {
		return
	}
	for i, w := range words {
		switch {
		case w == "--clamp-mss-to-pmtu":
			r.clamps = true
		case w == "--set-mss" && i+1 < len(words):
			if mss, err := strconv.ParseUint(words[i+1], 10, 16); err == nil {
				r.clamps, r.mss = true, evidence.Some(int(mss))
			}
		}
	}
}

// cutWords splits a rule at spaces outside of double quotes, in which a
// backslash takes its meaning from the next character. It reports whether the
// last quotation ended.
func cutWords(s string) (words []string, whole bool) {
	var word strings.Builder
	open, quoted := false, false
	for i := 0; i < len(s); i++ {
		switch b := s[i]; {
		case quoted && b == '\\' && i+1 < len(s):
			i++
			word.WriteByte(s[i])
		case b == '"':
			quoted, open = !quoted, true
		case b == ' ' && !quoted:
			if open {
				words = append(words, word.String())
				word.Reset()
				open = false
			}
		default:
			word.WriteByte(b)
			open = true
		}
	}
	if open {
		words = append(words, word.String())
	}
	return words, !quoted
}

// printable bounds a text and keeps it on one line.
func printable(s string) string {
	if len(s) > longestText {
		s = strings.ToValidUTF8(s[:longestText], "") + "..."
	}
	return strings.Map(func(r rune) rune {
		if strconv.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}
