package agent

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"vpnprobe/config"
	"vpnprobe/diagnosis"
)

// A file that is followed is reported on again whenever the diagnosis is
// another, through growth and replacement.
func TestOfflineFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "wan.pcap")
	write := func(b []byte) {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		f.Write(b)
	}
	healthy := bothWays(tapeHost, tapePeer, 600, tapeBegin)
	oneWay := espFrames(tapeHost, tapePeer, 0x1111, 1500, tapeBegin.Add(time.Minute))
	for i := range oneWay {
		binary.BigEndian.PutUint32(oneWay[i].Data[24:], uint32(601+i))
	}
	write(classicFile(healthy[:100]...))
	var h heard
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			time.Sleep(10 * time.Second)
			write(classicFrames(healthy[100:]...))
			time.Sleep(10 * time.Second)
			os.Rename(path, path+".old")
			write(classicFile(oneWay[:750]...))
			time.Sleep(10 * time.Second)
			os.Truncate(path, 0)
			time.Sleep(10 * time.Second)
			write(classicFile(oneWay[750:]...))
			time.Sleep(10 * time.Second)
			cancel()
		}()
		if err := h.run(ctx, Offline{Path: path, Peer: tapePeer, Follow: true, Last: time.Minute}, config.Default()); err != nil {
			t.Error(err)
		}
	})
	if len(h.Notes) != 2 || !strings.Contains(h.Notes[0], "replaced") || !strings.Contains(h.Notes[1], "cut") {
		t.Errorf("noted %q", h.Notes)
	}
	var labels []diagnosis.Label
	for i, r := range h.Reports {
		labels = append(labels, r.Diagnosis())
		if i > 0 && i < len(h.Reports)-1 && gist(r) == gist(h.Reports[i-1]) {
			t.Errorf("report %d says the same as the one before: %s", i, gist(r))
		}
	}
	if len(labels) < 2 || labels[0] != diagnosis.OK || labels[len(labels)-1] == diagnosis.OK {
		t.Errorf("diagnoses %v, want ok at first and something else at last", labels)
	}
	last := h.Reports[len(h.Reports)-1]
	if last.Duration < time.Minute || last.Duration > 70*time.Second {
		t.Errorf("the last report is on %v, want a minute", last.Duration)
	}
}

// What happens at the end of a followed capture is reported as it happens, the
// last report is on the last packet, and a line says from time to time how it
// stands.
func TestOfflineFollowEnd(t *testing.T) {
	file := classicFile(lossyEnd(20)...)
	var h heard
	if err := h.run(t.Context(), Offline{Stdin: piped(t, file), Peer: tapePeer, Follow: true, Last: 10 * time.Minute}, config.Default()); err != nil {
		t.Fatal(err)
	}
	end := tapeBegin.Add(10 * time.Minute)
	n := len(h.Reports)
	if n != 3 || h.Reports[0].Diagnosis() != diagnosis.OK || h.Reports[1].Diagnosis() != "underlay_loss" || h.Reports[2].Diagnosis() != "underlay_loss" {
		t.Fatalf("%d reports, the last of them %s", n, h.Reports[n-1].Diagnosis())
	}
	if during := h.Reports[1].Time.Sub(end); during < 0 || during > 18*time.Second {
		t.Errorf("the losses were reported %v after they began", during)
	}
	if last := h.Reports[2].Time; last.Sub(end) < 19*time.Second {
		t.Errorf("the last report is of %v", last)
	}
}

func TestOfflineStatus(t *testing.T) {
	path := filepath.Join(t.TempDir(), "wan.pcap")
	if err := os.WriteFile(path, classicFile(bothWays(tapeHost, tapePeer, 200, tapeBegin)...), 0o600); err != nil {
		t.Fatal(err)
	}
	var h heard
	var lines []string
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 35*time.Second)
		defer cancel()
		o := Offline{Path: path, Peer: tapePeer, Follow: true, Last: time.Minute, Status: func(s string) { lines = append(lines, s) }}
		if err := h.run(ctx, o, config.Default()); err != nil {
			t.Error(err)
		}
	})
	if len(h.Reports) != 2 || len(lines) != 3 {
		t.Fatalf("%d reports, told %q", len(h.Reports), lines)
	}
	const want = "2026-03-01 12:00:19Z ok: in the last 10 s 105 ESP in, 104 ESP out; nothing came for 30 s since"
	if lines[2] != want {
		t.Errorf("told %q, want %q", lines[2], want)
	}
}
