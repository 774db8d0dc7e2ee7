package daemon

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"sync/atomic"
	"time"

	"github.com/strongswan/govici/vici"
)

const (
	// answerTimeout bounds a question that charon answers from memory.
	answerTimeout = 5 * time.Second

	// maxFrame is the vici protocol's own limit, maxBytes ours for one
	// session, and maxEvents is more than a gateway has SAs.
	maxFrame  = 512 << 10
	maxBytes  = 16 << 20
	maxEvents = 4096
)

// A packet's type is its first byte (strongSwan, vici README, "packet types").
const (
	viciEventRegister = 3
	viciEventConfirm  = 5
	viciEventUnknown  = 6
	viciEvent         = 7
)

// session is a connection to charon that collects one kind of event. Events
// go through a channel of our own, because the library's streamed calls drop
// those that wait when the answer to the call arrives. One kind only, for
// the library stands still when an event comes while it registers the next.
type session struct {
	vici   *vici.Session
	events chan vici.Event
	stop   func() bool
}

// openSession connects to charon and, unless event is empty, registers for
// the event. The session ends with ctx, whatever charon does.
func openSession(ctx context.Context, path, event string) (*session, error) {
	dial := func(_ context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{Timeout: answerTimeout}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &frames{Conn: conn}, nil
	}
	v, err := vici.NewSession(vici.WithSocketPath(path), vici.WithDialContext(dial))
	if err != nil {
		return nil, dialError(path, err)
	}
	s := &session{vici: v, events: make(chan vici.Event, maxEvents)}
	s.stop = context.AfterFunc(ctx, func() { v.Close() })
	if event == "" {
		return s, nil
	}
	s.vici.NotifyEvents(s.events)
	if err := s.vici.Subscribe(event); err != nil {
		s.close()
		return nil, ask(ctx, path, err)
	}
	return s, nil
}

func (s *session) close() {
	s.stop()
	s.vici.Close()
}

// call sends a command and returns charon's answer. A refusal is not an
// error: refused then holds charon's reason.
func (s *session) call(ctx context.Context, command string, in *vici.Message) (refused string, err error) {
	answer, err := s.vici.Call(ctx, command, in)
	if answer != nil && err != nil {
		reason, _ := answer.Get("errmsg").(string)
		if reason == "" {
			reason = "no reason given"
		}
		return reason, nil
	}
	return "", err
}

// received returns the events that came so far. All events that charon sent
// before it answered a call are there when the call returns.
func (s *session) received() (events []*vici.Message) {
	for {
		select {
		case e, ok := <-s.events:
			if !ok {
				return events
			}
			events = append(events, e.Message)
		default:
			return events
		}
	}
}

// list makes a streamed call: one event per item, then an empty answer.
func list(ctx context.Context, path, command, event string) ([]*vici.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	s, err := openSession(ctx, path, event)
	if err != nil {
		return nil, err
	}
	defer s.close()
	refused, err := s.call(ctx, command, nil)
	if err != nil {
		return nil, ask(ctx, path, err)
	}
	if refused != "" {
		return nil, fmt.Errorf("ask strongSwan at %s: %s: %s", path, command, clean(refused))
	}
	items := s.received()
	if len(items) == maxEvents {
		return nil, fmt.Errorf("ask strongSwan at %s: %s: more than %d items", path, command, maxEvents)
	}
	return items, nil
}

// ask words an error of a session. A closed connection is what ctx leaves.
func ask(ctx context.Context, path string, err error) error {
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("ask strongSwan at %s: no answer in time: %w", path, err)
	}
	return fmt.Errorf("ask strongSwan at %s: %w", path, err)
}

// dialError words why a daemon's socket could not be connected to.
func dialError(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("ask strongSwan at %s: permission denied: run as root, or as a member of the socket's group (charon.group in strongswan.conf)", path)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("ask strongSwan at %s: the socket is not in this process's file system, or the daemon has ended", path)
	}
	return fmt.Errorf("ask strongSwan at %s: %w", path, err)
}

// frames is the connection as the library reads it: packets of bounded size,
// and no event while the library registers for events.
type frames struct {
	net.Conn
	registering atomic.Bool
	total       int
	rest        []byte // of the packet being read, its length included
}

// Write notes what is being asked for. The library writes whole packets.
func (f *frames) Write(b []byte) (int, error) {
	if len(b) > 4 && b[4] == viciEventRegister {
		f.registering.Store(true)
	}
	return f.Conn.Write(b)
}

func (f *frames) Read(b []byte) (int, error) {
	for len(f.rest) == 0 {
		if err := f.next(); err != nil {
			return 0, err
		}
	}
	n := copy(b, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

// next reads one packet. It leaves none of an event that the library could
// not take now.
func (f *frames) next() error {
	var length [4]byte
	if _, err := io.ReadFull(f.Conn, length[:]); err != nil {
		return err
	}
	n := int64(binary.BigEndian.Uint32(length[:]))
	if n == 0 || n > maxFrame || int64(f.total)+n > maxBytes {
		return fmt.Errorf("packet of %d bytes after %d: more than expected", n, f.total)
	}
	f.total += int(n)
	packet := make([]byte, 4+n)
	copy(packet, length[:])
	if _, err := io.ReadFull(f.Conn, packet[4:]); err != nil {
		return err
	}
	switch packet[4] {
	case viciEventConfirm, viciEventUnknown:
		f.registering.Store(false)
	case viciEvent:
		if f.registering.Load() {
			return nil
		}
	}
	f.rest = packet
	return nil
}

// text returns a value of a message, "" where it is missing or not a value.
func text(m *vici.Message, key string) string {
	s, _ := m.Get(key).(string)
	return s
}

// texts returns a list of a message.
func texts(m *vici.Message, key string) []string {
	list, _ := m.Get(key).([]string)
	return list
}

// section returns a section of a message; an empty one where it is missing.
func section(m *vici.Message, key string) *vici.Message {
	if s, ok := m.Get(key).(*vici.Message); ok {
		return s
	}
	return vici.NewMessage()
}
