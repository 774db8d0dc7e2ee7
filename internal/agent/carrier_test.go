package agent

import (
	"net/netip"
	"testing"
	"time"

	"vpnprobe/config"
	"vpnprobe/evidence"
)

func TestSiblings(t *testing.T) {
	peer := func(name, gateway string, remote ...string) config.Peer {
		p := config.Peer{Name: name, Gateway: gateway}
		for _, r := range remote {
			p.RemoteSubnets = append(p.RemoteSubnets, netip.MustParsePrefix(r))
		}
		return p
	}
	one := peer("one", "198.51.100.2", "10.2.0.0/16")
	all := []config.Peer{one, peer("two", "198.51.100.3", "10.3.0.0/24", "10.2.7.0/24"), peer("same gateway", "198.51.100.2", "10.2.0.0/16"),
		peer("another site", "198.51.100.4", "10.4.0.0/16"), peer("nothing declared", "198.51.100.5")}
	got := siblings(one, all)
	if len(got) != 1 || got[0].Name != "two" {
		t.Errorf("siblings of one: %v, want two", got)
	}
}

func TestCarrier(t *testing.T) {
	var c carrier
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	read := func(second int, packets uint64) {
		c.add(evidence.Tunnel{Readable: evidence.Yes, SAs: []evidence.SA{{SPI: 1, Inbound: true, Packets: packets, Created: begin}}},
			begin.Add(time.Duration(second)*time.Second), 3*time.Second)
	}
	for second, packets := range []uint64{100, 101, 103, 106, 110, 115} {
		read(second, packets)
	}
	// The window reaches back to the last reading before it.
	if in, _, over := c.sum(); in.Packets != 115-101 || over.Duration() != 4*time.Second {
		t.Errorf("%d packets in %v, want 14 in 4s", in.Packets, over.Duration())
	}
	c.add(evidence.Tunnel{}, begin.Add(6*time.Second), 3*time.Second)
	read(7, 400)
	if in, _, over := c.sum(); in.Packets != 0 || over != 0 {
		t.Errorf("%d packets in %v after the SAs could not be read, want a new beginning", in.Packets, over.Duration())
	}
}
