package capture

import (
	"encoding/binary"
	"time"
	"unicode/utf8"
)

// The blocks of a recording, each appended to a buffer in little-endian order
// (draft-ietf-opsawg-pcapng, sections 3 and 4).

// ngHead is the room for the section header and its comment, in bytes. A comment
// that is known only at the end takes the place of the first one, and what is
// left of the room is a block that readers pass over.
const ngHead = 16 << 10

// ngFiller is the type of that block: one of those for local use, which have
// the highest bit set.
const ngFiller = 0x80000001

// appendHead appends a section header of ngHead bytes, with its filler. A
// comment that is too long is cut.
func appendHead(b []byte, app, comment string) []byte {
	const (
		fixed  = 12 + 16 // the block's frame, byte order, version, length
		around = 3*4 + 3 + 3
	)
	begin := len(b)
	room := ngHead - fixed - around - 12 - len(app)
	b = binary.LittleEndian.AppendUint32(b, magicNg)
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint32(b, ngByteOrder)
	b = binary.LittleEndian.AppendUint16(b, 1) // version 1.0
	b = binary.LittleEndian.AppendUint16(b, 0)
	b = binary.LittleEndian.AppendUint64(b, 1<<64-1) // length of the section: not stated
	b = appendOption(b, ngOptionComment, []byte(cut(comment, room)))
	b = appendOption(b, ngOptionApp, []byte(app))
	b = endBlock(appendOption(b, ngOptionEnd, nil), begin)

	filler := len(b)
	b = binary.LittleEndian.AppendUint32(b, ngFiller)
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = append(b, make([]byte, ngHead-(len(b)-begin)-4)...)
	return endBlock(b, filler)
}

// cut shortens a text to a number of bytes, between two characters.
func cut(s string, room int) string {
	const more = " ..."
	if len(s) <= room {
		return s
	}
	n := room - len(more)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + more
}

// appendInterface appends the description of an interface whose time stamps are
// in nanoseconds.
func appendInterface(b []byte, link LinkType, name string) []byte {
	begin := len(b)
	b = binary.LittleEndian.AppendUint32(b, ngInterface)
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint16(b, uint16(link))
	b = binary.LittleEndian.AppendUint16(b, 0)
	b = binary.LittleEndian.AppendUint32(b, 0) // no limit of the length
	if name != "" {
		b = appendOption(b, ngOptionName, []byte(name[:min(len(name), maxNgName)]))
	}
	b = appendOption(b, ngOptionTsRes, []byte{9})
	return endBlock(appendOption(b, ngOptionEnd, nil), begin)
}

// appendPacket appends the first n bytes of a frame.
func appendPacket(b []byte, device int, f Frame, outgoing bool, n int) []byte {
	flags := uint32(ngInbound)
	if outgoing {
		flags = ngOutbound
	}
	begin := len(b)
	b = binary.LittleEndian.AppendUint32(b, ngEnhanced)
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(device))
	b = appendTime(b, f.Time)
	b = binary.LittleEndian.AppendUint32(b, uint32(n))
	b = binary.LittleEndian.AppendUint32(b, uint32(max(f.WireLen, len(f.Data))))
	b = pad(append(b, f.Data[:n]...), begin)
	b = appendOption(b, ngOptionFlags, binary.LittleEndian.AppendUint32(nil, flags))
	return endBlock(appendOption(b, ngOptionEnd, nil), begin)
}

// appendStatistics appends the counts of one interface.
func appendStatistics(b []byte, device int, from, to time.Time, received, dropped uint64) []byte {
	begin := len(b)
	b = binary.LittleEndian.AppendUint32(b, ngStatistics)
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(device))
	b = appendTime(b, to)
	b = appendOption(b, ngOptionBegan, appendTime(nil, from))
	b = appendOption(b, ngOptionEnded, appendTime(nil, to))
	b = appendOption(b, ngOptionReceived, binary.LittleEndian.AppendUint64(nil, received))
	b = appendOption(b, ngOptionIfDrop, binary.LittleEndian.AppendUint64(nil, dropped))
	return endBlock(appendOption(b, ngOptionEnd, nil), begin)
}

func appendTime(b []byte, t time.Time) []byte {
	stamp := uint64(t.UnixNano())
	b = binary.LittleEndian.AppendUint32(b, uint32(stamp>>32))
	return binary.LittleEndian.AppendUint32(b, uint32(stamp))
}

func appendOption(b []byte, code uint16, value []byte) []byte {
	begin := len(b)
	b = binary.LittleEndian.AppendUint16(b, code)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(value)))
	return pad(append(b, value...), begin)
}

// pad fills up to a multiple of four bytes from begin on.
func pad(b []byte, begin int) []byte {
	for (len(b)-begin)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// endBlock writes the length of the block at its beginning and its end.
func endBlock(b []byte, begin int) []byte {
	size := uint32(len(b) - begin + 4)
	binary.LittleEndian.PutUint32(b[begin+4:], size)
	return binary.LittleEndian.AppendUint32(b, size)
}
