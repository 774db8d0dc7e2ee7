package ike

import (
	"encoding/binary"
	"fmt"
)

// TCPPrefix is what the initiator of a TCP connection sends before all frames,
// and the responder does not (RFC 9329 section 4).
const TCPPrefix = "IKETCP"

// tcpLengthLen is the length of the field before each frame, in bytes. The
// value counts it too.
const tcpLengthLen = 2

// AppendTCP appends an IKE message in its frame: length, non-ESP marker and
// message (RFC 9329 section 3.1). It panics when the message has more than
// 65529 bytes.
func AppendTCP(b, msg []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, length16("TCP frame", tcpLengthLen+markerLen+len(msg)))
	return append(AppendNonESPMarker(b), msg...)
}

// CutTCP returns the first frame of a stream, without its length, and what
// follows it. The frame is an IKE message if [CutNonESPMarker] says so, and
// ESP otherwise. It is nil when b does not hold it whole yet. On an error the
// rest of the stream cannot be read.
func CutTCP(b []byte) (frame, rest []byte, err error) {
	if len(b) < tcpLengthLen {
		return nil, b, nil
	}
	n := int(binary.BigEndian.Uint16(b))
	if n < tcpLengthLen {
		return nil, b, fmt.Errorf("TCP frame of length %d", n)
	}
	if n > len(b) {
		return nil, b, nil
	}
	return b[tcpLengthLen:n:n], b[n:], nil
}
