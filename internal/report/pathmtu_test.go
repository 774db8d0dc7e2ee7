package report

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"vpnprobe/evidence"
)

// blockLines returns the blocks as lines, rows after a bar.
func blockLines(lang string, s *evidence.Snapshot) []string {
	var out []string
	t := text{Options: Options{Lang: lang}}
	for _, b := range t.pathBlocks(s) {
		out = append(out, b.title)
		for _, row := range b.rows {
			out = append(out, "| "+row[0]+": "+row[1])
		}
	}
	return out
}

// full is a path that takes what the link takes.
func full() evidence.PathMTU {
	return evidence.PathMTU{
		Role: evidence.Gateway, Target: addr("198.51.100.2"), Probe: evidence.MTUByICMP, State: evidence.MTUFull, MTU: evidence.Some(1500), LinkMTU: evidence.Some(1500),
		Cached: evidence.Some(1500), Packets: 7, Took: ms(20), Sizes: sizes(1500, 576, 1500), Small: evidence.Tried{Sent: 2, Answered: 2},
		Fragmented: evidence.FragmentedProbe{Tried: evidence.Tried{Sent: 1, Answered: 1}, Reversed: evidence.Tried{Sent: 1, Answered: 1}}, Cleared: evidence.No,
	}
}

func TestPathMTUShowsOnlyWhatIsAmiss(t *testing.T) {
	const title = "gateway 198.51.100.2: 1500, as the link, 7 packets in 20 ms"
	const pass = "gateway 198.51.100.2: 1500, as the link, fragments pass, 7 packets in 20 ms"
	black := "gateway 198.51.100.2: 1400 of the link's 1500, BLACK HOLE: no hop says so, fragments pass, 7 packets in 20 ms"
	hop := addr("203.0.113.9")
	for name, c := range map[string]struct {
		change func(*evidence.PathMTU)
		want   []string
	}{
		"nothing":      {func(*evidence.PathMTU) {}, []string{pass}},
		"not searched": {func(m *evidence.PathMTU) { *m = evidence.PathMTU{Role: m.Role, Target: m.Target, CannotLook: "why"} }, nil},
		"one packet": {func(m *evidence.PathMTU) { m.Packets, m.Took, m.Fragmented = 1, 0, evidence.FragmentedProbe{} },
			[]string{"gateway 198.51.100.2: 1500, as the link, 1 packet"}},
		"no answer": {func(m *evidence.PathMTU) {
			*m = evidence.PathMTU{Role: m.Role, Target: m.Target, Packets: 3, Sizes: sizes(0, 576), Small: evidence.Tried{Sent: 2}}
		},
			[]string{"gateway 198.51.100.2: no size was answered, 3 packets", "| silent: 576", "| small: 0 of 2 answered"}},
		"kernel":     {func(m *evidence.PathMTU) { m.Cached = evidence.Some(1400) }, []string{pass, "| kernel: believes 1400"}},
		"lost small": {func(m *evidence.PathMTU) { m.Small.Answered = 1 }, []string{pass, "| small: 1 of 2 answered"}},
		"fragments":  {func(m *evidence.PathMTU) { m.Fragmented.Answered = 0 }, []string{title, "| fragments: 0 of 1 answered, last one first: 1 of 1 answered"}},
		"order":      {func(m *evidence.PathMTU) { m.Fragmented.Reversed.Answered = 0 }, []string{title, "| fragments: 1 of 1 answered, last one first: 0 of 1 answered"}},
		"expired":    {func(m *evidence.PathMTU) { m.Fragmented = evidence.FragmentedProbe{Expired: 2} }, []string{title, "| fragments: the target gave up on 2 for want of a part"}},
		"DF":         {func(m *evidence.PathMTU) { m.Cleared = evidence.Yes }, []string{pass, "| DF: cleared on the way: a hop fragments what must not be"}},
		"way back":   {func(m *evidence.PathMTU) { m.ReplyFragment = evidence.Some(1396) }, []string{pass, "| way back: replies come in fragments of up to 1396"}},
		"a late hop": {func(m *evidence.PathMTU) { m.TooBig = []evidence.CountedICMPError{tooBig("203.0.113.9", 1400, 1)} }, []string{pass, "| way: here =1500=> 203.0.113.9 =1400=> 198.51.100.2, of which 1500 pass"}},
		"many hops": {func(m *evidence.PathMTU) {
			for _, mtu := range []int{1410, 1490, 1470, 1450, 1400, 1430} {
				m.TooBig = append(m.TooBig, tooBig(fmt.Sprintf("192.0.2.%d", mtu-1400), mtu, 1))
			}
			m.MTU = evidence.Some(1400)
			m.Cached, m.LinkMTU = m.MTU, evidence.Some(1500)
		}, []string{
			"gateway 198.51.100.2: 1400 of the link's 1500, as the link, fragments pass, 7 packets in 20 ms",
			"| way: here =1500=> ... =1470=> 192.0.2.50 =1450=> 192.0.2.30 =1430=> 192.0.2.10 =1410=> 192.0.2.0 =1400=> 198.51.100.2",
		}},
		"not all told": {func(m *evidence.PathMTU) {
			m.State, m.MTU = evidence.MTUBlackHole, evidence.Some(1400)
			m.Cached = m.MTU
			m.Sizes = sizes(1400, 1400, 1500)
			m.TooBig = []evidence.CountedICMPError{{Count: 1}}
		}, []string{black, "| answered: 1400", "| too big: says ?", "| silent: 1500"}},
		"lost somewhere": {func(m *evidence.PathMTU) {
			m.Lost = evidence.Some(evidence.LostBetween{Size: 1500, After: hop, Hops: 2})
		},
			[]string{pass, "| lost: 1500: here ==> 203.0.113.9 (hop 2) =X=> ? ... 198.51.100.2"}},
		"lost at once": {func(m *evidence.PathMTU) { m.Lost = evidence.Some(evidence.LostBetween{Size: 1500, Before: hop}) },
			[]string{pass, "| lost: 1500: here =X=> 203.0.113.9 ... 198.51.100.2"}},
	} {
		m := full()
		c.change(&m)
		if diff := cmp.Diff(c.want, blockLines("en", &evidence.Snapshot{MTUs: []evidence.PathMTU{m}})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestHealthyPathIsOneLine: neither a heading nor a blank line.
func TestHealthyPathIsOneLine(t *testing.T) {
	for lang, want := range map[string]string{
		"en": "\n  path MTU    gateway 198.51.100.2: 1500, as the link, 1 packet in 12.4 ms\n",
		"zh": "\n  路径 MTU    网关 198.51.100.2：1500，与链路相同，1 个报文，用时 12.4 ms\n",
	} {
		if out := render(t, healthy(), Options{Lang: lang}); !strings.Contains(out, want) || strings.Contains(out, "\nPath MTU\n") {
			t.Errorf("%s: want the line %q in\n%s", lang, want, out)
		}
	}
}

// TestSum: what the text adds up is what it says is left.
func TestSum(t *testing.T) {
	for want, m := range map[string]evidence.TunnelMTU{
		"1500 - 20 IP - 8 UDP - 8 ESP - 8 IV - 16 ICV = 1440, - 2 trailer = 1438":               {Outer: 1500, OuterIP: 20, UDP: 8, ESP: 8, IV: 8, ICV: 16, Align: 4, Trailer: 2, Inner: 1438},
		"1500 - 40 IP - 8 ESP - 16 IV - 12 ICV = 1424, - 2 trailer = 1422":                      {Outer: 1500, OuterIP: 40, ESP: 8, IV: 16, ICV: 12, Align: 16, Trailer: 2, Inner: 1422},
		"1492 - 20 IP - 8 ESP - 16 IV - 16 ICV = 1432, aligned to 16: 1424, - 2 trailer = 1422": {Outer: 1492, OuterIP: 20, ESP: 8, IV: 16, ICV: 16, Align: 16, Trailer: 2, Inner: 1422},
		"1500 - 20 IP - 8 ESP - 8 IV - 16 ICV = 1448, - 2 trailer + 20 IP = 1466":               {Mode: "transport", Outer: 1500, OuterIP: 20, ESP: 8, IV: 8, ICV: 16, Align: 4, Trailer: 2, Inner: 1466},
		"60 - 20 IP - 8 ESP - 16 IV - 16 ICV = 0, - 2 trailer = 0":                              {Outer: 60, OuterIP: 20, ESP: 8, IV: 16, ICV: 16, Align: 16, Trailer: 2},
		"1500 = 1500, - 0 trailer = 1500":                                                       {Outer: 1500, Inner: 1500},
	} {
		tx := text{Options: Options{Lang: "en"}}
		if got := tx.sum(m); got != want {
			t.Errorf("sum(%+v)\n got %s\nwant %s", m, got, want)
		}
	}
}

func TestClampVerdict(t *testing.T) {
	fits := evidence.TunnelMTU{MSS4: 1398, MSS6: 1378}
	for want, c := range map[string]evidence.MSSClamp{
		"nft x: 1398":                                                       {V4: true, V6: true, Covers: evidence.Yes, MSS: evidence.Some(1398)},
		"nft x: 1399, TOO LARGE: 1398 fits":                                 {V4: true, V6: true, Covers: evidence.Yes, MSS: evidence.Some(1399)},
		"nft x: 1379, TOO LARGE: 1378 fits, IPv6":                           {V6: true, Covers: evidence.Yes, MSS: evidence.Some(1379)},
		"nft x: 1460, IPv4, not for the tunnel":                             {V4: true, Covers: evidence.No, MSS: evidence.Some(1460)},
		"nft x: 1460, TOO LARGE: 1398 fits, IPv4, maybe not for the tunnel": {V4: true, MSS: evidence.Some(1460)},
		"nft x: follows the route's MTU, met 0 packets":                     {V4: true, V6: true, Covers: evidence.Yes, Packets: evidence.Some(uint64(0))},
	} {
		c.Tool, c.Where = "nft", "x"
		tx := text{Options: Options{Lang: "en"}}
		if got := tx.clamp(c, fits); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if got := tx.clamp(c, evidence.TunnelMTU{}); strings.Contains(got, "TOO LARGE") {
			t.Errorf("a verdict without a sum: %s", got)
		}
	}
}

func TestTunnelBlock(t *testing.T) {
	sum := evidence.TunnelMTU{Suite: "aes128gcm16", From: "declared", Mode: "transport", Outer: 1500, OuterIP: 20, ESP: 8, IV: 8, ICV: 16, Align: 4, Trailer: 2, Inner: 1466, MSS4: 1426}
	inside := "tunnel: 1466 inside, MSS 1426, aes128gcm16 as declared, transport mode, the outer MTU is the link's, not measured"
	arithmetic := "| sum: 1500 - 20 IP - 8 ESP - 8 IV - 16 ICV = 1448, - 2 trailer + 20 IP = 1466"
	read := evidence.Host{MSSClamps: evidence.MSSClamps{Readable: evidence.Yes}}
	for name, c := range map[string]struct {
		s    evidence.Snapshot
		want []string
	}{
		"nothing":           {evidence.Snapshot{}, nil},
		"no sum, no rule":   {evidence.Snapshot{Host: read}, nil},
		"a sum":             {evidence.Snapshot{TunnelMTU: evidence.Some(sum)}, []string{inside, arithmetic}},
		"no rule":           {evidence.Snapshot{TunnelMTU: evidence.Some(sum), Host: read}, []string{inside, arithmetic, "| MSS rule: none on this host"}},
		"nothing of TCP":    {evidence.Snapshot{TCPSizes: []evidence.TCPSize{{CannotLook: "why"}}}, nil},
		"TCP without a sum": {evidence.Snapshot{TCPSizes: []evidence.TCPSize{{MSS: evidence.Some(1460), Retransmit: 2}}}, []string{"tunnel", "| TCP 0: ?: MSS 1460, 2 retransmissions"}},
		"more than fits":    {evidence.Snapshot{Host: evidence.Host{MSSClamps: evidence.MSSClamps{Rules: make([]evidence.MSSClamp, 6)}}}, nil},
	} {
		got := blockLines("en", &c.s)
		if name == "more than fits" {
			if last := got[len(got)-1]; last != "| MSS rule: 2 more" {
				t.Errorf("the last of six rules: %q", last)
			}
			continue
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestReasonsHaveChineseWords(t *testing.T) {
	zh, en := text{Options: Options{Lang: "zh"}}, text{Options: Options{Lang: "en"}}
	for _, r := range []evidence.ICMPReason{
		evidence.FragNeeded, evidence.NetUnreachable, evidence.HostUnreachable, evidence.AdminProhibited,
		evidence.PortUnreachable, evidence.ProtUnreachable, evidence.TTLExceeded, evidence.OtherICMP,
	} {
		if got := zh.icmpReason(r); got == string(r) || en.icmpReason(r) != string(r) {
			t.Errorf("%s: %q", r, got)
		}
	}
	for _, r := range []evidence.SendReason{
		evidence.NoRoute, evidence.Prohibited, evidence.LocalFirewall, evidence.BlockedByXfrm, evidence.TooBig,
		evidence.NoBuffer, evidence.NoDevice, evidence.NoAddress, evidence.OtherSend,
	} {
		if got := zh.sendReason(r); got == string(r) || en.sendReason(r) != string(r) {
			t.Errorf("%s: %q", r, got)
		}
	}
	if got := zh.tcpReason("no answer within 2s"); got != "等待 2s" {
		t.Errorf("tcpReason = %q", got)
	}
}
