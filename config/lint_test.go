package config

import (
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLint(t *testing.T) {
	const head = "references: [192.0.2.53]\n"
	peer := func(extra string) string { return head + Minimal + extra }
	tests := map[string]struct {
		text string
		want []string
	}{
		"healthy": {peer(`    source: 203.0.113.2
    ike: {version: 2, proposals: [aes256gcm16-prfsha256-ecp256]}
    esp: {proposals: [aes256gcm16-ecp256], mode: tunnel}
    local_subnets: [10.1.0.0/24, "fd00:1::/64"]
    remote_subnets: [10.2.0.0/24, "fd00:2::/64"]
    inner: [{address: 10.2.0.10, source: 10.1.0.1}]
`), nil},
		"two tunnels to one site": {peer(`    remote_subnets: [10.2.0.0/24]
  - {name: second, gateway: 192.0.2.9, remote_subnets: [10.2.0.0/24]}
`), nil},
		"no references": {Minimal, []string{
			"references: none declared: without one, a bad Internet connection here looks like a bad peer"}},
		"open listener": {peer("") + "listen: :9793\n", []string{
			"listen: :9793 is open to the network without TLS or a password: set web_config_file, or listen on 127.0.0.1"}},
		"open listener with TLS": {peer("") + "listen: 0.0.0.0:9793\nweb_config_file: /w\n", nil},
		"local listeners":        {peer("") + "listen: localhost:1\n", nil},
		"local listener, IPv6":   {peer("") + "listen: '[::1]:1'\n", nil},
		"source elsewhere": {peer("    source: 203.0.113.9\n"), []string{
			"peers[0].source: 203.0.113.9 is not an address of this host: nothing can be sent from it"}},
		"gateway here": {head + "peers: [{name: a, gateway: 203.0.113.2}]\n", []string{
			"peers[0].gateway: 203.0.113.2 is an address of this host: declare the remote gateway's"}},
		"gateway on loopback": {head + "peers: [{name: a, gateway: 127.0.0.2}]\n", nil},
		"inner outside": {peer(`    local_subnets: [10.1.0.0/24]
    remote_subnets: [10.2.0.0/24]
    inner: [{address: 10.3.0.1, source: 203.0.113.2}, {address: 10.2.0.1, source: 10.1.0.9}]
`), []string{
			"peers[0].inner[0].address: 10.3.0.1 is in none of remote_subnets: the tunnel does not carry it",
			"peers[0].inner[0].source: 203.0.113.2 is in none of local_subnets: the tunnel does not carry it",
			"peers[0].inner[1].source: 10.1.0.9 is not an address of this host: nothing can be sent from it",
		}},
		"overlap": {peer("    local_subnets: [10.0.0.0/8]\n    remote_subnets: [10.2.0.0/24, 198.51.100.0/24, 0.0.0.0/0]\n"), []string{
			"peers[0].remote_subnets[0]: 10.2.0.0/24 overlaps local 10.0.0.0/8: hosts in both never reach each other",
			"peers[0].remote_subnets[1]: 198.51.100.0/24 contains the gateway 198.51.100.2: its own packets would be sent into the tunnel",
			"peers[0].remote_subnets[2]: 0.0.0.0/0 overlaps local 10.0.0.0/8: hosts in both never reach each other",
			"peers[0].remote_subnets[0]: 10.2.0.0/24 is part of 0.0.0.0/0 already",
			"peers[0].remote_subnets[1]: 198.51.100.0/24 is part of 0.0.0.0/0 already",
		}},
		"default route": {peer("    local_subnets: [10.1.0.0/24]\n    remote_subnets: [0.0.0.0/0]\n"), []string{
			"peers[0].remote_subnets[0]: 0.0.0.0/0 overlaps local 10.1.0.0/24: hosts in both never reach each other"}},
		"between peers": {peer(`    remote_subnets: [10.0.0.0/8, 11.0.0.0/8]
  - {name: b, gateway: 192.0.2.2, remote_subnets: [10.2.0.0/16, 12.0.0.0/8]}
  - {name: c, gateway: 192.0.2.3, remote_subnets: [10.2.3.0/24, 10.0.0.0/8]}
  - {name: d, gateway: 192.0.2.4, remote_subnets: [11.0.0.0/9, "b00::/8"]}
`), []string{
			"peers[2].remote_subnets[0]: 10.2.3.0/24 is part of 10.0.0.0/8 already",
			"peers[1].remote_subnets[0]: 10.2.0.0/16 is part of 10.0.0.0/8 of peer cloud",
			"peers[2].remote_subnets[0]: 10.2.3.0/24 is part of 10.2.0.0/16 of peer b",
			"peers[3].remote_subnets[0]: 11.0.0.0/9 is part of 11.0.0.0/8 of peer cloud",
		}},
		"proposals": {peer(`    ike: {version: 2, proposals: [aes128-aes256-sha256-modp2048-modp4096, sm4-sm3-modp2048]}
    esp: {proposals: [aes256, aes128-sha256-noesn-esn], mode: transport}
    remote_subnets: [10.2.0.0/24]
`), []string{
			"peers[0].ike.proposals: 2 proposals: many cloud gateways accept only one",
			"peers[0].ike.proposals[0]: several values for encryption, group: many cloud gateways accept only one",
			"peers[0].esp.proposals: 2 proposals: many cloud gateways accept only one",
			"peers[0].esp.proposals[1]: several values for esn: many cloud gateways accept only one",
			"peers[0].esp.proposals[0]: aes256 has no integrity: packets can be changed on the way unnoticed",
			"peers[0].ike.version: gateways offer sm2, sm3 and sm4 with IKE version 1 only",
			"peers[0].esp.mode: transport mode protects the traffic of the gateways themselves, not that of subnets",
		}},
	}
	here := []netip.Addr{netip.MustParseAddr("203.0.113.2"), netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("127.0.0.2")}
	onHost := func(a netip.Addr) bool { return slices.Contains(here, a) }
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, w := range Lint(parse(t, tt.text), onHost) {
				got = append(got, w.String())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
		})
	}
}

// TestLintWithoutHost wants no word about addresses when nobody can tell
// which are this host's.
func TestLintWithoutHost(t *testing.T) {
	if got := Lint(parse(t, Reference), nil); got != nil {
		t.Errorf("warnings: %v", got)
	}
}

func TestLintFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, mode fs.FileMode) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil { // whatever the umask is
			t.Fatal(err)
		}
	}
	write("private", 0o600)
	write("readonly", 0o400)
	write("shared", 0o640)
	c := Default()
	c.WebConfigFile = filepath.Join(dir, "web")
	for _, psk := range []string{"private", "readonly", "shared", "missing"} {
		p := c.NewPeer(psk, "192.0.2.1")
		p.IKE.PSKFile = filepath.Join(dir, psk)
		c.Peers = append(c.Peers, p)
	}
	c.Peers[0].Logs = []Log{{Journal: "strongswan"}, {Path: filepath.Join(dir, "log")}, {Path: filepath.Join(dir, "shared")}}
	want := []Warning{
		{"web_config_file", dir + "/web: no such file or directory"},
		{"peers[0].logs[1].path", dir + "/log: no such file or directory"},
		{"peers[2].ike.psk_file", dir + "/shared has mode 0640, so others can read the key: chmod 0600 it"},
		{"peers[3].ike.psk_file", dir + "/missing: no such file or directory"},
	}
	if diff := cmp.Diff(want, LintFiles(c, os.Stat)); diff != "" {
		t.Errorf("LintFiles (-want +got):\n%s", diff)
	}
}
