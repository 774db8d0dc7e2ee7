package probe

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"

	"vpnprobe/evidence"
)

func TestSendReason(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want evidence.SendReason
	}{
		{nil, ""},
		{syscall.ENETUNREACH, evidence.NoRoute},
		{fmt.Errorf("probe: %w", os.NewSyscallError("sendto", syscall.EHOSTUNREACH)), evidence.NoRoute},
		{syscall.EINVAL, evidence.NoRoute},
		{syscall.EACCES, evidence.Prohibited},
		{syscall.EPERM, evidence.LocalFirewall},
		{syscall.ESRCH, evidence.BlockedByXfrm},
		{syscall.EMSGSIZE, evidence.TooBig},
		{syscall.ENOBUFS, evidence.NoBuffer},
		{syscall.ENODEV, evidence.NoDevice},
		{syscall.EADDRNOTAVAIL, evidence.NoAddress},
		{syscall.EIO, evidence.OtherSend},
		{errors.New("no errno"), evidence.OtherSend},
	} {
		if got := sendReason(tt.err); got != tt.want {
			t.Errorf("sendReason(%v) = %q, want %q", tt.err, got, tt.want)
		}
	}
}

func TestICMPReason(t *testing.T) {
	for _, tt := range []struct {
		v6        bool
		typ, code uint8
		want      evidence.ICMPReason
	}{
		{false, 3, 0, evidence.NetUnreachable},
		{false, 3, 1, evidence.HostUnreachable},
		{false, 3, 2, evidence.ProtUnreachable},
		{false, 3, 3, evidence.PortUnreachable},
		{false, 3, 4, evidence.FragNeeded},
		{false, 3, 5, evidence.OtherICMP},
		{false, 3, 6, evidence.NetUnreachable},
		{false, 3, 7, evidence.HostUnreachable},
		{false, 3, 9, evidence.AdminProhibited},
		{false, 3, 10, evidence.AdminProhibited},
		{false, 3, 13, evidence.AdminProhibited},
		{false, 11, 0, evidence.TTLExceeded},
		{false, 11, 1, evidence.OtherICMP}, // reassembly
		{false, 12, 0, evidence.OtherICMP},
		{false, 1, 4, evidence.OtherICMP}, // ICMPv6's numbers
		{true, 1, 0, evidence.NetUnreachable},
		{true, 1, 1, evidence.AdminProhibited},
		{true, 1, 2, evidence.OtherICMP},
		{true, 1, 3, evidence.HostUnreachable},
		{true, 1, 4, evidence.PortUnreachable},
		{true, 1, 5, evidence.AdminProhibited},
		{true, 1, 6, evidence.AdminProhibited},
		{true, 2, 0, evidence.FragNeeded},
		{true, 3, 0, evidence.TTLExceeded},
		{true, 3, 1, evidence.OtherICMP},
		{true, 4, 1, evidence.ProtUnreachable},
		{true, 4, 0, evidence.OtherICMP},
		{true, 11, 0, evidence.OtherICMP},
	} {
		if got := icmpReason(tt.v6, tt.typ, tt.code); got != tt.want {
			t.Errorf("icmpReason(%v, %d, %d) = %q, want %q", tt.v6, tt.typ, tt.code, got, tt.want)
		}
	}
}
