//go:build linux

package integration

import (
	"sync"
	"testing"

	"vpnprobe/internal/lab"
	"vpnprobe/internal/wire/esp"
)

// kernelSuites are those that both Linux and strongSwan have.
var kernelSuites = []string{
	"aes128gcm16", "aes256gcm12", "aes128gcm8",
	"aes128ccm16", "aes128ccm12", "aes256ccm8",
	"chacha20poly1305", "aes128gmac",
	"aes128ctr-sha256", "aes128-md5", "aes128-sha1", "aes256-sha256", "aes192-sha384", "aes256-sha512",
	"aes128-aesxcbc", "aes128-aescmac", "aes128-sha256_96",
	"3des-sha1", "camellia256-sha256", "blowfish128-sha1", "cast128-sha1", "null-sha256", "null-sha1",
}

// suiteMTU is the underlay's, which nobody knows of.
const suiteMTU = 1400

// TestPathMTUSuites compares what the sums of ESP say of every suite with what
// the kernel puts on the wire.
func TestPathMTUSuites(t *testing.T) {
	t.Parallel()
	private := func(t *lab.Tunnel) { t.Settings = "accept_private_algs = yes" }
	for _, under := range []struct {
		name string
		v6   bool
	}{{"ipv4", false}, {"ipv6", true}} {
		lab.Run(t, under.name, lab.Config{IPv6: under.v6, Tunnel: private}, func(l *lab.Lab) {
			t := l.T()
			l.Swallow(lab.ProviderLink, suiteMTU+1, lab.Largest)
			for _, inUDP := range []bool{false, true} {
				names := kernelSuites
				if under.v6 || inUDP {
					names = ofDifferentSizes(t, names)
				}
				l.OfferSuites(names, inUDP)
				for i, name := range names {
					end := l.UseSuite(i)
					checkSuite(l, name, esp.Outer{V6: under.v6, NATT: inUDP})
					end()
				}
			}
		})
	}
}

// ofDifferentSizes returns one suite of each kind of sums.
func ofDifferentSizes(t testing.TB, names []string) []string {
	t.Helper()
	var list []string
	seen := map[esp.Suite]bool{}
	for _, name := range names {
		suite, err := esp.ParseSuite(name)
		if err != nil {
			t.Fatal(err)
		}
		if suite.Name = ""; !seen[suite] {
			list = append(list, name)
		}
		seen[suite] = true
	}
	return list
}

// checkSuite checks the sums for a suite that is in use.
func checkSuite(l *lab.Lab, name string, outer esp.Outer) {
	t := l.T()
	t.Helper()
	suite, err := esp.ParseSuite(name)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	var both sync.WaitGroup
	for _, transport := range []bool{false, true} {
		outer.Transport = transport
		inner := suite.Inner(suiteMTU, outer).Inner
		ping := lab.Ping{From: l.LanA, To: lab.LanBHost, Size: inner}
		if transport {
			ping.From, ping.To = l.A.Node, l.Peer()
		}
		both.Go(func() {
			if !ping.Passes() {
				t.Errorf("%s, transport mode: %v, in UDP: %v: %d bytes do not pass an underlay of %d", name, transport, outer.NATT, inner, suiteMTU)
			}
		})
		both.Go(func() {
			larger := ping
			if larger.Size++; !larger.Lost() {
				t.Errorf("%s, transport mode: %v, in UDP: %v: more than %d bytes pass an underlay of %d", name, transport, outer.NATT, inner, suiteMTU)
			}
		})
	}
	both.Wait()
}
