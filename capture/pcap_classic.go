package capture

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/google/gopacket/pcapgo"
)

// The first four bytes of a classic file, as a little-endian number: of
// microseconds and of nanoseconds, in both byte orders.
const (
	magicMicro    = 0xa1b2c3d4
	magicNano     = 0xa1b23c4d
	magicMicroBig = 0xd4c3b2a1
	magicNanoBig  = 0x4d3cb2a1
)

// classicFrames returns what reads the frames of a classic file
// (draft-ietf-opsawg-pcap, sections 4 and 5).
func classicFrames(b *bufio.Reader) (func() (Frame, error), error) {
	// magic (4), version (2, 2), reserved (8), snapshot length (4), link (4)
	header, err := b.Peek(24)
	if err != nil {
		return nil, noEOF(err)
	}
	var order binary.ByteOrder = binary.LittleEndian
	if magic := binary.LittleEndian.Uint32(header); magic == magicMicroBig || magic == magicNanoBig {
		order = binary.BigEndian
	}
	if major, minor := order.Uint16(header[4:]), order.Uint16(header[6:]); major != 2 || minor != 4 {
		return nil, fmt.Errorf("pcap of version %d.%d: want 2.4", major, minor)
	}
	link := fileLink(order.Uint32(header[20:])) // pcapgo keeps only 8 bits of it
	r, err := pcapgo.NewReader(b)
	if err != nil {
		return nil, err
	}
	// Some writers state no limit, or one that they do not keep.
	r.SetSnaplen(maxFileFrame)
	return func() (Frame, error) {
		// seconds (4), fraction (4), captured (4), original length (4), data
		if record, err := b.Peek(16); err == nil {
			switch captured, wire := order.Uint32(record[8:]), order.Uint32(record[12:]); {
			case captured > maxFileFrame:
				return Frame{}, fmt.Errorf("packet of %d bytes: want at most %d", captured, maxFileFrame)
			case captured > wire:
				return Frame{}, fmt.Errorf("%d bytes of a packet of %d", captured, wire)
			}
		}
		frame, info, err := r.ZeroCopyReadPacketData()
		if err == io.EOF && info.CaptureLength == 0 {
			return Frame{}, io.EOF // between frames
		}
		if err != nil {
			return Frame{}, noEOF(err)
		}
		return Frame{Data: frame, Link: link, WireLen: info.Length, Time: info.Timestamp.UTC()}, nil
	}, nil
}
