package capture

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"vpnprobe/evidence"
)

// device is an interface that frames were captured on.
type device struct {
	id       deviceID
	name     string
	number   uint8 // of the interface, from 0
	directed bool  // the source of the frames tells which ones this host sent
}

// deviceID is what tells interfaces apart. A cooked capture of all interfaces
// names none, but has their numbers, or their types at least.
type deviceID struct {
	name     string
	index    uint32
	hardware uint16
}

// maxDevices bounds the interfaces of an observer. A forged file may have
// frames of any number of them; those in excess are one to us.
const maxDevices = 64

// device returns the interface that a frame was captured on.
func (o *Observer) device(f *Frame, h *framing) *device {
	id := deviceID{f.Interface, h.index, h.hardware}
	if d := o.recent; d != nil && d.id == id {
		return d
	}
	d := o.devices[id]
	if d == nil {
		if len(o.devices) >= maxDevices {
			id = deviceID{name: "others", index: 1 << 31}
		}
		if d = o.devices[id]; d == nil {
			d = &device{id: id, name: id.String(), number: uint8(len(o.devices))}
			o.devices[id] = d
		}
	}
	o.recent = d
	return d
}

// named reports whether the interface's own name is known.
func (id deviceID) named() bool { return id.name != "" && id.name != "any" }

func (id deviceID) String() string {
	if id.index != 0 && !id.named() {
		return fmt.Sprintf("#%d", id.index)
	}
	return id.name
}

// way tells one sight of a packet from another of the same one: by the
// interface and the direction.
func (d *device) way(outgoing bool) uint8 {
	w := d.number << 1
	if outgoing {
		w |= 1
	}
	return w
}

// use is what one peer's traffic on one interface tells.
type use struct {
	device *device
	counts bool // the interface is one of the peer's
	sent   bool // the peer was sent something by it
	in     volume
	out    volume
	// When the first and the last outgoing ESP or AH passed, in nanoseconds
	// since 1970, and where the first one after the last reading is noted.
	firstOut, lastOut int64
	next              *atomic.Int64

	// Of what the peer was sent: the Ethernet address of the sender, and its
	// own address, of each version.
	mac        [6]byte
	own4       [4]byte
	own6       [16]byte
	hasMAC     bool
	has4, has6 bool
}

// use returns the peer's traffic on an interface.
func (p *peer) use(d *device) *use {
	for _, u := range p.uses {
		if u.device == d {
			return u
		}
	}
	u := &use{device: d, counts: p.scope.on(d)}
	p.uses = append(p.uses, u) // no more than there are devices
	return u
}

// sentBy learns from a packet to the peer who sends them: the source addresses
// of IP and, unless nil, of Ethernet.
func (u *use) sentBy(src, mac []byte) {
	u.sentFrom(src)
	if len(mac) == len(u.mac) {
		u.mac, u.hasMAC = [6]byte(mac), true
	}
}

func (u *use) sentFrom(src []byte) {
	u.sent = true
	if len(src) == 4 {
		u.own4, u.has4 = [4]byte(src), true
	} else {
		u.own6, u.has6 = [16]byte(src), true
	}
}

// passed counts encrypted packets, of which the last outgoing one passed at the
// given time.
func (u *use) passed(v volume, out bool, at int64) {
	if !out {
		u.in.packets += v.packets
		u.in.bytes += v.bytes
		return
	}
	u.out.packets += v.packets
	u.out.bytes += v.bytes
	if u.firstOut == 0 {
		u.firstOut = at
	}
	u.lastOut = max(u.lastOut, at)
	if u.next != nil {
		u.next.Store(at)
		u.next = nil
	}
}

// InterfaceCounts is what passed one interface, see [evidence.InterfaceTraffic].
type InterfaceCounts struct {
	evidence.InterfaceTraffic
	device *device
	// next is the time of the first outgoing packet after this reading, in
	// nanoseconds since 1970, once there is one. It makes the window that begins
	// with this reading know its own first packet.
	next *atomic.Int64
}

func (p *peer) interfaceCounts() []InterfaceCounts {
	var list []InterfaceCounts
	for _, u := range p.uses {
		if u.in.packets+u.in.bytes+u.out.packets+u.out.bytes == 0 {
			continue
		}
		if u.next == nil {
			u.next = new(atomic.Int64)
		}
		c := InterfaceCounts{device: u.device, next: u.next}
		c.Name, c.In, c.Out = u.device.name, u.in.evidence(), u.out.evidence()
		if u.firstOut != 0 {
			c.FirstOut, c.LastOut = someTime(u.firstOut), someTime(u.lastOut)
		}
		list = append(list, c)
	}
	return list
}

func someTime(nano int64) evidence.Opt[time.Time] {
	return evidence.Some(time.Unix(0, nano).UTC())
}

// interfacesSince returns what passed each interface between two readings.
func interfacesSince(now, earlier []InterfaceCounts) []evidence.InterfaceTraffic {
	var list []evidence.InterfaceTraffic
	for _, c := range now {
		t := c.InterfaceTraffic
		if i := slices.IndexFunc(earlier, func(e InterfaceCounts) bool { return e.device == c.device }); i >= 0 {
			e := earlier[i]
			t.In, t.Out = since(c.In, e.In), since(c.Out, e.Out)
			t.FirstOut = evidence.Opt[time.Time]{}
			if e.next != nil {
				if nano := e.next.Load(); nano != 0 {
					t.FirstOut = someTime(nano)
				}
			}
		}
		if t.Out == (evidence.Traffic{}) {
			t.FirstOut, t.LastOut = evidence.Opt[time.Time]{}, evidence.Opt[time.Time]{}
		}
		if t.In != (evidence.Traffic{}) || t.Out != (evidence.Traffic{}) {
			list = append(list, t)
		}
	}
	return list
}
