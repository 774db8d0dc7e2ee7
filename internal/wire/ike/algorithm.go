package ike

// The encryption algorithms of IKEv2 (IANA's registry, transform type 1). The
// numbers behind CCM and GCM are the lengths of their integrity check values
// in bytes.
const (
	EncrDESIV64             uint16 = 1
	EncrDES                 uint16 = 2
	Encr3DES                uint16 = 3
	EncrRC5                 uint16 = 4
	EncrIDEA                uint16 = 5
	EncrCAST                uint16 = 6
	EncrBlowfish            uint16 = 7
	Encr3IDEA               uint16 = 8
	EncrDESIV32             uint16 = 9
	EncrNull                uint16 = 11
	EncrAESCBC              uint16 = 12
	EncrAESCTR              uint16 = 13
	EncrAESCCM8             uint16 = 14
	EncrAESCCM12            uint16 = 15
	EncrAESCCM16            uint16 = 16
	EncrAESGCM8             uint16 = 18
	EncrAESGCM12            uint16 = 19
	EncrAESGCM16            uint16 = 20
	EncrNullAuthAESGMAC     uint16 = 21
	EncrXTSAES              uint16 = 22
	EncrCamelliaCBC         uint16 = 23
	EncrCamelliaCTR         uint16 = 24
	EncrCamelliaCCM8        uint16 = 25
	EncrCamelliaCCM12       uint16 = 26
	EncrCamelliaCCM16       uint16 = 27
	EncrChaCha20Poly1305    uint16 = 28
	EncrAESCCM8IIV          uint16 = 29 // RFC 8750: with an implicit IV, in ESP only
	EncrAESGCM16IIV         uint16 = 30
	EncrChaCha20Poly1305IIV uint16 = 31
	EncrKuznyechikMGM       uint16 = 32 // RFC 9227, 32 to 35 in ESP, 33 and 35 with Magma
	EncrMagmaMGM            uint16 = 33
	EncrKuznyechikMGMMAC    uint16 = 34
	EncrMagmaMGMMAC         uint16 = 35
)

// The pseudorandom functions of IKEv2 (transform type 2).
const (
	PRFHMACMD5         uint16 = 1
	PRFHMACSHA1        uint16 = 2
	PRFHMACTiger       uint16 = 3
	PRFAES128XCBC      uint16 = 4
	PRFHMACSHA256      uint16 = 5
	PRFHMACSHA384      uint16 = 6
	PRFHMACSHA512      uint16 = 7
	PRFAES128CMAC      uint16 = 8
	PRFHMACStreebog512 uint16 = 9
)

// The integrity algorithms of IKEv2 (transform type 3). The last number is the
// length of the integrity check value in bits.
const (
	AuthNone          uint16 = 0
	AuthHMACMD596     uint16 = 1
	AuthHMACSHA196    uint16 = 2
	AuthDESMAC        uint16 = 3
	AuthKPDKMD5       uint16 = 4
	AuthAESXCBC96     uint16 = 5
	AuthHMACMD5128    uint16 = 6
	AuthHMACSHA1160   uint16 = 7
	AuthAESCMAC96     uint16 = 8
	AuthAES128GMAC    uint16 = 9
	AuthAES192GMAC    uint16 = 10
	AuthAES256GMAC    uint16 = 11
	AuthHMACSHA256128 uint16 = 12
	AuthHMACSHA384192 uint16 = 13
	AuthHMACSHA512256 uint16 = 14
)

// The key exchange methods, or groups, of IKEv2 (transform type 4). IKEv1 uses
// the same numbers for those that it has.
const (
	GroupNone         uint16 = 0
	GroupMODP768      uint16 = 1
	GroupMODP1024     uint16 = 2
	GroupMODP1536     uint16 = 5
	GroupMODP2048     uint16 = 14
	GroupMODP3072     uint16 = 15
	GroupMODP4096     uint16 = 16
	GroupMODP6144     uint16 = 17
	GroupMODP8192     uint16 = 18
	GroupECP256       uint16 = 19
	GroupECP384       uint16 = 20
	GroupECP521       uint16 = 21
	GroupMODP1024S160 uint16 = 22
	GroupMODP2048S224 uint16 = 23
	GroupMODP2048S256 uint16 = 24
	GroupECP192       uint16 = 25
	GroupECP224       uint16 = 26
	GroupBrainpool224 uint16 = 27
	GroupBrainpool256 uint16 = 28
	GroupBrainpool384 uint16 = 29
	GroupBrainpool512 uint16 = 30
	GroupCurve25519   uint16 = 31
	GroupCurve448     uint16 = 32
	GroupGOST256      uint16 = 33
	GroupGOST512      uint16 = 34
	GroupMLKEM512     uint16 = 35
	GroupMLKEM768     uint16 = 36
	GroupMLKEM1024    uint16 = 37
)

// The properties of sequence numbers in ESP and AH (transform type 5).
const (
	SequenceNumbers32          uint16 = 0 // "no extended sequence numbers"
	SequenceNumbers64          uint16 = 1 // of which the lower half is sent
	SequenceNumbersUnspecified uint16 = 2 // 32 bits that need not count
)
