package bpfcount

import (
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/cilium/ebpf/ringbuf"
)

// Frame is one packet that the program picked out: of a peer's, IKE and NAT
// keepalives; ICMP errors that quote one of a peer's; and leaks, of which only
// so many are shown.
type Frame struct {
	Ifindex  int
	Outgoing bool
	Leak     bool
	// WireLen is the length of the IP packet, in bytes.
	WireLen int
	// Time is when the program saw it, by the wall clock as it is set when it
	// is read.
	Time time.Time
	// Data is the packet from its IP header on, at most [MaxFrame] bytes of it,
	// of a leak [MaxLeak].
	// It is valid until the function returns.
	Data []byte
}

// The most that is kept of a packet, in bytes; of a leak its headers suffice.
const (
	MaxFrame = 2048
	MaxLeak  = 128
)

// deadline is when Read has to stop.
type deadline struct {
	mu sync.Mutex // guards t
	t  time.Time
}

func (d *deadline) get() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.t
}

// Read hands frames to f as they come, until the deadline
// (os.ErrDeadlineExceeded) or Close (os.ErrClosed). What is in the ring buffer
// at the deadline is handed over too.
func (c *Counter) Read(f func(Frame)) error {
	var rec ringbuf.Record
	var boot time.Time
	left := -1 // bytes to hand over after the deadline, once it has passed
	for left != 0 {
		t := c.deadline.get()
		passed := !t.IsZero() && !t.After(time.Now())
		c.reader.SetDeadline(t)
		switch err := c.reader.ReadInto(&rec); {
		case err == nil:
		case !errors.Is(err, ringbuf.ErrFlushed) && !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		case passed:
			return os.ErrDeadlineExceeded
		default:
			continue // the deadline has passed now, or was changed
		}
		now, err := bootTime()
		if err != nil {
			return err
		}
		if off := now.Sub(boot).Abs(); off > time.Millisecond { // the clock was set
			boot = now // else the frames stay in order
		}
		if frame, ok := parseFrame(rec.RawSample, boot); ok {
			f(frame)
		}
		switch {
		case !passed:
			left = -1
		case left < 0:
			left = rec.Remaining
		default: // more may have come, but under a flood there is no end to that
			left = max(0, left-len(rec.RawSample))
		}
	}
	return os.ErrDeadlineExceeded
}

func parseFrame(b []byte, boot time.Time) (Frame, bool) {
	if len(b) < frameHeader {
		return Frame{}, false
	}
	flags := binary.NativeEndian.Uint32(b[frameFlags:])
	return Frame{
		Ifindex:  int(binary.NativeEndian.Uint32(b[frameIfindex:])),
		Outgoing: flags&flagOut != 0,
		Leak:     flags&flagLeak != 0,
		WireLen:  int(binary.NativeEndian.Uint32(b[frameWire:])),
		Time:     boot.Add(time.Duration(binary.NativeEndian.Uint64(b[frameTime:]))),
		Data:     b[frameHeader:],
	}, true
}

// SetReadDeadline makes Read return os.ErrDeadlineExceeded from t on, one under
// way too; the zero time takes it back.
func (c *Counter) SetReadDeadline(t time.Time) {
	c.deadline.mu.Lock()
	c.deadline.t = t
	c.deadline.mu.Unlock()
	_ = c.reader.Flush() // wakes Read; fails only when closed
}

// Drops returns how many frames found the ring buffer full since Open. It only
// grows.
func (c *Counter) Drops() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		// Reading a map of ours does not fail.
		if n, err := c.tally(tallyDrops); err == nil {
			c.table.drops = n
		}
	}
	return c.table.drops
}
