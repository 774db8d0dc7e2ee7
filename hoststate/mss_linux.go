package hoststate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"vpnprobe/evidence"
)

// MSSClamps reads the rules of this host's firewalls that set the MSS of TCP
// connections that it forwards: of nftables from the kernel, of iptables, old
// or kept in nftables, by iptables-save. A rule to which nothing leads is left
// out. Counters are as old as the rules.
//
// The prefixes of the tunnel decide what a rule covers: Yes when its interfaces,
// addresses and policy let through all of the traffic in one direction or both,
// No when they exclude it, Unknown when they are for a part of it, or there is
// something in the rule that is not known here. The interfaces are compared
// with those that the routes lead to.
//
// Without CAP_NET_ADMIN, Readable is Unknown. Where one firewall could not be
// read, the rules of the others are there nevertheless.
func (r *Reader) MSSClamps(ctx context.Context, local, remote []netip.Prefix) evidence.MSSClamps {
	f := r.flowsOf(local, remote)
	result := evidence.MSSClamps{Readable: evidence.Yes, Rules: []evidence.MSSClamp{}}
	var failures []string
	failed := func(what string, err error) {
		result.Readable = evidence.Unknown
		if len(failures) > 0 && errors.Is(err, fs.ErrPermission) {
			return // once is enough
		}
		if errors.Is(err, unix.EPERM) {
			err = errors.New("needs CAP_NET_ADMIN: sudo setcap cap_net_admin,cap_net_raw+ep agent")
		}
		failures = append(failures, fmt.Sprintf("%s: %v", what, err))
	}

	nft, err := readNFT(ctx, f)
	switch {
	case errors.Is(err, unix.EPERM):
		// Nothing else can be read either.
		failed("read this host's firewall rules", err)
		result.CannotLook = failures[0]
		return result
	case err != nil && !noNFT(err):
		failed("read the rules of nftables", err)
	}
	result.Rules = append(result.Rules, nft.rules...)

	for _, family := range iptablesFamilies {
		if nft.foreign[map[bool]int{false: ipv4, true: ipv6}[family.v6]] {
			// iptables-save names the matches that are hidden from nftables.
			// Without it, the rules stay as they were read, covering who knows what.
			if rules, err := r.nftToolClamps(ctx, family, f); err == nil && len(rules) > 0 {
				result.Rules = slices.DeleteFunc(result.Rules, func(c evidence.MSSClamp) bool {
					return c.Tool == toolIPTables && c.V6 == family.v6
				})
				result.Rules = append(result.Rules, rules...)
			}
		}
	}
	for _, family := range iptablesFamilies {
		rules, err := r.legacyClamps(ctx, family, f)
		if err != nil {
			failed("read the rules of "+family.tool, err)
		}
		result.Rules = append(result.Rules, rules...)
	}
	result.CannotLook = strings.Join(failures, "; ")
	return result
}

// noNFT reports whether the kernel has no nftables: no netlink for firewalls,
// or nothing that answers there (net/netfilter/nfnetlink.c, nfnetlink_rcv_msg).
func noNFT(err error) bool {
	return errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP)
}
