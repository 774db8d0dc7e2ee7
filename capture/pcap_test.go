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
)

// classic writes frames as gopacket does.
func classic(t testing.TB, frames []Frame) []byte {
	t.Helper()
	var b bytes.Buffer
	w := pcapgo.NewWriter(&b)
	if err := w.WriteFileHeader(65535, layers.LinkTypeEthernet); err != nil {
		t.Fatal(err)
	}
	for _, f := range frames {
		if err := w.WritePacket(infoOf(f), f.Data); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func infoOf(f Frame) gopacket.CaptureInfo {
	return gopacket.CaptureInfo{Timestamp: f.Time, CaptureLength: len(f.Data), Length: f.WireLen}
}

func nextGeneration(t testing.TB, frames []Frame) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := pcapgo.NewNgWriter(&b, layers.LinkTypeEthernet)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range frames {
		if err := w.WritePacket(infoOf(f), f.Data); err != nil {
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

// readAll returns copies of a capture's frames.
func readAll(file []byte) ([]Frame, error) {
	var out []Frame
	err := readPcap(bytes.NewReader(file), func(f Frame) {
		f.Data = slices.Clone(f.Data)
		out = append(out, f)
	})
	return out, err
}

func TestReadPcap(t *testing.T) {
	frames := builtFrames(t)
	var raw []Frame
	for i := range frames {
		frames[i].Outgoing = false // gopacket writes no directions
		f := frames[i]
		f.Data, f.Link, f.WireLen = f.Data[14:], LinkRaw, f.WireLen-14
		raw = append(raw, f)
	}
	cut := slices.Clone(frames)
	for i := range cut {
		cut[i].Data = cut[i].Data[:40]
	}
	named := func(link LinkType, name string, frames []Frame) []Frame {
		out := slices.Clone(frames)
		for i := range out {
			out[i].Link, out[i].Interface = link, name
		}
		return out
	}
	for name, tc := range map[string]struct {
		file []byte
		want []Frame
	}{
		"pcap":           {classic(t, frames), frames},
		"empty":          {classic(t, nil), nil},
		"big-endian":     {bigEndian(classic(t, frames)), frames},
		"cut frames":     {classic(t, cut), cut},
		"pcapng":         {nextGeneration(t, frames), named(LinkEthernet, "intf0", frames)},
		"gzip":           {compress(classic(t, frames)), frames},
		"pcapng in gzip": {compress(nextGeneration(t, frames)), named(LinkEthernet, "intf0", frames)},
		// The first section's interface is not that of the second.
		"two sections":      {slices.Concat(ngSection, ngBlock(ngInterface, 147, 0, 0, 0, 0, 0, 0, 0), nextGeneration(t, frames)), named(LinkEthernet, "intf0", frames)},
		"raw":               {withLink(classic(t, raw), LinkRaw), raw},
		"raw of old":        {withLink(classic(t, raw), 12), raw},
		"link of many bits": {withLink(classic(t, frames), LinkSLL2), named(LinkSLL2, "", frames)},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := readAll(tc.file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
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

// ngCount is an option of eight bytes.
func ngCount(code byte, n uint64) []byte {
	return binary.LittleEndian.AppendUint64([]byte{code, 0, 8, 0}, n)
}

// The kinds of blocks that gopacket does not write.
func TestReadPcapngBlocks(t *testing.T) {
	packet := builtIP(t, filePeer, fileHost, layers.IPProtocolESP, builtESP(1, 1, 8)) // 36 bytes
	device := ngBlock(ngInterface, 101, 0, 0, 0, 0, 0, 0, 0,
		9, 0, 1, 0, 0x80|10, 0, 0, 0, // 1024 units in a second
		14, 0, 8, 0, 100, 0, 0, 0, 0, 0, 0, 0) // 100 seconds to add
	named := ngBlock(ngInterface, 101, 0, 0, 0, 0, 0, 0, 0, 2, 0, 4, 0, 'w', 'a', 'n', '1', 0, 0, 0, 0)
	enhanced := append([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 36, 0, 0, 0, 36, 0, 0, 0}, packet...)
	second := append([]byte{1}, enhanced[1:]...)
	obsolete := append([]byte{0, 0, 9, 0, 0, 0, 0, 0, 0, 6, 0, 0, 36, 0, 0, 0, 36, 0, 0, 0}, packet...)
	unknown := append([]byte{0, 0, 255, 255}, obsolete[4:]...)
	simple := append([]byte{36, 0, 0, 0}, packet...)
	flags := func(n byte) []byte { return []byte{2, 0, 4, 0, n, 0, 0, 0} }
	statistics := func(options ...byte) []byte { return ngBlock(ngStatistics, append(make([]byte, 12), options...)...) }

	at := time.Unix(101, 5e8).UTC()
	frame := Frame{Data: packet, Link: LinkRaw, WireLen: 36, Time: at}
	outgoing := frame
	outgoing.Outgoing = true
	wan := frame
	wan.Interface, wan.Time = "wan1", time.Unix(0, 1536000).UTC()
	timeless := frame
	timeless.Time = time.Time{}
	for name, tc := range map[string]struct {
		blocks  [][]byte
		want    []Frame
		dropped uint64
	}{
		"enhanced":           {[][]byte{ngBlock(ngEnhanced, enhanced...)}, []Frame{frame}, 0},
		"obsolete":           {[][]byte{ngBlock(ngPacket, obsolete...)}, []Frame{frame}, 9},
		"obsolete, unknown":  {[][]byte{ngBlock(ngPacket, unknown...)}, []Frame{frame}, 0},
		"simple":             {[][]byte{ngBlock(ngSimple, simple...)}, []Frame{timeless}, 0},
		"simple after":       {[][]byte{ngBlock(ngEnhanced, enhanced...), ngBlock(ngSimple, simple...)}, []Frame{frame, frame}, 0},
		"unknown":            {[][]byte{ngBlock(0xbad, enhanced...), ngBlock(ngFiller, enhanced...)}, nil, 0},
		"inbound":            {[][]byte{ngBlock(ngEnhanced, slices.Concat(enhanced, flags(ngInbound))...)}, []Frame{frame}, 0},
		"outbound":           {[][]byte{ngBlock(ngEnhanced, slices.Concat(enhanced, flags(ngOutbound))...)}, []Frame{outgoing}, 0},
		"by name":            {[][]byte{named, ngBlock(ngEnhanced, second...)}, []Frame{wan}, 0},
		"lost between":       {[][]byte{ngBlock(ngEnhanced, slices.Concat(enhanced, ngCount(ngOptionLost, 3))...), ngBlock(ngEnhanced, slices.Concat(enhanced, ngCount(ngOptionLost, 4))...)}, []Frame{frame, frame}, 7},
		"statistics":         {[][]byte{statistics(slices.Concat(ngCount(ngOptionIfDrop, 5), ngCount(ngOptionOSDrop, 6))...)}, nil, 11},
		"statistics again":   {[][]byte{statistics(ngCount(ngOptionIfDrop, 5)...), statistics(ngCount(ngOptionIfDrop, 8)...)}, nil, 8},
		"statistics of less": {[][]byte{statistics(ngCount(ngOptionIfDrop, 5)...), statistics(ngCount(ngOptionIfDrop, 2)...)}, nil, 5},
		"told both ways":     {[][]byte{ngBlock(ngEnhanced, slices.Concat(enhanced, ngCount(ngOptionLost, 3))...), statistics(ngCount(ngOptionIfDrop, 5)...)}, []Frame{frame}, 5},
		"drops not known":    {[][]byte{statistics(ngCount(ngOptionIfDrop, 1<<64-1)...)}, nil, 0},
		"drops of no sense":  {[][]byte{statistics(slices.Concat(ngCount(ngOptionIfDrop, 1<<64-2), ngCount(ngOptionOSDrop, 1<<64-2))...)}, nil, 1<<64 - 1},
		"of no interface":    {[][]byte{ngBlock(ngStatistics, append([]byte{7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, ngCount(ngOptionIfDrop, 5)...)...)}, nil, 0},
		"two sections":       {[][]byte{statistics(ngCount(ngOptionIfDrop, 5)...), ngSection, device, statistics(ngCount(ngOptionIfDrop, 2)...)}, nil, 7},
	} {
		r := NewPcapReader(bytes.NewReader(slices.Concat(ngSection, device, slices.Concat(tc.blocks...))))
		var got []Frame
		var err error
		for err == nil {
			var f Frame
			if f, err = r.Next(); err == nil {
				f.Data = slices.Clone(f.Data)
				got = append(got, f)
			}
		}
		if err != io.EOF {
			t.Errorf("%s: %v", name, err)
		}
		if _, again := r.Next(); again != err {
			t.Errorf("%s: after the end: %v", name, again)
		}
		if diff := cmp.Diff(tc.want, got); diff != "" || r.Dropped() != tc.dropped {
			t.Errorf("%s: %d dropped, want %d; frames (-want +got):\n%s", name, r.Dropped(), tc.dropped, diff)
		}
	}
}

func TestReadPcapErrors(t *testing.T) {
	device := ngBlock(ngInterface, 1, 0, 0, 0, 0, 0, 0, 0)
	tooLong := classic(t, builtFrames(t))
	binary.LittleEndian.PutUint32(tooLong[24+8:], maxFileFrame+1)
	moreThanWas := classic(t, builtFrames(t))
	moreThanWas[24+8]++
	oldVersion := classic(t, nil)
	oldVersion[4] = 1
	damagedGzip := compress(classic(t, builtFrames(t)))
	for i := range damagedGzip[10:] {
		damagedGzip[10+i] = 0xff
	}
	for name, tc := range map[string]struct {
		file []byte
		want string
	}{
		"empty":          {nil, "capture file: unexpected EOF"},
		"text":           {[]byte("this is not a capture file, but long"), "capture file: neither pcap nor pcapng: it begins with the bytes 74686973"},
		"header cut":     {classic(t, nil)[:20], "capture file: unexpected EOF"},
		"gzip cut":       {compress(classic(t, nil))[:12], "capture file: unexpected EOF"},
		"gzip damaged":   {damagedGzip, "capture file: its compressed data is damaged"},
		"gzip header":    {[]byte{0x1f, 0x8b, 7, 0, 0, 0, 0, 0, 0, 0}, "capture file: its compressed data is damaged"},
		"version":        {oldVersion, "capture file: pcap of version 1.4: want 2.4"},
		"frame too long": {tooLong, "capture file: packet of 262145 bytes: want at most 262144"},
		"more than was":  {moreThanWas, "capture file: 115 bytes of a packet of 114"},
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
		err := readPcap(bytes.NewReader(tc.file), func(Frame) {})
		if err == nil || err.Error() != tc.want {
			t.Errorf("%s: %v, want %s", name, err, tc.want)
		}
	}
}

// A file that is cut anywhere shows what is whole, and says that it is cut
// unless that is between two frames.
func TestReadPcapCut(t *testing.T) {
	frames := builtFrames(t)
	for name, format := range map[string]func(testing.TB, []Frame) []byte{"pcap": classic, "pcapng": nextGeneration} {
		whole := map[int]int{} // frames by size of the file
		for n := range len(frames) + 1 {
			whole[len(format(t, frames[:n]))] = n
		}
		file := format(t, frames)
		want := 0
		for size := len(format(t, nil)); size <= len(file); size++ {
			n, isWhole := whole[size]
			if isWhole {
				want = n
			}
			got, err := readAll(file[:size])
			if isWhole && err != nil || !isWhole && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%s, %d bytes: %v", name, size, err)
			}
			if len(got) != want {
				t.Errorf("%s, %d bytes: %d frames, want %d", name, size, len(got), want)
			}
		}
	}
}

func FuzzReadPcap(f *testing.F) {
	frames := builtFrames(f)
	f.Add(classic(f, frames))
	f.Add(bigEndian(classic(f, frames)))
	f.Add(nextGeneration(f, frames))
	f.Add(compress(nextGeneration(f, frames)))
	peers := []Peer{{Name: "p", Addrs: append(normalize(nil), filePeer, filePeer6)}}
	f.Fuzz(func(t *testing.T, file []byte) {
		o := NewObserver(peers)
		var s Survey
		err := readPcap(bytes.NewReader(file), func(f Frame) {
			if len(f.Data) > maxFileFrame {
				t.Fatalf("frame of %d bytes", len(f.Data))
			}
			o.Packet(f)
			s.Packet(f)
		})
		if err == nil && len(file) < 24 {
			t.Errorf("%d bytes make a file", len(file))
		}
		o.Counts("p")
	})
}
