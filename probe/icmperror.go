package probe

import (
	"errors"
	"syscall"

	"vpnprobe/evidence"
)

// sendReasons maps what Linux returns from sendmsg(2), bind(2) and
// SO_BINDTODEVICE to why a packet cannot leave this host. See
// [evidence.SendReason] for the meanings.
var sendReasons = []struct {
	errno  syscall.Errno
	reason evidence.SendReason
}{
	{syscall.ENETUNREACH, evidence.NoRoute},
	{syscall.EHOSTUNREACH, evidence.NoRoute},
	// A blackhole route refuses a well-formed packet with EINVAL
	// (fib_props in net/ipv4/fib_semantics.c).
	{syscall.EINVAL, evidence.NoRoute},
	{syscall.EACCES, evidence.Prohibited},
	// Netfilter's DROP in the output hook; an xfrm policy of action block
	// gives the same errno.
	{syscall.EPERM, evidence.LocalFirewall},
	// No key manager answered an acquire (xfrm_state_find).
	{syscall.ESRCH, evidence.BlockedByXfrm},
	{syscall.EMSGSIZE, evidence.TooBig},
	{syscall.ENOBUFS, evidence.NoBuffer},
	{syscall.ENOMEM, evidence.NoBuffer},
	{syscall.EAGAIN, evidence.NoBuffer},
	{syscall.ENODEV, evidence.NoDevice},
	{syscall.ENXIO, evidence.NoDevice},
	{syscall.ENETDOWN, evidence.NoDevice},
	{syscall.EADDRNOTAVAIL, evidence.NoAddress},
}

// sendReason says why a packet could not leave this host. It returns "" for a
// nil error.
func sendReason(err error) evidence.SendReason {
	if err == nil {
		return ""
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		for _, r := range sendReasons {
			if r.errno == errno {
				return r.reason
			}
		}
	}
	return evidence.OtherSend
}

// icmpReason groups an ICMP error's type and code by what it means to the
// sender. v6 says that it is an ICMPv6 error (RFC 4443) and not an ICMPv4 one
// (RFC 792, RFC 1812 section 5.2.7.1).
func icmpReason(v6 bool, typ, code uint8) evidence.ICMPReason {
	if v6 {
		return icmp6Reason(typ, code)
	}
	switch typ {
	case 3: // destination unreachable
		switch code {
		case 0, 6, 11: // net: unreachable, unknown, not for this type of service
			return evidence.NetUnreachable
		case 1, 7, 12: // host: likewise
			return evidence.HostUnreachable
		case 2:
			return evidence.ProtUnreachable
		case 3:
			return evidence.PortUnreachable
		case 4:
			return evidence.FragNeeded
		case 9, 10, 13: // net, host, communication administratively prohibited
			return evidence.AdminProhibited
		}
	case 11:
		if code == 0 {
			return evidence.TTLExceeded
		}
	}
	return evidence.OtherICMP
}

func icmp6Reason(typ, code uint8) evidence.ICMPReason {
	switch typ {
	case 1: // destination unreachable
		switch code {
		case 0:
			return evidence.NetUnreachable
		case 1, 5, 6: // prohibited; source address failed policy; reject route
			return evidence.AdminProhibited
		case 3:
			return evidence.HostUnreachable
		case 4:
			return evidence.PortUnreachable
		}
	case 2: // packet too big
		return evidence.FragNeeded
	case 3:
		if code == 0 {
			return evidence.TTLExceeded
		}
	case 4:
		if code == 1 { // unrecognised next header
			return evidence.ProtUnreachable
		}
	}
	return evidence.OtherICMP
}
