package report

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"vpnprobe/diagnosis"
	"vpnprobe/evidence"
)

func render(t *testing.T, r *diagnosis.Report, o Options) string {
	t.Helper()
	var b bytes.Buffer
	if err := Text(&b, r, o); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTextGolden(t *testing.T) {
	for name, r := range map[string]*diagnosis.Report{
		"filtered": filtered(), "healthy": healthy(), "mismatched": mismatched(), "undone": undone(), "watched": watched(), "sized": sized(), "blind": blind(), "hostile": hostile(),
	} {
		for _, lang := range []string{"en", "zh"} {
			golden(t, name+"."+lang+".txt", []byte(render(t, r, Options{Lang: lang})))
		}
	}
	golden(t, "filtered.color.txt", []byte(render(t, filtered(), Options{Lang: "en", Color: true, Width: 100})))
}

func TestTextKeepsToItsWidth(t *testing.T) {
	for _, columns := range []int{80, 110} {
		for _, lang := range []string{"en", "zh"} {
			out := render(t, filtered(), Options{Lang: lang, Width: columns}) + render(t, sized(), Options{Lang: lang, Width: columns})
			_, prose, _ := strings.Cut(out, "\n")
			for l := range strings.Lines(prose) {
				l = strings.TrimSuffix(l, "\n")
				// The table of echoes keeps its columns instead.
				if width(l) > columns && !strings.Contains(l, "203.0.113.9") {
					t.Errorf("%s: line of %d columns, want at most %d: %q", lang, width(l), columns, l)
				}
			}
		}
	}
}

func TestTextIsSafeForATerminal(t *testing.T) {
	for _, lang := range []string{"en", "zh"} {
		out := render(t, hostile(), Options{Lang: lang})
		for _, r := range out {
			if r != '\n' && (unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp)) || r == unicode.ReplacementChar {
				t.Errorf("%s: the text holds %U", lang, r)
			}
		}
		if strings.Contains(out, "\nd") {
			t.Errorf("%s: a text from outside began a line of its own", lang)
		}
	}
}

func TestTextAlignsWideCharacters(t *testing.T) {
	got := table([][]string{{"网关", "1"}, {"inner", "100"}, {"参照", "10"}}, 1)
	want := []string{"网关     1", "inner  100", "参照    10"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWrap(t *testing.T) {
	for _, c := range []struct {
		text string
		n    int
		want []string
	}{
		{"", 10, []string{""}},
		{"one two three", 7, []string{"one two", "three"}},
		{"unbreakable-word", 4, []string{"unbreakable-word"}},
		{"隧道双向通信", 6, []string{"隧道双", "向通信"}},
		{"隧道双向。通信", 8, []string{"隧道双", "向。通信"}},
		{"放通 UDP 500 端口", 9, []string{"放通 UDP", "500 端口"}},
	} {
		if diff := cmp.Diff(c.want, wrap(c.text, c.n)); diff != "" {
			t.Errorf("wrap(%q, %d) (-want +got):\n%s", c.text, c.n, diff)
		}
	}
}

func FuzzWrap(f *testing.F) {
	f.Add("one two three", 7)
	f.Add("隧道双向。通信 (ok)", 3)
	f.Fuzz(func(t *testing.T, s string, n int) {
		s = clean(s)
		blanks := func(s string) string { return strings.ReplaceAll(s, " ", "") }
		if got := strings.Join(wrap(s, n), ""); blanks(got) != blanks(s) {
			t.Errorf("wrap(%q) lost text: %q", s, got)
		}
	})
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain 中文":      "plain 中文",
		"\x1b[2J":       `\x1b[2J`,
		"a\xffb":        `a\xffb`,
		"a\nb":          `a\x0ab`,
		"\u202eevil":    `\u202eevil`,
		"\u009b31m":     `\x9b31m`,
		"ok \uFFFD ok":  "ok \uFFFD ok",
		"e\u0301 stays": "e\u0301 stays",
	} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestFormats(t *testing.T) {
	for d, want := range map[time.Duration]string{
		310 * time.Microsecond: "0.31 ms", 12345 * time.Microsecond: "12.3 ms", 999600 * time.Microsecond: "1 s",
		1240 * time.Millisecond: "1.24 s", 61 * time.Second: "1m1s", 0: "0 ms",
	} {
		if got := duration(d); got != want {
			t.Errorf("duration(%d) = %q, want %q", d, got, want)
		}
	}
	for n, want := range map[uint64]string{0: "0 B", 999: "999 B", 1000: "1 kB", 999_999: "1 MB", 1_968_000: "1.97 MB", 1 << 63: "9.22 EB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestForFileIsPlainWhenPiped(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if got, want := ForFile(w, "zh"), (Options{Lang: "zh"}); got != want {
		t.Errorf("ForFile(pipe) = %+v, want %+v", got, want)
	}
	if p := NewProgress(w, "en", time.Second); p != nil {
		t.Errorf("NewProgress(pipe) = %v, want nil", p)
	}
}

func TestProgress(t *testing.T) {
	var b bytes.Buffer
	p := newProgress(&b, 40, "en", 10*time.Second)
	p.Observe("cloud", evidence.EchoResult{Outcome: evidence.EchoReply, Target: addr("198.51.100.2"), RTT: 12 * time.Millisecond})
	p.Observe("cloud", evidence.EchoResult{Late: true}) // no request: not counted
	p.ObserveIKE("cloud", evidence.IKEResult{Port: 500, Outcome: evidence.IKEAnswered, Notify: "X\x1b[0m"})
	p.ObserveLadder("cloud", evidence.Ladder{Main: evidence.IKEOffers{Answers: evidence.Yes}})
	p.ObserveAuth("cloud", evidence.IKEAuth{By: evidence.ByAgent, Stage: evidence.StageAuth, Notify: "X\x1b[0m"})
	p.ObservePathMTU("cloud", evidence.PathMTU{})
	p.ObservePathMTU("cloud", evidence.PathMTU{Role: "X\x1b[0m", Packets: 1})
	p.Done()
	p.ObserveTCP("cloud", evidence.TCPResult{})
	out := b.String()
	if !strings.HasSuffix(out, eraseLine) {
		t.Errorf("the line stays after Done: %q", out)
	}
	frames := strings.Split(out, eraseLine)
	if want := "probing 0s of 10s   echo 1/1   IKE 1/1"; frames[3] != want {
		t.Errorf("line = %q, want %q", frames[3], want)
	}
	for _, f := range frames {
		if width(f) >= 40 || strings.ContainsAny(f, "\x1b\n") {
			t.Errorf("line %q does not fit on 40 columns", f)
		}
	}
	var none *Progress // what NewProgress returns without a terminal
	none.Observe("cloud", evidence.EchoResult{})
	none.Done()
}
