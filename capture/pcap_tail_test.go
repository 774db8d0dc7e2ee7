package capture

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// follow reads a file that change works on each time when all was read, and
// returns what was read up to the end, and how it ended.
func follow(t *testing.T, before string, changes ...func(path string)) (string, error) {
	t.Helper()
	var got bytes.Buffer
	var end error
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		tail, err := OpenTail(ctx, path, func() {
			if len(changes) == 0 {
				cancel()
				return
			}
			changes[0](path)
			changes = changes[1:]
		})
		if err != nil {
			t.Fatal(err)
		}
		defer tail.Close()
		_, end = io.Copy(&got, tail)
	})
	if len(changes) > 0 {
		t.Errorf("%d changes were not waited for", len(changes))
	}
	return got.String(), end
}

func TestTail(t *testing.T) {
	write := func(flags int, s string) func(string) {
		return func(path string) {
			f, err := os.OpenFile(path, os.O_WRONLY|flags, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteString(s); err != nil {
				t.Fatal(err)
			}
		}
	}
	replace := func(path string) {
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
		write(os.O_CREATE, "new")(path)
	}
	for name, tc := range map[string]struct {
		before  string
		changes []func(string)
		want    string
		end     error
	}{
		"nothing":    {"", nil, "", context.Canceled},
		"as it is":   {"abc", nil, "abc", context.Canceled},
		"grows":      {"abc", []func(string){write(os.O_APPEND, "def"), write(os.O_APPEND, "g")}, "abcdefg", context.Canceled},
		"begins":     {"", []func(string){write(os.O_APPEND, "a")}, "a", context.Canceled},
		"cut":        {"abc", []func(string){write(os.O_TRUNC, "x")}, "abc", ErrTruncated},
		"cut to 0":   {"abc", []func(string){write(os.O_TRUNC, "")}, "abc", ErrTruncated},
		"replaced":   {"abc", []func(string){replace}, "abc", ErrReplaced},
		"last words": {"abc", []func(string){func(path string) { write(os.O_APPEND, "def")(path); replace(path) }}, "abcdef", ErrReplaced},
		// The writer goes on to write to a file that has lost its name.
		"removed": {"abc", []func(string){func(path string) {
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			os.Remove(path)
			f.WriteString("def")
		}}, "abcdef", context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			got, end := follow(t, tc.before, tc.changes...)
			if got != tc.want || !errors.Is(end, tc.end) {
				t.Errorf("read %q until %v, want %q until %v", got, end, tc.want, tc.end)
			}
		})
	}
	if _, err := OpenTail(t.Context(), filepath.Join(t.TempDir(), "none"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

// A capture that grows byte by byte is read as if it had been there at once.
func TestTailOfCapture(t *testing.T) {
	frames := builtFrames(t)
	for name, format := range map[string]func(testing.TB, []Frame) []byte{"pcap": classic, "pcapng": nextGeneration} {
		file := format(t, frames)
		at := len(format(t, nil)) / 2
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, file[:at], 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		var got []Frame
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			tail, err := OpenTail(ctx, path, func() {
				n := min(7, len(file)-at)
				if n == 0 {
					cancel()
				}
				out.Write(file[at : at+n])
				at += n
			})
			if err != nil {
				t.Fatal(err)
			}
			defer tail.Close()
			if err := readPcap(tail, func(f Frame) { got = append(got, f) }); !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", name, err)
			}
		})
		out.Close()
		if len(got) != len(frames) || !got[len(got)-1].Time.Equal(frames[len(frames)-1].Time) {
			t.Errorf("%s: %d frames, want %d", name, len(got), len(frames))
		}
	}
}

// However a file is written in pieces, the same frames are read, and the reader
// ends.
func FuzzTail(f *testing.F) {
	frames := builtFrames(f)[:3]
	f.Add(classic(f, frames), uint16(30))
	f.Add(nextGeneration(f, frames), uint16(100))
	f.Add(compress(classic(f, frames)), uint16(9))
	f.Fuzz(func(t *testing.T, file []byte, at uint16) {
		count := func(r io.Reader) (n int) {
			_ = readPcap(r, func(Frame) { n++ })
			return n
		}
		whole := count(bytes.NewReader(file))
		path := filepath.Join(t.TempDir(), "f")
		first := min(int(at), len(file))
		if err := os.WriteFile(path, file[:first], 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		tail, err := OpenTail(ctx, path, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer tail.Close()
		tail.pause = time.Microsecond
		told := false
		tail.quiet = func() {
			if told {
				cancel()
				return
			}
			told = true
			out, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			out.Write(file[first:])
			if first == len(file) {
				cancel()
			}
		}
		if n := count(tail); n != whole {
			t.Errorf("%d frames, want %d", n, whole)
		}
	})
}
