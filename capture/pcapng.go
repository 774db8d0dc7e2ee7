package capture

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"time"
)

// Block types of pcapng (draft-ietf-opsawg-pcapng, section 4).
const (
	ngInterface   = 1
	ngPacket      = 2 // obsolete
	ngSimple      = 3
	ngEnhanced    = 6
	ngByteOrder   = 0x1a2b3c4d
	ngOptionEnd   = 0
	ngOptionTsRes = 9
	ngOptionTsOff = 14
	ngOptionFlags = 2 // of ngEnhanced
	maxNgBlock    = maxFileFrame + 64<<10
	maxNgDevices  = 1 << 12
)

// ngReader reads the packets of a pcapng file. It is our own because pcapgo's
// indexes options and divides by what the file says without a check.
type ngReader struct {
	r       *bufio.Reader
	o       *Observer
	big     bool
	devices []ngDevice
	block   []byte // of the current block
}

// ngDevice is an interface that a file describes.
type ngDevice struct {
	link   LinkType
	perSec uint64 // units of time stamps in a second
	offset int64  // seconds to add to them
}

func readNg(b *bufio.Reader, o *Observer) error {
	r := &ngReader{r: b, o: o}
	for {
		err := r.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// next reads one block: its type, its length, a body, and the length again.
func (r *ngReader) next() error {
	var head [8]byte
	if _, err := io.ReadFull(r.r, head[:]); err != nil {
		return err // io.EOF between blocks is the end
	}
	section := binary.BigEndian.Uint32(head[:]) == magicNg
	if section {
		// A section says its byte order first thing in its body.
		order, err := r.r.Peek(4)
		if err != nil {
			return noEOF(err)
		}
		switch uint32(ngByteOrder) {
		case binary.BigEndian.Uint32(order):
			r.big = true
		case binary.LittleEndian.Uint32(order):
			r.big = false
		default:
			return errors.New("section of no known byte order")
		}
		r.devices = nil
	}
	size := r.u32(head[4:])
	if size < 12 || section && size < 28 || size > maxNgBlock || size%4 != 0 {
		return fmt.Errorf("block of %d bytes", size)
	}
	if n := int(size) - 8; cap(r.block) < n {
		r.block = make([]byte, n)
	} else {
		r.block = r.block[:n]
	}
	if _, err := io.ReadFull(r.r, r.block); err != nil {
		return noEOF(err)
	}
	return r.decode(r.u32(head[:]), r.block[:size-12])
}

func (r *ngReader) decode(typ uint32, body []byte) error {
	switch typ {
	case ngInterface:
		return r.device(body)
	case ngEnhanced:
		// interface (4), time (8), captured (4), original length (4), data
		if len(body) < 20 {
			return errors.New("packet block cut short")
		}
		return r.packet(r.u32(body), body)
	case ngPacket:
		// as above, but the interface has 2 bytes, and 2 count drops
		if len(body) < 20 {
			return errors.New("packet block cut short")
		}
		return r.packet(uint32(r.u16(body)), body)
	case ngSimple:
		// original length (4), data; of the first interface, at no time
		if len(body) < 4 || len(r.devices) == 0 {
			return errors.New("packet block without an interface")
		}
		wire := r.u32(body)
		frame := body[4:]
		if uint64(wire) < uint64(len(frame)) {
			frame = frame[:wire]
		}
		r.o.Packet(frame, r.devices[0].link, false, int(wire), r.o.last)
	}
	return nil // blocks of other types hold no packets
}

func (r *ngReader) packet(device uint32, body []byte) error {
	if uint64(device) >= uint64(len(r.devices)) {
		return fmt.Errorf("packet of interface %d, which is not described", device)
	}
	d := r.devices[device]
	stamp := uint64(r.u32(body[4:]))<<32 | uint64(r.u32(body[8:]))
	captured, wire := r.u32(body[12:]), r.u32(body[16:])
	if uint64(captured) > uint64(len(body)-20) {
		return fmt.Errorf("packet of %d bytes in a block of %d", captured, len(body))
	}
	padded := 20 + (int(captured)+3)&^3
	outgoing := false
	r.options(body[min(padded, len(body)):], func(code uint16, value []byte) {
		if code == ngOptionFlags && len(value) == 4 {
			outgoing = r.u32(value)&3 == 2 // 1 is inbound, 0 is not known
		}
	})
	r.o.Packet(body[20:20+captured], d.link, outgoing, int(wire), d.time(stamp))
	return nil
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
	r.options(body[8:], func(code uint16, value []byte) {
		switch {
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
	return time.Unix(int64(stamp/d.perSec)+d.offset, int64(nsec)).UTC()
}

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
