package hoststate

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"vpnprobe/evidence"
	"vpnprobe/internal/netnstest"
)

var record = flag.Bool("record", false, "record testdata from this kernel's IPsec (needs root, and a kernel with ESP)")

// stateFixture is a struct xfrm_usersa_info with its attributes, laid out as
// a C compiler lays out linux/xfrm.h on a 64-bit machine.
type stateFixture struct {
	dst, src string // 198.51.100.2 and 192.0.2.1 when empty
	proto    uint8  // ESP when 0
	spi      uint32 // 0xc0ffee01 when 0
	noSPI    bool
	alg      uint16
	encap    uint16
	lastUsed uint64
	created  uint64
}

func (f stateFixture) bytes() []byte {
	b := make([]byte, 224)
	dst, src := addr(or(f.dst, "198.51.100.2")), addr(or(f.src, "192.0.2.1"))
	copy(b[56:], dst.AsSlice())
	if !f.noSPI {
		binary.BigEndian.PutUint32(b[72:], or(f.spi, 0xc0ffee01))
	}
	b[76] = or(f.proto, unix.IPPROTO_ESP)
	copy(b[80:], src.AsSlice())
	binary.NativeEndian.PutUint64(b[160:], 8400)
	binary.NativeEndian.PutUint64(b[168:], 100)
	binary.NativeEndian.PutUint64(b[176:], or(f.created, 1_700_000_000))
	binary.NativeEndian.PutUint64(b[184:], 1_700_000_001) // first use: not read
	binary.NativeEndian.PutUint16(b[212:], uint16(family(dst)))
	b[214] = modeTunnel
	if f.alg != 0 {
		b = appendAttribute(b, f.alg, bytes.Repeat([]byte("KEY!"), 25))
	}
	if f.encap != 0 {
		e := make([]byte, 24)
		binary.NativeEndian.PutUint16(e, f.encap)
		b = appendAttribute(b, attrEncap, e)
	}
	if f.lastUsed != 0 {
		b = appendAttribute(b, attrLastUsed, binary.NativeEndian.AppendUint64(nil, f.lastUsed))
	}
	return b
}

func or[T comparable](v, fallback T) T {
	var zero T
	if v == zero {
		return fallback
	}
	return v
}

func TestParseSA(t *testing.T) {
	base := evidence.SA{SPI: 0xc0ffee01, Protocol: "esp", Mode: "tunnel", Packets: 100, Bytes: 8400, Created: time.Unix(1_700_000_000, 0)}
	with := func(change func(*evidence.SA)) *evidence.SA {
		sa := base
		change(&sa)
		return &sa
	}
	tests := []struct {
		name string
		b    []byte
		want *evidence.SA
	}{
		{"AEAD", stateFixture{alg: attrAlgAEAD}.bytes(), &base},
		{"CBC", stateFixture{alg: attrAlgCrypt}.bytes(), &base},
		{"IPv6", stateFixture{alg: attrAlgAEAD, dst: "2001:db8::2", src: "2001:db8::1"}.bytes(), &base},
		{"AH", stateFixture{alg: attrAlgAuthTrunc, proto: unix.IPPROTO_AH}.bytes(), with(func(s *evidence.SA) { s.Protocol = "ah" })},
		{"in UDP", stateFixture{alg: attrAlgAEAD, encap: encapESP}.bytes(), with(func(s *evidence.SA) { s.Encap = true })},
		{"in TCP", stateFixture{alg: attrAlgAEAD, encap: 7}.bytes(), &base},
		{"used", stateFixture{alg: attrAlgAEAD, lastUsed: 1_700_000_900}.bytes(), with(func(s *evidence.SA) { s.Used = evidence.Some(time.Unix(1_700_000_900, 0)) })},
		{"absurd time", stateFixture{alg: attrAlgAEAD, created: 1 << 63}.bytes(), with(func(s *evidence.SA) { s.Created = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) })},
		{"under negotiation", stateFixture{}.bytes(), nil},
		{"acquire", stateFixture{alg: attrAlgAEAD, noSPI: true}.bytes(), nil},
		{"IPComp", stateFixture{alg: attrAlgAEAD, proto: unix.IPPROTO_COMP}.bytes(), nil},
		{"short", stateFixture{alg: attrAlgAEAD}.bytes()[:223], nil},
	}
	for _, tt := range tests {
		got, ok := parseSA(tt.b)
		if ok != (tt.want != nil) {
			t.Errorf("%s: accepted: %v", tt.name, ok)
			continue
		}
		if tt.want == nil {
			continue
		}
		if diff := cmp.Diff(*tt.want, got.SA, compareOpts, cmpopts.EquateApproxTime(0)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// policyFixture is a struct xfrm_userpolicy_info with one template.
type policyFixture struct {
	dst, src       string // of the template
	selDst, selSrc string // of the selector
	dir            uint8  // out when 0; in when 255
	mode           uint8
}

func (f policyFixture) bytes() []byte {
	b := make([]byte, 168)
	sel := netip.MustParsePrefix(or(f.selDst, "10.2.0.0/24"))
	copy(b, sel.Addr().AsSlice())
	copy(b[16:], addr(or(f.selSrc, "0.0.0.0")).AsSlice())
	binary.NativeEndian.PutUint16(b[40:], uint16(family(sel.Addr())))
	b[42] = uint8(sel.Bits())
	if b[160] = or(f.dir, policyOut); f.dir == 255 {
		b[160] = 0
	}
	if f.dst == "" {
		return b
	}
	tmpl := make([]byte, 64)
	copy(tmpl, addr(f.dst).AsSlice())
	binary.NativeEndian.PutUint16(tmpl[24:], uint16(family(addr(f.dst))))
	copy(tmpl[28:], addr(f.src).AsSlice())
	tmpl[48] = f.mode
	return appendAttribute(b, attrTemplates, tmpl)
}

func TestPolicyTowards(t *testing.T) {
	tunnel := policyFixture{dst: "198.51.100.2", src: "192.0.2.1", mode: modeTunnel}
	inbound, trap := tunnel, tunnel
	inbound.dir = 255
	trap.src = "0.0.0.0"
	two := tunnel.bytes() // IPComp first, towards no one in particular
	two = append(two[:168:168], appendAttribute(nil, attrTemplates, append(make([]byte, 64), two[172:]...))...)
	transport := policyFixture{dst: "0.0.0.0", src: "0.0.0.0", selDst: "198.51.100.2/32", selSrc: "192.0.2.1", mode: modeTransport}
	wide, block := transport, policyFixture{selDst: "198.51.100.2/32"}
	wide.selDst = "198.51.100.0/24"
	tests := []struct {
		name  string
		b     []byte
		local string
		want  bool
	}{
		{"tunnel", tunnel.bytes(), "", true},
		{"tunnel from here", tunnel.bytes(), "192.0.2.1", true},
		{"tunnel from elsewhere", tunnel.bytes(), "192.0.2.3", false},
		{"trap from anywhere", trap.bytes(), "192.0.2.3", true},
		{"second template", two, "", true},
		{"IPv6", policyFixture{dst: "2001:db8::2", src: "2001:db8::1", mode: modeTunnel}.bytes(), "", true},
		{"transport", transport.bytes(), "192.0.2.1", true},
		{"transport to a subnet", wide.bytes(), "", false},
		{"another gateway", policyFixture{dst: "198.51.100.3", src: "192.0.2.1", mode: modeTunnel}.bytes(), "", false},
		{"inbound", inbound.bytes(), "", false},
		{"no template", block.bytes(), "", false},
		{"cut template", tunnel.bytes()[:168+40], "", false},
		{"short", tunnel.bytes()[:167], "", false},
	}
	for _, tt := range tests {
		e := endpoints{gateway: []netip.Addr{addr("203.0.113.7"), addr("198.51.100.2"), addr("2001:db8::2")}}
		if tt.local != "" {
			e.local = addr(tt.local)
		}
		if got := policyTowards(tt.b, e); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestUnreadable(t *testing.T) {
	tests := []struct {
		err      error
		readable evidence.Fact
		want     string
	}{
		{fmt.Errorf("open: %w", unix.EPROTONOSUPPORT), evidence.No, "this kernel has none"},
		{unix.EPERM, evidence.Unknown, "needs CAP_NET_ADMIN"},
		{errTruncated, evidence.Unknown, "truncated"},
	}
	for _, tt := range tests {
		got := unreadable(tt.err)
		if got.Readable != tt.readable || got.SAs != nil || !strings.Contains(got.CannotLook, tt.want) {
			t.Errorf("unreadable(%v) = %+v", tt.err, got)
		}
	}
	if got := New().Tunnel(nil, netip.Addr{}); got.Readable != evidence.Unknown || got.CannotLook == "" {
		t.Errorf("Tunnel() of no gateway = %+v", got)
	}
}

// tunnelOrSkip reads the tunnel where the kernel has IPsec, and checks the
// report of a kernel that does not.
func tunnelOrSkip(t *testing.T, gateway, local string) evidence.Tunnel {
	t.Helper()
	var from netip.Addr
	if local != "" {
		from = addr(local)
	}
	got := New().Tunnel([]netip.Addr{addr(gateway)}, from)
	if got.Readable == evidence.No {
		if len(got.SAs) > 0 || !strings.Contains(got.CannotLook, "this kernel has none") {
			t.Fatalf("Tunnel() without IPsec = %+v", got)
		}
		t.Skip("this kernel has no IPsec: " + got.CannotLook)
	}
	if got.Readable != evidence.Yes {
		t.Fatalf("Tunnel() = %+v, want it readable", got)
	}
	return got
}

func TestTunnelPolicy(t *testing.T) {
	netnstest.Thread(t)
	if got := tunnelOrSkip(t, "198.51.100.2", ""); got.Policy != evidence.No || len(got.SAs) != 0 {
		t.Fatalf("Tunnel() in an empty namespace = %+v", got)
	}
	run(t,
		"ip xfrm policy add dst 10.2.0.0/24 src 10.1.0.0/24 dir out tmpl src 192.0.2.1 dst 198.51.100.2 proto esp mode tunnel",
		"ip xfrm policy add dst 10.1.0.0/24 src 10.2.0.0/24 dir in tmpl src 203.0.113.9 dst 192.0.2.1 proto esp mode tunnel",
		"ip xfrm policy add dst 2001:db8:2::/64 src 2001:db8:1::/64 dir out tmpl src 2001:db8::1 dst 2001:db8::2 proto esp mode tunnel",
		"ip xfrm policy add dst 203.0.113.5/32 src 192.0.2.1/32 dir out tmpl proto esp mode transport",
		"ip xfrm policy add dst 203.0.113.6/32 src 192.0.2.1/32 dir out action block")
	for _, tt := range []struct {
		gateway, local string
		want           evidence.Fact
	}{
		{"198.51.100.2", "", evidence.Yes},
		{"198.51.100.2", "192.0.2.1", evidence.Yes},
		{"198.51.100.2", "192.0.2.2", evidence.No},
		{"::ffff:198.51.100.2", "", evidence.Yes},
		{"2001:db8::2", "", evidence.Yes},
		{"203.0.113.5", "", evidence.Yes},
		{"203.0.113.6", "", evidence.No},
		{"203.0.113.9", "", evidence.No}, // inbound only
	} {
		if got := tunnelOrSkip(t, tt.gateway, tt.local); got.Policy != tt.want {
			t.Errorf("policy to %s from %q = %v, want %v", tt.gateway, tt.local, got.Policy, tt.want)
		}
	}
}

func TestTunnelWithoutCapability(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: gives up CAP_NET_ADMIN in a child")
	}
	if os.Getenv("HOSTSTATE_UNPRIVILEGED") != "" {
		got := tunnelOrSkip(t, "198.51.100.2", "")
		t.Fatalf("read the SAs without CAP_NET_ADMIN: %+v", got)
	}
	self := exec.Command("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", os.Args[0], "-test.run=^TestTunnelWithoutCapability$")
	self.Env = append(os.Environ(), "HOSTSTATE_UNPRIVILEGED=1")
	out, err := self.CombinedOutput()
	switch {
	case bytes.Contains(out, []byte("this kernel has none")):
		t.Skip("this kernel has no IPsec")
	case err == nil || !bytes.Contains(out, []byte("needs CAP_NET_ADMIN: sudo setcap")):
		t.Fatalf("want an error that names the capability: %v: %s", err, out)
	}
}

// realSAs sets up SAs with keys of zeros in a new namespace, and sends one
// packet into the outbound IPv4 one.
func realSAs(t *testing.T) {
	t.Helper()
	netnstest.Thread(t)
	const aead = " aead 'rfc4106(gcm(aes))' 0x" + "0000000000000000000000000000000000000000" + " 128"
	const cbc = " auth-trunc 'hmac(sha256)' 0x0000000000000000000000000000000000000000000000000000000000000000 128 enc 'cbc(aes)' 0x00000000000000000000000000000000"
	skipUnless(t, "ip xfrm state add src 192.0.2.1 dst 198.51.100.2 proto esp spi 0x101 mode tunnel"+cbc)
	run(t, underlay...)
	run(t,
		"ip xfrm state add src 198.51.100.2 dst 192.0.2.1 proto esp spi 0x102 mode tunnel"+cbc,
		"ip xfrm state add src 192.0.2.1 dst 198.51.100.3 proto esp spi 0x103 mode tunnel"+cbc,
		"ip xfrm state add src 192.0.2.1 dst 198.51.100.4 proto esp spi 0x104 mode transport encap espinudp 4500 4500 0.0.0.0"+cbc,
		"ip xfrm state add src 2001:db8::1 dst 2001:db8::2 proto esp spi 0x106 mode tunnel"+cbc,
		"ip xfrm state allocspi src 198.51.100.2 dst 192.0.2.1 proto esp mode tunnel min 0x900 max 0x900",
		"ip route add default via 192.0.2.254",
		"ip xfrm policy add dst 10.2.0.0/24 dir out tmpl src 192.0.2.1 dst 198.51.100.2 proto esp mode tunnel")
	if out, err := exec.Command("sh", "-c", "ip xfrm state add src 192.0.2.2 dst 198.51.100.2 proto esp spi 0x105 mode tunnel"+aead).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	conn, err := net.Dial("udp", "10.2.0.10:9")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("one packet")); err != nil {
		t.Fatal(err)
	}
}

func TestTunnelRealSAs(t *testing.T) {
	realSAs(t)
	const cbc = "aes128-sha256"
	cbcOut := evidence.SA{SPI: 0x101, Protocol: "esp", Suite: cbc, Mode: "tunnel", Packets: 1, Bytes: 38} // 20 IP + 8 UDP + 10
	cbcIn := evidence.SA{SPI: 0x102, Inbound: true, Protocol: "esp", Suite: cbc, Mode: "tunnel"}
	gcmOut := evidence.SA{SPI: 0x105, Protocol: "esp", Suite: "aes128gcm16", Mode: "tunnel"}
	tests := []struct {
		gateway, local string
		want           []evidence.SA
	}{
		{"198.51.100.2", "", []evidence.SA{cbcOut, gcmOut, cbcIn}},
		{"198.51.100.2", "192.0.2.1", []evidence.SA{cbcOut, cbcIn}},
		{"198.51.100.4", "", []evidence.SA{{SPI: 0x104, Protocol: "esp", Suite: cbc, Mode: "transport", Encap: true}}},
		{"2001:db8::2", "", []evidence.SA{{SPI: 0x106, Protocol: "esp", Suite: cbc, Mode: "tunnel"}}},
		{"198.51.100.9", "", []evidence.SA{}},
	}
	bySPI := cmpopts.SortSlices(func(a, b evidence.SA) bool { return a.SPI < b.SPI })
	noTimes := cmpopts.IgnoreFields(evidence.SA{}, "Created", "Used")
	for _, tt := range tests {
		got := tunnelOrSkip(t, tt.gateway, tt.local)
		if diff := cmp.Diff(tt.want, got.SAs, bySPI, noTimes); diff != "" {
			t.Errorf("SAs with %s from %q (-want +got):\n%s", tt.gateway, tt.local, diff)
		}
		for _, sa := range got.SAs {
			if age := time.Since(sa.Created); age < -2*time.Second || age > time.Hour {
				t.Errorf("SA %#x created %v", sa.SPI, sa.Created)
			}
			if sa.Used.Known() && sa.Packets == 0 { // kept by newer kernels only
				t.Errorf("SA %#x: used without a packet", sa.SPI)
			}
		}
	}
	answered := 0
	if err := query(unix.NETLINK_XFRM, msgGetSA, unix.NLM_F_DUMP, addressFilter(addr("198.51.100.2"), false), func([]byte) bool {
		answered++
		return true
	}); err != nil || answered != 2 {
		t.Errorf("the kernel's filter lets %d SAs pass, error %v, want 2", answered, err)
	}
	if *record {
		recordDump(t, "sa.bin", msgGetSA)
		recordDump(t, "policy.bin", msgGetPolicy)
	}
}

// recordDump writes the unfiltered dump as the messages it came in.
func recordDump(t *testing.T, name string, kind uint16) {
	t.Helper()
	var dump []byte
	err := query(unix.NETLINK_XFRM, kind, unix.NLM_F_DUMP, nil, func(b []byte) bool {
		dump = appendMessage(dump, 0x10, unix.NLM_F_MULTI, b)
		dump = append(dump, make([]byte, align(len(dump))-len(dump))...)
		return true
	})
	if err == nil {
		err = os.WriteFile(filepath.Join("testdata", name), dump, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestRecordedDump reads what Linux 6.1 on amd64 answered, with the SAs and
// the policy of realSAs (-record).
func TestRecordedDump(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 || sizeofSA != 224 {
		t.Skip("recorded on a little-endian 64-bit machine")
	}
	dump, err := os.ReadFile("testdata/sa.bin")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	if _, err := visitMessages(dump, func(b []byte) bool {
		if sa, ok := parseSA(b); ok {
			got = append(got, fmt.Sprintf("%#x %s>%s %s %s %s encap=%v %d/%d used=%v", sa.SPI, sa.src, sa.dst, sa.Protocol, sa.Suite, sa.Mode, sa.Encap, sa.Packets, sa.Bytes, sa.Used.Known()))
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	want := []string{ // and not the SPI 0x900 under negotiation
		"0x101 192.0.2.1>198.51.100.2 esp aes128-sha256 tunnel encap=false 1/38 used=false",
		"0x102 198.51.100.2>192.0.2.1 esp aes128-sha256 tunnel encap=false 0/0 used=false",
		"0x103 192.0.2.1>198.51.100.3 esp aes128-sha256 tunnel encap=false 0/0 used=false",
		"0x104 192.0.2.1>198.51.100.4 esp aes128-sha256 transport encap=true 0/0 used=false",
		"0x105 192.0.2.2>198.51.100.2 esp aes128gcm16 tunnel encap=false 0/0 used=false",
		"0x106 2001:db8::1>2001:db8::2 esp aes128-sha256 tunnel encap=false 0/0 used=false",
	}
	sorted := cmpopts.SortSlices(func(a, b string) bool { return a < b })
	if diff := cmp.Diff(want, got, sorted); diff != "" {
		t.Errorf("SAs (-want +got):\n%s", diff)
	}

	dump, err = os.ReadFile("testdata/policy.bin")
	if err != nil {
		t.Fatal(err)
	}
	towards := 0
	if _, err := visitMessages(dump, func(b []byte) bool {
		if policyTowards(b, endpoints{gateway: []netip.Addr{addr("198.51.100.2")}}) {
			towards++
		}
		return true
	}); err != nil || towards != 1 {
		t.Errorf("%d policies towards the gateway, error %v, want 1", towards, err)
	}
}

// BenchmarkDump parses the unfiltered dump of 4096 SAs, which is what a kernel
// without address filters answers.
func BenchmarkDump(b *testing.B) {
	var dump []byte
	for i := range 4096 {
		sa := stateFixture{alg: attrAlgAEAD, spi: uint32(i + 1), lastUsed: 1}
		dump = appendMessage(dump, 0x10, unix.NLM_F_MULTI, sa.bytes())
	}
	b.SetBytes(int64(len(dump)))
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		visitMessages(dump, func(payload []byte) bool {
			if _, ok := parseSA(payload); ok {
				n++
			}
			return true
		})
		if n != 4096 {
			b.Fatal(n)
		}
	}
}
