package ladder

import (
	"slices"
	"strings"

	"vpnprobe/evidence"
	"vpnprobe/internal/wire/ike"
)

// offer is what one IKE proposal may consist of: for each attribute, keywords
// of strongSwan's proposals as alternatives, the preferred first.
type offer struct {
	encr, integ, prf, group []string
}

// attributes are all of an offer, in the order in which they are looked at.
var attributes = []evidence.Attribute{evidence.Encryption, evidence.Integrity, evidence.PRF, evidence.Group}

// wide has every algorithm that gateways commonly have, the most common first,
// and so fits one datagram of 1280 bytes, which every path carries.
var wide = offer{
	encr: []string{
		"aes256", "aes128", "aes256gcm16", "aes128gcm16", "aes192", "3des", "chacha20poly1305", "aes192gcm16",
		"camellia256", "camellia128", "aes256ctr", "aes128ctr", "aes256ccm16", "aes128ccm16",
		"aes256gcm12", "aes128gcm12", "aes256gcm8", "aes128gcm8", "des",
	},
	integ: []string{"sha256", "sha1", "sha384", "sha512", "md5", "aesxcbc", "aescmac"},
	prf:   []string{"prfsha256", "prfsha1", "prfsha384", "prfsha512", "prfmd5", "prfaesxcbc", "prfaescmac"},
	group: []string{
		"modp2048", "modp1024", "modp1536", "ecp256", "curve25519", "ecp384", "modp3072", "modp4096", "ecp521",
		"modp6144", "modp8192", "modp2048s256", "ecp256bp", "ecp384bp", "ecp512bp",
	},
}

// parseOffer reads a proposal in strongSwan's notation. It returns false for
// one with an algorithm that has no number on the wire, since leaving that out
// would make it another proposal.
func parseOffer(text string) (offer, bool) {
	var o offer
	for word := range strings.SplitSeq(strings.ToLower(strings.TrimSuffix(text, "!")), "-") {
		word = strings.TrimSpace(word)
		t, ok := ike.TransformOf(word)
		if !ok {
			return offer{}, false
		}
		switch t.Type {
		case ike.TransformEncryption:
			o.encr = append(o.encr, word)
		case ike.TransformIntegrity:
			o.integ = append(o.integ, word)
		case ike.TransformPRF:
			o.prf = append(o.prf, word)
		case ike.TransformKeyExchange:
			o.group = append(o.group, word)
		default:
			return offer{}, false
		}
	}
	if len(o.prf) == 0 {
		o.prf = derivedPRFs(o.integ)
	}
	return o, len(o.proposals()) > 0 && len(o.prf) > 0 && len(o.group) > 0
}

// parseOffers reads the declared proposals, and returns apart those that cannot
// be offered by the declared version.
func parseOffers(texts []string, version int) (list []offer, left []string) {
	for _, text := range texts {
		o, ok := parseOffer(text)
		if ok && version == 1 {
			ok = len(suites([]offer{o})) > 0
		}
		if ok {
			list = append(list, o)
		} else {
			left = append(left, text)
		}
	}
	return list, left
}

// derivedPRFs returns the PRFs that a proposal has that names none: those that
// go with its integrity, as strongSwan and others derive them.
func derivedPRFs(integ []string) []string {
	var list []string
	for _, word := range integ {
		prf := "prf" + word
		if _, ok := ike.TransformOf(prf); !ok {
			prf = "prf" + strings.Split(word, "_")[0] // sha1_160, md5_128
		}
		if _, ok := ike.TransformOf(prf); ok && !slices.Contains(list, prf) {
			list = append(list, prf)
		}
	}
	return list
}

// union returns the offer with all values of the given ones, in their order.
// It is wider than the list when their combinations are.
func union(list ...offer) offer {
	var all offer
	for _, o := range list {
		for _, a := range attributes {
			values := all.values(a)
			for _, v := range o.values(a) {
				if !slices.Contains(values, v) {
					values = append(values, v)
				}
			}
			all = all.with(a, values)
		}
	}
	return all
}

func (o offer) values(a evidence.Attribute) []string {
	switch a {
	case evidence.Encryption:
		return o.encr
	case evidence.Integrity:
		return o.integ
	case evidence.PRF:
		return o.prf
	}
	return o.group
}

// with returns the offer with other values of one attribute.
func (o offer) with(a evidence.Attribute, values []string) offer {
	values = slices.Clip(values)
	switch a {
	case evidence.Encryption:
		o.encr = values
	case evidence.Integrity:
		o.integ = values
	case evidence.PRF:
		o.prf = values
	default:
		o.group = values
	}
	return o
}

// String returns the offer in strongSwan's notation, without PRFs that follow
// from its integrity.
func (o offer) String() string {
	words := slices.Concat(o.encr, o.integ)
	if len(o.integ) == 0 || !slices.Equal(o.prf, derivedPRFs(o.integ)) {
		words = append(words, o.prf...)
	}
	return strings.Join(append(words, o.group...), "-")
}

// text returns several offers as one string.
func text(list []offer) string {
	var words []string
	for _, o := range list {
		words = append(words, o.String())
	}
	return strings.Join(words, ",")
}

// proposals returns the offer as IKEv2 proposals: one with the encryption that
// needs integrity, one with the encryption that brings its own, which must not
// be mixed (RFC 5282 section 8).
func (o offer) proposals() []ike.Proposal {
	var plain, aead []string
	for _, word := range o.encr {
		if t, _ := ike.TransformOf(word); isAEAD(t.ID) {
			aead = append(aead, word)
		} else {
			plain = append(plain, word)
		}
	}
	var list []ike.Proposal
	if len(plain) > 0 && len(o.integ) > 0 {
		list = append(list, proposal(plain, o.prf, o.integ, o.group))
	}
	if len(aead) > 0 {
		list = append(list, proposal(aead, o.prf, o.group))
	}
	return list
}

func proposal(words ...[]string) ike.Proposal {
	p := ike.Proposal{Protocol: ike.ProtocolIKE}
	for _, word := range slices.Concat(words...) {
		if t, ok := ike.TransformOf(word); ok {
			p.Transforms = append(p.Transforms, t)
		}
	}
	return p
}

// isAEAD reports whether an encryption algorithm brings its own integrity.
func isAEAD(id uint16) bool {
	return id >= ike.EncrAESCCM8 && id <= ike.EncrAESGCM16 ||
		id >= ike.EncrCamelliaCCM8 && id <= ike.EncrChaCha20Poly1305
}

// offerOf returns the algorithms that a responder chose.
func offerOf(p ike.Proposal) offer {
	var o offer
	for _, t := range p.Transforms {
		word := t.Keyword()
		switch t.Type {
		case ike.TransformEncryption:
			o.encr = append(o.encr, word)
		case ike.TransformPRF:
			o.prf = append(o.prf, word)
		case ike.TransformIntegrity:
			if t.ID != ike.AuthNone {
				o.integ = append(o.integ, word)
			}
		case ike.TransformKeyExchange:
			o.group = append(o.group, word)
		}
	}
	return o
}

// takes reports whether one of the offers contains a choice of one value per
// attribute.
func takes(list []offer, chosen offer) bool {
	return slices.ContainsFunc(list, func(o offer) bool {
		return !slices.ContainsFunc(attributes, func(a evidence.Attribute) bool {
			return slices.ContainsFunc(chosen.values(a), func(v string) bool { return !slices.Contains(o.values(a), v) })
		})
	})
}

// differences names the attributes of a choice that are in none of the
// declared offers.
func differences(declared []offer, chosen offer) []evidence.Mismatch {
	all := union(declared...)
	var list []evidence.Mismatch
	for _, a := range attributes {
		have := all.values(a)
		for _, v := range chosen.values(a) {
			if len(have) > 0 && !slices.Contains(have, v) {
				list = append(list, evidence.Mismatch{Attribute: a, Declared: have, Accepts: []string{v}})
			}
		}
	}
	return list
}

// decoys are the groups that a KE payload is of when its group must not count,
// the best first: those that every responder knows, since some refuse one that
// they do not know before they look at the proposals.
var decoys = []string{"modp3072", "modp4096", "modp2048", "ecp256", "ecp384", "ecp521", "modp1536", "modp1024"}

// decoy returns a group that none of the offers contains, if there is one.
func decoy(list []offer) (string, bool) {
	groups := union(list...).group
	for _, d := range decoys {
		if !slices.Contains(groups, d) {
			return d, true
		}
	}
	return "", false
}

// splitGroups returns two offers that are one together, each of which leaves a
// decoy.
func splitGroups(o offer) [2]offer {
	rest := slices.DeleteFunc(slices.Clone(o.group), func(g string) bool { return g == decoys[0] })
	return [2]offer{o.with(evidence.Group, rest), o.with(evidence.Group, decoys[:1])}
}
