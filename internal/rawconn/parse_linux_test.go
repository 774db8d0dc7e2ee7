package rawconn

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// extendedErr builds a struct sock_extended_err with an offender.
func extendedErr(errno unix.Errno, origin, typ, code byte, info uint32, offender []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(errno))
	b = append(b, origin, typ, code, 0)
	b = binary.NativeEndian.AppendUint32(b, info)
	b = binary.NativeEndian.AppendUint32(b, 0)
	return append(b, offender...)
}

// sockaddrOf builds a struct sockaddr_in or sockaddr_in6.
func sockaddrOf(a netip.Addr) []byte {
	if a.Is4() {
		b := binary.NativeEndian.AppendUint16(nil, unix.AF_INET)
		return append(append(append(b, 0, 0), a.AsSlice()...), make([]byte, 8)...)
	}
	b := binary.NativeEndian.AppendUint16(nil, unix.AF_INET6)
	return append(append(append(b, make([]byte, 6)...), a.AsSlice()...), make([]byte, 4)...)
}

func TestParseExtendedErr(t *testing.T) {
	v4, v6 := netip.MustParseAddr("192.0.2.254"), netip.MustParseAddr("2001:db8::254")
	tests := []struct {
		name string
		b    []byte
		want *Error
	}{
		{"too big", extendedErr(unix.EMSGSIZE, originICMP, 3, 4, 1400, sockaddrOf(v4)),
			&Error{Errno: unix.EMSGSIZE, Type: 3, Code: 4, MTU: 1400, Offender: v4}},
		{"too big, IPv6", extendedErr(unix.EMSGSIZE, originICMP6, 2, 0, 1400, sockaddrOf(v6)),
			&Error{Errno: unix.EMSGSIZE, Type: 2, MTU: 1400, Offender: v6}},
		{"info of another error", extendedErr(unix.EHOSTUNREACH, originICMP, 11, 0, 1400, sockaddrOf(v4)),
			&Error{Errno: unix.EHOSTUNREACH, Type: 11, Offender: v4}},
		{"local", extendedErr(unix.EMSGSIZE, originLocal, 0, 0, 1500, sockaddrOf(v4)),
			&Error{Errno: unix.EMSGSIZE, Local: true, MTU: 1500}},
		{"no offender", extendedErr(unix.ECONNREFUSED, originICMP, 3, 3, 0, nil),
			&Error{Errno: unix.ECONNREFUSED, Type: 3, Code: 3}},
		{"offender of another family", extendedErr(unix.ECONNREFUSED, originICMP, 3, 3, 0, make([]byte, 28)),
			&Error{Errno: unix.ECONNREFUSED, Type: 3, Code: 3}},
		{"time stamp", extendedErr(unix.ENOMSG, 4, 0, 0, 0, nil), nil},
		{"short", extendedErr(unix.ECONNREFUSED, originICMP, 3, 3, 0, nil)[:15], nil},
	}
	for _, tt := range tests {
		got, ok := parseExtendedErr(tt.b)
		if ok != (tt.want != nil) || ok && *got != *tt.want {
			t.Errorf("%s: got %+v, %v: want %+v", tt.name, got, ok, tt.want)
		}
	}
}

func FuzzParseErrorQueue(f *testing.F) {
	f.Add([]byte{}, []byte{})
	f.Add(extendedErr(unix.EMSGSIZE, originICMP, 3, 4, 1400, sockaddrOf(netip.MustParseAddr("192.0.2.254"))), []byte{0x45})
	f.Fuzz(func(t *testing.T, oob, packet []byte) {
		parseErrorQueue(oob)
		if e, ok := parseExtendedErr(oob); ok && e.Local && e.Offender.IsValid() {
			t.Error("a local error has an offender")
		}
		for _, echo := range []Echo{{}, {raw: true}, {v6: true}, {v6: true, raw: true}} {
			for _, ev := range []Event{{Data: packet}, {Data: packet, Err: &Error{}}} {
				if got, ok := echo.parse(ev); ok && got.Err == nil && got.Size > maxPacket+HeaderLen(true) && len(packet) <= maxPacket {
					t.Errorf("a reply of %d bytes", got.Size)
				}
			}
		}
	})
}

func TestEchoParse(t *testing.T) {
	e := Echo{id: 0x1234, cookie: [8]byte{1, 2, 3, 4, 5, 6, 7, 8}}
	rawEcho := e
	rawEcho.raw = true
	message := func(typ byte, id, seq uint16, data ...byte) []byte {
		b := []byte{typ, 0, 0, 0}
		b = binary.BigEndian.AppendUint16(b, id)
		b = binary.BigEndian.AppendUint16(b, seq)
		return append(b, data...)
	}
	behindIP := func(b []byte) []byte {
		return append(append([]byte{0x46}, make([]byte, 23)...), b...) // with options
	}
	const reply, request = 0, 8
	tests := []struct {
		name string
		e    Echo
		data []byte
		err  *Error
		seq  uint16
		ok   bool
	}{
		{"reply", e, message(reply, 0x1234, 7, e.cookie[:]...), nil, 7, true},
		{"reply, raw", rawEcho, behindIP(message(reply, 0x1234, 7, e.cookie[:]...)), nil, 7, true},
		{"another's reply", e, message(reply, 0x1235, 7, e.cookie[:]...), nil, 0, false},
		{"another's data", e, message(reply, 0x1234, 7, 8, 7, 6, 5, 4, 3, 2, 1), nil, 0, false},
		{"no data", e, message(reply, 0x1234, 7), nil, 0, false},
		{"a request", e, message(request, 0x1234, 7, e.cookie[:]...), nil, 0, false},
		{"error", e, message(request, 0x1234, 7, e.cookie[:]...), &Error{Type: 11}, 7, true},
		{"error, shortest quote", e, message(request, 0x1234, 7), &Error{Type: 11}, 7, true},
		{"error about another's", e, message(request, 0x1235, 7), &Error{Type: 11}, 0, false},
		{"error about another's data", e, message(request, 0x1234, 7, make([]byte, 8)...), &Error{Type: 11}, 0, false},
		{"error about a reply", e, message(reply, 0x1234, 7), &Error{Type: 11}, 0, false},
		{"local error", e, nil, &Error{Local: true}, 0, true},
	}
	for _, tt := range tests {
		if got, ok := tt.e.parse(Event{Data: tt.data, Err: tt.err}); ok != tt.ok || got.Seq != tt.seq {
			t.Errorf("%s: got %+v, %v", tt.name, got, ok)
		}
	}
}
