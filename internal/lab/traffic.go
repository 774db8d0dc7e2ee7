//go:build linux

package lab

import (
	"fmt"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Stream is UDP packets in one direction, at a steady pace. Zero values are
// those of 1000 packets from the host behind gateway a to the one behind b,
// 500 a second of 200 bytes each.
type Stream struct {
	From, To            *Node
	Source, Destination string // addresses of From and To
	Packets             int    // at most
	Rate                int    // packets a second
	Size                int    // of the UDP payload, in bytes
	Flows               int    // the packets take turns on as many source ports

	// Stop, if not nil, ends the stream when it is closed.
	Stop <-chan struct{}

	// Fragments lets routers fragment the packets: their Don't Fragment bit
	// is clear.
	Fragments bool
}

const (
	streamPort = 7000
	// streamTick is as fine as the guest's clock allows.
	streamTick = 10 * time.Millisecond
	// streamPatience is how long the next packet may be on its way when all
	// are sent: more than a busy machine holds one up.
	streamPatience = time.Second
)

func (s *Stream) setDefaults(l *Lab) {
	if s.From == nil {
		s.From = l.LanA
	}
	if s.To == nil {
		s.To = l.LanB
	}
	for _, end := range []struct {
		node    *Node
		address *string
	}{{s.From, &s.Source}, {s.To, &s.Destination}} {
		if *end.address == "" {
			*end.address = pick(end.node == l.LanA, LanAHost, LanBHost)
		}
	}
	for _, n := range []struct {
		value   *int
		instead int
	}{{&s.Packets, 1000}, {&s.Rate, 500}, {&s.Size, 200}, {&s.Flows, 1}} {
		if *n.value == 0 {
			*n.value = n.instead
		}
	}
}

// Streamed is what became of a [Stream].
type Streamed struct{ Sent, Arrived int }

// Stream begins to send packets. The function returned waits for the end.
func (l *Lab) Stream(s Stream) (end func() Streamed) {
	l.t.Helper()
	s.setDefaults(l)
	l.streams++
	port := strconv.Itoa(streamPort + l.streams)
	var to net.PacketConn
	err := s.To.inside(func() (err error) {
		to, err = net.ListenPacket("udp", net.JoinHostPort(s.Destination, port))
		return err
	})
	if err != nil {
		l.t.Fatalf("lab: %s: %v", s.To.Name, err)
	}
	var flows []net.Conn
	for range s.Flows {
		flows = append(flows, l.dialFrom(s, port))
	}
	var arrived atomic.Int64
	counted := make(chan struct{})
	go func() {
		defer close(counted)
		for buf := make([]byte, 1<<16); ; arrived.Add(1) {
			if _, _, err := to.ReadFrom(buf); err != nil {
				return // closed
			}
		}
	}()
	sent := make(chan int, 1)
	go func() { sent <- s.send(flows) }()
	return func() Streamed {
		n := <-sent
		for before := int64(-1); arrived.Load() < int64(n) && before != arrived.Load(); {
			before = arrived.Load()
			eventually(streamPatience, func() bool { return arrived.Load() >= int64(n) })
		}
		to.Close()
		<-counted
		for _, c := range flows {
			c.Close()
		}
		return Streamed{n, int(arrived.Load())}
	}
}

// dialFrom returns a socket of one flow of a stream.
func (l *Lab) dialFrom(s Stream, port string) net.Conn {
	l.t.Helper()
	var conn net.Conn
	err := s.From.inside(func() (err error) {
		dialer := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(s.Source)}}
		conn, err = dialer.Dial("udp", net.JoinHostPort(s.Destination, port))
		return err
	})
	if err == nil && s.Fragments {
		err = clearDF(conn.(*net.UDPConn))
	}
	if err != nil {
		l.t.Fatalf("lab: %s: %v", s.From.Name, err)
	}
	return conn
}

// clearDF makes a socket send packets that may be fragmented.
func clearDF(conn *net.UDPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT)
	})
	if err != nil {
		return err
	}
	return failed
}

// send sends the packets of a stream at its pace, and returns their number.
// What the network refuses is lost, as on the wire.
func (s *Stream) send(flows []net.Conn) (n int) {
	payload := make([]byte, s.Size)
	begin := time.Now()
	tick := time.NewTicker(streamTick)
	defer tick.Stop()
	// Once late, it stays late: a burst would overflow, and reorder, more
	// than the case asks for.
	burst := 2 + 2*int(float64(s.Rate)*streamTick.Seconds())
	for n < s.Packets {
		due := min(s.Packets, n+burst, 1+int(time.Since(begin).Seconds()*float64(s.Rate)))
		for ; n < due; n++ {
			copy(payload, fmt.Sprint(n))
			flows[n%len(flows)].Write(payload)
		}
		select {
		case <-s.Stop:
			return n
		case <-tick.C:
		}
	}
	return n
}
