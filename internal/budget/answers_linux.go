package budget

import (
	"encoding/json"
	"fmt"
	"time"
)

// maxAnswers bounds the size of saved answers, in bytes.
const maxAnswers = 1 << 20

// answers is the content of the file that Save writes.
type answers struct {
	moment
	Value json.RawMessage `json:"value"`
}

// Save keeps v, the answers to the last request of k, as JSON of at most
// 1 MiB, for MaxHold at least.
func (b *Budget) Save(k Key, v any) error {
	if err := k.check(); err != nil {
		return err
	}
	value, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("save the answers to %s: %w", k, err)
	}
	data, err := json.Marshal(answers{moment: b.clock(), Value: value})
	if err != nil {
		return fmt.Errorf("save the answers to %s: %w", k, err)
	}
	if len(data) > maxAnswers {
		return fmt.Errorf("save the answers to %s: %d bytes are more than the %d allowed", k, len(data), maxAnswers)
	}
	unlock, err := b.dir.lock()
	if err != nil {
		return fmt.Errorf("save the answers to %s: %w", k, err)
	}
	defer unlock()
	if err := b.dir.replace(k.file("answers"), data); err != nil {
		return fmt.Errorf("save the answers to %s: %w", k, err)
	}
	return nil
}

// Load reads into v what Save kept, and returns when that was, by the clock on
// the wall as it is now. Without
// answers the error is [fs.ErrNotExist]; with an error v is of no use.
func (b *Budget) Load(k Key, v any) (saved time.Time, err error) {
	if err := k.check(); err != nil {
		return time.Time{}, err
	}
	data, err := b.dir.read(k.file("answers"), maxAnswers)
	if err != nil {
		return time.Time{}, fmt.Errorf("load the last answers to %s: %w", k, err)
	}
	var a answers
	if err := json.Unmarshal(data, &a); err != nil {
		return time.Time{}, fmt.Errorf("load the last answers to %s: %w", k, err)
	}
	now := b.clock()
	age := now.since(a.moment)
	if age < 0 {
		return time.Time{}, fmt.Errorf("load the last answers to %s: their age is not known: the clock was set back", k)
	}
	if err := json.Unmarshal(a.Value, v); err != nil {
		return time.Time{}, fmt.Errorf("load the last answers to %s: %w", k, err)
	}
	return now.Time.Add(-age), nil
}
