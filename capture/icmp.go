package capture

import "vpnprobe/evidence"

// ICMP types of error messages: RFC 792 and RFC 4443.
const (
	icmpUnreachable  = 3
	icmpSourceQuench = 4
	icmpTimeExceeded = 11
	icmpParameter    = 12

	icmp6Unreachable  = 1
	icmp6TooBig       = 2
	icmp6TimeExceeded = 3
	icmp6Parameter    = 4
)

// icmpHeader is what comes before the quoted packet, in both versions.
const icmpHeader = 8

// reason is an index into reasons.
type reason uint8

var reasons = [...]evidence.ICMPReason{
	evidence.OtherICMP,
	evidence.FragNeeded,
	evidence.NetUnreachable,
	evidence.HostUnreachable,
	evidence.AdminProhibited,
	evidence.PortUnreachable,
	evidence.ProtUnreachable,
	evidence.TTLExceeded,
}

const (
	otherICMP reason = iota
	fragNeeded
	netUnreachable
	hostUnreachable
	adminProhibited
	portUnreachable
	protUnreachable
	ttlExceeded
)

// icmpError returns the packet that an ICMP error quotes.
func (p *packet) icmpError() (quoted packet, why reason, ok bool) {
	if p.later() || p.extended || len(p.payload) < icmpHeader {
		return packet{}, 0, false
	}
	typ, code := p.payload[0], p.payload[1]
	var version byte
	switch p.proto {
	case protoICMP:
		why, ok = reasonV4(typ, code)
		version = 4
	case protoICMPv6:
		why, ok = reasonV6(typ, code)
		version = 6
	}
	quote := p.payload[icmpHeader:]
	if !ok || len(quote) == 0 || quote[0]>>4 != version {
		return packet{}, 0, false
	}
	ok = quoted.parse(quote, len(quote))
	return quoted, why, ok
}

func reasonV4(typ, code uint8) (reason, bool) {
	switch typ {
	case icmpUnreachable:
		switch code {
		case 0, 6:
			return netUnreachable, true
		case 1, 7:
			return hostUnreachable, true
		case 2:
			return protUnreachable, true
		case 3:
			return portUnreachable, true
		case 4:
			return fragNeeded, true
		case 9, 10, 13:
			return adminProhibited, true
		}
	case icmpTimeExceeded:
		if code == 0 {
			return ttlExceeded, true
		}
	case icmpSourceQuench, icmpParameter:
	default:
		return otherICMP, false
	}
	return otherICMP, true
}

func reasonV6(typ, code uint8) (reason, bool) {
	switch typ {
	case icmp6Unreachable:
		switch code {
		case 0:
			return netUnreachable, true
		case 1, 5, 6:
			return adminProhibited, true
		case 3:
			return hostUnreachable, true
		case 4:
			return portUnreachable, true
		}
	case icmp6TooBig:
		return fragNeeded, true
	case icmp6TimeExceeded:
		if code == 0 {
			return ttlExceeded, true
		}
	case icmp6Parameter:
		if code == 1 {
			return protUnreachable, true
		}
	default:
		return otherICMP, false
	}
	return otherICMP, true
}
