package tcpsize

import (
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"time"
)

// simMSS is the payload of a full segment in the simulation, simDelay the time
// that one takes in each direction.
const (
	simMSS   = 1448
	simDelay = 20 * time.Millisecond
)

// sim simulates both ends of a TCP connection, and a lossy path between them,
// in the time of a synctest bubble. Its user is the client.
type sim struct {
	loss     float64                    // of segments and acknowledgements, each way
	up, down func(size int) (lost bool) // losses by size; nil for none
	answer   func(s *sim, come int)     // what the server does when come bytes of the request have come
	refuse   bool                       // whether the server resets when it is asked
	events   []event                    // by time
	random   *rand.Rand
	request  flow // client to server
	reply    flow // server to client
	read     int  // of the reply
	deadline time.Time
	reset    bool
}

type event struct {
	at time.Time
	do func()
}

func newSim(seed uint64, loss float64) *sim {
	s := &sim{loss: loss, random: rand.New(rand.NewPCG(seed, 1))}
	s.request = flow{s: s, linear: 7, fits: func(n int) bool { return s.up == nil || !s.up(n) }}
	s.reply = flow{s: s, fits: func(n int) bool { return s.down == nil || !s.down(n) }}
	s.request.arrived = func() {
		if s.refuse {
			s.reset = true
		}
		if s.answer != nil {
			s.answer(s, len(s.request.inOrder))
		}
	}
	return s
}

func (s *sim) after(d time.Duration, do func()) {
	e := event{time.Now().Add(d), do}
	i, _ := slices.BinarySearchFunc(s.events, e, func(a, b event) int {
		if a.at.After(b.at) {
			return 1
		}
		return -1 // behind those of the same time
	})
	s.events = slices.Insert(s.events, i, e)
}

// until lets time pass up to the next event, or t.
func (s *sim) until(t time.Time) {
	if len(s.events) == 0 || s.events[0].at.After(t) {
		time.Sleep(time.Until(t))
		return
	}
	e := s.events[0]
	time.Sleep(time.Until(e.at))
	s.events = s.events[1:]
	e.do()
}

func (s *sim) lost() bool { return s.random.Float64() < s.loss }

// flow is one direction: a sender that repeats as Linux does, and a receiver
// that acknowledges selectively.
type flow struct {
	s        *sim
	fits     func(size int) bool
	arrived  func()
	linear   int // repetitions at even intervals
	segments []*segment
	acked    int // segments in order
	inOrder  []byte
	came     int
	repeated int
	bytes    int
	tries    int
	timer    int // which of the timers counts
}

type segment struct {
	b                        []byte
	here, selective, hurried bool // come; known to the sender to have; repeated early
}

func (f *flow) send(b []byte) {
	for part := range slices.Chunk(b, simMSS) {
		g := &segment{b: part}
		f.segments = append(f.segments, g)
		f.transmit(g)
	}
	f.arm()
}

func (f *flow) transmit(g *segment) {
	if !f.fits(len(g.b)) || f.s.lost() {
		return
	}
	f.s.after(simDelay, func() {
		g.here = true
		f.came++
		for f.head() != nil && f.head().here {
			f.inOrder = append(f.inOrder, f.head().b...)
		}
		if f.arrived != nil {
			f.arrived()
		}
		if !f.s.lost() {
			f.s.after(simDelay, f.acknowledge(f.count()))
		}
	})
}

// head returns the segment that the receiver lacks.
func (f *flow) head() *segment {
	if n := f.count(); n < len(f.segments) {
		return f.segments[n]
	}
	return nil
}

func (f *flow) count() int {
	n, size := 0, 0
	for n < len(f.segments) && size < len(f.inOrder) {
		size += len(f.segments[n].b)
		n++
	}
	return n
}

// acknowledge returns the arrival of an acknowledgement with what has come by
// now.
func (f *flow) acknowledge(n int) func() {
	var selective []*segment
	for _, g := range f.segments[n:] {
		if g.here {
			selective = append(selective, g)
		}
	}
	return func() {
		for _, g := range selective {
			g.selective = true
		}
		if n > f.acked {
			f.acked, f.tries = n, 0
			f.arm()
		}
		for i, g := range f.segments {
			later := slices.ContainsFunc(f.segments[i:], func(l *segment) bool { return l.selective })
			if i >= f.acked && !g.selective && later && !g.hurried {
				g.hurried = true
				f.repeat(g)
			}
		}
	}
}

func (f *flow) repeat(g *segment) {
	f.repeated++
	f.bytes += len(g.b)
	f.transmit(g)
}

func (f *flow) arm() {
	f.timer++
	timer := f.timer
	f.s.after(200*time.Millisecond<<max(f.tries-f.linear, 0), func() {
		if timer != f.timer || f.acked == len(f.segments) {
			return
		}
		f.tries++
		f.repeat(f.segments[f.acked])
		f.arm()
	})
}

func (s *sim) SetDeadline(t time.Time) error { s.deadline = t; return nil }

func (s *sim) Write(b []byte) (int, error) {
	s.request.send(slices.Clone(b))
	return len(b), nil
}

func (s *sim) Read(b []byte) (int, error) {
	for {
		switch {
		case s.reset:
			return 0, io.ErrUnexpectedEOF
		case s.read < len(s.reply.inOrder):
			n := copy(b, s.reply.inOrder[s.read:])
			s.read += n
			return n, nil
		case !time.Now().Before(s.deadline):
			return 0, os.ErrDeadlineExceeded
		}
		s.until(s.deadline)
	}
}

func (s *sim) state() (state, error) {
	acked, passed := 1, 0 // the SYN
	for i, g := range s.request.segments {
		if i < s.request.acked {
			acked += len(g.b)
		}
		if i < s.request.acked || g.selective {
			passed++
		}
	}
	behind := slices.ContainsFunc(s.reply.segments[s.reply.count():], func(g *segment) bool { return g.here })
	return state{
		sendMSS: simMSS, receiveMSS: firstGuess, pathMTU: 1500, rtt: 2 * simDelay,
		acked: uint64(acked), received: uint64(len(s.reply.inOrder)), segments: uint32(s.reply.came),
		gap:    behind && s.read == len(s.reply.inOrder),
		passed: passed, repeated: s.request.repeated, bytesRepeated: uint64(s.request.bytes),
	}, nil
}
