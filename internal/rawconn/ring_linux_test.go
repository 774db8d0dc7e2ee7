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
// itself only if it is not to be ignored.
func TestRingIgnoreOutgoing(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		for _, c := range []string{"sysctl -qw net.ipv6.conf.default.disable_ipv6=1", "ip link add wan type veth peer name isp",
			"ip link set dev wan arp off up", "ip link set dev isp arp off up"} {
			if !run(t, c) {
				return
			}
		}
		wan, isp := lookUp(t, "wan"), lookUp(t, "isp")
		if !wan.Up || wan.Driver != "veth" {
			t.Errorf("wan is %+v", wan)
		}
		before, err := DevicePackets("wan")
		if err != nil {
			t.Error(err)
		}
		for _, ignore := range []bool{false, true} {
			ring, err := OpenRing(wan, RingOptions{Filter: everything(t), IgnoreOutgoing: ignore})
			if err != nil {
				t.Error(err)
				return
			}
			send(t, wan, 'o')
			send(t, isp, 'i')
			want := "oi"
			if ignore {
				want = "i"
			}
			if got := frames(t, ring, len(want)); got != want {
				t.Errorf("ignoring outgoing frames is %v: got %q, want %q", ignore, got, want)
			}
			ring.Close()
		}
		if after, err := DevicePackets("wan"); err != nil || after != before+4 {
			t.Errorf("%d packets passed wan, then %d (%v): want 4 more", before, after, err)
		}
		if _, err := DevicePackets("nosuch"); !errors.Is(err, unix.ENODEV) {
			t.Errorf("packets of no device: %v, want ENODEV", err)
		}
	})
}

func lookUp(t *testing.T, name string) Device {
	dev, err := LookUpDevice(name)
	if err != nil {
		t.Error(err)
	}
	return dev
}

// send sends a frame with one letter in it.
func send(t *testing.T, dev Device, letter byte) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Error(err)
		return
	}
	defer unix.Close(fd)
	frame := make([]byte, 60)
	copy(frame, "\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x88\xb5") // an EtherType for experiments
	frame[14] = letter
	if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: dev.Index}); err != nil {
		t.Error(err)
	}
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
