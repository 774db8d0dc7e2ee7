package capture

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"time"
)

// Block types of pcapng (draft-ietf-opsawg-pcapng, section 4).
const (
	ngInterface  = 1
	ngPacket     = 2 // obsolete
	ngSimple     = 3
	ngStatistics = 5
	ngEnhanced   = 6
	ngByteOrder  = 0x1a2b3c4d
	maxNgBlock   = maxFileFrame + 64<<10
	maxNgDevices = 1 << 12
	maxNgName    = 64 // bytes of an interface's name
)

// Options of blocks. Those below 2 are the same in all blocks.
const (
	ngOptionEnd      = 0
	ngOptionComment  = 1
	ngOptionApp      = 4 // of a section: what wrote it
	ngOptionName     = 2 // of ngInterface
	ngOptionTsRes    = 9
	ngOptionTsOff    = 14
	ngOptionFlags    = 2 // of ngEnhanced
	ngOptionLost     = 4 // packets dropped since the one before
	ngOptionBegan    = 2 // of ngStatistics
	ngOptionEnded    = 3
	ngOptionReceived = 4
	ngOptionIfDrop   = 5 // by the interface for want of resources
	ngOptionOSDrop   = 7 // by the operating system
)

// The direction of a packet, in the lowest two bits of its flags.
const (
	ngInbound  = 1
	ngOutbound = 2
)

// ngReader reads the packets of a pcapng file. It is our own because pcapgo's
// indexes options and divides by what the file says without a check.
type ngReader struct {
	r       *bufio.Reader
	big     bool
	devices []ngDevice
	block   []byte    // of the current block
	last    time.Time // of the frame before
	dropped uint64    // in all sections
	// unfinished is true when the comment of a section says that its recorder
	// has not finished it.
	unfinished bool
}

// ngDevice is an interface that a file describes.
type ngDevice struct {
	link   LinkType
	name   string
	perSec uint64 // units of time stamps in a second
	offset int64  // seconds to add to them
	// lost is what the packets tell of drops between them, stated what the
	// statistics do, counted the greater of the two.
	lost, stated, counted uint64
}

// frame returns the next frame.
func (r *ngReader) frame() (Frame, error) {
	for {
		f, ok, err := r.next()
		if err != nil {
			return Frame{}, err
		}
		if ok {
			r.last = f.Time
			return f, nil
		}
	}
}

// next reads one block: its type, its length, a body, and the length again. It
// reports whether the block holds a frame.
func (r *ngReader) next() (Frame, bool, error) {
	var head [8]byte
	if _, err := io.ReadFull(r.r, head[:]); err != nil {
		return Frame{}, false, err // io.EOF between blocks is the end
	}
	section := binary.BigEndian.Uint32(head[:]) == magicNg
	if section {
		// A section says its byte order first thing in its body.
		order, err := r.r.Peek(4)
		if err != nil {
			return Frame{}, false, noEOF(err)
		}
		switch uint32(ngByteOrder) {
		case binary.BigEndian.Uint32(order):
			r.big = true
		case binary.LittleEndian.Uint32(order):
			r.big = false
		default:
			return Frame{}, false, errors.New("section of no known byte order")
		}
		r.devices = nil
	}
	size := r.u32(head[4:])
	if size < 12 || section && size < 28 || size > maxNgBlock || size%4 != 0 {
		return Frame{}, false, fmt.Errorf("block of %d bytes", size)
	}
	if n := int(size) - 8; cap(r.block) < n {
		r.block = make([]byte, n)
	} else {
		r.block = r.block[:n]
	}
	if _, err := io.ReadFull(r.r, r.block); err != nil {
		return Frame{}, false, noEOF(err)
	}
	return r.decode(r.u32(head[:]), r.block[:size-12])
}

func (r *ngReader) decode(typ uint32, body []byte) (Frame, bool, error) {
	switch typ {
	case magicNg:
		// byte order (4), version (2, 2), length of the section (8), options
		r.options(body[16:], func(code uint16, value []byte) {
			if code == ngOptionComment && string(value) == notFinished {
				r.unfinished = true
			}
		})
	case ngInterface:
		return Frame{}, false, r.device(body)
	case ngStatistics:
		r.statistics(body)
	case ngEnhanced:
		// interface (4), time (8), captured (4), original length (4), data
		if len(body) < 20 {
			return Frame{}, false, errors.New("packet block cut short")
		}
		f, err := r.packet(r.u32(body), body)
		return f, err == nil, err
	case ngPacket:
		// as above, but the interface has 2 bytes, and 2 count drops
		if len(body) < 20 {
			return Frame{}, false, errors.New("packet block cut short")
		}
		f, err := r.packet(uint32(r.u16(body)), body)
		if n := r.u16(body[2:]); err == nil && n != 0xffff { // not known
			r.lose(&r.devices[r.u16(body)], uint64(n))
		}
		return f, err == nil, err
	case ngSimple:
		// original length (4), data; of the first interface, at no time
		if len(body) < 4 || len(r.devices) == 0 {
			return Frame{}, false, errors.New("packet block without an interface")
		}
		wire := r.u32(body)
		frame := body[4:]
		if uint64(wire) < uint64(len(frame)) {
			frame = frame[:wire]
		}
		d := &r.devices[0]
		return Frame{Data: frame, Link: d.link, Interface: d.name, WireLen: int(wire), Time: r.last}, true, nil
	}
	return Frame{}, false, nil // blocks of other types hold no packets
}

func (r *ngReader) packet(device uint32, body []byte) (Frame, error) {
	if uint64(device) >= uint64(len(r.devices)) {
		return Frame{}, fmt.Errorf("packet of interface %d, which is not described", device)
	}
	d := &r.devices[device]
	stamp := uint64(r.u32(body[4:]))<<32 | uint64(r.u32(body[8:]))
	captured, wire := r.u32(body[12:]), r.u32(body[16:])
	if uint64(captured) > uint64(len(body)-20) {
		return Frame{}, fmt.Errorf("packet of %d bytes in a block of %d", captured, len(body))
	}
	padded := 20 + (int(captured)+3)&^3
	outgoing := false
	r.options(body[min(padded, len(body)):], func(code uint16, value []byte) {
		switch {
		case code == ngOptionFlags && len(value) == 4:
			outgoing = r.u32(value)&3 == ngOutbound
		case code == ngOptionLost && len(value) == 8:
			r.lose(d, r.u64(value))
		}
	})
	return Frame{Data: body[20 : 20+captured], Link: d.link, Interface: d.name, Outgoing: outgoing, WireLen: int(wire), Time: d.time(stamp)}, nil
}

// lose notes drops between two packets of an interface.
func (r *ngReader) lose(d *ngDevice, n uint64) {
	d.lost = plus(d.lost, n)
	r.recount(d)
}

// statistics reads what the writer says of an interface, which counts from the
// beginning of the capture: interface (4), time (8), options.
func (r *ngReader) statistics(body []byte) {
	if len(body) < 12 || uint64(r.u32(body)) >= uint64(len(r.devices)) {
		return // of no use, and no harm
	}
	var drops uint64
	r.options(body[12:], func(code uint16, value []byte) {
		if (code == ngOptionIfDrop || code == ngOptionOSDrop) && len(value) == 8 && r.u64(value) != 1<<64-1 {
			drops = plus(drops, r.u64(value))
		}
	})
	d := &r.devices[r.u32(body)]
	d.stated = drops
	r.recount(d)
}

// recount keeps the sum of all interfaces, which only grows.
func (r *ngReader) recount(d *ngDevice) {
	if n := max(d.lost, d.stated); n > d.counted {
		r.dropped = plus(r.dropped, n-d.counted)
		d.counted = n
	}
}

// plus adds, and stays at the highest number instead of wrapping.
func plus(a, b uint64) uint64 {
	if sum, carry := bits.Add64(a, b, 0); carry == 0 {
		return sum
	}
	return 1<<64 - 1
}

func (r *ngReader) device(body []byte) error {
	// link type (2), reserved (2), snapshot length (4), options
	if len(body) < 8 {
		return errors.New("interface block cut short")
	}
	if len(r.devices) == maxNgDevices {
		return fmt.Errorf("more than %d interfaces", maxNgDevices)
	}
	d := ngDevice{link: fileLink(uint32(r.u16(body))), perSec: 1e6}
	if len(r.devices) > 0 {
		d.name = fmt.Sprintf("#%d", len(r.devices)) // unless it has a name
	}
	r.options(body[8:], func(code uint16, value []byte) {
		switch {
		case code == ngOptionName:
			d.name = string(value[:min(len(value), maxNgName)])
		case code == ngOptionTsRes && len(value) == 1:
			d.perSec = resolution(value[0])
		case code == ngOptionTsOff && len(value) == 8:
			d.offset = int64(r.u64(value))
		}
	})
	if d.perSec == 0 {
		return errors.New("interface with time stamps too fine to hold")
	}
	r.devices = append(r.devices, d)
	return nil
}

// resolution returns the units in a second of an if_tsresol option: a negative
// power of ten, or of two if the highest bit is set; 0 if they are too many.
func resolution(v byte) uint64 {
	if v&0x80 != 0 {
		return 1 << (v & 0x7f) // 0 from 64 on
	}
	if v > 19 {
		return 0 // 10^20 takes more than 64 bits
	}
	n := uint64(1)
	for range v {
		n *= 10
	}
	return n
}

func (d ngDevice) time(stamp uint64) time.Time {
	// The remainder is less than perSec, so the quotient fits and the second
	// remainder is less than 1e9.
	hi, lo := bits.Mul64(stamp%d.perSec, 1e9)
	nsec, _ := bits.Div64(hi, lo, d.perSec)
	t := time.Unix(int64(stamp/d.perSec)+d.offset, int64(nsec)).UTC()
	if t.Before(earliest) || t.After(latest) {
		return earliest
	}
	return t
}

// The times that nanoseconds since 1970 can tell in 64 bits; others are forged,
// or of a clock that was never set.
var (
	earliest = time.Unix(0, 0).UTC()
	latest   = time.Unix(0, math.MaxInt64).UTC()
)

// options calls f with each option: code (2), length (2), value, padding.
func (r *ngReader) options(b []byte, f func(code uint16, value []byte)) {
	for len(b) >= 4 {
		code, size := r.u16(b), int(r.u16(b[2:]))
		b = b[4:]
		if code == ngOptionEnd || size > len(b) {
			return
		}
		f(code, b[:size])
		b = b[min((size+3)&^3, len(b)):]
	}
}

func (r *ngReader) order() binary.ByteOrder {
	if r.big {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

func (r *ngReader) u16(b []byte) uint16 { return r.order().Uint16(b) }
func (r *ngReader) u32(b []byte) uint32 { return r.order().Uint32(b) }
func (r *ngReader) u64(b []byte) uint64 { return r.order().Uint64(b) }
