package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"vpnprobe/capture"
	"vpnprobe/internal/agent"
	"vpnprobe/internal/netnstest"
)

// An interrupted recording has a report too, the same as the file's comment.
func TestRecordInterrupted(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	gateway(t)
	path := filepath.Join(t.TempDir(), "ticket.pcapng")
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	var stdout, stderr bytes.Buffer
	code := run(ctx, []string{"record", "--peer", "198.51.100.2", "--duration", "1m", "--format", "json", path}, &stdout, &stderr)
	r := decodeReport(t, stdout.Bytes())
	if code != exitUndecided || !strings.Contains(stderr.String(), "interrupted: the report is on the first") {
		t.Errorf("status %d, stderr %q", code, stderr.String())
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if comment := string(file[:4096]); !strings.Contains(comment, "interrupted; up to then:\n"+r.Diagnosis) {
		t.Errorf("the report says %s, the comment %q", r.Diagnosis, comment)
	}
}

// A recording on a full disk says where it ends, on standard error and in the
// file, and is readable.
func TestRecordFullDisk(t *testing.T) {
	if !netnstest.Child(t, func(a *syscall.SysProcAttr) { a.Unshareflags |= syscall.CLONE_NEWNS }) {
		return
	}
	send := gateway(t)
	disk := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=40k", "none", disk).CombinedOutput(); err != nil {
		t.Skipf("needs a small disk: mount: %v: %s", err, out)
	}
	defer exec.Command("umount", disk).Run()
	path := filepath.Join(disk, "ticket.pcapng")
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		b := make([]byte, 100)
		b[3] = 7
		for i := range 400 {
			b[6], b[7] = byte((i+1)>>8), byte(i+1)
			send(b, 50)
			time.Sleep(5 * time.Millisecond)
		}
	}()
	_, _, stderr := execute(t, "record", "--peer", "198.51.100.2", "--duration", "3s", path)
	<-sent
	const says = "not all could be written, it ends at 2"
	if !strings.Contains(stderr, says) {
		t.Errorf("stderr %q", stderr)
	}
	if file, err := os.ReadFile(path); err != nil || !strings.Contains(string(file[:8192]), says) {
		t.Errorf("the comment does not say where it ends: %v, %q", err, file[:min(len(file), 2000)])
	}
	if code, _, stderr := execute(t, "analyze", path); code == exitUsage || strings.Contains(stderr, "ends within") {
		t.Errorf("analyze: status %d, stderr %q", code, stderr)
	}
}

func TestShortcomings(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	full := errors.New("no space left on device")
	for want, rec := range map[string]capture.Recorded{
		"": {Frames: 5, Until: at},
		"full: it ends at 2026-03-01T12:00:00Z; --max-size would let it grow":                {Frames: 5, Until: at, Full: true},
		"not all could be written, it ends at 2026-03-01T12:00:00Z: no space left on device": {Frames: 5, Until: at, Err: full},
		"not all could be written, none of it is there: no space left on device":             {Err: full},
	} {
		if got := strings.Join(shortcomings(agent.Recorded{Recorded: rec}), "\n"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
