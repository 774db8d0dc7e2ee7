package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// invalid maps each invalid file to the whole text of its error.
func invalid() map[string][]string {
	return map[string][]string{
		"address": {
			`agent.yaml:1: references[0]: "one.one.one.one" is a name: write its address, a reference must not depend on DNS`,
			`agent.yaml:1: references[1]: "1.1.1" is not an IP address`,
			`agent.yaml:1: references[2]: "192.0.2.0/24" is a subnet, want a single address`,
			`agent.yaml:5: peers[0].source: "here" is not an IP address`,
			`agent.yaml:6: peers[0].inner[0].address: "host" is not an IP address`,
		},
		"alias": {
			`agent.yaml:1: YAML anchors and aliases are not supported: write the value out`,
		},
		"anchor": {
			`agent.yaml:1: YAML anchors and aliases are not supported: write the value out`,
		},
		"bandwidth": {
			`agent.yaml:2: peers[0].bandwidth: "100" has no unit: write 100Mbit for megabits per second`,
			`agent.yaml:3: peers[1].bandwidth: "fast" is not a bandwidth: write it like 100Mbit`,
			`agent.yaml:4: peers[2].bandwidth: unit "Mbps" is not clear: write bit, kbit, Mbit, Gbit or Tbit`,
			`agent.yaml:5: peers[3].bandwidth: 1bit is not within 1kbit to 100Tbit`,
			`agent.yaml:6: peers[4].bandwidth: "-5Mbit" is not a bandwidth: write it like 100Mbit`,
			`agent.yaml:7: peers[5].bandwidth: 1000Tbit is not within 1kbit to 100Tbit`,
		},
		"duplicate-key": {
			`agent.yaml:2: lang: given twice, first on line 1: keep one`,
			`agent.yaml:6: peers[0].name: given twice, first on line 4: keep one`,
		},
		"duplicate-peer": {
			`agent.yaml:4: peers[1].name: "cloud" is the name of peers[0] already`,
			`agent.yaml:7: peers[2].gateway: 198.51.100.2 from the same source is peers[0] already: make them one, or give each its source`,
		},
		"duration": {
			`agent.yaml:1: interval: "10" has no unit: write 10s for seconds`,
			`agent.yaml:2: inner_interval: 0.5s is not within 1s to 1h, or 0 to turn it off`,
			`agent.yaml:3: path_mtu_interval: "soon" is not a duration: write it like 500ms, 10s or 5m`,
			`agent.yaml:4: icmp.interval: 1ms is not within 200ms to 1m`,
			`agent.yaml:4: icmp.timeout: -2s is not within 100ms to 30s`,
			`agent.yaml:5: thresholds.rtt: 1h is not within 1ms to 30s`,
			`agent.yaml:9: peers[0].icmp.timeout: "5" has no unit: write 5s for seconds`,
			`agent.yaml:10: peers[0].ike.lifetime: 1s is not within 1m to 720h`,
			`agent.yaml:10: peers[0].ike.dpd_delay: 2h is not within 1s to 1h`,
			`agent.yaml:11: peers[0].esp.lifetime: 8000h is not within 1m to 720h`,
		},
		"empty": {
			`agent.yaml: peers: no peer is declared: declare at least one, with a name and a gateway`,
		},
		"enum": {
			`agent.yaml:1: lang: "de" is not supported: write en or zh`,
			`agent.yaml:2: log.level: "trace" is not supported: write debug, info, warn or error`,
			`agent.yaml:2: log.format: "xml" is not supported: write text or json`,
			`agent.yaml:3: capture.mode: "pcap" is not supported: write auto, bpf, ring, sa or off`,
			`agent.yaml:3: capture.xdp: "generic" is not supported: write auto, always or never`,
			`agent.yaml:7: peers[0].vendor: "azure" is not supported: write aws, huawei, ctyun or generic`,
			`agent.yaml:8: peers[0].ike.mode: "quick" is not supported: write main or aggressive`,
			`agent.yaml:9: peers[0].esp.mode: "beet" is not supported: write tunnel or transport`,
			`agent.yaml:9: peers[0].esp.encapsulation: "tcp" is not supported: write udp or none`,
		},
		"family": {
			`agent.yaml:4: peers[0].source: 2001:db8::1 is not of the same IP version as the gateway 198.51.100.2`,
			`agent.yaml:5: peers[0].inner[0].source: 10.1.0.1 is not of the same IP version as the inner address 2001:db8:2::1`,
		},
		"gateway": {
			`agent.yaml:2: peers[0].gateway: "198.51.100.300" is neither an IP address nor a DNS name`,
			`agent.yaml:3: peers[1].gateway: "0.0.0.0" is not the address of a host`,
			`agent.yaml:4: peers[2].gateway: "224.0.0.1" is not the address of a host`,
			`agent.yaml:5: peers[3].gateway: "255.255.255.255" is not the address of a host`,
			`agent.yaml:6: peers[4].gateway: "::" is not the address of a host`,
			`agent.yaml:7: peers[5].gateway: "::ffff:198.51.100.2" is an IPv4 address in IPv6 form: write 198.51.100.2`,
			`agent.yaml:8: peers[6].gateway: "vpn example.com" is neither an IP address nor a DNS name`,
			`agent.yaml:9: peers[7].gateway: "https://vpn.example.com" is neither an IP address nor a DNS name`,
			`agent.yaml:10: peers[8].gateway: "198.51.100.2/32" is neither an IP address nor a DNS name`,
			`agent.yaml:11: peers[9].gateway: "-a.example.com" is neither an IP address nor a DNS name`,
			`agent.yaml:12: peers[10].gateway: "a..b" is neither an IP address nor a DNS name`,
			`agent.yaml:13: peers[11].gateway: "fe80::1%\x01" has a zone that is no interface name`,
		},
		"identity": {
			`agent.yaml:4: peers[0].ike.local_id: "" is not an identity: write it as in the IKE daemon's own configuration`,
			`agent.yaml:4: peers[0].ike.remote_id: "a\x00b" is not an identity: write it as in the IKE daemon's own configuration`,
		},
		"integer": {
			`agent.yaml:1: icmp.size: "1e3" is not a whole number`,
			`agent.yaml:5: peers[0].icmp.size: 99999999999999999999 is not within 24 to 65507`,
			`agent.yaml:6: peers[0].ike.version: 3 is not within 1 to 2`,
			`agent.yaml:7: peers[0].inner[0].tcp_ports[0]: 0 is not within 1 to 65535`,
			`agent.yaml:7: peers[0].inner[0].tcp_ports[1]: 65536 is not within 1 to 65535`,
			`agent.yaml:7: peers[0].inner[0].tcp_ports[2]: "ssh" is not a whole number`,
		},
		"interface": {
			`agent.yaml:4: peers[0].interface: "a-name-of-16-byt" is not an interface name: see ip link`,
			`agent.yaml:5: peers[1].interface: "a/b" is not an interface name: see ip link`,
		},
		"journal": {
			`agent.yaml:4: peers[0].logs[0].journal: "a b" is not the name of a systemd unit`,
		},
		"listen-host": {
			`agent.yaml:1: listen: "127.0.0.300" is neither an IP address nor a DNS name`,
		},
		"listen-port": {
			`agent.yaml:1: listen: port "http" is not within 0 to 65535`,
		},
		"listen": {
			`agent.yaml:1: listen: "localhost" is not host:port: write it like 127.0.0.1:9793, [::1]:9793 or :9793`,
		},
		"logs": {
			`agent.yaml:4: peers[0].logs[0]: want either path or journal`,
			`agent.yaml:4: peers[0].logs[1]: want either path or journal`,
			`agent.yaml:4: peers[0].logs[3]: is listed already: remove one`,
		},
		"merge": {
			`agent.yaml:4: peers[0].icmp: unknown key "<<": known here: interval, size, timeout`,
		},
		"missing": {
			`agent.yaml:2: peers[0].name: is missing`,
			`agent.yaml:2: peers[0].gateway: is missing`,
			`agent.yaml:3: peers[1].gateway: is missing`,
			`agent.yaml:4: peers[2].name: is missing`,
			`agent.yaml:5: peers[2].inner[0].address: is missing`,
		},
		"mode": {
			`agent.yaml:4: peers[0].ike.mode: only IKE version 1 has modes: declare version: 1 or remove mode`,
			`agent.yaml:5: peers[1].ike.mode: only IKE version 1 has modes: declare version: 1 or remove mode`,
		},
		"name": {
			`agent.yaml:2: peers[0].name: "Cloud" is not a name: use 1 to 63 of a-z, 0-9, '.', '_' and '-', a letter or digit first`,
			`agent.yaml:3: peers[1].name: "a/b" is not a name: use 1 to 63 of a-z, 0-9, '.', '_' and '-', a letter or digit first`,
			`agent.yaml:4: peers[2].name: "" is not a name: use 1 to 63 of a-z, 0-9, '.', '_' and '-', a letter or digit first`,
			`agent.yaml:5: peers[3].name: "-a" is not a name: use 1 to 63 of a-z, 0-9, '.', '_' and '-', a letter or digit first`,
			`agent.yaml:6: peers[4].name: "a b" is not a name: use 1 to 63 of a-z, 0-9, '.', '_' and '-', a letter or digit first`,
			`agent.yaml:7: peers[5].name: "\x1b[31mred" is not a name: use 1 to 63 of a-z, 0-9, '.', '_' and '-', a letter or digit first`,
			`agent.yaml:8: peers[6].name: "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx..." is not a name: use 1 to 63 of a-z, 0-9, '.', '_' and '-', a letter or digit first`,
		},
		"nesting": {
			`agent.yaml:1: nested deeper than any key needs`,
		},
		"no-peers": {
			`agent.yaml:1: peers: no peer is declared: declare at least one, with a name and a gateway`,
		},
		"no-value": {
			`agent.yaml:1: listen: has no value: give it one or remove the key`,
			`agent.yaml:2: icmp: has no value: give it one or remove the key`,
			`agent.yaml:3: references[0]: has no value: give it one or remove the entry`,
			`agent.yaml:7: peers[0].source: has no value: give it one or remove the key`,
		},
		"not-a-mapping": {
			`agent.yaml:1: want keys with values, not a list`,
		},
		"null-document": {
			`agent.yaml: peers: no peer is declared: declare at least one, with a name and a gateway`,
		},
		"path": {
			`agent.yaml:1: state_directory: "state" is not an absolute path: start it with /`,
			`agent.yaml:2: web_config_file: "/a\nb" is not a path`,
			`agent.yaml:6: peers[0].ike.psk_file: "psk" is not an absolute path: start it with /`,
			`agent.yaml:7: peers[0].logs[0].path: "charon.log" is not an absolute path: start it with /`,
		},
		"peers-mapping": {
			`agent.yaml:1: peers: want a list, not keys with values`,
		},
		"peers-null": {
			`agent.yaml:1: peers: has no value: give it one or remove the key`,
		},
		"proposal": {
			`agent.yaml:6: peers[0].ike.proposals[0]: default depends on the daemon's version: write the algorithms out`,
			`agent.yaml:7: peers[0].ike.proposals[1]: "sha265" in "aes256-sha265-modp2048" is not an algorithm of strongSwan's proposals: did you mean sha256?`,
			`agent.yaml:8: peers[0].ike.proposals[2]: "aes257" in "aes257-quux-modp2048" is not an algorithm of strongSwan's proposals: did you mean aes256?`,
			`agent.yaml:9: peers[0].ike.proposals[3]: aes256 is twice in "aes256-aes256-sha1-modp2048"`,
			`agent.yaml:10: peers[0].ike.proposals[4]: "sha256-modp2048" has no encryption: write it like aes256-sha256-modp2048`,
			`agent.yaml:11: peers[0].ike.proposals[5]: "aes256-aes256gcm16-sha256-modp2048" mixes aes256gcm16, which needs no integrity, with encryption that does: write two proposals`,
			`agent.yaml:12: peers[0].ike.proposals[6]: "aes256gcm16-sha256-modp2048" has integrity beside aes256gcm16, which brings its own: remove sha256`,
			`agent.yaml:13: peers[0].ike.proposals[7]: "aes256-modp2048" has no integrity: add one, such as sha256`,
			`agent.yaml:14: peers[0].ike.proposals[8]: "aes256gcm16-modp2048" has no PRF to go with aes256gcm16: add one, such as prfsha256`,
			`agent.yaml:15: peers[0].ike.proposals[9]: "aes256-sha256" has no group: add one, such as modp2048`,
			`agent.yaml:16: peers[0].ike.proposals[10]: esn is for ESP, in the IKE proposal "aes256-sha256-modp2048-esn": remove it`,
			`agent.yaml:17: peers[0].ike.proposals[11]: "" in "" is not an algorithm of strongSwan's proposals`,
			`agent.yaml:19: peers[0].esp.proposals[0]: prfsha256 is for IKE, in the ESP proposal "aes256-sha256-prfsha256": remove it`,
			`agent.yaml:19: peers[0].esp.proposals[1]: "null" neither encrypts nor protects integrity`,
			`agent.yaml:19: peers[0].esp.proposals[2]: "" in "aes256-" is not an algorithm of strongSwan's proposals`,
		},
		"ratio": {
			`agent.yaml:1: thresholds.loss: 2 is not within 0% to 100%: write 2% or 0.02`,
			`agent.yaml:5: peers[0].thresholds.loss: "lots" is not a share: write 2% or 0.02`,
			`agent.yaml:6: peers[1].thresholds.loss: NaN% is not within 0% to 100%: write 2% or 0.02`,
		},
		"reference-is-gateway": {
			`agent.yaml:1: references[1]: 198.51.100.2 is the gateway of peers[0]: a reference must be someone else`,
		},
		"repeated": {
			`agent.yaml:1: references[1]: 192.0.2.1 is entry [0] already: remove one`,
			`agent.yaml:5: peers[0].local_subnets[1]: 10.0.0.0/8 is entry [0] already: remove one`,
			`agent.yaml:6: peers[0].ike.proposals[1]: aes256-sha256-ecp256 is entry [0] already: remove one`,
			`agent.yaml:7: peers[0].inner[0].tcp_ports[1]: 22 is entry [0] already: remove one`,
			`agent.yaml:7: peers[0].inner[1]: has the address and source of entry [0]: make them one`,
		},
		"second-document": {
			`agent.yaml:4: a second YAML document starts here: keep one`,
		},
		"subnet": {
			`agent.yaml:4: peers[0].local_subnets[0]: 10.1.0.5/24 has bits set outside its prefix: write 10.1.0.0/24`,
			`agent.yaml:4: peers[0].local_subnets[1]: 10.1.0.1 has no prefix length: write 10.1.0.1/32 for this one address`,
			`agent.yaml:4: peers[0].local_subnets[2]: "lan" is not a subnet: write it like 10.2.0.0/24 or 2001:db8:2::/64`,
			`agent.yaml:4: peers[0].local_subnets[3]: "10.0.0.0/33" is not a subnet: write it like 10.2.0.0/24 or 2001:db8:2::/64`,
			`agent.yaml:5: peers[0].remote_subnets[0]: 2001:db8::1/64 has bits set outside its prefix: write 2001:db8::/64`,
			`agent.yaml:5: peers[0].remote_subnets[1]: ::ffff:10.0.0.0/104 is an IPv4 subnet in IPv6 form: write it like 10.2.0.0/24`,
			`agent.yaml:5: peers[0].remote_subnets[2]: 2001:db8::1 has no prefix length: write 2001:db8::1/128 for this one address`,
		},
		"syntax-second": {
			`agent.yaml:5: not valid YAML: did not find expected node content`,
		},
		"syntax": {
			`agent.yaml:1: not valid YAML: did not find expected node content`,
		},
		"tag": {
			`agent.yaml:1: YAML tags are not supported: remove "!!binary"`,
		},
		"ten-mistakes": {
			`agent.yaml:1: listen: "9793" is not host:port: write it like 127.0.0.1:9793, [::1]:9793 or :9793`,
			`agent.yaml:2: unknown key "intervall": did you mean interval?`,
			`agent.yaml:3: icmp.interval: "1" has no unit: write 1s for seconds`,
			`agent.yaml:3: icmp.size: "big" is not a whole number`,
			`agent.yaml:4: lang: "fr" is not supported: write en or zh`,
			`agent.yaml:5: references[0]: "dns" is a name: write its address, a reference must not depend on DNS`,
			`agent.yaml:7: peers[0].name: "Cloud One" is not a name: use 1 to 63 of a-z, 0-9, '.', '_' and '-', a letter or digit first`,
			`agent.yaml:8: peers[0].gateway: "198.51.100" is neither an IP address nor a DNS name`,
			`agent.yaml:9: peers[0].remote_subnets[0]: 10.2.0.1/24 has bits set outside its prefix: write 10.2.0.0/24`,
			`agent.yaml:10: peers[0].bandwidth: unit "Mb" is not clear: write bit, kbit, Mbit, Gbit or Tbit`,
			`agent.yaml:11: peers[0].inner[0].tcp_ports[0]: "https" is not a whole number`,
		},
		"unknown-key": {
			`agent.yaml:1: unknown key "lisen": did you mean listen?`,
			`agent.yaml:2: unknown key "ICMP": did you mean icmp?`,
			`agent.yaml:3: unknown key "zebra_crossing": known here: capture, icmp, inner_interval, interval, lang, listen, log, path_mtu_interval, peers, references, state_directory, thresholds, web_config_file`,
			`agent.yaml:4: unknown key "icmp.interval": known here: capture, icmp, inner_interval, interval, lang, listen, log, path_mtu_interval, peers, references, state_directory, thresholds, web_config_file`,
			`agent.yaml:5: unknown key a list: known here: capture, icmp, inner_interval, interval, lang, listen, log, path_mtu_interval, peers, references, state_directory, thresholds, web_config_file`,
			`agent.yaml:10: peers[0]: unknown key "gatway": did you mean gateway?`,
			`agent.yaml:11: peers[0]: unknown key "local-subnets": did you mean local_subnets?`,
			`agent.yaml:12: peers[0].ike: unknown key "proposal": did you mean proposals?`,
		},
		"wrong-type": {
			`agent.yaml:1: listen: want a single value, not a list`,
			`agent.yaml:2: interval: want a single value, not keys with values`,
			`agent.yaml:3: icmp: want keys with values, not "5"`,
			`agent.yaml:4: references: want a list, not "192.0.2.1"`,
			`agent.yaml:8: peers[0].ike: want keys with values, not a list`,
			`agent.yaml:9: peers[0].inner: want a list, not keys with values`,
			`agent.yaml:10: peers[0].logs: want a list, not "x"`,
			`agent.yaml:11: peers[0].local_subnets[0]: want a single value, not a list`,
			`agent.yaml:12: peers[0].icmp: want keys with values, not a list`,
			`agent.yaml:13: peers[1]: want keys with values, not "cloud2"`,
		},
	}
}

func TestInvalid(t *testing.T) {
	files, err := filepath.Glob("testdata/invalid-*.yaml")
	if err != nil || len(files) != len(invalid()) {
		t.Fatalf("%d files for %d expectations, error %v", len(files), len(invalid()), err)
	}
	for name, want := range invalid() {
		t.Run(name, func(t *testing.T) {
			f, err := os.Open("testdata/invalid-" + name + ".yaml")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			checkFaults(t, f, want)
		})
	}
}

func checkFaults(t *testing.T, f io.Reader, want []string) {
	t.Helper()
	c, err := Parse(f, "agent.yaml", nil, nil)
	if c != nil {
		t.Error("a configuration came with the error")
	}
	var faults Faults
	if !errors.As(err, &faults) {
		t.Fatalf("error is %T (%v), want Faults", err, err)
	}
	if diff := cmp.Diff(want, strings.Split(err.Error(), "\n")); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
}

func TestHostile(t *testing.T) {
	many := strings.Repeat("  - {gateway: 192.0.2.1}\n", 60)
	var cut []string // one fault per peer for its name, and one for its repeated gateway
	for i := range maxFaults / 2 {
		if i == 0 {
			cut = append(cut, "agent.yaml:2: peers[0].name: is missing")
			continue
		}
		cut = append(cut, fmt.Sprintf("agent.yaml:%d: peers[%d].name: is missing", i+2, i),
			fmt.Sprintf("agent.yaml:%d: peers[%d].gateway: 192.0.2.1 from the same source is peers[0] already: make them one, or give each its source", i+2, i))
	}
	cut = append(cut, "agent.yaml:27: peers[25].name: is missing", "and 69 more faults")
	tests := map[string]struct {
		text string
		want []string
	}{
		"huge":       {strings.Repeat("# comment\n", maxSize/10+1), []string{"agent.yaml: larger than 1048576 bytes: is this the right file?"}},
		"nul":        {"listen: a\nlang: \x00\n", []string{"agent.yaml:2: holds a NUL byte: this is not a text file"}},
		"utf-16":     {"\xff\xfel\x00", []string{"agent.yaml:1: not UTF-8 text: save it as UTF-8"}},
		"latin-1":    {"lang: en\n# caf\xe9\n", []string{"agent.yaml:2: not UTF-8 text: save it as UTF-8"}},
		"deep":       {strings.Repeat("[", 100_000), []string{"agent.yaml: not valid YAML: exceeded max depth of 10000"}},
		"deep block": {deepBlock(), []string{"agent.yaml:16: nested deeper than any key needs"}},
		"bomb":       {bomb(), []string{"agent.yaml:1: YAML anchors and aliases are not supported: write the value out"}},
		"long list": {Minimal + "    local_subnets: [" + strings.Repeat("a,", 1001) + "]\n",
			[]string{"agent.yaml:5: peers[0].local_subnets: has 1001 entries, more than 1000"}},
		"long value": {"lang: " + strings.Repeat("x", 1000) + "\n" + Minimal,
			[]string{`agent.yaml:1: lang: "` + strings.Repeat("x", 60) + `..." is not supported: write en or zh`}},
		"many faults": {"peers:\n" + many, cut},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) { checkFaults(t, strings.NewReader(tt.text), tt.want) })
	}
}

func deepBlock() string {
	var b strings.Builder
	for i := range 40 {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

// bomb returns a text whose aliases would expand to 10^9 values.
func bomb() string {
	var b strings.Builder
	b.WriteString("a0: &a0 x\n")
	for i := 1; i < 10; i++ {
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 10), ","))
	}
	return b.String()
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range append(files, "reference.yaml", "minimal.yaml") {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse(strings.NewReader(text), "agent.yaml", nil, nil)
		if err != nil {
			if strings.ContainsFunc(err.Error(), func(r rune) bool { return r != '\n' && r < ' ' || r == 0x7f }) {
				t.Errorf("error %q is not fit for a terminal", err)
			}
			return
		}
		printed, err := c.YAML()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(strings.NewReader(string(printed)), "printed", nil, nil)
		if err != nil {
			t.Fatalf("what was printed does not load: %v\n%s", err, printed)
		}
		if diff := cmp.Diff(c, again, values); diff != "" {
			t.Errorf("loaded from what was printed (-want +got):\n%s\n%s", diff, printed)
		}
		Lint(c, nil)
	})
}
