package budget

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, t.TempDir())
		type answer struct{ Group string }
		var got answer
		if _, err := b.Load(testKey, &got); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v; want that there are none", err)
		}
		want, began := answer{"modp2048"}, time.Now()
		if err := b.Save(testKey, want); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Second)
		saved, err := b.Load(testKey, &got)
		if err != nil || !saved.Equal(began) || !cmp.Equal(got, want) {
			t.Errorf("got %v of %v, %v; want %v of %v", got, saved, err, want, began)
		}
		if _, err := b.Load(testKey, new(int)); err == nil {
			t.Error("loaded a struct as a number")
		}
		if err := b.Save(testKey, strings.Repeat("x", maxAnswers)); err == nil {
			t.Error("saved more than the limit")
		}
		if err := b.Save(testKey, func() {}); err == nil {
			t.Error("saved a function")
		}
		path := filepath.Join(b.Dir(), testKey.file("answers"))
		for _, damage := range []string{"", "{", "null", strings.Repeat(" ", maxAnswers+1)} {
			if err := os.WriteFile(path, []byte(damage), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := b.Load(testKey, new(answer)); err == nil || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("damaged answers %.10q: %v", damage, err)
			}
		}
	})
}
