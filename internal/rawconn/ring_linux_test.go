package rawconn

import (
	"encoding/binary"
	"errors"
	"iter"
	"os"
	"testing"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"vpnprobe/internal/netnstest"
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
	if _, err := OpenRing(Device{Index: 1, Ethernet: true}, RingOptions{}); err == nil {
		t.Error("opened a ring without a filter")
	}
	none, err := bpf.Assemble([]bpf.Instruction{bpf.RetConstant{}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenRing(Device{Index: 1 << 30}, RingOptions{Filter: none}); !errors.Is(err, unix.ENODEV) {
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

// everything is a filter that accepts whole frames.
func everything(t *testing.T) []bpf.RawInstruction {
	t.Helper()
	prog, err := bpf.Assemble([]bpf.Instruction{bpf.RetConstant{Val: 1 << 16}})
	if err != nil {
		t.Fatal(err)
	}
	return prog
}

// One side of a veth pair sees what the other sends come in, and what it sends
// itself go out.
func TestRingBothWays(t *testing.T) {
	netnstest.Thread(t)
	netnstest.Sysctl(t, "ipv6/conf/default/disable_ipv6", "1")
	netnstest.IP(t, "link add wan arp off type veth peer name isp arp off")
	netnstest.Up(t, "wan", "isp")
	wan := lookUp(t, "wan")
	if !wan.Up || wan.Driver != "veth" {
		t.Errorf("wan is %+v", wan)
	}
	before, err := DevicePackets("wan")
	if err != nil {
		t.Error(err)
	}
	ring, err := OpenRing(wan, RingOptions{Filter: everything(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer ring.Close()
	send(t, "wan", 'o')
	send(t, "isp", 'i')
	if got := frames(t, ring, 2); got != "oi" {
		t.Errorf("got %q, want \"oi\"", got)
	}
	if after, err := DevicePackets("wan"); err != nil || after != before+2 {
		t.Errorf("%d packets passed wan, then %d (%v): want 2 more", before, after, err)
	}
	if _, err := DevicePackets("nosuch"); !errors.Is(err, unix.ENODEV) {
		t.Errorf("packets of no device: %v, want ENODEV", err)
	}
}

func lookUp(t *testing.T, name string) Device {
	dev, err := LookUpDevice(name)
	if err != nil {
		t.Error(err)
	}
	return dev
}

// send sends a frame with one letter in it.
func send(t *testing.T, iface string, letter byte) {
	t.Helper()
	frame := make([]byte, 60)
	copy(frame, "\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x88\xb5") // an EtherType for experiments
	frame[14] = letter
	netnstest.Sender(t, iface)(frame)
}

// frames reads n frames and returns their letters; what is outgoing must be 'o'.
func frames(t *testing.T, ring *Ring, n int) string {
	var got []byte
	if err := ring.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Error(err)
	}
	for len(got) < n {
		err := ring.Read(func(list iter.Seq[Frame]) {
			for f := range list {
				got = append(got, f.Data[14])
				if f.Outgoing != (f.Data[14] == 'o') {
					t.Errorf("frame %q: outgoing is %v", f.Data[14], f.Outgoing)
				}
			}
		})
		if err != nil {
			t.Error(err)
			break
		}
	}
	return string(got)
}
