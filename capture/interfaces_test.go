package capture

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnprobe/evidence"
)

func TestInterfaces(t *testing.T) {
	both := []Peer{{Name: "p", Addrs: testPeers[0].Addrs, Interfaces: []string{"wan1", "wan2"}}}
	o := NewObserver(both)
	at := func(s int) time.Time { return epoch.Add(time.Duration(s) * time.Second) }
	seq := uint32(0)
	show := func(iface string, s int, out bool) {
		seq++
		ip := espIn(1, seq)
		if out {
			ip = espOut(2, seq)
		}
		o.Packet(Frame{Data: ip, Link: LinkRaw, Interface: iface, Outgoing: out, WireLen: len(ip), Time: at(s)})
	}
	show("wan1", 0, true)
	show("wan1", 1, true)
	show("lan", 1, true)
	earlier := o.Counts("p")
	show("wan1", 10, true)
	middle := o.Counts("p")
	show("wan1", 12, true)
	show("wan2", 20, true)
	show("wan2", 21, true)
	show("wan2", 22, false)
	show("lan", 23, true)
	now := o.Counts("p")

	out := func(packets uint64, first, last int) evidence.InterfaceTraffic {
		return evidence.InterfaceTraffic{
			Name: "wan1", Out: evidence.Traffic{Packets: packets, Bytes: 100 * packets},
			FirstOut: evidence.Some(at(first)), LastOut: evidence.Some(at(last)),
		}
	}
	wan2 := out(2, 20, 21)
	wan2.Name, wan2.In = "wan2", one(100)
	for name, tc := range map[string]struct {
		now, earlier Counts
		want         []evidence.InterfaceTraffic
	}{
		"all":              {now, Counts{}, []evidence.InterfaceTraffic{out(4, 0, 12), wan2}},
		"since the first":  {now, earlier, []evidence.InterfaceTraffic{out(2, 10, 12), wan2}},
		"since the second": {now, middle, []evidence.InterfaceTraffic{out(1, 12, 12), wan2}},
		"until the second": {middle, earlier, []evidence.InterfaceTraffic{out(1, 10, 10)}},
		"nothing":          {now, now, nil},
	} {
		got := tc.now.Since(tc.earlier, evidence.No).Interfaces
		if diff := cmp.Diff(tc.want, got, unexported, equateEmpty); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if now.Out.ESP.Packets != 6 || now.In.ESP.Packets != 1 {
		t.Errorf("frames of another interface count: %+v", now.Out.ESP)
	}
	both[0].Interfaces = []string{"lan"}
	o.SetPeers(both)
	show("wan1", 30, true)
	show("lan", 31, true)
	if got := o.Counts("p").Out.ESP.Packets; got != 7 {
		t.Errorf("after a change of interfaces: %d, want 7", got)
	}
}

// A forged file may have frames of any number of interfaces.
func TestManyInterfaces(t *testing.T) {
	o := NewObserver(testPeers)
	for i := range 1000 {
		f := cooked2(espOut(1, uint32(i+1)), sllOutgoing)
		f[6], f[7] = byte(i>>8), byte(i)
		o.Packet(Frame{Data: f, Link: LinkSLL2, WireLen: len(f), Time: epoch})
	}
	c := o.Counts("p")
	if c.Out.ESP.Packets != 1000 || len(o.devices) > maxDevices+1 || len(c.Interfaces) > maxDevices+1 {
		t.Errorf("%d packets, %d interfaces, %d with traffic", c.Out.ESP.Packets, len(o.devices), len(c.Interfaces))
	}
	if name := c.Interfaces[1].Name; name != "#1" {
		t.Errorf("the second interface is named %q", name)
	}
}
