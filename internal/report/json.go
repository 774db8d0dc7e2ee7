package report

import (
	_ "embed" // for the schema
	"encoding/json"
	"reflect"
	"time"

	"vpnprobe/diagnosis"
	"vpnprobe/evidence"
)

// SchemaVersion is the version of the JSON form. It grows when a field is
// removed or changes its meaning; a field may be added at any time.
const SchemaVersion = 1

// Schema is the JSON Schema (draft 2020-12) of what [JSON] writes.
//
//go:embed schema.json
var Schema []byte

type jsonReport struct {
	SchemaVersion int                `json:"schema_version"`
	Peer          string             `json:"peer"`
	Gateway       string             `json:"gateway"`
	Time          time.Time          `json:"time"`
	Duration      evidence.Seconds   `json:"duration_seconds"`
	Diagnosis     diagnosis.Label    `json:"diagnosis"`
	Severity      diagnosis.Severity `json:"severity"`
	Summary       string             `json:"summary"`
	Findings      []jsonFinding      `json:"findings"`
	Evidence      *evidence.Snapshot `json:"evidence"`
}

type jsonFinding struct {
	Diagnosis  diagnosis.Label      `json:"diagnosis"`
	Severity   diagnosis.Severity   `json:"severity"`
	Confidence diagnosis.Confidence `json:"confidence"`
	Role       diagnosis.Role       `json:"role"`
	Evidence   []string             `json:"evidence"`
	Remedy     string               `json:"remedy"`
}

// JSON writes the report on one line, in the language "en" or "zh". A list
// that is empty is [], a value that is not known is null.
func JSON(r *diagnosis.Report, lang string) ([]byte, error) {
	out := jsonReport{
		SchemaVersion: SchemaVersion,
		Peer:          r.Peer,
		Gateway:       r.Gateway,
		Time:          r.Time.UTC(),
		Duration:      evidence.Seconds(r.Duration),
		Diagnosis:     r.Diagnosis(),
		Severity:      r.Severity(),
		Summary:       r.Summary.In(lang),
		Findings:      make([]jsonFinding, 0, len(r.Findings)),
	}
	for _, f := range r.Findings {
		seen := make([]string, 0, len(f.Evidence))
		for _, t := range f.Evidence {
			seen = append(seen, t.In(lang))
		}
		out.Findings = append(out.Findings, jsonFinding{
			f.Label, f.Severity, f.Confidence, f.Role, seen, f.Remedy.In(lang),
		})
	}
	if r.Snapshot != nil {
		s := withoutNil(reflect.ValueOf(*r.Snapshot)).Interface().(evidence.Snapshot)
		out.Evidence = &s
	}
	return json.Marshal(out)
}

var marshaler = reflect.TypeFor[json.Marshaler]()

// withoutNil returns a copy of v in which every nil slice and map is an empty
// one, because encoding/json writes null for the former. A snapshot is shared,
// so it is never changed in place.
func withoutNil(v reflect.Value) reflect.Value {
	t := v.Type()
	if t.Implements(marshaler) {
		return v // writes itself, and holds no list
	}
	switch v.Kind() {
	case reflect.Struct:
		out := reflect.New(t).Elem()
		out.Set(v)
		for i := range t.NumField() {
			if t.Field(i).IsExported() {
				out.Field(i).Set(withoutNil(v.Field(i)))
			}
		}
		return out
	case reflect.Slice:
		out := reflect.MakeSlice(t, v.Len(), v.Len())
		for i := range v.Len() {
			out.Index(i).Set(withoutNil(v.Index(i)))
		}
		return out
	case reflect.Map:
		if v.IsNil() {
			return reflect.MakeMap(t)
		}
	}
	return v
}
