package capture

import (
	"encoding/binary"
	"math"

	"vpnprobe/evidence"
)

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

// errorReason returns what an ICMP error says; ok is false for what is none.
func (p *packet) errorReason() (why reason, ok bool) {
	if p.later() || p.extended || len(p.payload) < 2 {
		return 0, false
	}
	switch p.proto {
	case protoICMP:
		return reasonV4(p.payload[0], p.payload[1])
	case protoICMPv6:
		return reasonV6(p.payload[0], p.payload[1])
	}
	return 0, false
}

// icmpErrorType reports whether an ICMP message that has its beginning is an
// error message.
func (p *packet) icmpErrorType() bool {
	code := uint8(0)
	if len(p.payload) > 1 {
		code = p.payload[1]
	}
	if p.proto == protoICMP {
		_, ok := reasonV4(p.payload[0], code)
		return ok
	}
	_, ok := reasonV6(p.payload[0], code)
	return ok
}

// icmpError returns the packet that an ICMP error quotes.
func (p *packet) icmpError() (quoted packet, why reason, ok bool) {
	why, ok = p.errorReason()
	if !ok || len(p.payload) <= icmpHeader {
		return packet{}, 0, false
	}
	quote := p.payload[icmpHeader:]
	if (quote[0]>>4 == 4) != (p.proto == protoICMP) {
		return packet{}, 0, false
	}
	ok = quoted.parse(quote, len(quote))
	return quoted, why, ok
}

// statedMTU is the size that a "too big" asks for: RFC 1191, section 4, and RFC
// 4443, section 3.2. 0 where it asks for none, as routers before RFC 1191 do.
func (p *packet) statedMTU(why reason) int {
	if why != fragNeeded {
		return 0
	}
	if p.proto == protoICMP {
		return int(binary.BigEndian.Uint16(p.payload[6:]))
	}
	return int(min(binary.BigEndian.Uint32(p.payload[4:]), math.MaxInt32))
}

// about says what a quoted packet carries, in the words of [evidence.WireICMP].
func (p *packet) about() string {
	switch p.proto {
	case protoESP:
		return "esp"
	case protoAH:
		return "ah"
	case protoICMP, protoICMPv6:
		return "icmp"
	case protoUDP:
		if p.later() || len(p.payload) < 4 {
			break
		}
		src, dst := binary.BigEndian.Uint16(p.payload), binary.BigEndian.Uint16(p.payload[2:])
		switch {
		case src == portNATT || dst == portNATT:
			return "udp4500"
		case src == portIKE || dst == portIKE:
			return "udp500"
		}
	}
	return "other"
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
