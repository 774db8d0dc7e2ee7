package bpfcount

import (
	"encoding/binary"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// needRoot skips a test that loads programs where that is not permitted.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to load BPF programs")
	}
}

// run runs a command and returns what it says. A no-break space is one within a
// word.
func run(t testing.TB, command string) string {
	t.Helper()
	words := strings.Split(command, " ")
	for i := range words {
		words[i] = strings.ReplaceAll(words[i], "\u00a0", " ")
	}
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
	return string(out)
}

// The addresses of the tests.
var (
	host4  = netip.MustParseAddr("192.0.2.1")
	peer4  = netip.MustParseAddr("198.51.100.2")
	other4 = netip.MustParseAddr("203.0.113.9")
	inner4 = netip.MustParseAddr("10.2.0.10")
	host6  = netip.MustParseAddr("2001:db8:1::1")
	peer6  = netip.MustParseAddr("2001:db8:2::2")
	inner6 = netip.MustParseAddr("fd00:2::10")
)

// ipPacket describes an IP packet.
type ipPacket struct {
	src, dst netip.Addr
	proto    byte
	offset   int // of the fragment, in 8 bytes
	more     bool
	options  int    // bytes of IPv4 options
	headers  []byte // types of IPv6 extension headers, 8 bytes each; 44 is a fragment header
	payload  []byte
	length   int // stated, if not what it is
}

func (p ipPacket) bytes() []byte {
	if p.src.Is6() {
		return p.v6()
	}
	h := make([]byte, 20+p.options)
	h[0] = 0x40 | byte(len(h)/4)
	frag := uint16(p.offset)
	if p.more {
		frag |= 0x2000
	}
	n := len(h) + len(p.payload)
	if p.length != 0 {
		n = p.length
	}
	binary.BigEndian.PutUint16(h[2:], uint16(n))
	binary.BigEndian.PutUint16(h[6:], frag)
	h[8], h[9] = 64, p.proto
	copy(h[12:], p.src.AsSlice())
	copy(h[16:], p.dst.AsSlice())
	for i := 20; i < len(h); i++ {
		h[i] = 1 // no operation
	}
	binary.BigEndian.PutUint16(h[10:], checksum(h))
	return append(h, p.payload...)
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func (p ipPacket) v6() []byte {
	h := make([]byte, 40)
	h[0], h[7] = 0x60, 64
	copy(h[8:], p.src.AsSlice())
	copy(h[24:], p.dst.AsSlice())
	at := 6
	for _, typ := range p.headers {
		h[at] = typ
		at = len(h)
		h = append(h, make([]byte, 8)...)
		if typ == 44 {
			frag := uint16(p.offset) << 3
			if p.more {
				frag |= 1
			}
			binary.BigEndian.PutUint16(h[at+2:], frag)
		}
	}
	h[at] = p.proto
	n := len(h) - 40 + len(p.payload)
	if p.length != 0 {
		n = p.length
	}
	binary.BigEndian.PutUint16(h[4:], uint16(n))
	return append(h, p.payload...)
}

// ether puts an Ethernet header before an IP packet, with VLAN tags, and pads
// it to the shortest frame.
func ether(ip []byte, tags ...uint16) []byte {
	f := append(make([]byte, 0, 1600), 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2)
	for i, id := range tags {
		typ := uint16(0x8100)
		if i < len(tags)-1 {
			typ = 0x88a8
		}
		f = binary.BigEndian.AppendUint16(f, typ)
		f = binary.BigEndian.AppendUint16(f, id)
	}
	typ := uint16(0x0800)
	if ip[0]>>4 == 6 {
		typ = 0x86dd
	}
	f = append(binary.BigEndian.AppendUint16(f, typ), ip...)
	for len(f) < 60 {
		f = append(f, 0)
	}
	return f
}

func espData(spi, seq uint32, n int) []byte {
	b := binary.BigEndian.AppendUint32(nil, spi)
	b = binary.BigEndian.AppendUint32(b, seq)
	return append(b, make([]byte, n)...)
}

func ahData(spi, seq uint32, n int) []byte {
	return append([]byte{4, 4, 0, 0}, espData(spi, seq, n)...)
}

func udpData(src, dst uint16, data []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, src)
	b = binary.BigEndian.AppendUint16(b, dst)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(data)))
	return append(append(b, 0, 0), data...)
}
