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
	return run(t, link, NewObserver(testPeers).addresses(), frame) > 0
}

func run(t testing.TB, link LinkType, addrs []netip.Addr, frame []byte) int {
	t.Helper()
	prog, err := filter(link, addrs)
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
	vm, err := bpf.NewVM(ins)
	if err != nil {
		t.Fatal(err)
	}
	n, err := vm.Run(frame)
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
	if accepts(t, LinkRaw, append([]byte{0x50}, ip4(peer4, host4, 50, esp(1, 1, 0))[1:]...)) {
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
			if run(t, LinkEthernet, addrs, eth(espBetween(a, swap))) != snapLen {
				t.Errorf("%v is not found (to it: %t)", a, swap)
			}
		}
	}
	for bit := range 128 {
		six := addrs[1].As16()
		six[bit/8] ^= 0x80 >> (bit % 8)
		want := bit/8 == 6 && bit%8 >= 3 // 0 to 31 times 256
		if got := run(t, LinkEthernet, addrs, eth(espBetween(netip.AddrFrom16(six), false))) > 0; got != want {
			t.Errorf("bit %d inverted: accepted %t, want %t", bit, got, want)
		}
	}
}

func espBetween(a netip.Addr, swap bool) []byte {
	pack, host := ip4, host4
	if a.Is6() {
		pack, host = ip6, host6
	}
	if swap {
		return pack(host, a, 50, esp(1, 1, 0))
	}
	return pack(a, host, 50, esp(1, 1, 0))
}

func TestFilterWithoutAddresses(t *testing.T) {
	var many []netip.Addr
	a := netip.MustParseAddr("10.0.0.1")
	for range maxFilterAddrs + 1 {
		many = append(many, a)
		a = a.Next()
	}
	for _, tc := range packetCases {
		if run(t, LinkRaw, nil, tc.ip) != 0 {
			t.Errorf("%s: accepted for no peer", tc.name)
		}
		if !tc.want.zero() && run(t, LinkRaw, many, tc.ip) == 0 {
			t.Errorf("%s: not accepted by protocol", tc.name)
		}
	}
	if run(t, LinkRaw, many, ip4(host4, peer4, 17, udp(53, 53, make([]byte, 40)))) != 0 {
		t.Error("DNS is accepted by protocol")
	}
}
