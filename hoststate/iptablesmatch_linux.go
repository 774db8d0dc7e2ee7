package hoststate

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// option returns the packets that an option of a match is for, not negated.
func (f *flows) option(option string, values []string, v6 bool) meets {
	value := strings.Join(values, " ")
	switch option {
	case "-m", "--comment":
		return all() // what it loads restricts nothing by itself
	case "-s", "-d":
		if p, ok := cutMask(value); ok && p.Addr().Is6() == v6 {
			return f.address(p, option == "-s")
		}
	case "-i", "-o":
		if value == "" {
			break
		}
		if strings.HasSuffix(value, "+") {
			value = strings.TrimSuffix(value, "+") + "*"
		}
		return f.throughInterface(value, option == "-i")
	case "-p":
		switch value {
		case "tcp", "6", "all", "0":
			return all()
		}
		return none()
	case "--tcp-flags":
		// What it compares, and what of that is set: a SYN with or without an ACK.
		if len(values) == 2 && values[1] == "SYN" {
			for flag := range strings.SplitSeq(values[0], ",") {
				if !slices.Contains([]string{"SYN", "RST", "FIN", "ACK", "PSH", "URG"}, flag) {
					return perhaps()
				}
			}
			return all()
		}
	case "--mss":
		low, high, ranged := strings.Cut(value, ":")
		from, err := strconv.ParseUint(low, 10, 16)
		to, err2 := strconv.ParseUint(high, 10, 16)
		if ranged && err == nil && err2 == nil {
			return announcing(int(from), int(to))
		}
	case "--ctstate", "--state":
		// A SYN is new, whatever else is.
		if slices.Contains(strings.Split(value, ","), "NEW") {
			return all()
		}
	}
	return perhaps()
}

// policyMatch reads -m policy, whose options say together what it is for:
// whether packets come from IPsec (--dir in) or go into it (--dir out).
func (f *flows) policyMatch(option string, negated bool, values, words []string) (meets, []string) {
	direction, policy, other := "", "", negated
	take := func(option string, values []string) {
		value := strings.Join(values, " ")
		switch {
		case option == "--dir":
			direction = value
		case option == "--pol":
			policy = value
		case option == "--proto" && (value == "esp" || value == "50"):
		case option == "--mode" && value == "tunnel":
		case option != "-m":
			other = true
		}
	}
	take(option, values)
	for len(words) > 0 && strings.HasPrefix(words[0], "--") {
		switch words[0] {
		case "--dir", "--pol", "--proto", "--mode", "--reqid", "--spi", "--tunnel-src", "--tunnel-dst", "--strict", "--next":
		default:
			return f.policy(direction, policy, other), words
		}
		n := 1
		for n < len(words) && words[n] != "!" && !strings.HasPrefix(words[n], "-") {
			n++
		}
		take(words[0], words[1:n])
		words = words[n:]
	}
	if len(words) > 1 && words[0] == "!" && slices.Contains([]string{"--reqid", "--spi", "--proto", "--mode", "--tunnel-src", "--tunnel-dst"}, words[1]) {
		other = true // what follows is read as an option that is not known
	}
	return f.policy(direction, policy, other), words
}

func (f *flows) policy(direction, policy string, other bool) meets {
	if direction != "in" && direction != "out" || policy != "ipsec" && policy != "none" {
		return perhaps()
	}
	m := f.transformed(direction == "out").unless(policy == "none")
	if other {
		return m.and(perhaps())
	}
	return m
}

// cutMask reads an address, with a mask as a length or written out.
func cutMask(s string) (netip.Prefix, bool) {
	address, mask, masked := strings.Cut(s, "/")
	a, err := netip.ParseAddr(address)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, false
	}
	bits := a.BitLen()
	if masked {
		n, err := strconv.ParseUint(mask, 10, 8)
		if err == nil {
			bits = int(n)
		} else if m, err := netip.ParseAddr(mask); err == nil && m.BitLen() == bits {
			if bits, masked = maskBits(m.AsSlice()); !masked {
				return netip.Prefix{}, false
			}
		} else {
			return netip.Prefix{}, false
		}
	}
	p, err := a.Prefix(bits)
	return p, err == nil
}

// maskBits returns the length of a mask whose ones come first.
func maskBits(mask []byte) (int, bool) {
	bits, ended := 0, false
	for _, b := range mask {
		for i := 7; i >= 0; i-- {
			switch one := b>>i&1 == 1; {
			case one && ended:
				return 0, false
			case one:
				bits++
			default:
				ended = true
			}
		}
	}
	return bits, true
}
