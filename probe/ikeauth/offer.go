package ikeauth

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"vpnprobe/internal/ikecrypto"
	"vpnprobe/internal/wire/ike"
)

// The proposals that stand for every common algorithm.
const (
	wideIKE = "aes256gcm16-aes128gcm16-prfsha256-prfsha384-prfsha512-modp2048-ecp256-curve25519-modp3072-modp4096-ecp384-modp1536-modp1024 " +
		"aes256-aes192-aes128-3des-sha256-sha384-sha512-sha1-modp2048-ecp256-curve25519-modp3072-modp4096-ecp384-modp1536-modp1024"
	wideESP = "aes256gcm16-aes192gcm16-aes128gcm16-aes256gcm12-aes128gcm12-aes256gcm8-aes128gcm8-chacha20poly1305 " +
		"aes256-aes192-aes128-3des-aes256ctr-aes128ctr-camellia256-camellia128-sha256-sha384-sha512-sha1-md5-aesxcbc"
)

// widePFS returns the groups that gateways are configured to use for perfect
// forward secrecy, common ones first.
func widePFS() []uint16 {
	return []uint16{
		ike.GroupMODP2048, ike.GroupECP256, ike.GroupCurve25519, ike.GroupMODP3072, ike.GroupMODP4096, ike.GroupECP384,
		ike.GroupMODP1536, ike.GroupMODP1024, ike.GroupECP521, ike.GroupMODP6144, ike.GroupMODP8192,
	}
}

// offerOf returns the declared proposals of a protocol, as far as vpnprobe can
// speak them. The error says what it left out, and so may come with proposals.
func offerOf(protocol ike.ProtocolID, declared []string) (list []ike.Proposal, leftOut error) {
	for _, text := range declared {
		p, err := proposal(protocol, text)
		if err != nil && leftOut == nil {
			leftOut = fmt.Errorf("%v proposal %s: %w", protocol, text, err)
		}
		if len(p.Transforms) > 0 {
			list = append(list, p)
		}
	}
	return list, leftOut
}

// proposal reads strongSwan's notation: keywords of which those of one type
// are alternatives. The error says which of them is left out; the proposal is
// empty when it is nothing without that.
func proposal(protocol ike.ProtocolID, text string) (p ike.Proposal, leftOut error) {
	none := ike.Proposal{Protocol: protocol}
	p = none
	var beyond []ike.Transform
	for word := range strings.SplitSeq(text, "-") {
		t, ok := ike.TransformOf(strings.ToLower(word))
		if !ok {
			return none, fmt.Errorf("vpnprobe does not know %s", word)
		}
		if !speaks(protocol, t) {
			beyond = append(beyond, t)
			continue
		}
		p.Transforms = append(p.Transforms, t)
	}
	var also []ike.Transform
	has := func(kind ike.TransformType) bool {
		return slices.ContainsFunc(p.Transforms, func(t ike.Transform) bool { return t.Type == kind })
	}
	for _, t := range beyond {
		if leftOut == nil {
			leftOut = fmt.Errorf("vpnprobe does not speak %s", t.Keyword())
		}
		if !has(t.Type) {
			return none, leftOut
		}
	}
	switch {
	case protocol == ike.ProtocolIKE && !has(ike.TransformPRF):
		// As strongSwan does: the PRF of the integrity's own hash.
		for _, t := range p.Transforms {
			if prf, ok := prfOf(t); ok && !slices.ContainsFunc(also, func(o ike.Transform) bool { return sameTransform(prf, o) }) {
				also = append(also, prf)
			}
		}
	case protocol == ike.ProtocolESP && !has(ike.TransformSequence):
		also = []ike.Transform{{Type: ike.TransformSequence}} // without; mandatory to say
	}
	p.Transforms = append(p.Transforms, also...)
	// RFC 7296 section 3.3.2 numbers the types in this order.
	slices.SortStableFunc(p.Transforms, func(a, b ike.Transform) int { return int(a.Type) - int(b.Type) })
	return p, leftOut
}

// speaks reports whether vpnprobe can go on when a responder chooses a
// transform. It never computes the keys of a child SA, only the key exchange
// of one.
func speaks(protocol ike.ProtocolID, t ike.Transform) bool {
	if t.Type >= ike.TransformADDKE1 {
		return false
	}
	if protocol == ike.ProtocolESP && t.Type != ike.TransformKeyExchange {
		return true
	}
	return ikecrypto.Supports(t)
}

// prfOf returns the pseudorandom function of an integrity transform's hash.
func prfOf(t ike.Transform) (ike.Transform, bool) {
	if t.Type != ike.TransformIntegrity {
		return ike.Transform{}, false
	}
	base, _, _ := strings.Cut(t.Keyword(), "_") // sha256_96, sha1_160
	return ike.TransformOf("prf" + base)
}

// groupsOf returns the key exchange groups of proposals, without repetition.
func groupsOf(list []ike.Proposal) []uint16 {
	var groups []uint16
	for _, p := range list {
		for _, t := range p.Transforms {
			if t.Type == ike.TransformKeyExchange && t.ID != 0 && !slices.Contains(groups, t.ID) {
				groups = append(groups, t.ID)
			}
		}
	}
	return groups
}

// withGroups returns the proposals with other groups; none means without
// perfect forward secrecy.
func withGroups(list []ike.Proposal, groups ...uint16) []ike.Proposal {
	out := make([]ike.Proposal, 0, len(list))
	for _, p := range list {
		p.Transforms = withoutType(p.Transforms, ike.TransformKeyExchange)
		for _, g := range groups {
			p.Transforms = append(p.Transforms, ike.Transform{Type: ike.TransformKeyExchange, ID: g})
		}
		out = append(out, p)
	}
	return out
}

// withSequence returns the proposals with other properties of the sequence
// numbers.
func withSequence(list []ike.Proposal, ids ...uint16) []ike.Proposal {
	out := make([]ike.Proposal, 0, len(list))
	for _, p := range list {
		p.Transforms = withoutType(p.Transforms, ike.TransformSequence)
		for _, id := range ids {
			p.Transforms = append(p.Transforms, ike.Transform{Type: ike.TransformSequence, ID: id})
		}
		out = append(out, p)
	}
	return out
}

// sequencesOf returns the properties of the sequence numbers in proposals,
// without repetition.
func sequencesOf(list []ike.Proposal) []uint16 {
	var ids []uint16
	for _, p := range list {
		for _, t := range p.Transforms {
			if t.Type == ike.TransformSequence && !slices.Contains(ids, t.ID) {
				ids = append(ids, t.ID)
			}
		}
	}
	return ids
}

func withoutType(list []ike.Transform, kind ike.TransformType) []ike.Transform {
	return slices.DeleteFunc(slices.Clone(list), func(t ike.Transform) bool { return t.Type == kind })
}

// withSPI returns the proposals under the SPI that the sender chose, numbered
// by their order.
func withSPI(list []ike.Proposal, spi []byte) []ike.Proposal {
	list = slices.Clone(list)
	for i := range list {
		list[i].SPI, list[i].Number = spi, 0
	}
	return list
}

// choice returns the one proposal that a responder chose of an offer. It must
// have one transform of each type that the offered one has, all of them
// offered (RFC 7296 section 3.3.6).
func choice(body []byte, offer []ike.Proposal) (ike.Proposal, error) {
	list, err := ike.ParseSA(body)
	if err != nil {
		return ike.Proposal{}, err
	}
	if len(list) != 1 || !slices.ContainsFunc(offer, func(o ike.Proposal) bool { return isChoice(list[0], o) }) {
		return ike.Proposal{}, fmt.Errorf("an SA payload with what was not offered")
	}
	return list[0], nil
}

func isChoice(p, of ike.Proposal) bool {
	if p.Protocol != of.Protocol {
		return false
	}
	left := slices.Clone(of.Transforms)
	for _, t := range p.Transforms {
		if !slices.ContainsFunc(left, func(o ike.Transform) bool { return sameTransform(t, o) }) {
			return false
		}
		left = withoutType(left, t.Type)
	}
	// Some leave out what says "none".
	return !slices.ContainsFunc(left, func(t ike.Transform) bool {
		return t.ID != 0 && !slices.ContainsFunc(left, func(o ike.Transform) bool { return o.Type == t.Type && o.ID == 0 })
	})
}

func sameTransform(a, b ike.Transform) bool {
	return a.Type == b.Type && a.ID == b.ID && a.KeyLength == b.KeyLength
}

// notation returns a chosen proposal in strongSwan's notation.
func notation(p ike.Proposal) string {
	var words []string
	for _, t := range p.Transforms {
		if t.Type == ike.TransformSequence && t.ID == 0 || t.Type != ike.TransformEncryption && t.Type != ike.TransformSequence && t.ID == 0 {
			continue
		}
		words = append(words, t.Keyword())
	}
	return strings.Join(words, "-")
}

// groupName returns strongSwan's word for a group.
func groupName(group uint16) string {
	return ike.Transform{Type: ike.TransformKeyExchange, ID: group}.Keyword()
}

// selectors returns a side's traffic selectors: what is declared, else its
// gateway alone.
func selectors(declared []netip.Prefix, gateway netip.Addr) []ike.TrafficSelector {
	if len(declared) == 0 {
		gateway = gateway.Unmap().WithZone("")
		declared = []netip.Prefix{netip.PrefixFrom(gateway, gateway.BitLen())}
	}
	var list []ike.TrafficSelector
	for _, p := range declared[:min(len(declared), 255)] { // their number has 8 bits
		list = append(list, ike.SelectorOf(p.Masked()))
	}
	return list
}

// anything returns a selector of every address, for each family of a list.
func anything(list []ike.TrafficSelector) []ike.TrafficSelector {
	var v4, v6 bool
	for _, ts := range list {
		v4, v6 = v4 || ts.Start.Is4(), v6 || ts.Start.Is6()
	}
	var out []ike.TrafficSelector
	if v4 {
		out = append(out, ike.SelectorOf(netip.PrefixFrom(netip.IPv4Unspecified(), 0)))
	}
	if v6 {
		out = append(out, ike.SelectorOf(netip.PrefixFrom(netip.IPv6Unspecified(), 0)))
	}
	return out
}
