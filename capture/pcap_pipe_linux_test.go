package capture

import (
	"context"
	"errors"
	"io"
	"os"
	"testing"
)

// A pipe is read until its writer closes it, or a context ends. What the writer
// still has at that time is read too.
func TestPipe(t *testing.T) {
	for name, interrupt := range map[string]bool{"closed": false, "interrupted": true} {
		t.Run(name, func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			defer w.Close()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			quiet := 0
			p := NewPipe(ctx, r, func() {
				quiet++
				if interrupt {
					cancel()
				}
				w.WriteString("def")
				if !interrupt {
					w.Close()
				}
			})
			w.WriteString("abc")
			got, err := io.ReadAll(p)
			if string(got) != "abcdef" || quiet != 1 {
				t.Errorf("read %q, quiet %d times; want abcdef, once", got, quiet)
			}
			if interrupt != errors.Is(err, context.Canceled) || !interrupt && err != nil {
				t.Errorf("ended with %v", err)
			}
		})
	}
}

// A writer that goes on writing does not keep an interrupted reader.
func TestPipeFlood(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 4096)
		for {
			if _, err := w.Write(b); err != nil {
				return // the reader is gone
			}
		}
	}()
	p := NewPipe(ctx, r, nil)
	p.grace = 0
	cancel()
	if _, err := io.Copy(io.Discard, p); !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	r.Close()
	<-done
	w.Close()
}
