package esp

import (
	"fmt"
	"slices"
	"strings"
)

// Suite is what protects the packets of an SA, as far as it decides their size.
type Suite struct {
	// Name is in strongSwan's notation: encryption, then integrity unless the
	// encryption brings its own, as in "aes128gcm16" or "aes256-sha256".
	Name string
	// IV is the initialization vector that each packet carries, ICV its integrity
	// check value, both in bytes.
	IV, ICV int
	// Block is the block size of the cipher in bytes; 1 for a stream.
	Block int
}

// implicitIV ends the names of ciphers whose packets carry no IV, since it
// follows from the sequence number (RFC 8750). strongSwan has no name for them;
// the ending is that of IANA's names.
const implicitIV = "iiv"

// ParseSuite reads a proposal for ESP in strongSwan's notation, such as
// "aes256-sha256-modp2048", and passes over what has no part in the size of
// packets: PRFs, key exchange methods and extended sequence numbers. Names of
// algorithms may be in upper case.
//
// It fails for a name that it does not know, for a proposal without encryption,
// and for one that offers a choice between packets of different sizes.
func ParseSuite(proposal string) (Suite, error) {
	var ciphers []Suite
	var integrity []Suite
	for word := range strings.SplitSeq(strings.TrimSuffix(strings.ToLower(strings.TrimSpace(proposal)), "!"), "-") {
		if c, ok := cipherNamed(word); ok {
			ciphers = append(ciphers, c)
		} else if icv, ok := integrityNamed(word); ok {
			integrity = append(integrity, Suite{Name: icv.name, ICV: icv.bytes})
		} else if !sizeless(word) {
			return Suite{}, fmt.Errorf("the ESP proposal %.100q: %.40q is no algorithm that is known here", proposal, word)
		}
	}
	if len(ciphers) == 0 {
		return Suite{}, fmt.Errorf("the ESP proposal %.100q has no encryption: write it like aes256-sha256", proposal)
	}
	var suites []Suite
	for _, c := range ciphers {
		// With encryption that brings its own, integrity is not negotiated (RFC
		// 7296, section 3.3.3).
		if c.ICV > 0 || len(integrity) == 0 {
			suites = append(suites, c)
			continue
		}
		for _, i := range integrity {
			suites = append(suites, c.with(i.Name, i.ICV))
		}
	}
	if i := slices.IndexFunc(suites, func(s Suite) bool { return !s.sameSize(suites[0]) }); i > 0 {
		return Suite{}, fmt.Errorf("the ESP proposal %.100q leaves the size of packets open: %s or %s", proposal, suites[0].Name, suites[i].Name)
	}
	return suites[0], nil
}

// with adds integrity to a cipher that has none of its own.
func (s Suite) with(name string, icv int) Suite {
	s.Name += "-" + name
	s.ICV = icv
	return s
}

func (s Suite) sameSize(t Suite) bool {
	return s.IV == t.IV && s.ICV == t.ICV && s.align() == t.align()
}

// cipherNamed returns the cipher of a name, under its shortest full name: with
// the length of the key where it has several, and that of the ICV in bytes.
func cipherNamed(word string) (Suite, bool) {
	switch word {
	case "null": // RFC 2410
		return Suite{Name: word, Block: 1}, true
	case "des", "3des", "cast128": // RFC 2405, RFC 2451
		return Suite{Name: word, IV: 8, Block: 8}, true
	case "sm4":
		return Suite{Name: word, IV: 16, Block: 16}, true
	case "chacha20poly1305", "chacha20poly1305compat": // RFC 7634
		return Suite{Name: "chacha20poly1305", IV: 8, ICV: 16, Block: 1}, true
	case "chacha20poly1305" + implicitIV:
		return Suite{Name: word, ICV: 16, Block: 1}, true
	}
	family, key, mode := splitCipher(word)
	switch {
	case family == "":
		return Suite{}, false
	case mode != "" && key == "":
		return Suite{}, false // only CBC has a key length of its own accord
	case key == "":
		key = "128"
	}
	name := family + key
	switch {
	case mode == "" && family == "blowfish": // RFC 2451
		return Suite{Name: name, IV: 8, Block: 8}, true
	case mode == "": // CBC: RFC 3602, RFC 4312
		return Suite{Name: name, IV: 16, Block: 16}, true
	case mode == "ctr" && counts(family): // RFC 3686, RFC 5529
		return Suite{Name: name + mode, IV: 8, Block: 1}, true
	case mode == "gmac" && family == "aes": // RFC 4543
		return Suite{Name: name + mode, IV: 8, ICV: 16, Block: 1}, true
	}
	return combined(family, name, mode)
}

// combined returns a cipher in GCM (RFC 4106) or CCM (RFC 4309, RFC 5529), whose
// name ends in the length of the ICV, in bytes or in bits.
func combined(family, name, mode string) (Suite, bool) {
	s := Suite{IV: 8, Block: 1}
	mode, implicit := strings.CutSuffix(mode, implicitIV)
	kind, length := mode[:min(3, len(mode))], mode[min(3, len(mode)):]
	if kind != "ccm" && (kind != "gcm" || family != "aes") || !counts(family) {
		return Suite{}, false
	}
	switch length {
	case "8", "64":
		length, s.ICV = "8", 8
	case "12", "96":
		length, s.ICV = "12", 12
	case "", "16", "128":
		length, s.ICV = "16", 16
	default:
		return Suite{}, false
	}
	s.Name = name + kind + length
	if implicit {
		if family != "aes" || s.ICV != 16 { // RFC 8750, section 5
			return Suite{}, false
		}
		s.Name += implicitIV
		s.IV = 0
	}
	return s, true
}

// counts reports whether a cipher is used in modes that count.
func counts(family string) bool { return family == "aes" || family == "camellia" }

// splitCipher takes a name such as "aes128gcm16" apart. The family is "" for a
// name that is not of this form.
func splitCipher(word string) (family, key, mode string) {
	for _, f := range []string{"aes", "camellia", "blowfish", "serpent", "twofish"} {
		rest, ok := strings.CutPrefix(word, f)
		if !ok {
			continue
		}
		for _, k := range []string{"128", "192", "256"} {
			if mode, ok := strings.CutPrefix(rest, k); ok {
				return f, k, mode
			}
		}
		if rest == "" {
			return f, "", ""
		}
	}
	return "", "", ""
}

type integrityCheck struct {
	name  string
	bytes int // of the ICV
}

// integrityNamed returns the integrity algorithm of a name. SM3 is taken to be
// whole, as Linux has it: nothing standardizes how it is truncated.
func integrityNamed(word string) (integrityCheck, bool) {
	switch word {
	case "md5", "aesxcbc", "aescmac", "camelliaxcbc": // RFC 2403, RFC 3566, RFC 4494, RFC 5529
		return integrityCheck{word, 12}, true
	case "md5_128":
		return integrityCheck{word, 16}, true
	case "sha", "sha1": // RFC 2404
		return integrityCheck{"sha1", 12}, true
	case "sha1_160":
		return integrityCheck{word, 20}, true
	case "sha256", "sha2_256", "sha256_128": // RFC 4868
		return integrityCheck{"sha256", 16}, true
	case "sha256_96", "sha2_256_96":
		return integrityCheck{"sha256_96", 12}, true
	case "sha384", "sha2_384":
		return integrityCheck{"sha384", 24}, true
	case "sha512", "sha2_512":
		return integrityCheck{"sha512", 32}, true
	case "sm3":
		return integrityCheck{word, 32}, true
	}
	return integrityCheck{}, false
}

// sizeless reports whether a word of a proposal names something that does not
// show in the size of packets.
func sizeless(word string) bool {
	switch word {
	case "esn", "noesn", "none", "sm2":
		return true
	}
	for _, p := range []string{"prf", "modp", "ecp", "curve", "x25519", "x448", "mlkem", "kyber", "ntru", "frodo", "bike", "hqc", "saber", "sike"} {
		if strings.HasPrefix(word, p) {
			return true
		}
	}
	// Additional key exchanges, ke1_ to ke7_ (RFC 9370).
	return len(word) > 4 && word[:2] == "ke" && word[2] >= '1' && word[2] <= '7' && word[3] == '_'
}
