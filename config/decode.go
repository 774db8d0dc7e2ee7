package config

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// maxList bounds every list, so that checks which compare its entries with
// each other stay cheap.
const maxList = 1000

// decoder walks the tree of one file. It notes faults instead of returning
// them, and goes on: the operator is to see all of them at once.
type decoder struct {
	noFile bool // there are only variables and flags
	file   string
	lines  map[string]int    // where each key path was seen
	from   map[string]string // the flag or variable that set a key path
	faults Faults
	// known, if set, is told of every key that the file may hold, with "[]"
	// for the index of a list: tests compare the documentation with it.
	known func(path string)
}

// value is a node with the key path that leads to it.
type value struct {
	*yaml.Node
	path string
}

// fields are the keys of a mapping with what decodes the value of each.
type fields map[string]func(value)

// faultf notes a fault at a key path: at the path itself, or at its nearest
// parent that is in the file.
func (d *decoder) faultf(path, format string, args ...any) {
	f := Fault{Key: path, Text: fmt.Sprintf(format, args...)}
	if f.From = d.from[path]; f.From == "" {
		f.File = d.file
		for p := path; p != "" && f.Line == 0; p = p[:max(0, strings.LastIndexAny(p, ".["))] {
			f.Line = d.lines[p]
		}
	}
	d.faults = append(d.faults, f)
}

// wholeFile notes a fault that belongs to a line and to no key.
func (d *decoder) wholeFile(line int, text string) {
	d.faults = append(d.faults, Fault{File: d.file, Line: line, Text: text})
}

// mapping decodes the keys of a mapping, in the order of the file.
func (d *decoder) mapping(v value, want fields) {
	if d.known != nil {
		for key := range want {
			d.known(join(v.path, key))
		}
	}
	if v.Kind != yaml.MappingNode {
		d.faultf(v.path, "want keys with values, not %s", kind(v.Node))
		return
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(v.Content); i += 2 {
		key, val := v.Content[i], value{v.Content[i+1], join(v.path, v.Content[i].Value)}
		decode, ok := want[key.Value]
		switch {
		case key.Kind != yaml.ScalarNode || !ok:
			d.unknownKey(v.path, key, want)
		case seen[key.Value]:
			d.faults = append(d.faults, Fault{File: d.file, Line: key.Line, Key: val.path,
				Text: fmt.Sprintf("given twice, first on line %d: keep one", d.lines[val.path])})
		default:
			seen[key.Value] = true
			d.lines[val.path] = key.Line
			if val.Tag == "!!null" {
				d.faultf(val.path, "has no value: give it one or remove the key")
				continue
			}
			decode(val)
		}
	}
}

func (d *decoder) unknownKey(path string, key *yaml.Node, want fields) {
	known := slices.Sorted(maps.Keys(want))
	hint := "known here: " + strings.Join(known, ", ")
	if near := nearest(key.Value, known); near != "" {
		hint = "did you mean " + near + "?"
	}
	name := kind(key)
	if key.Kind == yaml.ScalarNode {
		name = quote(key.Value)
	}
	d.faults = append(d.faults, Fault{File: d.file, Line: key.Line, Key: path,
		Text: fmt.Sprintf("unknown key %s: %s", name, hint)})
}

// sequence decodes the entries of a list.
func (d *decoder) sequence(v value, entry func(i int, v value)) {
	if v.Kind != yaml.SequenceNode {
		d.faultf(v.path, "want a list, not %s", kind(v.Node))
		return
	}
	if len(v.Content) > maxList {
		d.faultf(v.path, "has %d entries, more than %d", len(v.Content), maxList)
		return
	}
	for i, n := range v.Content {
		e := value{n, fmt.Sprintf("%s[%d]", v.path, i)}
		d.lines[e.path] = n.Line
		if n.Tag == "!!null" {
			d.faultf(e.path, "has no value: give it one or remove the entry")
			continue
		}
		entry(i, e)
	}
}

// text returns the text of a scalar.
func (d *decoder) text(v value) (string, bool) {
	if v.Kind != yaml.ScalarNode {
		d.faultf(v.path, "want a single value, not %s", kind(v.Node))
		return "", false
	}
	return v.Value, true
}

// scalar returns what decodes a scalar into dst.
func scalar[T any](d *decoder, dst *T, parse func(string) (T, error)) func(value) {
	return func(v value) {
		text, ok := d.text(v)
		if !ok {
			return
		}
		got, err := parse(text)
		if err != nil {
			d.faultf(v.path, "%v", err)
			return
		}
		*dst = got
	}
}

// list returns what decodes a list of scalars into dst. An entry that repeats
// an earlier one is a fault.
func list[T any](d *decoder, dst *[]T, parse func(string) (T, error)) func(value) {
	return func(v value) {
		first := make(map[string]int)
		d.sequence(v, func(i int, v value) {
			var got T
			before := len(d.faults)
			scalar(d, &got, parse)(v)
			if len(d.faults) > before {
				return
			}
			if j, ok := first[fmt.Sprint(got)]; ok {
				d.faultf(v.path, "%v is entry [%d] already: remove one", got, j)
				return
			}
			first[fmt.Sprint(got)] = i
			*dst = append(*dst, got)
		})
	}
}

// config decodes the whole file, with variables and flags over it.
func (d *decoder) config(root *yaml.Node, fs *pflag.FlagSet, env []string) *Config {
	c := Default()
	texts := make(map[string]string) // of the settings in the file
	var peers value
	want := fields{
		"references": list(d, &c.References, parseReference),
		"peers":      func(v value) { peers = v },
	}
	groups := make(map[string]fields)
	for _, s := range settings() {
		keep := func(v value) {
			if text, ok := d.text(v); ok {
				texts[s.key] = text
			}
		}
		group, key, nested := strings.Cut(s.key, ".")
		if !nested {
			want[s.key] = keep
			continue
		}
		if groups[group] == nil {
			groups[group] = make(fields)
			want[group] = func(v value) { d.mapping(v, groups[group]) }
		}
		groups[group][key] = keep
	}
	if root != nil {
		d.mapping(value{root, ""}, want)
	}

	texts, d.from = overlay(texts, fs, env)
	for _, s := range settings() {
		text := texts[s.key]
		if _, inFile := d.lines[s.key]; text == "" && !inFile && d.from[s.key] == "" {
			continue // a setting without a default
		}
		if err := s.set(c, text); err != nil {
			d.faultf(s.key, "%v", err)
		}
	}
	// The peers come last: they start from the settings.
	if peers.Node != nil {
		d.sequence(peers, func(_ int, v value) { c.Peers = append(c.Peers, d.peer(c, v)) })
	}
	if _, ok := d.lines["peers"]; !ok && !d.noFile || peers.Node != nil && len(peers.Content) == 0 && peers.Kind == yaml.SequenceNode {
		d.faultf("peers", "no peer is declared: declare at least one, with a name and a gateway")
	}
	d.contradictions(c)
	return c
}

// join appends a key to the path of the mapping that holds it.
func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// kind names what a node is, for a reader who does not know YAML's words.
func kind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys with values"
	case yaml.SequenceNode:
		return "a list"
	}
	return quote(n.Value)
}

// quote makes any text fit for one line of a terminal.
func quote(text string) string { return fmt.Sprintf("%q", clip(text)) }

// clip shortens a text that is too long to be a name.
func clip(text string) string {
	const most = 60
	if r := []rune(text); len(r) > most {
		return string(r[:most]) + "..."
	}
	return text
}

// nearest returns the one of known that was probably meant, or "".
func nearest(name string, known []string) string {
	if len(name) > 64 {
		return ""
	}
	best, least := "", 1+max(1, min(3, len(name)/3)) // as many typing errors as are plausible
	for _, k := range known {
		if n := distance(strings.ToLower(name), strings.ToLower(k)); n < least {
			best, least = k, n
		}
	}
	return best
}

// distance is the Levenshtein distance: the number of letters to insert,
// remove or replace to get from a to b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

// addrKey is how addresses are compared that may be absent.
func addrKey(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
