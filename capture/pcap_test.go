package capture

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"vpnprobe/evidence"
)

// classic writes frames, one second apart, as gopacket does.
func classic(t testing.TB, frames [][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := pcapgo.NewWriter(&b)
	if err := w.WriteFileHeader(65535, layers.LinkTypeEthernet); err != nil {
		t.Fatal(err)
	}
	for i, f := range frames {
		if err := w.WritePacket(infoOf(i, f), f); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func infoOf(i int, f []byte) gopacket.CaptureInfo {
	return gopacket.CaptureInfo{
		Timestamp:     epoch.Add(time.Duration(i) * time.Second),
		CaptureLength: len(f),
		Length:        len(f),
	}
}

func nextGeneration(t testing.TB, frames [][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := pcapgo.NewNgWriter(&b, layers.LinkTypeEthernet)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range frames {
		if err := w.WritePacket(infoOf(i, f), f); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// bigEndian turns a classic file of little-endian machines around.
func bigEndian(file []byte) []byte {
	b := slices.Clone(file)
	turn := func(off int, sizes ...int) {
		for _, n := range sizes {
			slices.Reverse(b[off : off+n])
			off += n
		}
	}
	turn(0, 4, 2, 2, 4, 4, 4, 4)
	for off := 24; off < len(file); {
		n := int(binary.LittleEndian.Uint32(file[off+8:]))
		turn(off, 4, 4, 4, 4)
		off += 16 + n
	}
	return b
}

func compress(file []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(file)
	z.Close()
	return b.Bytes()
}

// withLink replaces the link type of a classic file.
func withLink(file []byte, link LinkType) []byte {
	b := slices.Clone(file)
	binary.LittleEndian.PutUint32(b[20:], uint32(link))
	return b
}

func TestReadPcap(t *testing.T) {
	frames := caseFrames()
	var raw, sll2 [][]byte
	for _, f := range frames {
		raw = append(raw, f[14:])
		sll2 = append(sll2, cooked2(f[14:], 0))
	}
	want := expect(frames)
	for name, file := range map[string][]byte{
		"pcap":           classic(t, frames),
		"big-endian":     bigEndian(classic(t, frames)),
		"pcapng":         nextGeneration(t, frames),
		"gzip":           compress(classic(t, frames)),
		"pcapng in gzip": compress(nextGeneration(t, frames)),
		// The first section's interface is not that of the second.
		"two sections": slices.Concat(ngSection, ngBlock(ngInterface, 147, 0, 0, 0, 0, 0, 0, 0), nextGeneration(t, frames)),
		"raw":          withLink(classic(t, raw), LinkRaw),
		"raw of old":   withLink(classic(t, raw), 12),
		"cooked 2":     withLink(classic(t, sll2), LinkSLL2),
	} {
		t.Run(name, func(t *testing.T) {
			o := NewObserver(testPeers)
			if err := ReadPcap(bytes.NewReader(file), o); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, look(o), equateEmpty); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			c := o.Counts("p").Since(Counts{}, evidence.No)
			if over := c.Over.Duration(); !c.Conclusive() || c.Mode != evidence.CaptureFile || over != time.Duration(len(frames)-1)*time.Second {
				t.Errorf("mode %s, window %v", c.Mode, over)
			}
		})
	}
}

// ngBlock is a block of a little-endian pcapng file.
func ngBlock(typ uint32, body ...byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, typ)
	b = binary.LittleEndian.AppendUint32(b, uint32(12+len(body)))
	b = append(b, body...)
	return binary.LittleEndian.AppendUint32(b, uint32(12+len(body)))
}

var ngSection = ngBlock(magicNg, 0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255)

// The kinds of blocks that gopacket does not write.
func TestReadPcapngBlocks(t *testing.T) {
	packet := ip4(peer4, host4, 50, esp(1, 1, 8)) // 36 bytes
	device := ngBlock(ngInterface, 101, 0, 0, 0, 0, 0, 0, 0,
		9, 0, 1, 0, 0x80|10, 0, 0, 0, // 1024 units in a second
		14, 0, 8, 0, 100, 0, 0, 0, 0, 0, 0, 0) // 100 seconds to add
	enhanced := append([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 36, 0, 0, 0, 36, 0, 0, 0}, packet...)
	obsolete := append([]byte{0, 0, 9, 9, 0, 0, 0, 0, 0, 6, 0, 0, 36, 0, 0, 0, 36, 0, 0, 0}, packet...)
	simple := append([]byte{36, 0, 0, 0}, packet...)
	outbound := []byte{2, 0, 4, 0, 2, 0, 0, 0} // epb_flags
	for name, tc := range map[string]struct {
		blocks []byte
		want   uint64
		last   time.Time
	}{
		"enhanced": {ngBlock(ngEnhanced, enhanced...), 1, time.Unix(101, 5e8)},
		"obsolete": {ngBlock(ngPacket, obsolete...), 1, time.Unix(101, 5e8)},
		"simple":   {ngBlock(ngSimple, simple...), 1, time.Time{}},
		"unknown":  {ngBlock(0xbad, enhanced...), 0, time.Time{}},
		"in and out": {slices.Concat(ngBlock(ngEnhanced, enhanced...),
			ngBlock(ngEnhanced, slices.Concat(enhanced, outbound)...)), 1, time.Unix(101, 5e8)},
	} {
		o := NewObserver(testPeers)
		if err := ReadPcap(bytes.NewReader(slices.Concat(ngSection, device, tc.blocks)), o); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if c := o.Counts("p"); c.In.ESP.Packets != tc.want || !c.Time.Equal(tc.last) {
			t.Errorf("%s: %d packets until %v, want %d until %v", name, c.In.ESP.Packets, c.Time, tc.want, tc.last)
		}
	}
}

func TestReadPcapErrors(t *testing.T) {
	device := ngBlock(ngInterface, 1, 0, 0, 0, 0, 0, 0, 0)
	tooLong := classic(t, caseFrames())
	binary.LittleEndian.PutUint32(tooLong[24+8:], maxFileFrame+1)
	for name, tc := range map[string]struct {
		file []byte
		want string
	}{
		"empty":          {nil, "capture file: unexpected EOF"},
		"text":           {[]byte("this is not a capture file, but long"), "capture file: Unknown magic 73696874"},
		"header cut":     {classic(t, nil)[:20], "capture file: unexpected EOF"},
		"gzip cut":       {compress(classic(t, nil))[:12], "capture file: unexpected EOF"},
		"frame too long": {tooLong, "capture file: capture length exceeds snap length: 262145 > 262144"},
		"byte order":     {ngBlock(magicNg, 1, 2, 3, 4), "capture file: section of no known byte order"},
		"huge block":     {slices.Concat(ngSection, []byte{6, 0, 0, 0, 0xfc, 255, 255, 255}), "capture file: block of 4294967292 bytes"},
		"small section":  {ngBlock(magicNg, 0x4d, 0x3c, 0x2b, 0x1a), "capture file: block of 16 bytes"},
		"block of zero":  {slices.Concat(ngSection, make([]byte, 8)), "capture file: block of 0 bytes"},
		"no interface":   {slices.Concat(ngSection, ngBlock(ngEnhanced, make([]byte, 20)...)), "capture file: packet of interface 0, which is not described"},
		"longer than its block": {slices.Concat(ngSection, device, ngBlock(ngEnhanced, append(make([]byte, 12), 1, 0, 0, 0, 1, 0, 0, 0)...)),
			"capture file: packet of 1 bytes in a block of 20"},
		"too fine": {slices.Concat(ngSection, ngBlock(ngInterface, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0, 20, 0, 0, 0)),
			"capture file: interface with time stamps too fine to hold"},
	} {
		err := ReadPcap(bytes.NewReader(tc.file), NewObserver(testPeers))
		if err == nil || err.Error() != tc.want {
			t.Errorf("%s: %v, want %s", name, err, tc.want)
		}
	}
}

// A file that is cut anywhere counts what is whole, and says that it is cut
// unless that is between two frames.
func TestReadPcapCut(t *testing.T) {
	frame := eth(ip4(peer4, host4, 50, esp(1, 1, 72)))
	for name, format := range map[string]func(testing.TB, [][]byte) []byte{"pcap": classic, "pcapng": nextGeneration} {
		whole := map[int]uint64{} // packets by size of the file
		var frames [][]byte
		for n := range uint64(4) {
			whole[len(format(t, frames))] = n
			frames = append(frames, frame)
		}
		file := format(t, frames[:3])
		var packets uint64
		for size := len(format(t, nil)); size <= len(file); size++ {
			n, isWhole := whole[size]
			if isWhole {
				packets = n
			}
			o := NewObserver(testPeers)
			err := ReadPcap(bytes.NewReader(file[:size]), o)
			if isWhole && err != nil || !isWhole && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%s, %d bytes: %v", name, size, err)
			}
			if got := look(o).In.ESP.Packets; got != packets {
				t.Errorf("%s, %d bytes: counted %d, want %d", name, size, got, packets)
			}
		}
	}
}

func FuzzReadPcap(f *testing.F) {
	frames := caseFrames()[:4]
	f.Add(classic(f, frames))
	f.Add(bigEndian(classic(f, frames)))
	f.Add(nextGeneration(f, frames))
	f.Add(compress(nextGeneration(f, frames)))
	f.Fuzz(func(t *testing.T, file []byte) {
		o := NewObserver(testPeers)
		err := ReadPcap(bytes.NewReader(file), o)
		if err == nil && len(file) < 24 {
			t.Errorf("%d bytes make a file", len(file))
		}
	})
}
