package hoststate

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vpnprobe/evidence"
)

// nested, number and expression build attributes of nftables.
func nested(kind uint16, parts ...[]byte) []byte {
	var value []byte
	for _, p := range parts {
		value = append(value, p...)
	}
	return appendAttribute(nil, kind, value)
}

func number(kind uint16, n uint32) []byte {
	return appendAttribute(nil, kind, binary.BigEndian.AppendUint32(nil, n))
}

func expression(name string, attrs ...[]byte) []byte {
	return nested(unix.NFTA_LIST_ELEM, appendAttribute(nil, unix.NFTA_EXPR_NAME, append([]byte(name), 0)), nested(unix.NFTA_EXPR_DATA, attrs...))
}

func constant(kind uint16, value ...byte) []byte {
	return nested(kind, appendAttribute(nil, unix.NFTA_DATA_VALUE, value))
}

// setMSS loads a constant, and writes it into the option.
func setMSS(mss uint16) []byte {
	return append(
		expression("immediate", number(unix.NFTA_IMMEDIATE_DREG, 1), constant(unix.NFTA_IMMEDIATE_DATA, binary.BigEndian.AppendUint16(nil, mss)...)),
		expression("exthdr", number(unix.NFTA_EXTHDR_SREG, 1), appendAttribute(nil, unix.NFTA_EXTHDR_TYPE, []byte{2}),
			number(unix.NFTA_EXTHDR_OFFSET, 2), number(unix.NFTA_EXTHDR_LEN, 2), number(unix.NFTA_EXTHDR_OP, unix.NFT_EXTHDR_OP_TCPOPT))...)
}

// ruleResult returns the clamps of one rule in a chain of forwarded packets.
func ruleResult(t *testing.T, family uint8, expressions []byte) []evidence.MSSClamp {
	t.Helper()
	f := siteFlows()
	f.nameOf = map[uint32]string{7: "lan", 8: ""}
	var c chains
	in := c.chain("forwarded")
	in.hookAt(hookForward, nftFamily(family), f)
	if err := c.nftRule(in, nftTable{family, "vpn"}, "forwarded", expressions, f); err != nil {
		t.Fatal(err)
	}
	return c.results(f)
}

func TestNFTRule(t *testing.T) {
	header := func(offset, length uint32) []byte {
		return expression("payload", number(unix.NFTA_PAYLOAD_DREG, 1), number(unix.NFTA_PAYLOAD_BASE, networkHeader),
			number(unix.NFTA_PAYLOAD_OFFSET, offset), number(unix.NFTA_PAYLOAD_LEN, length))
	}
	compare := func(op uint32, value ...byte) []byte {
		return expression("cmp", number(unix.NFTA_CMP_SREG, 1), number(unix.NFTA_CMP_OP, op), constant(unix.NFTA_CMP_DATA, value...))
	}
	masked := func(mask ...byte) []byte {
		return expression("bitwise", number(unix.NFTA_BITWISE_SREG, 1), number(unix.NFTA_BITWISE_DREG, 1), number(unix.NFTA_BITWISE_LEN, uint32(len(mask))),
			constant(unix.NFTA_BITWISE_MASK, mask...), constant(unix.NFTA_BITWISE_XOR, make([]byte, len(mask))...))
	}
	input := func(index uint32) []byte {
		return append(expression("meta", number(unix.NFTA_META_DREG, 1), number(unix.NFTA_META_KEY, unix.NFT_META_IIF)),
			compare(unix.NFT_CMP_EQ, binary.NativeEndian.AppendUint32(nil, index)...)...)
	}
	mss := expression("exthdr", number(unix.NFTA_EXTHDR_DREG, 1), appendAttribute(nil, unix.NFTA_EXTHDR_TYPE, []byte{2}),
		number(unix.NFTA_EXTHDR_OFFSET, 2), number(unix.NFTA_EXTHDR_LEN, 2), number(unix.NFTA_EXTHDR_OP, unix.NFT_EXTHDR_OP_TCPOPT))
	between := func(op uint32, low, high uint16) []byte {
		return expression("range", number(unix.NFTA_RANGE_SREG, 1), number(unix.NFTA_RANGE_OP, op),
			constant(unix.NFTA_RANGE_FROM_DATA, binary.BigEndian.AppendUint16(nil, low)...), constant(unix.NFTA_RANGE_TO_DATA, binary.BigEndian.AppendUint16(nil, high)...))
	}
	const ip, ip6, inet = unix.NFPROTO_IPV4, unix.NFPROTO_IPV6, unix.NFPROTO_INET
	join := func(parts ...[]byte) (b []byte) {
		for _, p := range parts {
			b = append(b, p...)
		}
		return append(b, setMSS(1360)...)
	}
	for _, tt := range []struct {
		family uint8
		rule   []byte
		text   string
		covers evidence.Fact
	}{
		{ip, join(header(12, 2), compare(unix.NFT_CMP_EQ, 10, 1)), "ip saddr 10.1.0.0/16", evidence.Yes},
		{ip, join(header(16, 1), compare(unix.NFT_CMP_NEQ, 10)), "ip daddr != 10.0.0.0/8", evidence.No},
		{ip, join(header(16, 4), masked(255, 255, 254, 0), compare(unix.NFT_CMP_EQ, 10, 2, 4, 0)), "ip daddr 10.2.4.0/23", evidence.Unknown},
		{ip, join(header(16, 4), masked(255, 0, 255, 0), compare(unix.NFT_CMP_EQ, 10, 0, 4, 0)), "<payload>", evidence.Unknown},
		{ip, join(header(16, 4), compare(unix.NFT_CMP_EQ, 192, 0, 2, 9)), "ip daddr 192.0.2.9", evidence.No},
		{ip, join(header(16, 4), compare(unix.NFT_CMP_LT, 192, 0, 2, 9)), "<cmp>", evidence.Unknown},
		{ip, join(header(16, 4), compare(unix.NFT_CMP_EQ, 192)), "<payload>", evidence.Unknown},
		{ip, join(header(8, 1), compare(unix.NFT_CMP_EQ, 64)), "<payload>", evidence.Unknown}, // a time to live, not the begin of an IPv6 address
		{ip, join(header(9, 1), compare(unix.NFT_CMP_EQ, 17)), "meta l4proto 17", evidence.No},
		{ip6, join(header(6, 1), compare(unix.NFT_CMP_EQ, 6)), "", evidence.Yes},
		{ip6, join(header(24, 6), compare(unix.NFT_CMP_EQ, 0x20, 1, 0xd, 0xb8, 0, 2)), "ip6 daddr 2001:db8:2::/48", evidence.Yes},
		{inet, join(header(12, 2), compare(unix.NFT_CMP_EQ, 10, 1)), "<payload>", evidence.Unknown}, // of which version?
		{inet, join(mss, between(unix.NFT_RANGE_EQ, 1361, 65535)), "tcp option maxseg size 1361-65535", evidence.Yes},
		{inet, join(mss, between(unix.NFT_RANGE_NEQ, 1361, 65535)), "<range>", evidence.Unknown},
		{inet, join(mss, compare(unix.NFT_CMP_LT, 5, 0)), "tcp option maxseg size < 1280", evidence.Unknown},
		{inet, join(mss, compare(unix.NFT_CMP_NEQ, 5, 0x50)), "tcp option maxseg size != 1360", evidence.Unknown},
		{inet, join(mss, compare(unix.NFT_CMP_GTE, 5, 0x50)), "tcp option maxseg size >= 1360", evidence.Yes},
		{inet, join(expression("target", appendAttribute(nil, unix.NFTA_TARGET_NAME, []byte("MARK\x00")))), "-j MARK", evidence.Yes},
		{inet, join(expression("meta", number(unix.NFTA_META_SREG, 1), number(unix.NFTA_META_KEY, unix.NFT_META_MARK))), "", evidence.Yes},
		{inet, join(input(7)), `iif "lan"`, evidence.Yes},
		{inet, join(input(8)), "<interface>", evidence.Unknown},
		{inet, join(expression("frobnicate")), "<frobnicate>", evidence.Unknown},
		{inet, join(compare(unix.NFT_CMP_EQ, 1)), "<cmp>", evidence.Unknown}, // of nothing
	} {
		got := ruleResult(t, tt.family, tt.rule)
		want := strings.TrimSpace(tt.text + " tcp option maxseg size set 1360")
		if len(got) != 1 || got[0].Rule != want || got[0].Covers != tt.covers {
			t.Errorf("%s: %+v, want it to cover: %s", want, got, tt.covers)
		}
	}
	if got := ruleResult(t, ip, expression("counter")); len(got) != 0 {
		t.Errorf("a rule that sets no MSS: %+v", got)
	}
}

// FuzzNFT reads hostile messages of nftables.
func FuzzNFT(f *testing.F) {
	f.Add(setMSS(1360), uint8(unix.NFPROTO_INET))
	f.Add(expression("target", appendAttribute(nil, unix.NFTA_TARGET_NAME, []byte("TCPMSS\x00")), appendAttribute(nil, unix.NFTA_TARGET_INFO, []byte{0xff, 0xff})), uint8(unix.NFPROTO_IPV4))
	f.Add(expression("lookup", number(unix.NFTA_LOOKUP_SREG, 1), number(unix.NFTA_LOOKUP_DREG, 0)), uint8(unix.NFPROTO_IPV6))
	f.Add(nested(unix.NFTA_CHAIN_HOOK, number(unix.NFTA_HOOK_HOOKNUM, 5)), uint8(unix.NFPROTO_NETDEV))
	f.Add(expression("immediate", nested(unix.NFTA_IMMEDIATE_DATA, nested(unix.NFTA_DATA_VERDICT, number(unix.NFTA_VERDICT_CODE, 0xfffffffd), appendAttribute(nil, unix.NFTA_VERDICT_CHAIN, []byte("x\x00"))))), uint8(unix.NFPROTO_IPV4))
	f.Fuzz(func(t *testing.T, b []byte, family uint8) {
		readNFTTable(b)
		_ = readNFTChain(b).kind(family)
		readNFTRule(b)
		flows := siteFlows()
		flows.nameOf = make(map[uint32]string, mostLookups)
		for i := range uint32(mostLookups) {
			flows.nameOf[i] = "" // nothing is asked of the kernel
		}
		var c chains
		in := c.chain("x")
		in.hookAt(hookForward, nftFamily(family), flows)
		if err := c.nftRule(in, nftTable{family, "t"}, "x", b, flows); err != nil && !errors.Is(err, errTooManyRules) {
			t.Error(err)
		}
		for _, r := range c.results(flows) {
			if len(r.Rule) > longestText+3 || strings.ContainsAny(r.Rule+r.Where, "\n\x1b") {
				t.Errorf("the rule %q at %q", r.Rule, r.Where)
			}
		}
	})
}

func TestNoNFT(t *testing.T) {
	for err, want := range map[error]bool{unix.EINVAL: true, unix.EPROTONOSUPPORT: true, unix.EPERM: false, errTruncated: false, errTooManyRules: false} {
		if noNFT(err) != want {
			t.Errorf("noNFT(%v) = %t", err, !want)
		}
	}
}

// TestNFTLarge reads a rule set of the size of a cluster's.
func TestNFTLarge(t *testing.T) {
	gateway(t)
	var b strings.Builder
	b.WriteString("table ip large {\n chain f { type filter hook forward priority 0; policy accept;\n}\n")
	for i := range 3000 {
		c := "c" + strings.Repeat("x", i%100) + string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676))
		b.WriteString(" chain " + c + " { ip saddr 192.168.0.0/16 counter accept; tcp flags syn counter drop; }\n")
	}
	b.WriteString("}\ntable ip small { chain f { type filter hook forward priority 0; policy accept; tcp flags syn tcp option maxseg size set 1360; }\n}\n")
	path := filepath.Join(t.TempDir(), "rules.nft")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	load(t, "", "nft", "-f", path)
	got := New().MSSClamps(t.Context(), lanHere, lanThere)
	if got.Readable != evidence.Yes || len(got.Rules) != 1 || got.Rules[0].Covers != evidence.Yes {
		t.Errorf("MSSClamps() = %+v", got)
	}
}

func TestNFTChain(t *testing.T) {
	for _, tt := range []struct {
		family uint8
		attrs  []byte
		base   bool
		covers evidence.Fact // of a clamp for all in it, when packets get there
		hooked bool
	}{
		{unix.NFPROTO_INET, nil, false, evidence.No, false},
		{unix.NFPROTO_INET, nested(unix.NFTA_CHAIN_HOOK, number(unix.NFTA_HOOK_HOOKNUM, 0)), true, evidence.Yes, true},
		{unix.NFPROTO_INET, nested(unix.NFTA_CHAIN_HOOK, number(unix.NFTA_HOOK_HOOKNUM, 1)), true, evidence.No, false},
		{unix.NFPROTO_IPV4, nested(unix.NFTA_CHAIN_HOOK, number(unix.NFTA_HOOK_HOOKNUM, 2)), true, evidence.Yes, true},
		{unix.NFPROTO_IPV6, nested(unix.NFTA_CHAIN_HOOK, number(unix.NFTA_HOOK_HOOKNUM, 4)), true, evidence.Yes, true},
		{unix.NFPROTO_INET, nested(unix.NFTA_CHAIN_HOOK, number(unix.NFTA_HOOK_HOOKNUM, 3)), true, evidence.No, true},
		{unix.NFPROTO_INET, nested(unix.NFTA_CHAIN_HOOK, number(unix.NFTA_HOOK_HOOKNUM, 5)), true, evidence.Unknown, true},
		{unix.NFPROTO_NETDEV, nested(unix.NFTA_CHAIN_HOOK, number(unix.NFTA_HOOK_HOOKNUM, 0)), true, evidence.Unknown, true},
		{unix.NFPROTO_NETDEV, nested(unix.NFTA_CHAIN_HOOK, number(unix.NFTA_HOOK_HOOKNUM, 1)), true, evidence.Unknown, true},
	} {
		f := siteFlows()
		var c chains
		made := c.chain("x")
		made.hookAt(readNFTChain(tt.attrs).kind(tt.family), nftFamily(tt.family), f)
		if made.base != tt.base || made.hooked != tt.hooked || made.reached.covers(f) != tt.covers {
			t.Errorf("family %d, hook %x: %+v", tt.family, tt.attrs, made)
		}
	}
}
