package hoststate

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"vpnprobe/evidence"
)

// nftRule adds one rule, whose expressions run one after another: they load
// values into registers and compare them, and end the rule where that fails.
func (c *chains) nftRule(in *chain, table nftTable, chainName string, expressions []byte, f *flows) error {
	r := nftRule{flows: f, meets: nftFamily(table.family), registers: make(map[uint32]nftValue)}
	switch table.family {
	case unix.NFPROTO_IPV4:
		r.version = [2]evidence.Fact{ipv4: evidence.Yes, ipv6: evidence.No}
	case unix.NFPROTO_IPV6:
		r.version = [2]evidence.Fact{ipv4: evidence.No, ipv6: evidence.Yes}
	}
	for kind, value := range attributes(expressions) {
		if kind != unix.NFTA_LIST_ELEM {
			continue
		}
		var name string
		var data []byte
		for kind, value := range attributes(value) {
			switch kind {
			case unix.NFTA_EXPR_NAME:
				name = cString(value)
			case unix.NFTA_EXPR_DATA:
				data = value
			}
		}
		r.expression(name, data)
	}
	c.mapped = c.mapped || r.mapped
	if !r.clamps {
		return c.rule(in, r.meets, nil, r.verdict)
	}
	clamp := evidence.MSSClamp{
		Tool: toolNFT, Where: printable(nftFamilyName(table.family) + " " + table.name + " " + chainName),
		Rule: printable(r.String()), MSS: r.mss, Packets: r.packets,
		V4: r.version[ipv4] != evidence.No, V6: r.version[ipv6] != evidence.No,
	}
	if r.foreign {
		clamp.Tool = toolIPTables
	}
	return c.rule(in, r.meetsAtClamp, &clamp, r.verdict)
}

// nftRule is what is known of a rule so far.
type nftRule struct {
	*flows
	registers map[uint32]nftValue
	meets     meets
	// version holds No for an address family that the rule is not for, and Yes
	// for one that it is surely for.
	version [2]evidence.Fact
	text    []string

	clamps, foreign bool
	meetsAtClamp    meets
	mss             evidence.Opt[int]
	packets         evidence.Opt[uint64]
	verdict         verdict
	mapped          bool // its verdict is from a map
}

// nftValue is what a register holds: where it was loaded from.
type nftValue struct {
	from nftSource
	// Of a header, where it was read.
	base, offset, length uint32
	key                  uint32 // of meta data
	mask                 []byte // what it was masked with
	data                 []byte // of a constant
}

type nftSource uint8

const (
	fromElsewhere nftSource = iota
	fromMeta
	fromPayload
	fromMSS     // of the packet's TCP options
	fromRoute   // the MSS that the route's MTU allows
	fromIPsec   // whether the route leads through IPsec
	fromState   // of connection tracking
	fromNothing // a constant
)

// Numbers of linux/netfilter/nf_tables.h that x/sys/unix does not have.
const (
	metaIPsec  = 25 // NFT_META_SECPATH
	routeIPsec = 4  // NFT_RT_XFRM

	networkHeader, transportHeader = 1, 2 // NFT_PAYLOAD_*_HEADER

	tcpOptionMSS = 2 // RFC 9293, section 3.1
)

// expression takes one expression into account.
func (r *nftRule) expression(name string, data []byte) {
	e := readExpression(data)
	switch name {
	case "meta":
		if e.has(unix.NFTA_META_SREG) {
			return // sets a mark or a priority
		}
		r.load(e.number(unix.NFTA_META_DREG), nftValue{from: fromMeta, key: e.number(unix.NFTA_META_KEY)})
	case "payload":
		if e.has(unix.NFTA_PAYLOAD_SREG) {
			return // changes the packet
		}
		r.load(e.number(unix.NFTA_PAYLOAD_DREG), nftValue{from: fromPayload, base: e.number(unix.NFTA_PAYLOAD_BASE),
			offset: e.number(unix.NFTA_PAYLOAD_OFFSET), length: e.number(unix.NFTA_PAYLOAD_LEN)})
	case "rt":
		from := fromElsewhere
		switch e.number(unix.NFTA_RT_KEY) {
		case unix.NFT_RT_TCPMSS:
			from = fromRoute
		case routeIPsec:
			from = fromIPsec
		}
		r.load(e.number(unix.NFTA_RT_DREG), nftValue{from: from})
	case "ct":
		if e.has(unix.NFTA_CT_SREG) {
			return
		}
		from := fromElsewhere
		if e.number(unix.NFTA_CT_KEY) == unix.NFT_CT_STATE {
			from = fromState
		}
		r.load(e.number(unix.NFTA_CT_DREG), nftValue{from: from})
	case "exthdr":
		r.option(e)
	case "immediate":
		r.immediate(e)
	case "bitwise":
		v := r.registers[e.number(unix.NFTA_BITWISE_SREG)]
		if v.mask != nil || !e.has(unix.NFTA_BITWISE_MASK) || !allZero(e.value(unix.NFTA_BITWISE_XOR)) {
			v = nftValue{}
		}
		v.mask = e.value(unix.NFTA_BITWISE_MASK)
		r.load(e.number(unix.NFTA_BITWISE_DREG), v)
	case "byteorder":
		r.load(e.number(unix.NFTA_BYTEORDER_DREG), r.registers[e.number(unix.NFTA_BYTEORDER_SREG)])
	case "cmp":
		r.compare(r.registers[e.number(unix.NFTA_CMP_SREG)], e.number(unix.NFTA_CMP_OP), e.value(unix.NFTA_CMP_DATA))
	case "range":
		r.between(r.registers[e.number(unix.NFTA_RANGE_SREG)], e.number(unix.NFTA_RANGE_OP), e.value(unix.NFTA_RANGE_FROM_DATA), e.value(unix.NFTA_RANGE_TO_DATA))
	case "lookup":
		text := "@" + cString(e.raw(unix.NFTA_LOOKUP_SET))
		if header, _, ok := r.addressIn(r.registers[e.number(unix.NFTA_LOOKUP_SREG)]); ok {
			text = header + " " + text
		}
		r.restrict(text, perhaps())
		if e.has(unix.NFTA_LOOKUP_DREG) {
			r.mapped = r.mapped || e.number(unix.NFTA_LOOKUP_DREG) == unix.NFT_REG_VERDICT
			r.load(e.number(unix.NFTA_LOOKUP_DREG), nftValue{})
		}
	case "counter":
		if b := e.raw(unix.NFTA_COUNTER_PACKETS); len(b) == 8 {
			packets := binary.BigEndian.Uint64(b)
			r.packets = evidence.Some(packets)
			r.say(fmt.Sprintf("counter packets %d", packets))
		}
	case "target":
		r.target(cString(e.raw(unix.NFTA_TARGET_NAME)), e.raw(unix.NFTA_TARGET_INFO))
	case "match":
		if name := cString(e.raw(unix.NFTA_MATCH_NAME)); name != "comment" {
			r.restrict("-m "+name, perhaps())
		}
	case "log", "notrack", "objref", "last":
		r.say(name)
	default:
		r.restrict("<"+name+">", perhaps())
	}
}

func (r *nftRule) load(register uint32, v nftValue) { r.registers[register] = v }

func (r *nftRule) say(text string) {
	if len(r.text) < 64 {
		r.text = append(r.text, text)
	}
}

// String returns the rule much as nft prints it, with what is not known here in
// angle brackets, and sets by their names. What goes without saying is left out.
func (r *nftRule) String() string {
	var words []string
	for i, text := range r.text {
		header, ok := map[string]string{"meta nfproto ipv4": "ip ", "meta nfproto ipv6": "ip6 "}[text]
		if ok && slices.ContainsFunc(r.text[i+1:], func(later string) bool { return strings.HasPrefix(later, header) }) {
			continue
		}
		words = append(words, text)
	}
	return strings.Join(words, " ")
}

// restrict notes that the rule goes on with these packets only.
func (r *nftRule) restrict(text string, m meets) {
	r.meets = r.meets.and(m)
	if text != "" {
		r.say(text)
	}
}
