package report

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"vpnprobe/diagnosis"
	"vpnprobe/evidence"
)

// compileSchema compiles the published schema; strict forbids what it does
// not describe, so that a new field cannot be forgotten there.
func compileSchema(t *testing.T, strict bool) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema))
	if err != nil {
		t.Fatal(err)
	}
	if strict {
		forbidOthers(doc)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func forbidOthers(v any) {
	switch v := v.(type) {
	case map[string]any:
		for _, x := range v {
			forbidOthers(x)
		}
		// "properties" as a keyword holds an object, and stands beside
		// "type"; no field of the report has that name.
		if _, ok := v["properties"].(map[string]any); ok {
			v["additionalProperties"] = false
		}
	case []any:
		for _, x := range v {
			forbidOthers(x)
		}
	}
}

func validate(t *testing.T, s *jsonschema.Schema, b []byte) error {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(v)
}

func TestJSONMatchesSchema(t *testing.T) {
	none := blind()
	none.Snapshot = &evidence.Snapshot{}
	missing := blind()
	missing.Snapshot = nil
	schema := compileSchema(t, true)
	for name, r := range map[string]*diagnosis.Report{
		"filtered": filtered(), "healthy": healthy(), "mismatched": mismatched(), "undone": undone(), "watched": watched(), "sized": sized(), "blind": blind(),
		"all unknown": none, "no snapshot": missing,
	} {
		for _, lang := range []string{"en", "zh"} {
			b, err := JSON(r, lang)
			if err != nil {
				t.Fatal(err)
			}
			if err := validate(t, schema, b); err != nil {
				t.Errorf("%s %s: %v", name, lang, err)
			}
		}
	}
}

func TestSchemaRefuses(t *testing.T) {
	good, err := JSON(refusable(), "en")
	if err != nil {
		t.Fatal(err)
	}
	schema := compileSchema(t, false)
	for name, breakIt := range map[string]func(m map[string]any){
		"another version": func(m map[string]any) { m["schema_version"] = 2 },
		"no diagnosis":    func(m map[string]any) { delete(m, "diagnosis") },
		"a bad severity":  func(m map[string]any) { m["severity"] = "fatal" },
		"no finding":      func(m map[string]any) { m["findings"] = []any{} },
		"a bad time":      func(m map[string]any) { m["time"] = "yesterday" },
		"a null list":     func(m map[string]any) { m["evidence"].(map[string]any)["tcp"] = nil },
		"an SPI of 33 bits": func(m map[string]any) {
			m["evidence"].(map[string]any)["capture"].(map[string]any)["flows"].([]any)[0].(map[string]any)["spi"] = 1 << 32
		},
		"a null list of leaks": func(m map[string]any) {
			m["evidence"].(map[string]any)["capture"].(map[string]any)["leaks"] = nil
		},
		"a stage that is none": func(m map[string]any) {
			m["evidence"].(map[string]any)["capture"].(map[string]any)["ike"].(map[string]any)["newest"].(map[string]any)["reached"] = "up"
		},
		"a fact in words": func(m map[string]any) { m["evidence"].(map[string]any)["host"].(map[string]any)["ike_daemon"] = "yes" },
		"a path MTU in words": func(m map[string]any) {
			m["evidence"].(map[string]any)["path_mtu"].([]any)[0].(map[string]any)["state"] = "small"
		},
		"a hole without an end": func(m map[string]any) {
			delete(m["evidence"].(map[string]any)["path_mtu"].([]any)[1].(map[string]any)["holes"].([]any)[0].(map[string]any), "to_bytes")
		},
		"a sum without its padding": func(m map[string]any) {
			delete(m["evidence"].(map[string]any)["tunnel_mtu"].(map[string]any), "align_bytes")
		},
		"a rule of another tool": func(m map[string]any) {
			m["evidence"].(map[string]any)["host"].(map[string]any)["mss_clamps"].(map[string]any)["rules"].([]any)[0].(map[string]any)["tool"] = "pf"
		},
		"a null send list": func(m map[string]any) {
			m["evidence"].(map[string]any)["echoes"].([]any)[0].(map[string]any)["send_errors"] = nil
		},
	} {
		var m map[string]any
		if err := json.Unmarshal(good, &m); err != nil {
			t.Fatal(err)
		}
		breakIt(m)
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if validate(t, schema, b) == nil {
			t.Errorf("the schema accepts %s", name)
		}
	}
}

// refusable is a report with something in every list that the test breaks.
func refusable() *diagnosis.Report {
	r := filtered()
	s := *r.Snapshot
	s.Capture = watched().Snapshot.Capture
	big := sized().Snapshot
	s.MTUs, s.MTUChanges, s.TCPSizes, s.TunnelMTU, s.Host.MSSClamps = big.MTUs, big.MTUChanges, big.TCPSizes, big.TunnelMTU, big.Host.MSSClamps
	r.Snapshot = &s
	return r
}

func TestJSONKeepsTheSnapshot(t *testing.T) {
	r := refusable()
	before, err := json.Marshal(r.Snapshot)
	if err != nil {
		t.Fatal(err)
	}
	b, err := JSON(r, "en")
	if err != nil {
		t.Fatal(err)
	}
	after, err := json.Marshal(r.Snapshot)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(before), string(after)); diff != "" {
		t.Errorf("JSON changed the shared snapshot (-before +after):\n%s", diff)
	}
	var got struct{ Evidence evidence.Snapshot }
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	opts := cmp.Options{cmpopts.EquateEmpty(), cmp.Exporter(func(reflect.Type) bool { return true }), cmp.Comparer(func(a, b map[evidence.SendReason]int) bool {
		return len(a) == 0 && len(b) == 0 || cmp.Equal(a, b)
	})}
	mtus := func(s *evidence.Snapshot) []any {
		return []any{s.MTUs, s.MTUChanges, s.TCPSizes, s.TunnelMTU, s.Host.MSSClamps}
	}
	if diff := cmp.Diff(mtus(r.Snapshot), mtus(&got.Evidence), opts); diff != "" {
		t.Errorf("path MTUs do not survive JSON (-want +got):\n%s", diff)
	}
	kept := func(c evidence.Capture) []any {
		return []any{c.Flows, c.Interfaces, c.Leaks, c.ICMP, c.Talk.Newest, c.Talk.Offers[:2], c.Talk.Notifies, c.In.Fragments}
	}
	if diff := cmp.Diff(kept(r.Snapshot.Capture), kept(got.Evidence.Capture), opts); diff != "" {
		t.Errorf("the capture does not survive JSON (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(r.Snapshot.Host.Route, got.Evidence.Host.Route, opts); diff != "" {
		t.Errorf("the route does not survive JSON (-want +got):\n%s", diff)
	}
}

func TestJSONGolden(t *testing.T) {
	r := blind()
	r.Snapshot = nil
	b, err := JSON(r, "zh")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "unknown.zh.json", append(b, '\n'))
}

// golden compares with a file of testdata, or writes it when UPDATE_GOLDEN is
// set.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := "testdata/" + name
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}
