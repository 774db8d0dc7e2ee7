package hoststate

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"vpnprobe/evidence"
)

func status(errno int32) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(errno)) }

func TestVisitMessages(t *testing.T) {
	single := appendMessage(nil, 16, 0, []byte("abcd"))
	multi := appendMessage(nil, 16, unix.NLM_F_MULTI, []byte("abcd"))
	join := func(parts ...[]byte) (b []byte) {
		for _, p := range parts {
			b = append(b, p...)
		}
		return b
	}
	tooLong := appendMessage(nil, 16, 0, nil)
	binary.NativeEndian.PutUint32(tooLong, 1<<31)
	zero := appendMessage(nil, 16, 0, nil)
	binary.NativeEndian.PutUint32(zero, 0)
	tests := []struct {
		name   string
		b      []byte
		visits int
		done   bool
		err    error
	}{
		{"single", single, 1, true, nil},
		{"part of a dump", join(multi, multi), 2, false, nil},
		{"end of a dump", join(multi, appendMessage(nil, unix.NLMSG_DONE, 0, status(0))), 1, true, nil},
		{"failed dump", join(multi, appendMessage(nil, unix.NLMSG_DONE, 0, status(-int32(unix.EPERM)))), 1, true, unix.EPERM},
		{"bare end", appendMessage(nil, unix.NLMSG_DONE, 0, nil), 0, true, nil},
		{"error", appendMessage(nil, unix.NLMSG_ERROR, 0, status(-int32(unix.EACCES))), 0, true, unix.EACCES},
		{"success", appendMessage(nil, unix.NLMSG_ERROR, 0, status(0)), 0, true, nil},
		{"noop", join(appendMessage(nil, unix.NLMSG_NOOP, 0, nil), single), 1, true, nil},
		{"bare error", appendMessage(nil, unix.NLMSG_ERROR, 0, nil), 0, true, errMalformed},
		{"cut header", single[:15], 0, false, errMalformed},
		{"cut payload", single[:19], 0, false, errMalformed},
		{"cut second", join(multi, multi[:17]), 1, false, errMalformed},
		{"hostile length", tooLong, 0, false, errMalformed},
		{"zero length", zero, 0, false, errMalformed},
		{"empty", nil, 0, false, nil},
	}
	for _, tt := range tests {
		visits := 0
		done, err := visitMessages(tt.b, func([]byte) bool { visits++; return true })
		if visits != tt.visits || done != tt.done || !errors.Is(err, tt.err) {
			t.Errorf("%s: %d visits, done %v, error %v; want %d, %v, %v", tt.name, visits, done, err, tt.visits, tt.done, tt.err)
		}
	}
}

// TestQueryOverwrites: what the kernel answered may be a key, and does not stay.
func TestQueryOverwrites(t *testing.T) {
	var payloads [][]byte
	if err := query(unix.NETLINK_ROUTE, unix.RTM_GETLINK, 0, linkByName("lo"), func(b []byte) bool {
		if l := parseLink(b); l.name != "lo" {
			t.Errorf("answered %+v", l)
		}
		payloads = append(payloads, b)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if len(payloads) != 1 || len(payloads[0]) == 0 {
		t.Fatalf("%d payloads", len(payloads))
	}
	if !bytes.Equal(payloads[0], make([]byte, len(payloads[0]))) {
		t.Errorf("the answer is still there: %q", payloads[0])
	}
}

func TestAttributesStopAtMalformed(t *testing.T) {
	good := appendAttribute(nil, 7, []byte("abcde"))
	for _, tt := range []struct {
		name string
		b    []byte
		want int
	}{
		{"two, one padded", append(append([]byte{}, good...), good...), 2},
		{"last unpadded", good[:9], 1},
		{"cut value", append(append([]byte{}, good...), good[:8]...), 1},
		{"cut header", good[:3], 0},
		{"length below its header", []byte{3, 0, 1, 0, 0, 0, 0, 0}, 0},
		{"length zero", make([]byte, 64), 0},
		{"length beyond", []byte{255, 255, 1, 0}, 0},
	} {
		n := 0
		for kind, value := range attributes(tt.b) {
			if n++; kind != 7 || string(value) != "abcde" {
				t.Errorf("%s: attribute %d %q", tt.name, kind, value)
			}
		}
		if n != tt.want {
			t.Errorf("%s: %d attributes, want %d", tt.name, n, tt.want)
		}
	}
}

// FuzzAnswer feeds one hostile datagram to every parser.
func FuzzAnswer(f *testing.F) {
	f.Add(appendMessage(nil, 16, unix.NLM_F_MULTI, stateFixture{alg: attrAlgAEAD, encap: encapESP, lastUsed: 9}.bytes()))
	f.Add(appendMessage(nil, 16, unix.NLM_F_MULTI, policyFixture{dst: "198.51.100.2", src: "192.0.2.1", mode: modeTunnel}.bytes()))
	f.Add(appendMessage(nil, unix.NLMSG_ERROR, 0, status(-13)))
	f.Add(appendMessage(nil, unix.RTM_NEWROUTE, 0, append(make([]byte, 12), appendAttribute(nil, unix.RTA_VIA, []byte{2, 0, 1, 2, 3, 4})...)))
	f.Add(appendMessage(nil, unix.RTM_NEWLINK, 0, append(make([]byte, 16), appendAttribute(nil, unix.IFLA_LINKINFO, appendAttribute(nil, unix.IFLA_INFO_KIND, []byte("tun\x00")))...)))
	e := endpoints{gateway: []netip.Addr{addr("198.51.100.2"), addr("2001:db8::2")}}
	f.Fuzz(func(t *testing.T, b []byte) {
		messages := 0
		visitMessages(b, func(payload []byte) bool {
			messages++
			if sa, ok := parseSA(payload); ok && (sa.SPI == 0 || sa.Protocol == "" || sa.Created.Year() > 9999) {
				t.Errorf("accepted %+v", sa)
			}
			policyTowards(payload, e)
			parseRoute(payload)
			parseNeighbour(payload)
			if l := parseLink(payload); l.tunnel() == evidence.Unknown && l.kind != "ppp" && l.hardware != unix.ARPHRD_PPP {
				t.Errorf("undecided about %+v", l)
			}
			return true
		})
		if limit := len(b) / unix.SizeofNlMsghdr; messages > limit {
			t.Errorf("%d messages in %d bytes", messages, len(b))
		}
	})
}
