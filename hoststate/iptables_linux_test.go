package hoststate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnprobe/evidence"
)

// siteFlows are those of a tunnel that a policy of IPsec picks.
func siteFlows() *flows {
	return &flows{
		local: lanHere, remote: lanThere, intoTunnel: evidence.No,
		towardsLocal:  interfaces{[]string{"lan", "lan"}, true},
		towardsRemote: interfaces{[]string{"wan", "wan"}, true},
	}
}

// clampsOf returns what covers the tunnel and to which MSS, one word per rule.
func clampsOf(t *testing.T, save string, v6 bool, f *flows) string {
	t.Helper()
	clamps, err := parseIPTables(strings.NewReader(save), v6, f)
	if err != nil {
		t.Fatalf("%v:\n%s", err, save)
	}
	var out []string
	for _, c := range clamps {
		mss := "pmtu"
		if n, ok := c.MSS.Get(); ok {
			mss = fmt.Sprint(n)
		}
		out = append(out, mss+"="+c.Covers.String())
	}
	return strings.Join(out, " ")
}

func TestIPTablesMatches(t *testing.T) {
	const syn = " -p tcp -m tcp --tcp-flags SYN,RST SYN"
	behindTunnel, nowhere, hosts := siteFlows(), siteFlows(), siteFlows()
	behindTunnel.intoTunnel, behindTunnel.towardsRemote.names = evidence.Yes, []string{"xfrm0", "xfrm0"}
	nowhere.local, nowhere.remote, nowhere.towardsLocal, nowhere.towardsRemote = nil, nil, interfaces{}, interfaces{}
	hosts.local = []netip.Prefix{netip.MustParsePrefix("10.1.0.7/32")}
	two := siteFlows()
	two.remote = append(two.remote, netip.MustParsePrefix("10.5.0.0/16"))
	two.towardsRemote.names = append(two.towardsRemote.names, "other")
	for _, tt := range []struct {
		chain, match string
		flows        *flows
		want         evidence.Fact
	}{
		{"FORWARD", syn, nil, evidence.Yes},
		{"POSTROUTING", syn, nil, evidence.Yes},
		{"PREROUTING", syn, nil, evidence.Yes},
		{"OUTPUT", syn, nil, evidence.No},
		{"OUTPUT", syn, hosts, evidence.Yes},
		{"OUTPUT", " -s 10.1.0.8" + syn, hosts, evidence.No},
		{"FORWARD", " -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN", nil, evidence.Yes},
		{"FORWARD", " -p tcp -m tcp ! --tcp-flags SYN,RST SYN", nil, evidence.No},
		{"FORWARD", " -p tcp -m tcp --tcp-flags SYN,ACK SYN,ACK", nil, evidence.Unknown},
		{"FORWARD", " -p udp", nil, evidence.No},
		{"FORWARD", " ! -p udp", nil, evidence.Yes},
		{"FORWARD", " -p tcp -m tcp --dport 443 --tcp-flags SYN,RST SYN", nil, evidence.Unknown},
		{"FORWARD", " -s 10.1.0.0/16" + syn, nil, evidence.Yes},
		{"FORWARD", " -s 10.0.0.0/255.0.0.0" + syn, nil, evidence.Yes},
		{"FORWARD", " -s 10.1.0.0/255.0.255.0" + syn, nil, evidence.Unknown},
		{"FORWARD", " -s 10.1.4.0/24" + syn, nil, evidence.Unknown},
		{"FORWARD", " -s 192.168.0.0/16" + syn, nil, evidence.No},
		{"FORWARD", " -s 10.1.0.0/16 -d 192.168.0.0/16" + syn, nil, evidence.No},
		{"FORWARD", " -s 10.2.0.0/16 -d 10.1.0.0/16" + syn, nil, evidence.Yes}, // the way back
		{"FORWARD", " -s 10.1.0.0/16 -d 10.1.0.0/16" + syn, nil, evidence.No},
		{"FORWARD", " ! -d 192.168.0.0/16" + syn, nil, evidence.Yes},
		{"FORWARD", " ! -s 10.0.0.0/8" + syn, nil, evidence.No},
		{"FORWARD", " -s 10.1.0.0/16" + syn, nowhere, evidence.Unknown},
		{"FORWARD", syn, nowhere, evidence.Yes},
		{"FORWARD", " -d 10.2.0.0/16" + syn, two, evidence.Unknown},
		{"FORWARD", " -d 0.0.0.0/0" + syn, two, evidence.Yes},
		{"FORWARD", " -o wan" + syn, nil, evidence.Yes},
		{"FORWARD", " -o w+" + syn, nil, evidence.Yes},
		{"FORWARD", " -o +" + syn, nil, evidence.Yes},
		{"FORWARD", " -i wan -o lan" + syn, nil, evidence.Yes},
		{"FORWARD", " -i wan -o wan" + syn, nil, evidence.No},
		{"FORWARD", " -o ppp+" + syn, nil, evidence.No},
		{"FORWARD", " ! -o ppp+" + syn, nil, evidence.Yes},
		{"FORWARD", " -o wan" + syn, nowhere, evidence.Unknown},
		{"FORWARD", " -o other" + syn, two, evidence.Unknown},
		{"FORWARD", " -m policy --dir out --pol ipsec" + syn, nil, evidence.Yes},
		{"FORWARD", " -m policy --dir in --pol ipsec --proto esp --mode tunnel" + syn, nil, evidence.Yes},
		{"FORWARD", " -m policy --dir out --pol none" + syn, nil, evidence.Yes}, // what comes back
		{"FORWARD", " -o wan -m policy --dir out --pol none" + syn, nil, evidence.No},
		{"FORWARD", " -d 10.1.0.0/16 -m policy --dir out --pol ipsec" + syn, nil, evidence.No},
		{"FORWARD", " -m policy --dir out --pol ipsec --reqid 7" + syn, nil, evidence.Unknown},
		{"FORWARD", " -m policy --dir out --pol ipsec ! --reqid 7" + syn, nil, evidence.Unknown},
		{"FORWARD", " -m policy --dir out --pol ipsec --strict --tunnel-dst 192.0.2.1/32" + syn, nil, evidence.Unknown},
		{"FORWARD", " -m policy --dir out --pol ipsec" + syn, behindTunnel, evidence.Unknown},
		{"FORWARD", " -o xfrm0" + syn, behindTunnel, evidence.Yes},
		{"FORWARD", syn + " -m tcpmss --mss 1361:1536", nil, evidence.Yes},
		{"FORWARD", syn + " -m tcpmss --mss 1500:1536", nil, evidence.Unknown},
		{"FORWARD", syn + " -m tcpmss ! --mss 1361:1536", nil, evidence.No}, // what hosts on Ethernet announce,
		{"FORWARD", " -m conntrack --ctstate NEW,RELATED" + syn, nil, evidence.Yes},
		{"FORWARD", " -m conntrack --ctstate ESTABLISHED" + syn, nil, evidence.Unknown},
		{"FORWARD", " -m set --match-set vpn dst" + syn, nil, evidence.Unknown},
		{"FORWARD", " -m mark ! --mark 0x1/0x1" + syn, nil, evidence.Unknown},
		{"FORWARD", ` -m comment --comment "-j DROP -s 1.2.3.4"` + syn, nil, evidence.Yes},
		{"FORWARD", ` -m comment --comment "! \"-d\" \\" -d 192.168.0.0/16` + syn, nil, evidence.No},
		{"FORWARD", ` -m comment --comment -x` + syn, nil, evidence.Yes},
		{"FORWARD", " -s 10.1.0.0/16 -i" + syn, nil, evidence.Unknown},
	} {
		f := tt.flows
		if f == nil {
			f = siteFlows()
		}
		got := clampsOf(t, "*mangle\n:"+tt.chain+" ACCEPT [0:0]\n-A "+tt.chain+tt.match+" -j TCPMSS --set-mss 1360\nCOMMIT\n", false, f)
		if want := "1360=" + tt.want.String(); got != want {
			t.Errorf("-A %s%s: %s, want %s", tt.chain, tt.match, got, want)
		}
	}
	if got := clampsOf(t, "*mangle\n:FORWARD ACCEPT\n-A FORWARD -s 2001:db8::/32 -p tcp -j TCPMSS --clamp-mss-to-pmtu\nCOMMIT\n", true, siteFlows()); got != "pmtu=yes" {
		t.Errorf("IPv6: %s", got)
	}
	only4 := siteFlows()
	only4.local, only4.remote = only4.local[:1], only4.remote[:1]
	if got := clampsOf(t, "*mangle\n:FORWARD ACCEPT\n-A FORWARD -p tcp -j TCPMSS --clamp-mss-to-pmtu\nCOMMIT\n", true, only4); got != "pmtu=no" {
		t.Errorf("a clamp for IPv6 where none goes through the tunnel: %s", got)
	}
}

func TestIPTablesChains(t *testing.T) {
	const heads = "*mangle\n:FORWARD ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:a - [0:0]\n:b - [0:0]\n:c - [0:0]\n"
	const clamp = " -p tcp -j TCPMSS --set-mss "
	for name, tt := range map[string]struct{ rules, want string }{
		"not hooked":                {"-A a" + clamp + "1\n", ""},
		"only from the host's own":  {"-A INPUT -j a\n-A a" + clamp + "1\n", ""},
		"two jumps":                 {"-A FORWARD -j a\n-A a -j b\n-A b" + clamp + "1\n", "1=yes"},
		"jumps from chains unused":  {"-A b -j a\n-A a" + clamp + "1\n", ""},
		"jump for others":           {"-A FORWARD -s 192.168.0.0/16 -j a\n-A a" + clamp + "1\n", "1=no"},
		"both jumps":                {"-A FORWARD -s 192.168.0.0/16 -j a\n-A FORWARD -m mark --mark 1 -j a\n-A a" + clamp + "1\n", "1=unknown"},
		"a loop":                    {"-A FORWARD -j a\n-A a -j b\n-A b -j a\n-A a" + clamp + "1\n", "1=yes"},
		"loops aside":               {"-A b -j c\n-A c -j b\n-A b" + clamp + "1\n", ""},
		"accepted before":           {"-A FORWARD -p tcp -j ACCEPT\n-A FORWARD" + clamp + "1\n", "1=no"},
		"others accepted before":    {"-A FORWARD -s 192.168.0.0/16 -j ACCEPT\n-A FORWARD" + clamp + "1\n", "1=yes"},
		"some accepted before":      {"-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT\n-A FORWARD" + clamp + "1\n", "1=yes"},
		"one direction before":      {"-A FORWARD -s 10.1.0.0/16 -j ACCEPT\n-A FORWARD -s 10.1.0.0/16" + clamp + "1\n-A FORWARD" + clamp + "2\n", "1=no 2=yes"},
		"logged before":             {"-A FORWARD -j LOG --log-prefix \"-j DROP\"\n-A FORWARD" + clamp + "1\n", "1=yes"},
		"gone before":               {"-A FORWARD -g a\n-A FORWARD" + clamp + "1\n-A a" + clamp + "2\n", "1=no 2=yes"},
		"returned before":           {"-A FORWARD -j a\n-A a -j RETURN\n-A a" + clamp + "1\n", "1=no"},
		"clamp without a number":    {"-A FORWARD -p tcp -j TCPMSS --set-mss x\n", ""},
		"clamp above all":           {"-A FORWARD -p tcp -j TCPMSS --set-mss 70000\n", ""},
		"rules of a table at a end": {"-A FORWARD" + clamp + "1\nCOMMIT\n*filter\n:FORWARD DROP\n-A FORWARD" + clamp + "2\n", "1=yes 2=yes"},
		"no chain":                  {"-A\n-A FORWARD -j\n[1:2]\n[\n-j TCPMSS --set-mss 9\n", ""},
	} {
		if got := clampsOf(t, heads+tt.rules+"COMMIT\n", false, siteFlows()); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

func TestIPTablesTooLarge(t *testing.T) {
	for name, tt := range map[string]struct {
		save string
		want error
	}{
		"endless rule": {"*mangle\n-A FORWARD -m comment --comment " + strings.Repeat("x", longestRule), errEndless},
		"chains": {func() string {
			var b strings.Builder
			b.WriteString("*nat\n")
			for i := range mostChains + 1 {
				fmt.Fprintf(&b, ":KUBE-SVC-%d - [0:0]\n", i)
			}
			return b.String()
		}(), errTooManyRules},
		"clamps":     {"*mangle\n:FORWARD ACCEPT\n" + strings.Repeat("-A FORWARD -p tcp -j TCPMSS --set-mss 1\n", mostClamps+1) + "COMMIT\n", errTooManyRules},
		"long chain": {"*mangle\n:" + strings.Repeat("x", longestName+1) + " - [0:0]\n", errTooManyRules},
	} {
		clamps, err := parseIPTables(strings.NewReader(tt.save), false, siteFlows())
		if !errors.Is(err, tt.want) || len(clamps) > mostClamps {
			t.Errorf("%s: %d clamps, error %v, want %v", name, len(clamps), err, tt.want)
		}
	}
	long := "*mangle\n:FORWARD ACCEPT\n-A FORWARD -m comment --comment \"" + strings.Repeat("\x1b[2J\xff", 1000) + "\" -p tcp -j TCPMSS --set-mss 1360\nCOMMIT\n"
	clamps, err := parseIPTables(strings.NewReader(long), false, siteFlows())
	if err != nil || len(clamps) != 1 || len(clamps[0].Rule) > longestText+3 || strings.Contains(clamps[0].Rule, "\x1b") || clamps[0].Covers != evidence.Yes {
		t.Errorf("a hostile comment: %+v, error %v", clamps, err)
	}
}

// toolBox is a host whose tools are these scripts of sh, and whose kernel has
// this table of the old packet filter.
func toolBox(t *testing.T, tables string, scripts map[string]string) *Reader {
	t.Helper()
	dir := t.TempDir()
	net := filepath.Join(dir, "proc", "thread-self", "net")
	if err := os.MkdirAll(net, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(net, "ip_tables_names"), []byte(tables), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, script := range scripts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return &Reader{proc: filepath.Join(dir, "proc"), tools: []string{filepath.Join(dir, "none"), dir}}
}

func TestLegacyTool(t *testing.T) {
	const rules = `test "$*" = -c && echo '*mangle
:FORWARD ACCEPT [0:0]
[3:180] -A FORWARD -p tcp -j TCPMSS --set-mss 1360
COMMIT'`
	nft := `test "$1" = --version && echo 'iptables-save v1.8.9 (nf_tables)' && exit; exit 9`
	old := `test "$1" = --version && echo 'iptables-save v1.4.7' && exit; ` + rules
	for name, tt := range map[string]struct {
		tables  string
		scripts map[string]string
		clamps  int
		err     string
	}{
		"no tables":            {"\n", map[string]string{"iptables-save": "exit 9"}, 0, ""},
		"legacy":               {"mangle\n", map[string]string{"iptables-legacy-save": rules, "iptables-save": nft}, 1, ""},
		"old":                  {"mangle\n", map[string]string{"iptables-save": old}, 1, ""},
		"other kind only":      {"nat\nmangle\n", map[string]string{"iptables-save": nft}, 0, "the kernel has tables of iptables (nat, mangle), and there is no iptables-legacy-save to read them: install iptables"},
		"no tool":              {"mangle\n", nil, 0, "no iptables-legacy-save"},
		"tool fails":           {"mangle\n", map[string]string{"iptables-legacy-save": "echo '*mangle'; printf 'no \\033 permission\\nsecond line' >&2; exit 3"}, 0, "exit status 3: no ? permission"},
		"tool prints for ever": {"mangle\n", map[string]string{"iptables-legacy-save": "yes '*mangle' | tr -d '\\n'"}, 0, errEndless.Error()},
	} {
		r := toolBox(t, tt.tables, tt.scripts)
		clamps, err := r.legacyClamps(t.Context(), iptablesFamilies[0], siteFlows())
		if len(clamps) != tt.clamps || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %+v, error %v, want %d and %q", name, clamps, err, tt.clamps, tt.err)
		}
	}
	r := toolBox(t, "mangle\n", map[string]string{"iptables-legacy-save": "sleep 600 & exec sleep 600"})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.legacyClamps(ctx, iptablesFamilies[0], siteFlows()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a tool that hangs: %v", err)
	}
	if err := os.Remove(filepath.Join(r.proc, "thread-self/net/ip_tables_names")); err != nil {
		t.Fatal(err)
	}
	if clamps, err := r.legacyClamps(t.Context(), iptablesFamilies[0], siteFlows()); err != nil || len(clamps) != 0 {
		t.Errorf("a kernel without tables: %+v, %v", clamps, err)
	}
	if _, err := toolBox(t, "", nil).nftToolClamps(t.Context(), iptablesFamilies[0], siteFlows()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no tool for nftables: %v", err)
	}
}

func TestLegacyLoaded(t *testing.T) {
	for modules, want := range map[string]bool{
		"ip_tables 36864 0 - Live 0x0\nx_tables 1 1 - Live\n":                       false,
		"ip_tables 36864 1 iptable_filter, Live 0x0\niptable_filter 1 0 - Live 0\n": true,
		"x_tables 1 1 - Live\n": true, // built into the kernel
		"":                      true,
	} {
		r := toolBox(t, "", nil)
		if err := os.WriteFile(filepath.Join(r.proc, "modules"), []byte(modules), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := r.legacyLoaded(iptablesFamilies[0]); got != want {
			t.Errorf("with the modules %q: %t", modules, got)
		}
	}
}

func TestCutWords(t *testing.T) {
	for s, want := range map[string][]string{
		`-A  FORWARD `:             {"-A", "FORWARD"},
		`-m comment "a \"b\" \\c"`: {"-m", "comment", `a "b" \c`},
		`x"y z"w ""`:               {"x" + "y zw", ""},
		``:                         nil,
	} {
		if got, whole := cutWords(s); cmp.Diff(want, got) != "" || !whole {
			t.Errorf("cutWords(%q) = %q, %t", s, got, whole)
		}
	}
	if got, whole := cutWords(`-A "F`); whole || len(got) != 2 {
		t.Errorf("an open quotation: %q, %t", got, whole)
	}
}

func FuzzIPTables(f *testing.F) {
	f.Add("*mangle\n:FORWARD ACCEPT [0:0]\n:a - [0:0]\n[1:2] -A FORWARD ! -s 10.1.0.0/16 -o wan+ -m policy --dir out --pol ipsec ! --reqid 1 -p tcp -m tcp --tcp-flags SYN,RST SYN -m tcpmss --mss 1:2 -g a\n-A a -j TCPMSS --set-mss 1360\nCOMMIT\n", false)
	f.Add("*filter\n:OUTPUT DROP\n-A OUTPUT -m comment --comment \"\\\"\" -p 6 -j TCPMSS --clamp-mss-to-pmtu\n-A OUTPUT -j ACCEPT\nCOMMIT", true)
	f.Add("-A\n[\n:\n*\nCOMMIT\n!\n-A x ! ! -j", true)
	f.Fuzz(func(t *testing.T, save string, v6 bool) {
		clamps, _ := parseIPTables(strings.NewReader(save), v6, siteFlows())
		if len(clamps) > mostClamps {
			t.Errorf("%d clamps", len(clamps))
		}
		for _, c := range clamps {
			if len(c.Rule) > longestText+3 || strings.ContainsAny(c.Rule+c.Where, "\n\x1b") {
				t.Errorf("the rule %q at %q", c.Rule, c.Where)
			}
			if n, ok := c.MSS.Get(); ok && (n < 0 || n > 65535) {
				t.Errorf("an MSS of %d", n)
			}
		}
	})
}
