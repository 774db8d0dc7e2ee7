package ikeconv

import (
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnprobe/evidence"
	"vpnprobe/internal/wire/ike"
)

// ourAddress is gateway a's in all captures but the one behind a NAT.
var ourAddress = netip.MustParseAddr("203.0.113.2")

// readCapture returns the IKE messages of a capture, of the side with an
// address and others.
func readCapture(t testing.TB, file string, our netip.Addr) []Message {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const fileHeader, recordHeader = 24, 16
	if len(b) < fileHeader || binary.LittleEndian.Uint32(b) != 0xa1b2c3d4 {
		t.Fatalf("%s: not a capture in little-endian microseconds", file)
	}
	var list []Message
	for b = b[fileHeader:]; len(b) >= recordHeader; {
		at := time.Unix(int64(binary.LittleEndian.Uint32(b)), 1000*int64(binary.LittleEndian.Uint32(b[4:]))).UTC()
		n := int(binary.LittleEndian.Uint32(b[8:]))
		if m, ok := readFrame(b[recordHeader:recordHeader+n], our); ok {
			m.Time = at
			list = append(list, m)
		}
		b = b[recordHeader+n:]
	}
	return list
}

// readFrame returns the IKE message of an Ethernet frame with IPv4 and UDP.
func readFrame(frame []byte, our netip.Addr) (Message, bool) {
	const ethernet, udp = 14, 8
	if len(frame) < ethernet+20+udp || binary.BigEndian.Uint16(frame[12:]) != 0x0800 {
		return Message{}, false
	}
	ip := frame[ethernet:]
	ip = ip[:binary.BigEndian.Uint16(ip[2:])]
	if ip[9] != 17 {
		return Message{}, false
	}
	from, _ := netip.AddrFromSlice(ip[12:16])
	b := ip[int(ip[0]&0x0f)*4:]
	m := Message{Ours: from == our, LocalPort: binary.BigEndian.Uint16(b), RemotePort: binary.BigEndian.Uint16(b[2:]), Data: b[udp:]}
	if !m.Ours {
		m.LocalPort, m.RemotePort = m.RemotePort, m.LocalPort
	}
	if m.LocalPort == portNATT || m.RemotePort == portNATT {
		if m.Data, m.NATT = ike.CutNonESPMarker(m.Data); !m.NATT {
			return Message{}, false
		}
	} else if m.LocalPort != port && m.RemotePort != port {
		return Message{}, false
	}
	m.Size = len(m.Data)
	return m, true
}

// hear returns a conversation that heard messages, read as long after the last
// one as it takes to give up.
func hear(list []Message) (*Conversation, Reading) {
	c := New()
	var end time.Time
	for _, m := range list {
		c.Add(m)
		end = m.Time
	}
	return c, c.Snapshot(end.Add(10 * time.Second))
}

// The stages, short for the tables.
const (
	refused  = evidence.ReachedRefused
	authSent = evidence.ReachedAuthSent
	rejected = evidence.ReachedRejected
	ikeOnly  = evidence.ReachedIKE
	child    = evidence.ReachedChild
)

// wanted is what a case of a capture must come to.
type wanted struct {
	name    string
	suite   string // as chosen
	reached evidence.IKEReached
	answer  int // bytes of the encrypted answer
}

const (
	sha1s   = "aes128-sha1-modp2048"
	sha256s = "aes256-sha256-modp2048"
	sha384s = "aes256-sha384-ecp384"
	sha512s = "aes256-sha512-modp2048"
	gcms    = "aes256gcm16-prfsha256-ecp256"
	chachas = "chacha20poly1305-prfsha256-curve25519"
	tripled = "3des-sha1-modp2048"
)

// captured are the cases of the captures, in their order.
var captured = map[string][]wanted{
	"v2-strongswan-strongswan": {
		{"success", sha1s, child, 236}, {"key", sha1s, rejected, 76}, {"subnets", sha1s, ikeOnly, 140},
		{"success", sha256s, child, 240}, {"key", sha256s, rejected, 80}, {"subnets", sha256s, ikeOnly, 160},
		{"esp", sha256s, ikeOnly, 160}, {"our identity", sha256s, rejected, 80}, {"their identity", sha256s, rejected, 80},
		{"success", sha384s, child, 264}, {"key", sha384s, rejected, 88}, {"subnets", sha384s, ikeOnly, 184},
		{"success", sha512s, child, 288}, {"key", sha512s, rejected, 96}, {"subnets", sha512s, ikeOnly, 208},
		{"success", gcms, child, 230}, {"key", gcms, rejected, 65}, {"subnets", gcms, ikeOnly, 146}, {"esp", gcms, ikeOnly, 146},
		{"success", chachas, child, 230}, {"key", chachas, rejected, 65}, {"subnets", chachas, ikeOnly, 146},
		{"success", tripled, child, 220}, {"key", tripled, rejected, 68}, {"subnets", tripled, ikeOnly, 132},
		{"success by addresses", sha256s, child, 240}, {"subnets by addresses", sha256s, ikeOnly, 160},
	},
	"v2-strongswan-libreswan": {
		{"success", sha256s, child, 224}, {"key", sha256s, rejected, 80}, {"subnets", sha256s, ikeOnly, 144},
		{"success", gcms, child, 210}, {"key", gcms, rejected, 65}, {"subnets", gcms, ikeOnly, 126},
		{"our identity", sha256s, rejected, 80},
		{"their identity, which a refuses", sha256s, rejected, 224},
		{"success by addresses", sha256s, child, 224},
	},
	"v2-libreswan-strongswan": {
		{"success", chachas, child, 210}, {"key", chachas, rejected, 65}, {"subnets", chachas, ikeOnly, 126},
		{"esp", chachas, ikeOnly, 126}, {"our identity", sha256s, rejected, 80},
	},
	"v2-libreswan-libreswan": {
		{"success", gcms, child, 210}, {"key", gcms, rejected, 65}, {"subnets", gcms, ikeOnly, 126}, {"esp", gcms, ikeOnly, 126},
		{"success", sha384s, child, 248}, {"key", sha384s, rejected, 88}, {"subnets", sha384s, ikeOnly, 168},
		{"their identity, which a refuses", gcms, rejected, 210},
	},
	"v1-strongswan-strongswan": {
		{"success", sha256s, child, 92}, {"key", sha256s, rejected, 92}, {"subnets", sha256s, ikeOnly, 92},
		{"their identity, which a refuses", sha256s, rejected, 92},
		{"aggressive, success", sha256s, child, 0}, {"aggressive, key", sha256s, rejected, 108}, {"aggressive, esp", sha256s, ikeOnly, 92},
	},
	"v1-strongswan-libreswan": {
		{"key, and silence", tripled, rejected, 0}, {"esp", sha256s, ikeOnly, 76},
		{"our identity", sha256s, rejected, 76}, {"their identity, which a refuses", sha256s, rejected, 92},
	},
	"v1-libreswan-libreswan": {
		{"success, slowly", sha256s, child, 92}, {"key, and silence", sha256s, rejected, 0},
		{"their identity, which a refuses", sha256s, rejected, 92},
		{"aggressive, key, refused in clear", sha256s, rejected, 0}, {"aggressive, esp", sha256s, ikeOnly, 76},
	},
	"v1-libreswan-strongswan": {{"key", sha256s, rejected, 92}, {"subnets", sha256s, ikeOnly, 92}},
	"v2-special": {
		{"another group", sha256s, child, 240}, {"no group", "", refused, 0}, {"no proposal", "", refused, 0},
		{"several proposals", sha256s, child, 240}, {"rekey without a group in common", sha256s, child, 240},
		{"fragments", sha256s, ikeOnly, 688},
		{"certificates, success", sha256s, ikeOnly, 1416}, {"certificates, subnets", sha256s, ikeOnly, 1248},
		{"certificates, identity", sha256s, rejected, 80},
	},
}

// cases returns the messages of a capture by its cases.
func cases(t testing.TB, name string) [][]Message {
	t.Helper()
	var list [][]Message
	for _, m := range readCapture(t, filepath.Join("testdata", name+".pcap"), ourAddress) {
		if i := m.Time.Hour()*60 + m.Time.Minute(); i == len(list) {
			list = append(list, nil)
		}
		list[len(list)-1] = append(list[len(list)-1], m)
	}
	return list
}

// What real daemons said, refused and set up is told from outside, by whichever
// side is watched.
func TestCaptures(t *testing.T) {
	for name, want := range captured {
		list := cases(t, name)
		if len(list) != len(want) {
			t.Errorf("%s: %d cases, want %d", name, len(list), len(want))
			continue
		}
		for i, want := range want {
			for _, our := range []bool{true, false} {
				messages := slices.Clone(list[i])
				for j := range messages {
					messages[j].Ours = messages[j].Ours == our
				}
				_, r := hear(messages)
				k := r.Since(Reading{})
				n := newest(t, k)
				if n.Reached != want.reached || n.AnswerBytes != want.answer || n.Suite != want.suite || n.Ours != our {
					t.Errorf("%s, case %d, %s:\n got %+v\nwant %+v", name, i, want.name, n, want)
				}
				plain := !strings.HasPrefix(want.name, "certificates")
				if childRefused := plain && want.reached == ikeOnly && want.name != "fragments"; childRefused != (n.ChildRefused == evidence.Yes) {
					t.Errorf("%s, case %d, %s: child refused: %v", name, i, want.name, n.ChildRefused)
				}
				if refuses := strings.HasSuffix(want.name, "which a refuses"); refuses != (n.InitiatorRefused == evidence.Yes) {
					t.Errorf("%s, case %d, %s: refused by the initiator: %v", name, i, want.name, n.InitiatorRefused)
				}
				if long := !plain || want.name == "fragments"; long != (n.Certificates == evidence.Yes) {
					t.Errorf("%s, case %d, %s: certificates: %v", name, i, want.name, n.Certificates)
				}
				if int(k.Attempts) != n.Repeated {
					t.Errorf("%s, case %d, %s: %d attempts, %d of them ended at the same stage", name, i, want.name, k.Attempts, n.Repeated)
				}
				if a, b := k.Out, k.In; a.Requests+b.Requests != a.Answered+b.Answered+a.Unanswered+b.Unanswered {
					t.Errorf("%s, case %d, %s: unresolved requests: %+v %+v", name, i, want.name, a, b)
				}
			}
		}
	}
}

// TestLife follows two daemons through rekeys, lost messages and deletes. The
// counts were made by hand, from tshark's list of the messages.
func TestLife(t *testing.T) {
	for _, tt := range []struct {
		name                  string
		rekeys                uint64
		out, in               evidence.IKEDirection
		measuredOut, measured int
	}{
		{"life-v2-libreswan-libreswan", 3,
			evidence.IKEDirection{Requests: 12, Retransmissions: 13, Answered: 11, Unanswered: 1, Deletes: 2, DPD: evidence.IKEDPD{Requests: 6, Answered: 5, Missed: 1}},
			evidence.IKEDirection{Requests: 14, Retransmissions: 6, Answered: 13, Unanswered: 1, Deletes: 1, DPD: evidence.IKEDPD{Requests: 12, Answered: 11, Missed: 1}},
			5, 11},
		{"life-v2-strongswan-strongswan", 3,
			evidence.IKEDirection{Requests: 11, Retransmissions: 2, Answered: 10, Unanswered: 1, Deletes: 4, DPD: evidence.IKEDPD{Requests: 3, Answered: 2, Missed: 1}},
			evidence.IKEDirection{Requests: 23, Answered: 23, Deletes: 1, DPD: evidence.IKEDPD{Requests: 21, Answered: 21}},
			2, 21},
		{"life-v1-strongswan-strongswan", 3,
			evidence.IKEDirection{Requests: 18, Retransmissions: 3, Answered: 16, Unanswered: 2, Deletes: 3, DPD: evidence.IKEDPD{Requests: 10, Answered: 8, Missed: 2}},
			evidence.IKEDirection{Requests: 21, Retransmissions: 3, Answered: 20, Unanswered: 1, DPD: evidence.IKEDPD{Requests: 20, Answered: 19, Missed: 1}},
			8, 18},
	} {
		_, r := hear(readCapture(t, filepath.Join("testdata", tt.name+".pcap"), ourAddress))
		k := r.Since(Reading{})
		if len(k.Out.DPD.RTTs) != tt.measuredOut || len(k.In.DPD.RTTs) != tt.measured {
			t.Errorf("%s: %d and %d RTTs, want %d and %d", tt.name, len(k.Out.DPD.RTTs), len(k.In.DPD.RTTs), tt.measuredOut, tt.measured)
		}
		for _, rtt := range slices.Concat(k.Out.DPD.RTTs, k.In.DPD.RTTs) {
			if rtt <= 0 || rtt > evidence.Seconds(500*time.Millisecond) {
				t.Errorf("%s: RTT of %v", tt.name, rtt.Duration())
			}
		}
		k.Out.DPD.RTTs, k.In.DPD.RTTs = nil, nil
		if d := cmp.Diff(tt.out, k.Out); d != "" {
			t.Errorf("%s, out (-want +got):\n%s", tt.name, d)
		}
		if d := cmp.Diff(tt.in, k.In); d != "" {
			t.Errorf("%s, in (-want +got):\n%s", tt.name, d)
		}
		if k.Rekeys != tt.rekeys || k.RekeysFailed != 0 {
			t.Errorf("%s: %d rekeys, %d failed, want %d", tt.name, k.Rekeys, k.RekeysFailed, tt.rekeys)
		}
	}
}

// What passes in clear is read: proposals, and refusals.
func TestSpecial(t *testing.T) {
	list := cases(t, "v2-special")
	talk := func(i int) evidence.IKETalk {
		_, r := hear(list[i])
		return r.Since(Reading{})
	}
	for i, want := range map[int]evidence.WireOffer{
		0: {Proposals: 1, Text: "aes256-sha256-modp2048-ecp256", Multiple: []string{"dh_group"}, Answered: evidence.Yes},
		1: {Proposals: 1, Text: "aes256-sha256-ecp256", Answered: evidence.No},
		2: {Proposals: 1, Text: "aes128-sha1-modp3072", Answered: evidence.No},
		3: {
			Proposals: 2, Text: "aes256-aes128-sha256-sha1-modp2048-ecp256,aes256gcm16-prfsha256-ecp256",
			Multiple: []string{"encryption", "integrity", "prf", "dh_group", "proposal"}, Answered: evidence.Yes,
		},
	} {
		want.Ours, want.Version = true, 2
		k := talk(i)
		if len(k.Offers) != 1 {
			t.Fatalf("case %d: offers %+v", i, k.Offers)
		}
		want.Time = k.Offers[0].Time
		if d := cmp.Diff(want, k.Offers[0]); d != "" {
			t.Errorf("case %d (-want +got):\n%s", i, d)
		}
	}
	if k := talk(0); k.Notifies[0].Name != "INVALID_KE_PAYLOAD" || k.Out.Requests != 5 || k.Out.Retransmissions != 0 {
		t.Errorf("another group: %+v, %+v", k.Out, k.Notifies)
	}
	if k := talk(4); k.Rekeys != 0 || k.RekeysFailed != 1 {
		t.Errorf("rekey without a group in common: %d rekeys, %d failed", k.Rekeys, k.RekeysFailed)
	}
	if k := talk(5); k.Out.Requests != 3 || k.Out.Retransmissions != 0 || k.Out.Answered != 3 {
		t.Errorf("fragments: %+v", k.Out)
	}
}
