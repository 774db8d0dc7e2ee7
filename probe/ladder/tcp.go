package ladder

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/wire/ike"
	"vpnprobe/probe"
)

const (
	connectTimeout = 2 * time.Second // room for one repeated SYN (RFC 6298: after 1 s)
	tcpTimeout     = time.Second     // for the answer

	// maxStream is more than the answer to our request can be.
	maxStream = 4096
)

// askTCP connects to the peer's TCP port for IKE, sends a request that leaves
// nothing at the peer, waits for the answer, and closes the connection (RFC
// 9329).
func askTCP(ctx context.Context, source netip.Addr, to netip.AddrPort) evidence.IKEOverTCP {
	d := net.Dialer{Timeout: connectTimeout, KeepAlive: -1}
	if source.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source.Unmap(), 0))
	}
	conn, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return notConnected(ctx, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	out := evidence.IKEOverTCP{Connected: evidence.Yes}
	out.Answered, out.Reason = askStream(conn)
	if ctx.Err() != nil && out.Answered != evidence.Yes {
		out.Answered, out.Reason = evidence.Unknown, "stopped before an answer came"
	}
	return out
}

// notConnected says what kept a connection from being made. Without an answer
// from the peer it is not known whether it would take one.
func notConnected(ctx context.Context, err error) evidence.IKEOverTCP {
	var timeout interface{ Timeout() bool }
	switch {
	case ctx.Err() != nil:
		return evidence.IKEOverTCP{Reason: "stopped before an answer came"}
	case errors.Is(err, syscall.ECONNREFUSED):
		return evidence.IKEOverTCP{Connected: evidence.No, Answered: evidence.No, Reason: "refused"}
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return evidence.IKEOverTCP{Connected: evidence.No, Answered: evidence.No, Reason: "no route"}
	case errors.As(err, &timeout) && timeout.Timeout():
		return evidence.IKEOverTCP{Connected: evidence.No, Answered: evidence.No, Reason: "timeout"}
	}
	return evidence.IKEOverTCP{Reason: fmt.Sprintf("could not try: %v", err)}
}

// askStream returns whether an IKE message answered our request, and why not.
func askStream(conn net.Conn) (evidence.Fact, string) {
	if err := conn.SetDeadline(time.Now().Add(tcpTimeout)); err != nil {
		return evidence.Unknown, err.Error()
	}
	request := probe.NewIKERequest(evidence.VersionProbe, 0)
	if _, err := conn.Write(ike.AppendTCP([]byte(ike.TCPPrefix), request)); err != nil {
		return evidence.No, "closed"
	}
	stream, buf := []byte{}, make([]byte, maxStream)
	for len(stream) < maxStream {
		n, err := conn.Read(buf)
		stream = append(stream, buf[:n]...)
		for {
			frame, rest, cut := ike.CutTCP(stream)
			if cut != nil {
				return evidence.No, "not IKE"
			}
			if frame == nil {
				break
			}
			if isAnswer(frame, ike.SPI(request[:8])) {
				return evidence.Yes, ""
			}
			stream = rest
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return evidence.No, "timeout"
		case err != nil:
			return evidence.No, "closed"
		}
	}
	return evidence.No, "not IKE"
}

// isAnswer reports whether a frame is an IKE message to us.
func isAnswer(frame []byte, spi ike.SPI) bool {
	b, ok := ike.CutNonESPMarker(frame)
	if !ok {
		return false
	}
	m, err := ike.Parse(b)
	return err == nil && m.SPIi == spi && (m.Version.Major() == ike.V1.Major() || m.Flags&ike.FlagResponse != 0)
}
