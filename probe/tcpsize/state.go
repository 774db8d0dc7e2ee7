package tcpsize

import (
	"time"

	"vpnprobe/evidence"
)

// state is what the kernel says of a connection at some moment (TCP_INFO).
type state struct {
	timestamps bool // whether each segment carries a timestamp option
	// sendMSS is the payload in bytes of the largest segment that the kernel
	// sends at present, receiveMSS its estimate of the largest that came.
	sendMSS, receiveMSS int
	advMSS              int // what we announced, less the timestamp option
	pathMTU             int // that the kernel believes in
	acked, received     uint64
	segments            uint32 // with data that came, repetitions included
	// gap is whether something came that cannot be read, as what precedes it is
	// missing still.
	gap bool
	// passed counts the segments that came to the target, in order or not, and
	// repeated those that we repeated, of bytesRepeated of payload.
	passed, repeated int
	bytesRepeated    uint64
	rtt              time.Duration
}

// timestampBytes is the space that a timestamp option takes in every segment
// but the SYN, aligned (RFC 7323 appendix A). Both MSSs of TCP_INFO are less by
// it than what was announced, for which options do not count (RFC 6691).
const timestampBytes = 12

func (s state) options() int {
	if s.timestamps {
		return timestampBytes
	}
	return 0
}

// announced returns the MSS in our SYN.
func (s state) announced() int { return s.advMSS + s.options() }

// peerMSS returns the MSS that the target announced where it can be inferred:
// what the kernel sends is limited by it or by the path MTU, and when it is not
// the latter, it is the former (tcp_sync_mss in net/ipv4/tcp_output.c).
func (s state) peerMSS(v6 bool) evidence.Opt[int] {
	headers := 20 + 20
	if v6 {
		headers = 40 + 20
	}
	if mss := s.sendMSS + s.options(); mss < s.pathMTU-headers {
		return evidence.Some(mss)
	}
	return evidence.Opt[int]{}
}

// largestReceived returns the payload of the largest segment that came since
// began. The kernel's estimate begins with a guess (tcp_initialize_rcv_mss),
// so that one which is still the same says nothing; a single segment's size is
// what came in it.
func (s state) largestReceived(began state) evidence.Opt[int] {
	switch {
	case s.received == began.received:
		return evidence.Opt[int]{}
	case s.segments == began.segments+1:
		return evidence.Some(int(s.received - began.received))
	case s.receiveMSS != began.receiveMSS:
		return evidence.Some(s.receiveMSS)
	}
	return evidence.Opt[int]{}
}
