package capture

import (
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"vpnprobe/evidence"
	"vpnprobe/internal/netnstest"
	"vpnprobe/internal/wire/esp"
)

// script is traffic of a peer: frames, and which way they go.
type script struct {
	t     *testing.T
	sends map[bool]func(...[]byte) // by outgoing
	tags  []uint16
	inAH  uint64 // packets of AH sent in
	marks byte
}

// mark sends what is counted after all that was sent before it.
func (s *script) mark() {
	s.inAH++
	s.marks++
	s.send(false, ip4(peer4, host4, 51, authenticationHeader(8, s.marks)))
}

func (s *script) send(out bool, packets ...[]byte) {
	s.t.Helper()
	for _, p := range packets {
		s.sends[out](eth(p, s.tags...))
	}
}

// esp sends ESP in one direction, over IPv4 or IPv6 and maybe in UDP, with the
// given numbers.
func (s *script) esp(out, six, encap bool, spi uint32, numbers ...uint32) {
	s.t.Helper()
	from, to, ip := peer4, host4, ip4
	if six {
		from, to, ip = peer6, host6, ip6
	}
	if out {
		from, to = to, from
	}
	for _, n := range numbers {
		payload, proto := espPacket(spi, n, 40+int(n%64)*4), uint8(50)
		if encap {
			payload, proto = udp(4500, 4500, payload), 17
		}
		s.send(out, ip(from, to, proto, payload))
	}
}

// numbers returns those from first to last, without some.
func numbers(first, last uint32, without ...uint32) []uint32 {
	var list []uint32
	for n := first; n != last+1; n++ {
		skip := false
		for _, w := range without {
			skip = skip || n == w
		}
		if !skip {
			list = append(list, n)
		}
	}
	return list
}

// flow sends all that sequence numbers can tell, in one direction.
func (s *script) flow(out, six, encap bool, spi uint32) {
	s.t.Helper()
	send := func(numbers ...uint32) { s.esp(out, six, encap, spi, numbers...) }
	send(numbers(1, 60, 8, 9, 30)...)     // loss
	send(60, 57, 58)                      // duplicates
	send(62, 61, 66, 64, 63, 65)          // reordering
	send(numbers(67, 70)...)              //
	spi++                                 // a rekey: the old SPI is used on for a while
	send(numbers(1, 5)...)                //
	s.esp(out, six, encap, spi-1, 71, 73) //
	send(numbers(6, 20)...)               //
	spi++                                 // a wrap, as of extended numbers
	send(numbers(0xfffffff0, 15, 3)...)   //
	spi++                                 // a long outage
	send(numbers(1, 10)...)               //
	send(numbers(5000, 5010)...)          //
	spi++                                 // an HA failover, and one forged number
	send(numbers(1, 10)...)               //
	send(numbers(500_000, 500_010)...)    //
	send(77_000_000)                      //
	send(numbers(500_011, 500_020)...)    //
}

func (s *script) ah() {
	s.inAH += 2
	s.send(false, ip4(peer4, host4, 51, authenticationHeader(7, 1)), ip4(peer4, host4, 51, authenticationHeader(7, 3)))
	s.send(true, ip6(host6, peer6, 51, authenticationHeader(7, 1)), ip6(host6, peer6, 51, authenticationHeader(7, 2)))
}

// others sends what is no concern of the peer's.
func (s *script) others() {
	s.send(false, ip4(other4, host4, 50, espPacket(1, 1, 72)), ip4(peer4, host4, 6, make([]byte, 40)),
		ip4(peer4, host4, 17, udp(53, 53, make([]byte, 40))))
	s.send(true, ip4(host4, other4, 50, espPacket(1, 1, 72)))
}

// authenticationHeader is an AH packet with TCP in it.
func authenticationHeader(spi byte, seq byte) []byte {
	return append([]byte{6, 4, 0, 0, 0, 0, 0, spi, 0, 0, 0, seq}, make([]byte, 12+40)...)
}

// fragments sends a packet in three fragments, and one over IPv6 in two.
func (s *script) fragments(proto uint8, first func(seq uint32) []byte) {
	for seq := range uint32(2) {
		s.fragment(proto, first(seq+1))
	}
}

func (s *script) fragment(proto uint8, first []byte) {
	s.send(false,
		header4{src: peer4, dst: host4, proto: proto, id: 9, frag: 0x2000}.with(first),
		header4{src: peer4, dst: host4, proto: proto, id: 9, frag: 0x2000 | 10}.with(make([]byte, 80)),
		header4{src: peer4, dst: host4, proto: proto, id: 9, frag: 20}.with(make([]byte, 40)))
	s.send(true,
		ip6(host6, peer6, 44, frag6(proto, 0, true, first)),
		ip6(host6, peer6, 44, frag6(proto, 10, false, make([]byte, 40))))
}

func (s *script) ike() {
	for _, six := range []bool{false, true} {
		us, them, ip := host4, peer4, ip4
		if six {
			us, them, ip = host6, peer6, ip6
		}
		for _, exchange := range []uint8{34, 35, 36, 37} {
			s.send(true, ip(us, them, 17, udp(500, 500, ikeMsg(0x20, exchange))))
			s.send(false, ip(them, us, 17, udp(500, 500, ikeMsg(0x20, exchange))))
			s.send(false, ip(them, us, 17, udp(4500, 4500, marked(ikeMsg(0x20, exchange)))))
		}
		s.send(true, ip(us, them, 17, udp(4500, 4500, []byte{0xff})))
		s.send(false, ip(them, us, 17, udp(4500, 4500, []byte{0xff})))
		s.send(true, ip(us, them, 17, udp(40000, 500, ikeMsg(0x20, 34)))) // our own probe
	}
}

func (s *script) errors() {
	ours := ip4(host4, peer4, 50, espPacket(0x3000, 1, 1400))
	s.send(false, ip4(router4, host4, 1, icmp(3, 4, ours[:60])))
	s.send(false, ip4(router4, host4, 1, icmp(3, 4, ours[:60])))
	s.send(false, ip4(peer4, host4, 1, icmp(3, 3, ip4(host4, peer4, 17, udp(500, 500, ikeMsg(0x20, 34))))))
	s.send(true, ip4(host4, peer4, 1, icmp(3, 2, ip4(peer4, host4, 50, espPacket(0x3000, 1, 72)))))
	s.send(false, ip6(router6, host6, 58, icmp(2, 0, ip6(host6, peer6, 50, espPacket(0x3000, 1, 72)))))
	s.send(false, ip4(router4, host4, 1, icmp(3, 4, ip4(host4, other4, 50, espPacket(1, 1, 72))))) // not ours
	s.send(false, ip4(peer4, host4, 1, icmp(8, 0, make([]byte, 56))))                              // an echo request
}

func (s *script) leaks() {
	inner := netip.MustParseAddr("10.2.0.10")
	s.send(true,
		ip4(host4, inner, 17, udp(53, 53, make([]byte, 20))),
		ip4(netip.MustParseAddr("10.1.0.1"), inner, 1, icmp(8, 0, make([]byte, 20))),
		ip4(netip.MustParseAddr("10.9.0.1"), inner, 17, udp(53, 53, make([]byte, 20))),
		ip4(host4, netip.MustParseAddr("10.3.0.1"), 17, udp(53, 53, make([]byte, 20))), // to another subnet
	)
}

func (s *script) manyLeaks() {
	for i := range 400 {
		s.send(true, ip4(host4, netip.AddrFrom4([4]byte{10, 2, 0, byte(i)}), 17, udp(uint16(1024+i), 53, make([]byte, 1000))))
	}
}

// alike compares what two captures of the same packets counted. Their times
// differ by what they took, and the kernel does not tell bursts.
var alike = cmp.Options{
	equateEmpty,
	cmpopts.EquateApproxTime(time.Minute),
	cmp.Comparer(func(a, b evidence.Opt[time.Time]) bool {
		_, known := a.Get()
		_, other := b.Get()
		return known == other
	}),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b evidence.Opt[int]) bool { return a == b }),
	cmp.Transformer("known", func(o evidence.Opt[evidence.IKENegotiation]) (list []evidence.IKENegotiation) {
		if v, known := o.Get(); known {
			list = append(list, v)
		}
		return list
	}),
	cmpopts.SortSlices(func(a, b evidence.ESPFlow) bool { return a.SPI < b.SPI || a.SPI == b.SPI && !a.Inbound && b.Inbound }),
	cmpopts.IgnoreFields(evidence.Sequence{}, "Bursts"),
	cmpopts.IgnoreFields(evidence.IKEDPD{}, "RTTs"),
	cmpopts.IgnoreFields(evidence.IKETalk{}, "Over"),
	cmpopts.IgnoreFields(evidence.Capture{}, "Mode", "Why", "Over", "Watched"),
}

// oneCPU has what the test's goroutine sends received on one CPU, so that all
// see it in the same order.
func oneCPU(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	var cpu unix.CPUSet
	cpu.Set(0)
	if err := unix.SchedSetaffinity(0, &cpu); err != nil {
		t.Fatal(err)
	}
}

// The ring, and the kernel's counting at each of its hooks, count the same
// packets the same, field by field.
func TestLiveDifferential(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	netnstest.Veth(t)
	oneCPU(t)
	peers := []Peer{{
		Name: "p", Addrs: []netip.Addr{peer4, peer6},
		Local:  []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")},
		Remote: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/24")},
	}}
	lives := map[string]*Live{
		"ring": open(t, Config{Mode: evidence.CaptureRing}, "wan", peers),
		"tc":   open(t, Config{Mode: evidence.CaptureBPF, XDP: XDPNever}, "wan", peers),
		"xdp":  open(t, Config{Mode: evidence.CaptureBPF, XDP: XDPAlways}, "wan", peers),
	}
	for _, l := range lives {
		l.mu.Lock()
		l.fresh = 20 * time.Millisecond
		l.mu.Unlock()
	}
	s := script{t: t, sends: map[bool]func(...[]byte){false: netnstest.Sender(t, "isp"), true: netnstest.Sender(t, "wan")}}
	for name, l := range lives {
		netnstest.Eventually(t, name+" is watching", func() bool { return !l.Counts("p").Watching.IsZero() })
	}
	s.ah() // so that leaks are known for what they are
	s.mark()
	s.mark()
	for name, l := range lives {
		netnstest.Eventually(t, name+" has the first packets", func() bool { return l.Counts("p").In.AH.Packets == s.inAH })
	}
	spi := uint32(0x1000)
	for _, s.tags = range [][]uint16{nil, {etherVLAN}} {
		phases := map[string]func(){
			"ah": s.ah, "ike": s.ike, "icmp": s.errors, "leaks": s.leaks, "others": s.others, "many leaks": s.manyLeaks,
			"fragments of esp": func() {
				s.fragments(50, func(seq uint32) []byte { return espPacket(0x800, seq, 72) })
			},
			"fragments of esp in udp": func() {
				s.fragments(17, func(seq uint32) []byte { return udp(4500, 4500, espPacket(0x801, seq, 64)) })
			},
			"fragments of ike": func() {
				s.fragments(17, func(uint32) []byte { return udp(500, 500, ikeMsg(0x20, 35)) })
			},
		}
		for _, out := range []bool{false, true} {
			for _, six := range []bool{false, true} {
				for _, encap := range []bool{false, true} {
					if len(s.tags) > 0 && (six || encap) {
						continue // a reading has no room for that many flows
					}
					first := spi
					spi += 16
					phases[fmt.Sprintf("out %v, IPv6 %v, in UDP %v", out, six, encap)] = func() { s.flow(out, six, encap, first) }
				}
			}
		}
		for phase, play := range phases {
			t.Run(fmt.Sprintf("%s, %d tags", phase, len(s.tags)), func(t *testing.T) {
				s.t = t
				oneCPU(t)
				before := map[string]Counts{}
				for name, l := range lives {
					before[name] = l.Counts("p")
				}
				play()
				s.mark()
				window := func(name string) evidence.Capture {
					return lives[name].Counts("p").Since(before[name], evidence.No)
				}
				for name, l := range lives {
					netnstest.Eventually(t, name+" has the last packet", func() bool { return l.Counts("p").In.AH.Packets == s.inAH })
				}
				if want := window("ring"); !want.Conclusive() {
					t.Errorf("the ring has not seen it all: %+v", want)
				}
				if n := len(window("ring").Leaks); strings.Contains(phase, "leaks") != (n > 0) {
					t.Errorf("%d kinds of leaks", n)
				}
				// Numbers that miss in a reading of the kernel's counters which
				// packets may have overtaken are told with the next one.
				for _, name := range []string{"tc", "xdp"} {
					diff := ""
					for range 10 {
						if diff = cmp.Diff(window("ring"), window(name), alike); diff == "" {
							break
						}
						time.Sleep(20 * time.Millisecond)
					}
					if diff != "" {
						t.Errorf("counted by the kernel at %s (-ring +kernel):\n%s", name, diff)
					}
				}
			})
		}
	}
	flood(t, &s, lives)
}

// flood sends forged SPIs, more than any table has room for: each capture counts
// all packets, and says that it could not keep the SPIs.
func flood(t *testing.T, s *script, lives map[string]*Live) {
	s.t, s.tags = t, nil
	const n = 40_000
	before := map[string]Counts{}
	for name, l := range lives {
		before[name] = l.Counts("p")
	}
	for range 2 { // the second time some are known, and most forgotten
		for i := range uint32(n / 2) {
			s.esp(false, false, false, 1<<24+i*7919, i)
		}
	}
	s.mark()
	for name, l := range lives {
		netnstest.Eventually(t, name+" has the last packet", func() bool { return l.Counts("p").In.AH.Packets == s.inAH })
		l.mu.Lock()
		room := uint64(esp.MaxFlows + 4096) // of a table, and its newcomers
		if l.kernel != nil {
			room = uint64(l.kernel.Capacity())
		}
		l.mu.Unlock()
		w := l.Counts("p").Since(before[name], evidence.No)
		if w.In.ESP.Packets != n || w.In.Sequence.Lost != 0 || !w.Conclusive() {
			t.Errorf("%s: %d packets of %d, lost %d, conclusive %v", name, w.In.ESP.Packets, n, w.In.Sequence.Lost, w.Conclusive())
		}
		if w.Forgotten < n/2-room || w.Forgotten > n {
			t.Errorf("%s: %d forgotten of %d, with room for %d", name, w.Forgotten, n/2, room)
		}
		for _, i := range w.Interfaces {
			if i.In.Packets != n+1 {
				t.Errorf("%s: %d packets on %s", name, i.In.Packets, i.Name)
			}
		}
	}
	ring, tc := lives["ring"].Counts("p").In.ESP, lives["tc"].Counts("p").In.ESP
	if ring != tc {
		t.Errorf("the ring has %+v, the kernel %+v", ring, tc)
	}
}
