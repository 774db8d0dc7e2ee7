package pmtu

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"vpnprobe/evidence"
)

// DefaultTimeout is how long a round of probes waits for answers, unless
// configured otherwise. It doubles for probes of an IKE port.
const DefaultTimeout = 300 * time.Millisecond

const (
	// maxPacket is the largest IP packet, in bytes.
	maxPacket = 65535

	// A "next-hop MTU" below what IP requires of every link is not to be
	// believed: 576 is what every IPv4 host must accept (RFC 1122 section
	// 3.3.3, RFC 8899 section 5.1.2), 1280 what every IPv6 link must carry
	// (RFC 8200 section 5).
	minMTU4 = 576
	minMTU6 = 1280
)

// Config says between which addresses to search, how far and with what.
type Config struct {
	Target netip.Addr
	// Role decides whether this host's IPsec policies apply to the probes:
	// only to those of [evidence.Inner], which are to go through the tunnel.
	Role evidence.Role
	// Source is the address to send from; the zero Addr leaves it to routing.
	Source netip.Addr
	// Interface binds the probes to an interface; "" does not.
	Interface string
	// Timeout is how long each round waits; 0 means [DefaultTimeout]. A round
	// waits longer where round trips do.
	Timeout time.Duration
	// Max is the largest packet to try, in bytes with the IP header; 0 means
	// the MTU of the outgoing interface. A path that passes Max counts as full.
	Max int
	// Probe is what to send; "" means [evidence.MTUByICMP].
	//
	// The IKE kinds are for targets that answer no ICMP. They send requests
	// that leave no state at the responder, from an ephemeral port and
	// singly, at most 14, at least 100 ms apart; so they find the MTU to the
	// nearest of some common ones, unless a hop says which it is.
	Probe evidence.MTUProbe
	// Request is what the IKE kinds ask; "" means [evidence.VersionProbe],
	// which is padded with zeros behind its message, as the others are with an
	// unknown vendor ID.
	Request evidence.IKERequest
	// Port replaces the port that Probe stands for, where the peer is a
	// demonstration; 0 does not.
	Port uint16
	// Loss is the share of packets, 0 to 1, that this path is known to lose
	// whatever their size. A search goes by this or by what it sees itself,
	// whichever is more.
	Loss float64
	// Await is how long to go on listening, after fragments were lost, for the
	// target's complaint that some are missing, which a host sends after 30 s
	// (Linux, IPv4) to 60 s (RFC 8200 section 4.5); 0 does not wait.
	Await time.Duration
}

// complete fills in what was left out, or says what is wrong.
func (c *Config) complete() error {
	if !c.Target.IsValid() {
		return errors.New("no target address")
	}
	c.Target = c.Target.Unmap()
	if c.Max != 0 && (c.Max < c.minMTU() || c.Max > maxPacket) {
		return fmt.Errorf("maximum of %d bytes: want %d to %d, or 0", c.Max, c.minMTU(), maxPacket)
	}
	if c.Loss < 0 || c.Loss >= 1 {
		return fmt.Errorf("loss of %v: want at least 0 and less than 1", c.Loss)
	}
	if c.Timeout <= 0 {
		c.Timeout = DefaultTimeout
		if c.ike() {
			c.Timeout *= 2
		}
	}
	switch c.Probe {
	case "":
		c.Probe = evidence.MTUByICMP
	case evidence.MTUByICMP, evidence.MTUByIKE, evidence.MTUByIKENATT:
	default:
		return fmt.Errorf("probe %q: want %s, %s or %s", c.Probe, evidence.MTUByICMP, evidence.MTUByIKE, evidence.MTUByIKENATT)
	}
	if c.Request == "" {
		c.Request = evidence.VersionProbe
	}
	return nil
}

func (c *Config) v6() bool { return c.Target.Is6() }

// ike reports whether probes go to an IKE port.
func (c *Config) ike() bool {
	return c.Probe == evidence.MTUByIKE || c.Probe == evidence.MTUByIKENATT
}

// minMTU is what every path carries.
func (c *Config) minMTU() int {
	if c.v6() {
		return minMTU6
	}
	return minMTU4
}
