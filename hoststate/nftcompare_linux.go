package hoststate

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"vpnprobe/evidence"
)

// compare ends the rule for packets by which the comparison fails.
func (r *nftRule) compare(v nftValue, op uint32, data []byte) {
	negated := op == unix.NFT_CMP_NEQ
	if v.from == fromMSS && len(data) >= 2 {
		r.compareMSS(op, int(binary.BigEndian.Uint16(data)))
		return
	}
	if op != unix.NFT_CMP_EQ && !negated || len(data) == 0 {
		r.restrict("<cmp>", perhaps())
		return
	}
	switch v.from {
	case fromMeta:
		r.compareMeta(v.key, negated, data)
	case fromPayload:
		r.compareHeader(v, negated, data)
	case fromIPsec:
		r.restrict("rt ipsec "+exists(data, negated), r.transformed(true).unless(allZero(data) != negated))
	case fromState:
		// Whether any of some states is the packet's: a SYN is new.
		const isNew = 1 << 3 // NF_CT_STATE_BIT(IP_CT_NEW)
		if negated && allZero(data) && len(v.mask) == 4 && binary.NativeEndian.Uint32(v.mask)&isNew != 0 {
			r.restrict("ct state new", all())
		} else {
			r.restrict("<ct state>", perhaps())
		}
	default:
		r.restrict("<cmp>", perhaps())
	}
}

// between ends the rule for packets whose value is not in a range.
func (r *nftRule) between(v nftValue, op uint32, low, high []byte) {
	if v.from != fromMSS || op != unix.NFT_RANGE_EQ || len(low) < 2 || len(high) < 2 {
		r.restrict("<range>", perhaps())
		return
	}
	from, to := int(binary.BigEndian.Uint16(low)), int(binary.BigEndian.Uint16(high))
	r.restrict(fmt.Sprintf("tcp option maxseg size %d-%d", from, to), announcing(from, to))
}

func (r *nftRule) compareMSS(op uint32, mss int) {
	const most = 1<<16 - 1
	sign, m := "", perhaps()
	switch op {
	case unix.NFT_CMP_GT:
		sign, m = "> ", announcing(mss+1, most)
	case unix.NFT_CMP_GTE:
		sign, m = ">= ", announcing(mss, most)
	case unix.NFT_CMP_LT:
		sign, m = "< ", announcing(0, mss-1)
	case unix.NFT_CMP_LTE:
		sign, m = "<= ", announcing(0, mss)
	case unix.NFT_CMP_NEQ:
		sign = "!= "
	}
	r.restrict("tcp option maxseg size "+sign+strconv.Itoa(mss), m)
}

// compareMeta compares what the kernel knows of a packet beside it.
func (r *nftRule) compareMeta(key uint32, negated bool, data []byte) {
	switch key {
	case unix.NFT_META_NFPROTO:
		r.ofVersion("meta nfproto", data[0] == unix.NFPROTO_IPV6, data[0] == unix.NFPROTO_IPV4, negated)
	case unix.NFT_META_PROTOCOL: // an EtherType
		r.ofVersion("meta protocol", bytes.Equal(data, []byte{0x86, 0xdd}), bytes.Equal(data, []byte{8, 0}), negated)
	case unix.NFT_META_L4PROTO:
		r.ofProtocol(data[0], negated)
	case unix.NFT_META_IIFNAME, unix.NFT_META_OIFNAME:
		// A name is as long as the field; without an end, it is a beginning.
		name, _, ended := bytes.Cut(data, []byte{0})
		if r.interfaceNamed(key == unix.NFT_META_IIFNAME, "name", string(name), !ended, negated); len(name) == 0 {
			r.meets = r.meets.and(perhaps())
		}
	case unix.NFT_META_IIF, unix.NFT_META_OIF:
		name := ""
		if len(data) == 4 {
			name = r.interfaceName(binary.NativeEndian.Uint32(data))
		}
		if name == "" {
			r.restrict("<interface>", perhaps())
			return
		}
		r.interfaceNamed(key == unix.NFT_META_IIF, "", name, false, negated)
	case metaIPsec:
		r.restrict("meta ipsec "+exists(data, negated), r.transformed(false).unless(allZero(data) != negated))
	default:
		r.restrict("<meta>", perhaps())
	}
}

func (r *nftRule) interfaceNamed(in bool, suffix, name string, begins, negated bool) {
	text := "oif" + suffix
	if in {
		text = "iif" + suffix
	}
	if negated {
		text += " !="
	}
	if begins {
		name += "*"
	}
	r.restrict(fmt.Sprintf("%s %q", text, name), r.throughInterface(name, in).unless(negated))
}

// ofVersion keeps to the packets of one version of IP.
func (r *nftRule) ofVersion(text string, six, four, negated bool) {
	if !six && !four {
		r.restrict("<"+text+">", perhaps())
		return
	}
	six = six != negated
	this, other := ipv4, ipv6
	if six {
		this, other = ipv6, ipv4
	}
	r.version[other] = evidence.No
	if r.version[this] == evidence.Unknown {
		r.version[this] = evidence.Yes
	}
	r.restrict(fmt.Sprintf("%s ipv%d", text, []int{4, 6}[this]), ofFamily(six))
}

// ofProtocol keeps to the packets of a protocol above IP. That of TCP goes
// without saying, where its options are set.
func (r *nftRule) ofProtocol(protocol byte, negated bool) {
	m, text := none(), fmt.Sprintf("meta l4proto %d", protocol)
	if protocol == unix.IPPROTO_TCP {
		m, text = all(), ""
	}
	if negated {
		text = fmt.Sprintf("meta l4proto != %d", protocol)
	}
	r.restrict(text, m.unless(negated))
}

// compareHeader compares a part of the packet.
func (r *nftRule) compareHeader(v nftValue, negated bool, data []byte) {
	six, four := r.version[ipv6] == evidence.Yes, r.version[ipv4] == evidence.Yes
	if text, source, ok := r.addressIn(v); ok {
		if p, ok := v.prefix(data, six); ok {
			if negated {
				text += " !="
			}
			if p.IsSingleIP() {
				text += " " + p.Addr().String()
			} else {
				text += " " + p.String()
			}
			r.restrict(text, r.address(p, source).unless(negated).and(ofFamily(six)))
			return
		}
	}
	const (
		protocolOf4, protocolOf6 = 9, 6 // RFC 791, section 3.1; RFC 8200, section 3
		tcpFlags                 = 13   // RFC 9293, section 3.1
	)
	switch {
	case v.base == networkHeader && v.length == 1 && len(data) == 1 && v.mask == nil &&
		(four && v.offset == protocolOf4 || six && v.offset == protocolOf6):
		r.ofProtocol(data[0], negated)
	case v.base == transportHeader && v.offset == tcpFlags && v.length == 1 && len(data) == 1:
		r.compareFlags(v.mask, data[0], negated)
	default:
		r.restrict("<payload>", perhaps())
	}
}

// addressIn names the address that a value is, or begins, and whether it is the
// source.
func (r *nftRule) addressIn(v nftValue) (text string, source, ok bool) {
	six, four := r.version[ipv6] == evidence.Yes, r.version[ipv4] == evidence.Yes
	if v.from != fromPayload || v.base != networkHeader || six == four {
		return "", false, false
	}
	switch {
	case four && v.offset == 12 && v.length <= 4: // RFC 791, section 3.1
		return "ip saddr", true, true
	case four && v.offset == 16 && v.length <= 4:
		return "ip daddr", false, true
	case six && v.offset == 8 && v.length <= 16: // RFC 8200, section 3
		return "ip6 saddr", true, true
	case six && v.offset == 24 && v.length <= 16:
		return "ip6 daddr", false, true
	}
	return "", false, false
}

// prefix returns the prefix that a comparison of an address with data is for.
func (v nftValue) prefix(data []byte, v6 bool) (p netip.Prefix, ok bool) {
	full := make([]byte, 4)
	if v6 {
		full = make([]byte, 16)
	}
	if len(data) != int(v.length) || len(data) > len(full) {
		return p, false
	}
	// A prefix of whole bytes is compared without the rest.
	copy(full, data)
	bits := 8 * len(data)
	if v.mask != nil {
		if bits, ok = maskBits(v.mask); !ok || len(v.mask) != len(data) {
			return p, false
		}
	}
	a, _ := netip.AddrFromSlice(full)
	p, err := a.Prefix(bits)
	return p, err == nil
}

// compareFlags compares flags of TCP: a rule for SYNs is one for all of its
// kind, since nothing else carries an MSS.
func (r *nftRule) compareFlags(mask []byte, data byte, negated bool) {
	const syn = 1 << 1
	switch {
	case !negated && data == syn && mask == nil:
		r.restrict("tcp flags == syn", all())
	case !negated && data == syn && len(mask) == 1 && mask[0]&syn != 0:
		r.restrict("tcp flags syn / "+flagNames(mask[0]), all())
	case negated && data == 0 && len(mask) == 1 && mask[0]&syn != 0:
		r.restrict("tcp flags "+flagNames(mask[0]), all())
	default:
		r.restrict("<tcp flags>", perhaps())
	}
}

func flagNames(flags byte) string {
	var names []string
	for i, name := range []string{"fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr"} {
		if flags>>i&1 == 1 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

// exists returns what nft says of a comparison with a truth value.
func exists(data []byte, negated bool) string {
	if allZero(data) != negated {
		return "missing"
	}
	return "exists"
}

func allZero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// nftExpression are the attributes of an expression by their number.
type nftExpression struct {
	values [16][]byte
	set    [16]bool
}

func readExpression(data []byte) (e nftExpression) {
	for kind, value := range attributes(data) {
		if int(kind) < len(e.values) {
			e.values[kind], e.set[kind] = value, true
		}
	}
	return e
}

func (e *nftExpression) has(kind uint16) bool      { return e.set[kind] }
func (e *nftExpression) raw(kind uint16) []byte    { return e.values[kind] }
func (e *nftExpression) number(kind uint16) uint32 { return bigEndian32(e.values[kind]) }

// value returns the bytes of a constant.
func (e *nftExpression) value(kind uint16) []byte {
	for kind, value := range attributes(e.values[kind]) {
		if kind == unix.NFTA_DATA_VALUE {
			return value
		}
	}
	return nil
}
