package config

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// duration returns the parser of a time between least and most.
func duration(least, most time.Duration) func(string) (time.Duration, error) {
	return func(text string) (time.Duration, error) {
		v, err := time.ParseDuration(text)
		if err != nil {
			if _, err := strconv.ParseFloat(text, 64); err == nil {
				return 0, fmt.Errorf("%s has no unit: write %ss for seconds", quote(text), clip(text))
			}
			return 0, fmt.Errorf("%s is not a duration: write it like 500ms, 10s or 5m", quote(text))
		}
		if v < least || v > most {
			return 0, fmt.Errorf("%s is not within %s to %s", clip(text), formatDuration(least), formatDuration(most))
		}
		return v, nil
	}
}

// orOff lets a parser of durations accept "0" and "off" too.
func orOff(parse func(string) (time.Duration, error)) func(string) (time.Duration, error) {
	return func(text string) (time.Duration, error) {
		if v, err := time.ParseDuration(text); text == "off" || err == nil && v == 0 {
			return 0, nil
		}
		v, err := parse(text)
		if err != nil {
			err = fmt.Errorf("%w, or 0 to turn it off", err)
		}
		return v, err
	}
}

// formatDuration writes a duration without the units that are zero: "10m"
// where the standard library writes "10m0s".
func formatDuration(v time.Duration) string {
	text := v.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// integer returns the parser of a number between least and most.
func integer(least, most int) func(string) (int, error) {
	return func(text string) (int, error) {
		v, err := strconv.Atoi(text)
		if err != nil && !errors.Is(err, strconv.ErrRange) {
			return 0, fmt.Errorf("%s is not a whole number", quote(text))
		}
		if err != nil || v < least || v > most {
			return 0, fmt.Errorf("%s is not within %d to %d", clip(text), least, most)
		}
		return v, nil
	}
}

// parseRatio reads a share as "2%" or as "0.02".
func parseRatio(text string) (float64, error) {
	number, percent := strings.CutSuffix(text, "%")
	v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if err != nil {
		return 0, fmt.Errorf("%s is not a share: write 2%% or 0.02", quote(text))
	}
	if percent {
		v /= 100
	}
	if !(v >= 0 && v <= 1) { // not a number is neither
		return 0, fmt.Errorf("%s is not within 0%% to 100%%: write 2%% or 0.02", clip(text))
	}
	return v, nil
}

// bitUnits are the units of a bandwidth, decimal as line rates are.
var bitUnits = []struct {
	name string
	bits float64
}{{"Tbit", 1e12}, {"Gbit", 1e9}, {"Mbit", 1e6}, {"kbit", 1e3}, {"bit", 1}}

var bandwidthForm = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?([A-Za-z/]*)$`)

// parseBandwidth reads a rate such as "100Mbit" into bits/s. Units that some
// tools read as bytes and others as bits, such as Mbps, are refused.
func parseBandwidth(text string) (uint64, error) {
	m := bandwidthForm.FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("%s is not a bandwidth: write it like 100Mbit", quote(text))
	}
	if m[2] == "" {
		return 0, fmt.Errorf("%s has no unit: write %sMbit for megabits per second", quote(text), clip(m[1]))
	}
	for _, u := range bitUnits {
		if !strings.EqualFold(m[2], u.name) {
			continue
		}
		number, err := strconv.ParseFloat(m[1], 64)
		bits := math.Round(number * u.bits)
		if err != nil || bits < 1e3 || bits > 100e12 {
			return 0, fmt.Errorf("%s is not within 1kbit to 100Tbit", clip(text))
		}
		return uint64(bits), nil
	}
	return 0, fmt.Errorf("unit %s is not clear: write bit, kbit, Mbit, Gbit or Tbit", quote(m[2]))
}

// formatBandwidth writes bits/s in the largest unit that needs no fraction.
func formatBandwidth(bits uint64) string {
	for _, u := range bitUnits {
		if bits%uint64(u.bits) == 0 {
			return strconv.FormatUint(bits/uint64(u.bits), 10) + u.name
		}
	}
	return "" // not reached: every number is a multiple of 1
}

// parseAddr reads an address of a host.
func parseAddr(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	switch {
	case err != nil && strings.Contains(text, "/"):
		return a, fmt.Errorf("%s is a subnet, want a single address", quote(text))
	case err != nil:
		return a, fmt.Errorf("%s is not an IP address", quote(text))
	case a.Is4In6():
		return netip.Addr{}, fmt.Errorf("%s is an IPv4 address in IPv6 form: write %s", quote(text), a.Unmap().WithZone(""))
	case a.WithZone("").IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return netip.Addr{}, fmt.Errorf("%s is not the address of a host", quote(text))
	case len(a.Zone()) > 15 || strings.ContainsFunc(a.Zone(), unprintable):
		return netip.Addr{}, fmt.Errorf("%s has a zone that is no interface name", quote(text))
	}
	return a, nil
}

// parseReference reads an address of the public Internet, which needs no zone.
func parseReference(text string) (netip.Addr, error) {
	if a, err := netip.ParseAddr(text); err != nil && isName(text) {
		return a, fmt.Errorf("%s is a name: write its address, a reference must not depend on DNS", quote(text))
	}
	return parseAddr(text)
}

// parseSubnet reads a prefix without host bits.
func parseSubnet(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
			return p, fmt.Errorf("%s has no prefix length: write %s/%d for this one address", clip(text), a, a.BitLen())
		}
		return p, fmt.Errorf("%s is not a subnet: write it like 10.2.0.0/24 or 2001:db8:2::/64", quote(text))
	}
	switch {
	case p.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("%s is an IPv4 subnet in IPv6 form: write it like 10.2.0.0/24", clip(text))
	case p != p.Masked():
		return netip.Prefix{}, fmt.Errorf("%s has bits set outside its prefix: write %s", clip(text), p.Masked())
	}
	return p, nil
}

var label = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$`)

// isName reports whether text, in lower case, can be a DNS name. A last label
// of digits is a mistyped address (RFC 1123 section 2.1).
func isName(text string) bool {
	labels := strings.Split(strings.TrimSuffix(strings.ToLower(text), "."), ".")
	last := labels[len(labels)-1]
	return len(text) <= 253 && strings.Trim(last, "0123456789") != "" &&
		!slices.ContainsFunc(labels, func(l string) bool { return !label.MatchString(l) })
}

// parseGateway reads an address or a DNS name and returns it in the one form
// in which equal gateways are equal texts.
func parseGateway(text string) (string, error) {
	if _, err := netip.ParseAddr(text); err != nil {
		if isName(text) {
			return strings.TrimSuffix(strings.ToLower(text), "."), nil
		}
		return "", fmt.Errorf("%s is neither an IP address nor a DNS name", quote(text))
	}
	a, err := parseAddr(text)
	return a.String(), err
}

// parseListen reads the "host:port" of a server.
func parseListen(text string) (string, error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return "", fmt.Errorf("%s is not host:port: write it like 127.0.0.1:9793, [::1]:9793 or :9793", quote(text))
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", fmt.Errorf("port %s is not within 0 to 65535", quote(port))
	}
	if _, err := netip.ParseAddr(host); host != "" && err != nil && !isName(host) {
		return "", fmt.Errorf("%s is neither an IP address nor a DNS name", quote(host))
	}
	return net.JoinHostPort(host, port), nil
}

// parsePath reads the absolute path of a file or directory. A service has no
// working directory that a relative one could mean.
func parsePath(text string) (string, error) {
	switch {
	case strings.ContainsFunc(text, unicode.IsControl) || len(text) > 4095: // PATH_MAX less the final NUL
		return "", fmt.Errorf("%s is not a path", quote(text))
	case !filepath.IsAbs(text):
		return "", fmt.Errorf("%s is not an absolute path: start it with /", quote(text))
	}
	return filepath.Clean(text), nil
}

var peerName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

func parseName(text string) (string, error) {
	if !peerName.MatchString(text) {
		return "", fmt.Errorf("%s is not a name: use 1 to 63 of a-z, 0-9, '.', '_' and '-', a letter or digit first", quote(text))
	}
	return text, nil
}

// parseInterfaceName follows dev_valid_name of the kernel (net/core/dev.c):
// less than IFNAMSIZ (16) bytes, no '/', ':' or white space, not "." or "..".
func parseInterfaceName(text string) (string, error) {
	if text == "" || len(text) > 15 || text == "." || text == ".." ||
		strings.ContainsAny(text, "/:") || strings.ContainsFunc(text, unprintable) {
		return "", fmt.Errorf("%s is not an interface name: see ip link", quote(text))
	}
	return text, nil
}

// parseIdentity reads an IKE identity in whatever notation the daemon uses.
func parseIdentity(text string) (string, error) {
	if text == "" || len(text) > 255 || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return "", fmt.Errorf("%s is not an identity: write it as in the IKE daemon's own configuration", quote(text))
	}
	return text, nil
}

var unitName = regexp.MustCompile(`^[A-Za-z0-9:_.@\\][A-Za-z0-9:_.@\\-]{0,254}$`)

// parseUnit reads the name of a systemd unit (systemd.unit(5)).
func parseUnit(text string) (string, error) {
	if !unitName.MatchString(text) {
		return "", fmt.Errorf("%s is not the name of a systemd unit", quote(text))
	}
	return text, nil
}

func parsePort(text string) (uint16, error) {
	v, err := integer(1, 65535)(text)
	return uint16(v), err
}

func parseLevel(text string) (slog.Level, error) {
	var level slog.Level
	name, err := oneOf("debug", "info", "warn", "error")(text)
	if err == nil {
		err = level.UnmarshalText([]byte(name))
	}
	return level, err
}

// oneOf returns the parser of a text that has few values.
func oneOf(values ...string) func(string) (string, error) {
	return func(text string) (string, error) {
		if !slices.Contains(values, text) {
			return "", fmt.Errorf("%s is not supported: write %s", quote(text), or(values))
		}
		return text, nil
	}
}

func or(values []string) string {
	last := len(values) - 1
	return strings.Join(values[:last], ", ") + " or " + values[last]
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) || unicode.IsSpace(r) }
