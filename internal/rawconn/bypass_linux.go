package rawconn

import (
	"encoding/binary"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Directions of a policy (linux/xfrm.h).
const (
	xfrmPolicyIn  = 0
	xfrmPolicyOut = 1
)

// Layout of struct xfrm_userpolicy_info (linux/xfrm.h): selector of 56 bytes,
// lifetime limits of 64, lifetime counters of 32, priority, index, then one
// byte each for direction, action, flags and share; padded to 8.
const (
	userPolicyLen       = 168
	userPolicyFamily    = 40 // in the selector, behind two addresses and four ports
	userPolicyDirection = 160
)

// userPolicy is a policy without a transform, and so one that lets everything
// pass: all but family and direction is 0, as is XFRM_POLICY_ALLOW.
func userPolicy(family uint16, direction byte) []byte {
	p := make([]byte, userPolicyLen)
	binary.NativeEndian.PutUint16(p[userPolicyFamily:], family)
	p[userPolicyDirection] = direction
	return p
}

// bypassIPsec exempts a socket from the host's IPsec policies, as an IKE
// daemon does with its own: a socket's policy comes before all others. It
// reports whether no policy applies to the socket from now on, which is so
// too when the kernel has no IPsec.
func bypassIPsec(fd int, v6 bool) (bool, error) {
	level, opt, family := unix.SOL_IP, unix.IP_XFRM_POLICY, uint16(unix.AF_INET)
	if v6 {
		level, opt, family = unix.SOL_IPV6, unix.IPV6_XFRM_POLICY, unix.AF_INET6
	}
	for _, direction := range []byte{xfrmPolicyOut, xfrmPolicyIn} {
		policy := string(userPolicy(family, direction))
		err := unix.SetsockoptString(fd, level, opt, policy)
		if errors.Is(err, unix.EINVAL) && loadXfrmUser() {
			err = unix.SetsockoptString(fd, level, opt, policy)
		}
		switch {
		case err == nil:
		case errors.Is(err, unix.EPERM):
			return false, nil
		case errors.Is(err, unix.ENOPROTOOPT), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
			return true, nil // neither IPsec nor anyone who could set a policy
		default:
			return false, os.NewSyscallError("setsockopt IP_XFRM_POLICY", err)
		}
	}
	return true, nil
}

// loadXfrmUser makes the kernel load the module that understands a socket's
// policy, if it has it: otherwise a daemon that starts later would load it,
// and its policies would apply to sockets that were opened before.
func loadXfrmUser() bool {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_XFRM)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}
