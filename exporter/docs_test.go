package exporter

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// documented is a row of docs/metrics.md.
type documented struct {
	kind   string
	labels []string // sorted
	help   string
}

func TestDocsListEveryMetric(t *testing.T) {
	text, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	docs := map[string]documented{}
	row := regexp.MustCompile("(?m)^\\| `(vpnprobe_[a-z0-9_]+)` \\| (\\w+) \\| (.*?) \\| (.*) \\|$")
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		if _, twice := docs[m[1]]; twice {
			t.Errorf("%s is listed twice", m[1])
		}
		d := documented{kind: m[2], labels: []string{}, help: m[4]}
		for _, l := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(m[3], -1) {
			d.labels = append(d.labels, l[1])
		}
		slices.Sort(d.labels)
		docs[m[1]] = d
	}

	code := map[string]documented{}
	families, err := own(everything(t)).Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		d := documented{kind: strings.ToLower(f.GetType().String()), labels: []string{}, help: f.GetHelp()}
		for _, l := range f.GetMetric()[0].GetLabel() {
			d.labels = append(d.labels, l.GetName())
		}
		slices.Sort(d.labels)
		code[f.GetName()] = d
	}
	if diff := cmp.Diff(code, docs, cmp.AllowUnexported(documented{})); diff != "" {
		t.Errorf("docs/metrics.md (-code +docs):\n%s", diff)
	}
}

func TestDocsListLabelValues(t *testing.T) {
	text, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, values := range [][]string{sendReasons, icmpReasons, ikeErrors, ikeCodes, captureModes, captureReasons, directions, fragmentKinds, leakKinds, rekeyResults, ladderSteps, ladderAnswers, skipReasons, authStages, mtuStates, fragmentOrders} {
		for _, v := range values {
			if !strings.Contains(string(text), "`"+v+"`") {
				t.Errorf("docs/metrics.md does not name the label value %s", v)
			}
		}
	}
}
