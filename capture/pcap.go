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

// ReadPcap shows a recorded capture to o, in the pcap or the pcapng format,
// compressed by gzip or not. The frames before an error are counted. A file
// that ends within a frame, as one does whose writer was killed, gives an error
// that wraps io.ErrUnexpectedEOF.
func ReadPcap(r io.Reader, o *Observer) error {
	b := bufio.NewReader(r)
	magic, err := b.Peek(4)
	if err != nil {
		return fmt.Errorf("capture file: %w", noEOF(err))
	}
	if binary.BigEndian.Uint16(magic) == magicGzip {
		z, err := gzip.NewReader(b)
		if err != nil {
			return fmt.Errorf("capture file: %w", noEOF(err))
		}
		b = bufio.NewReader(z)
		if magic, err = b.Peek(4); err != nil {
			return fmt.Errorf("capture file: %w", noEOF(err))
		}
	}
	if binary.BigEndian.Uint32(magic) == magicNg {
		err = readNg(b, o)
	} else {
		err = readClassic(b, o)
	}
	if err != nil {
		return fmt.Errorf("capture file: %w", err)
	}
	return nil
}

func readClassic(b *bufio.Reader, o *Observer) error {
	// pcapgo keeps only 8 bits of the link type: too few for LinkSLL2.
	header, err := b.Peek(24)
	if err != nil {
		return noEOF(err)
	}
	big := header[0] == 0xa1 // of magic numbers a1b2c3d4 and a1b23c4d
	link := fileLink(uint32At(header[20:], big))

	r, err := pcapgo.NewReader(b)
	if err != nil {
		return err
	}
	// Some writers state no limit, or one that they do not keep.
	r.SetSnaplen(maxFileFrame)
	for {
		frame, info, err := r.ZeroCopyReadPacketData()
		if err == io.EOF && info.CaptureLength == 0 {
			return nil // between frames
		}
		if err != nil {
			return noEOF(err)
		}
		o.Packet(frame, link, false, info.Length, info.Timestamp)
	}
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
