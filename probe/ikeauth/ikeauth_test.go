package ikeauth

import (
	"encoding/json"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"vpnprobe/evidence"
	"vpnprobe/internal/wire/ike"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestNegotiate(t *testing.T) {
	for _, tt := range slices.Concat(cases, leftOutCases) {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, cfg := newResponder(t), testConfig()
				if tt.cfg != nil {
					tt.cfg(&cfg)
				}
				if tt.peer != nil {
					tt.peer(r)
				}
				got := r.run(t.Context(), cfg)
				if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(evidence.Opt[time.Time]{})); diff != "" {
					t.Error(diff)
				}
				r.check()
				shows(t, cfg, &cfg, got)
			})
		})
	}
}

func TestPorts(t *testing.T) {
	late := func(r *responder) {
		r.rtt = 3800 * time.Millisecond
		r.tamper = func(r *responder, m ike.Message, answer []byte) [][]byte {
			if m.Exchange != ike.SAInit {
				r.rtt = 20 * time.Millisecond
			}
			return [][]byte{answer}
		}
	}
	for _, tt := range []struct {
		name  string
		ports map[uint16]uint16
		peer  func(*responder)
		want  []uint16
	}{
		{"no NAT", nil, func(*responder) {}, []uint16{500, 500, 500, 500}},
		{"NAT", nil, func(r *responder) { r.nat = true }, []uint16{500, 4500, 4500, 4500}},
		{"500 is dead", nil, func(r *responder) { r.open4500 = true }, []uint16{500, 500, 500, 4500, 4500, 4500, 4500}},
		{"late answer on 500", nil, late, []uint16{500, 500, 500, 4500, 500, 500, 500}},
		{"a demonstration", map[uint16]uint16{500: 10500}, func(*responder) {}, []uint16{10500, 10500, 10500, 10500}},
	} {
		synctest.Test(t, func(t *testing.T) {
			r, cfg := newResponder(t), testConfig()
			tt.peer(r)
			cfg.Ports = tt.ports
			if got := r.run(t.Context(), cfg); got.Stage != evidence.StageComplete {
				t.Errorf("%s: got %+v", tt.name, got)
			}
			if !slices.Equal(r.ports, tt.want) {
				t.Errorf("%s: sent to ports %v, want %v", tt.name, r.ports, tt.want)
			}
			r.check()
		})
	}
}

func TestDeleteUnconfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newResponder(t)
		r.tamper = silentAt(ike.Informational)
		if got := r.run(t.Context(), testConfig()); got.Deleted != evidence.No || got.Stage != evidence.StageComplete {
			t.Errorf("got %+v", got)
		}
		r.check()
	})
}

// Over a real socket, with the addresses that the kernel chose.
func TestRun(t *testing.T) {
	for _, nat := range []bool{false, true} {
		r := newResponder(t)
		r.nat = nat
		done := make(chan struct{})
		cfg := testConfig()
		cfg.Target, cfg.Ports = netip.MustParseAddr("127.0.0.1"), map[uint16]uint16{}
		var sockets []*net.UDPConn
		for _, port := range []uint16{portIKE, portNATT} {
			c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				t.Fatal(err)
			}
			here := c.LocalAddr().(*net.UDPAddr).AddrPort()
			cfg.Ports[port] = here.Port()
			sockets = append(sockets, c)
			go func() {
				defer func() { done <- struct{}{} }()
				r.serve(c, here, port)
			}()
		}
		if got := Run(t.Context(), cfg); got.Stage != evidence.StageComplete || got.Deleted != evidence.Yes || !got.Time.Known() {
			t.Errorf("NAT %v: got %+v", nat, got)
		}
		for _, c := range sockets {
			c.Close()
			<-done
		}
		if used := slices.Contains(r.ports, portNATT); used != nat {
			t.Errorf("NAT %v: sent to ports %v", nat, r.ports)
		}
		r.check()
	}
}

func TestRunRefuses(t *testing.T) {
	for _, cfg := range []Config{{}, {Target: simPeer}, {PSK: Key("x")}} {
		got := Run(t.Context(), cfg)
		if got.CannotLook == "" || got.Stage != "" || !got.Time.Known() || got.By != evidence.ByAgent {
			t.Errorf("got %+v", got)
		}
	}
}

func TestKeyHidden(t *testing.T) {
	cfg := testConfig()
	shows(t, cfg, &cfg, cfg.PSK, []Config{cfg}, struct{ C any }{cfg})
	// Package fmt does not ask what is in unexported fields how to print it.
	showsBy(t, []string{"%v", "%+v", "%#v"}, &session{cfg: &cfg}, session{cfg: &cfg})
	b, err := json.Marshal(cfg)
	if err != nil || !strings.Contains(string(b), hidden) {
		t.Errorf("JSON: %s, %v", b, err)
	}
}

func TestDiffers(t *testing.T) {
	dn := ike.Identity{Type: ike.IDDERASN1DN, Data: []byte{0x30, 0x0e, 0x31, 0x0c, 0x30, 0x0a, 0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, 0x03, 'v', 'p', 'n'}}
	for _, tt := range []struct {
		declared string
		id       ike.Identity
		want     evidence.Fact
	}{
		{"", ike.IdentityOf("b.example"), evidence.Unknown},
		{"%any", ike.IdentityOf("b.example"), evidence.Unknown},
		{"b.example", ike.IdentityOf("B.Example"), evidence.No},
		{"@b.example", ike.IdentityOf("b.example"), evidence.No},
		{"b.example", ike.IdentityOf("c.example"), evidence.Yes},
		{"198.51.100.2", ike.IdentityOf("198.51.100.2"), evidence.No},
		{"198.51.100.2", ike.IdentityOf("198.51.100.3"), evidence.Yes},
		{"198.51.100.2", ike.Identity{Type: ike.IDFQDN, Data: []byte("198.51.100.2")}, evidence.Yes},
		{"2001:db8:0::1", ike.IdentityOf("2001:db8::1"), evidence.No},
		{"me@example", ike.IdentityOf("ME@example"), evidence.No},
		{"me@example", ike.Identity{Type: ike.IDFQDN, Data: []byte("me@example")}, evidence.Yes},
		{"@#00ff", ike.IdentityOf("@#00ff"), evidence.No},
		{"@#00ff", ike.IdentityOf("@#00fe"), evidence.Yes},
		{"CN=vpn", dn, evidence.No},
		{"C=DE, CN=vpn", dn, evidence.Unknown},
		{"vpn.example", dn, evidence.Yes},

		{"*.example", ike.IdentityOf("B.Example"), evidence.No},
		{"@*.example", ike.IdentityOf("b.example"), evidence.No},
		{"*.example", ike.IdentityOf("b.example.net"), evidence.Yes},
		{"*.example", ike.Identity{Type: ike.IDFQDN, Data: []byte(".example")}, evidence.Yes},
		{"*.example", ike.IdentityOf("me@b.example"), evidence.Yes},
		{"*@example", ike.IdentityOf("me@example"), evidence.No},
		{"*@example", ike.IdentityOf("me@b.example"), evidence.Yes},
		{"b.*.example", ike.IdentityOf("b.c.example"), evidence.Yes},
		{"*", dn, evidence.Unknown},
		{"%any6", ike.IdentityOf("2001:db8::1"), evidence.Unknown},
		{"%fromcert", dn, evidence.Unknown},
		{"0.0.0.0", ike.IdentityOf("b.example"), evidence.Unknown},
		{"::", ike.IdentityOf("b.example"), evidence.Unknown},
		{"198.51.100.0/24", ike.IdentityOf("198.51.100.2"), evidence.No},
		{"198.51.100.0/24", ike.IdentityOf("192.0.2.2"), evidence.Yes},
		{"198.51.100.0/24", ike.IdentityOf("b.example"), evidence.Yes},
		{"198.51.100.1-198.51.100.9", ike.IdentityOf("198.51.100.2"), evidence.Unknown},
		{"^b[0-9]+$", ike.IdentityOf("b1"), evidence.Unknown},
		{"keyid:b", ike.Identity{Type: ike.IDKeyID, Data: []byte("b")}, evidence.Unknown},
		{"C=CN, O=*", dn, evidence.Unknown},
		{"C=CN, O=*", ike.IdentityOf("b.example"), evidence.Yes},
	} {
		if got := differs(tt.declared, tt.id); got != tt.want {
			t.Errorf("declared %q, peer %v: differs %v, want %v", tt.declared, tt.id, got, tt.want)
		}
	}
}

func TestOffer(t *testing.T) {
	for _, tt := range []struct {
		protocol ike.ProtocolID
		text     string
		want     string // "" is none
		leftOut  string // ends the error
	}{
		{ike.ProtocolIKE, "aes256-sha256-modp2048", "aes256-prfsha256-sha256-modp2048", ""},
		{ike.ProtocolIKE, "aes256gcm16-prfsha384-ecp384", "aes256gcm16-prfsha384-ecp384", ""},
		{ike.ProtocolIKE, "AES128-sha1-modp1024", "aes128-prfsha1-sha1-modp1024", ""},
		{ike.ProtocolIKE, "aes256-sha256-modp2048-ecp256bp", "aes256-prfsha256-sha256-modp2048", "ecp256bp"},
		{ike.ProtocolIKE, "aes256-sha256-ecp256bp", "", "ecp256bp"},
		{ike.ProtocolIKE, "aes256-sha256-modp2048-ke1_mlkem768", "", "ke1_mlkem768"},
		{ike.ProtocolIKE, "sm4-sha256-modp2048", "", "sm4"},
		{ike.ProtocolESP, "aes256-sha256", "aes256-sha256", ""},
		{ike.ProtocolESP, "camellia256-sha256-modp2048-esn", "camellia256-sha256-modp2048-esn", ""},
		{ike.ProtocolESP, "aes256-sha256-ecp256bp", "", "ecp256bp"},
	} {
		list, err := offerOf(tt.protocol, []string{tt.text})
		got := ""
		if len(list) > 0 {
			got = notation(list[0])
		}
		if got != tt.want || (err == nil) != (tt.leftOut == "") || err != nil && !strings.HasSuffix(err.Error(), " "+tt.leftOut) {
			t.Errorf("%v %s: %q, %v; want %q", tt.protocol, tt.text, got, err, tt.want)
		}
	}
	if n := len(wide()); n != 2 {
		t.Errorf("%d wide proposals for ESP", n)
	}
	if list, err := offerOf(ike.ProtocolIKE, strings.Fields(wideIKE)); len(list) != 2 || err != nil {
		t.Errorf("%d wide proposals for IKE: %v", len(list), err)
	}
}
