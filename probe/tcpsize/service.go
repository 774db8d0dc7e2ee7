package tcpsize

import (
	"bytes"
	"net/netip"
	"slices"
)

// The services that it speaks with, as [evidence.TCPSize] names them.
const (
	serviceTLS  = "tls"
	serviceSSH  = "ssh"
	serviceHTTP = "http"
)

const portSSH = 22

// The ports where a server waits for a ClientHello, and for an HTTP request: only
// those where nothing else listens (what is sent to 9100, a printer prints).
// Those where TLS begins only after words of another protocol are not among
// them.
var (
	tlsPorts  = []uint16{443, 465, 563, 636, 853, 989, 990, 992, 993, 994, 995, 5061, 5986, 6443, 8443, 9443, 10443}
	httpPorts = []uint16{80, 8000, 8080}
)

// sshPrefix begins the version of every SSH peer (RFC 4253 section 4.2). Of the
// common services, only SSH's servers say something that is known before they
// are asked.
var sshPrefix = []byte("SSH-")

func byGreeting(b []byte) string {
	if bytes.HasPrefix(b, sshPrefix) {
		return serviceSSH
	}
	return ""
}

func byPort(port uint16) string {
	switch {
	case slices.Contains(tlsPorts, port):
		return serviceTLS
	case slices.Contains(httpPorts, port):
		return serviceHTTP
	}
	return ""
}

// surplus is what a request has beyond one full segment, in bytes, so that a
// small one follows the full one: what is lost by its size shows in that the
// small one is acknowledged selectively.
const surplus = 200

// requestTo returns what to send to a service when segments carry mss bytes:
// more than one segment, as far as the service's limits permit.
func requestTo(service string, target netip.Addr, mss int) []byte {
	size := max(mss, 0) + surplus
	switch service {
	case serviceTLS:
		return clientHello(size)
	case serviceSSH:
		return keyExchange(size)
	case serviceHTTP:
		return get(target, size)
	}
	return nil
}

// progress is how much of an answer has come.
type progress int

const (
	waiting progress = iota // more must come, of which nothing has begun
	partial                 // ends within a part that a server sends at once
	paused                  // ends where it may end, or go on
	whole
	flowing // more than is worth reading
	strange // not an answer that is known
)

// progressOf tells by its shape what an answer is, for a port may serve what
// its number does not say.
func progressOf(b []byte) progress {
	switch {
	case len(b) == 0:
		return waiting
	case isPrefix(b, sshPrefix):
		return sshProgress(b)
	case isPrefix(b, httpPrefix):
		return httpProgress(b)
	case isRecord(b):
		return tlsProgress(b)
	}
	return strange
}

// isPrefix reports whether b begins with prefix, or ends within it.
func isPrefix(b, prefix []byte) bool {
	n := min(len(b), len(prefix))
	return bytes.Equal(b[:n], prefix[:n])
}
