package rawconn

import (
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

func TestLookUpDevice(t *testing.T) {
	dev, err := LookUpDevice("lo")
	if err != nil || dev.Index == 0 || !dev.Ethernet {
		t.Errorf("lo: %+v, %v", dev, err)
	}
	for name, want := range map[string]string{
		"nosuch":                "interface nosuch: no such device",
		"longer than any other": `interface "longer than any other": not a possible name`,
	} {
		if _, err := LookUpDevice(name); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
	if _, err := LookUpDevice("nosuch"); !errors.Is(err, unix.ENODEV) {
		t.Errorf("%v is not ENODEV", err)
	}
}

func TestOpenRingErrors(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, for packet sockets")
	}
	if _, err := OpenRing(Device{Index: 1, Ethernet: true}, nil); err == nil {
		t.Error("opened a ring without a filter")
	}
	none, err := bpf.Assemble([]bpf.Instruction{bpf.RetConstant{}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenRing(Device{Index: 1 << 30}, none); !errors.Is(err, unix.ENODEV) {
		t.Errorf("ring on no device: %v, want ENODEV", err)
	}
}

// buildBlock lays out a block of frames of the given lengths.
func buildBlock(lengths ...int) block {
	const first = 48
	b := make(block, 4096)
	binary.NativeEndian.PutUint32(b[descriptor+4:], uint32(len(lengths)))
	binary.NativeEndian.PutUint32(b[descriptor+8:], first)
	off := first
	for i, n := range lengths {
		next := 96 + (n+15)&^15
		if i == len(lengths)-1 {
			next = 0
		}
		h := b[off:]
		for j, v := range []int{next, 1_700_000_000, i, n, 1500} {
			binary.NativeEndian.PutUint32(h[4*j:], uint32(v))
		}
		binary.NativeEndian.PutUint16(h[24:], 80) // where the frame begins
		h[unix.SizeofTpacket3Hdr+10] = unix.PACKET_OUTGOING
		if n > 0 {
			h[80] = byte(i + 1)
		}
		off += next
	}
	return b
}

func TestBlockFrames(t *testing.T) {
	var got []Frame
	for f := range buildBlock(10, 0, 100).frames {
		got = append(got, f)
	}
	if len(got) != 3 {
		t.Fatalf("%d frames, want 3", len(got))
	}
	for i, n := range []int{10, 0, 100} {
		f := got[i]
		if len(f.Data) != n || n > 0 && f.Data[0] != byte(i+1) || f.WireLen != 1500 || !f.Outgoing || f.Time.Nanosecond() != i {
			t.Errorf("frame %d: %+v", i, f)
		}
	}
	for range buildBlock(10, 10).frames {
		break // must not go on
	}
}

// Nothing in a block leads outside of it.
func FuzzBlockFrames(f *testing.F) {
	f.Add([]byte(buildBlock(10, 0, 100)))
	f.Add([]byte(buildBlock(1 << 20)))
	f.Fuzz(func(t *testing.T, data []byte) {
		b := make(block, 4096)
		copy(b, data)
		for frame := range b.frames {
			if len(frame.Data) > len(b) {
				t.Errorf("a frame of %d bytes", len(frame.Data))
			}
		}
	})
}
