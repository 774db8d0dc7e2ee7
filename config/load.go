package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

const (
	// maxSize is far above any real configuration, and far below what would
	// hurt the parser.
	maxSize = 1 << 20
	// maxDepth is more than any key needs: peers[].inner[].tcp_ports[] is 6.
	maxDepth = 16
)

// Load reads the configuration file at path and lays env, a list of
// "NAME=value", and the flags of fs that were set over it; fs may be nil.
// An error about the content is of type [Faults].
func Load(path string, fs *pflag.FlagSet, env []string) (*Config, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return Parse(f, path, fs, env)
}

// open refuses what is not a regular file before it opens it: opening a named
// pipe would wait for a writer.
func open(path string) (*os.File, error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read configuration: %s is not a regular file", path)
	}
	var f *os.File
	if err == nil {
		f, err = os.Open(path)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("read configuration: %w: create it, or name another with --config", err)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("read configuration: %w: let the agent's user read it", err)
	case err != nil:
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return f, nil
}

// Parse is [Load] for a file that is already open. The name is for messages.
func Parse(r io.Reader, name string, fs *pflag.FlagSet, env []string) (*Config, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration %s: %w", name, err)
	}
	d := &decoder{file: name, lines: make(map[string]int)}
	root := d.document(text)
	if len(d.faults) > 0 {
		return nil, d.faults.finish()
	}
	c := d.config(root, fs, env)
	if len(d.faults) > 0 {
		return nil, d.faults.finish()
	}
	return c, nil
}

// FromEnvironment is [Load] without a file, and so without peers.
func FromEnvironment(env []string) (*Config, error) {
	d := &decoder{noFile: true, file: "environment", lines: make(map[string]int)}
	c := d.config(nil, nil, env)
	if len(d.faults) > 0 {
		return nil, d.faults.finish()
	}
	return c, nil
}

// document turns text into the tree of its one YAML document, and refuses
// what no configuration needs and some attacks do. The result is nil for a
// file without content.
func (d *decoder) document(text []byte) *yaml.Node {
	switch {
	case len(text) > maxSize:
		d.faultf("", "larger than %d bytes: is this the right file?", maxSize)
		return nil
	case !utf8.Valid(text):
		d.wholeFile(lineOf(text, invalidByte(text)), "not UTF-8 text: save it as UTF-8")
		return nil
	case bytes.IndexByte(text, 0) >= 0:
		d.wholeFile(lineOf(text, bytes.IndexByte(text, 0)), "holds a NUL byte: this is not a text file")
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, second yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil
	} else if err != nil {
		d.wholeFile(syntaxError(err))
		return nil
	}
	if err := dec.Decode(&second); err == nil {
		d.wholeFile(second.Line, "a second YAML document starts here: keep one")
	} else if !errors.Is(err, io.EOF) {
		d.wholeFile(syntaxError(err))
	}
	root := doc.Content[0]
	d.inspect(root, 1)
	switch {
	case root.Tag == "!!null":
		return nil
	case root.Kind != yaml.MappingNode:
		d.wholeFile(root.Line, "want keys with values, not "+kind(root))
	}
	return root
}

// inspect refuses anchors, aliases, tags and deep nesting, once each.
func (d *decoder) inspect(n *yaml.Node, depth int) bool {
	switch {
	case depth > maxDepth:
		d.wholeFile(n.Line, "nested deeper than any key needs")
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		d.wholeFile(n.Line, "YAML anchors and aliases are not supported: write the value out")
	case n.Style&yaml.TaggedStyle != 0:
		d.wholeFile(n.Line, "YAML tags are not supported: remove "+quote(n.Tag))
	default:
		for _, child := range n.Content {
			if !d.inspect(child, depth+1) {
				return false
			}
		}
		return true
	}
	return false
}

// syntaxError splits the YAML parser's "yaml: line 3: text".
func syntaxError(err error) (line int, text string) {
	text = strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		if n, msg, ok := strings.Cut(rest, ": "); ok {
			if line, err := strconv.Atoi(n); err == nil {
				return line, "not valid YAML: " + msg
			}
		}
	}
	return 0, "not valid YAML: " + text
}

// lineOf returns the number of the line that holds the byte at offset.
func lineOf(text []byte, offset int) int {
	return 1 + bytes.Count(text[:offset], []byte("\n"))
}

// invalidByte returns the offset of the first byte that is not UTF-8.
func invalidByte(text []byte) int {
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return len(text)
}
