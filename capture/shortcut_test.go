package capture

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"vpnprobe/evidence"
)

// An observer counts random frames, most of them of few flows, the same with
// shortcuts as without.
func TestShortcutsCountTheSame(t *testing.T) {
	own := netip.MustParseAddr("203.0.113.3")
	third := netip.MustParseAddr("192.0.2.77")
	lists := [][]Peer{
		{{Name: "p", Addrs: []netip.Addr{peer4, peer6}, Remote: []netip.Prefix{prefix("10.2.0.0/16")}},
			{Name: "q", Addrs: []netip.Addr{third}, Interfaces: []string{"wan"}}},
		{{Name: "p", Addrs: []netip.Addr{peer4}}, {Name: "q", Addrs: []netip.Addr{peer4, third}}},
		{{Name: "p", Addrs: []netip.Addr{other4, peer4}, Interfaces: []string{"lan", "wan"}}, {Name: "q", Addrs: []netip.Addr{host4}}},
	}
	taken := 0
	for seed := range uint64(16) {
		r := rand.New(rand.NewPCG(seed, 1))
		short, long := NewObserver(lists[0]), NewObserver(lists[0])
		at := epoch
		seq := r.Uint32()
		for range 1500 {
			switch r.IntN(500) {
			case 0:
				list := lists[r.IntN(len(lists))]
				short.SetPeers(list)
				long.SetPeers(list)
			case 1:
				short.Gap("wan")
				long.Gap("wan")
			}
			at = at.Add(time.Duration(r.IntN(3)-1) * time.Duration(r.IntN(int(20*time.Millisecond))))
			at = at.Add(5 * time.Millisecond)
			seq += uint32(r.IntN(3)) - uint32(r.IntN(8)/7)
			f := randomFrame(r, seq, []netip.Addr{peer4, peer4, third}, []netip.Addr{host4, host4, own})
			f.Time = at
			for range 1 + r.IntN(6)/5 {
				if r.IntN(5) == 0 {
					f.Outgoing = !f.Outgoing
				}
				if short.shortly(&f) {
					taken++
				} else {
					short.Packet(f)
				}
				clear(long.short[:])
				long.Packet(f)
			}
		}
		if diff := cmp.Diff(known(long), known(short), exactly); diff != "" {
			t.Fatalf("seed %d: without shortcuts (-), with them (+):\n%s", seed, diff)
		}
	}
	if taken < 2000 {
		t.Errorf("only %d frames had a shortcut", taken)
	}
}

// The label of a packet without addresses, ports or SPI is that of an empty
// shortcut.
func TestShortcutOfNothing(t *testing.T) {
	o := NewObserver(testPeers)
	o.Packet(frameOf(eth(ip4(netip.IPv4Unspecified(), netip.IPv4Unspecified(), 50, espPacket(0, 1, 40)))))
	o.Packet(frameOf(eth(espIn(1, 1))))
	if n := o.Counts("p").In.ESP.Packets; n != 1 {
		t.Errorf("%d packets, want 1", n)
	}
}

var exactly = cmp.Options{
	cmp.Exporter(func(reflect.Type) bool { return true }),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmpopts.SortSlices(func(a, b evidence.ESPFlow) bool { return fmt.Sprint(a) < fmt.Sprint(b) }),
}

// known is what an observer knows of a peer, by its name.
func known(o *Observer) map[string]any {
	all := map[string]any{"directed": o.recent.directed, "first": o.first, "last": o.last}
	for name, p := range o.peers {
		all[name] = o.Counts(name).Since(Counts{}, evidence.No)
		for _, u := range p.uses {
			key := fmt.Sprint(name, " on ", u.device.id)
			all[key] = []any{u.in, u.out, u.sent, u.firstOut, u.lastOut, u.mac, u.own4, u.own6, u.hasMAC, u.has4, u.has6}
		}
	}
	return all
}

// randomFrame is one of ESP as a rule, some of it in UDP, cut off, padded, in
// fragments, or with a length that is wrong.
func randomFrame(r *rand.Rand, seq uint32, far, near []netip.Addr) Frame {
	one := func(n int) bool { return r.IntN(n) == 0 }
	pick := func(list []netip.Addr) netip.Addr { return list[r.IntN(len(list))] }
	payload, h := espPacket(uint32(r.IntN(4)), seq, r.IntN(100)), header4{src: pick(far), dst: pick(near), proto: 50}
	f := Frame{Link: LinkEthernet, Interface: "wan"}
	if one(3) {
		h.src, h.dst, f.Outgoing = h.dst, h.src, true
	}
	switch r.IntN(6) {
	case 0, 1:
		ports := []uint16{500, 4500, 4500, 4500, 1024}
		payload = udp(ports[r.IntN(5)], ports[r.IntN(5)], payload)
		h.proto = 17
	case 2:
		h.proto = []uint8{6, 17, 50, 51}[r.IntN(4)]
	}
	h.id = uint16(r.IntN(3))
	if one(10) {
		h.frag = []uint16{0x4000, 0x2000, 0x2001, 1}[r.IntN(4)]
	}
	if one(20) {
		h.options = 4
	}
	if one(20) {
		h.length = r.IntN(60)
	}
	ip := h.with(payload)
	switch {
	case one(20):
		ip[0] = byte(r.Uint32())
	case one(20):
		src, dst := peer6, host6
		if f.Outgoing {
			src, dst = dst, src
		}
		ip = ip6(src, dst, 50, espPacket(1, seq, 40))
	}
	var tags []uint16
	if one(20) {
		tags = []uint16{etherVLAN}
	}
	f.Data = eth(ip, tags...)
	if one(10) {
		f.Data[11] = byte(r.IntN(3)) // another router
	}
	f.WireLen = len(f.Data)
	switch {
	case one(20):
		f.Data = append(f.Data, make([]byte, 8)...)
		f.WireLen = r.IntN(len(f.Data) + 1)
	case one(10):
		f.Data = f.Data[:r.IntN(len(f.Data)+1)]
	}
	switch {
	case one(20):
		f.Interface = []string{"lan", "", "any"}[r.IntN(3)]
	case one(20):
		f.Link, f.Data = LinkRaw, ip
	}
	return f
}
