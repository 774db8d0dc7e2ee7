package ike

import (
	"bytes"
	"testing"
)

func TestNATKeepalive(t *testing.T) {
	for in, want := range map[string]bool{"\xff": true, "": false, "\xff\xff": false, "\x00": false} {
		if IsNATKeepalive([]byte(in)) != want {
			t.Errorf("IsNATKeepalive(%q) is not %v", in, want)
		}
	}
}

func TestTCP(t *testing.T) {
	b := AppendTCP([]byte(TCPPrefix), []byte("message"))
	if want := "IKETCP\x00\x0d\x00\x00\x00\x00message"; string(b) != want {
		t.Errorf("got %q, want %q", b, want)
	}
	// A message, ESP, a keepalive and an empty frame, as they come byte by byte.
	stream := AppendTCP(nil, []byte("message"))
	stream = append(stream, "\x00\x05esp\x00\x03\xff\x00\x02"...)
	var frames [][]byte
	var pending []byte
	for _, c := range stream {
		pending = append(pending, c)
		frame, rest, err := CutTCP(pending)
		if err != nil {
			t.Fatal(err)
		}
		if frame != nil {
			frames, pending = append(frames, bytes.Clone(frame)), rest
		}
	}
	if got := bytes.Join(frames, []byte("|")); string(got) != "\x00\x00\x00\x00message|esp|\xff|" || len(pending) != 0 {
		t.Errorf("got %q and %q left", got, pending)
	}
	if m, ok := CutNonESPMarker(frames[0]); !ok || string(m) != "message" {
		t.Errorf("first frame holds %q, %v", m, ok)
	}
	for _, bad := range []string{"\x00\x00more", "\x00\x01"} {
		if _, rest, err := CutTCP([]byte(bad)); err == nil || string(rest) != bad {
			t.Errorf("%q: %q, %v", bad, rest, err)
		}
	}
}
