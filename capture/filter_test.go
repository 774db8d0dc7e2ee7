package capture

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/net/bpf"
)

// accepts runs the filter of the test peers over a frame, as the kernel does.
func accepts(t testing.TB, link LinkType, frame []byte) bool {
	t.Helper()
	return run(t, NewObserver(testPeers), Frame{Data: frame, Link: link}) > 0
}

// runFor is run for one peer with the given addresses.
func runFor(t testing.TB, link LinkType, addrs []netip.Addr, frame []byte) int {
	t.Helper()
	return run(t, NewObserver([]Peer{{Name: "p", Addrs: addrs}}), Frame{Data: frame, Link: link})
}

// run returns how much of a frame the filter of an observer lets through.
func run(t testing.TB, o *Observer, f Frame) int {
	t.Helper()
	prog, err := o.filter(f.Link)
	if err != nil {
		t.Fatal(err)
	}
	if len(prog) > 4096 { // BPF_MAXINSNS
		t.Fatalf("%d instructions are too many", len(prog))
	}
	ins, all := bpf.Disassemble(prog)
	if !all {
		t.Fatal("the filter has instructions that are not known")
	}
	for i := range ins { // the VM does not know the packet type
		if ins[i] == (bpf.LoadExtension{Num: bpf.ExtType}) {
			ins[i] = bpf.LoadConstant{Dst: bpf.RegA}
			if f.Outgoing {
				ins[i] = bpf.LoadConstant{Dst: bpf.RegA, Val: packetOutgoing}
			}
		}
	}
	vm, err := bpf.NewVM(ins)
	if err != nil {
		t.Fatal(err)
	}
	n, err := vm.Run(f.Data)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestFilter(t *testing.T) {
	for _, tc := range packetCases {
		want := !tc.want.zero() || tc.passed
		for name, f := range map[string]struct {
			link  LinkType
			frame []byte
		}{
			"ethernet": {LinkEthernet, eth(tc.ip)},
			"vlan":     {LinkEthernet, eth(tc.ip, etherVLAN)},
			"qinq":     {LinkEthernet, eth(tc.ip, etherQinQ, etherVLAN)},
			"raw":      {LinkRaw, tc.ip},
		} {
			if got := accepts(t, f.link, f.frame); got != want {
				t.Errorf("%s, %s: accepted %t, want %t", tc.name, name, got, want)
			}
		}
		if accepts(t, LinkEthernet, eth(tc.ip, etherQinQ, etherVLAN, etherVLAN)) {
			t.Errorf("%s: accepted behind three tags", tc.name)
		}
	}
	if accepts(t, LinkRaw, append([]byte{0x50}, ip4(peer4, host4, 50, espPacket(1, 1, 0))[1:]...)) {
		t.Error("accepted IP of version 5")
	}
}

// Each address of a full list must be found, and none that differs from one of
// them in a single bit.
func TestFilterAddresses(t *testing.T) {
	var addrs []netip.Addr
	for i := range maxFilterAddrs / 2 {
		four, six := peer4.As4(), peer6.As16()
		binary.BigEndian.PutUint16(four[2:], uint16(i*256))
		binary.BigEndian.PutUint16(six[6:], uint16(i*256))
		addrs = append(addrs, netip.AddrFrom4(four), netip.AddrFrom16(six))
	}
	for _, a := range addrs {
		for _, swap := range []bool{false, true} {
			if runFor(t, LinkEthernet, addrs, eth(espBetween(a, swap))) != espSnapLen {
				t.Errorf("%v is not found (to it: %t)", a, swap)
			}
		}
	}
	for bit := range 128 {
		six := addrs[1].As16()
		six[bit/8] ^= 0x80 >> (bit % 8)
		want := bit/8 == 6 && bit%8 >= 3 // 0 to 31 times 256
		if got := runFor(t, LinkEthernet, addrs, eth(espBetween(netip.AddrFrom16(six), false))) > 0; got != want {
			t.Errorf("bit %d inverted: accepted %t, want %t", bit, got, want)
		}
	}
}

// How much of a frame is copied: of IKE all that may be there, of the rest the
// headers.
func TestFilterLength(t *testing.T) {
	long := make([]byte, 2000)
	o := NewObserver(leakPeers)
	for name, tc := range map[string]struct {
		ip   []byte
		want int
	}{
		"ike":                  {ip4(host4, peer4, 17, udp(500, 500, long)), ikeSnapLen},
		"ike on 4500":          {ip4(host4, peer4, 17, udp(4500, 4500, marked(long))), ikeSnapLen},
		"ike from 500 to 4500": {ip4(host4, peer4, 17, udp(500, 4500, marked(long))), ikeSnapLen},
		"ike from 4500 to 500": {ip4(host4, peer4, 17, udp(4500, 500, append([]byte{1}, long...))), ikeSnapLen},
		"ike, with options":    {header4{src: host4, dst: peer4, proto: 17, options: 40}.with(udp(4500, 4500, marked(long))), ikeSnapLen},
		"ike, ipv6":            {ip6(host6, peer6, 17, udp(500, 500, long)), ikeSnapLen},
		"ike on 4500, ipv6":    {ip6(host6, peer6, 17, udp(4500, 4500, marked(long))), ikeSnapLen},
		"ike fragment, ipv6":   {ip6(host6, peer6, 44, frag6(17, 0, true, udp(4500, 4500, marked(long)))), ikeSnapLen},
		"esp":                  {ip4(host4, peer4, 50, long), espSnapLen},
		"esp, ipv6":            {ip6(host6, peer6, 50, long), espSnapLen},
		"esp in udp":           {ip4(host4, peer4, 17, udp(4500, 4500, append([]byte{1}, long...))), espSnapLen},
		"esp in udp, ipv6":     {ip6(host6, peer6, 17, udp(4500, 4500, append([]byte{1}, long...))), espSnapLen},
		"keepalive":            {ip4(host4, peer4, 17, udp(4500, 4500, []byte{0xff})), espSnapLen},
		"keepalive, ipv6":      {ip6(host6, peer6, 17, udp(4500, 4500, []byte{0xff})), espSnapLen},
		"leak":                 {ip4(local4, remote4, 6, long), snapLen},
		"leak, ipv6":           {ip6(local6, remote6, 6, long), snapLen},
		"other":                {ip4(local4, other4, 6, long), 0},
	} {
		for _, f := range []Frame{sent(tc.ip), {Data: tc.ip, Link: LinkRaw, Outgoing: true}} {
			if got := run(t, o, f); got != tc.want {
				t.Errorf("%s, link %d: %d bytes, want %d", name, f.Link, got, tc.want)
			}
		}
	}
}

// Every subnet of a full list must be found at both its ends, and nothing next
// to it.
func TestFilterSubnets(t *testing.T) {
	var list []netip.Prefix
	for i := range maxWatched / 2 {
		list = append(list,
			netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(16 * i), 0, 0}), 12+i),
			netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0x0d, 0xb8, byte(16 * i)}), 36+6*i))
	}
	o := NewObserver([]Peer{{Name: "p", Addrs: testPeers[0].Addrs, Remote: list}})
	for _, p := range list {
		pack, src := ip4, guest4
		if p.Addr().Is6() {
			pack, src = ip6, local6
		}
		first := p.Masked().Addr()
		last := first.AsSlice()
		for i := p.Bits(); i < 8*len(last); i++ {
			last[i/8] |= 0x80 >> (i % 8)
		}
		for a, want := range map[netip.Addr]bool{first: true, addr(last): true, first.Prev(): false, addr(last).Next(): false} {
			inside := false
			for _, q := range list {
				inside = inside || q.Contains(a)
			}
			if inside != want && !want {
				continue // the next subnet begins there
			}
			if got := run(t, o, sent(pack(src, a, 6, make([]byte, 40)))) > 0; got != want {
				t.Errorf("%v of %v: accepted %t", a, p, got)
			}
		}
	}
}

func espBetween(a netip.Addr, swap bool) []byte {
	pack, host := ip4, host4
	if a.Is6() {
		pack, host = ip6, host6
	}
	if swap {
		return pack(host, a, 50, espPacket(1, 1, 0))
	}
	return pack(a, host, 50, espPacket(1, 1, 0))
}

func TestFilterWithoutAddresses(t *testing.T) {
	var many []netip.Addr
	a := netip.MustParseAddr("10.0.0.1")
	for range maxFilterAddrs + 1 {
		many = append(many, a)
		a = a.Next()
	}
	for _, tc := range packetCases {
		if runFor(t, LinkRaw, nil, tc.ip) != 0 {
			t.Errorf("%s: accepted for no peer", tc.name)
		}
		if !tc.want.zero() && runFor(t, LinkRaw, many, tc.ip) == 0 {
			t.Errorf("%s: not accepted by protocol", tc.name)
		}
	}
	if runFor(t, LinkRaw, many, ip4(host4, peer4, 17, udp(53, 53, make([]byte, 40)))) != 0 {
		t.Error("DNS is accepted by protocol")
	}
}
