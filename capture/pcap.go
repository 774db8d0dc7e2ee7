package capture

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
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

// PcapReader reads the frames of a recorded capture one by one, in the pcap or
// the pcapng format, compressed by gzip or not. It needs memory for one frame,
// whatever the file says of itself.
type PcapReader struct {
	r    io.Reader
	next func() (Frame, error) // nil until the format is known
	ng   *ngReader             // of pcapng
	err  error
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
	if p.ng == nil {
		return 0
	}
	return p.ng.dropped
}

// Begun reports whether the format of the capture is known by now: a file that
// is broken before has no beginning of a capture.
func (p *PcapReader) Begun() bool { return p.next != nil }

// Unfinished reports whether the capture is a recording of [Recorder] that is
// not finished: its recorder still runs, or was killed.
func (p *PcapReader) Unfinished() bool { return p.ng != nil && p.ng.unfinished }

// begin finds out the format.
func (p *PcapReader) begin() error {
	b := bufio.NewReaderSize(p.r, 64<<10)
	magic, err := b.Peek(4)
	if err != nil {
		return noEOF(err)
	}
	if binary.BigEndian.Uint16(magic) == magicGzip {
		z, err := newGunzip(b)
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
		p.next, p.ng = r.frame, r
		return nil
	case magicMicro, magicNano, magicMicroBig, magicNanoBig:
		p.next, err = classicFrames(b)
		return err
	}
	return fmt.Errorf("neither pcap nor pcapng: it begins with the bytes %x", magic)
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

// noEOF turns the end of the file within something into an error.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
