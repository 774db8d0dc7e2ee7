package probe

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"vpnprobe/evidence"
)

// controlMessage is one ancillary message as the kernel lays it out.
func controlMessage(level, typ int, data []byte) []byte {
	b := make([]byte, unix.CmsgSpace(len(data)))
	binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(len(data))))
	binary.NativeEndian.PutUint32(b[8:], uint32(level))
	binary.NativeEndian.PutUint32(b[12:], uint32(typ))
	copy(b[unix.CmsgLen(0):], data)
	return b
}

// extendedError is a struct sock_extended_err and a sockaddr_in behind it.
func extendedError(origin, typ, code byte, info uint32, offender [4]byte) []byte {
	b := make([]byte, 32)
	b[4], b[5], b[6] = origin, typ, code
	binary.NativeEndian.PutUint32(b[8:], info)
	binary.NativeEndian.PutUint16(b[16:], unix.AF_INET)
	copy(b[20:], offender[:])
	return b
}

func TestParseExtendedError(t *testing.T) {
	full := extendedError(2, 3, 4, 1400, [4]byte{192, 0, 2, 254})
	hop := evidence.Some(netip.MustParseAddr("192.0.2.254"))
	for _, tt := range []struct {
		name string
		oob  []byte
		want evidence.ICMPError
		ok   bool
	}{
		{"whole", controlMessage(unix.SOL_IP, unix.IP_RECVERR, full),
			evidence.ICMPError{Reason: evidence.FragNeeded, Type: 3, Code: 4, MTU: evidence.Some(1400), Offender: hop}, true},
		{"behind another", append(controlMessage(unix.SOL_IP, unix.IP_TTL, make([]byte, 4)), controlMessage(unix.SOL_IP, unix.IP_RECVERR, full)...),
			evidence.ICMPError{Reason: evidence.FragNeeded, Type: 3, Code: 4, MTU: evidence.Some(1400), Offender: hop}, true},
		{"without an offender", controlMessage(unix.SOL_IP, unix.IP_RECVERR, full[:16]),
			evidence.ICMPError{Reason: evidence.FragNeeded, Type: 3, Code: 4, MTU: evidence.Some(1400)}, true},
		{"local", controlMessage(unix.SOL_IP, unix.IP_RECVERR, extendedError(1, 0, 0, 1400, [4]byte{})), evidence.ICMPError{}, false},
		{"cut", controlMessage(unix.SOL_IP, unix.IP_RECVERR, full[:15]), evidence.ICMPError{}, false},
		{"nothing", nil, evidence.ICMPError{}, false},
	} {
		if got, ok := parseExtendedError(tt.oob, false); got != tt.want || ok != tt.ok {
			t.Errorf("%s: %+v, %v, want %+v, %v", tt.name, got, ok, tt.want, tt.ok)
		}
	}
}

// What hops quote is theirs to choose.
func FuzzParseQuote(f *testing.F) {
	f.Add([]byte{8, 0, 1, 2, 3, 4, 0, 0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88}, false)
	f.Add([]byte{128, 0, 1, 2, 3, 4, 0, 0}, true)
	f.Fuzz(func(t *testing.T, b []byte, v6 bool) {
		e, ok := parseQuote(b, v6)
		if ok && len(b) < 8 || !ok && !e.stamp.IsZero() {
			t.Errorf("parseQuote(%x, %v) = %v, %v", b, v6, e, ok)
		}
	})
}
