package ike

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

// capturedMessage is an IKE message of a capture in testdata.
type capturedMessage struct {
	file    string
	frame   int // counted from 1
	message []byte
}

// captured returns the IKE messages of all captures in testdata.
func captured(t testing.TB) []capturedMessage {
	t.Helper()
	files, err := filepath.Glob("testdata/*.pcap")
	if err != nil || len(files) == 0 {
		t.Fatalf("no captures: %v", err)
	}
	var list []capturedMessage
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, frame := range pcapFrames(t, b) {
			if m, ok := ikeMessage(frame); ok {
				list = append(list, capturedMessage{file, i + 1, m})
			}
		}
	}
	return list
}

// pcapFrames returns the frames of a little-endian capture.
func pcapFrames(t testing.TB, b []byte) [][]byte {
	t.Helper()
	const fileHeader, recordHeader = 24, 16
	if len(b) < fileHeader || binary.LittleEndian.Uint32(b) != 0xa1b2c3d4 {
		t.Fatal("not a capture in little-endian microseconds")
	}
	var frames [][]byte
	for b = b[fileHeader:]; len(b) >= recordHeader; {
		n := int(binary.LittleEndian.Uint32(b[8:]))
		frames = append(frames, b[recordHeader:recordHeader+n])
		b = b[recordHeader+n:]
	}
	return frames
}

// ikeMessage returns the IKE message of an Ethernet frame with IPv4 and UDP.
func ikeMessage(frame []byte) ([]byte, bool) {
	const ethernet, udp = 14, 8
	if len(frame) < ethernet+20+udp || binary.BigEndian.Uint16(frame[12:]) != 0x0800 {
		return nil, false
	}
	ip := frame[ethernet:]
	ip = ip[:binary.BigEndian.Uint16(ip[2:])] // without the padding of Ethernet
	if ip[9] != 17 {
		return nil, false
	}
	b := ip[int(ip[0]&0x0f)*4:]
	from, to := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	if from == 4500 || to == 4500 {
		return CutNonESPMarker(b[udp:])
	}
	return b[udp:], from == 500 || to == 500
}

// What daemons sent can be read, every payload of it, and is the same when it
// is built again.
func TestCaptures(t *testing.T) {
	versions := make(map[Version]int)
	for _, c := range captured(t) {
		m, err := Parse(c.message)
		if err != nil {
			t.Errorf("%s, frame %d: %v", c.file, c.frame, err)
			continue
		}
		versions[m.Version]++
		built := m.Append(nil)
		if pad := len(c.message) - len(built); pad > 0 && m.Version == V1 {
			built = append(built, make([]byte, pad)...)
			binary.BigEndian.PutUint32(built[24:], uint32(len(built)))
		}
		if string(built) != string(c.message) {
			t.Errorf("%s, frame %d: % x became % x", c.file, c.frame, c.message, built)
		}
		for _, p := range m.Payloads {
			if _, built, known, err := parseBody(p); err != nil {
				t.Errorf("%s, frame %d: %v payload: %v", c.file, c.frame, p.Type, err)
			} else if known && string(built.Body) != string(p.Body) {
				t.Errorf("%s, frame %d: %v payload % x became % x", c.file, c.frame, p.Type, p.Body, built.Body)
			}
		}
	}
	if versions[V1] == 0 || versions[V2] == 0 {
		t.Errorf("messages by version: %v", versions)
	}
}
