package capture

import (
	"encoding/binary"

	"vpnprobe/internal/wire/esp"
)

// shortcuts know where the packets of the flows in use count: in nearly all
// packets of a busy gateway, all that is new is a sequence number. They are for
// whole packets of ESP over IPv4 without options, in UDP or not, in Ethernet
// frames without tags, of flows that are one peer's. A packet that has no
// shortcut makes one, if it can; flows whose hashes meet take turns. A packet
// counts the same by its shortcut as without.
type shortcuts [1 << shortcutBits]shortcut

const shortcutBits = 10

// shortcut is where the packets of one flow count that are seen on one
// interface.
type shortcut struct {
	label  label
	device *device // nil in an empty shortcut
	out    bool    // to the peer
	total  *volume
	use    *use
	flows  *esp.Table
	place  esp.Place
}

// label is what the packets of a flow have in common.
type label struct {
	addrs uint64 // source and destination
	ports uint32 // of UDP, 0 without
	spi   uint32
	shown bool // as outgoing
}

func (s *shortcuts) of(l *label) *shortcut {
	h := mix(l.addrs, uint64(l.spi)) // of SPIs in a row, the upper bits differ
	if l.shown {
		h = ^h
	}
	return &s[h>>(64-shortcutBits)]
}

// Offsets of an IPv4 header without options, and of what follows it, in an
// Ethernet frame without tags.
const (
	briefIP      = 14
	briefPayload = briefIP + 20
	briefEnd     = briefPayload + espHeader
)

// brief reads a frame of the form that shortcuts are for: its label, the length
// of the packet, and what was captured of its payload, which has the ESP header
// at an offset.
func (f *Frame) brief(l *label) (payload []byte, header int, length uint64, ok bool) {
	b := f.Data
	if f.Link != LinkEthernet || len(b) < briefEnd || binary.BigEndian.Uint32(b[briefIP-2:])>>8 != etherIPv4<<8|0x45 ||
		binary.BigEndian.Uint16(b[briefIP+6:])&0x3fff != 0 {
		return nil, 0, 0, false
	}
	length = wireLength(int(binary.BigEndian.Uint16(b[briefIP+2:])), 20, max(f.WireLen, len(b))-briefIP)
	payload = b[briefPayload:min(uint64(len(b)), max(briefPayload, briefIP+length))]
	l.ports = 0
	switch b[briefIP+9] {
	case protoUDP:
		header = 8
		l.ports = binary.BigEndian.Uint32(b[briefPayload:])
	case protoESP:
	default:
		return nil, 0, 0, false
	}
	if len(payload) < header+espHeader {
		return nil, 0, 0, false
	}
	l.addrs, l.spi, l.shown = binary.BigEndian.Uint64(b[briefIP+12:]), binary.BigEndian.Uint32(payload[header:]), f.Outgoing
	return payload, header, length, true
}

// shortly counts a packet that has a shortcut.
func (o *Observer) shortly(f *Frame) bool {
	var l label
	payload, header, length, ok := f.brief(&l)
	if !ok {
		return false
	}
	s := o.short.of(&l)
	if s.device == nil || s.label != l || s.device != o.recent || s.device.id != (deviceID{name: f.Interface}) {
		return false
	}
	b := f.Data[:briefEnd]
	now := f.Time.UnixNano()
	ident := uint64(binary.BigEndian.Uint16(b[briefIP+4:]))<<32 | uint64(b[briefIP+9])<<8
	key := sightKey(l.addrs>>32, l.addrs&(1<<32-1), ident, length, payload[:header+espHeader])
	if o.seen.shown(key, s.device.way(l.shown), now) {
		o.reachNext(f.Time, now)
		return true
	}
	if !s.flows.AddAt(s.place, binary.BigEndian.Uint32(payload[header+4:]), int(length), f.Time, now) {
		return false // the flow had to leave; that p was shown once does not make it a twin
	}
	o.reachNext(f.Time, now)
	v := volume{1, length}
	s.total.add(v)
	s.use.passed(v, s.out, now)
	if s.out {
		s.use.sentBy(b[briefIP+12:briefIP+16], b[6:12])
	}
	return true
}

// shorten makes a shortcut for the packets of a flow, of which p was counted
// the long way.
func (o *Observer) shorten(f *Frame, p *packet, k kind, from, to []*peer, d *device) {
	if k != kindESP && k != kindESPInUDP || len(from)+len(to) != 1 {
		return
	}
	var l label
	_, _, _, ok := f.brief(&l)
	if !ok {
		return
	}
	s := shortcut{label: l, device: d, out: len(to) == 1}
	if s.out {
		s.owned(to[0], &to[0].out, k)
	} else {
		s.owned(from[0], &from[0].in, k)
	}
	s.place, ok = s.flows.Find(esp.Key{
		Src: addr(p.src), Dst: addr(p.dst), SPI: l.spi, Protocol: esp.ESP, Encap: k == kindESPInUDP, Outgoing: s.out,
	})
	if ok && s.use.counts {
		*o.short.of(&l) = s
	}
}

func (s *shortcut) owned(by *peer, t *traffic, k kind) {
	s.total, s.use, s.flows = t.of(k), by.use(s.device), by.scope.shown
}
