package probe

import (
	"vpnprobe/evidence"
	"vpnprobe/internal/rawconn"
)

// SendReason says why a packet could not leave this host. It returns "" for a
// nil error.
func SendReason(err error) evidence.SendReason { return sendReason(err) }

// ICMPError turns an entry of a socket's error queue, or the type, code, MTU
// and sender of an ICMP error that was read otherwise, into evidence. v6 says
// that it is an ICMPv6 error.
func ICMPError(v6 bool, e *rawconn.Error) evidence.ICMPError { return icmpError(v6, e) }
