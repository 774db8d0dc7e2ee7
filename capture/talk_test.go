package capture

import (
	"encoding/binary"
	"testing"
	"time"

	"vpnprobe/evidence"
)

// request is an IKE_SA_INIT by the initiator, of n bytes.
func request(n int, id byte) []byte {
	b := make([]byte, n)
	copy(b, "initiat")
	b[7] = id
	b[16], b[17], b[18], b[19] = 40, 0x20, 34, 0x08 // a nonce comes first
	b[29], b[30], b[31] = 0, byte(n-28>>8), byte(n-28)
	binary.BigEndian.PutUint32(b[24:], uint32(n))
	return b
}

func TestTalk(t *testing.T) {
	type counted struct{ in, out uint64 }
	msg := request(300, 1)
	for name, tc := range map[string]struct {
		ip   []byte
		want counted
	}{
		"ours":              {ip4(host4, peer4, 17, udp(500, 500, msg)), counted{0, 1}},
		"the peer's":        {ip4(peer4, host4, 17, udp(500, 500, msg)), counted{1, 0}},
		"in udp":            {ip4(host4, peer4, 17, udp(4500, 4500, marked(msg))), counted{0, 1}},
		"peer behind a nat": {ip4(peer4, host4, 17, udp(61234, 4500, marked(msg))), counted{1, 0}},
		"ipv6":              {ip6(host6, peer6, 17, udp(500, 500, msg)), counted{0, 1}},
		"to itself":         {ip4(peer4, peer4, 17, udp(500, 500, msg)), counted{}},
		"an agent's probe":  {ip4(host4, peer4, 17, udp(40000, 500, msg)), counted{}},
		"and its answer":    {ip4(peer4, host4, 17, udp(500, 40000, msg)), counted{}},
		"of a neighbour":    {ip4(host4, other4, 17, udp(500, 500, msg)), counted{}},
	} {
		o := NewObserver(testPeers)
		f := received(tc.ip)
		o.Packet(f)
		talk := o.Counts("p").Since(Counts{}, evidence.No).Talk
		if got := (counted{talk.In.Requests, talk.Out.Requests}); got != tc.want {
			t.Errorf("%s: %+v requests, want %+v", name, got, tc.want)
		}
		if tc.want != (counted{}) {
			if n := run(t, o, f); n < len(f.Data) {
				t.Errorf("%s: the filter cuts %d bytes to %d", name, len(f.Data), n)
			}
		}
	}
}

// A request is given up when its time is over, though no frame comes.
func TestTalkSilence(t *testing.T) {
	for name, gap := range map[string]bool{"silence": false, "gap": true} {
		o := NewObserver(testPeers)
		show := func(after time.Duration) {
			f := received(ip4(host4, peer4, 17, udp(500, 500, request(300, 1))))
			f.Time = epoch.Add(after)
			o.Packet(f)
		}
		show(0)
		show(time.Second)
		if gap {
			o.Gap("wan")
		}
		early := o.CountsAt("p", epoch.Add(2*time.Second)).Since(Counts{}, evidence.No).Talk.Out
		late := o.CountsAt("p", epoch.Add(time.Minute)).Since(Counts{}, evidence.No).Talk.Out
		want := uint64(1)
		if gap {
			want = 0
		}
		if early.Unanswered != 0 || late.Unanswered != want || late.Retransmissions != 1 {
			t.Errorf("%s: early %+v, late %+v", name, early, late)
		}
	}
}
