package ikecrypto

import (
	"crypto/rand"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"vpnprobe/internal/netnstest"
	"vpnprobe/internal/wire/ike"
)

var record = flag.Bool("record", false, "write what strongSwan answers to "+recordingsFile)

const (
	// daemonPatience is more than the daemon ever took to start or stop, and
	// answerPatience more than it took to answer: it computes in the largest
	// group, too.
	daemonPatience = 20 * time.Second
	answerPatience = 10 * time.Second
)

// The daemon's configuration. A message is cut into fragments of so few bytes
// when the peer can put them together again.
const daemonConf = `
charon-systemd {
	load = random nonce openssl aes sha1 sha2 md5 hmac kdf gcm pem pkcs1 x509 constraints pubkey kernel-netlink socket-default vici
	i_dont_care_about_security_and_use_aggressive_mode_psk = yes
	fragment_size = 120
	block_threshold = 100
	plugins {
		vici {
			socket = unix://%[1]s/vici
		}
	}
	filelog {
		charon {
			path = %[1]s/log
			flush_line = yes
			default = 1
		}
	}
	journal {
		default = -1
	}
}
swanctl {
	load = random openssl
}
`

const connectionsConf = `
connections {
	v2 {
		version = 2
		local_addrs = 192.0.2.1
		proposals = 3des-aes128-aes192-aes256-md5-sha1-sha256-sha384-sha512-prfmd5-prfsha1-prfsha256-prfsha384-prfsha512-%[1]s, aes128gcm16-aes128gcm12-aes128gcm8-aes256gcm16-aes256gcm12-aes256gcm8-chacha20poly1305-prfsha256-prfsha384-%[1]s
		unique = never
		local {
			auth = psk
			id = responder.example
		}
		remote {
			auth = psk
			id = initiator.example
		}
	}
	v1 {
		version = 1
		aggressive = yes
		local_addrs = 192.0.2.1
		proposals = 3des-md5-modp1024, aes128-sha1-modp1024, aes256-sha256-modp2048, aes256-sha384-ecp384, aes256-sha512-curve25519
		local {
			auth = psk
			id = responder.example
		}
		remote {
			auth = psk
			id = initiator.example
		}
	}
}
secrets {
	ike {
		secret = "%[2]s"
	}
}
`

const everyGroup = "modp1024-modp1536-modp2048-modp3072-modp4096-modp6144-modp8192-ecp256-ecp384-ecp521-curve25519"

// interop are the suites of IKEv2 that are negotiated with strongSwan. Those
// that are written down with -record differ in everything but the group.
var interop = []struct {
	proposal string
	record   bool
}{
	{"3des-md5-prfmd5-curve25519", true},
	{"aes128-sha1-prfsha1-curve25519", true},
	{"aes192-sha256-prfsha256-curve25519", true},
	{"aes256-sha384-prfsha384-curve25519", true},
	{"aes256-sha512-prfsha512-curve25519", true},
	{"aes128gcm8-prfsha256-curve25519", true},
	{"aes128gcm12-prfsha256-curve25519", true},
	{"aes256gcm16-prfsha384-curve25519", true},
	{"aes256gcm8-prfsha256-ecp256", false},
	{"aes256gcm12-prfsha256-ecp256", false},
	{"aes128gcm16-prfsha256-ecp256", false},
	{"chacha20poly1305-prfsha256-curve25519", true},
	{"aes128-sha256-prfsha256-modp1024", false},
	{"aes128-sha256-prfsha256-modp1536", false},
	{"aes128-sha256-prfsha256-modp2048", false},
	{"aes128-sha256-prfsha256-modp3072", false},
	{"aes128-sha256-prfsha256-modp4096", false},
	{"aes128-sha256-prfsha256-modp6144", false},
	{"aes128-sha256-prfsha256-modp8192", false},
	{"aes128-sha256-prfsha256-ecp256", false},
	{"aes128-sha256-prfsha256-ecp384", false},
	{"aes128-sha256-prfsha256-ecp521", false},
}

// TestStrongSwan negotiates with a real daemon.
func TestStrongSwan(t *testing.T) {
	for _, command := range []string{"charon-systemd", "swanctl"} {
		if _, err := exec.LookPath(command); err != nil {
			t.Skip("no strongSwan to negotiate with: ", err)
		}
	}
	netnstest.Thread(t)
	netnstest.IP(t, "addr add 192.0.2.1/32 dev lo", "addr add 192.0.2.2/32 dev lo")
	startDaemon(t)
	d := dialDaemon(t)

	var list recordings
	for _, tt := range interop {
		t.Run(tt.proposal, func(t *testing.T) {
			r := d.establish(t, tt.proposal, testPSK)
			r.check(t)
			if tt.record {
				list.V2 = append(list.V2, r)
			}
		})
	}
	for _, proposal := range []string{"aes256-sha256-prfsha256-curve25519", "aes256gcm16-prfsha256-curve25519"} {
		t.Run("fragments/"+proposal, func(t *testing.T) {
			r := d.establish(t, proposal, testPSK, ike.Notify{Type: ike.FragmentationSupported}.Payload())
			if len(r.AuthResponse) < 2 {
				t.Errorf("the response came in %d fragments", len(r.AuthResponse))
			}
			r.check(t)
			list.V2 = append(list.V2, r)
		})
	}
	t.Run("another key", func(t *testing.T) { d.refuse(t) })
	for _, words := range [][3]string{
		{"3des", "md5", "modp1024"}, {"aes128", "sha1", "modp1024"}, {"aes256", "sha256", "modp2048"},
		{"aes256", "sha384", "ecp384"}, {"aes256", "sha512", "curve25519"},
	} {
		t.Run("aggressive/"+strings.Join(words[:], "-"), func(t *testing.T) {
			r := d.aggressive(t, words)
			r.check(t)
			list.V1 = append(list.V1, r)
		})
	}
	if *record && !t.Failed() {
		b, err := json.MarshalIndent(list, "", "\t")
		if err == nil {
			err = os.WriteFile(recordingsFile, append(b, '\n'), 0o644)
		}
		if err != nil {
			t.Error(err)
		}
	}
}

func run(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
}

// startDaemon starts strongSwan in the namespace of the calling thread, and
// shows its log when the test fails.
func startDaemon(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	conf, connections := filepath.Join(dir, "strongswan.conf"), filepath.Join(dir, "swanctl.conf")
	for file, content := range map[string]string{
		conf:        fmt.Sprintf(daemonConf, dir),
		connections: fmt.Sprintf(connectionsConf, everyGroup, testPSK),
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("STRONGSWAN_CONF", conf)
	daemon := exec.Command("charon-systemd")
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		daemon.Process.Signal(syscall.SIGTERM)
		stuck := time.AfterFunc(daemonPatience, func() { daemon.Process.Kill() })
		defer stuck.Stop()
		if err := daemon.Wait(); err != nil {
			t.Error("strongSwan: ", err)
		}
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Logf("the end of strongSwan's log:\n%s", log[max(0, len(log)-5000):])
		}
	})
	socket := filepath.Join(dir, "vici")
	for deadline := time.Now().Add(daemonPatience); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal("strongSwan did not come up: ", err)
		}
	}
	run(t, "swanctl", "--load-all", "--file", connections, "--uri", "unix://"+socket)
}

// daemon is a strongSwan to talk to.
type daemon struct {
	conn *net.UDPConn
}

func dialDaemon(t *testing.T) *daemon {
	t.Helper()
	conn, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(192, 0, 2, 2)}, net.UDPAddrFromAddrPort(responderAddr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &daemon{conn}
}

// exchange sends a request and returns the response to it, in one message or
// in its fragments.
func (d *daemon) exchange(t *testing.T, request []byte) []hexBytes {
	t.Helper()
	sent := parse(t, request)
	if _, err := d.conn.Write(request); err != nil {
		t.Fatal(err)
	}
	var list []hexBytes
	d.conn.SetReadDeadline(time.Now().Add(answerPatience))
	for {
		b := make([]byte, 65536)
		n, err := d.conn.Read(b)
		if err != nil {
			t.Fatalf("after %d messages: %v", len(list), err)
		}
		b = b[:n]
		m := parse(t, b)
		if m.SPIi != sent.SPIi || m.MessageID != sent.MessageID || m.Exchange != sent.Exchange {
			continue // to an earlier request
		}
		list = append(list, b)
		p, ok := m.First(ike.PayloadFragment)
		if !ok {
			return list
		}
		if f, err := ike.ParseFragment(p.Body); err != nil || len(list) == int(f.Total) {
			return list
		}
	}
}

// establish makes an IKE SA without a Child SA (RFC 6023) and deletes it.
func (d *daemon) establish(t *testing.T, keywords, psk string, more ...ike.Payload) recording {
	t.Helper()
	r := d.negotiate(t, keywords, psk, more...)
	k, _, _ := r.keys(t)
	h := ike.Header{Exchange: ike.Informational, MessageID: 2}
	request, err := k.Seal(true, h, []ike.Payload{ike.Delete{Protocol: ike.ProtocolIKE}.Payload()})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := openAll(k, d.exchange(t, request)); err != nil || len(m.Payloads) != 0 || m.Flags != ike.FlagResponse {
		t.Errorf("response to the deletion: %+v, %v", m, err)
	}
	return r
}

// negotiate sends the first two requests.
func (d *daemon) negotiate(t *testing.T, keywords, psk string, more ...ike.Payload) recording {
	t.Helper()
	r := recording{Proposal: keywords}
	p := proposal(t, keywords)
	kx := newKeyExchange(t, p.Transforms[len(p.Transforms)-1].ID)
	init := ike.Message{Header: ike.Header{Version: ike.V2, Exchange: ike.SAInit, Flags: ike.FlagInitiator}}
	rand.Read(init.SPIi[:])
	ni := []byte(rand.Text())
	source := NATDetection(init.SPIi, ike.SPI{}, netip.MustParseAddrPort(d.conn.LocalAddr().String()))
	destination := NATDetection(init.SPIi, ike.SPI{}, responderAddr)
	init.Payloads = append([]ike.Payload{
		ike.SA(p), ike.KE(kx.Group(), kx.Public()), ike.Nonce(ni),
		ike.Notify{Type: ike.NATDetectionSourceIP, Data: source[:]}.Payload(),
		ike.Notify{Type: ike.NATDetectionDestinationIP, Data: destination[:]}.Payload(),
	}, more...)
	r.InitRequest = init.Append(nil)
	r.InitResponse = d.exchange(t, r.InitRequest)[0]
	peer, err := ike.ParseKE(body(t, parse(t, r.InitResponse), ike.PayloadKE))
	if err != nil {
		t.Fatal(err)
	}
	if r.Shared, err = kx.Shared(peer.Public); err != nil {
		t.Fatal(err)
	}
	k, _, nr := r.keys(t)
	id := ike.IdentityOf("initiator.example").Payload(ike.PayloadIDi)
	auth := ike.Authentication{Method: ike.AuthSharedKey, Data: k.AuthPSK(true, []byte(psk), r.InitRequest, nr, id.Body)}
	if r.AuthRequest, err = k.Seal(true, ike.Header{Exchange: ike.Auth, MessageID: 1}, []ike.Payload{id, auth.Payload()}); err != nil {
		t.Fatal(err)
	}
	r.AuthResponse = d.exchange(t, r.AuthRequest)
	return r
}

// refuse negotiates with another key, which the daemon refuses in a message
// that can be opened.
func (d *daemon) refuse(t *testing.T) {
	t.Helper()
	r := d.negotiate(t, "aes256-sha256-prfsha256-curve25519", "another")
	k, _, _ := r.keys(t)
	m, err := openAll(k, r.AuthResponse)
	if err != nil || m.FirstNotify() != "AUTHENTICATION_FAILED" {
		t.Errorf("response %+v, %v", m, err)
	}
}

// aggressive sends the first message of an IKEv1 aggressive mode.
func (d *daemon) aggressive(t *testing.T, words [3]string) recordingV1 {
	t.Helper()
	attributes, ok := ike.PhaseOneOf(words[0], words[1], words[2])
	group, known := ike.TransformOf(words[2])
	if !ok || !known {
		t.Fatalf("no attributes for %v", words)
	}
	m := ike.Message{Header: ike.Header{Version: ike.V1, Exchange: ike.AggressiveV1}}
	rand.Read(m.SPIi[:])
	attributes = append(attributes, ike.Attribute{Type: ike.AttrV1Auth, Value: ike.AuthV1SharedKey})
	sa := ike.SAV1{DOI: ike.DOIIPsec, Situation: ike.SituationIdentity, Proposals: []ike.ProposalV1{{
		Protocol: ike.ProtocolIKE, Transforms: []ike.TransformV1{{ID: ike.TransformKeyIKE, Attributes: attributes}},
	}}}
	id := ike.IdentityOf("initiator.example")
	m.Payloads = []ike.Payload{
		sa.Payload(), ike.KEV1(newKeyExchange(t, group.ID).Public()), ike.NonceV1([]byte(rand.Text())),
		ike.IdentityV1{Type: id.Type, Data: id.Data}.Payload(),
	}
	request := m.Append(nil)
	response := d.exchange(t, request)[0]
	return recordingV1{Proposal: "aggressive-" + strings.Join(words[:], "-"), Request: request, Response: response}
}
