package ike

import "fmt"

// ExchangeType is the exchange that a message belongs to. The numbers of
// IKEv1 and IKEv2 do not overlap.
type ExchangeType uint8

// The exchange types (RFC 2408 section 3.1, RFC 2409 appendix A; IANA's IKEv2
// registry).
const (
	BaseV1               ExchangeType = 1
	IdentityProtectionV1 ExchangeType = 2 // main mode
	AuthenticationOnlyV1 ExchangeType = 3
	AggressiveV1         ExchangeType = 4
	InformationalV1      ExchangeType = 5
	TransactionV1        ExchangeType = 6 // mode config; of a draft only
	QuickModeV1          ExchangeType = 32
	NewGroupModeV1       ExchangeType = 33

	SAInit          ExchangeType = 34
	Auth            ExchangeType = 35
	CreateChildSA   ExchangeType = 36
	Informational   ExchangeType = 37
	SessionResume   ExchangeType = 38
	GSAAuth         ExchangeType = 39
	GSARegistration ExchangeType = 40
	GSARekey        ExchangeType = 41
	GSAInbandRekey  ExchangeType = 42
	Intermediate    ExchangeType = 43
	FollowupKE      ExchangeType = 44
)

var exchangeNames = map[ExchangeType]string{
	BaseV1:               "Base",
	IdentityProtectionV1: "Identity Protection",
	AuthenticationOnlyV1: "Authentication Only",
	AggressiveV1:         "Aggressive",
	InformationalV1:      "Informational",
	TransactionV1:        "Transaction",
	QuickModeV1:          "Quick Mode",
	NewGroupModeV1:       "New Group Mode",
	SAInit:               "IKE_SA_INIT",
	Auth:                 "IKE_AUTH",
	CreateChildSA:        "CREATE_CHILD_SA",
	Informational:        "INFORMATIONAL",
	SessionResume:        "IKE_SESSION_RESUME",
	GSAAuth:              "GSA_AUTH",
	GSARegistration:      "GSA_REGISTRATION",
	GSARekey:             "GSA_REKEY",
	GSAInbandRekey:       "GSA_INBAND_REKEY",
	Intermediate:         "IKE_INTERMEDIATE",
	FollowupKE:           "IKE_FOLLOWUP_KE",
}

// String returns the registered name, or the number as in "EXCHANGE_99".
func (t ExchangeType) String() string { return name(exchangeNames, t, "EXCHANGE") }

// PayloadType is the type of a payload. The numbers of IKEv1 and IKEv2 do not
// overlap.
type PayloadType uint8

// NoNextPayload ends a chain of payloads.
const NoNextPayload PayloadType = 0

// The payload types of IKEv1 (RFC 2408 section 3.1, RFC 3947).
const (
	PayloadSAV1        PayloadType = 1
	PayloadProposalV1  PayloadType = 2
	PayloadTransformV1 PayloadType = 3
	PayloadKEV1        PayloadType = 4
	PayloadIDV1        PayloadType = 5
	PayloadCertV1      PayloadType = 6
	PayloadCertReqV1   PayloadType = 7
	PayloadHashV1      PayloadType = 8
	PayloadSignatureV1 PayloadType = 9
	PayloadNonceV1     PayloadType = 10
	PayloadNotifyV1    PayloadType = 11
	PayloadDeleteV1    PayloadType = 12
	PayloadVendorIDV1  PayloadType = 13
	PayloadNATDV1      PayloadType = 20
	PayloadNATOAV1     PayloadType = 21

	// Of private use: those of the drafts before RFC 3947, and of Cisco's.
	PayloadNATDDraftV1  PayloadType = 130
	PayloadNATOADraftV1 PayloadType = 131
	PayloadFragmentV1   PayloadType = 132
)

// The payload types of IKEv2 (IANA's registry).
const (
	PayloadSA        PayloadType = 33
	PayloadKE        PayloadType = 34
	PayloadIDi       PayloadType = 35
	PayloadIDr       PayloadType = 36
	PayloadCert      PayloadType = 37
	PayloadCertReq   PayloadType = 38
	PayloadAuth      PayloadType = 39
	PayloadNonce     PayloadType = 40
	PayloadNotify    PayloadType = 41
	PayloadDelete    PayloadType = 42
	PayloadVendorID  PayloadType = 43
	PayloadTSi       PayloadType = 44
	PayloadTSr       PayloadType = 45
	PayloadEncrypted PayloadType = 46
	PayloadConfig    PayloadType = 47
	PayloadEAP       PayloadType = 48
	PayloadGSPM      PayloadType = 49 // RFC 6467
	PayloadIDg       PayloadType = 50 // RFC 9838, as are the next two
	PayloadGSA       PayloadType = 51
	PayloadKD        PayloadType = 52
	PayloadFragment  PayloadType = 53 // RFC 7383
	PayloadPuzzle    PayloadType = 54 // RFC 8019
)

var payloadNames = map[PayloadType]string{
	NoNextPayload:       "NONE",
	PayloadSAV1:         "SA (v1)",
	PayloadProposalV1:   "P (v1)",
	PayloadTransformV1:  "T (v1)",
	PayloadKEV1:         "KE (v1)",
	PayloadIDV1:         "ID (v1)",
	PayloadCertV1:       "CERT (v1)",
	PayloadCertReqV1:    "CR (v1)",
	PayloadHashV1:       "HASH (v1)",
	PayloadSignatureV1:  "SIG (v1)",
	PayloadNonceV1:      "NONCE (v1)",
	PayloadNotifyV1:     "N (v1)",
	PayloadDeleteV1:     "D (v1)",
	PayloadVendorIDV1:   "VID (v1)",
	PayloadNATDV1:       "NAT-D (v1)",
	PayloadNATOAV1:      "NAT-OA (v1)",
	PayloadNATDDraftV1:  "NAT-D (v1 draft)",
	PayloadNATOADraftV1: "NAT-OA (v1 draft)",
	PayloadFragmentV1:   "FRAG (v1)",
	PayloadSA:           "SA",
	PayloadKE:           "KE",
	PayloadIDi:          "IDi",
	PayloadIDr:          "IDr",
	PayloadCert:         "CERT",
	PayloadCertReq:      "CERTREQ",
	PayloadAuth:         "AUTH",
	PayloadNonce:        "NONCE",
	PayloadNotify:       "N",
	PayloadDelete:       "D",
	PayloadVendorID:     "V",
	PayloadTSi:          "TSi",
	PayloadTSr:          "TSr",
	PayloadEncrypted:    "SK",
	PayloadConfig:       "CP",
	PayloadEAP:          "EAP",
	PayloadGSPM:         "GSPM",
	PayloadIDg:          "IDg",
	PayloadGSA:          "GSA",
	PayloadKD:           "KD",
	PayloadFragment:     "SKF",
	PayloadPuzzle:       "PS",
}

// String returns the registry's notation, or the number as in "PAYLOAD_99".
func (t PayloadType) String() string { return name(payloadNames, t, "PAYLOAD") }

// encrypted reports whether the payload holds others and ends the message.
func (t PayloadType) encrypted() bool { return t == PayloadEncrypted || t == PayloadFragment }

// ProtocolID is a security protocol of a proposal or notify (RFC 7296 section
// 3.3.1).
type ProtocolID uint8

// The protocols.
const (
	ProtocolIKE ProtocolID = 1
	ProtocolAH  ProtocolID = 2
	ProtocolESP ProtocolID = 3
)

var protocolNames = map[ProtocolID]string{ProtocolIKE: "IKE", ProtocolAH: "AH", ProtocolESP: "ESP"}

// String returns the protocol's name, or the number as in "PROTOCOL_99".
func (p ProtocolID) String() string { return name(protocolNames, p, "PROTOCOL") }

// TransformType is what a transform is used for (RFC 7296 section 3.3.2).
type TransformType uint8

// The transform types.
const (
	TransformEncryption  TransformType = 1
	TransformPRF         TransformType = 2
	TransformIntegrity   TransformType = 3
	TransformKeyExchange TransformType = 4
	TransformSequence    TransformType = 5
	TransformADDKE1      TransformType = 6 // RFC 9370: a key exchange beside the first
	TransformADDKE2      TransformType = 7
	TransformADDKE3      TransformType = 8
	TransformADDKE4      TransformType = 9
	TransformADDKE5      TransformType = 10
	TransformADDKE6      TransformType = 11
	TransformADDKE7      TransformType = 12
	TransformKeyWrap     TransformType = 13 // RFC 9838, as is the next
	TransformGroupAuth   TransformType = 14
)

var transformNames = map[TransformType]string{
	TransformEncryption:  "ENCR",
	TransformPRF:         "PRF",
	TransformIntegrity:   "INTEG",
	TransformKeyExchange: "KE",
	TransformSequence:    "SN",
	TransformADDKE1:      "ADDKE1",
	TransformADDKE2:      "ADDKE2",
	TransformADDKE3:      "ADDKE3",
	TransformADDKE4:      "ADDKE4",
	TransformADDKE5:      "ADDKE5",
	TransformADDKE6:      "ADDKE6",
	TransformADDKE7:      "ADDKE7",
	TransformKeyWrap:     "KWA",
	TransformGroupAuth:   "GCAUTH",
}

// String returns the registry's abbreviation, or the number as in
// "TRANSFORM_99".
func (t TransformType) String() string { return name(transformNames, t, "TRANSFORM") }

func name[T ~uint8 | ~uint16](names map[T]string, v T, prefix string) string {
	if s, ok := names[v]; ok {
		return s
	}
	return fmt.Sprintf("%s_%d", prefix, v)
}
