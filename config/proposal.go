package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Proposal is one set of algorithms in the syntax of strongSwan, such as
// aes256-sha256-modp2048, by type and in lower case, with alternative names
// replaced by one. A type with several values offers a choice. A type without
// a value is not in the proposal.
type Proposal struct {
	Encryption []string
	Integrity  []string
	// PRF is derived from Integrity by the daemon where it is empty.
	PRF []string
	// Groups are the key exchange methods; in an ESP proposal they mean
	// perfect forward secrecy.
	Groups []string
	// ESN holds "esn", "noesn" or both, of an ESP proposal only.
	ESN []string
}

// String returns the proposal as a daemon's configuration would write it.
func (p Proposal) String() string {
	return strings.Join(slices.Concat(p.Encryption, p.Integrity, p.PRF, p.Groups, p.ESN), "-")
}

// AEAD reports whether the encryption protects integrity by itself (RFC 5282).
func (p Proposal) AEAD() bool { return slices.ContainsFunc(p.Encryption, isAEAD) }

// Choices returns the types for which the proposal has more than one value.
func (p Proposal) Choices() []string {
	var out []string
	for _, t := range []struct {
		name   string
		values []string
	}{{"encryption", p.Encryption}, {"integrity", p.Integrity}, {"prf", p.PRF}, {"group", p.Groups}, {"esn", p.ESN}} {
		if len(t.values) > 1 {
			out = append(out, t.name)
		}
	}
	return out
}

func isAEAD(name string) bool {
	return strings.Contains(name, "gcm") || strings.Contains(name, "ccm") || strings.Contains(name, "poly1305") || strings.Contains(name, "gmac")
}

// transform is the type that a keyword belongs to.
type transform uint8

const (
	encryption transform = iota + 1
	integrity
	prf
	group
	esn
)

// algorithm is a keyword's type and the name that it is kept under.
type algorithm struct {
	transform transform
	name      string
}

// algorithms returns every keyword that strongSwan's proposals know, and
// sm2, sm3 and sm4 of the Chinese gateways that offer them with IKEv1.
func algorithms() map[string]algorithm {
	m := make(map[string]algorithm)
	add := func(t transform, names ...string) {
		for _, name := range names {
			m[name] = algorithm{t, name}
		}
	}
	alias := func(name, of string) { m[name] = m[of] }

	add(encryption, "des", "3des", "null", "chacha20poly1305", "cast128", "sm4")
	alias("chacha20poly1305compat", "chacha20poly1305")
	for _, bits := range []string{"128", "192", "256"} {
		add(encryption, "aes"+bits, "aes"+bits+"ctr", "aes"+bits+"gmac", "camellia"+bits, "camellia"+bits+"ctr", "blowfish"+bits, "serpent"+bits, "twofish"+bits)
		for _, mode := range []string{"aes" + bits + "gcm", "aes" + bits + "ccm", "camellia" + bits + "ccm"} {
			// The length of the integrity check value in bytes, or in bits.
			for _, icv := range []int{8, 12, 16} {
				name := mode + strconv.Itoa(icv)
				add(encryption, name)
				alias(mode+strconv.Itoa(8*icv), name)
			}
			alias(mode, mode+"16")
		}
	}
	for _, name := range []string{"aes", "camellia", "blowfish", "serpent", "twofish"} {
		alias(name, name+"128")
	}

	add(integrity, "md5", "md5_128", "sha1", "sha1_160", "sha256", "sha256_96", "sha384", "sha512", "aesxcbc", "aescmac", "camelliaxcbc", "sm3")
	alias("sha", "sha1")
	for _, bits := range []string{"256", "384", "512"} {
		alias("sha2_"+bits, "sha"+bits)
	}
	alias("sha2_256_96", "sha256_96")
	alias("sha256_128", "sha256")
	add(prf, "prfmd5", "prfsha1", "prfsha256", "prfsha384", "prfsha512", "prfaesxcbc", "prfaescmac", "prfcamelliaxcbc", "prfsm3")

	add(group, "modp768", "modp1024", "modp1536", "modp2048", "modp3072", "modp4096", "modp6144", "modp8192",
		"modp1024s160", "modp2048s224", "modp2048s256", "ecp192", "ecp224", "ecp256", "ecp384", "ecp521",
		"ecp224bp", "ecp256bp", "ecp384bp", "ecp512bp", "curve25519", "curve448", "mlkem512", "mlkem768", "mlkem1024", "sm2")
	alias("x25519", "curve25519")
	alias("x448", "curve448")
	for n := '1'; n <= '7'; n++ { // additional key exchanges, RFC 9370
		for _, of := range []string{"modp2048", "modp3072", "modp4096", "ecp256", "ecp384", "ecp521", "curve25519", "curve448", "mlkem512", "mlkem768", "mlkem1024"} {
			add(group, "ke"+string(n)+"_"+of)
		}
	}
	add(esn, "esn", "noesn")
	return m
}

// parseProposal sorts the keywords of a proposal by their type.
func parseProposal(text string) (Proposal, error) {
	var p Proposal
	if text == "default" {
		return p, errors.New("default depends on the daemon's version: write the algorithms out")
	}
	known := algorithms()
	for word := range strings.SplitSeq(strings.TrimSuffix(text, "!"), "-") {
		a, ok := known[strings.ToLower(strings.TrimSpace(word))]
		if !ok {
			err := fmt.Errorf("%s in %s is not an algorithm of strongSwan's proposals", quote(word), quote(text))
			if near := nearest(word, slices.Sorted(maps.Keys(known))); near != "" {
				err = fmt.Errorf("%w: did you mean %s?", err, near)
			}
			return Proposal{}, err
		}
		values := map[transform]*[]string{encryption: &p.Encryption, integrity: &p.Integrity, prf: &p.PRF, group: &p.Groups, esn: &p.ESN}[a.transform]
		if slices.Contains(*values, a.name) {
			return Proposal{}, fmt.Errorf("%s is twice in %s", a.name, quote(text))
		}
		*values = append(*values, a.name)
	}
	switch aead := slices.IndexFunc(p.Encryption, isAEAD); {
	case len(p.Encryption) == 0:
		return Proposal{}, fmt.Errorf("%s has no encryption: write it like aes256-sha256-modp2048", quote(text))
	case aead >= 0 && slices.ContainsFunc(p.Encryption, func(name string) bool { return !isAEAD(name) }):
		return Proposal{}, fmt.Errorf("%s mixes %s, which needs no integrity, with encryption that does: write two proposals", quote(text), p.Encryption[aead])
	case aead >= 0 && len(p.Integrity) > 0:
		return Proposal{}, fmt.Errorf("%s has integrity beside %s, which brings its own: remove %s", quote(text), p.Encryption[aead], p.Integrity[0])
	}
	return p, nil
}

// parseIKEProposal reads a proposal for an IKE SA. Such a proposal must have
// encryption, a PRF (given, or derived from the integrity), integrity unless
// the encryption is combined, and a group (RFC 7296 section 3.3.3).
func parseIKEProposal(text string) (Proposal, error) {
	p, err := parseProposal(text)
	switch {
	case err != nil:
		return Proposal{}, err
	case !p.AEAD() && len(p.Integrity) == 0:
		return Proposal{}, fmt.Errorf("%s has no integrity: add one, such as sha256", quote(text))
	case len(p.PRF) == 0 && len(p.Integrity) == 0:
		return Proposal{}, fmt.Errorf("%s has no PRF to go with %s: add one, such as prfsha256", quote(text), p.Encryption[0])
	case len(p.Groups) == 0:
		return Proposal{}, fmt.Errorf("%s has no group: add one, such as modp2048", quote(text))
	case len(p.ESN) > 0:
		return Proposal{}, fmt.Errorf("%s is for ESP, in the IKE proposal %s: remove it", p.ESN[0], quote(text))
	}
	return p, nil
}

// parseESPProposal reads a proposal for ESP. Integrity and a group are
// optional in it, a PRF has no place.
func parseESPProposal(text string) (Proposal, error) {
	p, err := parseProposal(text)
	switch {
	case err != nil:
		return Proposal{}, err
	case len(p.PRF) > 0:
		return Proposal{}, fmt.Errorf("%s is for IKE, in the ESP proposal %s: remove it", p.PRF[0], quote(text))
	case slices.Equal(p.Encryption, []string{"null"}) && len(p.Integrity) == 0:
		return Proposal{}, fmt.Errorf("%s neither encrypts nor protects integrity", quote(text))
	}
	return p, nil
}
