package hoststate

import (
	"bytes"
	"encoding/binary"

	"vpnprobe/internal/wire/esp"
)

// Offsets in bytes in the structs xfrm_algo, xfrm_algo_auth and xfrm_algo_aead
// of linux/xfrm.h. The key follows the last of their fields: no slice below
// reaches it.
const (
	algName   = 64 // the length of the name, which ends with a zero
	algKeyLen = 64 // in bits
	algICVLen = 68 // in bits, of xfrm_algo_auth and xfrm_algo_aead
)

// algorithms are those of one SA.
type algorithms struct {
	aead, encryption, integrity esp.Algorithm
}

// read takes what it knows of an attribute of an SA. A kernel that hides keys
// fills them with zeros, and changes nothing else.
func (a *algorithms) read(kind uint16, value []byte) {
	switch kind {
	case attrAlgAEAD:
		a.aead = readAlgorithm(value, true)
	case attrAlgCrypt:
		a.encryption = readAlgorithm(value, false)
	case attrAlgAuthTrunc:
		a.integrity = readAlgorithm(value, true)
	case attrAlgAuth:
		// Since Linux 2.6.33 the one above is beside it, and tells the length of
		// the ICV, which this one does not.
		if a.integrity.Name == "" {
			a.integrity = readAlgorithm(value, false)
		}
	}
}

// suite returns the name of the algorithms of an SA of the protocol in
// strongSwan's notation, or "".
func (a *algorithms) suite(protocol string) string {
	if protocol == "ah" {
		return esp.KernelIntegrity(a.integrity)
	}
	s, _ := esp.KernelSuite(a.aead, a.encryption, a.integrity)
	return s.Name
}

// readAlgorithm copies the name and the lengths of an algorithm, and leaves one
// without a name whose message is too short for them, or whose name has no end.
func readAlgorithm(value []byte, hasICV bool) (a esp.Algorithm) {
	header := algKeyLen + 4
	if hasICV {
		header = algICVLen + 4
	}
	if len(value) < header {
		return a
	}
	name, _, ended := bytes.Cut(value[:algName], []byte{0})
	if !ended {
		return a
	}
	const most = 1 << 16 // bits, far above any real length
	a.Name = string(name)
	a.Key = int(min(binary.NativeEndian.Uint32(value[algKeyLen:]), most))
	if hasICV {
		a.ICV = int(min(binary.NativeEndian.Uint32(value[algICVLen:]), most))
	}
	return a
}
