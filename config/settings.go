package config

import (
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"
)

// envPrefix starts the name of every variable that the agent reads.
const envPrefix = "VPNPROBE_"

// pathVariable names the configuration file itself.
const pathVariable = envPrefix + "CONFIG"

// setting is one scalar of the top level: settable in the file, by a variable
// and by a flag.
type setting struct {
	key   string // its path in the file, such as "icmp.interval"
	def   string // the default, as one would write it; "" for none
	usage string // for the flag
	set   func(c *Config, text string) error
}

// flag returns the name of the setting's flag: "icmp-interval".
func (s setting) flag() string {
	return strings.NewReplacer(".", "-", "_", "-").Replace(s.key)
}

// env returns the name of the setting's variable: "VPNPROBE_ICMP_INTERVAL".
func (s setting) env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(s.key, ".", "_"))
}

// The parsers that the top level and the peers share. They hold the ranges.
var (
	parseInterval        = duration(time.Second, time.Hour)
	parseInnerInterval   = orOff(duration(time.Second, time.Hour))
	parsePathMTUInterval = duration(time.Minute, 24*time.Hour)
	parseICMPInterval    = duration(200*time.Millisecond, time.Minute)
	parseICMPTimeout     = duration(100*time.Millisecond, 30*time.Second)
	parseICMPSize        = integer(24, 65507)
	parseRTT             = duration(time.Millisecond, 30*time.Second)
	parseLifetime        = duration(time.Minute, 30*24*time.Hour)
	parseDPDDelay        = duration(time.Second, time.Hour)
)

// settings returns every scalar setting of the top level, with the one place
// where its default is written.
func settings() []setting {
	return []setting{
		{"listen", "127.0.0.1:9793", "address of the HTTP server, host:port",
			into(func(c *Config) *string { return &c.Listen }, parseListen)},
		{"interval", "10s", "time between two diagnoses and IKE heartbeats of a peer",
			into(func(c *Config) *time.Duration { return &c.Interval }, parseInterval)},
		{"icmp.interval", "1s", "time between two echo requests to an address",
			into(func(c *Config) *time.Duration { return &c.ICMP.Interval }, parseICMPInterval)},
		{"icmp.timeout", "2s", "time after which an echo request counts as lost",
			into(func(c *Config) *time.Duration { return &c.ICMP.Timeout }, parseICMPTimeout)},
		{"icmp.size", "56", "bytes of data in an echo request",
			into(func(c *Config) *int { return &c.ICMP.Size }, parseICMPSize)},
		{"inner_interval", "5s", "time between two echo requests to an inner address, 0 turns them off",
			into(func(c *Config) *time.Duration { return &c.InnerInterval }, parseInnerInterval)},
		{"path_mtu_interval", "10m", "time between two searches for a path MTU, which is confirmed every minute",
			into(func(c *Config) *time.Duration { return &c.PathMTUInterval }, parsePathMTUInterval)},
		{"thresholds.loss", "2%", "highest acceptable loss, a percentage or a ratio",
			into(func(c *Config) *float64 { return &c.Thresholds.Loss }, parseRatio)},
		{"thresholds.rtt", "250ms", "highest acceptable median round-trip time",
			into(func(c *Config) *time.Duration { return &c.Thresholds.RTT }, parseRTT)},
		{"capture.mode", "auto", "way to listen to the underlay: auto, bpf, ring, sa or off",
			into(func(c *Config) *string { return &c.Capture.Mode }, oneOf("auto", "bpf", "ring", "sa", "off"))},
		{"capture.xdp", "auto", "where counting in the kernel may use XDP: auto, always or never",
			into(func(c *Config) *string { return &c.Capture.XDP }, oneOf("auto", "always", "never"))},
		{"state_directory", "/var/lib/vpnprobe", "directory for what survives a restart",
			into(func(c *Config) *string { return &c.StateDirectory }, parsePath)},
		{"web_config_file", "", "exporter-toolkit file with the TLS and basic authentication of the HTTP server",
			into(func(c *Config) *string { return &c.WebConfigFile }, parsePath)},
		{"log.level", "info", "least severity that is logged: debug, info, warn or error",
			into(func(c *Config) *slog.Level { return &c.Log.Level }, parseLevel)},
		{"log.format", "text", "form of the agent's log: text or json",
			into(func(c *Config) *string { return &c.Log.Format }, oneOf("text", "json"))},
		{"lang", "en", "language of reports: en or zh",
			into(func(c *Config) *string { return &c.Lang }, oneOf("en", "zh"))},
	}
}

// into makes a setting's set function from the field it sets and the parser
// of its text. A text that does not parse leaves the field as it is.
func into[T any](field func(*Config) *T, parse func(string) (T, error)) func(*Config, string) error {
	return func(c *Config, text string) error {
		v, err := parse(text)
		if err == nil {
			*field(c) = v
		}
		return err
	}
}

// Flags adds a flag for every scalar setting to fs, which is then to be given
// to [Load].
func Flags(fs *pflag.FlagSet) {
	for _, s := range settings() {
		fs.String(s.flag(), s.def, s.usage)
	}
}

// Path returns the file that VPNPROBE_CONFIG names in env, or [DefaultPath].
func Path(env []string) string {
	if p := environment(env)[pathVariable]; p != "" {
		return p
	}
	return DefaultPath
}

// environment returns the agent's own variables. As in a shell, the last of
// two equal names counts; an empty variable is as good as none.
func environment(env []string) map[string]string {
	m := make(map[string]string)
	for _, kv := range env {
		if k, v, _ := strings.Cut(kv, "="); strings.HasPrefix(k, envPrefix) {
			m[k] = v
		}
	}
	maps.DeleteFunc(m, func(_, v string) bool { return v == "" })
	return m
}

// overlay decides which source of each setting wins, by way of viper: a flag
// over a variable over the file over the default. It returns the winning
// texts, and the flags and variables that some of them come from.
//
// Viper is given text only, under keys that it cannot split (a delimiter that
// no key contains) and does not change (all are lower case), and variables
// from env instead of the process's own, so that the outcome depends on the
// arguments alone.
func overlay(file map[string]string, fs *pflag.FlagSet, env []string) (texts, from map[string]string) {
	v := viper.NewWithOptions(viper.KeyDelimiter("\x00"))
	variables := environment(env)
	texts, from = make(map[string]string), make(map[string]string)
	layer := make(map[string]any) // the file, with the variables over it
	for _, s := range settings() {
		v.SetDefault(s.key, s.def)
		if text, ok := file[s.key]; ok {
			layer[s.key] = text
		}
		if text, ok := variables[s.env()]; ok {
			layer[s.key] = text
			from[s.key] = s.env()
		}
		if fs == nil {
			continue
		}
		if f := fs.Lookup(s.flag()); f != nil {
			_ = v.BindPFlag(s.key, f) // fails on a nil flag only
			if f.Changed {
				from[s.key] = "--" + s.flag()
			}
		}
	}
	_ = v.MergeConfigMap(layer) // cannot fail: there is nothing to merge with
	for _, s := range settings() {
		texts[s.key] = v.GetString(s.key)
	}
	return texts, from
}

// LintEnv tells of variables that start like the agent's own but are not, or
// that cannot be set by a variable. They are no faults, because others set
// such variables too: Kubernetes does for a service named vpnprobe.
func LintEnv(env []string) []Warning {
	var known []string
	for _, s := range settings() {
		known = append(known, s.env())
	}
	var out []Warning
	variables := environment(env)
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		if name == pathVariable || slices.Contains(known, name) {
			continue
		}
		text := "no such setting, the variable is ignored"
		if key := strings.ToLower(strings.TrimPrefix(name, envPrefix)); key == "peers" || key == "references" {
			text = "is a list, which only the file can hold: the variable is ignored"
		} else if near := nearest(name, known); near != "" {
			text += ": did you mean " + near + "?"
		}
		out = append(out, Warning{Key: clip(name), Text: text})
	}
	return out
}
