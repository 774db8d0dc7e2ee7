package hoststate

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"vpnprobe/evidence"
	"vpnprobe/internal/netnstest"
)

var (
	lanHere  = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("2001:db8:1::/48")}
	lanThere = []netip.Prefix{netip.MustParsePrefix("10.2.0.0/16"), netip.MustParsePrefix("2001:db8:2::/48")}
)

// gateway makes the test's thread a gateway between a LAN and the Internet.
func gateway(t *testing.T) {
	t.Helper()
	netnstest.Thread(t)
	run(t, "ip link add lan type veth peer name host", "ip link add wan type veth peer name far", "ip link set host up", "ip link set far up", "ip link set lan up", "ip link set wan up",
		"ip addr add 10.1.0.1/16 dev lan", "ip addr add 192.0.2.1/24 dev wan", "ip route add default via 192.0.2.254",
		"ip addr add 2001:db8:1::1/48 dev lan nodad", "ip addr add 2001:db8::1/64 dev wan nodad", "ip route add default via 2001:db8::fe")
}

// load has a tool of a firewall read its rules, or skips the test.
func load(t *testing.T, rules string, tool ...string) {
	t.Helper()
	cmd := exec.Command(tool[0], tool[1:]...)
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("%s cannot load these rules on this kernel: %v: %s", tool[0], err, out)
	}
}

// summary is one line per clamp.
func summary(m evidence.MSSClamps) []string {
	out := []string{}
	for _, c := range m.Rules {
		mss := "pmtu"
		if n, ok := c.MSS.Get(); ok {
			mss = fmt.Sprint(n)
		}
		packets := "?"
		if n, ok := c.Packets.Get(); ok {
			packets = fmt.Sprint(n)
		}
		out = append(out, fmt.Sprintf("%s|%s|%s|%s|%t %t|%v|%s", c.Tool, c.Where, c.Rule, mss, c.V4, c.V6, c.Covers, packets))
	}
	return out
}

func TestMSSClampsOfNFT(t *testing.T) {
	gateway(t)
	load(t, `
table inet vpn {
	set peers { type ipv4_addr; elements = { 192.0.2.9 } }
	chain forwarded {
		type filter hook forward priority -150; policy accept;
		iifname "lan" ip daddr 10.2.0.0/16 tcp flags syn / syn,rst counter tcp option maxseg size set rt mtu
		oifname "dmz" tcp flags syn / syn,rst tcp option maxseg size set 1301
		oifname != "dmz" meta nfproto ipv6 tcp flags syn / syn,rst tcp option maxseg size set 1302
		tcp flags & (syn|rst) == syn tcp option maxseg size > 1303 tcp option maxseg size set 1303
		tcp flags syn tcp option maxseg size 1305-65535 tcp option maxseg size set 1304
		rt ipsec exists tcp flags syn tcp option maxseg size set 1305
		rt ipsec missing meta ipsec missing tcp flags syn tcp option maxseg size set 1306
		ip saddr 10.2.128.0/17 tcp flags syn tcp option maxseg size set 1307
		ip saddr 10.3.0.0/23 tcp flags syn tcp option maxseg size set 1308
		ip saddr { 10.1.0.0/16, 10.3.0.0/24 } tcp flags syn tcp option maxseg size set 1309
		ip saddr @peers tcp flags syn tcp option maxseg size set 1310
		ct state new tcp flags syn tcp option maxseg size set 1311
		ct state established tcp flags syn tcp option maxseg size set 1312
		iif "lan" oifname "wa*" tcp flags syn tcp option maxseg size set 1313
		meta l4proto udp jump clamps
		ip6 daddr 2001:db8:2::/48 jump clamps
		tcp dport 443 tcp option maxseg size set 1314
		ipsec out ip daddr 192.0.2.9 tcp flags syn tcp option maxseg size set 1315
		limit rate 5/second tcp flags syn tcp option maxseg size set 1316
		tcp option maxseg size set ip daddr map { 10.2.0.1 : 1317 }
		ip daddr 10.2.0.0/16 accept
		tcp flags syn tcp option maxseg size set 1318
		iifname vmap { "lan" : jump mapped }
		accept
		tcp flags syn tcp option maxseg size set 1319
	}
	chain clamps { tcp flags syn tcp option maxseg size set 1320; goto more; }
	chain more { tcp flags syn tcp option maxseg size set 1321; }
	chain mapped { tcp flags syn tcp option maxseg size set 1322; }
	chain own {
		type filter hook output priority -150; policy accept;
		tcp flags syn tcp option maxseg size set 1323
	}
	chain mine {
		type filter hook input priority -150; policy accept;
		tcp flags syn tcp option maxseg size set 1324
	}
}
table ip old {
	chain none { tcp flags syn tcp option maxseg size set 1325; }
	chain leaves {
		type filter hook postrouting priority -150; policy accept;
		ip protocol tcp ip daddr != 10.9.0.0/16 tcp option maxseg size set 1326 accept
	}
}
table ip6 asleep {
	flags dormant
	chain forwarded {
		type filter hook forward priority -150; policy accept;
		tcp flags syn tcp option maxseg size set 1327
	}
}
table bridge other {
	chain forwarded {
		type filter hook forward priority -150; policy accept;
		tcp flags syn tcp option maxseg size set 1328
	}
}
`, "nft", "-f", "-")
	got := New().MSSClamps(t.Context(), lanHere, lanThere)
	if got.Readable != evidence.Yes || got.CannotLook != "" {
		t.Errorf("readable %v: %s", got.Readable, got.CannotLook)
	}
	const in = "nft|inet vpn "
	const set = "tcp option maxseg size set "
	want := []string{
		in + `clamps|tcp flags syn ` + set + `1320|1320|false true|yes|?`, // of what goes to IPv6
		in + `forwarded|iifname "lan" ip daddr 10.2.0.0/16 tcp flags syn / syn,rst counter packets 0 ` + set + `rt mtu|pmtu|true false|yes|0`,
		in + `forwarded|oifname "dmz" tcp flags syn / syn,rst ` + set + `1301|1301|true true|no|?`,
		in + `forwarded|oifname != "dmz" meta nfproto ipv6 tcp flags syn / syn,rst ` + set + `1302|1302|false true|yes|?`,
		in + `forwarded|tcp flags syn / syn,rst tcp option maxseg size > 1303 ` + set + `1303|1303|true true|yes|?`,
		in + `forwarded|tcp flags syn tcp option maxseg size >= 1305 tcp option maxseg size <= 65535 ` + set + `1304|1304|true true|yes|?`,
		in + `forwarded|rt ipsec exists tcp flags syn ` + set + `1305|1305|true true|yes|?`,
		in + `forwarded|rt ipsec missing meta ipsec missing tcp flags syn ` + set + `1306|1306|true true|no|?`,
		in + `forwarded|ip saddr 10.2.128.0/17 tcp flags syn ` + set + `1307|1307|true false|unknown|?`,
		in + `forwarded|ip saddr 10.3.0.0/23 tcp flags syn ` + set + `1308|1308|true false|no|?`,
		in + `forwarded|ip saddr @__set0 tcp flags syn ` + set + `1309|1309|true false|unknown|?`,
		in + `forwarded|ip saddr @peers tcp flags syn ` + set + `1310|1310|true false|unknown|?`,
		in + `forwarded|ct state new tcp flags syn ` + set + `1311|1311|true true|yes|?`,
		in + `forwarded|<ct state> tcp flags syn ` + set + `1312|1312|true true|unknown|?`,
		in + `forwarded|iif "lan" oifname "wa*" tcp flags syn ` + set + `1313|1313|true true|yes|?`,
		in + `forwarded|<payload> ` + set + `1314|1314|true true|unknown|?`,
		in + `forwarded|<xfrm> <cmp> tcp flags syn ` + set + `1315|1315|true true|unknown|?`,
		in + `forwarded|<limit> tcp flags syn ` + set + `1316|1316|true true|unknown|?`,
		in + `forwarded|ip daddr @__map0 ` + set + `<other>|pmtu|true false|unknown|?`,
		// What goes out is accepted before, but what comes back is not.
		in + `forwarded|tcp flags syn ` + set + `1318|1318|true true|yes|?`,
		in + `forwarded|tcp flags syn ` + set + `1319|1319|true true|no|?`, // all is accepted before
		in + `mapped|tcp flags syn ` + set + `1322|1322|true true|unknown|?`,
		in + `more|tcp flags syn ` + set + `1321|1321|false true|yes|?`,
		in + `own|tcp flags syn ` + set + `1323|1323|true true|no|?`,
		`nft|ip old leaves|ip daddr != 10.9.0.0/16 ` + set + `1326|1326|true false|yes|?`,
	}
	if diff := cmp.Diff(want, summary(got)); diff != "" {
		t.Errorf("clamps (-want +got):\n%s", diff)
	}
}

func TestMSSClampsOfIPTables(t *testing.T) {
	const rules = `*mangle
:PREROUTING ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:clamp - [0:0]
:unused - [0:0]
[7:420] -A FORWARD -s 10.1.0.0/16 -o wan -p tcp -m tcp --tcp-flags SYN,RST SYN -m comment --comment "to the \"site\"" -j TCPMSS --clamp-mss-to-pmtu
-A FORWARD -d 10.9.0.0/16 -j clamp
-A clamp -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1301
-A unused -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1302
-A OUTPUT -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1303
-A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -m tcpmss --mss 1305:1536 -j TCPMSS --set-mss 1304
-A FORWARD -p tcp -m policy --dir out --pol ipsec -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1305
COMMIT
*filter
:FORWARD ACCEPT [0:0]
-A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1306
COMMIT
`
	const six = `*mangle
:FORWARD ACCEPT [0:0]
-A FORWARD -s 2001:db8:1::/48 -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1280
COMMIT
`
	for _, kind := range []string{"legacy", "nft"} {
		t.Run(kind, func(t *testing.T) {
			gateway(t)
			load(t, rules, "iptables-"+kind+"-restore", "-c")
			load(t, six, "ip6tables-"+kind+"-restore")
			got := New().MSSClamps(t.Context(), lanHere, lanThere)
			if got.Readable != evidence.Yes || got.CannotLook != "" {
				t.Errorf("readable %v: %s", got.Readable, got.CannotLook)
			}
			for _, want := range []string{
				`iptables|ip mangle FORWARD|-A FORWARD -s 10.1.0.0/16 -o wan -p tcp -m tcp --tcp-flags SYN,RST SYN -m comment --comment "to the \"site\"" -j TCPMSS --clamp-mss-to-pmtu|pmtu|true false|yes|7`,
				`iptables|ip mangle clamp|-A clamp -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1301|1301|true false|no|0`,
				`iptables|ip mangle OUTPUT|-A OUTPUT -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1303|1303|true false|no|0`,
				`iptables|ip mangle FORWARD|-A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -m tcpmss --mss 1305:1536 -j TCPMSS --set-mss 1304|1304|true false|yes|0`,
				`iptables|ip mangle FORWARD|-A FORWARD -p tcp -m policy --dir out --pol ipsec -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1305|1305|true false|yes|0`,
				`iptables|ip filter FORWARD|-A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1306|1306|true false|yes|0`,
				`iptables|ip6 mangle FORWARD|-A FORWARD -s 2001:db8:1::/48 -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1280|1280|false true|yes|0`,
			} {
				found := false
				for _, line := range summary(got) {
					found = found || line == want
				}
				if !found {
					t.Errorf("no %s", want)
				}
			}
			if len(got.Rules) != 7 {
				t.Errorf("%d clamps, want 7:\n%s", len(got.Rules), strings.Join(summary(got), "\n"))
			}
			without := New()
			without.tools = nil
			got = without.MSSClamps(t.Context(), lanHere, lanThere)
			switch kind {
			case "legacy":
				if got.Readable != evidence.Unknown || !strings.Contains(got.CannotLook, "no iptables-legacy-save") || len(got.Rules) != 0 {
					t.Errorf("without a tool: %+v", got)
				}
			case "nft":
				// The kernel tells of the rules, but not of all that they match.
				if got.Readable != evidence.Yes || len(got.Rules) != 7 {
					t.Errorf("without a tool: readable %v %s, clamps:\n%s", got.Readable, got.CannotLook, strings.Join(summary(got), "\n"))
				}
			}
		})
	}
}

func TestMSSClampsOfNone(t *testing.T) {
	gateway(t)
	before := tablesOf(t)
	got := New().MSSClamps(t.Context(), lanHere, lanThere)
	if got.Readable != evidence.Yes || got.CannotLook != "" || got.Rules == nil || len(got.Rules) != 0 {
		t.Errorf("MSSClamps() without a firewall = %+v", got)
	}
	if after := tablesOf(t); after != before {
		t.Errorf("looking made tables: %q, before %q", after, before)
	}
}

// tablesOf returns the tables of all firewalls of the test's namespace.
func tablesOf(t *testing.T) string {
	t.Helper()
	var all []byte
	for _, name := range []string{"ip_tables_names", "ip6_tables_names"} {
		b, err := os.ReadFile(filepath.Join("/proc/thread-self/net", name))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	if out, err := exec.Command("nft", "list", "tables").Output(); err == nil {
		all = append(all, out...)
	}
	return string(all)
}

func TestMSSClampsWithoutCapability(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: gives up CAP_NET_ADMIN in a child")
	}
	if os.Getenv("HOSTSTATE_UNPRIVILEGED") != "" {
		got := New().MSSClamps(t.Context(), lanHere, lanThere)
		if got.Readable != evidence.Unknown || len(got.Rules) != 0 {
			t.Fatalf("read the rules without CAP_NET_ADMIN: %+v", got)
		}
		t.Fatalf("said: %s.", got.CannotLook)
	}
	self := exec.Command("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", os.Args[0], "-test.run=^TestMSSClampsWithoutCapability$")
	self.Env = append(os.Environ(), "HOSTSTATE_UNPRIVILEGED=1")
	out, err := self.CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("said: read this host's firewall rules: needs CAP_NET_ADMIN: sudo setcap cap_net_admin,cap_net_raw+ep agent.")) {
		t.Fatalf("want one error that names the capability: %v: %s", err, out)
	}
}
