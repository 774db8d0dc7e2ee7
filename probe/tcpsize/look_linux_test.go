package tcpsize

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vpnprobe/evidence"
	"vpnprobe/internal/netnstest"
)

// The server's addresses, by what the way to them does.
const (
	healthy   = "10.2.0.1"
	clamped   = "10.2.0.2" // the way back sets another MSS
	there     = "10.2.0.3" // larger packets than 1400 bytes are lost on the way there
	back      = "10.2.0.4" // and on the way back
	tooBig    = "10.2.0.5" // larger packets than 1400 bytes are refused by a hop
	healthyV6 = "fd00:2::1"
)

// client, router and server in a row. This process is the client.
func lay(t *testing.T) (server *netnstest.NS) {
	t.Helper()
	router, server := netnstest.New(t), netnstest.New(t)
	router.Sysctl("ipv4/ip_forward", "1")
	router.Sysctl("ipv6/conf/all/forwarding", "1")
	// Without a second of detecting duplicate addresses.
	netnstest.Sysctl(t, "ipv6/conf/default/accept_dad", "0")
	router.Sysctl("ipv6/conf/default/accept_dad", "0")
	server.Sysctl("ipv6/conf/default/accept_dad", "0")
	// Without segmentation by the device, so that the router sees what a wire
	// would carry.
	netnstest.IP(t, "link add wan gso_max_segs 1 type veth peer name lan netns "+strconv.Itoa(router.Tid()),
		"addr add 10.1.0.1/24 dev wan", "-6 addr add fd00:1::1/64 dev wan", "link set wan up",
		"route add default via 10.1.0.254", "-6 route add default via fd00:1::fe")
	router.IP("addr add 10.1.0.254/24 dev lan", "-6 addr add fd00:1::fe/64 dev lan", "link set lan up",
		"link add far type veth peer name near gso_max_segs 1 netns "+strconv.Itoa(server.Tid()),
		"addr add 10.2.0.254/24 dev far", "-6 addr add fd00:2::fe/64 dev far", "link set far up",
		"route add "+tooBig+" via "+healthy+" mtu lock 1400")
	for _, a := range []string{healthy, clamped, there, back, tooBig} {
		server.IP("addr add " + a + "/24 dev near")
	}
	server.IP("-6 addr add "+healthyV6+"/64 dev near", "link set near up",
		"route add default via 10.2.0.254", "-6 route add default via fd00:2::fe")
	for _, c := range []string{
		"add table ip path",
		"add chain ip path f { type filter hook forward priority 0 ; }",
		"add rule ip path f ip saddr " + clamped + " tcp flags syn tcp option maxseg size set 1300",
		"add rule ip path f ip daddr " + there + " ip length > 1400 drop",
		"add rule ip path f ip saddr " + back + " ip length > 1400 drop",
	} {
		if err := router.Run("nft " + c); err != nil {
			t.Fatal(err)
		}
	}
	return server
}

func serve(t *testing.T, ns *netnstest.NS, port string, f func(net.Conn)) {
	t.Helper()
	var l net.Listener
	var err error
	ns.Do(func() { l, err = net.Listen("tcp", ":"+port) })
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(time.Minute))
				f(c)
			})
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
}

// fat returns a certificate of some 6 KB.
func fat(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 999}, Value: make([]byte, 6000)}},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestLook(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("needs nft, for black holes")
	}
	if !netnstest.Child(t) {
		return
	}
	server := lay(t)
	certificate := fat(t)
	overTLS := func(version uint16) func(net.Conn) {
		return func(c net.Conn) {
			_ = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: version, MaxVersion: version}).Handshake()
			_, _ = io.Copy(io.Discard, c)
		}
	}
	serve(t, server, "443", overTLS(tls.VersionTLS13))
	serve(t, server, "8443", overTLS(tls.VersionTLS12))
	offer := keyExchange(1800)[len(sshVersion):]
	serve(t, server, "22", func(c net.Conn) { // as OpenSSH: version for version, then the offer
		_, _ = io.WriteString(c, "SSH-2.0-server\r\n")
		var b [8]byte
		if _, err := io.ReadFull(c, b[:]); err == nil {
			_, _ = c.Write(offer)
		}
		_, _ = io.Copy(io.Discard, c)
	})
	serve(t, server, "2222", func(c net.Conn) { // as Dropbear: at once
		_, _ = c.Write(append([]byte("SSH-2.0-server\r\n"), offer...))
		_, _ = io.Copy(io.Discard, c)
	})
	serve(t, server, "80", func(c net.Conn) {
		l := &once{conn: c}
		_ = (&http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write(make([]byte, 9000))
		})}).Serve(l)
		l.wait()
	})
	serve(t, server, "7", func(c net.Conn) {
		if n, _ := io.Copy(io.Discard, c); n > 0 {
			t.Errorf("%d bytes to an unknown service", n)
		}
	})
	serve(t, server, "25", func(c net.Conn) {
		_, _ = io.WriteString(c, "220 mail\r\n")
		if n, _ := io.Copy(io.Discard, c); n > 0 {
			t.Errorf("%d bytes to an unknown service that spoke", n)
		}
	})

	const yes, no, unknown = evidence.Yes, evidence.No, evidence.Unknown
	var tests sync.WaitGroup // all at once: a black hole takes its time
	defer tests.Wait()
	for _, tc := range []struct {
		addr    string
		port    uint16
		service string
		mss     int
		acked   evidence.Fact
		stalled evidence.Fact
	}{
		{healthy, 443, "tls", 1460, yes, no},
		{healthy, 8443, "tls", 1460, yes, no},
		{healthy, 22, "ssh", 1460, yes, no},
		{healthy, 2222, "ssh", 1460, yes, no},
		{healthy, 80, "http", 1460, yes, no},
		{healthy, 7, "", 1460, unknown, unknown},
		{healthy, 25, "", 1460, unknown, unknown},
		{healthyV6, 443, "tls", 1440, yes, no},
		{healthyV6, 80, "http", 1440, yes, no},
		{clamped, 443, "tls", 1300, yes, no},
		{tooBig, 443, "tls", 1460, yes, no},
		{there, 443, "tls", 1460, no, unknown},
		{there, 22, "ssh", 1460, no, unknown},
		{there, 2222, "ssh", 1460, no, no},
		{there, 80, "http", 1460, no, unknown},
		{back, 443, "tls", 1460, yes, yes},
		{back, 8443, "tls", 1460, yes, yes},
		{back, 22, "ssh", 1460, yes, yes},
		{back, 80, "http", 1460, yes, yes},
		{back, 2222, "", 1460, unknown, yes},
	} {
		tests.Go(func() {
			target := netip.AddrPortFrom(netip.MustParseAddr(tc.addr), tc.port)
			got, err := Look(t.Context(), Config{Target: target, Timeout: 2 * time.Second})
			if err != nil {
				t.Error(err)
			}
			if got.Service != tc.service || got.MSS != evidence.Some(tc.mss) || got.Acked != tc.acked || got.Stalled != tc.stalled {
				t.Errorf("%v: %+v, want %+v", target, got, tc)
			}
			ours := 1460
			if target.Addr().Is6() {
				ours = 1440
			}
			if got.Ours != evidence.Some(ours) {
				t.Errorf("%v: announced %v", target, got.Ours)
			}
			full := got.Sent.Or(0)
			switch {
			case tc.service == "" && full != 0:
				t.Errorf("%v: sent %d", target, full)
			case tc.service == "":
			case tc.addr == tooBig && (full < 1300 || full > 1360 || got.Retransmit == 0),
				tc.addr == clamped && (full < 1280 || full > 1300),
				tc.addr != tooBig && tc.addr != clamped && (full < ours-12 || full > ours):
				t.Errorf("%v: sent %d, repeated %d", target, full, got.Retransmit)
			}
			if r, ok := got.Received.Get(); tc.addr == healthy && tc.service != "" && (!ok || r < 1400 || r > 1460) {
				t.Errorf("%v: received %d, %v", target, r, ok)
			}
		})
	}
}

// once lends one connection to an HTTP server.
type once struct {
	conn net.Conn
	all  sync.WaitGroup
	used bool
}

func (o *once) Accept() (net.Conn, error) {
	if o.used {
		return nil, net.ErrClosed
	}
	o.used = true
	o.all.Add(1)
	return &counted{Conn: o.conn, done: sync.OnceFunc(o.all.Done)}, nil
}
func (o *once) Close() error   { return nil }
func (o *once) Addr() net.Addr { return o.conn.LocalAddr() }
func (o *once) wait()          { o.all.Wait() }

type counted struct {
	net.Conn
	done func()
}

func (c *counted) Close() error { defer c.done(); return c.Conn.Close() }

// Without CAP_NET_RAW, the MSS is known only where the path MTU does not hide
// it.
func TestPeerMSS(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("needs nft, for a clamp")
	}
	if !netnstest.Child(t) {
		return
	}
	server := lay(t)
	serve(t, server, "7", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	for addr, want := range map[string]evidence.Opt[int]{healthy: {}, clamped: evidence.Some(1300)} {
		c, err := dial(t.Context(), Config{Target: netip.MustParseAddrPort(addr + ":7"), Timeout: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		c.synMSS = evidence.Opt[int]{}
		if s, err := c.state(); err != nil || c.announced(s) != want {
			t.Errorf("%s: %v, %v", addr, c.announced(s), err)
		}
		c.close()
	}
}

// What it could not look at is an error, and no verdict.
func TestCannotLook(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	hold, err := net.Listen("tcp", "127.0.0.1:22")
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Close()
	soon, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	for name, tc := range map[string]struct {
		ctx    context.Context
		target string
		source string
		want   error
	}{
		"refused":        {t.Context(), "127.0.0.1:1", "", unix.ECONNREFUSED},
		"no route":       {t.Context(), "192.0.2.1:1", "", unix.ENETUNREACH},
		"not our source": {t.Context(), "127.0.0.1:22", "192.0.2.1", unix.EADDRNOTAVAIL},
		"other family":   {t.Context(), "127.0.0.1:22", "::1", nil},
		"no port":        {t.Context(), "127.0.0.1:0", "", nil},
		"stopped":        {soon, "127.0.0.1:22", "", context.DeadlineExceeded},
	} {
		cfg := Config{Target: netip.MustParseAddrPort(tc.target)}
		if tc.source != "" {
			cfg.Source = netip.MustParseAddr(tc.source)
		}
		got, err := Look(tc.ctx, cfg)
		if err == nil || tc.want != nil && !errors.Is(err, tc.want) || got.CannotLook != err.Error() ||
			got.Acked != evidence.Unknown || got.Stalled != evidence.Unknown {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if _, err := Look(t.Context(), Config{}); err == nil {
		t.Error("looked at nothing")
	}
}
