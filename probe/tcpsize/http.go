package tcpsize

import (
	"bytes"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// maxField and maxFields bound a header, in bytes: servers take lines of 4 KiB
// and whole headers of 8 KiB at least, and answer longer ones with an error.
const (
	maxField  = 4000
	maxFields = 7000
)

// get returns a request of size bytes, as far as servers take it, for as little
// of an answer as they permit.
func get(target netip.Addr, size int) []byte {
	size = min(size, maxFields)
	var b strings.Builder
	host := target.WithZone("").String()
	if target.Is6() {
		host = "[" + host + "]"
	}
	b.WriteString("GET / HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: vpnprobe\r\nAccept: */*\r\n" +
		"Range: bytes=0-16383\r\nConnection: close\r\n")
	for i := 0; b.Len()+len("\r\n") < size; i++ {
		name := fmt.Sprintf("X-Size-%d: ", i)
		value := size - b.Len() - len("\r\n") - len(name) - len("\r\n")
		b.WriteString(name + strings.Repeat("0", min(max(value, 0), maxField)) + "\r\n")
	}
	return []byte(b.String() + "\r\n")
}

var httpPrefix = []byte("HTTP/1.")

// maxHTTPHeader bounds the header of an answer, in bytes.
const maxHTTPHeader = 32 << 10

// httpProgress follows an answer (RFC 9112 section 6.3). A server may pause
// anywhere in it, as programs write it piece by piece. One that has no length
// ends with the connection only: it may always go on.
func httpProgress(b []byte) progress {
	header, body, found := bytes.Cut(b, []byte("\r\n\r\n"))
	switch {
	case !found && len(b) > maxHTTPHeader:
		return strange
	case !found:
		return waiting
	}
	lines := bytes.Split(header, []byte("\r\n"))
	if f := bytes.Fields(lines[0]); len(f) >= 2 && (string(f[1]) == "204" || string(f[1]) == "304") {
		return whole
	}
	length := -1
	for _, l := range lines[1:] {
		name, value, _ := bytes.Cut(l, []byte(":"))
		value = bytes.TrimSpace(value)
		switch strings.ToLower(string(name)) {
		case "transfer-encoding":
			return chunkedProgress(body)
		case "content-length":
			n, err := strconv.ParseUint(string(value), 10, 31)
			if err != nil {
				return strange
			}
			length = int(n)
		}
	}
	switch {
	case length < 0:
		return strange
	case len(body) < length:
		return waiting
	}
	return whole
}

// chunkedProgress follows a body in chunks (RFC 9112 section 7.1) up to the
// last, which is empty.
func chunkedProgress(b []byte) progress {
	for {
		line, rest, found := bytes.Cut(b, []byte("\r\n"))
		if !found {
			if len(line) > maxField {
				return strange
			}
			return waiting
		}
		size, _, _ := bytes.Cut(line, []byte(";"))
		n, err := strconv.ParseUint(string(bytes.TrimSpace(size)), 16, 31)
		if err != nil {
			return strange
		}
		if n == 0 {
			return whole
		}
		if uint64(len(rest)) < n+2 {
			return waiting
		}
		b = rest[n+2:]
	}
}
