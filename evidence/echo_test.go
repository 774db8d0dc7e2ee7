package evidence

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// pings makes one result per character: "." answered, "x" lost, "e" not sent,
// "l" lost and answered late.
func pings(s string) []EchoResult {
	var out []EchoResult
	for i, c := range s {
		r := EchoResult{Target: netip.MustParseAddr("192.0.2.1"), Sent: start.Add(time.Duration(i) * time.Second)}
		switch c {
		case '.':
			r.Outcome, r.RTT = EchoReply, 10*time.Millisecond
		case 'x', 'l':
			r.Outcome = EchoLost
		case 'e':
			r.Outcome, r.Send = EchoSendError, NoRoute
		}
		out = append(out, r)
		if c == 'l' {
			out = append(out, EchoResult{Target: r.Target, Sent: r.Sent, Late: true, RTT: 3 * time.Second})
		}
	}
	return out
}

func TestSummarizeEcho(t *testing.T) {
	tests := []struct {
		pings                                                  string
		replies, lost, outage, longest, trailing, unsent, late int
		since                                                  int // index of AnsweringSince; -1: null
	}{
		{"", 0, 0, 0, 0, 0, 0, 0, -1},
		{"....", 4, 0, 0, 0, 0, 0, 0, 0},
		{"..x.", 3, 1, 0, 1, 0, 0, 0, 0},
		{"..xx", 2, 2, 0, 2, 2, 0, 0, 0},
		{"..xxx", 2, 3, 0, 3, 3, 0, 0, -1},
		{".xxxxx.", 2, 5, 5, 5, 0, 0, 0, 6},
		{".xxxx.x.", 3, 5, 0, 4, 0, 0, 0, 5},
		{"xxxxx", 0, 5, 5, 5, 5, 0, 0, -1},
		{"..xexx", 2, 3, 0, 2, 4, 1, 0, -1},
		{"eee", 0, 0, 0, 0, 3, 3, 0, -1},
		{"llll", 0, 4, 0, 1, 0, 0, 4, 0},
	}
	for _, tt := range tests {
		s := SummarizeEcho(pings(tt.pings), time.Time{})
		since := -1
		if at, ok := s.AnsweringSince.Get(); ok {
			since = int(at.Sub(start) / time.Second)
		}
		got := [...]int{s.Replies, s.Lost, s.InOutages, s.LongestRun, s.Trailing, s.TrailingUnsent, s.Late, since}
		want := [...]int{tt.replies, tt.lost, tt.outage, tt.longest, tt.trailing, tt.unsent, tt.late, tt.since}
		if got != want {
			t.Errorf("%q: replies, lost, in outages, longest, trailing, unsent, late, since are %v, want %v", tt.pings, got, want)
		}
		unsent := 0
		for _, n := range s.SendErrors {
			unsent += n
		}
		if s.Sent != s.Replies+s.Lost+unsent {
			t.Errorf("%q: %d sent, but %d replies, %d lost, %d send errors", tt.pings, s.Sent, s.Replies, s.Lost, unsent)
		}
	}
}

func TestSummarizeEchoWindow(t *testing.T) {
	if s := SummarizeEcho(pings("xxxx...."), start.Add(4*time.Second)); s.Sent != 4 || s.Lost != 0 {
		t.Errorf("%d sent and %d lost since the fifth ping, want 4 and 0", s.Sent, s.Lost)
	}
}

func TestSADelta(t *testing.T) {
	in := func(spi uint32, protocol string, created time.Time, n uint64) SA {
		return SA{SPI: spi, Inbound: true, Protocol: protocol, Created: created, Packets: n, Bytes: 100 * n}
	}
	before := []SA{in(1, "esp", start, 10), {SPI: 9, Protocol: "esp", Created: start, Packets: 5}}
	tests := []struct {
		name    string
		after   []SA
		in, out uint64
	}{
		{"nothing passed", before, 0, 0},
		{"both ways", []SA{in(1, "esp", start, 12), {SPI: 9, Protocol: "esp", Created: start, Packets: 6}}, 2, 1},
		{"rekeyed, the old one lingers", []SA{in(1, "esp", start, 11), in(2, "esp", start, 3)}, 4, 0},
		{"rekeyed, the old one gone", []SA{in(2, "esp", start, 3)}, 3, 0},
		{"the SPI used again by a busier SA", []SA{in(1, "esp", start.Add(time.Hour), 20)}, 20, 0},
		{"the same SPI of another protocol", []SA{in(1, "esp", start, 10), in(1, "ah", start, 4)}, 4, 0},
	}
	for _, tt := range tests {
		in, out := SADelta(before, tt.after)
		if in.Packets != tt.in || out.Packets != tt.out {
			t.Errorf("%s: %d in and %d out, want %d and %d", tt.name, in.Packets, out.Packets, tt.in, tt.out)
		}
	}
}

// TestUnknownIsNull wants what was not observed to read as null, and to come
// back as not observed.
func TestUnknownIsNull(t *testing.T) {
	type all struct {
		Fact Fact
		MTU  Opt[int]
		RTT  Opt[Seconds]
	}
	b, err := json.Marshal(all{})
	if err != nil || string(b) != `{"Fact":null,"MTU":null,"RTT":null}` {
		t.Errorf("unknown reads as %s, %v", b, err)
	}
	known := all{No, Some(1400), Some(Seconds(511 * time.Microsecond))}
	if b, err = json.Marshal(known); err != nil || string(b) != `{"Fact":false,"MTU":1400,"RTT":0.000511}` {
		t.Errorf("known reads as %s, %v", b, err)
	}
	var back all
	if err := json.Unmarshal(b, &back); err != nil || back != known {
		t.Errorf("read back as %+v, %v", back, err)
	}
	var fact Fact
	if err := json.Unmarshal([]byte(`"maybe"`), &fact); err == nil {
		t.Error("a fact that is neither true, false nor null was accepted")
	}
}
