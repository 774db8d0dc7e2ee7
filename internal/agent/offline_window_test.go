package agent

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"time"

	"vpnprobe/capture"
	"vpnprobe/diagnosis"
)

// lossyEnd are ten minutes of a tunnel that works and so many seconds in which
// every eighth packet that comes in is missing, 20 ms apart.
func lossyEnd(seconds int) []capture.Frame {
	frames := bothWays(tapeHost, tapePeer, 6000, tapeBegin)
	at := tapeBegin.Add(10 * time.Minute)
	for i, f := range bothWays(tapeHost, tapePeer, 6000+50*seconds, tapeBegin)[2*6000:] {
		f.Time = at.Add(time.Duration(i) * 10 * time.Millisecond)
		if i%16 != 1 {
			frames = append(frames, f)
		}
	}
	return frames
}

// A capture of a tunnel that works at first and not at the end is not healthy;
// one that works again keeps its fault. Who asks for a window gets it.
func TestOfflineEnd(t *testing.T) {
	works := bothWays(tapeHost, tapePeer, 600, tapeBegin)
	gone := slices.Concat(works, espFrames(tapeHost, tapePeer, 0x3333, 300, tapeBegin.Add(time.Minute)))
	short := slices.Concat(works[:100], espFrames(tapeHost, tapePeer, 0x3333, 200, tapeBegin.Add(5*time.Second)))
	for name, tc := range map[string]struct {
		frames []capture.Frame
		last   time.Duration
		ok     bool
		note   string
	}{
		"works":              {works, 0, true, ""},
		"nothing comes":      {gone, 0, false, ""},
		"of a short one":     {short, 0, false, ""},
		"losses":             {lossyEnd(16), 0, false, "the report is on its last 1"},
		"losses, last":       {lossyEnd(16), time.Hour, true, " alone would read underlay_loss: --last 15s shows it"},
		"losses, last alone": {lossyEnd(16), 15 * time.Second, false, ""},
		"works again":        {slices.Concat(gone, bothWays(tapeHost, tapePeer, 20, tapeBegin.Add(90*time.Second))), 0, true, ""},
	} {
		var h heard
		if err := h.analyze(t, Offline{Peer: tapePeer, Last: tc.last}, nil, classicFile(tc.frames...)); err != nil {
			t.Fatal(err)
		}
		notes := strings.Join(h.Notes, "\n")
		if got := h.Reports[0].Diagnosis() == diagnosis.OK; got != tc.ok || !strings.Contains(notes, tc.note) || tc.note == "" && notes != "" {
			t.Errorf("%s: %s, noted %q", name, h.Reports[0].Diagnosis(), notes)
		}
	}
}

// fragments are the first fragments of n packets of ESP in UDP, and of so many of
// them the rest.
func fragments(n, later int) (out []capture.Frame) {
	for i := range n {
		b := make([]byte, 20+8+1472)
		b[0], b[8], b[9] = 0x45, 64, 17
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		binary.BigEndian.PutUint16(b[4:], uint16(i))
		b[6] = 0x20 // more fragments
		copy(b[12:], []byte{203, 0, 113, 2, 198, 51, 100, 2})
		binary.BigEndian.PutUint16(b[20:], 4500)
		binary.BigEndian.PutUint16(b[22:], 4500)
		binary.BigEndian.PutUint16(b[24:], 1600)
		b[31], b[35] = 9, byte(i+1) // SPI and number
		out = append(out, capture.Frame{Data: b, Link: capture.LinkRaw, WireLen: len(b), Time: tapeBegin.Add(time.Duration(i) * time.Second)})
		if i >= later {
			continue
		}
		rest := slices.Clone(b[:20+128])
		binary.BigEndian.PutUint16(rest[2:], uint16(len(rest)))
		binary.BigEndian.PutUint16(rest[6:], 1480/8)
		out = append(out, capture.Frame{Data: rest, Link: capture.LinkRaw, WireLen: len(rest), Time: tapeBegin.Add(time.Duration(i) * time.Second)})
	}
	return out
}

// A capture filter by port drops the later fragments of UDP, all of them: that
// makes no packet incomplete.
func TestOfflineFragments(t *testing.T) {
	for later, want := range map[int]uint64{0: 0, 1: 5, 6: 0} {
		var h heard
		if err := h.analyze(t, Offline{Peer: tapePeer}, nil, classicFile(fragments(6, later)...)); err != nil {
			t.Fatal(err)
		}
		f := h.Reports[0].Snapshot.Capture.Out.Fragments
		if f.Incomplete() != want {
			t.Errorf("%d later fragments: %+v", later, f)
		}
		if notes := strings.Join(h.Notes, ""); strings.Contains(notes, "6 packets of UDP 500 and 4500 are in fragments") != (later == 0) {
			t.Errorf("%d later fragments: noted %q", later, notes)
		}
	}
}
