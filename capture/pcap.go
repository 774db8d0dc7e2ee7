package capture

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/google/gopacket/pcapgo"
)

// maxFileFrame is the longest frame that a capture file may hold, in bytes: the
// limit of Wireshark and tcpdump, which keeps a forged length from taking the
// memory.
const maxFileFrame = 256 << 10

// The first bytes of files, in network byte order.
const (
	magicNg   = 0x0a0d0d0a // a section header of pcapng; a palindrome
	magicGzip = 0x1f8b
)

// The first four bytes of a classic file, as a little-endian number: of
// microseconds and of nanoseconds, in both byte orders.
const (
	magicMicro    = 0xa1b2c3d4
	magicNano     = 0xa1b23c4d
	magicMicroBig = 0xd4c3b2a1
	magicNanoBig  = 0x4d3cb2a1
)

// PcapReader reads the frames of a recorded capture one by one, in the pcap or
// the pcapng format, compressed by gzip or not. It needs memory for one frame,
// whatever the file says of itself.
type PcapReader struct {
	r       io.Reader
	next    func() (Frame, error) // nil until the format is known
	dropped *uint64
	err     error
}

// NewPcapReader returns a reader of a capture. Nothing is read before
// [PcapReader.Next].
func NewPcapReader(r io.Reader) *PcapReader { return &PcapReader{r: r} }

// Next returns the next frame, whose data is good until the next call. At the
// end of the capture it returns io.EOF. A capture that ends within a frame, as
// one does whose writer was killed, gives an error that wraps
// io.ErrUnexpectedEOF. After an error it returns the same error again.
func (p *PcapReader) Next() (Frame, error) {
	if p.next == nil && p.err == nil {
		p.err = p.begin()
	}
	if p.err != nil {
		return Frame{}, p.err
	}
	f, err := p.next()
	if err != nil {
		p.err = err
		return Frame{}, err
	}
	return f, nil
}

// Dropped returns how many packets the writer of the capture missed, as far as
// the file tells and was read: only pcapng can tell, and most writers do so at
// the end.
func (p *PcapReader) Dropped() uint64 {
	if p.dropped == nil {
		return 0
	}
	return *p.dropped
}

// begin finds out the format.
func (p *PcapReader) begin() error {
	b := bufio.NewReaderSize(p.r, 64<<10)
	magic, err := b.Peek(4)
	if err != nil {
		return noEOF(err)
	}
	if binary.BigEndian.Uint16(magic) == magicGzip {
		z, err := gzip.NewReader(b)
		if err != nil {
			return noEOF(err)
		}
		b = bufio.NewReaderSize(z, 64<<10)
		if magic, err = b.Peek(4); err != nil {
			return noEOF(err)
		}
	}
	switch binary.LittleEndian.Uint32(magic) {
	case magicNg:
		r := &ngReader{r: b}
		p.next, p.dropped = r.frame, &r.dropped
		return nil
	case magicMicro, magicNano, magicMicroBig, magicNanoBig:
		p.next, err = classicFrames(b)
		return err
	}
	return fmt.Errorf("neither pcap nor pcapng: it begins with the bytes %x", magic)
}

// ReadPcap shows the frames of a recorded capture, as [PcapReader] reads them.
// Those before an error are shown.
func ReadPcap(r io.Reader, show func(Frame)) error {
	p := NewPcapReader(r)
	for {
		f, err := p.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("capture file: %w", err)
		}
		show(f)
	}
}

// classicFrames returns what reads the frames of a classic file.
func classicFrames(b *bufio.Reader) (func() (Frame, error), error) {
	// pcapgo keeps only 8 bits of the link type: too few for LinkSLL2.
	header, err := b.Peek(24)
	if err != nil {
		return nil, noEOF(err)
	}
	big := header[0] == 0xa1
	link := fileLink(uint32At(header[20:], big))
	r, err := pcapgo.NewReader(b)
	if err != nil {
		return nil, err
	}
	// Some writers state no limit, or one that they do not keep.
	r.SetSnaplen(maxFileFrame)
	return func() (Frame, error) {
		frame, info, err := r.ZeroCopyReadPacketData()
		if err == io.EOF && info.CaptureLength == 0 {
			return Frame{}, io.EOF // between frames
		}
		if err != nil {
			return Frame{}, noEOF(err)
		}
		return Frame{Data: frame, Link: link, WireLen: info.Length, Time: info.Timestamp}, nil
	}, nil
}

// fileLink is the link type in the header of a file, whose upper bits hold
// other things, and which some systems write by their own numbers.
func fileLink(v uint32) LinkType {
	switch v &= 0xffff; v {
	case 12, 14: // DLT_RAW
		return LinkRaw
	}
	return LinkType(v)
}

func uint32At(b []byte, big bool) uint32 {
	if big {
		return binary.BigEndian.Uint32(b)
	}
	return binary.LittleEndian.Uint32(b)
}

// noEOF turns the end of the file within something into an error.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
