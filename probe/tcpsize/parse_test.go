package tcpsize

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"bufio"
)

func record(typ byte, body string) string {
	return string(append([]byte{typ, 3, 3, byte(len(body) >> 8), byte(len(body))}, body...))
}

func TestProgress(t *testing.T) {
	done := "\x0e\x00\x00\x00"
	certificate := "\x0b\x00\x00\x04abcd"
	ssh := "SSH-2.0-x\r\n"
	for name, tc := range map[string]struct {
		answer string
		want   progress
	}{
		"nothing":                  {"", waiting},
		"not known":                {"220 mail ready\r\n", strange},
		"tls header in part":       {"\x16\x03", partial},
		"tls of another version":   {"\x16\x02\x00\x00\x01x", strange},
		"tls record too long":      {"\x16\x03\x03\xff\xff", strange},
		"tls record in part":       {record(22, certificate)[:9], partial},
		"tls message in part":      {record(22, certificate[:6]), partial},
		"tls message header":       {record(22, certificate[:3]), partial},
		"tls between messages":     {record(22, certificate), waiting},
		"tls asks for another":     {record(22, "\x02\x00\x00\x22\x03\x03"+string(retryRandom)+strings.Repeat("x", 16)), whole},
		"tls 1.2 done":             {record(22, certificate+done), whole},
		"tls 1.2 done in pieces":   {record(22, certificate[:6]) + record(22, certificate[6:]+done), whole},
		"tls alert":                {record(21, "\x02\x28"), whole},
		"tls 1.3":                  {record(22, certificate) + record(20, "\x01") + record(23, "xxxx"), paused},
		"tls 1.3 in part":          {record(22, certificate) + record(23, "xxxx")[:7], partial},
		"tls and then not":         {record(20, "\x01") + "HTTP", strange},
		"ssh begins":               {"SS", waiting},
		"ssh version":              {ssh, waiting},
		"ssh version without end":  {"SSH-" + strings.Repeat("x", maxSSHLines), strange},
		"ssh offer begins":         {"SSH-2.0-x\r\n\x00", partial},
		"ssh offer":                {ssh + string(sshPacket(sshOffers)), whole},
		"ssh offer in part":        {ssh + string(sshPacket(sshOffers)[:100]), partial},
		"ssh packet too long":      {ssh + "\xff\xff\xff\xff\x04\x14", strange},
		"ssh packet too short":     {ssh + "\x00\x00\x00\x01\x04\x14", strange},
		"ssh goodbye":              {ssh + "\x00\x00\x00\x0c\x04\x01", whole},
		"http header":              {"HTTP/1.1 200 OK\r\nContent-Le", waiting},
		"http header without end":  {"HTTP/1.1 200 OK\r\n" + strings.Repeat("x", maxHTTPHeader), strange},
		"http body":                {"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd", whole},
		"http body in part":        {"HTTP/1.1 200 OK\r\ncontent-length:4\r\n\r\nabc", waiting},
		"http body without length": {"HTTP/1.0 200 OK\r\n\r\nabc", strange},
		"http length is none":      {"HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\n", strange},
		"http without body":        {"HTTP/1.1 304 Not Modified\r\n\r\n", whole},
		"http chunks":              {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n", whole},
		"http chunks in part":      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1", waiting},
		"http chunk in part":       {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", waiting},
		"http chunk of nonsense":   {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", strange},
	} {
		if got := progressOf([]byte(tc.answer)); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
	}
}

// However an answer is cut, its beginning is never whole before it is: a
// shorter one is whole only where the longer one is, too.
func FuzzProgress(f *testing.F) {
	for _, s := range []string{
		record(22, "\x0b\x00\x00\x04abcd\x0e\x00\x00\x00"), "SSH-2.0-x\r\n" + string(sshPacket(sshOffers)),
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd", "",
	} {
		f.Add([]byte(s), 7)
	}
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		if len(b) > maxAnswer || cut < 0 || cut > len(b) {
			return
		}
		if progressOf(b[:cut]) == whole && progressOf(b) < paused {
			t.Errorf("%q is whole, and %q not", b[:cut], b)
		}
	})
}

func TestParseSYNACK(t *testing.T) {
	segment := func(flags byte, options ...byte) []byte {
		b := binary.BigEndian.AppendUint16(nil, 443)
		b = binary.BigEndian.AppendUint16(b, 50000)
		b = append(b, make([]byte, 16)...)
		b[12], b[13] = byte(5+len(options)/4)<<4, flags
		return append(b, options...)
	}
	for name, tc := range map[string]struct {
		b   []byte
		v6  bool
		mss int
		ok  bool
	}{
		"mss":               {segment(0x12, 2, 4, 5, 0x64), false, 1380, true},
		"mss behind others": {segment(0x52, 1, 3, 3, 7, 2, 4, 4, 0xc4), false, 1220, true},
		"no option":         {segment(0x12), false, 536, true},
		"no option, IPv6":   {segment(0x12), true, 1220, true},
		"behind the end":    {segment(0x12, 0, 0, 0, 0, 2, 4, 5, 0x64), false, 536, true},
		"syn only":          {segment(0x02, 2, 4, 5, 0x64), false, 0, false},
		"reset":             {segment(0x16, 2, 4, 5, 0x64), false, 0, false},
		"option of no size": {segment(0x12, 2, 0, 5, 0x64), false, 0, false},
		"option too long":   {segment(0x12, 2, 8, 5, 0x64), false, 0, false},
		"cut off":           {segment(0x12, 2, 4, 5, 0x64)[:22], false, 0, false},
		"too short":         {segment(0x12)[:19], false, 0, false},
		"empty":             {nil, false, 0, false},
	} {
		if mss, ok := parseSYNACK(tc.b, 443, 50000, tc.v6); mss != tc.mss || ok != tc.ok {
			t.Errorf("%s: %d, %v", name, mss, ok)
		}
	}
	if _, ok := parseSYNACK(segment(0x12), 443, 50001, false); ok {
		t.Error("of another connection")
	}
}

func FuzzSYNACK(f *testing.F) {
	f.Add([]byte{0x45, 0, 0, 0}, uint16(443), uint16(50000))
	f.Fuzz(func(t *testing.T, b []byte, from, to uint16) {
		if s, ok := skipIPv4(b); ok && len(s) > len(b)-20 {
			t.Error("grew")
		}
		if mss, ok := parseSYNACK(b, from, to, false); ok && (mss < 0 || mss > 0xffff) {
			t.Errorf("MSS %d", mss)
		}
	})
}

// A ClientHello of any size is one that a server takes, and of that size.
func TestClientHello(t *testing.T) {
	for _, size := range []int{600, 1588, 1660, 9148, maxHello, 1 << 20} {
		hello := clientHello(size)
		if len(hello) != min(size, maxHello) {
			t.Errorf("%d bytes, want %d", len(hello), size)
		}
		client, server := net.Pipe()
		go func() { _, _ = client.Write(hello) }()
		var got *tls.ClientHelloInfo
		err := tls.Server(server, &tls.Config{GetConfigForClient: func(i *tls.ClientHelloInfo) (*tls.Config, error) {
			got = i
			client.Close()
			return nil, nil
		}}).Handshake()
		if got == nil || got.SupportedVersions[0] != tls.VersionTLS13 {
			t.Errorf("%d bytes: %+v, %v", size, got, err)
		}
		server.Close()
	}
	if n := len(clientHello(0)); n < 200 || n > 512 {
		t.Errorf("a bare one has %d bytes", n)
	}
}

func TestKeyExchange(t *testing.T) {
	for _, size := range []int{0, 1588, 9148, 1 << 20} {
		b := keyExchange(size)
		if size > 1000 && size < maxSSHPacket && (len(b) < size || len(b) > size+64) {
			t.Errorf("%d bytes, want %d", len(b), size)
		}
		packet, ok := bytes.CutPrefix(b, []byte(sshVersion))
		if !ok || len(packet)%8 != 0 || len(packet) > maxSSHPacket || packet[4] < 4 {
			t.Errorf("%d bytes of packet, %d of padding", len(packet), packet[4])
		}
		if got := progressOf(b); got != whole {
			t.Errorf("%d: %d", size, got)
		}
		rest := packet[5+1+16 : len(packet)-int(packet[4])]
		for range 10 {
			n := binary.BigEndian.Uint32(rest)
			for name := range strings.SplitSeq(string(rest[4:4+n]), ",") {
				if len(name) > 64 {
					t.Errorf("name of %d bytes", len(name))
				}
			}
			rest = rest[4+n:]
		}
		if len(rest) != 5 {
			t.Errorf("%d bytes follow the lists", len(rest))
		}
	}
}

func TestGet(t *testing.T) {
	for _, size := range []int{0, 1588, 4300, 9148} {
		b := get(netip.MustParseAddr("fd00::1"), size)
		if size > 1000 && (len(b) < min(size, maxFields) || len(b) > min(size, maxFields)+64) {
			t.Errorf("%d bytes, want %d", len(b), size)
		}
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
		if err != nil || r.Host != "[fd00::1]" || r.Method != "GET" {
			t.Errorf("%+v, %v", r, err)
		}
	}
}

func TestServices(t *testing.T) {
	for port, want := range map[uint16]string{443: "tls", 8443: "tls", 80: "http", 8080: "http", 22: "", 5432: "", 25: ""} {
		if got := byPort(port); got != want {
			t.Errorf("%d: %q", port, got)
		}
	}
	if got := byGreeting([]byte("SSH-1.99-x")); got != "ssh" {
		t.Error(got)
	}
	if got := requestTo("", netip.Addr{}, 1460); got != nil {
		t.Errorf("%d bytes to an unknown service", len(got))
	}
}

func TestState(t *testing.T) {
	s := state{timestamps: true, sendMSS: 1368, advMSS: 1448, pathMTU: 1500}
	if s.announced() != 1460 {
		t.Error(s.announced())
	}
	if mss, ok := s.peerMSS(false).Get(); mss != 1380 || !ok {
		t.Error(mss, ok)
	}
	s.sendMSS = 1448 // what the path carries: the target may have announced more
	if mss, ok := s.peerMSS(false).Get(); ok {
		t.Error(mss)
	}
	s.sendMSS, s.pathMTU = 1428, 1500
	if mss, ok := s.peerMSS(true).Get(); ok {
		t.Error(mss)
	}
	began := state{receiveMSS: 536}
	for _, tc := range []struct {
		now  state
		want string
	}{
		{state{receiveMSS: 536}, "0 false"},
		{state{receiveMSS: 536, received: 99, segments: 1}, "99 true"},
		{state{receiveMSS: 536, received: 9999, segments: 9}, "0 false"},
		{state{receiveMSS: 1448, received: 9999, segments: 9}, "1448 true"},
	} {
		got, ok := tc.now.largestReceived(began).Get()
		if s := fmt.Sprint(got, ok); s != tc.want {
			t.Errorf("%+v: %s, want %s", tc.now, s, tc.want)
		}
	}
}
