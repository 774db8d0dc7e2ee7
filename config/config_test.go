package config

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"net/netip"
	"time"
)

// values lets cmp look at the value types of package netip.
var values = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})}

func parse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse(strings.NewReader(text), "agent.yaml", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestMinimal(t *testing.T) {
	want := Default()
	want.Peers = []Peer{want.NewPeer("cloud", "198.51.100.2")}
	if diff := cmp.Diff(want, parse(t, Minimal), values); diff != "" {
		t.Errorf("minimal.yaml (-want +got):\n%s", diff)
	}
}

func TestDefault(t *testing.T) {
	want := &Config{
		Listen:          "127.0.0.1:9793",
		Interval:        10 * time.Second,
		ICMP:            ICMP{Interval: time.Second, Timeout: 2 * time.Second, Size: 56},
		InnerInterval:   5 * time.Second,
		PathMTUInterval: 10 * time.Minute,
		Thresholds:      Thresholds{Loss: 0.02, RTT: 250 * time.Millisecond},
		Capture:         Capture{Mode: "auto", XDP: "auto"},
		StateDirectory:  "/var/lib/vpnprobe",
		Log:             Logging{Format: "text"},
		Lang:            "en",
	}
	if diff := cmp.Diff(want, Default(), values); diff != "" {
		t.Errorf("Default() (-want +got):\n%s", diff)
	}
}

func TestReference(t *testing.T) {
	want := Default()
	want.References = []netip.Addr{netip.MustParseAddr("192.0.2.53"), netip.MustParseAddr("2001:db8::53")}
	want.WebConfigFile = "/etc/vpnprobe/web.yaml"
	suite := Proposal{Encryption: []string{"aes256"}, Integrity: []string{"sha256"}, Groups: []string{"modp2048"}}
	want.Peers = []Peer{{
		Name:      "cloud",
		Gateway:   "198.51.100.2",
		Source:    netip.MustParseAddr("203.0.113.2"),
		Interface: "wan",
		IKE: IKE{
			Version: 2, Proposals: []Proposal{suite}, LocalID: "203.0.113.2", RemoteID: "198.51.100.2",
			PSKFile: "/etc/vpnprobe/cloud.psk", Lifetime: 24 * time.Hour, DPDDelay: 30 * time.Second,
		},
		ESP:           ESP{Proposals: []Proposal{suite}, Mode: "tunnel", Encapsulation: "none", Lifetime: time.Hour},
		LocalSubnets:  []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")},
		RemoteSubnets: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/24")},
		Inner: []Inner{{
			Address: netip.MustParseAddr("10.2.0.10"), Source: netip.MustParseAddr("10.1.0.1"), TCPPorts: []uint16{443},
		}},
		Bandwidth:  100e6,
		Logs:       []Log{{Path: "/var/log/charon.log"}, {Journal: "strongswan"}},
		Vendor:     "generic",
		ICMP:       ICMP{Interval: 2 * time.Second, Timeout: 3 * time.Second, Size: 120},
		Thresholds: Thresholds{Loss: 0.05, RTT: 400 * time.Millisecond},
	}}
	if diff := cmp.Diff(want, parse(t, Reference), values); diff != "" {
		t.Errorf("reference.yaml (-want +got):\n%s", diff)
	}
}

// TestReferenceShowsDefaults holds the reference file to its word: every
// setting with a default shows that default.
func TestReferenceShowsDefaults(t *testing.T) {
	got, want := parse(t, Reference), Default()
	got.References, got.WebConfigFile, got.Peers = nil, "", nil
	if diff := cmp.Diff(want, got, values); diff != "" {
		t.Errorf("top level of reference.yaml (-default +shown):\n%s", diff)
	}
}

// index matches the index of a list in a key path.
var index = regexp.MustCompile(`\[[0-9]+\]`)

// keys returns every key path that text holds and every one that it could
// hold where it holds a mapping.
func keys(t *testing.T, text string) (held, known []string) {
	t.Helper()
	h, k := make(map[string]bool), make(map[string]bool)
	d := &decoder{file: "agent.yaml", lines: make(map[string]int)}
	d.known = func(path string) { k[index.ReplaceAllString(path, "[]")] = true }
	d.config(d.document([]byte(text)), nil, nil)
	if len(d.faults) > 0 {
		t.Fatal(d.faults)
	}
	for path := range d.lines {
		if !strings.HasSuffix(path, "]") {
			h[index.ReplaceAllString(path, "[]")] = true
		}
	}
	return slices.Sorted(maps.Keys(h)), slices.Sorted(maps.Keys(k))
}

func TestReferenceHoldsEveryKey(t *testing.T) {
	// An IKEv1 mode cannot stand beside version 2: it is there as a comment.
	text := strings.Replace(Reference, "version: 2", "version: 1", 1)
	text = strings.Replace(text, "# mode: main", "mode: main", 1)
	held, known := keys(t, text)
	if diff := cmp.Diff(known, held); diff != "" {
		t.Errorf("keys of reference.yaml (-known +held):\n%s", diff)
	}
}

var documented = regexp.MustCompile("(?m)^\\| `([a-z_.\\[\\]]+)` \\| ([^|]*) \\|")

func TestDocumentation(t *testing.T) {
	text, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string) // default by key
	for _, m := range documented.FindAllStringSubmatch(string(text), -1) {
		if _, ok := got[m[1]]; ok {
			t.Errorf("%s is documented twice", m[1])
		}
		got[m[1]] = m[2]
	}
	_, known := keys(t, Reference)
	known = slices.DeleteFunc(known, func(key string) bool { // a group, documented key by key
		return slices.ContainsFunc(known, func(k string) bool {
			return strings.HasPrefix(k, key+".") || strings.HasPrefix(k, key+"[].")
		})
	})
	if diff := cmp.Diff(known, slices.Sorted(maps.Keys(got))); diff != "" {
		t.Errorf("keys in docs/configuration.md (-known +documented):\n%s", diff)
	}
	for _, s := range settings() {
		if want := "`" + s.def + "`"; s.def != "" && got[s.key] != want {
			t.Errorf("default of %s is documented as %s, want %s", s.key, got[s.key], want)
		}
		for _, name := range []string{s.env(), "--" + s.flag()} {
			if !strings.Contains(string(text), "`"+name+"`") {
				t.Errorf("%s is not documented", name)
			}
		}
	}
}

func TestRoundTrip(t *testing.T) {
	full, err := os.ReadFile("testdata/valid-full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"minimal": Minimal, "reference": Reference, "full": string(full)} {
		t.Run(name, func(t *testing.T) {
			want := parse(t, text)
			printed, err := want.YAML()
			if err != nil {
				t.Fatal(err)
			}
			got := parse(t, string(printed))
			if diff := cmp.Diff(want, got, values); diff != "" {
				t.Errorf("loaded from what was printed (-want +got):\n%s\n%s", diff, printed)
			}
		})
	}
}

func TestPrinted(t *testing.T) {
	const want = `listen: 127.0.0.1:9793
interval: 10s
icmp: {interval: 1s, timeout: 2s, size: 56}
inner_interval: 5s
path_mtu_interval: 10m
thresholds: {loss: 0.02, rtt: 250ms}
capture: {mode: auto, xdp: auto}
state_directory: /var/lib/vpnprobe
log: {level: info, format: text}
lang: en
peers:
  - name: cloud
    gateway: 198.51.100.2
`
	got, err := parse(t, Minimal).YAML()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("printed (-want +got):\n%s", diff)
	}
}

func TestFromEnvironment(t *testing.T) {
	c, err := FromEnvironment([]string{"VPNPROBE_LANG=zh", "VPNPROBE_STATE_DIRECTORY=/srv/state", "HOME=/root"})
	if err != nil || c.Lang != "zh" || c.StateDirectory != "/srv/state" || len(c.Peers) != 0 || c.Interval != Default().Interval {
		t.Errorf("got %+v, %v", c, err)
	}
	if _, err := FromEnvironment([]string{"VPNPROBE_LANG=de"}); err == nil || !strings.Contains(err.Error(), "VPNPROBE_LANG") {
		t.Errorf("error %v does not name the variable", err)
	}
}
