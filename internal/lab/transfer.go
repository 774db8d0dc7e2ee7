//go:build linux

package lab

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// Transferred is what became of a TCP connection between the hosts behind the
// gateways.
type Transferred struct {
	Connected bool
	There     int // bytes that arrived at the host behind gateway b
	Back      int // bytes that came back, which is after all went there
	Completed bool
}

func (t Transferred) String() string {
	return fmt.Sprintf("connected: %v, %d bytes there, %d back, completed: %v", t.Connected, t.There, t.Back, t.Completed)
}

// transferPatience is how long a connection may stand still before it counts
// as hung: TCP has repeated what was lost several times by then.
const transferPatience = 3 * time.Second

// Transfer sends bytes by TCP from the host behind gateway a to the one behind
// gateway b, and back again, as long as something moves.
func (l *Lab) Transfer(bytes int) Transferred {
	l.t.Helper()
	l.streams++
	address := net.JoinHostPort(LanBHost, strconv.Itoa(streamPort+l.streams))
	var listener net.Listener
	err := l.LanB.inside(func() (err error) {
		listener, err = net.Listen("tcp", address)
		return err
	})
	if err != nil {
		l.t.Fatalf("lab: %s: %v", l.LanB.Name, err)
	}
	defer listener.Close()
	arrived := make(chan int, 1)
	go func() { arrived <- echo(listener, bytes) }()

	var t Transferred
	var conn net.Conn
	err = l.LanA.inside(func() (err error) {
		conn, err = net.DialTimeout("tcp", address, transferPatience)
		return err
	})
	if err != nil {
		return t
	}
	// What is on its way when it ends must not go on into the next case.
	conn.(*net.TCPConn).SetLinger(0)
	defer conn.Close()
	t.Connected = true
	go func() {
		conn.SetWriteDeadline(time.Now().Add(time.Minute))
		conn.Write(make([]byte, bytes)) // what does not arrive is counted there
	}()
	t.There = <-arrived
	if t.There == bytes {
		t.Back = receive(conn, bytes)
	}
	t.Completed = t.Back == bytes
	return t
}

// echo accepts a connection, receives bytes and sends as many back. It returns
// how many came.
func echo(listener net.Listener, bytes int) int {
	listener.(*net.TCPListener).SetDeadline(time.Now().Add(2 * transferPatience))
	conn, err := listener.Accept()
	if err != nil {
		return 0
	}
	n := receive(conn, bytes)
	conn.(*net.TCPConn).SetLinger(0)
	go func() {
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(time.Minute))
		if n == bytes {
			conn.Write(make([]byte, bytes))
		}
		io.Copy(io.Discard, conn) // until the other end closes
	}()
	return n
}

// receive reads up to so many bytes, as long as some come.
func receive(conn net.Conn, bytes int) int {
	buf := make([]byte, 1<<16)
	n := 0
	for n < bytes {
		conn.SetReadDeadline(time.Now().Add(transferPatience))
		size, err := conn.Read(buf[:min(len(buf), bytes-n)])
		n += size
		if err != nil {
			return n
		}
	}
	return n
}
