package ikeconv

import (
	"strings"

	"vpnprobe/internal/wire/ike"
)

// suite is what the algorithms of an IKE SA make of the length of a protected
// message. All lengths are in bytes.
type suite struct {
	known bool
	iv    int // in front of the ciphertext; 0 of IKEv1, which chains them
	block int // that the plaintext is padded to
	icv   int // behind the ciphertext; 0 of IKEv1
	prf   int // output of the pseudorandom function, and so the AUTH data of a shared key
	v1    bool
}

const (
	genericHeader = 4 // of a payload
	// notifyLen is the length of a Notify payload without SPI and data, and of
	// a Delete payload of an IKE SA (RFC 7296 sections 3.10 and 3.11).
	notifyLen = 8
)

// The bounds of what any suite can be, for an SA whose suite was not seen.
const (
	leastIV, mostIV   = 8, 16
	leastICV, mostICV = 8, 32
	leastPRF, mostPRF = 16, 64
	mostBlock         = 16
)

// size returns the length of a message whose protected payloads have n bytes.
// IKEv2 adds the header of the Encrypted payload and one byte that holds the
// length of the padding (RFC 7296 section 3.14); IKEv1 just fills the last
// block (RFC 2409 section 5, appendix B). Nobody pads more than it takes,
// though both may.
func (s suite) size(n int) int {
	if s.v1 {
		return ike.HeaderLen + (n+s.block-1)/s.block*s.block
	}
	return ike.HeaderLen + genericHeader + s.iv + (n+s.block)/s.block*s.block + s.icv
}

// inner returns the least and the most bytes that the protected payloads of an
// IKEv2 message of a size may have. ok is false when no such message exists.
func (s suite) inner(size int) (lo, hi int, ok bool) {
	fixed := ike.HeaderLen + genericHeader
	if !s.known {
		lo = size - fixed - mostIV - mostICV - mostBlock
		hi = size - fixed - leastIV - leastICV - 1
		return max(lo, 0), hi, hi >= 0
	}
	n := size - fixed - s.iv - s.icv
	return n - s.block, n - 1, n > 0 && n%s.block == 0
}

// prfs returns the least and the most output of the pseudorandom function.
func (s suite) prfs() (least, most int) {
	if !s.known {
		return leastPRF, mostPRF
	}
	return s.prf, s.prf
}

// suiteOf returns the lengths of the suite that an IKEv2 responder chose.
// Unknown algorithms, and a choice of several of a kind, make it unknown.
func suiteOf(p ike.Proposal) suite {
	var encr, integ, prf ike.Transform
	for _, t := range p.Transforms {
		to := map[ike.TransformType]*ike.Transform{
			ike.TransformEncryption: &encr, ike.TransformIntegrity: &integ, ike.TransformPRF: &prf,
		}[t.Type]
		if to == nil {
			continue
		}
		if to.Type != 0 {
			return suite{}
		}
		*to = t
	}
	s, ok := ciphers[encr.ID]
	if encr.Type == 0 || !ok {
		return suite{}
	}
	if s.icv == 0 {
		if s.icv, ok = icvs[integ.ID]; !ok || integ.Type == 0 {
			return suite{}
		}
	}
	if s.prf, ok = prfs[prf.ID]; !ok {
		return suite{}
	}
	s.known = true
	return s
}

// suiteOfV1 is suiteOf for the transform that an IKEv1 responder chose.
func suiteOfV1(list []ike.Attribute) suite {
	s := suite{v1: true}
	for _, a := range list {
		if a.Data != nil {
			continue
		}
		switch a.Type {
		case ike.AttrV1Encryption:
			s.block = blocksV1[a.Value]
		case ike.AttrV1Hash:
			s.prf = hashesV1[a.Value]
		}
	}
	s.known = s.block > 0 && s.prf > 0
	return s
}

// ciphers are the algorithms that IKE can be protected with: RFC 2451 and 3602
// (CBC), 5930 (CTR), 5282 (CCM, GCM), 5529 (Camellia), 7634 (ChaCha20).
var ciphers = map[uint16]suite{
	ike.EncrDES:              {iv: 8, block: 8},
	ike.Encr3DES:             {iv: 8, block: 8},
	ike.EncrIDEA:             {iv: 8, block: 8},
	ike.EncrCAST:             {iv: 8, block: 8},
	ike.EncrBlowfish:         {iv: 8, block: 8},
	ike.EncrAESCBC:           {iv: 16, block: 16},
	ike.EncrCamelliaCBC:      {iv: 16, block: 16},
	ike.EncrAESCTR:           {iv: 8, block: 1},
	ike.EncrCamelliaCTR:      {iv: 8, block: 1},
	ike.EncrAESCCM8:          {iv: 8, block: 1, icv: 8},
	ike.EncrAESCCM12:         {iv: 8, block: 1, icv: 12},
	ike.EncrAESCCM16:         {iv: 8, block: 1, icv: 16},
	ike.EncrAESGCM8:          {iv: 8, block: 1, icv: 8},
	ike.EncrAESGCM12:         {iv: 8, block: 1, icv: 12},
	ike.EncrAESGCM16:         {iv: 8, block: 1, icv: 16},
	ike.EncrCamelliaCCM8:     {iv: 8, block: 1, icv: 8},
	ike.EncrCamelliaCCM12:    {iv: 8, block: 1, icv: 12},
	ike.EncrCamelliaCCM16:    {iv: 8, block: 1, icv: 16},
	ike.EncrChaCha20Poly1305: {iv: 8, block: 1, icv: 16},
}

// icvs are the lengths of integrity check values (RFC 2403, 2404, 3566, 4494,
// 4595, 4868).
var icvs = map[uint16]int{
	ike.AuthHMACMD596: 12, ike.AuthHMACSHA196: 12, ike.AuthAESXCBC96: 12, ike.AuthAESCMAC96: 12,
	ike.AuthHMACMD5128: 16, ike.AuthHMACSHA1160: 20,
	ike.AuthHMACSHA256128: 16, ike.AuthHMACSHA384192: 24, ike.AuthHMACSHA512256: 32,
}

// prfs are the output lengths of pseudorandom functions (RFC 2104, 4434, 4615,
// 4868).
var prfs = map[uint16]int{
	ike.PRFHMACMD5: 16, ike.PRFHMACSHA1: 20, ike.PRFAES128XCBC: 16, ike.PRFAES128CMAC: 16,
	ike.PRFHMACSHA256: 32, ike.PRFHMACSHA384: 48, ike.PRFHMACSHA512: 64, ike.PRFHMACStreebog512: 64,
}

// blocksV1 are the block lengths of the ciphers of IKEv1, which are all in CBC.
var blocksV1 = map[uint16]int{
	ike.EncrV1DES: 8, ike.EncrV1IDEA: 8, ike.EncrV1Blowfish: 8, ike.EncrV13DES: 8, ike.EncrV1CAST: 8,
	ike.EncrV1AES: 16, ike.EncrV1Camellia: 16, ike.EncrV1SM4: 16,
}

// hashesV1 are the lengths of IKEv1's Hash payloads' data.
var hashesV1 = map[uint16]int{
	ike.HashV1MD5: 16, ike.HashV1SHA1: 20, ike.HashV1SHA256: 32, ike.HashV1SHA384: 48, ike.HashV1SHA512: 64, ike.HashV1SM3: 32,
}

// maxText is the most of a proposal's text that is kept, in bytes.
const maxText = 1024

// text returns an IKEv2 proposal in strongSwan's notation, which names a
// pseudorandom function only if it is not that of the integrity algorithm.
func text(p ike.Proposal) string {
	var encr, integ, prf, rest []string
	for _, t := range p.Transforms {
		if t.ID == 0 {
			continue // none, or the default
		}
		word := t.Keyword()
		switch t.Type {
		case ike.TransformEncryption:
			encr = append(encr, word)
		case ike.TransformIntegrity:
			integ = append(integ, word)
		case ike.TransformPRF:
			prf = append(prf, word)
		default:
			rest = append(rest, word)
		}
	}
	if implied(integ, prf) {
		prf = nil
	}
	return strings.Join(append(append(append(encr, integ...), prf...), rest...), "-")
}

// implied reports whether the pseudorandom functions are those that the
// integrity algorithms stand for, in the same order.
func implied(integ, prf []string) bool {
	if len(integ) != len(prf) {
		return false
	}
	for i, word := range integ {
		base, _, _ := strings.Cut(word, "_") // sha1_160, md5_128
		if prf[i] != "prf"+base {
			return false
		}
	}
	return true
}

// textV1 is text for an IKEv1 transform. The authentication method is not part
// of the notation.
func textV1(t ike.TransformV1) string {
	var words []string
	encr, hash, group, _ := ike.PhaseOneKeywords(t.Attributes)
	for _, word := range []string{encr, hash, group} {
		if word != "" {
			words = append(words, word)
		}
	}
	return strings.Join(words, "-")
}

// joined returns the texts of several proposals, cut to maxText.
func joined(list []string) string {
	s := strings.Join(list, ",")
	if len(s) > maxText {
		return s[:maxText] + "..."
	}
	return s
}
