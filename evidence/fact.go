package evidence

import (
	"encoding/json"
	"fmt"
	"math"
	"time"
)

// Fact is one statement about the world: seen to be true, seen to be false,
// or not seen. The zero value is not seen.
type Fact uint8

// The three values of a [Fact].
const (
	Unknown Fact = iota
	Yes
	No
)

// FactOf returns Yes or No for a statement that was looked at.
func FactOf(b bool) Fact {
	if b {
		return Yes
	}
	return No
}

// Known reports whether the fact was observed at all.
func (f Fact) Known() bool { return f == Yes || f == No }

// String returns "yes", "no" or "unknown".
func (f Fact) String() string {
	switch f {
	case Yes:
		return "yes"
	case No:
		return "no"
	}
	return "unknown"
}

// MarshalJSON writes true, false, or null for a fact that was not observed.
func (f Fact) MarshalJSON() ([]byte, error) {
	switch f {
	case Yes:
		return []byte("true"), nil
	case No:
		return []byte("false"), nil
	}
	return []byte("null"), nil
}

// UnmarshalJSON reads what MarshalJSON writes.
func (f *Fact) UnmarshalJSON(b []byte) error {
	switch string(b) {
	case "true":
		*f = Yes
	case "false":
		*f = No
	case "null":
		*f = Unknown
	default:
		return fmt.Errorf("fact %q: want true, false or null", b)
	}
	return nil
}

// Opt is a measured value that may be missing. The zero value is missing and
// reads as null in JSON.
type Opt[T any] struct {
	value T
	known bool
}

// Some returns a measured value.
func Some[T any](v T) Opt[T] { return Opt[T]{v, true} }

// Get returns the value and whether it was measured.
func (o Opt[T]) Get() (T, bool) { return o.value, o.known }

// Or returns the value, or v when it was not measured.
func (o Opt[T]) Or(v T) T {
	if o.known {
		return o.value
	}
	return v
}

// Known reports whether the value was measured.
func (o Opt[T]) Known() bool { return o.known }

// MarshalJSON writes the value, or null when it was not measured.
func (o Opt[T]) MarshalJSON() ([]byte, error) {
	if !o.known {
		return []byte("null"), nil
	}
	return json.Marshal(o.value)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (o *Opt[T]) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*o = Opt[T]{}
		return nil
	}
	var v T
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	*o = Some(v)
	return nil
}

// Seconds is a duration that reads as seconds in JSON.
type Seconds time.Duration

// Duration returns s in Go's own type.
func (s Seconds) Duration() time.Duration { return time.Duration(s) }

// MarshalJSON writes the duration in seconds.
func (s Seconds) MarshalJSON() ([]byte, error) {
	return json.Marshal(time.Duration(s).Seconds())
}

// UnmarshalJSON reads a number of seconds.
func (s *Seconds) UnmarshalJSON(b []byte) error {
	var f float64
	if err := json.Unmarshal(b, &f); err != nil {
		return err
	}
	*s = Seconds(math.Round(f * float64(time.Second)))
	return nil
}
