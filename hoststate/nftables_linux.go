package hoststate

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"vpnprobe/evidence"
)

var errChanging = errors.New("it changed all the time while it was read: try again")

// nftClamps are the rules of nftables that change the MSS.
type nftClamps struct {
	rules []evidence.MSSClamp
	// foreign says in which family iptables keeps such rules in nftables, of
	// IPv4 and IPv6. They are in rules too, as well as they can be read here.
	foreign [2]bool
}

// nftTable names a table.
type nftTable struct {
	family uint8 // NFPROTO_*
	name   string
}

// readNFT reads nftables, again when it changed meanwhile.
func readNFT(ctx context.Context, f *flows) (nftClamps, error) {
	for range 5 {
		before, err := nftGeneration()
		if err != nil {
			return nftClamps{}, err
		}
		found, err := readNFTOnce(ctx, f)
		if err != nil {
			return nftClamps{}, err
		}
		if after, err := nftGeneration(); err != nil || after == before {
			return found, err
		}
	}
	return nftClamps{}, errChanging
}

// nftGeneration returns the number of changes that nftables saw.
func nftGeneration() (uint32, error) {
	var generation uint32
	err := nftQuery(unix.NFT_MSG_GETGEN, 0, func(_ uint8, attrs []byte) error {
		for kind, value := range attributes(attrs) {
			if kind == unix.NFTA_GEN_ID {
				generation = bigEndian32(value)
			}
		}
		return nil
	})
	return generation, err
}

// nftQuery asks nftables one question. Each message of the answer begins with
// a struct nfgenmsg (linux/netfilter/nfnetlink.h), which names the family.
func nftQuery(kind, flags uint16, visit func(family uint8, attrs []byte) error) error {
	const sizeofGenMsg = 4
	var failed error
	err := query(unix.NETLINK_NETFILTER, unix.NFNL_SUBSYS_NFTABLES<<8|kind, flags, make([]byte, sizeofGenMsg), func(b []byte) bool {
		if len(b) < sizeofGenMsg {
			failed = errMalformed
		} else {
			failed = visit(b[0], b[sizeofGenMsg:])
		}
		return failed == nil
	})
	if failed != nil {
		return failed
	}
	return err
}

func readNFTOnce(ctx context.Context, f *flows) (nftClamps, error) {
	found := nftClamps{rules: []evidence.MSSClamp{}}
	tables := make(map[nftTable]*chains)
	err := nftQuery(unix.NFT_MSG_GETTABLE, unix.NLM_F_DUMP, func(family uint8, attrs []byte) error {
		if name, dormant := readNFTTable(attrs); !dormant && ofInterest(family) {
			if len(tables) >= mostChains || len(name) > longestName {
				return errTooManyRules
			}
			tables[nftTable{family, name}] = &chains{}
		}
		return ctx.Err()
	})
	if err != nil || len(tables) == 0 {
		return found, err
	}
	err = nftQuery(unix.NFT_MSG_GETCHAIN, unix.NLM_F_DUMP, func(family uint8, attrs []byte) error {
		c := readNFTChain(attrs)
		table := tables[nftTable{family, c.table}]
		if table == nil {
			return ctx.Err()
		}
		made := table.chain(c.name)
		if made == nil {
			return errTooManyRules
		}
		made.hookAt(c.kind(family), nftFamily(family), f)
		return ctx.Err()
	})
	if err != nil {
		return found, err
	}
	err = nftQuery(unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP, func(family uint8, attrs []byte) error {
		where, chain, expressions := readNFTRule(attrs)
		table := tables[nftTable{family, where}]
		if table == nil {
			return ctx.Err()
		}
		in := table.chain(chain)
		if in == nil {
			return errTooManyRules
		}
		return errors.Join(table.nftRule(in, nftTable{family, where}, chain, expressions, f), ctx.Err())
	})
	if err != nil {
		return found, err
	}
	for _, c := range tables {
		found.rules = append(found.rules, c.results(f)...)
	}
	if len(found.rules) > mostClamps {
		return found, errTooManyRules
	}
	slices.SortStableFunc(found.rules, func(a, b evidence.MSSClamp) int {
		return bytes.Compare([]byte(a.Where), []byte(b.Where)) // tables came in no order
	})
	for _, rule := range found.rules {
		if rule.Tool == toolIPTables {
			found.foreign[ipv4] = found.foreign[ipv4] || rule.V4
			found.foreign[ipv6] = found.foreign[ipv6] || rule.V6
		}
	}
	return found, nil
}

const (
	toolNFT      = "nft"
	toolIPTables = "iptables"
)

// ofInterest reports whether rules of the family see forwarded IP packets.
func ofInterest(family uint8) bool { return nftFamilyName(family) != "" }

func nftFamilyName(family uint8) string {
	switch family {
	case unix.NFPROTO_IPV4:
		return "ip"
	case unix.NFPROTO_IPV6:
		return "ip6"
	case unix.NFPROTO_INET:
		return "inet"
	case unix.NFPROTO_NETDEV:
		return "netdev"
	}
	return ""
}

// nftFamily are the packets that the rules of a family see.
func nftFamily(family uint8) meets {
	switch family {
	case unix.NFPROTO_IPV4:
		return ofFamily(false)
	case unix.NFPROTO_IPV6:
		return ofFamily(true)
	}
	return all()
}

func readNFTTable(attrs []byte) (name string, dormant bool) {
	for kind, value := range attributes(attrs) {
		switch kind {
		case unix.NFTA_TABLE_NAME:
			name = cString(value)
		case unix.NFTA_TABLE_FLAGS:
			dormant = bigEndian32(value)&unix.NFT_TABLE_F_DORMANT != 0
		}
	}
	return name, dormant
}

type nftChain struct {
	table, name string
	hooked      bool
	hook        uint32 // NF_INET_*
}

func readNFTChain(attrs []byte) (c nftChain) {
	for kind, value := range attributes(attrs) {
		switch kind {
		case unix.NFTA_CHAIN_TABLE:
			c.table = cString(value)
		case unix.NFTA_CHAIN_NAME:
			c.name = cString(value)
		case unix.NFTA_CHAIN_HOOK:
			for kind, value := range attributes(value) {
				if kind == unix.NFTA_HOOK_HOOKNUM {
					c.hooked, c.hook = true, bigEndian32(value)
				}
			}
		}
	}
	return c
}

// kind returns what comes to the chain.
func (c nftChain) kind(family uint8) hookKind {
	const inetIngress = 5 // NF_INET_INGRESS
	switch {
	case !c.hooked:
		return hookNone
	case family == unix.NFPROTO_NETDEV || c.hook == inetIngress:
		return hookDevice
	case c.hook == unix.NF_INET_PRE_ROUTING || c.hook == unix.NF_INET_FORWARD || c.hook == unix.NF_INET_POST_ROUTING:
		return hookForward
	case c.hook == unix.NF_INET_LOCAL_OUT:
		return hookOutput
	}
	return hookOther
}

func readNFTRule(attrs []byte) (table, chain string, expressions []byte) {
	for kind, value := range attributes(attrs) {
		switch kind {
		case unix.NFTA_RULE_TABLE:
			table = cString(value)
		case unix.NFTA_RULE_CHAIN:
			chain = cString(value)
		case unix.NFTA_RULE_EXPRESSIONS:
			expressions = value
		}
	}
	return table, chain, expressions
}

// bigEndian32 reads a number of nftables, all of which are in network order,
// and returns 0 for one of another size.
func bigEndian32(value []byte) uint32 {
	if len(value) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(value)
}
