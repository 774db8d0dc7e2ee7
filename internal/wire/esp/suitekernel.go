package esp

import "strconv"

// Algorithm is one algorithm of an SA as Linux tells of it: the name of the
// crypto API, and lengths in bits. The zero value is none.
type Algorithm struct {
	Name string // "cbc(aes)", or as old kernels had it: "aes"
	Key  int    // with the salt that is kept beside it
	// ICV is what the integrity check is truncated to; 0 leaves it to Linux.
	ICV int
}

// KernelSuite names the suite of an ESP SA of Linux (net/xfrm/xfrm_algo.c has
// the list) by its combined algorithm or, without one, its encryption and
// integrity. It reports false for what it does not know, or cannot be.
func KernelSuite(aead, encryption, integrity Algorithm) (Suite, bool) {
	if aead.Name != "" {
		return kernelAEAD(aead)
	}
	word, ok := kernelCipher(encryption)
	if !ok {
		return Suite{}, false
	}
	s, ok := cipherNamed(word)
	if !ok {
		return Suite{}, false
	}
	if integrity.Name == "" || integrity.Name == "digest_null" {
		return s, true
	}
	name, bits, ok := kernelIntegrity(integrity)
	if !ok {
		return Suite{}, false
	}
	return s.with(name, bits/8), true
}

// KernelIntegrity names the integrity of an SA of Linux, of AH for instance. It
// returns "" for what it does not know.
func KernelIntegrity(a Algorithm) string {
	name, _, _ := kernelIntegrity(a)
	return name
}

// kernelAEAD takes the salt, which is counted with the key, from the key: 4
// bytes (RFC 4106, section 8.1; RFC 4543, section 5.3), or 3 (RFC 4309, section
// 7.1).
func kernelAEAD(a Algorithm) (Suite, bool) {
	switch a.Name {
	case "rfc4106(gcm(aes))":
		return cipherNamed("aes" + strconv.Itoa(a.Key-32) + "gcm" + strconv.Itoa(a.ICV))
	case "rfc4309(ccm(aes))":
		return cipherNamed("aes" + strconv.Itoa(a.Key-24) + "ccm" + strconv.Itoa(a.ICV))
	case "rfc4543(gcm(aes))":
		if a.ICV == 128 {
			return cipherNamed("aes" + strconv.Itoa(a.Key-32) + "gmac")
		}
	case "rfc7539esp(chacha20,poly1305)":
		if a.ICV == 128 {
			return cipherNamed("chacha20poly1305")
		}
	}
	return Suite{}, false
}

// kernelCipher returns strongSwan's name.
func kernelCipher(a Algorithm) (string, bool) {
	switch a.Name {
	case "ecb(cipher_null)", "cipher_null":
		return "null", true
	case "cbc(des)", "des":
		return "des", true
	case "cbc(des3_ede)", "des3_ede":
		return "3des", true
	case "cbc(cast5)", "cast5", "cast128":
		return "cast128", true
	case "cbc(sm4)", "sm4":
		return "sm4", true
	case "cbc(aes)", "aes":
		return "aes" + strconv.Itoa(a.Key), true
	case "cbc(camellia)", "camellia":
		return "camellia" + strconv.Itoa(a.Key), true
	case "cbc(blowfish)", "blowfish":
		return "blowfish" + strconv.Itoa(a.Key), true
	case "cbc(serpent)", "serpent":
		return "serpent" + strconv.Itoa(a.Key), true
	case "cbc(twofish)", "twofish":
		return "twofish" + strconv.Itoa(a.Key), true
	case "rfc3686(ctr(aes))": // with a nonce of 4 bytes (RFC 3686, section 5.1)
		return "aes" + strconv.Itoa(a.Key-32) + "ctr", true
	}
	return "", false
}

// kernelIntegrity returns the name and the length of the ICV in bits. A
// truncation without a name in strongSwan's notation is named alike, as in
// "sha256_192".
func kernelIntegrity(a Algorithm) (name string, bits int, ok bool) {
	var full, usual, inLinux int // lengths of the ICV: most, by name alone, by default
	switch a.Name {
	case "hmac(md5)", "md5":
		name, full, usual, inLinux = "md5", 128, 96, 96
	case "hmac(sha1)", "sha1":
		name, full, usual, inLinux = "sha1", 160, 96, 96
	case "hmac(sha256)", "sha256": // 96 is of a draft before RFC 4868
		name, full, usual, inLinux = "sha256", 256, 128, 96
	case "hmac(sha384)", "sha384":
		name, full, usual, inLinux = "sha384", 384, 192, 192
	case "hmac(sha512)", "sha512":
		name, full, usual, inLinux = "sha512", 512, 256, 256
	case "hmac(rmd160)", "rmd160", "ripemd160": // RFC 2857
		name, full, usual, inLinux = "ripemd160", 160, 96, 96
	case "hmac(sm3)", "sm3":
		name, full, usual, inLinux = "sm3", 256, 256, 256
	case "xcbc(aes)":
		name, full, usual, inLinux = "aesxcbc", 128, 96, 96
	case "cmac(aes)":
		name, full, usual, inLinux = "aescmac", 128, 96, 96
	default:
		return "", 0, false
	}
	switch {
	case a.ICV == 0:
		bits = inLinux
	case a.ICV < 0 || a.ICV > full || a.ICV%8 != 0:
		return "", 0, false
	default:
		bits = a.ICV
	}
	if bits != usual {
		name += "_" + strconv.Itoa(bits)
	}
	return name, bits, true
}
