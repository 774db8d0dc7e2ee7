package capture

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"vpnprobe/evidence"
	"vpnprobe/internal/netnstest"
)

func TestLiveSetPeers(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	netnstest.Veth(t)
	l := start(t, evidence.CaptureRing, "wan", testPeers)
	send := netnstest.Sender(t, "isp")
	espIn := func(peer string) uint64 { return l.Counts(peer).In.ESP.Packets }
	netnstest.Eventually(t, "Run", func() bool { return !l.Counts("p").Watching.IsZero() })
	first := l.Counts("p")

	send(eth(ip4(peer4, host4, 50, espPacket(1, 1, 72))))
	send(eth(ip4(other4, host4, 50, espPacket(2, 1, 72))))
	netnstest.Eventually(t, "the first packet", func() bool { return espIn("p") == 1 })

	peers := append([]Peer{{Name: "q", Addrs: []netip.Addr{other4}}, {Name: "r", Addrs: nil}}, testPeers...)
	l.SetPeers(on("wan", peers))
	send(eth(ip4(peer4, host4, 50, espPacket(1, 2, 72))))
	send(eth(ip4(other4, host4, 50, espPacket(2, 2, 72))))
	netnstest.Eventually(t, "the second packets", func() bool { return espIn("p") == 2 && espIn("q") == 1 })

	if w := l.Counts("p").Since(first, evidence.No); !w.Conclusive() || w.In.ESP.Packets != 2 {
		t.Errorf("the peer that stayed was not watched without a break: %+v", w)
	}
	if w := l.Counts("q").Since(first, evidence.No); w.Conclusive() {
		t.Errorf("the new peer was not watched all the time: %+v", w)
	}
	if w := l.Counts("r").Since(Counts{}, evidence.No); w.Conclusive() || !strings.Contains(w.Reason, "no address") {
		t.Errorf("a peer without an address is watched: %+v", w)
	}
}

// A filter by protocol, for more peers than the kernel is to compare, counts
// only the peers all the same.
func TestLiveManyPeers(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	netnstest.Veth(t)
	// The memory for filters that kernels before 6.7 have. Where it is not a
	// setting of the namespace, the file is not there.
	const optmem = "/proc/sys/net/core/optmem_max"
	if err := os.WriteFile(optmem, []byte("20480"), 0); err != nil {
		t.Logf("the filter is tested with the memory that there is: %v", err)
	}
	peers := testPeers
	a := netip.MustParseAddr("2001:db8:ffff::1")
	for range maxFilterAddrs - 2 {
		peers = append(peers, Peer{Name: a.String(), Addrs: []netip.Addr{a}})
		a = a.Next()
	}
	l := start(t, evidence.CaptureRing, "wan", peers) // the longest program that there is
	send := netnstest.Sender(t, "isp")
	for _, more := range [][]Peer{nil, {{Name: a.String(), Addrs: []netip.Addr{a}}}} {
		l.SetPeers(on("wan", append(peers, more...)))
		want := l.look()
		for _, f := range caseFrames() {
			send(f)
		}
		once := expect(caseFrames())
		want.In.ESP = want.In.ESP.Add(once.In.ESP)
		netnstest.Eventually(t, "the packets", func() bool { return l.look().In.ESP == want.In.ESP })
	}
}

func TestLiveInterfaceComesAndGoes(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	for _, mode := range modes {
		t.Run(string(mode), func(t *testing.T) { comesAndGoes(t, mode) })
	}
}

func comesAndGoes(t *testing.T, mode evidence.CaptureMode) {
	l := start(t, mode, "wan", testPeers)
	if c := l.Counts("p"); !c.Watching.IsZero() || !strings.Contains(c.Reason, "capture on wan") {
		t.Errorf("an interface that is not there: %+v", c)
	}
	packets := uint64(0)
	works := func(what string) Counts {
		t.Helper()
		netnstest.Eventually(t, what, func() bool { return !l.Counts("p").Watching.IsZero() })
		packets++
		netnstest.Sender(t, "isp")(eth(ip4(peer4, host4, 50, espPacket(1, uint32(packets), 72))))
		netnstest.Eventually(t, what+": a packet", func() bool { return l.look().In.ESP.Packets == packets })
		return l.Counts("p")
	}
	fails := func(what string, before Counts) {
		t.Helper()
		netnstest.Eventually(t, what, func() bool { return l.Counts("p").Watching.IsZero() })
		c := l.Counts("p")
		if c.Reason == "" || c.Since(before, evidence.No).Conclusive() {
			t.Errorf("%s: %+v", what, c)
		}
	}
	netnstest.Veth(t)
	c := works("the interface is made")
	netnstest.IP(t, "link set wan down")
	fails("the interface goes down", c)
	other, err := Open(Config{Mode: mode})
	if err != nil {
		t.Fatal(err)
	}
	other.SetPeers(on("wan", testPeers))
	if got := other.Counts("p").Reason; got != "capture on wan: network is down" {
		t.Errorf("opened while the interface is down: %q", got)
	}
	other.Close()
	netnstest.Up(t, "wan", "isp") // isp had no carrier either
	d := works("the interface comes up")
	if w := d.Since(c, evidence.No); w.Conclusive() || w.In.ESP.Packets != 1 {
		t.Errorf("a window with a break in it: %+v", w)
	}
	netnstest.IP(t, "link delete wan")
	fails("the interface is deleted", d)
	netnstest.Veth(t)
	e := works("the interface is made again")
	if w := l.Counts("p").Since(e, evidence.No); !w.Conclusive() {
		t.Errorf("a window after the break: %+v", w)
	}
	netnstest.IP(t, "link delete wan")
}
