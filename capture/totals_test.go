package capture

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnprobe/evidence"
	"vpnprobe/internal/wire/esp"
)

// The packets and bytes are those of the totals, if there are any: a flow that
// comes and goes between two readings is in them alone.
func TestTotals(t *testing.T) {
	a := Peer{Name: "a", Addrs: []netip.Addr{peer4}, Interfaces: []string{"wan"}}
	b := Peer{Name: "b", Addrs: []netip.Addr{peer4, peer6}}
	o := NewObserver([]Peer{a})
	key := esp.Key{Src: peer4, Dst: host4, SPI: 7, Protocol: esp.ESP}
	cell := &esp.Cell{}
	at := epoch
	in, out := esp.Key{Src: peer4, Protocol: esp.ESP}, esp.Key{Dst: peer4, Protocol: esp.AH, Outgoing: true}
	read := func(packets, forgotten uint64) {
		at = at.Add(time.Second)
		cell.Add(uint32(cell.Packets)+1, 100, esp.Whole, at)
		o.totals("wan", []kernelTotal{
			{key: in, volume: volume{packets, 100 * packets}, last: at, forgotten: forgotten},
			{key: out, volume: volume{2 * packets, 300 * packets}, last: at},
			{key: esp.Key{Src: peer4, Protocol: esp.UDP}, volume: volume{0, 50 * packets}, last: at, forgotten: 1},
			{key: esp.Key{Src: other4, Protocol: esp.ESP}, volume: volume{packets, packets}, last: at},
		})
		o.Samples("wan", at, samplesOf(map[esp.Key]*esp.Cell{key: cell}))
	}
	check := func(what, name string, packets, forgotten uint64) {
		t.Helper()
		c := o.Counts(name)
		type counts struct {
			In, Out, Via evidence.Traffic
			Forgotten    uint64
		}
		got := counts{In: c.In.ESP, Out: c.Out.AH, Forgotten: c.Forgotten}
		if len(c.Interfaces) > 0 {
			got.Via = c.Interfaces[0].Out
		}
		sent := evidence.Traffic{Packets: 2 * packets, Bytes: 300 * packets}
		want := counts{evidence.Traffic{Packets: packets, Bytes: 100 * packets}, sent, sent, forgotten}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s (-want +got):\n%s", what, name, diff)
		}
	}
	read(10, 3)
	check("first", "a", 10, 3)
	read(30, 9)
	check("more", "a", 30, 9)
	o.SetPeers([]Peer{a, b})
	check("joined", "b", 0, 0)
	read(40, 9)
	check("two peers", "a", 40, 9)
	check("two peers", "b", 10, 0)
	read(5, 1) // the kernel began anew
	check("anew", "a", 45, 10)
	o.anew("wan")
	read(100, 2) // and by now has more than before
	check("anew, and told so", "a", 145, 12)
	o.SetPeers([]Peer{b})
	read(101, 2)
	check("alone", "b", 116, 3)
	if s := o.Counts("b").In.Sequence; s.Lost != 0 || s.Expected == 0 {
		t.Errorf("%+v", s)
	}
}
